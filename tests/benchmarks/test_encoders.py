"""Cards that wait for the processor, on the simulated clock."""

from __future__ import annotations

import pytest

from benchmarks import encoders
from benchmarks.encoders import ON_THE_CARD, cost_ms, count_served, list_rows, simulate_fps


@pytest.mark.parametrize(("cards", "cores"), [(1, 2), (4, 2), (4, 8)])
def test_the_slower_of_cards_and_cores_says_how_fast(cards: int, cores: int) -> None:
    """Four cards of a hundred frames a second wait for two cores with x264, one does not."""
    found = simulate_fps(cards, 100, cores, 12.0)
    assert found == pytest.approx(min(cards * 100, cores / 0.012), rel=0.05)


def test_what_the_card_takes_over_serves_more_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way takes more off the processor than the one before, so no fewer cards are kept busy."""
    costs = [cost_ms(way) for way in ON_THE_CARD]
    assert costs == sorted(costs, reverse=True)
    assert [count_served(100, 2, cost, 4) for cost in (12.0, 4.5)] == [1, 4]
    monkeypatch.setattr(encoders, "MOST_CARDS", 1)
    monkeypatch.setattr(encoders, "count_served", lambda *_: 1)
    rows = [*list_rows([2])]
    assert len(rows) == 4
    assert rows[-1].startswith("| H200 | 564 | 2 | 1 or more")
