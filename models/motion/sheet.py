"""Clips side by side on one picture: `python -m models.motion.sheet SHEET LABEL CLIP LABEL CLIP ...`.

Each clip is a row of frames spread over it, with its label below.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models import media
from models.arrays import U8
from models.motion.stage import FPS
from models.quality.sheet import DARK, GAP, LINE, choose_tile_size, write_text
from models.types import EngineError

ACROSS = 6


def read_row(clip: Path) -> list[U8]:
    """Return frames spread over a clip, its first and its last among them, as large as on the sheet."""
    with media.VideoFrames(clip, FPS) as video:
        size, last = choose_tile_size(video.width, video.height), len(video) - 1
    with media.VideoFrames(clip, FPS, *size) as video:
        return [video.read(round(place * last / (ACROSS - 1))) for place in range(ACROSS)]


def draw_row(label: str, pictures: Sequence[U8]) -> U8:
    """Return pictures of one size side by side, (h, w, 3) uint8 BGR, with the label below."""
    bordered = [np.pad(one, ((GAP, LINE), (GAP, 0), (0, 0)), constant_values=DARK) for one in pictures]
    row = np.concatenate(bordered, axis=1)
    write_text(row, label, GAP + 2, row.shape[0] - 6)
    return row


def draw_sheet(clips: Sequence[tuple[str, Path]]) -> U8:
    """Return the sheet, (h, w, 3) uint8 BGR, of labels and clips. Raises EngineError avatar_unreadable."""
    rows = [draw_row(label, read_row(clip)) for label, clip in clips]
    wide = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0)), constant_values=DARK) for row in rows]
    )


def main() -> int:
    sheet, *rest = sys.argv[1:]
    try:
        picture = draw_sheet([(label, Path(clip)) for label, clip in zip(rest[::2], rest[1::2], strict=True)])
        media.write_jpeg(Path(sheet), picture)
    except (EngineError, OSError) as error:
        print(f"musedrop: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
