"""What the golden chains put in: a video without loss, and landmarks, boxes and classes instead of networks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from models import media
from models.musetalk import networks
from tests.models.musetalk.tiny import DATA

FRAMES = DATA / "08_chain_frames.mkv"


def golden(name: str) -> dict[str, Any]:
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def frames() -> np.ndarray:
    """(8, 240, 320, 3) BGR: the avatar of the chains, a video without loss."""
    with media.VideoFrames(FRAMES, Fraction(25)) as video:
        return np.stack([video.read(number) for number in range(len(video))])


def stub_face_networks(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    """Replace the face networks by those values with which the chains were recorded."""
    known = {frame.tobytes(): points for frame, points in zip(frames(), given["landmarks68"], strict=True)}
    box = np.array([[*given["detector_box"], 0.9]], np.float32)

    def detect(_: Any, pictures: Sequence[np.ndarray], *, reference: bool) -> list[np.ndarray]:
        assert reference
        return [box] * len(pictures)

    def landmarks(_: Any, pictures: Sequence[np.ndarray], _regions: Any = None) -> np.ndarray:
        return np.stack([known[picture.tobytes()] for picture in pictures])

    def parse(_: Any, squares: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([given["parsing_map"]] * len(squares))

    monkeypatch.setattr(networks.Networks, "detect", detect)
    monkeypatch.setattr(networks.Networks, "find_landmarks", landmarks)
    monkeypatch.setattr(networks.Networks, "parse_faces", parse)
