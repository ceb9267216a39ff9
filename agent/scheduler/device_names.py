"""Names of devices, as people and control files spell them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpu_pool.types import Device


def match_devices(name: str, devices: Iterable[Device]) -> list[Device]:
    """Return the devices of that name: one by its id, or all workers of a card; / and : may be written as -."""
    devices = list(devices)
    exact = [device for device in devices if file_safe(device.id) == file_safe(name)]
    card = [device for device in devices if device.card and file_safe(device.card) == file_safe(name)]
    return card if len(card) > 1 else exact or card


def file_safe(name: str) -> str:
    """Return a device's id as part of a file name: cpu:0 is cpu-0, GPU-<uuid>/2 is gpu-<uuid>-2."""
    return name.replace(":", "-").replace("/", "-").lower()


def complete(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids in rows of device_status that the name may mean, also by their beginning."""
    cards = {str(row["card"]) for row in rows if row["card"]}
    every = cards | {str(row["device"]) for row in rows}
    exact = sorted(id for id in every if file_safe(id) == file_safe(name))
    begins = [sorted(id for id in ids if file_safe(id).startswith(file_safe(name))) for ids in (cards, every)]
    return exact or begins[0] or begins[1]
