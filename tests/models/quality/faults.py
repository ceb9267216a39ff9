"""A made-up talking face with known faults: noise as skin, and a dark mouth that opens with a curve."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from models.arrays import F64, U8
from models.quality.figures import Figures, summarise_face
from models.quality.meter import Samples, watch_frames
from models.quality.trace import FaceTrace

RATE = Fraction(25)
FRAMES, SIDE = 100, 200
FACE, MOUTH, UPPER, PAINTED = (30, 10, 140, 180), (70, 125, 60, 36), (50, 30, 100, 60), (50, 105, 100, 76)


def make_curve() -> F64:
    """Return (n,) openings as a voice gives them: syllables, and a pause from 2 s to 3 s."""
    at_s = np.arange(FRAMES) / float(RATE)
    syllables = np.abs(np.sin(2 * np.pi * 1.7 * at_s)) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.3 * at_s + 1))
    return np.where((at_s >= 2) & (at_s < 3), 0.0, syllables)


def make_trace(jitter_px: float = 0.0) -> FaceTrace:
    """Return the trace of the face; with `jitter_px` what is painted trembles about its place."""
    moved = np.random.default_rng(1).normal(0, jitter_px, (FRAMES, 2)) if jitter_px else np.zeros((FRAMES, 2))
    moves = np.pad(moved, ((0, 0), (0, 2)))
    faces, mouths, uppers, painted = (
        np.tile(np.array(box, np.float64), (FRAMES, 1)) for box in (FACE, MOUTH, UPPER, PAINTED)
    )
    return FaceTrace(faces, mouths + moves, uppers, painted + moves, np.ones(FRAMES, bool))


def make_frames(
    opening: F64, trace: FaceTrace, *, blur_from: int = FRAMES, seam: int = 0, restless: bool = False
) -> list[U8]:
    """Return the frames: with a mouth blurred from a frame on, a step of tone, or a mouth that moves in the pause."""
    noise = np.clip(np.random.default_rng(0).normal(128, 12, (SIDE, SIDE, 3)), 0, 255)
    skin = np.asarray(cv2.GaussianBlur(noise, (3, 3), 0), np.float64)
    frames = []
    for n, wide in enumerate(opening):
        frame = skin.copy()
        left, top, w, h = (round(value) for value in trace.painted[n])
        frame[top : top + h, left : left + w] = skin[105 : 105 + h, 50 : 50 + w] + seam
        x, y, mw, mh = (round(value) for value in trace.mouths[n])
        high = 14 * (wide if not restless or wide > 0 else 0.7 * (n % 2)) + 1
        cv2.ellipse(frame, (x + mw // 2, y + mh // 2), (mw // 3, round(high)), 0, 0, 360, (40, 30, 60), -1)
        if n >= blur_from:
            frame[y - 6 : y + mh + 6, x - 6 : x + mw + 6] = cv2.GaussianBlur(
                frame[y - 6 : y + mh + 6, x - 6 : x + mw + 6], (0, 0), 2.5
            )
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames


def measure(folder: Path, frames: list[U8], trace: FaceTrace, expected: F64) -> Figures:
    """Return the figures of frames, watched in two parts as two workers would."""
    samples = Samples.make_empty(1, FRAMES)
    for start, stop in ((0, 37), (37, FRAMES)):
        path = folder / f"{start}.npz"
        list(watch_frames(iter(frames[start:stop]), [trace.cut(start, stop)], start, SIDE, path))
        samples.fill(path, start)
    return summarise_face(trace, samples, expected, RATE)
