"""The tone of an inpainted face: that of its frame at the edge of the mask, and no detail less."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.arrays import U8
from models.musetalk.compositing.colour_match import ColourMatch
from models.musetalk.compositing.composite import BgrBlend, BlendStyle, YuvBlend
from models.musetalk.compositing.masks import make_blend_mask, square_around
from models.musetalk.selftest.samples import draw_face
from models.types import Colour
from tests.models.musetalk.compositing.test_composite import as_yuv

BOX = (40, 30, 240, 250)
CROP = square_around(BOX)
MASK = make_blend_mask(np.full((512, 512), 255, np.uint8), BOX, CROP, prepared=False)
SIZE = (280, 280)


def frame_and_face(tone: float) -> tuple[U8, U8]:
    """A frame, and its own face as another network would paint it: darker, less so to the right."""
    frame = draw_face(SIZE[0])
    x1, y1, x2, y2 = BOX
    face = cv2.resize(frame[y1:y2, x1:x2], (256, 256)).astype(np.float32)
    return frame, np.rint(face - tone * np.linspace(1, 0.5, 256)[None, :, None]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", [BgrBlend, YuvBlend])
def test_a_seam_in_the_tone_goes(kind: type) -> None:
    """A mouth 12 levels too dark at its left edge and 6 at its right is right to a level on average."""
    left: dict[bool, float] = {}
    for match in (False, True):
        frame, face = frame_and_face(12)
        colour = () if kind is BgrBlend else (Colour(),)
        shown = frame if kind is BgrBlend else as_yuv(frame, Colour())
        before = shown.copy()
        kind(MASK, BOX, CROP, SIZE, *colour, style=BlendStyle(matches_colour=match)).apply(shown, face)
        x1, y1, x2, y2 = (160, 190, 220, 240)
        left[match] = float(np.abs(shown[y1:y2, x1:x2].astype(float) - before[y1:y2, x1:x2]).mean())
    assert left[False] > 5
    assert left[True] < 1


def test_what_fits_already_stays() -> None:
    """A face of the frame's own tone changes by rounding alone, whatever its mouth does inside of the mask."""
    frame, face = frame_and_face(0)
    weights = np.full((64, 64), 255, np.uint16)
    weights[:8] = np.linspace(0, 255, 8).astype(np.uint16)[:, None]
    under = np.ascontiguousarray(frame[100:164, 100:164])
    over = under.copy()
    cv2.circle(over, (32, 40), 12, (30, 20, 90), -1)
    assert np.abs(ColourMatch(weights).apply(over, under).astype(int) - over).max() <= 1
    assert face.shape == (256, 256, 3)


def test_only_the_tone_changes() -> None:
    """The correction has no edge of its own: neighbours differ by as much as before, to a level."""
    frame, face = frame_and_face(12)
    weights = cv2.GaussianBlur(np.pad(np.full((120, 120), 255, np.uint8), 20), (31, 31), 0).astype(np.uint16)
    over, under = np.ascontiguousarray(face[:160, :160]), np.ascontiguousarray(frame[:160, :160])
    change = ColourMatch(weights).apply(over, under).astype(int) - over
    assert np.abs(np.diff(change, axis=0)).max() <= 2
    assert np.abs(np.diff(change, axis=1)).max() <= 2
    assert np.abs(change).max() <= 25


def test_a_mask_without_an_edge_changes_nothing() -> None:
    """Where the face covers all there is nothing to compare."""
    over, under = np.full((9, 7), 10, np.uint8), np.full((9, 7), 200, np.uint8)
    assert np.array_equal(ColourMatch(np.full((9, 7), 255, np.uint16)).apply(over, under), over)
