"""The interface's data on their way through the ledger and the wire."""

from __future__ import annotations

from models.types import Colour, Inspection


def test_an_outline_carries_its_colour() -> None:
    """Through the ledger and the wire; one that was written before there was a choice is BT.709."""
    outline = Inspection(1, "25", 2, 2, 0.04, {}, colour=Colour(9, 14, 9, 1))
    assert Inspection.from_dict(outline.to_dict()) == outline
    old = {key: value for key, value in outline.to_dict().items() if key != "colour"}
    assert Inspection.from_dict(old).colour == Colour()
