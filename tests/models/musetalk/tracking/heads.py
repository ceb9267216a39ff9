"""Landmarks and detections of a head that moves, for tests of boxes."""

from __future__ import annotations

import numpy as np

SIZE = (1280, 720)


def face_at(x: float, y: float, side: float = 200.0) -> np.ndarray:
    """Landmarks of a face with its middle there; the rule makes a box of about 0.8 by 0.8 sides from them."""
    turn = np.pi * np.arange(17) / 16
    points = np.zeros((68, 2))
    points[:17] = np.stack([-0.4 * np.cos(turn), 0.4 * np.sin(turn)], 1)
    points[17:27] = np.stack([np.linspace(-0.3, 0.3, 10), np.full(10, -0.25)], 1)
    points[27:31] = np.stack([np.zeros(4), np.linspace(-0.1, 0.05, 4)], 1)
    points[29] = (0, 0)
    points[31:48] = np.stack([np.linspace(-0.2, 0.2, 17), np.full(17, -0.1)], 1)
    points[48:] = np.stack([np.linspace(-0.12, 0.12, 20), np.full(20, 0.2)], 1)
    return points * side + (x, y)


def detected_at(x: float, y: float, side: float = 200.0) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def video(path: np.ndarray, side: float = 200.0, grain: float = 0.0, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks and detections of a head on a path (n, 2), with a tremor, on the grid of the pose net."""
    tremor = np.random.default_rng(seed).normal(0, 0.5 * grain, (len(path), 68, 2))
    points = np.stack([face_at(x, y, side) for x, y in path]) + tremor
    if grain:
        points = np.round(points / grain) * grain
    return points, np.stack([detected_at(x, y, side) for x, y in path])


def still(frames: int, x: float = 640.0, y: float = 360.0) -> np.ndarray:
    return np.tile([x, y], (frames, 1))
