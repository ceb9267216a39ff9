"""Which frames are seen together, and the noise of a shot."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch

from models.musev import windows
from models.musev.windows import cut_windows, draw_noise
from tests.models.musev.tiny import DATA

PUBLISHED_NOISE = (
    "4FPgvyLmAMBR3GQ+JjOCPmbLvr4GDfW/CE7WvtpxgD/+/4e+/Uqdv9d+mb5BTzW+"
    "TJHKP0w2zj8QMOQ+hOcFwBRAKj5m/AI/dGMSv8D2qL/3OWk/mp0RP2Aqaz7WhJe/"
    "mEUfPg57qr48sS497pCCPmD8GD9ADjw/YotKv3JxZ79mBH6+nGCNvtJkfj9V8a8+"
    "KgOgvfkfGT+oQJY/KpbovjtSbL5vXLM/E77uP7UmD0D2en+/AEEjOxTkBEB4mRC/"
)
"""What the original program drew for the seed 0, (1, 4, 3, 2, 2) float32, before the photo was in it."""


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


def test_the_noise_is_that_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: common noise first, then that of each frame."""
    monkeypatch.setattr(windows, "PHOTO_IN_NOISE", 0.0)
    told = np.frombuffer(base64.b64decode(PUBLISHED_NOISE), np.float32).reshape(1, 4, 3, 2, 2)
    drawn = draw_noise(torch.zeros(1, 4, 1, 2, 2), 3, torch.Generator().manual_seed(0))
    assert np.array_equal(drawn.numpy(), told)


def test_the_noise_of_a_seed_is_always_the_same() -> None:
    """It comes from a generator of the processor, and another seed gives another."""
    given = torch.zeros(1, 4, 1, 8, 8)
    one, same, other = (draw_noise(given, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(1, abs=0.1)
