"""The inside of an open mouth."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from models.arrays import U8
from models.preview.interior import Interior, measure_tone, paint_interior
from models.preview.mouth import Mouth
from tests.models.preview.portraits import draw, find_face, make_darker, make_grey, portrait

CLOSED = Mouth(0.0, 100.0, 40.0, 0.0, 0.0, 0.0, False, 60.0)


def paint(image: U8) -> Interior:
    face = find_face(image)
    return paint_interior(CLOSED, measure_tone(image, face), face.eye_distance)


def measure_light(interior: Interior) -> tuple[float, float]:
    """Return the light of the darkest and of the brightest part of an interior."""
    grey = cv2.cvtColor(interior.upper[..., :3], cv2.COLOR_BGR2GRAY)
    return float(np.percentile(grey, 2)), float(np.percentile(grey, 99.5))


def test_a_grey_portrait_stays_grey() -> None:
    """The cavity, the tongue and the teeth take the colour of the picture."""
    image = make_grey(portrait())
    frame = draw(image, 1.0).astype(int)
    assert np.abs(frame[..., 0] - frame[..., 2]).max() <= 2


def test_teeth_are_as_light_as_the_picture() -> None:
    """In a dark photo teeth don't glow, and in a washed-out one the mouth is no black hole."""
    dark, usual = measure_light(paint(make_darker(portrait()))), measure_light(paint(portrait()))
    washed = measure_light(paint((110 + 0.5 * portrait()).astype(np.uint8)))
    assert dark[1] < 0.6 * usual[1]
    assert washed[0] > usual[0] + 30
    assert washed[1] > 140


def test_a_blurred_picture_has_blurred_teeth() -> None:
    """Blur and grain of the picture are measured, and what is painted is as soft and as grainy."""
    blurred = np.asarray(cv2.GaussianBlur(portrait(), (0, 0), 3), np.uint8)
    noise = np.random.default_rng(3).normal(0, 9, portrait().shape)
    grainy = np.clip(portrait() + noise, 0, 255).astype(np.uint8)
    sharp, soft, rough = (measure_tone(image, find_face(image)) for image in (portrait(), blurred, grainy))
    assert sharp.blur < 0.5 < 1.2 < soft.blur
    assert sharp.grain < 2 < 3 < rough.grain
    slopes = [
        np.abs(np.diff(interior.matte.astype(float), axis=0)).max() * interior.scale
        for interior in (paint(portrait()), paint(blurred))
    ]
    assert slopes[1] < 0.65 * slopes[0]
    smooth, noisy = (
        np.abs(np.diff(paint(image).upper[..., 1].astype(float), axis=1)).mean() for image in (portrait(), grainy)
    )
    assert noisy > 1.3 * smooth


def test_teeth_take_the_cast_of_the_picture() -> None:
    """Under yellow light, teeth are yellow."""
    yellow = (portrait() * np.array([0.5, 0.95, 1.0])).astype(np.uint8)
    usual, cast = (paint(image).upper[..., :3].reshape(-1, 3).astype(float) for image in (portrait(), yellow))
    brightest = [pixels[pixels.mean(1) > np.percentile(pixels.mean(1), 99)].mean(0) for pixels in (usual, cast)]
    assert brightest[1][0] / brightest[1][2] < 0.8 * brightest[0][0] / brightest[0][2]


def test_the_interior_of_a_small_face_is_averaged() -> None:
    """It has one and a half pixels for each of the face, so that teeth aren't jagged."""
    small = np.asarray(cv2.resize(portrait(), (200, 200), interpolation=cv2.INTER_AREA), np.uint8)
    interior = paint(small)
    assert interior.scale < 1.6 * find_face(small).eye_distance / 100
    assert interior.matte.shape[1] < 1.1 * interior.crop.width * interior.scale


def test_a_narrow_gap_is_painted_over() -> None:
    """Lips that are a little apart, without teeth between them, open over painted teeth as shut ones do."""
    face = find_face(portrait())
    tone = measure_tone(portrait(), face)
    shut, apart, wide = (
        measure_light(paint_interior(replace(CLOSED, top=-gap / 2, bottom=gap / 2), tone, face.eye_distance))
        for gap in (0.0, 6.0, 20.0)
    )
    assert apart[1] > 0.9 * shut[1]
    assert wide[1] < 0.7 * shut[1]
