"""Fourteen mouth shapes, and their classifier.

The table was fitted by benchmarks/fit_visemes.py (linear discriminant analysis) to speech of espeak-ng and flite with
their phoneme times: 14 rows of a constant and 14 weights for the features in speech.py.
"""

from __future__ import annotations

import numpy as np

from models.arrays import Floats

BANDS, CEPSTRA = 20, 10
FEATURES = CEPSTRA + 4

SHAPES: dict[str, tuple[float, float]] = {
    "a": (0.90, 0.10),
    "uh": (0.55, 0.05),
    "e": (0.50, 0.60),
    "i": (0.30, 0.80),
    "schwa": (0.35, 0.00),
    "o": (0.50, -0.70),
    "u": (0.25, -0.90),
    "mbp": (0.00, 0.00),
    "f": (0.10, 0.10),
    "s": (0.15, 0.30),
    "sh": (0.18, -0.40),
    "t": (0.25, 0.10),
    "k": (0.28, 0.00),
    "rest": (0.00, 0.00),
}
"""Opening 0..1 and spread -1 (rounded) .. 1 of each shape."""

# fmt: off
_TABLE = np.array([
    [ -13.3,   44.3,   14.5,   -0.7,   -5.5,   -0.4,    3.6,   28.4,   28.3,   48.8,   40.9,    7.2,   -6.5,   13.7,    4.8],
    [ -12.2,   37.9,    7.3,    8.4,  -17.2,    7.1,  -11.3,   31.3,  -10.0,   22.1,   59.4,    2.4,  -11.9,   11.2,    0.8],
    [ -15.1,   45.2,   -5.6,   13.1,   34.9,   -2.5,  -31.8,  -16.3,   22.6,   35.1,   25.1,    8.2,  -11.9,   13.3,    2.6],
    [ -11.7,   37.7,  -14.6,   32.1,   52.0,   15.1,  -18.4,   23.7,    0.1,   11.1,  -10.6,    7.0,   -8.7,    8.9,    1.0],
    [  -9.2,   34.3,    1.2,   18.5,  -13.0,   23.8,   -9.1,   -1.1,  -25.2,    6.9,    3.8,    3.8,  -10.7,    8.6,   -0.5],
    [ -13.3,   43.0,   17.6,   40.7,  -13.1,  -15.9,  -29.3,   23.4,   16.3,   18.6,  -15.6,    7.0,   -6.2,   12.8,    6.3],
    [ -10.7,   37.7,    4.6,   28.4,    2.5,   38.6,    8.9,   24.3,   -4.8,   -9.3,  -39.8,    7.6,   -6.9,    8.7,    1.9],
    [  -8.4,   31.1,    9.1,   30.5,   -2.3,   39.6,   22.1,   44.8,   35.4,   33.0,    4.7,   11.3,   -1.1,    7.1,    6.5],
    [  -7.2,   26.9,  -12.7,   37.0,  -10.9,   38.7,   -2.0,   28.8,   -6.5,   14.2,    9.6,    9.4,   -1.9,    8.8,    5.1],
    [ -15.0,   36.2,  -69.6,   92.4,  -42.6,   39.2,   22.2,   35.0,   -9.7,   64.5,    8.7,    4.9,  -12.1,   10.9,   -5.6],
    [ -14.9,   36.1,  -78.0,   47.2,    4.0,   36.1,  -31.0,   52.8,  -10.6,   25.8,   31.1,    7.6,  -19.8,   10.1,   -1.1],
    [  -8.3,   33.5,   -6.5,   52.1,   -3.0,   39.1,    3.9,   23.9,    1.7,   31.1,   22.8,    9.9,   -4.1,    8.8,    4.3],
    [  -7.3,   30.6,   -1.7,   16.0,  -10.5,   30.6,   -5.3,   10.4,   17.3,    6.5,    1.1,    9.3,   -5.6,    7.5,    3.1],
    [  -2.8,    6.8,   -0.4,    3.6,    1.1,    3.1,   -0.9,    2.7,    1.9,    7.9,    3.7,    3.6,   -0.0,    3.1,   -0.2],
], np.float32)
# fmt: on


def predict_mouth(features: Floats) -> Floats:
    """Return the expected opening and spread, (hops, 2) float32, of (hops, FEATURES)."""
    scores = features @ _TABLE[:, 1:].T + _TABLE[:, 0]
    likely = np.exp(scores - scores.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    return (likely @ np.array(list(SHAPES.values()), np.float32)).astype(np.float32)
