"""Colours on their way from a video to a result: whose matrix, range and tags the result has, and what is converted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from models import media
from models.arrays import I16, U8
from models.media.colour import ToYuv, bgr_to_yuv_matrix
from models.media.planar import yuv_to_frame
from models.types import Colour, Inspection
from tests import media_samples as samples

FPS = Fraction(25)
BARS = [(255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 0, 255), (255, 0, 0), (0, 0, 0)]


def bars(width: int = 192, height: int = 96) -> U8:
    """Eight colour bars over a grey wedge."""
    picture = np.empty((height, width, 3), np.uint8)
    for n, bgr in enumerate(BARS):
        picture[:, width * n // 8 : width * (n + 1) // 8] = bgr
    picture[height * 3 // 4 :] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    return picture


def film(path: Path, width: int = 192, height: int = 96, *, count: int = 12, **asked: object) -> Path:
    picture = bars(width, height)
    return samples.video(path, count, width, height, frames=iter([picture] * count), **asked)  # type: ignore[arg-type]


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def stored(frame: av.VideoFrame) -> list[I16]:
    """The three planes as the decoder gives them."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        planes.append(rows[: plane.height, : plane.width].astype(np.int16))
    return planes


def tags(path: Path) -> tuple[int, int, int, int]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.color_primaries, context.color_trc, context.colorspace, context.color_range


def flat(plane: I16) -> I16:
    """The inside of the bars, a quarter of a bar away from the borders, where any codec smears."""
    height, width = plane.shape
    margin = width // 32
    columns = np.arange(width) * 8 % width
    inside = (columns >= 8 * margin) & (columns < width - 8 * margin)
    return plane[: height * 3 // 4 - margin, inside]


def passed_on(source: Path, folder: Path, **asked: Any) -> tuple[Path, Colour]:
    """`source` through reading as planes, encoding in two parts and joining; nothing is painted."""
    with media.VideoFrames(source, FPS, as_yuv=True, **asked) as video:
        count, colour = len(video), video.colour
        parts = []
        for start, stop in ((0, count // 2), (count // 2, count)):
            parts.append(folder / f"{start}.mp4")
            media.write_part(
                parts[-1],
                (video.read(n) for n in range(start, stop)),
                count=stop - start,
                fps=FPS,
                width=video.width,
                height=video.height,
                encoder="libx264",
                crf=18,
                progress=lambda _: None,
                colour=colour,
            )
    voice = samples.speech_wav(folder / "voice.wav", count / 25)
    media.assemble_video(parts, audio=voice, out=folder / "result.mp4", frames=count, fps=FPS, metadata={})
    return folder / "result.mp4", colour


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_result_has_the_colours_and_tags_of_its_source(tmp_path: Path, matrix: int, full_range: bool) -> None:
    """BT.709 and BT.601, limited and full: every sample comes back within two levels, and a player is told the same."""
    source = film(tmp_path / "bars.mp4", matrix=matrix, full_range=full_range)
    result, colour = passed_on(source, tmp_path)
    assert colour.matrix == matrix
    assert colour.range == 1 + full_range
    assert tags(result) == tags(source)
    for before, after in zip(decoded(source), decoded(result), strict=True):
        for ours, own in zip(stored(after), stored(before), strict=True):
            assert np.abs(flat(ours) - flat(own)).max() <= 2
            assert abs((ours - own).mean()) < 0.3


def test_all_tags_are_kept_and_none_is_made_up(tmp_path: Path) -> None:
    """Primaries and transfer of a wide-gamut video are told on; a video that tells nothing stays so."""
    told = Colour(primaries=9, transfer=14, matrix=9, range=1)
    for colour in (told, Colour(2, 2, 2, 0)):
        source = tmp_path / f"{colour.matrix}.mp4"
        frames = [frame_of_bars(colour)] * 4
        media.write_part(
            source,
            iter(frames),
            count=4,
            fps=FPS,
            width=192,
            height=96,
            encoder="libx264",
            crf=10,
            progress=lambda _: None,
            colour=colour,
        )
        result, kept = passed_on(source, tmp_path)
        assert kept == colour
        assert tags(result) == tags(source) == (colour.primaries, colour.transfer, colour.matrix, colour.range)


def frame_of_bars(colour: Colour) -> U8:
    return np.concatenate([plane.astype(np.uint8).ravel() for plane in stored(ToYuv(colour)(bars()))]).reshape(144, 192)


def test_planes_are_the_decoders_own(tmp_path: Path) -> None:
    """4:2:0 video reaches the engine sample for sample."""
    source = film(tmp_path / "bars.mp4", full_range=True, matrix=5)
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        for n, frame in enumerate(decoded(source)):
            for plane, own in zip(media.split_planes(video.read(n)), stored(frame), strict=True):
                assert np.array_equal(plane, own)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_planes_of_a_turned_video_are_only_moved(tmp_path: Path, rotation: int) -> None:
    """A phone's video is set upright without touching a value."""
    source = film(tmp_path / "phone.mp4", rotation=rotation)
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        planes = media.split_planes(video.read(3))
        assert (video.width, video.height) == ((192, 96) if rotation == 180 else (96, 192))
    for plane, own in zip(planes, stored(decoded(source)[3]), strict=True):
        assert np.array_equal(plane, np.rot90(own, -rotation // 90))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p", "yuv420p10le"])
def test_other_layouts_keep_their_matrix_and_range(tmp_path: Path, pix_fmt: str) -> None:
    """4:4:4, 4:2:2 and ten bits become 4:2:0 in eight without leaving their colours; flat areas stay within a level."""
    source = film(tmp_path / "bars.mkv", codec="ffv1", pix_fmt=pix_fmt, matrix=5, full_range=True)
    scale = 4 if pix_fmt.endswith("10le") else 1
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        luma, *_ = media.split_planes(video.read(1))
        assert (video.colour.matrix, video.colour.range) == (5, 2)
        shown = media.yuv_to_bgr(video.read(1), video.colour)
    own = decoded(source)[1].to_ndarray()
    own = own[0] if own.ndim == 3 else own[:96]
    assert np.abs(luma[:64].astype(float) - own[:64, :192] / scale).max() <= 2
    for n, bgr in enumerate(BARS):
        assert np.abs(shown[10:50, 24 * n + 6 : 24 * n + 18] - np.array(bgr, int)).max() <= 3


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(("width", "height"), [(97, 65), (96, 65), (97, 64)])
def test_odd_sizes_lose_their_last_row_or_column(tmp_path: Path, width: int, height: int, rotation: int) -> None:
    """What is seen is the picture that a player shows, one row or column smaller, not a scaled one."""
    source = samples.video(
        tmp_path / "odd.mp4",
        3,
        width,
        height,
        codec="libvpx-vp9",
        pix_fmt="yuv420p",
        options={"lossless": "1"},
        rotation=rotation,
        frames=iter([samples.quarters(width, height)] * 3),
    )
    luma, *_ = (np.rot90(plane, -rotation // 90) for plane in stored(decoded(source)[1]))
    seen = np.rot90(samples.quarters(width, height), -rotation // 90).astype(int)
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        h, w = video.height, video.width
        assert (w, h) == tuple(size - size % 2 for size in luma.shape[::-1])
        assert np.abs(media.split_planes(video.read(1))[0].astype(int) - luma[:h, :w]).max() <= (6 if rotation else 0)
        wrong = np.abs(media.yuv_to_bgr(video.read(1), video.colour) - seen[:h, :w]).max(axis=2) > 8
    assert not wrong[: h // 2 - 3, : w // 2 - 3].any()
    assert not wrong[h // 2 + 3 :, w // 2 + 3 :].any()


def test_stills_and_rgb_become_bt709(tmp_path: Path) -> None:
    """A JPEG, a PNG and an RGB video have no tags worth keeping: their colours are right in BT.709."""
    jpeg, png = samples.picture(tmp_path / "face.jpg"), samples.picture(tmp_path / "face.png")
    rgb = samples.video(
        tmp_path / "rgb.mkv", 2, 90, 60, codec="ffv1", pix_fmt="bgr0", frames=iter([samples.quarters()] * 2)
    )
    for path in (jpeg, png, rgb):
        with media.VideoFrames(path, FPS, as_yuv=True) as video:
            assert video.colour == Colour()
            shown = media.yuv_to_bgr(video.read(0), video.colour).astype(int)
        for part in (np.s_[4:26, 4:40], np.s_[34:56, 4:40], np.s_[4:26, 50:86], np.s_[34:56, 50:86]):
            assert np.abs(shown[part] - samples.quarters()[part]).mean() < 3


def test_scaling_an_untagged_video_tells_its_matrix(tmp_path: Path) -> None:
    """Players guess by size: an HD video without tags that becomes small would change its colours."""
    source = tmp_path / "untold.mp4"
    colour = Colour(2, 2, 2, 0)
    frames = iter([np.full((1080, 1280), 90, np.uint8)] * 3)
    asked = {"count": 3, "fps": FPS, "width": 1280, "height": 720, "encoder": "libx264", "crf": 18}
    media.write_part(source, frames, progress=lambda _: None, colour=colour, **asked)  # type: ignore[arg-type]
    for height, matrix in ((720, 2), (480, 1)):
        with media.VideoFrames(source, FPS, height * 16 // 9 // 2 * 2, height, as_yuv=True) as video:
            assert video.colour == Colour(2, 2, matrix, 0)
            assert video.read(1).shape == (height * 3 // 2, video.width)


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("reach", [1, 2])
def test_our_matrices_are_swscales(matrix: int, reach: int) -> None:
    """The factors that a face is converted with give what FFmpeg gives for the rest of the picture."""
    colour = Colour(matrix=matrix, range=reach)
    factors = bgr_to_yuv_matrix(colour, 192, 96)
    for bgr in BARS:
        flat = np.full((16, 16, 3), bgr, np.uint8)
        theirs = [plane[4, 4] for plane in stored(ToYuv(colour)(flat))]
        assert np.abs(factors[:, :3] @ np.array(bgr, float) + factors[:, 3] - theirs).max() <= 1


def test_planes_and_frames_are_the_same_picture() -> None:
    """Into FFmpeg's frame and back to BGR: flat colours come back within two levels in every colour."""
    for colour in (Colour(), Colour(5, 6, 5, 2), Colour(2, 2, 2, 0)):
        shown = media.yuv_to_bgr(frame_of_bars(colour), colour)
        assert yuv_to_frame(frame_of_bars(colour), colour).colorspace == colour.matrix
        for n, bgr in enumerate(BARS):
            assert np.abs(shown[10:60, 24 * n + 6 : 24 * n + 18] - np.array(bgr, int)).max() <= 2


def test_an_outline_carries_its_colour() -> None:
    """Through the ledger and the wire; one that was written before there was a choice is BT.709."""
    outline = Inspection(1, "25", 2, 2, 0.04, {}, colour=Colour(9, 14, 9, 1))
    assert Inspection.from_dict(outline.to_dict()) == outline
    old = {key: value for key, value in outline.to_dict().items() if key != "colour"}
    assert Inspection.from_dict(old).colour == Colour()


def test_the_same_frames_give_the_same_bytes_every_time(tmp_path: Path) -> None:
    """Not only nearly always: x264's fastest instructions let chance into small pictures, so they stay unused."""
    frames = [samples.numbered(n) for n in range(40)]
    for n, frame in enumerate(frames):
        frame[12:56, 20:70] = 5 * n
    seen = set()
    for _ in range(40):
        asked = {"count": 40, "fps": FPS, "width": 96, "height": 64, "encoder": "libx264", "crf": 18}
        media.write_part(tmp_path / "part.mp4", iter(frames), progress=lambda _: None, **asked)  # type: ignore[arg-type]
        seen.add((tmp_path / "part.mp4").read_bytes())
    assert len(seen) == 1
