"""The toy networks as a fixture."""

from __future__ import annotations

import pytest

from models.musetalk.tracking.detection import FaceNets
from tests.models.musetalk.toy_nets import toy_dwpose, toy_s3fd
from tests.models.musetalk.tracking.discs import CPU


@pytest.fixture
def nets() -> FaceNets:
    """The toy networks: a red disc of 100 to 130 px is a face, wherever it is."""
    return FaceNets(toy_s3fd(), toy_dwpose(), CPU)
