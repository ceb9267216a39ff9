"""Named arrays in files that can run no code, and that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from models.atomic import atomic_write


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write the arrays by rename; the same arrays give the same bytes. Raises EngineError disk_full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=False) as temp_path:
        temp_path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays by name. Raises OSError, and SafetensorError where the file is damaged."""
    return load(path.read_bytes())
