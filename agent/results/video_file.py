"""Which file of a result is its video. Standard library only: commands start by it."""

from __future__ import annotations

import os
from pathlib import Path

VIDEO_NAMES = ("result.mp4", "result.mov")
"""The video of a result, the second with transparency."""
FIRST_NAMES = ("first.mp4", "first.mov")
"""The first part of a video, in outbox/NAME.part while the others are made."""
CLIP_NAME = "clip.mkv"
"""The clip that was made of the photo, in results of jobs that ask for it."""


def find_video(folder: Path) -> Path:
    """Return the path of the video of a result; that of its mp4 where there is none."""
    return _find(folder, VIDEO_NAMES)


def find_first_part(folder: Path) -> Path:
    """Return the path of the video in outbox/NAME.part; that of its mp4 where there is none."""
    return _find(folder, FIRST_NAMES)


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    return next((folder / name for name in names if os.path.lexists(folder / name)), folder / names[0])
