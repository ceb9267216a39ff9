"""The MuseTalk engine: what is wanted, what was found, and the way from one to the other.

Looking at a job and reporting on it need no network, so this room is light; `production` has the heavy half.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.musetalk.avatar.frames import open_yuv
from models.musetalk.avatar.store import INPAINTER_STATS, STATS
from models.musetalk.inpainting.batching import BatchSizes
from models.musetalk.options import Options, read_options
from models.musetalk.weights.index import missing_error, missing_files_for
from models.types import Inspection, ProgressCallback, Request

if TYPE_CHECKING:
    from models.musetalk.session import RenderSession

MIN_BATCH_SIZES = BatchSizes(unet=4, decode=4, encode=4)
"""Batch sizes for which a card must have room; with more room they grow."""


class MuseTalkEngine:
    """See models.types.Engine. `device` is "cpu:0", or the id of the only card that this process sees."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._session: RenderSession | None = None

    def inspect(self, request: Request, outline: Inspection) -> Inspection:
        options, notes = read_options(request.options)
        if missing_files_for(options.version, Path(request.models_dir)):
            raise missing_error(options.version, Path(request.models_dir))
        with open_yuv(request, outline) as frames:
            colour, count = frames.colour, len(frames)
        total = count_reference_frames(outline) if options.is_reference else outline.frames
        return replace(
            outline,
            frames=total,
            colour=outline.colour if options.is_reference else colour,
            units={"inspect": 1, "prepare": 1, "render": total, "assemble": 1},
            memory_bytes=MIN_BATCH_SIZES.device_bytes(4 if options.precision == "fp32" else 2),
            notes=outline.notes + notes,
            details={"avatar_frames": count},
        )

    def load(self, models_dir: str) -> dict[str, Any]:
        """Load what a job with default options needs. A CPU worker loads what its first job needs, when it needs it:
        two sets of weights would take the memory of two."""
        if self.device.startswith("cpu"):
            return {}
        return self._open_session(models_dir, Options(), Path()).measure_footprint()

    def prepare(self, request: Request, outline: Inspection, start: int, stop: int, tick: ProgressCallback) -> None:
        """One unit: what takes long in it is done once for an avatar, and then found in the cache."""
        if not request.files.prepared.exists():
            self.open_session(request).prepare(request, outline, lambda: tick(0))
        tick(stop - start)

    def render(self, request: Request, outline: Inspection, start: int, stop: int) -> Iterator[npt.NDArray[np.uint8]]:
        yield from self.open_session(request).render(request, outline, start, stop)

    def report(self, request: Request, outline: Inspection) -> dict[str, Any]:
        """`thumbnail_frame`, `notes`, and under `musetalk` what is worth knowing of how the video was made."""
        facts: dict[str, Any] = json.loads((request.files.prepared / STATS).read_bytes())
        painted = Path(request.work) / INPAINTER_STATS
        painter = json.loads(painted.read_bytes()) if painted.exists() else {}
        lost = sum(stop - start for start, stop in facts["no_face"])
        notes = [f"{lost} of {outline.frames} frames show no face; they are left as they are"] if lost else []
        poster = facts.pop("poster")
        return {"thumbnail_frame": poster, "notes": notes, "musetalk": {**facts, "painter": painter}}

    def complete(self, request: Request, outline: Inspection, tick: ProgressCallback) -> None:
        """Never called: a video's boxes are smoothed over its whole length, so its preparation is one unit."""

    def open_session(self, request: Request) -> RenderSession:
        """The networks for this job: those of the last one, if they are the same."""
        options, _ = read_options(request.options)
        return self._open_session(request.models_dir, options, Path(request.cache))

    def _open_session(self, models_dir: str, options: Options, cache: Path) -> RenderSession:
        from models.musetalk.session import RenderSession, Setup, select_device

        setup = Setup.of(models_dir, options, cache)
        if self._session is None or self._session.studio.setup != setup:
            self._session = None  # the old ones go before the new ones take their memory
            self._session = RenderSession(setup, select_device(self.device))
        return self._session


def count_reference_frames(outline: Inspection) -> int:
    """Whole frames only, as the reference counts them. At a rate that is not whole it would lose the sound's end."""
    whole = outline.rate.denominator == 1
    return max(1, int(outline.duration_s * int(outline.rate))) if whole else outline.frames
