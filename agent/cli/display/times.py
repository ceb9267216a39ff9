"""Times of the ledger as people read them: local, and with the date where it is not today's. Pure."""

from __future__ import annotations

from datetime import datetime


def format_since(iso: str | None, now: datetime) -> str:
    """Return an ISO time in the zone of `now`: 13:05:02 today, 11-27 13:05 this year, else 2025-11-27."""
    if not iso:
        return ""
    at = datetime.fromisoformat(iso).astimezone(now.tzinfo)
    if at.date() == now.date():
        return f"{at:%H:%M:%S}"
    return f"{at:%m-%d %H:%M}" if at.year == now.year else f"{at:%Y-%m-%d}"


def format_span(seconds: float) -> str:
    """Return a length of time in words: 12 s, 3 min 5 s, 2 h 4 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    return f"{minutes // 60} h {minutes % 60} min"
