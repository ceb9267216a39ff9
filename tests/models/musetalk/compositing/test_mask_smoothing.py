"""Masks over time: less flicker, no delay, and nothing across a cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.arrays import U8
from models.musetalk.compositing.mask_smoothing import SMOOTH_S, smooth_masks

RATE = 25


def half_plane(edge: float) -> U8:
    """A mask that shows all below a row."""
    return np.where(np.arange(64)[:, None] >= edge, np.uint8(255), np.uint8(0)).repeat(64, 1)


def find_edges(masks: Iterator[U8 | None]) -> list[float]:
    """The row of each mask's edge, to a fraction of a pixel."""
    return [float(np.nan) if mask is None else float(64 - mask.sum(0).mean() / 255) for mask in masks]


def test_flicker_of_the_edge_goes() -> None:
    """An edge that jumps by two pixels from frame to frame keeps a fifth of its motion, and its place."""
    random = np.random.default_rng(1)
    edges = 32 + random.integers(-2, 3, 60)
    found = find_edges(smooth_masks([half_plane(float(edge)) for edge in edges], [(0, 60)], SMOOTH_S * RATE))
    assert np.std(np.diff(found)) < np.std(np.diff(edges)) / 5
    assert abs(np.mean(found) - np.mean(edges)) < 0.1


def test_even_motion_has_no_delay() -> None:
    """A jaw that falls steadily is where it was, in the middle of the shot to a tenth of a pixel."""
    edges = [10.0 + number for number in range(40)]
    found = find_edges(smooth_masks([half_plane(edge) for edge in edges], [(0, 40)], SMOOTH_S * RATE))
    assert np.abs(np.array(found[8:-8]) - np.array(edges[8:-8])).max() < 0.1


def test_cuts_and_frames_without_a_face_are_kept() -> None:
    """The last mask of a shot has nothing of the next one, and a frame without a face none."""
    masks = [half_plane(10)] * 5 + [None] + [half_plane(10)] * 2 + [half_plane(50)] * 4
    found = list(smooth_masks(masks, [(0, 8), (8, 12)], SMOOTH_S * RATE))
    assert len(found) == len(masks)
    for was, now in zip(masks, found, strict=True):
        assert (was is None) == (now is None)
        assert was is None or now is None or np.array_equal(was, now)


def test_no_more_is_read_ahead_than_the_window() -> None:
    """A long video takes no more memory than a short one."""
    read = []

    def masks() -> Iterator[U8]:
        for number in range(1000):
            read.append(number)
            yield half_plane(20)

    next(smooth_masks(masks(), [(0, 1000)], 3.0))
    assert len(read) == 7
