"""Times of the result: cycles and fades."""

from __future__ import annotations

import doctest
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.musetalk import frame_timing as timing
from models.musetalk.frame_timing import count_frames_to_nearest, fade_weights, pick_source_frames
from models.musetalk.tracking.detection import split_batches

GOLDEN = Path(__file__).parents[2] / "data" / "musetalk"
RATE = Fraction(25)


def test_the_examples_in_the_docstrings() -> None:
    """What the docstrings show is what happens."""
    found = doctest.testmod(timing)
    assert (found.failed, found.attempted > 0) == (0, True)


def cycles() -> list[str]:
    with np.load(GOLDEN / "07_frame_cycle.npz") as golden:
        return sorted({name.removesuffix("_source_index") for name in golden.files if name.endswith("_source_index")})


@pytest.mark.parametrize("case", cycles())
def test_the_cycle_is_the_references(case: str) -> None:
    """Golden 07: forward and back, the end frames twice in a row; the audio goes straight on; batches in order."""
    with np.load(GOLDEN / "07_frame_cycle.npz") as golden:
        expected, audio = golden[f"{case}_source_index"], golden[f"{case}_audio_index"]
        sizes = golden[f"{case}_batch_sizes"]
    length, frames, size = (int(part.strip("nTBbs")) for part in case.split("_"))
    assert np.array_equal(pick_source_frames(frames, length, "pingpong"), expected)
    cut = list(split_batches(range(frames), size))
    assert [len(run) for run in cut] == sizes.tolist()
    assert [number for run in cut for number in run] == audio.tolist()


def test_other_cycles() -> None:
    """A loop starts over, a hold stays at the last frame; an image is a cycle of one."""
    assert pick_source_frames(7, 3, "loop").tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert pick_source_frames(5, 3, "hold").tolist() == [0, 1, 2, 2, 2]
    assert pick_source_frames(3, 1, "pingpong").tolist() == [0, 0, 0]


def test_a_fade_is_as_long_as_it_says_at_every_rate() -> None:
    """Frames without a face have weight 0, and full weight is reached within the fade, 25 or 60 frames a second."""
    for rate in (Fraction(25), Fraction(60000, 1001)):
        present = np.ones(100, bool)
        present[40:50] = False
        weight = fade_weights(present, rate)
        assert not weight[40:50].any()
        assert (weight[present] > 0).all()
        steps = round(timing.FADE_S * rate)
        assert weight[50 + steps] == 1.0
        assert weight[49 + steps] < 1.0
        assert (np.diff(weight[49 : 51 + steps]) > 0).all()


def test_all_present_and_none_present() -> None:
    """Without a gap nothing fades; without a face nothing is inpainted."""
    assert (fade_weights(np.ones(5, bool), RATE) == 1).all()
    assert (fade_weights(np.zeros(5, bool), RATE) == 0).all()
    assert np.isinf(count_frames_to_nearest(np.zeros(3, bool))).all()
