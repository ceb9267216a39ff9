"""Data of the interface, written and read."""

from __future__ import annotations

from models.types import Colour, Inspection


def test_an_inspection_carries_its_colour() -> None:
    """It survives the ledger and the messages; one written before colours were chosen is BT.709."""
    inspection = Inspection(1, "25", 2, 2, 0.04, {}, colour=Colour(9, 14, 9, 1))
    assert Inspection.from_dict(inspection.to_dict()) == inspection
    old = {key: value for key, value in inspection.to_dict().items() if key != "colour"}
    assert Inspection.from_dict(old).colour == Colour()
