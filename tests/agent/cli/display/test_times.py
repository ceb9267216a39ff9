"""Times as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from agent.cli.display.times import format_since, format_span

NOW = datetime(2026, 1, 2, 1, 0, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("iso", "shown"),
    [
        ("2026-01-01T22:59:00.000Z", "00:59:00"),
        ("2026-01-01T20:59:00.000Z", "01-01 22:59"),
        ("2025-12-31T00:00:00.000Z", "2025-12-31"),
        (None, ""),
    ],
)
def test_a_time_is_local_and_has_its_date_where_it_is_not_today(iso: str | None, shown: str) -> None:
    """The day is that of the reader's zone, not of UTC."""
    assert format_since(iso, NOW) == shown


def test_a_length_of_time_is_in_words() -> None:
    """Seconds, then minutes, then hours; never less than none."""
    assert [format_span(s) for s in (-1, 12.4, 185, 7500)] == ["0 s", "12 s", "3 min 5 s", "2 h 5 min"]
