"""How long the weights of MuseTalk take to be ready after the imports: full size, random numbers, several ways.

python -m benchmarks.weights [FOLDER]     needs 10 GB in FOLDER (default: a temporary folder)

All six networks in float32:
"converted"   what `musedrop models import` writes: safetensors, meta device, mapped, assigned
"as fetched"  the published files: torch.load(weights_only=True, mmap=True), meta device, assigned
"plain"       build with random numbers, read the pickle into memory, copy: how it is usually written

UNet and VAE as a worker opens them for its fast way, until the inpainter could begin:
"ready"       from the ready files that `musedrop models import` writes: folded, in this precision, in this order
"made"        without them: converted and folded at each start

Every figure is of a new process, median of three, the files in the page cache. "touched" is reading every byte once,
as the first frame on a CPU does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models.musetalk.weights.published_configs import MEL, UNET, VAE, WHISPER

RUNS = 3
WAYS = ("converted", "as fetched", "plain")
PAINTERS = ("ready", "made")


def published():  # type: ignore[no-untyped-def]
    """The networks by the files that they are published in, with numbers of no meaning."""
    from models.musetalk.nets import bisenet, dwpose, s3fd
    from models.musetalk.weights import architectures as networks

    return {
        "musetalkV15/unet.pth": networks.build_unet(UNET.values, {}),
        "sd-vae/diffusion_pytorch_model.bin": networks.build_vae(VAE.values, {}),
        "whisper/pytorch_model.bin": networks.build_whisper(WHISPER.values, {}),
        "dwpose/dw-ll_ucoco_384.pth": dwpose.DwPose(),
        "face-parse-bisent/79999_iter.pth": bisenet.BiSeNet(),
        "s3fd/s3fd-619a316812.pth": s3fd.S3FD(),
    }


def lay_out(root: Path, only: tuple[str, ...] = ("",), precisions: tuple[str, ...] = ()) -> None:
    """The published layout with random numbers, then its conversion beside it; says how long that took.

    only         of these networks, by a part of their files' names
    precisions   that are kept ready; by default the one that an import takes by itself
    """
    import torch

    from models.musetalk.commands import convert
    from models.musetalk.inpainting.precision import best_precision
    from models.musetalk.weights import architectures as networks

    for name, config in {
        "musetalkV15/musetalk.json": UNET,
        "sd-vae/config.json": VAE,
        "whisper/config.json": WHISPER,
        "whisper/preprocessor_config.json": MEL,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(config.values))
    with torch.device("meta"):
        nets = published()
    for file, net in nets.items():
        if not any(name in file for name in only):
            continue
        prefix = networks.ENCODER if file.startswith("whisper") else ""
        state = {prefix + name: random_like(tensor) for name, tensor in net.state_dict().items()}
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, root / file)
    start = time.perf_counter()
    list(convert.import_folder(root, root, replace=False, precisions=precisions or (best_precision(),)))
    size = sum(path.stat().st_size for path in (root / "converted").iterdir())
    print(f"musedrop models import: {time.perf_counter() - start:.1f} s for {size / 2**30:.2f} GiB, once")


def random_like(tensor):  # type: ignore[no-untyped-def]
    import torch

    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return torch.empty(tensor.shape).uniform_(-0.02, 0.02)


def child(way: str, root: Path) -> None:
    """One start: prints seconds of imports, of opening (wall, CPU), of touching, and the peak of memory."""
    begun = time.perf_counter()
    import torch

    imported, before = time.perf_counter(), time.process_time()
    nets = painted(root, way) if way.startswith(PAINTERS) else plain(root) if way == "plain" else opened(root, way)
    ready, cpu = time.perf_counter(), time.process_time() - before
    peak = peak_gib()
    with torch.inference_mode():
        for net in nets:
            for tensor in net.state_dict().values():
                tensor.max()
    touched = time.perf_counter()
    print(json.dumps([imported - begun, ready - imported, cpu, touched - ready, peak]))


def peak_gib() -> float:
    """The most memory this process has had resident; unlike getrusage it doesn't begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def opened(root: Path, way: str) -> list:  # type: ignore[type-arg]
    import torch

    from models.musetalk.weights import loader as weights
    from models.musetalk.weights.index import InstalledPart, get_part

    number = {"converted": 0, "as fetched": 2}[way]
    names = ("unet-v15", "vae", "whisper", "pose", "bisenet", "s3fd")
    parts = [get_part(name) for name in names]
    cpu = torch.device("cpu")
    return [weights.load_part(InstalledPart(part, part.variants[number], root), cpu, torch.float32) for part in parts]


def painted(root: Path, way: str) -> list:  # type: ignore[type-arg]
    """UNet and VAE of the inpainter that a worker with the precision in `way` gets: "ready bf16", "made fp16 cuda"."""
    import torch

    from models.musetalk import networks as networks_module
    from models.musetalk.inpainting.fused_weights import optimise
    from models.musetalk.weights import loader as weights

    kind, precision, *device = way.split()
    if kind == "made":
        vars(networks_module)["load_optimised"] = lambda *given: optimise(weights.load_part(*given))
    setup = networks_module.Setup(str(root), "v15", precision, None, False, None)  # type: ignore[arg-type]
    inpainter = networks_module.Networks(setup, torch.device(*device or ["cpu"])).inpainter
    assert inpainter.stats()["precision"] == precision
    return [inpainter._predict.unet, inpainter._encode.vae]


def plain(root: Path) -> list:  # type: ignore[type-arg]
    import torch

    from models.musetalk.weights import architectures as networks

    nets = published()
    for file, net in nets.items():
        state = torch.load(root / file, weights_only=True, mmap=False)
        net.load_state_dict({name.removeprefix(networks.ENCODER): tensor for name, tensor in state.items()})
    return list(nets.values())


def measured(way: str, root: Path) -> list[float]:
    runs = []
    for _ in range(RUNS):
        command = [sys.executable, "-m", "benchmarks.weights", "--child", way, str(root)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(told.splitlines()[-1]))
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def table(ways: list[str], root: Path) -> None:
    print(f"{'':15} {'imports':>9} {'ready':>9} {'of it CPU':>9} {'touched':>9} {'peak RSS':>10}")
    for way in ways:
        imports, ready, cpu, touched, peak = measured(way, root)
        print(f"{way:15} {imports:7.2f} s {ready:7.2f} s {cpu:7.2f} s {touched:7.2f} s {peak:6.2f} GiB", flush=True)


def settings() -> list[str]:
    """In which precision, and where, the inpainter is opened."""
    import torch

    return ["bf16", "fp32", *(["fp16 cuda"] if torch.cuda.is_available() else [])]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        root, wanted = Path(folder), settings()
        lay_out(root, precisions=tuple(setting.split()[0] for setting in wanted))
        print(f"load of the machine {os.getloadavg()[0]:.1f}")
        table(list(WAYS), root)
        table([f"{way} {setting}" for setting in wanted for way in PAINTERS], root)
        print(f"load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
