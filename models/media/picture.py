"""Avatars: what a picture or a video is, and a still as an array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer

from models.media.colour import SIDEWAYS, Bgr, ToBgr, orientation_of
from models.media.opening import check_file, open_media, reading, ready, unreadable
from models.media.stills import Still, look
from models.types import EngineError, Limits

FASTEST = Fraction(120)
PIXELS = Limits().pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """An avatar as it is shown, rotation and pixel aspect applied: pixels, frames a second, frames, seconds.

    An image has no `fps`, one frame and no duration.
    """

    kind: Literal["image", "video"]
    width: int
    height: int
    fps: Fraction | None = None
    frames: int = 1
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each frame of a stream is shown, in seconds, in order; `end` is when the last one disappears."""

    times: tuple[Fraction, ...]
    end: Fraction

    @property
    def duration(self) -> Fraction:
        return self.end - self.times[0]


@contextmanager
def open_picture(path: Path, name: str, pixels: int = PIXELS) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """The container and its best picture stream. Raises EngineError avatar_unreadable, here and while it is read."""
    with reading(name, "avatar"), open_media(path, "avatar", pixels=pixels) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream):
            raise unreadable("avatar", f"{name} holds no picture")
        yield container, ready(stream, max_pixels=str(pixels))


def read_picture(path: Path, name: str, limits: Limits) -> Picture:
    """Look at an avatar: decode its first frame and read when the others are shown.

    A video of one frame is an image. Raises EngineError media_too_large, avatar_unreadable, video_too_long, and
    avatar_too_large by what the header says, before anything of that size is allocated.
    """
    check_file(path, name, "avatar", limits)
    still = look(path)
    if still:
        check_pixels(name, still.width, still.height, limits)
    with open_picture(path, name, limits.pixels) as (container, stream):
        if not still:
            check_pixels(name, stream.width, stream.height, limits)
        first = first_frame(container, stream, name)
        width, height = shown_size(first, stream, still)
        said = stream.average_rate
    check_pixels(name, width, height, limits)
    if still and still.pixels and not is_animation(path):
        return Picture("image", width, height)
    timeline = read_timeline(path, name, limits.pixels)
    if len(timeline.times) == 1:
        return Picture("image", width, height)
    if timeline.duration > limits.video_s:
        message = f"{name} lasts {float(timeline.duration):.0f} s; the longest is {limits.video_s:g} s"
        raise EngineError("video_too_long", message, "cut it shorter, or raise limits.video_s")
    fps = frame_rate(said, timeline)
    frames = max(1, round(timeline.duration * fps))
    return Picture("video", width, height, fps, frames, float(timeline.duration))


def check_pixels(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        message = f"{name} has {width} x {height} pixels; the limit is {limits.pixels / 1e6:g} million"
        raise EngineError("avatar_too_large", message, "send a smaller picture, or raise limits.megapixels")


def is_animation(path: Path) -> bool:
    """Of the still formats, a GIF may move, and a PNG by the name of APNG."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"GIF8") or b"acTL" in head


def first_frame(container: InputContainer, stream: av.VideoStream, name: str) -> av.VideoFrame:
    for frame in container.decode(stream):
        return frame
    raise unreadable("avatar", f"{name} holds no picture that can be decoded")


def shown_size(frame: av.VideoFrame, stream: av.VideoStream, still: Still | None) -> tuple[int, int]:
    """(width, height) as a player shows it: square pixels, upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width = max(1, round(frame.width * aspect)) if 0 < aspect < 10 else frame.width
    sideways = (still.orientation if still else orientation_of(frame)) in SIDEWAYS
    return (frame.height, width) if sideways else (width, frame.height)


def read_timeline(path: Path, name: str, pixels: int = PIXELS) -> Timeline:
    """Read the times of all frames, without decoding them. Frames that an edit list cuts away don't count."""
    with open_picture(path, name, pixels) as (container, stream):
        base = stream.time_base or Fraction(1, 25)
        marks = [
            (packet.pts if packet.pts is not None else packet.dts, packet.duration or 0)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        rate = stream.average_rate or Fraction(25)
    if not marks:
        raise unreadable("avatar", f"{name} holds no picture")
    if any(time is None for time, _ in marks):
        return Timeline(tuple(n / rate for n in range(len(marks))), len(marks) / rate)
    marks.sort()
    times = tuple(dict.fromkeys(time * base for time, _ in marks if time is not None))
    last = marks[-1][1] * base or ((times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / rate)
    return Timeline(times, times[-1] + last)


def frame_rate(said: Fraction | None, timeline: Timeline) -> Fraction:
    """The average rate: the one the header says where counting confirms it, else the counted one; at most 120."""
    counted = len(timeline.times) / timeline.duration
    if said and abs(said / counted - 1) < Fraction(1, 100):
        return min(Fraction(said), FASTEST)
    return min(counted.limit_denominator(1001), FASTEST)


def read_image(path: Path, name: str, pixels: int = PIXELS) -> Bgr:
    """A still, or the first frame of anything: (h, w, 3) uint8 BGR, upright, transparency over white.

    Raises EngineError avatar_unreadable.
    """
    still = look(path)
    with open_picture(path, name, pixels) as (container, stream):
        frame = first_frame(container, stream, name)
        width, height = shown_size(frame, stream, still)
        return ToBgr(width, height, still.orientation if still else orientation_of(frame))(frame)
