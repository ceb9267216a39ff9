"""A folder of numbered pictures as one video without loss: `python -m models.media.numbered FOLDER VIDEO FPS`.

MuseTalk takes such a folder as an avatar. A job reads one file, so the pictures become one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from models.arrays import U8
from models.media.picture import read_image
from models.types import EngineError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
HINT = "name the pictures by their numbers: 0001.png, 0002.png ..."


def find_numbered(folder: Path) -> list[Path]:
    """Return the pictures of a folder by their numbers. Raises EngineError avatar_unreadable.

    Other files are left aside; a picture whose name is no number, and a number twice, are refused.
    """
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    if unnumbered := sorted(path.name for path in pictures if not path.stem.isdecimal()):
        raise _error(f"{unnumbered[0]} in {folder.name} has no number for a name")
    if not pictures:
        raise _error(f"{folder.name} holds no pictures ({', '.join(SUFFIXES)})")
    ordered = sorted(pictures, key=lambda path: int(path.stem))
    if len({int(path.stem) for path in pictures}) < len(pictures):
        raise _error(f"{folder.name} holds two pictures of one number")
    return ordered


def read_numbered(pictures: list[Path]) -> Iterator[U8]:
    """Yield the pictures, BGR. Raises EngineError avatar_unreadable for one of another size than the first."""
    shape = None
    for path in pictures:
        picture = read_image(path)
        shape = shape or picture.shape
        if picture.shape != shape:
            size, first = (f"{one[1]} x {one[0]}" for one in (picture.shape, shape))
            raise _error(f"{path.name} has {size} pixels, and the first picture {first}", "save all in one size")
        yield picture


def write_lossless(folder: Path, target: Path, fps: Fraction) -> int:
    """Write the numbered pictures of a folder as FFV1 in Matroska, to the bit; return how many there were."""
    pictures = find_numbered(folder)
    with av.open(f"file:{target}", "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=fps)
        assert isinstance(stream, av.VideoStream)  # noqa: S101 - FFV1 is video
        context = stream.codec_context
        context.height, context.width = read_image(pictures[0]).shape[:2]
        context.pix_fmt, context.time_base = "bgr0", 1 / fps
        for number, picture in enumerate(read_numbered(pictures)):
            opaque = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
            frame = av.VideoFrame.from_ndarray(opaque, "bgra").reformat(format="bgr0")
            frame.pts, frame.time_base = number, 1 / fps
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return len(pictures)


def _error(message: str, hint: str = HINT) -> EngineError:
    return EngineError("avatar_unreadable", message, hint)


def main() -> int:
    folder, target, fps = sys.argv[1:]
    try:
        write_lossless(Path(folder), Path(target), Fraction(fps))
    except EngineError as error:
        print(f"musedrop: {error.message}; {error.hint}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
