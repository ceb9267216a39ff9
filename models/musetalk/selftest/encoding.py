"""The encoders of a device, each against the pictures that it was given. Imports no torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from models import media
from models.media.output.encoders import ENCODERS, probe_encoder
from models.musetalk.selftest.samples import draw_frames

Figures = dict[str, Any]
WIDTH, HEIGHT, FRAMES, CRF = 1280, 720, 25, 18
RATE = Fraction(25)


def compare_encoders(tick: Callable[[], None]) -> Figures:
    """Return for each encoder its `state`, and where it is usable `psnr_db` of the decoded pictures, `fps`, `bytes`."""
    frames = draw_frames(WIDTH, HEIGHT, FRAMES)
    found: Figures = {}
    for encoder in ENCODERS:
        tick()
        state = probe_encoder(encoder)
        found[encoder] = {"state": state, **(_measure_encoder(encoder, frames) if state == "usable" else {})}
    return found


def _measure_encoder(encoder: str, frames: list[Any]) -> Figures:
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "encoder": encoder, "crf": CRF}
    with TemporaryDirectory(prefix="musedrop-selftest-") as folder:
        path = Path(folder) / "part.mp4"
        began_s = time.perf_counter()
        media.write_part(path, iter(frames), count=len(frames), fps=RATE, progress=lambda _: None, **size)
        seconds = time.perf_counter() - began_s
        with media.VideoFrames(path, RATE) as video:
            squares = [float(np.mean((video.read(n).astype(float) - frame) ** 2)) for n, frame in enumerate(frames)]
        size_bytes = path.stat().st_size
    mean_square = max(float(np.mean(squares)), 1e-9)
    psnr_db = round(10 * math.log10(255**2 / mean_square), 2)
    return {"psnr_db": psnr_db, "fps": round(len(frames) / seconds, 1), "bytes": size_bytes}
