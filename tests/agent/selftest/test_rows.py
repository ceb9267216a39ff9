"""The verdict on all rows of a device."""

from __future__ import annotations

import pytest

from agent.selftest.rows import Row, Verdict, find_fault, worst_verdict

OK, NOTE = Row("a", "ok", "fine", blames_card=True), Row("b", "note", "poor", "help it")
BAD, FAULT = Row("c", "bad", "cut", "fetch it"), Row("d", "bad", "wrong", "replace it", blames_card=True)


@pytest.mark.parametrize(
    ("rows", "verdict", "fault"),
    [
        ([], "ok", ""),
        ([OK], "ok", ""),
        ([NOTE, OK], "note", ""),
        ([OK, BAD, NOTE], "bad", ""),
        ([BAD, FAULT, OK], "bad", "d: wrong; replace it"),
    ],
)
def test_the_worst_row_counts(rows: list[Row], verdict: Verdict, fault: str) -> None:
    """A card is at fault only where a bad row blames it, and the sentence says what to do."""
    assert (worst_verdict(rows), find_fault(rows)) == (verdict, fault)
