"""What convolutions in 8 bits do to MuseTalk's pictures, stage by stage, by ONNX Runtime on the processor.

    python -m benchmarks.engines [FOLDER] [--bits int8|fp8] [--size tiny|full] [--frames N] [--networks unet decode]
                                 [--emulate]

Each stage is calibrated on faces and held to the gate, as a job does it. With a models folder its weights are taken;
else random ones of a size whose 3 x 3 kernels are smooth, as trained ones are, which say little about those.
With `--emulate` PyTorch rounds in the same places: both networks of full size then take 8 GiB of memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.emulation import Emulation
from benchmarks.musetalk import SIZES, random_net
from models.arrays import F32
from models.musetalk.audio.features import audio_windows
from models.musetalk.audio.speech import make_speech
from models.musetalk.engines.calibration import Calibration, Sample
from models.musetalk.engines.onnx_export import export_networks
from models.musetalk.engines.plan import NETWORKS, EnginePlan
from models.musetalk.engines.providers import Host
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.selftest.loading import RATE, open_networks
from models.musetalk.selftest.samples import draw_face

CPU = torch.device("cpu")
LIGHTS = (0.7, 0.8, 0.9, 1.0)
"""How light the built-in face is in the frames."""
PLAIN = 0.1
"""The share of a smooth kernel that stays random."""


def smooth_kernels(net: torch.nn.Module) -> torch.nn.Module:
    """Make the 3 x 3 kernels of a network smooth, with the spread that they had."""
    bell = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0]))
    for weight in net.parameters():
        if weight.dim() == 4 and weight.shape[2:] == (3, 3):
            made = weight.data[:, :, 1:2, 1:2] * bell / bell.norm() * 3 + PLAIN * weight.data
            weight.data.copy_(made / made.norm() * weight.data.norm())
    return net


def open_smooth(size: str) -> tuple[Inpainter, F32]:
    """Return networks of a size, and what is heard at each frame."""
    nets = SIZES[size]
    unet, vae = (random_net(build, torch.float32) for build in (nets.build_unet, nets.build_vae))
    for net in (unet, vae):
        smooth_kernels(net)
    inpainter = Inpainter(unet, vae, CPU)
    heard = np.random.default_rng(0).standard_normal((len(LIGHTS), 50, nets.features)).astype(np.float32)
    return inpainter, heard


def open_installed(models_dir: Path) -> tuple[Inpainter, F32]:
    networks = open_networks(models_dir, CPU, "fp32")
    speech = make_speech(1.0)
    heard = audio_windows(networks.whisper_encoder.encode(speech), len(speech), RATE, range(len(LIGHTS)))
    return networks.inpainter, heard


def measure_stages(
    inpainter: Inpainter, heard: F32, bits: str, frames: int, networks: Sequence[str], *, emulate: bool = False
) -> EnginePlan:
    """Return the plan for faces that grow lighter, with what the gate says of each stage."""
    face = draw_face().astype(np.float32)
    latents = inpainter.latents(np.stack([(face * share).astype(np.uint8) for share in LIGHTS[:frames]]))
    batches = dict.fromkeys(networks, 1)
    plan = EnginePlan("fp8" if bits == "fp8" else "int8", "fp32", batches, (heard.shape[1], heard.shape[2]))
    if emulate:
        return Emulation(inpainter, Sample(inpainter, latents, heard[:frames]), plan).choose()
    with TemporaryDirectory() as name:
        exported, scratch = Path(name) / "exported", Path(name) / "scratch"
        exported.mkdir()
        scratch.mkdir()
        export_networks(inpainter.networks, batches, plan.windows, exported)
        return Calibration(exported, scratch, plan, Sample(inpainter, latents, heard[:frames]), Host()).choose()


def format_plan(plan: EnginePlan) -> Iterator[str]:
    """Yield the rows of a table in Markdown."""
    yield "| stage | values within 4 levels | shift of a colour | farthest off | runs in |"
    yield "| --- | --- | --- | --- | --- |"
    for stage, one in plan.verdict.items():
        runs_in = plan.stages.get(stage, "")
        yield f"| {stage} | {100 * one['within']:.2f} % | {one['shift']:.2f} | {one['most']:.0f} | {runs_in} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--bits", choices=("int8", "fp8"), default="int8")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=NETWORKS)
    parser.add_argument("--emulate", action="store_true")
    args = parser.parse_args()
    inpainter, heard = open_installed(args.folder) if args.folder else open_smooth(args.size)
    plan = measure_stages(inpainter, heard, args.bits, args.frames, args.networks, emulate=args.emulate)
    print("\n".join(format_plan(plan)))


if __name__ == "__main__":
    main()
