"""Which files promise more than is there: whole ones of each kind never do, beginnings of them do."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agent.intake.cut_files import CHECKS, is_cut

SOUNDS = {
    ".wav": "pcm_s16le",
    ".mp3": "libmp3lame",
    ".m4a": "aac",
    ".ogg": "libopus",
    ".opus": "libopus",
}
FILMS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4", ".m4v": "libx264"}
MORE = {".aiff": "pcm_s16be", ".mka": "libopus"}
PICTURES = {".jpg": "JPEG", ".png": "PNG", ".gif": "GIF", ".webp": "WEBP"}
HEADS = [b"", b"RIFF", b"OggS", b"\x18\x53\x80\x67", b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80"]
SOUNDS |= MORE
EVERY = [*SOUNDS, *FILMS, *PICTURES]


def make(path: Path) -> bytes:
    """Write a small file of the kind that the suffix says; return its bytes."""
    suffix, random = path.suffix, np.random.default_rng(1)
    if suffix in PICTURES:
        Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).save(path, PICTURES[suffix])
        return path.read_bytes()
    with av.open(str(path), "w") as container:
        if suffix in SOUNDS:
            rate = 48_000
            stream: Any = container.add_stream(SOUNDS[suffix], rate=rate)
            noise = (random.standard_normal((1, 2 * rate)) * 8000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frames: list[Any] = [frame]
        else:
            stream = container.add_stream(FILMS[suffix], rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            pictures = random.integers(0, 255, (10, 64, 64, 3), np.uint8)
            frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("suffix", EVERY)
def test_a_whole_file_is_not_cut_and_its_beginning_is(tmp_path: Path, suffix: str) -> None:
    """Cut at many places, as a program leaves a file between two pieces."""
    path = tmp_path / f"hello{suffix}"
    data = make(path)
    assert not is_cut(path)
    unnoticed = []
    for part in range(1, 20):
        size = len(data) * part // 20 + part % 3
        path.write_bytes(data[:size])
        if not is_cut(path):
            unnoticed.append(size)
    assert len(unnoticed) <= 1, unnoticed  # a cut between two frames leaves a whole, shorter sound


@pytest.mark.parametrize("promised", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF - 36])
def test_a_wav_of_unknown_length_may_go_on(tmp_path: Path, promised: int) -> None:
    """Programs that stream write such lengths."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(1000))
    data = bytearray(made.getvalue())
    data[4:8] = struct.pack("<I", promised)
    (tmp_path / "hello.wav").write_bytes(data)
    assert is_cut(tmp_path / "hello.wav")


@pytest.mark.parametrize("suffix", [".flac", ".aac", ".ts", ".wma", ".tif", ".bmp", ".ac3", ".AAC"])
def test_a_kind_that_does_not_say_where_it_ends_may_go_on(tmp_path: Path, suffix: str) -> None:
    """Only a rename or time tells that such a file is complete."""
    (tmp_path / f"hello{suffix}").write_bytes(b"x")
    assert is_cut(tmp_path / f"hello{suffix}")


def test_an_mp3_says_its_length_or_may_go_on(tmp_path: Path) -> None:
    """Whole frames alone are no end: speech engines write one after another. A header counts them."""
    path = tmp_path / "hello.mp3"
    data = make(path)
    assert not is_cut(path)
    first = data.index(b"Info") if b"Info" in data else data.index(b"Xing")
    frames = data[data.index(b"\xff\xfb", first) :]
    path.write_bytes(frames)
    assert is_cut(path), "no header"
    header, length = data[: -len(frames)], 384
    assert len(frames) % length == 0
    path.write_bytes(header + frames[: length * 20])
    assert is_cut(path), "whole frames, but fewer than the header says"


def test_what_cannot_be_read_promises_nothing(tmp_path: Path) -> None:
    """A missing file, a folder, and what is no medium."""
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "hello.txt").write_bytes(b"x")
    assert not any(is_cut(tmp_path / name) for name in ("none.wav", "folder.mp4", "hello.txt"))


@settings(max_examples=200)
@given(st.sampled_from(list(CHECKS)), st.binary(max_size=200), st.sampled_from(HEADS))
def test_any_bytes_are_answered(suffix: str, data: bytes, head: bytes) -> None:
    """No content makes the check fail."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"any{suffix}"
        path.write_bytes(head + data)
        assert is_cut(path) in (True, False)
