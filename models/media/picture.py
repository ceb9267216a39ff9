"""Read what an avatar is, and its first picture."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from models.arrays import U8
from models.media.opening import USUAL, check_file, unreadable_file
from models.media.pictures.background import WHITE, Background, parse_colour
from models.media.source import MakePicture, Source, open_source
from models.types import Limits, Request


@dataclass(frozen=True, slots=True)
class Picture:
    """An avatar as a player would show it.

    kind            "video" has more than one picture
    width, height   in pixels, upright and with square pixels
    fps             the constant rate that suits it and lips; None for an image
    frames          at that rate; 1 for an image
    duration_s      0 for an image
    notes           sentences on what is not shown as it is stored
    own_fps         the rate of its pictures, or the average of a variable one; None for an image
    length_s        the exact duration
    """

    kind: Literal["image", "video"]
    width: int
    height: int
    fps: Fraction | None = None
    frames: int = 1
    duration_s: float = 0.0
    own_fps: Fraction | None = None
    notes: tuple[str, ...] = ()
    length_s: Fraction = Fraction(0)


def read_picture(path: Path, name: str, limits: Limits) -> Picture:
    """Probe an image or a video and decode its first picture. `name` is the user's name of the
    file.

    Raises EngineError media_too_large, avatar_unreadable, avatar_too_large, video_too_long.
    """
    check_file(path, name, "avatar", limits)
    with closing(open_source(path, name, limits)) as source:
        decode_first_picture(source, name)
        timeline, width, height, notes = source.timeline, source.width, source.height, source.notes
    if len(timeline) == 1:
        return Picture("image", width, height, notes=notes)
    fps, length_s, own_fps = timeline.choose_fps(), timeline.duration_s, timeline.measure_fps()
    return Picture(
        "video", width, height, fps, timeline.count_frames(fps), float(length_s), own_fps, notes, Fraction(length_s)
    )


def read_image(path: Path, name: str | None = None, limits: Limits = USUAL, background: Background = WHITE) -> U8:
    """Read an image, or the first picture of a video: (height, width, 3) uint8 BGR, upright,
    transparency over the background.

    Raises EngineError like `read_picture`.
    """
    shown_name = name or path.name
    check_file(path, shown_name, "avatar", limits)
    with closing(open_source(path, shown_name, limits, background=background)) as source:
        return decode_first_picture(source, shown_name)()


def decode_first_picture(source: Source, name: str) -> MakePicture:
    for _, shown in source.read_pictures(0):
        return shown
    raise unreadable_file("avatar", f"{name} holds no picture that can be decoded")


def read_background(request: Request) -> Background:
    """Return what transparent pixels of the avatar show: a picture or a colour, white by default.

    Raises EngineError like `read_picture`.
    """
    if (given := request.media.get("background")) is not None:
        path = request.files.medium_path("background")
        return Background(picture=read_image(path, Path(given).name, request.limits))
    return parse_colour(request.background) if request.background else WHITE
