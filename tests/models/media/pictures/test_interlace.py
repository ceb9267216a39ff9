"""Interlaced video: whole pictures of fields, by the flags of its frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.arrays import U8
from models.types import Limits
from tests import media_samples as samples

FPS = Fraction(25)
WIDTH, HEIGHT = 320, 240
CODECS = {
    "h264.mp4": ("libx264", {"x264-params": "tff=1:keyint=8:scenecut=0"}),
    "dvd.mpg": ("mpeg2video", {"flags": "+ildct+ilme", "top": "1", "g": "8", "b": "4000000"}),
}


def draw_bar(at: float) -> U8:
    """Return a white bar on grey, with its left edge at this column."""
    picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    picture[:, round(at) : round(at) + 60] = 220
    return picture


def weave(count: int) -> Iterator[U8]:
    """Yield frames whose fields show a moving bar at two times."""
    for n in range(count):
        picture = draw_bar(6 * n)
        picture[1::2] = draw_bar(6 * n + 3)[1::2]
        yield picture


def film(path: Path, pictures: Iterator[U8], *, codec: str, options: dict[str, str], fields: bool = True) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format="yuv420p")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with av.open(str(path)) as written:
        assert next(written.decode(video=0)).interlaced_frame == fields
    return path


def measure_combs(luma: U8) -> float:
    """Return the share of pixels that differ from the rows above and below in one direction."""
    rows = luma.astype(int)
    above, below = rows[1:-1] - rows[:-2], rows[1:-1] - rows[2:]
    return float(((above * below > 0) & (np.minimum(abs(above), abs(below)) > 20)).mean())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("as_yuv", [False, True])
def test_fields_become_whole_pictures(tmp_path: Path, name: str, as_yuv: bool) -> None:
    """Of combed frames less than 3 % stay combed, at the same places and rate, with a note."""
    codec, options = CODECS[name]
    path = film(tmp_path / name, weave(24), codec=codec, options=options)
    picture = media.read_picture(path, name, Limits())
    assert picture.fps == 25
    assert "interlaced" in picture.notes[0]
    with media.VideoFrames(path, FPS, as_yuv=as_yuv) as frames:
        for n in range(len(frames)):
            luma = frames.read(n)[:HEIGHT] if as_yuv else frames.read(n)[..., 1]
            assert measure_combs(luma) < 0.01
            assert abs(int(np.argmax(luma[100] > 140)) - 6 * n) <= 4


def test_whole_pictures_are_the_same_from_anywhere(tmp_path: Path) -> None:
    """A frame is the same in every order, at key frames too: parts of a video are made apart."""
    codec, options = CODECS["h264.mp4"]
    path = film(tmp_path / "h264.mp4", weave(24), codec=codec, options=options)
    with media.VideoFrames(path, FPS) as frames:
        forwards = [frames.read(n) for n in range(24)]
    for n in (23, 8, 9, 16, 7, 0, 15):
        with media.VideoFrames(path, FPS) as frames:
            assert np.array_equal(frames.read(n), forwards[n])


def test_progressive_frames_are_not_touched(tmp_path: Path) -> None:
    """Frames without the flag are bit-identical to what is decoded, stripes included."""
    options = {"x264-params": "keyint=8"}
    path = film(tmp_path / "v.mp4", weave(12), codec="libx264", options=options, fields=False)
    with av.open(str(path)) as container, media.VideoFrames(path, FPS, as_yuv=True) as frames:
        for n, frame in enumerate(container.decode(video=0)):
            assert np.array_equal(frames.read(n), frame.to_ndarray())
    assert media.read_picture(path, "v.mp4", Limits()).notes == ()


def test_mixed_frames_follow_their_flags(tmp_path: Path) -> None:
    """Where progressive and interlaced parts follow each other, each frame is treated by its flag."""
    path = tmp_path / "mixed.ts"
    with path.open("wb") as file:
        for part, fields in enumerate((False, True, False)):
            options = {"x264-params": "tff=1:keyint=8" if fields else "keyint=8"}
            piece = film(tmp_path / f"{part}.ts", weave(16), codec="libx264", options=options, fields=fields)
            file.write(piece.read_bytes())
    with media.VideoFrames(path, FPS) as frames:
        assert len(frames) == 48
        combs = [measure_combs(frames.read(n)[..., 1]) for n in range(48)]
    assert max(combs[16:32]) < 0.01
    assert min(combs[1:16] + combs[33:]) > 0.005


def test_a_png_stored_in_passes_is_whole(tmp_path: Path) -> None:
    """A PNG in the seven passes of Adam7 is flagged as interlaced and has no fields."""
    rgb = samples.quarters(64, 48)[..., ::-1]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [row for x, y, across, down in passes for row in rgb[y::down, x::across]]
    head = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    path = tmp_path / "passes.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
    assert media.read_picture(path, "passes.png", Limits()).notes == ()
    assert np.array_equal(media.read_image(path), samples.quarters(64, 48))
