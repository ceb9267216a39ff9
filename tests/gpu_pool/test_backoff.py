"""When a device that fails is tried again."""

from __future__ import annotations

import pytest

from gpu_pool.backoff import Backoff, BackoffState

BACKOFF = Backoff(quick_s=1.0, first_s=0.1, sick_after=4, sick_s=30.0, sick_max_s=100.0)


@pytest.mark.parametrize(
    ("lived_s", "pauses", "sick"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.4], False),
        ([0, 0, 0, 0], [0.1, 0.2, 0.4, 30.0], True),
        ([60, 60, 60], [0, 0, 0], False),
        ([60, 60, 60, 60, 60, 60, 60], [0, 0, 0, 30, 60, 100, 100], True),
        ([60, 0.5, 60], [0, 0.2, 0], False),
    ],
)
def test_pauses_after_faults_in_a_row(lived_s: list[float], pauses: list[float], sick: bool) -> None:
    """The pause grows after early faults, is zero after late ones, and is long after too many."""
    state = BackoffState()
    for number, (lived, pause) in enumerate(zip(lived_s, pauses, strict=True)):
        state = BACKOFF.add_fault(state, f"fault {number}", 1000.0, lived)
        assert state.start_at_s - 1000.0 == pytest.approx(pause)
    assert state.sick is sick
    assert state.reason == f"fault {len(lived_s) - 1}"


def test_a_thousand_faults_overflow_nothing() -> None:
    """A card that is broken for months is still tried at the longest interval."""
    state = BACKOFF.add_fault(BackoffState(faults=5000), "dead", 0.0, 0.0)
    assert state.start_at_s == 100.0
