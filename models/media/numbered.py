"""A folder of numbered pictures as one video without loss: `python -m models.media.numbered FOLDER VIDEO FPS`.

MuseTalk takes such a folder as an avatar. A job reads one file, so the pictures become one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from models.arrays import U8
from models.atomic import atomic_write
from models.inputs import compare_folder, copy_input
from models.media.opening import USUAL
from models.media.picture import read_image
from models.types import EngineError, Limits

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


def read_numbered(pictures: list[Path], limits: Limits = USUAL) -> Iterator[U8]:
    """Yield the pictures, BGR. Raises EngineError avatar_unreadable for one of another size than the first."""
    shape = None
    for path in pictures:
        picture = read_image(path, limits=limits)
        shape = shape or picture.shape
        if picture.shape != shape:
            size, first = (f"{one[1]} x {one[0]}" for one in (picture.shape, shape))
            raise _error(f"{path.name} has {size} pixels, and the first picture {first}", "save all in one size")
        yield picture


def join_pictures(
    folder: Path, target: Path, limits: Limits, fps: Fraction, mark: Sequence[int], tick: Callable[[int], None]
) -> str:
    """Write the numbered pictures of a folder as one video; return a hash of rate, numbers and pictures.

    Nothing in the path may be a link, pictures included. `mark` is the folder's, see `copy_input`; `tick` is called
    with the bytes copied so far. Raises EngineError avatar_unreadable, media_too_large, missing_media, media_changed.
    """
    digest, done = hashlib.sha256(str(fps).encode()), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as copies:
        for picture in find_numbered(folder):
            copy = Path(copies) / picture.name
            sha256 = copy_input(picture, copy, limits.media_bytes - done, (), tick)
            digest.update(f" {int(picture.stem)} {sha256}".encode())
            done += copy.stat().st_size
        compare_folder(folder, mark)
        with atomic_write(target, durable=False) as video:
            write_lossless(Path(copies), video, fps, limits)
    return digest.hexdigest()


def write_lossless(folder: Path, target: Path, fps: Fraction, limits: Limits = USUAL) -> int:
    """Write the numbered pictures of a folder as FFV1 in Matroska, to the bit; return how many there were."""
    return write_ffv1(read_numbered(find_numbered(folder), limits), target, fps, limits)


def write_ffv1(pictures: Iterator[U8], target: Path, fps: Fraction, limits: Limits = USUAL) -> int:
    """Write pictures, BGR and all of one size, as FFV1 in Matroska, to the bit; return how many there were.

    Raises EngineError media_too_large, StopIteration where there are none.
    """
    first, number = next(pictures), 0
    with av.open(f"file:{target}", "w", format="matroska", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream("ffv1", rate=fps)
        assert isinstance(stream, av.VideoStream)  # noqa: S101 - FFV1 is video
        context = stream.codec_context
        context.height, context.width = first.shape[:2]
        context.pix_fmt, context.time_base = "bgr0", 1 / fps
        left_bytes = limits.media_bytes
        for number, picture in enumerate(chain([first], pictures)):
            opaque = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
            frame = av.VideoFrame.from_ndarray(opaque, "bgra").reformat(format="bgr0")
            frame.pts, frame.time_base = number, 1 / fps
            packets = stream.encode(frame)
            left_bytes -= sum(packet.size for packet in packets)
            if left_bytes < 0:
                message = f"the pictures make a video of more than {limits.media_bytes / 2**20:.0f} MiB"
                raise EngineError("media_too_large", message, "send fewer or smaller ones, or raise limits.media_mib")
            output.mux(packets)
        output.mux(stream.encode(None))
    return number + 1


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
