"""Videos whose size changes: noted from their packets, shown in the first size in their own shape."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models import media
from models.types import Limits
from tests import media_samples as samples

FORMS = [(".ts", "libx264"), (".webm", "libvpx"), (".webm", "libvpx-vp9"), (".ts", "mpeg2video")]


def write_sizes(path: Path, codec: str, sizes: list[tuple[int, int]]) -> Path:
    """Write ten pictures of each size with a square, white on black, in the middle."""
    with av.open(str(path), "w") as output:
        target: av.VideoStream | None = None
        for number, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
            if target is None:
                added = output.add_stream(codec, rate=25)
                assert isinstance(added, av.VideoStream)
                target = added
                target.width, target.height, target.pix_fmt = width, height, "yuv420p"
            bgr = np.zeros((height, width, 3), np.uint8)
            side = min(width, height) // 2
            top, left = (height - side) // 2, (width - side) // 2
            bgr[top : top + side, left : left + side] = 255
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(bgr, "bgr24").reformat(format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                _mux(output, target, encoder.encode(frame), 10 * number)
            _mux(output, target, encoder.encode(None), 10 * number)
    return path


def _mux(
    output: av.container.OutputContainer, target: av.VideoStream, packets: list[av.Packet[av.VideoStream]], first: int
) -> None:
    for packet in packets:
        assert packet.pts is not None
        assert packet.dts is not None
        packet.pts, packet.dts = packet.pts + first, packet.dts + first
        packet.time_base, packet.stream = Fraction(1, 25), target
        output.mux(packet)


@pytest.mark.parametrize(("suffix", "codec"), FORMS)
def test_a_change_of_size_is_noted_and_keeps_the_shape(tmp_path: Path, suffix: str, codec: str) -> None:
    """A square stays square within 2 %, before and after the change."""
    path = write_sizes(tmp_path / f"call{suffix}", codec, [(320, 180), (180, 320)])
    picture = media.read_picture(path, "call", Limits())
    assert (picture.width, picture.height) == (320, 180)
    assert any("the size of call changes" in note for note in picture.notes)
    with media.VideoFrames(path, Fraction(25)) as frames:
        for index in (2, 15):
            lit = frames.read(index)[..., 1] > 128
            assert np.ptp(np.flatnonzero(lit.any(0))) == pytest.approx(np.ptp(np.flatnonzero(lit.any(1))), abs=2)


@pytest.mark.parametrize(("suffix", "codec"), FORMS)
def test_one_size_has_no_note(tmp_path: Path, suffix: str, codec: str) -> None:
    """Recordings that are joined in one size are not called changing, though they were encoded apart."""
    path = write_sizes(tmp_path / f"call{suffix}", codec, [(320, 180), (320, 180)])
    assert not any("size" in note for note in media.read_picture(path, "call", Limits()).notes)
    plain = samples.video(tmp_path / "plain.mp4", 60, options={"g": "12"})
    assert not media.read_picture(plain, "plain", Limits()).notes
