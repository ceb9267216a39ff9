"""Pictures and videos: what they are, and a still as an array."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from models.media.container import opened, too_large, unreadable
from models.types import EngineError, Limits

Bgr = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """An avatar as it is shown: rotation and pixel aspect applied. `fps` and `frames` are None and 1 for an image."""

    kind: Literal["image", "video"]
    width: int
    height: int
    fps: Fraction | None
    frames: int
    duration_s: float


def picture_stream(container: InputContainer, name: str) -> VideoStream:
    if not container.streams.video:
        raise unreadable(name, "avatar", "there is no picture in it")
    return container.streams.video[0]


def read_picture(path: Path, name: str, limits: Limits) -> Picture:
    """Look at an avatar: its first picture is decoded, the times of all others are read.

    Raises EngineError: avatar_unreadable, avatar_too_large (told by the header, before any big allocation), video_too_long.
    """
    with opened(path, name, "avatar") as container:
        stream = picture_stream(container, name)
        times = shown_times(container, stream)
    with opened(path, name, "avatar") as container:
        stream = picture_stream(container, name)
        stream.codec_context.options = {"max_pixels": str(limits.pixels)}
        width, height = display_size(first_frame(container, stream, name), stream)
        guessed = stream.average_rate or stream.guessed_rate
    if width * height > limits.pixels:
        raise too_large(name, width, height)
    if len(times) < 2:
        return Picture("image", width, height, None, 1, 0.0)
    duration = times[-1] - times[0] + (times[-1] - times[0]) / (len(times) - 1)
    if duration > limits.video_s:
        message = f"{name} lasts {float(duration):.0f} s; the longest is {limits.video_s:g} s"
        raise EngineError("video_too_long", message, "cut it shorter: a few seconds are enough for an avatar")
    fps = frame_rate(guessed, len(times), duration)
    return Picture("video", width, height, fps, max(1, round(duration * fps)), float(duration))


def first_frame(container: InputContainer, stream: VideoStream, name: str) -> VideoFrame:
    for frame in container.decode(stream):
        return frame
    raise unreadable(name, "avatar", "there is no picture in it")


def shown_times(container: InputContainer, stream: VideoStream) -> list[Fraction]:
    """When each frame is shown, in seconds of the container's time, in order."""
    base = stream.time_base or Fraction(1)
    marks = [packet.pts if packet.pts is not None else packet.dts for packet in container.demux(stream) if shown(packet)]
    if any(mark is None for mark in marks):
        rate = stream.average_rate or Fraction(25)
        return [n / rate for n in range(len(marks))]
    return sorted(Fraction(mark) * base for mark in marks if mark is not None)


def shown(packet: object) -> bool:
    """Whether a packet holds a frame that an edit list doesn't cut away."""
    return bool(getattr(packet, "size", 0)) and not getattr(packet, "is_discard", False)


def frame_rate(said: Fraction | None, frames: int, duration: Fraction) -> Fraction:
    """The stream's own average rate where it fits what was counted, else the counted one; at most 120."""
    counted = Fraction(frames) / duration
    if said and abs(said / counted - 1) < Fraction(1, 50):
        return min(Fraction(said), Fraction(120))
    return min(counted.limit_denominator(1001), Fraction(120))


def display_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width = max(1, round(frame.width * aspect)) if aspect > 0 else frame.width
    return (frame.height, width) if frame.rotation % 180 else (width, frame.height)


def read_image(path: Path, name: str) -> Bgr:
    """A still picture, (h, w, 3) uint8 BGR, turned as EXIF says; transparent pixels keep their colour.

    Decoded by OpenCV, because FFmpeg's rotation loses EXIF orientations that mirror. The caller has checked its size.
    """
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if decoded is not None:
        return np.asarray(decoded, np.uint8)
    with opened(path, name, "avatar") as container:
        stream = picture_stream(container, name)
        frame = first_frame(container, stream, name)
        return np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
