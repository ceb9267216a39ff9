"""The table of cards: limits, projections, and what is measured beside them."""

from __future__ import annotations

import pytest

from benchmarks.cards import CARDS, SHARES, Card, limit_fps, list_rows, project_fps


@pytest.mark.parametrize("card", CARDS, ids=[card.name for card in CARDS])
def test_a_projection_stays_below_the_limit(card: Card) -> None:
    """More of the peak is more frames, and memory takes its time beside."""
    low, high = (project_fps(card, 694, share) for share in SHARES)
    assert low < high < SHARES[1] * limit_fps(card, 694)


def test_the_table_tells_what_was_measured() -> None:
    """A row for each card with the published figures, and the device of this machine below."""
    rows = list(list_rows(800, 694, ("cpu", 0.3)))
    assert len(rows) == len(CARDS) + 2
    assert "LiveTalking" in rows[1]
    assert rows[-1] == "measured here: 0.30 frames a second on cpu"
    assert limit_fps(CARDS[0], 800) == pytest.approx(206.5)
