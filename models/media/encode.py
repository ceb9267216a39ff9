"""Frames out: which encoder works here, part files that fit together, and the preview picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange

from models.atomic import whole_file
from models.media.colour import BT709, Bgr, ToYuv
from models.types import EngineError, Tick

ENCODERS = ("libx264", "h264_nvenc")
JPEG_QUALITY = 90
_CARDS = ("nvidia[0-9]*", "dxg")
X264_THREADS = 2
"""Fixed, because it shows in the bytes. One more than none lets encoding go on while the next frame is painted."""


def write_part(
    path: Path,
    frames: Iterator[Bgr],
    *,
    count: int,
    fps: Fraction,
    width: int,
    height: int,
    encoder: str,
    crf: int,
    tick: Tick,
    preset: str = "veryfast",
) -> None:
    """Encode `count` frames, (height, width, 3) uint8 BGR, as one closed run of H.264 that starts with a key frame.

    The same frames give the same bytes: a fixed number of encoder threads, no dates. The file appears whole, by rename.
    `tick` hears how many frames are done. `preset` is x264's. Raises ValueError for another number or size of frames,
    EngineError disk_full, encoder_unavailable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    to_yuv, made = ToYuv(), 0
    with whole_file(path) as beside, av.open(f"file:{beside}", "w", format="mp4") as output:
        stream = add_video(output, fps, width, height, encoder, crf, preset)
        with encoding(encoder):
            stream.codec_context.open()
        for made, bgr in enumerate(frames, 1):
            if bgr.shape != (height, width, 3):
                raise ValueError(f"frame {made} is {bgr.shape}, not {(height, width, 3)}")
            frame = to_yuv(bgr)
            frame.pts, frame.time_base = made - 1, 1 / fps
            with encoding(encoder):
                packets = stream.encode(frame)
            output.mux(packets)
            tick(made)
        if made != count:
            raise ValueError(f"the engine made {made} frames instead of {count}")
        with encoding(encoder):
            packets = stream.encode(None)
        output.mux(packets)


@contextmanager
def encoding(encoder: str) -> Iterator[None]:
    """Name an encoder that fails. FFmpeg's errors look like those of files: NVENC without a card "lacks permission"."""
    try:
        yield
    except av.FFmpegError as error:
        message = f"the encoder {encoder} failed: {error.strerror}"
        raise EngineError("encoder_unavailable", message, 'ask for "libx264"', retry=True) from error


def add_video(
    output: OutputContainer, fps: Fraction, width: int, height: int, encoder: str, crf: int, preset: str = "veryfast"
) -> av.VideoStream:
    """An H.264 stream, tagged BT.709 limited. Constant quality: x264's CRF, or the same number as NVENC's quantiser."""
    quality = {"crf": str(crf), "preset": preset} if encoder == "libx264" else {"rc": "constqp", "qp": str(crf)}
    stream = output.add_stream(encoder, rate=fps, options={**quality, "bf": "2", "flags": "+cgop"})
    assert isinstance(stream, av.VideoStream)  # noqa: S101 - both encoders make video
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = 1 / fps
    context.thread_count, context.thread_type = X264_THREADS, "FRAME"
    context.colorspace, context.color_range = BT709, ColorRange.MPEG
    context.color_primaries, context.color_trc = BT709, BT709
    return stream


def choose_encoder(asked: str) -> str:
    """`auto` is NVENC where it really encodes, else x264. Otherwise may raise encoder_unavailable."""
    if asked == "auto":
        return "h264_nvenc" if encoder_state("h264_nvenc") == "usable" else "libx264"
    if (state := encoder_state(asked)) != "usable":
        raise EngineError("encoder_unavailable", f"the encoder {asked} can't be used here: {state}", 'ask for "auto"')
    return asked


@cache
def encoder_state(encoder: str) -> str:
    """ "usable" once it has encoded two frames in this process, else what stands in the way."""
    if encoder == "h264_nvenc" and not any(chain.from_iterable(Path("/dev").glob(node) for node in _CARDS)):
        return "there is no NVIDIA card"
    to_yuv = ToYuv()
    try:
        with av.open("/dev/null", "w", format="null") as output:
            stream = add_video(output, Fraction(25), 256, 144, encoder, 23)
            for number in range(2):
                frame = to_yuv(np.full((144, 256, 3), 60 * number, np.uint8))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    except av.FFmpegError as error:  # without a card NVENC's is a PermissionError too: it says nothing about files
        return f"it fails ({error.strerror})"
    return "usable"


def examine() -> dict[str, Any]:
    """What `musedrop doctor` wants to know of a worker."""
    states = {encoder: encoder_state(encoder) for encoder in ENCODERS}
    return {"pyav": av.__version__, "opencv": cv2.__version__, "encoders": states}


def write_jpeg(path: Path, bgr: Bgr) -> None:
    """Raises EngineError disk_full."""
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with whole_file(path) as beside:
        beside.write_bytes(data.tobytes())
