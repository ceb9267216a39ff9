"""What an inspection may cost: small files that ask for much are refused by a name, soon and in little memory."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import media
from models.handler import Handler, check_frame_size
from models.media.budget import charge
from models.types import EngineError, Limits, Request
from tests.models.media.still_files import encode_still

MIB = 1 << 20
NAMES = ("face", "voice", "work", "out", "cache", "models")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(kind: bytes, data: bytes) -> bytes:
    """Return a small PNG with one more chunk in front of its pixels."""
    plain = encode_still(".png", np.full((64, 64, 3), 200, np.uint8))
    at = plain.index(b"IDAT") - 4
    return plain[:at] + png_chunk(kind, data) + plain[at:]


def pack_zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(mebibytes)) + packer.flush()


def gif(width: int, height: int, frames: int) -> bytes:
    """Return an animation of a large canvas, each picture of which is one pixel."""
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\x00\x00" + b"\x00" * 3 + b"\xff" * 3
    control = b"\x21\xf9\x04\x00\x04\x00\x00\x00"
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + (control + picture) * frames + b"\x3b"


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """Return float samples (n, channels) as a wav."""
    data, channels = samples.astype("<f4").tobytes(), samples.shape[1]
    form = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def noise(channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.1, 0.1, (16_000, channels))


def inspect(folder: Path, avatar: bytes, audio: bytes, limits: Limits) -> EngineError:
    """Return the error with which the inspection of these media ends."""
    (folder / "face").write_bytes(avatar)
    (folder / "voice").write_bytes(audio)
    avatar_path, audio_path, work, out, cache, models = (str(folder / name) for name in NAMES)
    with pytest.raises(EngineError) as caught:
        Handler("cpu:0").inspect(Request("preview", avatar_path, audio_path, work, out, cache, models, limits=limits))
    return caught.value


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_picture_with_a_huge_packed_note(tmp_path: Path, kind: bytes) -> None:
    """Some kilobytes become a gibibyte: refused before any decoder unpacks them."""
    picture = png_with(kind, b"note\0\0" + pack_zeros(200))
    error = inspect(tmp_path, picture, wav(noise()), Limits())
    assert (error.code, error.retry) == ("media_too_costly", False)
    small = png_with(kind, b"note\0\0" + pack_zeros(1))
    assert inspect(tmp_path, small, wav(noise()), Limits()).code == "no_face"


def test_a_long_animation_of_large_pictures(tmp_path: Path) -> None:
    """The budget of pixels ends the search for a face, which would decode all pictures."""
    limits = Limits(inspect_pixels=200_000_000)
    error = inspect(tmp_path, gif(2000, 2000, 3000), wav(noise()), limits)
    assert error.code == "media_too_costly"
    assert "limits.inspect_gigapixels" in error.hint
    assert "face" in error.message


def test_an_inspection_that_takes_too_long(tmp_path: Path) -> None:
    """The budget of seconds counts, too."""
    error = inspect(tmp_path, gif(2000, 2000, 3000), wav(noise()), Limits(inspect_s=0.05))
    assert error.code == "media_too_costly"
    assert error.hint.endswith("limits.inspect_s")


def test_a_sound_of_too_many_bytes(tmp_path: Path) -> None:
    """The budget of bytes counts what is decoded."""
    error = inspect(tmp_path, b"", wav(noise(8)), Limits(inspect_bytes=1000))
    assert (error.code, error.hint.endswith("limits.inspect_gib")) == ("media_too_costly", True)


def test_an_inspection_that_takes_too_much_memory() -> None:
    """In a process of its own: the limit ends with the inspection, and the error has a name."""
    code = (
        "from models import media; from models.types import *\n"
        "limits = Limits(inspect_memory_bytes=64 << 20)\n"
        "try:\n with media.spend(limits, print): bytearray(200 << 20)\n"
        "except EngineError as error: print(error.code, error.hint)\n"
        "bytearray(200 << 20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("media_too_costly")
    assert "limits.inspect_memory_mib" in done.stdout


def test_each_charge_is_a_sign_of_life_and_outside_nothing_is_counted() -> None:
    """A worker that inspects reports progress; one that renders has no budget."""
    said: list[int] = []
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with media.spend(Limits(), said.append):
        charge(pixels=5)
        charge()
    assert said == [0, 0]
    charge(pixels=10**15, size_bytes=10**15)
    assert said == [0, 0]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(
    ("samples", "rate", "what"),
    [
        (np.array([[0.1]] * 8000 + [[np.nan]] + [[0.1]] * 8000), 16_000, "no numbers"),
        (np.array([[0.1]] * 8000 + [[np.inf]] + [[0.1]] * 8000), 16_000, "no numbers"),
        (np.array([[0.1]] * 8000 + [[-1e30]] + [[0.1]] * 8000), 16_000, "no numbers"),
        (noise(255), 16_000, "255 channels"),
        (noise(11), 16_000, "11 channels"),
        (noise(), 100, "100 samples a second"),
        (np.zeros((1 << 20, 1)), 2_000_000, "2000000 samples a second"),
    ],
)
def test_sound_that_no_later_stage_can_use(tmp_path: Path, samples: np.ndarray, rate: int, what: str) -> None:
    """Said by the inspection, with what to do."""
    error = inspect(tmp_path, b"", wav(samples, rate), Limits())
    assert (error.code, error.retry) == ("audio_unreadable", False)
    assert what in error.message
    assert "save it again" in error.hint


@pytest.mark.parametrize(
    ("width", "height", "code"),
    [
        (100_000, 2, "avatar_too_large"),
        (2, 100_000, "avatar_too_large"),
        (16_000, 8_000, "avatar_too_large"),
        (2, 100, "avatar_too_small"),
        (100, 14, "avatar_too_small"),
    ],
)
def test_pictures_that_no_encoder_takes(width: int, height: int, code: str) -> None:
    """A side too long or too short, or too many pixels."""
    with pytest.raises(EngineError) as caught:
        check_frame_size(width, height, "face.png", Limits().pixels)
    assert caught.value.code == code
    check_frame_size(1280, 720, "face.png", Limits().pixels)


def test_a_line_of_pixels(tmp_path: Path) -> None:
    """100,000 x 1 pixels are few, and no video."""
    done, data = cv2.imencode(".png", np.zeros((1, 100_000, 3), np.uint8))
    assert done
    assert inspect(tmp_path, data.tobytes(), wav(noise()), Limits()).code == "avatar_too_small"
