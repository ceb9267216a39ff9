"""CUDA_VISIBLE_DEVICES, read as CUDA reads it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"
NO_DEVICES = "NoDevFiles"
"""What batch systems set for a job without a card."""


def hides_all(asked: str | None) -> bool:
    """Whether the variable means no card at all, which is a decision and no mistake."""
    if asked is None:
        return False
    first = asked.split(",")[0].strip()
    return first in ("", NO_DEVICES) or (first.startswith("-") and first[1:].isdecimal())


def find_visible(asked: str | None, cards: Sequence[Sequence[str]]) -> list[str]:
    """Return the names that the variable admits, in its order; all if it isn't set.

    Each card is its UUID and those of its MIG instances, in the order of the driver, which is that
    of nvidia-smi. An entry is a number, a UUID or the beginning of exactly one; the first that
    names nothing ends the list. A divided card stands for its instances.
    """
    if asked is None:
        return [name for names in cards for name in names]
    visible: list[str] = []
    for entry in asked.split(","):
        names = _match(entry.strip(), cards)
        if not names:
            break
        visible += names
    return list(dict.fromkeys(visible))


def _match(entry: str, cards: Sequence[Sequence[str]]) -> Sequence[str]:
    if entry.isdecimal():
        return cards[int(entry)] if int(entry) < len(cards) else ()
    if not entry.startswith(("GPU-", "MIG-")):
        return ()
    found = [names if name == names[0] else [name] for names in cards for name in names if name.startswith(entry)]
    return found[0] if len(found) == 1 else ()
