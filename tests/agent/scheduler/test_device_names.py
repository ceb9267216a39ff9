"""What people call devices."""

from __future__ import annotations

import pytest

from agent.scheduler.device_names import complete, file_safe, match_devices
from gpu_pool.types import Device

DEVICES = [
    *(Device("GPU-aa1", "cuda", card="GPU-aa1"), Device("GPU-aa1/2", "cuda", card="GPU-aa1")),
    *(Device("GPU-ab2", "cuda", card="GPU-ab2"), Device("cpu:0", "cpu"), Device("cpu:1", "cpu")),
]
ROWS = [{"device": device.id, "card": device.card} for device in DEVICES]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("cpu:0", ["cpu:0"]),
        ("cpu-0", ["cpu:0"]),
        ("CPU-1", ["cpu:1"]),
        ("GPU-aa1", ["GPU-aa1", "GPU-aa1/2"]),
        ("gpu-AA1-2", ["GPU-aa1/2"]),
        ("GPU-ab2", ["GPU-ab2"]),
        ("GPU-a", []),
        ("cpu", []),
        ("", []),
    ],
)
def test_a_control_file_names_devices_exactly(name: str, ids: list[str]) -> None:
    """One worker by its id, or a card with all its workers; never by the beginning of a name."""
    assert [device.id for device in match_devices(name, DEVICES)] == ids


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("GPU-aa", ["GPU-aa1"]),
        ("GPU-aa1/2", ["GPU-aa1/2"]),
        ("GPU-a", ["GPU-aa1", "GPU-ab2"]),
        ("cpu", ["cpu:0", "cpu:1"]),
        ("cpu:1", ["cpu:1"]),
        ("tpu", []),
    ],
)
def test_the_command_line_takes_beginnings(name: str, ids: list[str]) -> None:
    """A UUID need not be typed to its end: a card is found by how it begins, before its workers are."""
    assert complete(name, ROWS) == ids


def test_names_of_files() -> None:
    """What is typed is never a path."""
    assert file_safe("GPU-aa1/2") == "gpu-aa1-2"
    assert file_safe("cpu:0") == "cpu-0"
