"""Check a finished video by reading it again from the disk, to its end."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from models.media.audio.sound import open_sound, scan_sound
from models.media.opening import check_disk, configure_decoder, open_media
from models.media.output.kept import KeptPictures
from models.media.pictures.colour import has_alpha
from models.types import EngineError


def verify_video(
    path: Path, frames: int, fps: Fraction, *, alpha: bool = False, kept: KeptPictures | None = None
) -> None:
    """Read a finished mp4 or mov to its end. Raises EngineError result_invalid for the first fault.

    A valid one has its index before the data; exactly `frames` pictures, each of which decodes
    without an error, exactly 1 / fps after the one before, the first at 0; sound that starts at 0,
    decodes, and ends within one frame of the picture. `alpha`: each picture has transparency.
    `kept` is shown each picture.
    """
    if not has_leading_index(path):
        raise invalid_result("its index doesn't stand at the front")
    try:
        times = list(_read_times(path, alpha, kept))
    except av.FFmpegError as error:
        check_disk(path, error)
        raise invalid_result(f"it can't be read to its end: {error.strerror}") from error
    if len(times) != frames:
        raise invalid_result(f"it has {len(times)} frames instead of {frames}")
    for number, time in enumerate(times):
        if time != number / fps:
            wanted = f"instead of {float(number / fps):.6f} s"
            raise invalid_result(f"frame {number} is shown at {float(time):.6f} s {wanted}")
    _check_sound(path, frames / fps, fps)


def _read_times(path: Path, alpha: bool, kept: KeptPictures | None) -> Iterator[Fraction]:
    with open_media(path, "avatar") as container:
        if len(container.streams.video) != 1:
            raise invalid_result("it has no pictures")
        stream = configure_decoder(container.streams.video[0], err_detect="explode")
        for number, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt or frame.pts is None or frame.time_base is None:
                raise invalid_result("one of its pictures is damaged")
            if alpha and not has_alpha(frame):
                raise invalid_result("its pictures have no transparency")
            if kept is not None:
                kept.look(number, frame)
            yield frame.pts * frame.time_base


def _check_sound(path: Path, video_s: Fraction, fps: Fraction) -> None:
    try:
        sound = scan_sound(path, "it", float("inf")).sound
        with open_sound(path, "it") as (_, stream):
            start_s = (stream.start_time or 0) * (stream.time_base or Fraction(1))
    except EngineError as error:
        raise invalid_result(f"it can't be read to its end: {error.message}") from error
    if start_s != 0:
        raise invalid_result(f"its sound starts at {float(start_s):.3f} s")
    if abs(sound.duration_s - video_s) > 1 / fps:
        raise invalid_result(f"its sound ends at {sound.duration_s:.3f} s, its pictures at {float(video_s):.3f} s")


def invalid_result(why: str) -> EngineError:
    return EngineError("result_invalid", f"the finished video failed its check: {why}", "it is made again", retry=True)


def has_leading_index(path: Path) -> bool:
    """Whether the mp4's `moov` box precedes `mdat`, so that players can start early."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind in (b"moov", b"mdat"):
                return kind == b"moov"
            file.seek(max(size, 8) - 8, 1)
    return False
