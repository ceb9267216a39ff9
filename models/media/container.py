"""Opening what somebody dropped, and saying what is wrong with it in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import av
import av.logging
from av.container import InputContainer

from models.types import EngineError

av.logging.set_level(av.logging.ERROR)
"""FFmpeg's own words come with the exceptions; nothing goes to the terminal."""

Kind = Literal["audio", "avatar"]
HINTS = {
    "audio": "send sound as wav, mp3, m4a, flac or ogg, or a video with sound; play it once to see that it is whole",
    "avatar": "send a jpg, png or webp picture, or an mp4, mov or webm video; open it once to see that it is whole",
}
TOO_LARGE = re.compile(r"[Pp]icture size (\d+)x(\d+)")


@contextmanager
def opened(path: Path, name: str, kind: Kind) -> Iterator[InputContainer]:
    """The container, with any complaint of FFmpeg inside the block as EngineError `<kind>_unreadable` about `name`."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except av.error.FFmpegError as error:
        raise complaint(error, name, kind) from error


def complaint(error: av.error.FFmpegError, name: str, kind: Kind) -> EngineError:
    said = error.log[2].strip() if error.log else error.strerror
    size = TOO_LARGE.search(said)
    if size:
        return too_large(name, int(size[1]), int(size[2]))
    return unreadable(name, kind, said)


def unreadable(name: str, kind: Kind, why: str) -> EngineError:
    what = "sound" if kind == "audio" else "picture or video"
    return EngineError(f"{kind}_unreadable", f"{name} can't be read as a {what}: {why}", HINTS[kind])


def too_large(name: str, width: int, height: int) -> EngineError:
    message = f"{name} is {width} x {height} pixels, which is over the limit"
    return EngineError("avatar_too_large", message, "send a smaller picture, or raise limits.megapixels in the settings")
