"""Which frames are seen together, and the noise of a shot."""

from __future__ import annotations

import json

import pytest
import torch

from models.musev.windows import cut_windows, draw_noise
from tests.models.musev.tiny import DATA


def test_windows_are_those_of_the_original() -> None:
    """For eleven lengths, with 12 frames and 4 in common."""
    told = json.loads((DATA / "windows.json").read_text())
    assert len(told) == 11
    for frames, ends in told.items():
        assert [[window[0], window[-1]] for window in cut_windows(int(frames))] == ends


def test_windows_of_other_lengths_see_every_frame() -> None:
    """Smaller windows with less in common cover a shot, too."""
    for frames in range(1, 40):
        seen = {frame for window in cut_windows(frames, 6, 2) for frame in window}
        assert seen == set(range(frames))


def test_the_noise_of_a_seed_is_always_the_same() -> None:
    """It comes from a generator of the processor, and another seed gives another."""
    given = torch.zeros(1, 4, 1, 8, 8)
    one, same, other = (draw_noise(given, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(1, abs=0.1)
