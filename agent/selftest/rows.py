"""The rows of a self-test: what was checked, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "note", "bad"]
FORMS = "forms"
"""The check that chooses the form of the networks."""
RUN_AGAIN = "run `musedrop selftest` again"


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    advice        what to do, "" where nothing is
    figures       what was measured, JSON
    blames_card   whether a bad row means that the card can't be used
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    blames_card: bool = False

    @property
    def sentence(self) -> str:
        """What was found, and what to do."""
        return f"{self.check}: {self.found}" + (f"; {self.advice}" if self.advice else "")


def find_fault(rows: list[Row]) -> str:
    """Return the sentence of the first row because of which the card can't be used, "" if it can."""
    return next((row.sentence for row in rows if row.verdict == "bad" and row.blames_card), "")


def worst_verdict(rows: list[Row]) -> Verdict:
    """Return the verdict on all rows."""
    found = {row.verdict for row in rows}
    return "bad" if "bad" in found else "note" if "note" in found else "ok"
