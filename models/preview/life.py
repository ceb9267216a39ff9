"""Blinking and swaying, which keep a still portrait from looking frozen. Seeded: a job always looks the same."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.preview.face import Crop, Face, Image
from models.preview.patch import units

Floats = npt.NDArray[Any]

EYES = Crop(-86, -32, 172, 56)
BLINK_S, BLINK_CLOSED = (0.0, 0.08, 0.12, 0.24), (0.0, 1.0, 1.0, 0.0)
FIRST_BLINK_S, BETWEEN_BLINKS_S = (1.0, 2.4), (2.2, 4.6)
CLOSENESS = 1.03
"""Enlargement that hides the borders while the picture sways."""


def blinks(frames: int, fps: Fraction, seed: int) -> Floats:
    """(frames,) how far the lids are closed, 0 .. 1."""
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / float(fps)
    closed = np.zeros(frames)
    at = rng.uniform(*FIRST_BLINK_S)
    while at < times[-1] - BLINK_S[-1]:
        closed = np.maximum(closed, np.interp(times - at, BLINK_S, BLINK_CLOSED, left=0.0, right=0.0))
        at += rng.uniform(*BETWEEN_BLINKS_S)
    return closed.astype(np.float32)


def sways(opening: Floats, fps: Fraction) -> Floats:
    """(frames, 3) float32: degrees of roll, and shifts to the right and down in eye distances; nods with the voice."""
    t = np.arange(len(opening)) / float(fps)
    reach = max(1, round(float(fps) / 4))
    kernel = np.hanning(2 * reach + 3)[1:-1]
    nod = np.convolve(np.pad(opening, reach, "edge"), kernel / kernel.sum(), "valid")
    roll = 0.6 * np.sin(2 * np.pi * 0.23 * t) + 0.3 * np.sin(2 * np.pi * 0.61 * t + 1)
    right = 0.012 * np.sin(2 * np.pi * 0.19 * t + 2)
    down = 0.008 * np.sin(2 * np.pi * 0.31 * t) + 0.02 * nod
    return np.stack([roll, right, down], 1).astype(np.float32)


def swayed(image: Image, face: Face, sway: Floats) -> Image:
    """The whole picture, turned and shifted a little about the neck, so that the head moves and the border doesn't."""
    x, y, w, h = face.box
    roll, right, down = (float(value) for value in sway)
    turn = cv2.getRotationMatrix2D((x + w / 2, y + 1.3 * h), roll, CLOSENESS)
    turn[:, 2] = turn[:, 2] + np.array([right, down]) * face.eye_distance
    height, width = image.shape[:2]
    moved = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


class Eyelids:
    """Closes both eyes of a patch of EYES by drawing the skin above each eye down over it."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.x, self.y = units(EYES, scale)
        self.column, self.row = np.meshgrid(
            np.arange(self.x.shape[1], dtype=np.float32), np.arange(self.x.shape[0], dtype=np.float32)
        )
        edge = np.minimum.reduce([(86 - np.abs(self.x)) / 12, (self.y + 32) / 8, (24 - self.y) / 8])
        self.mask = np.clip(edge, 0, 1).astype(np.float32)

    def draw(self, patch: Image, closed: float) -> Image:
        down, lash = np.zeros_like(self.x), np.zeros_like(self.x)
        for middle in (-50.0, 50.0):
            arc = np.clip(1 - ((self.x - middle) / 20) ** 2, 0, 1)
            edge = -8 * arc + closed * 15 * arc
            above = np.clip((edge - self.y) / 1.2 + 0.5, 0, 1) * np.clip(self.y + 17, 0, 1) * (arc > 0)
            down += above * (self.y + 17) * (1 - (17 - 8 * arc) / (edge + 17))
            lash += np.exp(-(((self.y - edge) / 1.3) ** 2)) * np.sqrt(arc) * 0.5 * min(1.0, 2 * closed)
        rows = (self.row - down * self.scale).astype(np.float32)
        moved = cv2.remap(patch, self.column, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return (moved * (1 - np.clip(lash, 0, 1)[..., None])).astype(np.uint8)
