"""Formats beside the usual ones: read, or refused by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from models import media
from models.types import Limits
from tests import media_samples as samples
from tests.media_samples import quarters


@pytest.mark.parametrize("suffix", [".jp2", ".j2k", ".ppm", ".avif", ".pgm"])
def test_pictures_of_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    """JPEG 2000, AVIF and the formats of Netpbm are read, under a name without an ending."""
    picture = Image.fromarray(np.ascontiguousarray(quarters()[..., ::-1]))
    picture = picture.convert("L") if suffix == ".pgm" else picture
    picture.save(tmp_path / f"face{suffix}")
    path = (tmp_path / f"face{suffix}").rename(tmp_path / "face")
    assert media.read_picture(path, f"face{suffix}", Limits()).kind == "image"
    shown = np.asarray(picture.convert("RGB"))[..., ::-1].astype(int)
    assert np.abs(media.read_image(path).astype(int) - shown).mean() < 8


@pytest.mark.parametrize("suffix", [".mxf", ".ts", ".mts", ".3gp", ".mpg", ".wmv", ".ogv"])
def test_videos_of_other_containers_are_read(tmp_path: Path, suffix: str) -> None:
    """Containers of cameras and broadcasters are read, under a name without an ending."""
    codecs = {".mxf": "mpeg2video", ".mpg": "mpeg2video", ".wmv": "wmv2", ".ogv": "libtheora", ".3gp": "mpeg4"}
    codec = codecs.get(suffix, "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec}")
    path = samples.video(tmp_path / f"v{suffix}", 20, 352, 288, codec=codec).rename(tmp_path / "face")
    assert media.read_picture(path, f"v{suffix}", Limits()).fps == 25
    with media.VideoFrames(path, media.read_picture(path, "v", Limits()).own_fps or 25) as frames:  # type: ignore[arg-type]
        assert samples.numbers_shown(frames, range(18)) == list(range(18))


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparent_webm_shows_white(tmp_path: Path, codec: str) -> None:
    """The alpha of VP8 and VP9 is decoded, from any frame on; what is clear shows white."""
    path = tmp_path / "avatar.webm"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={"auto-alt-ref": "0", "g": "4"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for number in range(12):
            rgba = np.dstack([samples.numbered(number), np.full((64, 96), 255, np.uint8)])
            rgba[32:, :, 3] = 0
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgba), "bgra").reformat(format="yuva420p")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for as_yuv in (False, True):
        with media.VideoFrames(path, Fraction(25), as_yuv=as_yuv) as frames:
            for index in (9, 0, 5, 11):
                read = frames.read(index)
                shown = media.yuv_to_bgr(read, frames.colour) if as_yuv else read
                assert samples.number_of(shown) == index
                assert shown[40:].min() > 240
