"""What people call devices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpu_pool.types import Device


def named(name: str, devices: Iterable[Device]) -> list[Device]:
    """The devices that a person means: one by its id, or all workers of a card; / and : may be written as -."""
    devices = list(devices)
    exact = [device for device in devices if plain(device.id) == plain(name)]
    card = [device for device in devices if device.card and plain(device.card) == plain(name)]
    return card if len(card) > 1 else exact or card


def plain(name: str) -> str:
    """A device's id as a file can be called: cpu:0 is cpu-0, GPU-<uuid>/2 is GPU-<uuid>-2. Letter case is no matter."""
    return name.replace(":", "-").replace("/", "-").lower()


def resolve(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids among rows of device_status that a person may mean; unlike `named` also by the beginning of an id."""
    cards = {str(row["card"]) for row in rows if row["card"]}
    every = cards | {str(row["device"]) for row in rows}
    exact = sorted(id for id in every if plain(id) == plain(name))
    begins = [sorted(id for id in ids if plain(id).startswith(plain(name))) for ids in (cards, every)]
    return exact or begins[0] or begins[1]
