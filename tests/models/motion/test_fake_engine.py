"""The engine that the tests of jobs use keeps to the contract itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from models.motion.types import MotionEngine, MotionRequest
from tests.models.motion.contract import MotionEngineContract
from tests.models.motion.fake_engine import FakeMotionEngine


def write_photo(folder: Path, width: int = 320, height: int = 400) -> Path:
    """Write a picture with something in it that can be seen to move."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack([rows % 256, columns % 256, (rows * columns // 64) % 256], 2).astype(np.uint8)
    cv2.imwrite(str(folder / "photo.png"), picture)
    return folder / "photo.png"


class TestFakeMotionEngine(MotionEngineContract):
    @classmethod
    def make_engine(cls) -> MotionEngine:
        return FakeMotionEngine("cpu:0")

    @classmethod
    def make_request(cls, folder: Path) -> MotionRequest:
        return MotionRequest(str(write_photo(folder)), "photo.png", str(folder), seconds=2.0)
