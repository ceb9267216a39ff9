"""Write frames: parts that can be joined by stream copy, and the preview picture."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from threading import Thread

import av
import cv2
from av.container import OutputContainer

from models.arrays import U8
from models.atomic import atomic_write
from models.media.output.checksum import append_checksum
from models.media.pictures.colour import BT709, ToYuv, ToYuva
from models.media.pictures.planar import tag_frame, yuv_to_frame
from models.media.prefetch import closing_all
from models.types import Colour, EngineError, ProgressCallback

JPEG_QUALITY = 90
SAME_EVERYWHERE = "cpu-independent=1"
"""Without it x264's bytes depend on the processor, and with AVX-512 on chance."""
PRESET, LEAN = "veryfast", "partitions=i8x8,i4x4:subme=1"
"""On talking heads at 720p, these save 38 % of CPU time for 0.03 dB and 5 % more bytes."""
ALPHA_ENCODER = "prores_ks"
"""Encodes transparency, as ProRes 4444."""
_PRORES = {"profile": "4444", "alpha_bits": "8", "flags": "+qscale", "global_quality": str(4 * 118)}
"""On a portrait, 51 dB in a third of the bytes and a fifth of the time of the default."""
X264_THREADS = 2
"""Fixed, because the bytes depend on it. With two, encoding overlaps with drawing."""


def write_part(
    path: Path,
    frames: Iterator[U8],
    *,
    count: int,
    fps: Fraction,
    width: int,
    height: int,
    encoder: str,
    crf: int,
    progress: ProgressCallback,
    preset: str = PRESET,
    colour: Colour = BT709,
) -> None:
    """Encode `count` frames as one closed run of H.264, or of ProRes by `ALPHA_ENCODER`, that starts
    with a key frame, tagged with `colour`.

    A frame is (height, width, 3) uint8 BGR, or (height, width, 4) BGRA, which is converted, or
    (height * 3 / 2, width) planes in `colour` already. The same frames give the same bytes: a fixed
    number of encoder threads, no dates. The file appears by rename, with a checksum at its end.
    `progress` is called with the number of frames done. `preset` is x264's. A generator of frames
    is closed in any case. Raises ValueError for another number or size of frames, EngineError
    disk_full, encoder_unavailable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    to_frame, made = ToVideoFrame(width, height, colour), 0
    with closing_all(frames), atomic_write(path) as temp_path:
        with av.open(f"file:{temp_path}", "w", format="mov" if encoder == ALPHA_ENCODER else "mp4") as output:
            stream = add_video_stream(output, fps, width, height, encoder, crf, preset, colour)
            with translate_encoder_errors(encoder):
                stream.codec_context.open()
            for made, picture in enumerate(frames, 1):
                frame = to_frame(picture, made)
                frame.pts, frame.time_base = made - 1, 1 / fps
                with translate_encoder_errors(encoder):
                    packets = stream.encode(frame)
                output.mux(packets)
                progress(made)
            if made != count:
                raise ValueError(f"the engine made {made} frames instead of {count}")
            with translate_encoder_errors(encoder):
                packets = stream.encode(None)
            output.mux(packets)
        append_checksum(temp_path)


class ToVideoFrame:
    """Converts what an engine yields for the encoder. Raises ValueError for another size."""

    def __init__(self, width: int, height: int, colour: Colour) -> None:
        self._bgr, self._planes, self._colour = (height, width, 3), (height * 3 // 2, width), colour
        self._bgra, self._to_yuv, self._to_yuva = (height, width, 4), ToYuv(colour), ToYuva()

    def __call__(self, picture: U8, number: int) -> av.VideoFrame:
        if picture.shape == self._planes:
            return yuv_to_frame(picture, self._colour)
        if picture.shape == self._bgr:
            return tag_frame(self._to_yuv(picture), self._colour)
        if picture.shape == self._bgra:
            return tag_frame(self._to_yuva(picture), self._colour)
        raise ValueError(f"frame {number} is {picture.shape}, neither {self._bgr} nor {self._planes}")


@contextmanager
def translate_encoder_errors(encoder: str) -> Iterator[None]:
    """Turn FFmpeg's errors into EngineError encoder_unavailable.

    They look like those of files: NVENC without a GPU raises PermissionError. Raises OSError where the machine has no
    thread left, which is no fault of the encoder.
    """
    try:
        yield
    except av.FFmpegError as error:
        check_machine(error)
        message = f"the encoder {encoder} failed: {error.strerror}"
        raise EngineError("encoder_unavailable", message, 'ask for "libx264"', retry=True) from error


def check_machine(error: av.FFmpegError) -> None:
    """Raise OSError if the machine has no thread left; x264 says nothing of why it can't be opened."""
    if error.errno == errno.EAGAIN:
        raise OSError(error.errno, os.strerror(error.errno)) from error
    try:
        thread = Thread(target=int)
        thread.start()
        thread.join()
    except RuntimeError:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error


def add_video_stream(
    output: OutputContainer,
    fps: Fraction,
    width: int,
    height: int,
    encoder: str,
    crf: int,
    preset: str = PRESET,
    colour: Colour = BT709,
) -> av.VideoStream:
    """Add an H.264 stream, or one of ProRes 4444, with the tags of `colour`.

    Constant quality: x264's CRF, or the same number as NVENC's quantiser; ProRes has its own.
    """
    params = f"{SAME_EVERYWHERE}:{LEAN}" if preset == PRESET else SAME_EVERYWHERE
    x264 = {"crf": str(crf), "preset": preset, "x264-params": params}
    quality = x264 if encoder == "libx264" else {"rc": "constqp", "qp": str(crf)}
    options = _PRORES if encoder == ALPHA_ENCODER else {**quality, "bf": "2", "flags": "+cgop"}
    stream = output.add_stream(encoder, rate=fps, options=options)
    assert isinstance(stream, av.VideoStream)  # noqa: S101 - all encoders make video
    context = stream.codec_context
    context.width, context.height = width, height
    context.pix_fmt = "yuva444p10le" if encoder == ALPHA_ENCODER else "yuv420p"
    context.time_base = 1 / fps
    context.thread_count, context.thread_type = X264_THREADS, "FRAME"
    context.colorspace, context.color_range = colour.matrix, colour.range
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    return stream


def write_jpeg(path: Path, bgr: U8) -> None:
    """Write (height, width, 3) uint8 BGR as JPEG, by rename. Raises EngineError disk_full."""
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with atomic_write(path) as temp_path:
        temp_path.write_bytes(data.tobytes())
