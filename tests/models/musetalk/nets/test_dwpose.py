"""The pose network: the numbers of the published program."""

from __future__ import annotations

import pytest
import torch

from models.musetalk.nets import dwpose
from tests.models.musetalk.recipe import golden


def test_mirrored_points() -> None:
    """The pairs of left and right are those of COCO-WholeBody, and a mirror's mirror is the thing itself."""
    assert list(dwpose.MIRRORED) == golden("12_dwpose_recipe")["flip_indices"].tolist()
    assert [dwpose.MIRRORED[point] for point in dwpose.MIRRORED] == list(range(dwpose.POINTS))


def test_points_without_a_score_lie_outside() -> None:
    """A point is its strongest bin; the weaker axis decides its score; none at all is (-0.5, -0.5)."""
    x, y = torch.full((1, dwpose.POINTS, 576), -1.0), torch.full((1, dwpose.POINTS, 768), -1.0)
    x[0, 3, 101], y[0, 3, 7] = 0.9, 0.4
    points, score = dwpose.locate_points((x, y))
    assert points[0, 3].tolist() == [50.5, 3.5]
    assert score[0, 3] == pytest.approx(0.4)
    assert points[0, 4].tolist() == [-0.5, -0.5]
