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


def test_tiles_of_a_phone_are_not_taken_for_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HEIC photo of several tiles is refused with a hint where the package for it is missing."""
    monkeypatch.setattr("models.media.source.has_heif", lambda: False)
    path = tmp_path / "IMG_0001.heic"

    with av.open(str(path), "w", format="mp4", options={"brand": "heic"}) as output:
        streams = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for stream in streams:
            output.mux([*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)])
    with pytest.raises(EngineError, match="HEIC") as refused:
        media.read_picture(path, "IMG_0001.heic", LIMITS)
    assert refused.value.hint.startswith("save it as jpg")


@pytest.mark.parametrize("as_yuv", [False, True])
def test_a_size_that_changes_keeps_its_shape(tmp_path: Path, as_yuv: bool) -> None:
    """Pictures of another size are scaled into that of the first one, with black beside them."""
    path = tmp_path / "call.ts"
    sizes = ((320, 180), (180, 320), (640, 360))
    with path.open("wb") as file:
        for n, (width, height) in enumerate(sizes):
            disc = np.zeros((height, width, 3), np.uint8)
            cv2.circle(disc, (width // 2, height // 2), min(width, height) // 3, (255, 255, 255), -1)
            file.write(samples.video(tmp_path / f"{n}.ts", 10, width, height, frames=iter([disc] * 10)).read_bytes())
    with media.VideoFrames(path, Fraction(25), as_yuv=as_yuv) as frames:
        for index in (5, 15, 25):
            read = frames.read(index)
            shown = media.yuv_to_bgr(read, frames.colour) if as_yuv else read
            assert shown.shape == (180, 320, 3)
            lit = np.argwhere(shown[..., 1] > 128)
            tall, wide = lit.max(axis=0) - lit.min(axis=0) + 1
            assert tall / wide == pytest.approx(1, abs=0.05)


def test_of_several_picture_tracks_the_default_is_shown(tmp_path: Path) -> None:
    """The first track is shown, not a larger one after it."""
    path = tmp_path / "tracks.mkv"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, (width, height) in zip(streams, ((96, 64), (192, 128)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(10):
            for number, stream in enumerate(streams):
                picture = samples.numbered(n + 100 * number, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, "bgr24")
                frame.pts = n
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
    with media.VideoFrames(path, Fraction(25)) as frames:
        assert samples.numbers_shown(frames, range(10)) == list(range(10))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_still_without_its_end_is_called_cut_off(tmp_path: Path, suffix: str) -> None:
    """A picture that lacks its last two percent is called what it is."""
    whole = tmp_path / f"whole{suffix}"
    whole.write_bytes(encode_still(suffix, detailed_picture(320, 240)))
    with pytest.raises(EngineError, match="face is cut off"):
        media.read_picture(samples.cut(whole, tmp_path / "avatar", 0.98), "face", LIMITS)
