"""What engines write: named arrays in files that can run no code and appear whole or not at all, and frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from safetensors.numpy import load, save

from models.arrays import U8
from models.atomic import atomic_write, translate_full_disk
from models.motion.types import frame_path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write the arrays by rename; the same arrays give the same bytes. Raises EngineError disk_full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=False) as temp_path:
        temp_path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays by name. Raises OSError, and SafetensorError where the file is damaged."""
    return load(path.read_bytes())


def write_frame(folder: Path, number: int, picture: U8) -> None:
    """Write a decoded frame, (height, width, 3) BGR, without loss. Raises EngineError disk_full."""
    path = frame_path(folder, number)
    with translate_full_disk(path.name):
        path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
