"""What the MuseTalk engine costs, stage by stage, plain beside fast, with random weights.

    python -m benchmarks.musetalk [--size tiny|full] [--device cpu|cuda] [--rounds N] [--threads N] [--before FOLDER]

After the model loop come the stages beside it (face networks, paste, x264) and whole clips at 720p; see `clips`.
`--before` names a folder with the code of an older version, which runs the model loop and the same clips in turn.
Plain is the published program's way: its modules as they are, float32 on a CPU and fp16 on CUDA. All ways run in turn
in one process and the best round of each counts. Starts and peak memory are measured in processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks import cards, clips  # noqa: E402
from gpu_pool.types import grid  # noqa: E402
from models.musetalk.audio.features import CHUNK_SAMPLES  # noqa: E402
from models.musetalk.audio.whisper import WhisperEncoder  # noqa: E402
from models.musetalk.inpainting.batching import BatchSizes, count_slots, grid_step  # noqa: E402
from models.musetalk.inpainting.compile import make_kernel_folder  # noqa: E402
from models.musetalk.inpainting.fused_weights import optimise  # noqa: E402
from models.musetalk.inpainting.inpainter import Inpainter, open_inpainter  # noqa: E402
from models.musetalk.inpainting.modules import SIDE, Decode, Encode, Predict, contiguous_layout  # noqa: E402
from models.musetalk.inpainting.precision import candidate_dtypes, has_cpu_bf16, precision_name  # noqa: E402
from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel  # noqa: E402
from models.musetalk.nets.whisper import Encoder, MelSpectrogram  # noqa: E402
from models.musetalk.weights.architectures import build_taesd  # noqa: E402

IMPORTED_S = time.perf_counter() - BEGAN
GIB = 2**30
FPS = 25
PER_FRAME = ("whisper", "unet", "decode", "paste", "x264")
"""What each frame of a result costs when the avatar is prepared; "share" is of their sum."""
WASTE_OF = (50, 125, 129, 250, 500, 1500)
"""Frames of a job: 2 s to a minute."""
GRID_UNET, GRID_DECODE = (4, 8, 16, 32), (1, 2, 4, 8, 16)

UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE: dict[str, Any] = {
    "sample_size": 256,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


@dataclass(frozen=True)
class Nets:
    """The widths of the networks."""

    unet: tuple[int, ...]
    vae: tuple[int, ...]
    groups: int
    layers: int
    heads: int
    features: int

    def build_unet(self) -> UNet2DConditionModel:
        widths = {"block_out_channels": self.unet, "norm_num_groups": self.groups, "cross_attention_dim": self.features}
        return UNet2DConditionModel(**UNET, **widths)

    def build_vae(self) -> AutoencoderKL:
        widths = {"block_out_channels": self.vae, "norm_num_groups": self.groups, "layers_per_block": self.layers}
        return AutoencoderKL(**VAE, **widths)

    def build_taesd(self) -> torch.nn.Module:
        """The small decoder of drafts, which has one size."""
        return build_taesd({}, {})

    def build_whisper(self) -> Encoder:
        config: dict[str, Any] = {
            "d_model": self.features,
            "encoder_attention_heads": self.heads,
            "encoder_ffn_dim": 4 * self.features,
        }
        return Encoder(encoder_layers=4, **config)


SIZES = {
    "tiny": Nets((16, 32, 32, 32), (8, 16, 16, 16), groups=8, layers=1, heads=2, features=64),
    "full": Nets((320, 640, 1280, 1280), (128, 256, 512, 512), groups=32, layers=2, heads=6, features=384),
}


# networks ------------------------------------------------------------------------------------------------------------


def shell(build: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return build().eval().requires_grad_(False)


def random_net(build: Callable[[], Any], dtype: torch.dtype) -> Any:
    """Weights that keep the spread of what goes through."""
    net = torch.nn.Module.to(shell(build).to_empty(device="cpu"), dtype)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.named_parameters():
        if tensor.ndim > 1:
            tensor.normal_(0, (tensor.shape[0] / tensor.numel()) ** 0.5, generator=generator)
        else:
            tensor.fill_(float(name.endswith("weight")))
    return net


def loaded(build: Callable[[], Any], path: Path) -> Any:
    net = shell(build)
    net.load_state_dict(load_file(path), assign=True)
    return net


def gflop(nets: Nets) -> dict[str, float]:
    """Of one frame, multiplications and additions; "encode" is of one source frame."""
    unet, vae = shell(nets.build_unet), shell(nets.build_vae)
    like: dict[str, Any] = {"device": "meta", "dtype": torch.float32}
    latents, audio_windows = torch.empty(1, 8, 32, 32, **like), torch.empty(1, 50, nets.features, **like)
    taesd = shell(nets.build_taesd)
    work: dict[str, Callable[[], Any]] = {
        "taesd": lambda: Decode(taesd, contiguous_layout).image(latents[:, :4]),
        "unet": lambda: Predict(unet, contiguous_layout).to("meta")(latents, audio_windows),
        "decode": lambda: Decode(vae, contiguous_layout).image(latents[:, :4]),
        "encode": lambda: Encode(vae, contiguous_layout)(
            torch.empty(1, SIDE, SIDE, 3, device="meta", dtype=torch.uint8)
        ),
    }
    return {name: counted(run) for name, run in work.items()}


def gflop_folded(nets: Nets) -> float:
    """Of a frame in UNet and decoder, after the exact folds."""
    unet, vae = optimise(shell(nets.build_unet)), optimise(shell(nets.build_vae))
    latents, windows = torch.empty(1, 8, 32, 32, device="meta"), torch.empty(1, 50, nets.features, device="meta")
    predict = Predict(unet, contiguous_layout).to("meta")
    return counted(lambda: predict(latents, windows)) + counted(
        lambda: Decode(vae, contiguous_layout).image(latents[:, :4])
    )


def counted(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e9


# speed ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Time:
    """Seconds of a frame: on the clock, and of all the threads of this process."""

    wall_s: float
    cpu_s: float

    def of(self, cpu: bool) -> float:
        """What counts: on a CPU its own time, as other programs run beside."""
        return self.cpu_s if cpu else self.wall_s

    def better(self, other: Time) -> Time:
        return Time(min(self.wall_s, other.wall_s), min(self.cpu_s, other.cpu_s))


Beside = dict[str, tuple[int, Time]]
"""Of stages beside the model loop the frames at once, and the time."""


def timed(work: Callable[[], Any], frames: float, device: torch.device) -> Time:
    finish(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    finish(device)
    return Time((time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames)


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stages(
    inpainter: Inpainter, encoder: WhisperEncoder | None, nets: Nets
) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """Name, frames, and the work for them."""
    random = np.random.default_rng(0)
    unet, decode, encode = inpainter.sizes.unet, inpainter.sizes.decode, inpainter.sizes.encode
    latents = random.normal(size=(unet, 8, 32, 32)).astype(np.float32)
    audio_windows = random.normal(size=(unet, 50, nets.features)).astype(np.float32)
    crops = random.integers(0, 256, (encode, SIDE, SIDE, 3), np.uint8)
    given = [torch.from_numpy(a).to(inpainter.device) for a in (latents, audio_windows)]
    predicted = torch.randn(decode, 4, 32, 32).to(inpainter.device, inpainter.dtype)
    no_grad = torch.no_grad()
    if encoder is not None:
        piece = random.normal(0, 0.1, CHUNK_SAMPLES).astype(np.float32)
        yield "whisper", CHUNK_SAMPLES / 16_000 * FPS, lambda: encoder.encode_chunk(piece)
    yield "encode", encode, lambda: inpainter.latents(crops)
    predict = no_grad(lambda: inpainter.pick_module("unet")(*given))
    paint = no_grad(lambda: inpainter.pick_module("decode")(predicted))
    taesd = torch.nn.Module.to(random_net(nets.build_taesd, inpainter.dtype), inpainter.device)
    draft = no_grad(lambda: Decode(taesd, contiguous_layout)(predicted))
    yield "unet", unet, clips.in_stream(inpainter._stream, predict)
    yield "decode", decode, clips.in_stream(inpainter._stream, paint)
    yield "taesd", decode, clips.in_stream(inpainter._stream, draft)
    frames = unet * (inpainter._stream.depth if inpainter.device.type == "cpu" else 8)
    many = [np.tile(a, (frames // unet, *[1] * (a.ndim - 1))) for a in (latents, audio_windows)]
    yield "loop", frames, lambda: inpainter.inpaint(many[0], many[1])


def measure(
    inpainters: dict[str, Inpainter], encoder: WhisperEncoder, nets: Nets, rounds: int
) -> dict[str, dict[str, Time]]:
    """Best of some rounds of each way and stage; the ways take turns, after one round that doesn't count."""
    best: dict[str, dict[str, Time]] = {way: {} for way in inpainters}
    for turn in range(rounds + 1):
        for way, inpainter in inpainters.items():
            for stage, frames, work in stages(inpainter, encoder, nets):
                spent = timed(work, frames, inpainter.device)
                if turn:
                    best[way][stage] = spent.better(best[way].get(stage, spent))
    return best


def build_inpainters(nets: Nets, device: torch.device, cache: Path) -> dict[str, Inpainter]:
    """Plain, fast and, on CUDA, compiled."""
    cuda = device.type == "cuda"
    exact = torch.float16 if cuda else torch.float32
    fast = candidate_dtypes("auto", device.type, cpu_bf16=has_cpu_bf16())[0]
    made = {
        "plain": Inpainter(random_net(nets.build_unet, exact), random_net(nets.build_vae, exact), device, plain=True)
    }
    made["fast"] = Inpainter(random_net(nets.build_unet, fast), random_net(nets.build_vae, fast), device)
    if cuda:
        made["compiled"] = Inpainter(random_net(nets.build_unet, fast), random_net(nets.build_vae, fast), device)
        made["compiled"].compile(make_kernel_folder(cache, device))
        made["compiled"].wait_until_compiled(600)
    return made


# starts and memory, in other processes -------------------------------------------------------------------------------


def starts(size: str, device: torch.device, scratch: Path, threads: int) -> Iterator[dict[str, Any]]:
    nets, cuda = SIZES[size], device.type == "cuda"
    fast = candidate_dtypes("auto", device.type, cpu_bf16=has_cpu_bf16())[0]
    for way, dtype in (("plain", torch.float16 if cuda else torch.float32), ("fast", fast)):
        save_file(random_net(nets.build_unet, dtype).state_dict(), scratch / "unet.safetensors")
        save_file(random_net(nets.build_vae, dtype).state_dict(), scratch / "vae.safetensors")
        command = [sys.executable, "-m", "benchmarks.musetalk", "--child", way, "--size", size, "--device", device.type]
        command += ["--folder", str(scratch), "--precision", precision_name(dtype), "--threads", str(threads)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        yield json.loads(run.stdout.splitlines()[-1])


def child(args: argparse.Namespace) -> dict[str, Any]:
    """A worker's start, from its imports to its second batch."""
    nets, device = SIZES[args.size], torch.device(args.device)
    began = time.perf_counter()

    def load(_: torch.dtype) -> tuple[UNet2DConditionModel, AutoencoderKL]:
        folder = Path(args.folder)
        unet = loaded(nets.build_unet, folder / "unet.safetensors")
        return unet, loaded(nets.build_vae, folder / "vae.safetensors")

    inpainter = open_inpainter(load, device, args.precision, plain=args.child == "plain")
    ready = time.perf_counter()
    batch = inpainter.sizes.unet
    given = np.zeros((batch, 8, 32, 32), np.float32), np.zeros((batch, 50, nets.features), np.float32)
    inpainter.inpaint(*given)
    first = time.perf_counter()
    inpainter.inpaint(*given)
    second = time.perf_counter()
    return {
        "way": args.child,
        "precision": precision_name(inpainter.dtype),
        "imports_s": IMPORTED_S,
        "load_s": ready - began,
        "first_batch_s": first - ready,
        "next_batch_s": second - first,
        "host_gib": peak_host_bytes() / GIB,
        "device_gib": torch.cuda.max_memory_reserved(device) / GIB if device.type == "cuda" else 0.0,
    }


def peak_host_bytes() -> int:
    """Of this program alone; getrusage would count the process that it was forked from too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


# an older version ----------------------------------------------------------------------------------------------------


Turn = tuple[Time, str]
"""A round of the model loop: the time of a frame, and a hash of the faces."""


def measure_versions(
    size: str, device: torch.device, folder: Path, rounds: int, threads: int, before: Path
) -> dict[str, list[Turn]]:
    """Run the fast model loop of an older version and of this one in turn; the first round doesn't count."""
    nets, fast = SIZES[size], candidate_dtypes("auto", device.type, cpu_bf16=has_cpu_bf16())[0]
    save_file(random_net(nets.build_unet, fast).state_dict(), folder / "unet.safetensors")
    save_file(random_net(nets.build_vae, fast).state_dict(), folder / "vae.safetensors")
    program = str(Path(__file__).with_name("model_loop.py"))
    found: dict[str, list[Turn]] = {"before": [], "now": []}
    with contextlib.ExitStack() as stack:
        loops = {
            name: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, program, str(code), size, str(folder), device.type, str(threads)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for name, code in (("before", before.resolve()), ("now", Path.cwd()))
        }
        for turn in range(rounds + 1):
            for name, loop in loops.items():
                print("", file=loop.stdin, flush=True)
                wall_s, cpu_s, faces = json.loads(loop.stdout.readline())  # type: ignore[union-attr]
                if turn:
                    found[name].append((Time(wall_s, cpu_s), faces))
    return found


# tables --------------------------------------------------------------------------------------------------------------


def report_speed(
    size: str,
    inpainters: dict[str, Inpainter],
    found: dict[str, dict[str, Time]],
    work: dict[str, float],
    beside: Beside,
) -> None:
    """Rows of a frame each: of the result, or for "encode" and the face networks (of full size) of the avatar."""
    heads = (("way", -10), ("stage", -10), ("batch", 6), ("wall ms", 10), ("CPU ms", 10), ("share", 8), ("TF/s", 8))
    print(f"{'':10}" + "".join(f"{head:{'<' if wide < 0 else '>'}{abs(wide)}}" for head, wide in heads) + "  x plain")
    for way, times in found.items():
        cpu = inpainters[way].device.type == "cpu"
        whole = sum(spent.of(cpu) for stage, spent in times.items() if stage in PER_FRAME)
        whole += sum(spent.of(True) for stage, (_, spent) in beside.items() if stage in PER_FRAME)
        for stage, spent in times.items():
            batch = getattr(inpainters[way].sizes, stage, "")
            rate = f"{work[stage] / spent.of(cpu) / 1000:8.3f}" if stage in work else f"{'':8}"
            gain = found["plain"][stage].of(cpu) / spent.of(cpu)
            print(f"{row(size, way, stage, batch, spent, spent.of(cpu) / whole)}{rate}{gain:9.2f}")
        if way != "plain":
            for stage, (frames, spent) in beside.items():
                print(row(size, way, stage, frames, spent, spent.cpu_s / whole))
        fps = 1 / times["loop"].wall_s
        print(f"{size:10}{way:10}model loop {fps:.2f} fps, {precision_name(inpainters[way].dtype)}", flush=True)


def row(size: str, way: str, stage: str, batch: object, spent: Time, share: float) -> str:
    part = f"{share:8.1%}" if stage in PER_FRAME else f"{'':8}"
    return f"{size:10}{way:10}{stage:10}{batch!s:>6}{1000 * spent.wall_s:10.2f}{1000 * spent.cpu_s:10.2f}{part}"


def measure_beside(device: torch.device, folder: Path, rounds: int) -> Beside:
    """Face networks (a source frame, full size) and what a CPU core does to a frame: the best of some rounds."""
    found: Beside = {}
    for stage, frames, work in [*clips.face_stages(device), *clips.host_stages(folder)]:
        times = [timed(work, frames, device) for _ in range(rounds + 1)]
        found[stage] = frames, min(times, key=lambda spent: spent.cpu_s)
    return found


def report_versions(size: str, found: dict[str, list[Turn]]) -> None:
    """Medians of the rounds; how many times as fast is that of neighbouring ones."""
    print("\nthe model loop in turn with the older version: a frame each, medians")
    pairs = list(zip(found["before"], found["now"], strict=True))
    for cpu, clock in ((False, "on the clock"), (True, "of CPU time")):
        before, now = (1000 * statistics.median(time.of(cpu) for time, _ in found[name]) for name in found)
        ratio = statistics.median(old.of(cpu) / new.of(cpu) for (old, _), (new, _) in pairs)
        print(f"{size:10}before {before:.2f} ms {clock}, now {now:.2f} ms: {ratio:.2f} times as fast")
    same = len({faces for rounds in found.values() for _, faces in rounds}) == 1
    print(f"{size:10}{'the same faces to the bit' if same else 'other faces'}", flush=True)


def report_clips(size: str, device: torch.device, folder: Path, threads: int, before: Path | None) -> None:
    """Rows of whole jobs; "cold" loads weights and prepares the avatar, "warm" is the second job of the same worker."""
    print("\nwhole jobs, settled files to published mp4: a frame of the result each")
    for one in clips.clips(size, device, folder, threads, before):
        wall, cpu = one["wall_s"] / one["frames"], one["cpu_s"] / one["frames"]
        cached = "avatar cached" if one["cached"] else "avatar prepared"
        figures = f"{1000 * wall:10.2f}{1000 * cpu:10.2f}   in all {one['wall_s']:.2f} s, {1 / wall:.1f} fps, {cached}"
        print(f"{size:10}{one['code']:10}{one['name']:10}{'':6}{figures}", flush=True)


def report_waste() -> None:
    """Slots of batches that no frame is wanted from, for jobs as they are cut and, beside, for spans of any length."""
    step = grid_step()
    print(f"\nslots of batches of {step} that are computed and not wanted: spans that end between batches, and now")
    for frames in WASTE_OF:
        cut, aligned = ([(span.start, span.stop) for span in grid(frames, one)] for one in (1, step))
        before, now = count_slots(cut, step, 0) / frames - 1, count_slots(aligned, step, frames) / frames - 1
        print(f"{frames:6} frames{before:10.1%}{now:10.1%}")


def report_starts(size: str, found: Iterator[dict[str, Any]]) -> None:
    """Cold: what a new worker spends before its first faces are there. Warm: the next batch."""
    print("\na worker's cold start (imports, load, 1st batch), then warm; peak memory")
    print(f"{'':10}{'way':10}{'imports':>9}{'load':>9}{'1st batch':>11}{'next':>9}{'host GiB':>10}{'device GiB':>12}")
    for one in found:
        spent = f"{one['imports_s']:8.2f}s{one['load_s']:8.2f}s{one['first_batch_s']:10.2f}s{one['next_batch_s']:8.2f}s"
        print(f"{size:10}{one['way']:10}{spent}{one['host_gib']:10.2f}{one['device_gib']:12.2f}", flush=True)


def report_grid(inpainters: dict[str, Inpainter], nets: Nets, work: dict[str, float], cache: Path) -> None:
    """CUDA: frames a second of the model loop and TF/s, by both batch sizes."""
    total = work["unet"] + work["decode"]
    for way, inpainter in inpainters.items():
        print(f"\n{way}: fps (TF/s) of the model loop; down: UNet's batch, across: the decoder's {GRID_DECODE}")
        for unet in GRID_UNET:
            row = [
                grid_cell(inpainter, BatchSizes(unet, decode, 1), nets, cache)
                for decode in GRID_DECODE
                if decode <= unet
            ]
            print(f"{unet:4}" + "".join(f"{fps:9.1f} ({fps * total / 1000:4.0f})" for fps in row), flush=True)


def grid_cell(inpainter: Inpainter, sizes: BatchSizes, nets: Nets, cache: Path) -> float:
    inpainter.set_sizes(sizes)
    if inpainter._fast:
        inpainter.compile(make_kernel_folder(cache, inpainter.device))
        inpainter.wait_until_compiled(600)
    work = {stage: (run, frames) for stage, frames, run in stages(inpainter, None, nets)}
    run, frames = work["loop"]
    timed(run, frames, inpainter.device)
    fps = 1 / min(timed(run, frames, inpainter.device).wall_s for _ in range(3))
    return fps if inpainter.sizes == sizes else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, action="append")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--before", type=Path)
    for name in ("--child", "--folder", "--precision"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        args.size = args.size[0]
        print(json.dumps(child(args)))
        return
    device = torch.device(args.device)
    report_waste()
    for size in args.size or SIZES:
        nets, work = SIZES[size], gflop(SIZES[size])
        counted = ", ".join(f"{name} {value:.1f}" for name, value in work.items())
        print(f"\n{size} networks on {device}, {args.threads} threads; GFLOP a frame: {counted}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            inpainters = build_inpainters(nets, device, scratch)
            encoder = WhisperEncoder(
                random_net(nets.build_whisper, torch.float32), MelSpectrogram(), device, torch.float32
            )
            found = measure(inpainters, encoder, nets, args.rounds)
            report_speed(size, inpainters, found, work, measure_beside(device, scratch, args.rounds))
            if size == "full":
                best = min(times["loop"].wall_s for times in found.values())
                cards.report(work["unet"] + work["decode"], gflop_folded(nets), (device.type, 1 / best))
            if device.type == "cpu":
                inpainters.clear()  # the memory of two sets of weights
            if args.before:
                report_versions(size, measure_versions(size, device, scratch, args.rounds, args.threads, args.before))
            report_clips(size, device, scratch, args.threads, args.before)
            if device.type == "cuda" and size == "full":
                report_grid(inpainters, nets, work, scratch)
            inpainters.clear()
            report_starts(size, starts(size, device, scratch, args.threads))


if __name__ == "__main__":
    main()
