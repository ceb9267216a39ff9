"""Cards by UUID, through the real pynvml, over a driver that is pretended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from tests.needs import need
from tests.nvmlstub import PretendDriver, build

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
ASK = """
import dataclasses, json, sys
from gpu_pool import nvml
for _ in sys.stdin:
    print(json.dumps(dataclasses.asdict(nvml.read())), flush=True)
"""


class Reader:
    """A process that reads the cards whenever it is asked; the driver is loaded once a process, and stays."""

    def __init__(self, env: dict[str, str]) -> None:
        command = [sys.executable, "-W", "error", "-c", ASK]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **env}, cwd=ROOT, text=True
        )

    def __call__(self) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cc", "gcc")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> PretendDriver:
    return PretendDriver(library, tmp_path)


@pytest.fixture
def read(driver: PretendDriver) -> Iterator[Reader]:
    reader = Reader(driver.env)
    yield reader
    reader.close()


def card(number: int, used: int = 0) -> str:
    return f"gpu GPU-{number} {24 * GIB} {used} {GIB}"


def summary(found: Any) -> list[tuple[str, str, int]]:
    return [(device["id"], device["state"], device["free_bytes"] // GIB) for device in found["devices"]]


def test_a_machine_without_a_driver() -> None:
    """No library, no cards, and a sentence that says so."""
    reader = Reader({"LD_LIBRARY_PATH": "/nonexistent"})
    found = reader()
    reader.close()
    if found["driver"]:
        pytest.skip("this machine has a driver")
    assert found["devices"] == []
    assert found["problems"] == ["No NVIDIA driver answers: NVML Shared Library Not Found."]


def test_a_driver_that_isnt_loaded_and_then_is(driver: PretendDriver, read: Reader) -> None:
    """Asking again later finds what came up meanwhile."""
    assert read()["problems"] == ["No NVIDIA driver answers: Driver Not Loaded."]
    driver.devices(card(1))
    found = read()
    assert summary(found) == [("GPU-1", "starting", 23)]
    assert (found["problems"], found["driver"]) == ([], "999.01")


def test_four_cards(driver: PretendDriver, read: Reader) -> None:
    """UUID, name, size, and what is really free: without what the driver keeps to itself."""
    driver.devices(card(1), card(2, 3 * GIB), card(3, 20 * GIB), card(4))
    found = read()
    assert summary(found) == [
        ("GPU-1", "starting", 23),
        ("GPU-2", "starting", 20),
        ("GPU-3", "starting", 3),
        ("GPU-4", "starting", 23),
    ]
    first = found["devices"][0]
    assert (first["kind"], first["name"], first["total_bytes"]) == ("cuda", "Stub Card", 24 * GIB)


def test_memory_moves(driver: PretendDriver, read: Reader) -> None:
    """Every reading is fresh; a process that is killed gives its memory back."""
    driver.devices(card(1))
    with subprocess.Popen(["sleep", "600"]) as holder:
        driver.hold(holder.pid, 0, 6 * GIB)
        assert summary(read()) == [("GPU-1", "starting", 17)]
        holder.send_signal(signal.SIGKILL)
    assert summary(read()) == [("GPU-1", "starting", 23)]


@pytest.mark.parametrize("code", [3, 13, 25])
def test_a_driver_without_version_2_figures(driver: PretendDriver, read: Reader, code: int) -> None:
    """Version 1 is asked instead."""
    driver.devices(card(1, 3 * GIB))
    driver.faults(f"nvmlDeviceGetMemoryInfo_v2 0 {code} 0")
    assert summary(read()) == [("GPU-1", "starting", 20)]


def test_a_card_that_shares_the_hosts_memory(driver: PretendDriver, read: Reader) -> None:
    """It has no figures of its own, and that is no fault."""
    driver.devices(card(1))
    driver.faults("nvmlDeviceGetMemoryInfo_v2 0 3 0", "nvmlDeviceGetMemoryInfo 0 3 0")
    assert summary(read()) == [("GPU-1", "starting", 0)]


@pytest.mark.parametrize(("code", "why"), [(15, "GPU is lost"), (999, "Unknown Error")])
def test_a_lost_card_doesnt_hide_the_others(driver: PretendDriver, read: Reader, code: int, why: str) -> None:
    """It is listed as lost, with the driver's own words."""
    driver.devices(card(1), card(2), card(3))
    driver.faults(f"nvmlDeviceGetMemoryInfo_v2 1 {code} 0", f"nvmlDeviceGetMigMode 1 {code} 0")
    found = read()
    assert [device["state"] for device in found["devices"]] == ["starting", "lost", "starting"]
    assert found["devices"][1]["reason"] == f"The card does not answer: {why}."


def test_a_card_that_cant_even_be_named(driver: PretendDriver, read: Reader) -> None:
    """It is a problem, not a device: nothing could be started on it."""
    driver.devices(card(1), card(2))
    driver.faults("nvmlDeviceGetHandleByIndex 0 15 0")
    found = read()
    assert summary(found) == [("GPU-2", "starting", 23)]
    assert found["problems"] == ["Card 0 does not answer: GPU is lost."]
    driver.faults()
    assert len(read()["devices"]) == 2


def test_a_driver_that_cant_count(driver: PretendDriver, read: Reader) -> None:
    """Still an answer, and a sentence."""
    driver.devices(card(1))
    driver.faults("nvmlDeviceGetCount -1 999 0")
    found = read()
    assert (found["devices"], len(found["problems"])) == ([], 1)


def test_a_slow_driver(driver: PretendDriver, read: Reader) -> None:
    """It is waited for, and the figures are right."""
    driver.devices(card(1))
    driver.faults("nvmlDeviceGetMemoryInfo_v2 0 0 200")
    assert summary(read()) == [("GPU-1", "starting", 23)]


def test_instances_stand_for_the_card_they_divide(driver: PretendDriver, read: Reader) -> None:
    """A card in MIG mode runs nothing itself; its instances are devices with memory of their own."""
    driver.devices(
        card(1), f"gpu GPU-2 {80 * GIB} 0 {GIB}", f"mig MIG-a {20 * GIB} 0 0", f"mig MIG-b {20 * GIB} {GIB} 0", card(3)
    )
    assert summary(read()) == [
        ("GPU-1", "starting", 23),
        ("MIG-a", "starting", 20),
        ("MIG-b", "starting", 19),
        ("GPU-3", "starting", 23),
    ]


def test_the_deprecated_package_isnt_installed() -> None:
    """`pynvml` comes from nvidia-ml-py; the package of that name shadows it and warns."""
    with pytest.raises(PackageNotFoundError):
        distribution("pynvml")
    assert distribution("nvidia-ml-py")
