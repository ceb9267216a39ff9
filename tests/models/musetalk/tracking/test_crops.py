"""Faces cut out of their frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.musetalk.tracking.crops import crop_clipped, crop_padded
from tests.models.musetalk.recipe import golden, synth_frame
from tests.models.musetalk.zone_plate import draw_zone_plate, measure_aliases


def test_a_crop_is_the_golden_one() -> None:
    """Lanczos over eight pixels, to the bit, whatever the shape of the box."""
    crop, wanted = golden("03_crop")["crop_bgr"], golden("03_vae_tiny")["resized_lanczos4_bgr"]
    frame = cv2.copyMakeBorder(crop, 7, 3, 5, 9, cv2.BORDER_CONSTANT, value=(255, 0, 255))
    box = (5, 7, 5 + crop.shape[1], 7 + crop.shape[0])
    assert np.array_equal(crop_padded(frame, box), wanted)
    assert np.array_equal(crop_clipped(frame, box), wanted)


def test_crops_inside_the_frame_are_the_same_both_ways() -> None:
    """To the bit."""
    frame = synth_frame(3, 241, 321)
    assert np.array_equal(crop_clipped(frame, (40, 20, 251, 207)), crop_padded(frame, (40, 20, 251, 207)))
    assert crop_padded(frame, np.array([0, 0, 321, 241])).shape == (256, 256, 3)


@pytest.mark.parametrize("box", [(-60, 40, 90, 200), (250, 40, 400, 200), (100, -50, 260, 110), (100, 150, 260, 300)])
def test_crops_beyond_an_edge_keep_their_proportions(box: tuple[int, int, int, int]) -> None:
    """A box that reaches outside shows the inside where it belongs, at its scale, and the edge's pixels beyond."""
    frame = synth_frame(3, 241, 321)
    wide = np.asarray(cv2.copyMakeBorder(frame, 100, 100, 100, 100, cv2.BORDER_REPLICATE), np.uint8)
    assert np.array_equal(crop_padded(frame, box), crop_clipped(wide, [edge + 100 for edge in box]))


def test_a_large_face_shrinks_without_aliases() -> None:
    """Of stripes too fine for 256 pixels a sixth is left; a face that is smaller stays as the reference cuts it."""
    frame = draw_zone_plate(720)
    plain, better = (crop_padded(frame, (0, 0, 720, 720), antialias=antialias) for antialias in (False, True))
    assert measure_aliases(better, 720) < measure_aliases(plain, 720) / 6
    small = (10, 20, 200, 276)
    assert np.array_equal(crop_padded(frame, small, antialias=True), crop_padded(frame, small))
