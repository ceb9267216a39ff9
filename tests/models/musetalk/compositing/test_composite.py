"""Faces blended into frames: as Pillow pastes to the bit, and into a video's own planes alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models import media
from models.arrays import U8
from models.media.pictures.colour import ToYuv
from models.musetalk.compositing.composite import BgrBlend, YuvBlend, find_visible_box, fit_face
from models.musetalk.compositing.masks import square_around
from models.musetalk.geometry import Box
from models.types import Colour
from tests import media_samples as samples
from tests.models.media.bars import decode, film, read_planes, read_tags

FPS = Fraction(25)
RNG = np.random.default_rng(11)


def soft(side: int) -> U8:
    """A round mask with a soft edge, somewhat to the lower half."""
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side * 5 // 8), max(1, side // 4), 255, -1)
    width = side // 10 * 2 + 1
    return np.asarray(cv2.GaussianBlur(mask, (width, width), 0), np.uint8)


def noise(height: int, width: int) -> U8:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def by_pillow(frame: U8, face: U8, mask: U8, box: Box, crop: Box) -> U8:
    """The whole picture through Pillow: the face onto the square, the square onto the picture through the mask."""
    picture = Image.fromarray(frame[..., ::-1])
    square = picture.crop(crop)
    square.paste(Image.fromarray(fit_face(face, box)[..., ::-1]), (box[0] - crop[0], box[1] - crop[1]))
    picture.paste(square, crop[:2], Image.fromarray(mask))
    return np.asarray(picture)[..., ::-1]


def some_boxes(count: int) -> list[Box]:
    """Boxes of all sizes in and about a frame of 160 x 120."""
    corners = RNG.integers((-30, -30), (150, 110), (count, 2))
    sizes = RNG.integers(4, 90, (count, 2))
    return [(int(x), int(y), int(x + w), int(y + h)) for (x, y), (w, h) in zip(corners, sizes, strict=True)]


@pytest.mark.parametrize("box", some_boxes(24))
def test_pasting_is_pillows_to_the_bit(box: Box) -> None:
    """Wherever the box lies: the few pixels that are computed come out as if the whole picture had been."""
    frame, face, crop = noise(120, 160), noise(256, 256), square_around(box)
    mask = soft(crop[2] - crop[0])
    expected = by_pillow(frame, face, mask, box, crop)
    blend = BgrBlend(mask, box, crop, (160, 120))
    blend.apply(frame, face)
    assert np.array_equal(frame, expected)


def test_only_what_shows_is_computed() -> None:
    """The rectangle is the mask's within the box and the frame; without a mask there is none, and nothing happens."""
    mask = np.zeros((40, 40), np.uint8)
    mask[25:30, 5:35] = 9
    assert find_visible_box(mask, (10, 10, 30, 40), (0, 0, 40, 40), (100, 100)) == (10, 25, 30, 30)
    assert find_visible_box(mask, (10, 10, 30, 40), (0, 0, 40, 40), (20, 27)) == (10, 25, 20, 27)
    nothing = np.zeros((40, 40), np.uint8)
    frame = noise(100, 100)
    before = frame.copy()
    BgrBlend(nothing, (10, 10, 30, 40), (0, 0, 40, 40), (100, 100)).apply(frame, noise(256, 256))
    assert np.array_equal(frame, before)
    yuv = RNG.integers(0, 256, (150, 100), np.uint8)
    same = yuv.copy()
    YuvBlend(nothing, (10, 10, 30, 40), (0, 0, 40, 40), (100, 100), Colour()).apply(yuv, noise(256, 256))
    assert np.array_equal(yuv, same)


def test_opacity_fades_a_face_out() -> None:
    """At 0 the frame is its own, in between lies in between, at 1 the face is there."""
    box, crop, face = (40, 20, 100, 90), square_around((40, 20, 100, 90)), noise(256, 256)
    mask, frame = soft(crop[2] - crop[0]), np.full((120, 160, 3), 100, np.uint8)
    frames = []
    for opacity in (0.0, 0.5, 1.0):
        frames.append(frame.copy())
        BgrBlend(mask, box, crop, (160, 120), opacity).apply(frames[-1], face)
    assert np.array_equal(frames[0], frame)
    assert np.abs(frames[1] - (frames[0].astype(float) + frames[2]) / 2).max() <= 1


COLOURS = [
    Colour(),
    Colour(5, 6, 5, 1),
    Colour(1, 1, 1, 2),
    Colour(6, 6, 6, 2),
    Colour(9, 14, 9, 1),
    Colour(2, 2, 2, 0),
]


def as_yuv(bgr: U8, colour: Colour) -> U8:
    height, width = bgr.shape[:2]
    picture = np.empty((height * 3 // 2, width), np.uint8)
    for target, plane in zip(media.split_planes(picture), read_planes(ToYuv(colour)(bgr)), strict=True):
        target[:] = plane
    return picture


@pytest.mark.parametrize("colour", COLOURS)
def test_planes_show_what_pixels_would(colour: Colour) -> None:
    """In every colour, blending into planes gives the planes of the blended picture, within three levels."""
    box = (41, 21, 102, 97)
    crop, face = square_around(box), cv2.GaussianBlur(noise(256, 256), (31, 31), 0)
    frame = np.asarray(cv2.GaussianBlur(noise(120, 160), (31, 31), 0), np.uint8)
    mask, planes = soft(crop[2] - crop[0]), as_yuv(frame, colour)
    BgrBlend(mask, box, crop, (160, 120)).apply(frame, np.asarray(face, np.uint8))
    YuvBlend(mask, box, crop, (160, 120), colour).apply(planes, np.asarray(face, np.uint8))
    wrong = np.abs(planes.astype(int) - as_yuv(frame, colour))
    assert wrong.max() <= 3
    assert wrong.mean() < 0.3


@pytest.mark.parametrize("box", some_boxes(24))
def test_planes_outside_the_mask_are_untouched(box: Box) -> None:
    """Whatever the box: luma changes only where the mask is, chroma only in the blocks that the mask reaches."""
    crop = square_around(box)
    mask = soft(crop[2] - crop[0])
    before = RNG.integers(0, 256, (180, 160), np.uint8)
    after = before.copy()
    YuvBlend(mask, box, crop, (160, 120)).apply(after, noise(256, 256))
    reach = np.zeros((120, 160, 3), np.uint8)
    BgrBlend(mask, box, crop, (160, 120)).apply(reach, np.full((8, 8, 3), 255, np.uint8))
    fine = reach[..., 0] > 0
    coarse = fine.reshape(60, 2, 80, 2).any(axis=(1, 3))
    for one, other, may in zip(
        media.split_planes(before), media.split_planes(after), (fine, coarse, coarse), strict=True
    ):
        assert np.array_equal(one[~may], other[~may])
    if fine.sum() > 50:
        assert (before != after).any()


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("rotation", [0, 90])
def test_colour_bars_survive_the_whole_chain(tmp_path: Path, matrix: int, full_range: bool, rotation: int) -> None:
    """Video -> frames -> blended -> part -> mp4 -> decoded: two levels at most outside the face, and the same tags."""
    source = film(tmp_path / "bars.mp4", matrix=matrix, full_range=full_range, rotation=rotation, options={"crf": "4"})
    box = (60, 20, 110, 80) if not rotation else (25, 60, 75, 120)
    crop, face = square_around(box), np.full((256, 256, 3), (90, 120, 200), np.uint8)
    with media.VideoFrames(source, FPS, as_yuv=True) as video:
        size, colour = (video.width, video.height), video.colour
        blend = YuvBlend(soft(crop[2] - crop[0]), box, crop, size, colour)
        own, made = [video.read(n) for n in range(len(video))], []
        for frame in own:
            made.append(frame.copy())
            blend.apply(made[-1], face)
    part = tmp_path / "part.mp4"
    asked = {"count": len(made), "fps": FPS, "width": size[0], "height": size[1], "encoder": "libx264", "crf": 14}
    media.write_part(part, iter(made), progress=lambda _: None, colour=colour, **asked)  # type: ignore[arg-type]
    voice = samples.speech_wav(tmp_path / "voice.wav", len(made) / 25)
    result = tmp_path / "result.mp4"
    media.assemble_video([part], audio=voice, out=result, frames=len(made), fps=FPS, metadata={})
    assert read_tags(result) == read_tags(source)
    x1, y1, x2, y2 = blend.region
    inside = np.s_[(y1 + y2) // 2 - 5 : (y1 + y2) // 2 + 5, (x1 + x2) // 2 - 5 : (x1 + x2) // 2 + 5]
    outside = np.ones((size[1], size[0]), bool)
    outside[max(0, y1 - 8) : y2 + 8, max(0, x1 - 8) : x2 + 8] = False
    for before, after in zip(own, (joined(frame) for frame in decode(result)), strict=True):
        was, now = (media.yuv_to_bgr(yuv, colour).astype(int) for yuv in (before, after))
        flat = outside & ~near_borders(was)
        assert np.abs(media.split_planes(after)[0].astype(int) - media.split_planes(before)[0])[flat].max() <= 2
        wrong = np.abs(now - was)[flat]
        assert np.percentile(wrong, 99) <= 2
        assert np.abs((now - was)[flat].mean(axis=0)).max() < 0.5
        assert np.median(np.abs(now - face[0, 0])[inside]) <= 3


def joined(frame: av.VideoFrame) -> U8:
    return np.concatenate([plane.astype(np.uint8).ravel() for plane in read_planes(frame)]).reshape(-1, frame.width)


def near_borders(picture: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Within four pixels of a sharp change."""
    steps = [np.abs(np.diff(picture, axis=axis, prepend=picture.take([0], axis))).max(axis=2) for axis in (0, 1)]
    return cv2.dilate((np.maximum(*steps) > 12).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
