"""Array types: one name for each dtype, with one meaning in all files. Docstrings give the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int8]
U16 = npt.NDArray[np.uint16]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
"""float32 or float64: the result has the precision of what came in."""
Array = npt.NDArray[Any]
"""Any dtype."""
