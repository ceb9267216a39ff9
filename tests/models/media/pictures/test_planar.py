"""Frames as planes: copied where the source has them, converted where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import media
from models.media.pictures.colour import ToYuv, view_plane
from models.media.pictures.planar import yuv_to_frame
from models.types import Colour
from tests import media_samples as samples
from tests.models.media.bars import BARS, FPS, decode, film, frame_of_bars, read_planes


def test_planes_are_the_decoders_own(tmp_path: Path) -> None:
    """4:2:0 video is read sample for sample."""
    source = film(tmp_path / "bars.mp4", full_range=True, matrix=5)
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        for n, frame in enumerate(decode(source)):
            for plane, own in zip(media.split_planes(video.read(n)), read_planes(frame), strict=True):
                assert np.array_equal(plane, own)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_planes_of_a_turned_video_are_only_moved(tmp_path: Path, rotation: int) -> None:
    """A phone's video is turned upright without a change of its samples."""
    source = film(tmp_path / "phone.mp4", rotation=rotation)
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        planes = media.split_planes(video.read(3))
        assert (video.width, video.height) == ((192, 96) if rotation == 180 else (96, 192))
    for plane, own in zip(planes, read_planes(decode(source)[3]), strict=True):
        assert np.array_equal(plane, np.rot90(own, -rotation // 90))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p", "yuv420p10le"])
def test_other_layouts_keep_their_matrix_and_range(tmp_path: Path, pix_fmt: str) -> None:
    """4:4:4, 4:2:2 and ten bits become 4:2:0 in eight bits of the same matrix and range."""
    source = film(tmp_path / "bars.mkv", codec="ffv1", pix_fmt=pix_fmt, matrix=5, full_range=True)
    scale = 4 if pix_fmt.endswith("10le") else 1
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        luma, *_ = media.split_planes(video.read(1))
        assert (video.colour.matrix, video.colour.range) == (5, 2)
        shown = media.yuv_to_bgr(video.read(1), video.colour)
    own = decode(source)[1].to_ndarray()
    own = own[0] if own.ndim == 3 else own[:96]
    assert np.abs(luma[:64].astype(float) - own[:64, :192] / scale).max() <= 2
    for n, bgr in enumerate(BARS):
        assert np.abs(shown[10:50, 24 * n + 6 : 24 * n + 18] - np.array(bgr, int)).max() <= 3


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(("width", "height"), [(97, 65), (96, 65), (97, 64)])
def test_odd_sizes_lose_their_last_row_or_column(tmp_path: Path, width: int, height: int, rotation: int) -> None:
    """The frame is what a player shows without its last row or column, not a scaled one."""
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
    luma, *_ = (np.rot90(plane, -rotation // 90) for plane in read_planes(decode(source)[1]))
    seen = np.rot90(samples.quarters(width, height), -rotation // 90).astype(int)
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        h, w = video.height, video.width
        assert (w, h) == tuple(size - size % 2 for size in luma.shape[::-1])
        assert np.abs(media.split_planes(video.read(1))[0].astype(int) - luma[:h, :w]).max() <= (6 if rotation else 0)
        wrong = np.abs(media.yuv_to_bgr(video.read(1), video.colour) - seen[:h, :w]).max(axis=2) > 8
    assert not wrong[: h // 2 - 3, : w // 2 - 3].any()
    assert not wrong[h // 2 + 3 :, w // 2 + 3 :].any()


def test_stills_and_rgb_become_bt709(tmp_path: Path) -> None:
    """A JPEG, a PNG and an RGB video have the right colours in BT.709."""
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
    """A small copy of an HD video without tags is tagged, because players guess by the size."""
    source = tmp_path / "untold.mp4"
    colour = Colour(2, 2, 2, 0)
    frames = iter([np.full((1080, 1280), 90, np.uint8)] * 3)
    asked = {"count": 3, "fps": FPS, "width": 1280, "height": 720, "encoder": "libx264", "crf": 18}
    media.write_part(source, frames, progress=lambda _: None, colour=colour, **asked)  # type: ignore[arg-type]
    for height, matrix in ((720, 2), (480, 1)):
        with media.VideoFrames(source, FPS, height * 16 // 9 // 2 * 2, height, as_yuv=True) as video:
            assert video.colour == Colour(2, 2, matrix, 0)
            assert video.read(1).shape == (height * 3 // 2, video.width)


def test_planes_and_frames_are_the_same_picture() -> None:
    """Planes to a frame and back to BGR keep flat colours within two levels."""
    for colour in (Colour(), Colour(5, 6, 5, 2), Colour(2, 2, 2, 0)):
        shown = media.yuv_to_bgr(frame_of_bars(colour), colour)
        assert yuv_to_frame(frame_of_bars(colour), colour).colorspace == colour.matrix
        for n, bgr in enumerate(BARS):
            assert np.abs(shown[10:60, 24 * n + 6 : 24 * n + 18] - np.array(bgr, int)).max() <= 2


@pytest.mark.parametrize("colour", [media.BT709, Colour(matrix=5, range=2)])
@pytest.mark.parametrize("rect", [(33, 21, 90, 77), (0, 0, 160, 120), (159, 119, 160, 120), (50, 50, 50, 50)])
def test_a_picture_that_changed_in_part_has_the_planes_of_the_whole(
    rect: tuple[int, int, int, int], colour: Colour
) -> None:
    """Converting a rectangle alone, at odd edges too, gives what a conversion of the whole picture gives."""
    rng = np.random.default_rng(1)
    still = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
    x0, y0, x1, y1 = rect
    moved = still.copy()
    moved[y0:y1, x0:x1] = rng.integers(0, 256, (y1 - y0, x1 - x0, 3))
    planes = media.PatchedPlanes(still, rect, colour)
    for picture in (moved, still):
        whole = ToYuv(colour)(picture)
        for number, plane in enumerate(media.split_planes(planes.convert(picture))):
            assert np.array_equal(plane, view_plane(whole, number)[: plane.shape[0], : plane.shape[1]])


@pytest.mark.parametrize("colour", [media.BT709, Colour(matrix=5, range=2), Colour(2, 2, 2, 0)])
@pytest.mark.parametrize("rect", [(33, 21, 91, 77), (-7, -9, 300, 300), (159, 119, 160, 120), (50, 50, 50, 50)])
def test_only_the_part_that_is_drawn_changes(rect: tuple[int, int, int, int], colour: Colour) -> None:
    """A part shows what the whole picture shows there, takes what is drawn, and leaves the rest as it was."""
    planes = np.kron(np.random.default_rng(1).integers(60, 190, (18, 16)), np.ones((10, 10))).astype(np.uint8)
    drawn, shown = planes.copy(), media.yuv_to_bgr(planes, colour)
    x0, y0, x1, y1 = (max(0, edge) for edge in rect)
    with media.PlanesEditor(160, 120, colour).open_part(drawn, rect) as (part, (x, y)):
        inside = part[y0 - y : y1 - y, x0 - x : x1 - x]
        assert np.array_equal(inside, shown[y0:y1, x0:x1])
        inside[:] = (40, 120, 200)
    outside = np.ones((120, 160), bool)
    outside[y0 // 2 * 2 : -(-y1 // 2) * 2, x0 // 2 * 2 : -(-x1 // 2) * 2] = False
    for before, after in zip(media.split_planes(planes), media.split_planes(drawn), strict=True):
        size = 120 // len(before)
        assert np.array_equal(before[outside[::size, ::size]], after[outside[::size, ::size]])
    seen = media.yuv_to_bgr(drawn, colour)[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].astype(int)
    assert not seen.size or np.abs(seen - (40, 120, 200)).max() <= 2
