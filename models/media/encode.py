"""Frames out: part files that fit together, and the preview picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
from av.container import OutputContainer

from models.atomic import atomic_write
from models.media.checksum import append_checksum
from models.media.colour import BT709, Bgr, ToYuv
from models.media.planar import frame_of, tagged
from models.media.prefetch import closing_all
from models.types import Colour, EngineError, ProgressCallback

JPEG_QUALITY = 90
SAME_EVERYWHERE = "cpu-independent=1"
"""Otherwise x264's bytes depend on the processor, and with AVX-512 on chance: one part in a hundred differed."""
PRESET, LEAN = "veryfast", "partitions=i8x8,i4x4:subme=1"
"""On talking heads at 720p, these two turns of the preset take 38 % off its CPU time for 0.03 dB and 5 % more bytes."""
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
    tick: ProgressCallback,
    preset: str = PRESET,
    colour: Colour = BT709,
) -> None:
    """Encode `count` frames as one closed run of H.264 that starts with a key frame, tagged with `colour`.

    A frame is (height, width, 3) uint8 BGR, which is converted to it, or (height * 3 / 2, width), planes already in it.
    The same frames give the same bytes: a fixed number of encoder threads, no dates. The file appears whole, by rename,
    and sealed. `tick` hears how many frames are done. `preset` is x264's. A generator of frames is closed in any case.
    Raises ValueError for another number or size of frames, EngineError disk_full, encoder_unavailable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stored, made = Stored(width, height, colour), 0
    with closing_all(frames), atomic_write(path) as beside:
        with av.open(f"file:{beside}", "w", format="mp4") as output:
            stream = add_video(output, fps, width, height, encoder, crf, preset, colour)
            with encoding(encoder):
                stream.codec_context.open()
            for made, picture in enumerate(frames, 1):
                frame = stored(picture, made)
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
        append_checksum(beside)


class Stored:
    """Turns whatever an engine yields into a frame for the encoder. Raises ValueError for another size."""

    def __init__(self, width: int, height: int, colour: Colour) -> None:
        self._bgr, self._planes, self._colour = (height, width, 3), (height * 3 // 2, width), colour
        self._to_yuv = ToYuv(colour)

    def __call__(self, picture: Bgr, number: int) -> av.VideoFrame:
        if picture.shape == self._planes:
            return frame_of(picture, self._colour)
        if picture.shape == self._bgr:
            return tagged(self._to_yuv(picture), self._colour)
        raise ValueError(f"frame {number} is {picture.shape}, neither {self._bgr} nor {self._planes}")


@contextmanager
def encoding(encoder: str) -> Iterator[None]:
    """Name an encoder that fails. FFmpeg's errors look like those of files: NVENC without a card "lacks permission"."""
    try:
        yield
    except av.FFmpegError as error:
        message = f"the encoder {encoder} failed: {error.strerror}"
        raise EngineError("encoder_unavailable", message, 'ask for "libx264"', retry=True) from error


def add_video(
    output: OutputContainer,
    fps: Fraction,
    width: int,
    height: int,
    encoder: str,
    crf: int,
    preset: str = PRESET,
    colour: Colour = BT709,
) -> av.VideoStream:
    """An H.264 stream with the tags of `colour`.

    Constant quality: x264's CRF, or the same number as NVENC's quantiser.
    """
    params = f"{SAME_EVERYWHERE}:{LEAN}" if preset == PRESET else SAME_EVERYWHERE
    x264 = {"crf": str(crf), "preset": preset, "x264-params": params}
    quality = x264 if encoder == "libx264" else {"rc": "constqp", "qp": str(crf)}
    stream = output.add_stream(encoder, rate=fps, options={**quality, "bf": "2", "flags": "+cgop"})
    assert isinstance(stream, av.VideoStream)  # noqa: S101 - both encoders make video
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = 1 / fps
    context.thread_count, context.thread_type = X264_THREADS, "FRAME"
    context.colorspace, context.color_range = colour.matrix, colour.range
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    return stream


def write_jpeg(path: Path, bgr: Bgr) -> None:
    """Raises EngineError disk_full."""
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with atomic_write(path) as beside:
        beside.write_bytes(data.tobytes())
