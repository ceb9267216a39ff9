"""Videos, stills and animations as one source of upright pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from models import media
from models.types import EngineError, Limits
from tests import media_samples as samples
from tests.media_samples import quarters
from tests.models.media.still_files import detailed_picture, encode_still

LIMITS = Limits()


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_flags_of_videos(tmp_path: Path, rotation: int) -> None:
    """A video filmed upright on a phone is read upright."""
    path = samples.video(tmp_path / "phone.mp4", 3, 90, 60, rotation=rotation, frames=iter([samples.quarters()] * 3))
    picture = media.read_picture(path, "phone", LIMITS)
    seen = np.rot90(samples.quarters(), -rotation // 90)
    assert (picture.height, picture.width) == seen.shape[:2]
    with media.VideoFrames(path, Fraction(25)) as frames:
        assert np.abs(frames.read(1).astype(int) - seen).mean() < 12


def test_scaling_turns_first(tmp_path: Path) -> None:
    """The requested size is that of the upright picture."""
    path = samples.video(tmp_path / "v.mp4", 3, 90, 60, rotation=90, frames=iter([samples.quarters()] * 3))
    with media.VideoFrames(path, Fraction(25), 40, 60) as frames:
        seen = frames.read(2)
    wanted = cv2.resize(np.ascontiguousarray(np.rot90(samples.quarters(), -1)), (40, 60), interpolation=cv2.INTER_AREA)
    assert seen.shape == (60, 40, 3)
    assert np.abs(seen.astype(int) - wanted).mean() < 12


def test_a_photo_that_drags_a_second_one_along_is_one_image(tmp_path: Path) -> None:
    """Depth maps, gain maps and motion-photo videos after the picture are ignored."""
    path = tmp_path / "motion.jpg"
    path.write_bytes(encode_still(".jpg", quarters()) + encode_still(".jpg", 255 - quarters()) + b"\0\0\0\x18ftypmp42")
    assert media.read_picture(path, "motion.jpg", LIMITS).kind == "image"
    assert np.abs(media.read_image(path, "motion.jpg").astype(int) - quarters()).mean() < 8


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_half_a_picture_is_no_picture(tmp_path: Path, suffix: str, share: float) -> None:
    """An interrupted upload is refused, not shown with a grey rest."""
    whole = tmp_path / f"whole{suffix}"
    whole.write_bytes(encode_still(suffix, detailed_picture(320, 240)))
    cut = samples.cut(whole, tmp_path / "avatar", share)
    with pytest.raises(EngineError) as refused:
        media.read_picture(cut, "face", LIMITS)
    assert refused.value.code == "avatar_unreadable"
    assert "face" in refused.value.message
    assert str(tmp_path) not in refused.value.message


def test_tiles_of_a_phone_are_not_taken_for_the_picture(tmp_path: Path) -> None:
    """A HEIC photo of several tiles is refused with a hint."""
    path = tmp_path / "IMG_0001.heic"

    with av.open(str(path), "w", format="mp4", options={"brand": "heic"}) as output:
        streams = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for stream in streams:
            output.mux([*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)])
    with pytest.raises(EngineError, match="HEIC") as refused:
        media.read_picture(path, "IMG_0001.heic", LIMITS)
    assert refused.value.hint == "save it as jpg"
