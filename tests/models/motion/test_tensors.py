"""The files of a clip that is being made."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.motion.tensors import write_frame
from models.motion.types import frame_path
from models.types import EngineError


def test_a_frame_is_written_without_loss_or_not_at_all(tmp_path: Path) -> None:
    """Where the disk is full, that is said, and the job may go on later."""
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    write_frame(tmp_path, 7, picture)
    assert np.array_equal(np.asarray(cv2.imread(str(frame_path(tmp_path, 7)))), picture)
    frame_path(tmp_path, 8).symlink_to("/dev/full")
    with pytest.raises(EngineError, match="disk_full") as caught:
        write_frame(tmp_path, 8, picture)
    assert caught.value.retry
