"""Which file of a result is its video. Standard library only: commands start by it."""

from __future__ import annotations

import os
from pathlib import Path

VIDEO_NAMES = ("result.mp4", "result.mov")
"""The video of a result, the second with transparency."""
CLIP_NAME = "clip.mkv"
"""The clip that was made of the photo, in results of jobs that ask for it."""


def find_video(folder: Path) -> Path:
    """Return the path of the video of a result; that of its mp4 where there is none."""
    return next((folder / name for name in VIDEO_NAMES if os.path.lexists(folder / name)), folder / VIDEO_NAMES[0])
