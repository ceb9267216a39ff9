"""What whole numbers of 8 bits do to the pictures of MuseTalk's decoder, stage by stage, on the processor.

It exports the decoder, calibrates it on faces, and holds each stage to the gate: `python -m benchmarks.engines`. With a
models folder as argument it takes the installed weights, else tiny networks, which say nothing about the real ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from models.musetalk.engines.engine_files import build_engine
from models.musetalk.engines.onnx_export import DecodeImage
from models.musetalk.engines.stages import Verdict
from models.musetalk.inpainting.modules import Decode, contiguous_layout, to_bgr
from models.musetalk.selftest.loading import open_networks
from models.musetalk.selftest.samples import draw_face

BATCH = 2
CPU = torch.device("cpu")


def measure_stages(models_dir: Path | None) -> Verdict:
    """Build an engine of the decoder for faces that grow lighter, and return what the gate says."""
    inpainter = open_networks(models_dir, CPU, "fp32").inpainter
    face = draw_face().astype(np.float32)
    crops = np.stack([(face * share).astype(np.uint8) for share in (0.7, 0.8, 0.9, 1.0)])
    latents = inpainter.latents(crops)[:, 4:]
    frames = [{"latents": latents[at : at + BATCH]} for at in range(0, len(latents), BATCH)]
    decode = DecodeImage(Decode(inpainter.networks[1], contiguous_layout))
    with TemporaryDirectory() as folder:
        return build_engine(Path(folder), decode, frames, lambda made: to_bgr(torch.from_numpy(made)))


def format_verdict(verdict: Verdict) -> Iterator[str]:
    """Yield the rows of a table in Markdown."""
    yield "| stage | values within 4 levels | shift of a colour | farthest off | runs in |"
    yield "| --- | --- | --- | --- | --- |"
    for stage, one in verdict.alone.items():
        bits = "8 bits" if stage in verdict.kept else "16 bits"
        yield f"| {stage} | {100 * one.within:.2f} % | {one.shift:.2f} | {one.most} | {bits} |"
    if verdict.together:
        one = verdict.together
        yield f"| all that are kept | {100 * one.within:.2f} % | {one.shift:.2f} | {one.most} | |"


if __name__ == "__main__":
    print("\n".join(format_verdict(measure_stages(Path(sys.argv[1]) if len(sys.argv) > 1 else None))))
