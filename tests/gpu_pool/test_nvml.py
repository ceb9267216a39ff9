"""Cards by UUID, through the real pynvml, over a pretended driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from gpu_pool import nvml
from gpu_pool.cards import Cards
from gpu_pool.types import Device
from tests.nvmlstub import PretendDriver

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
ASK = """
import dataclasses, json, sys
from gpu_pool import nvml
for _ in sys.stdin:
    print(json.dumps(dataclasses.asdict(nvml.read_once())), flush=True)
"""


class Reader:
    """A process that reads the cards when called; the driver stays loaded in it."""

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
    """It has no cards, and the problem is reported."""
    reader = Reader({"LD_LIBRARY_PATH": "/nonexistent"})
    found = reader()
    reader.close()
    if found["driver"]:
        pytest.skip("this machine has a driver")
    assert found["devices"] == []
    assert found["problems"] == ["No NVIDIA driver answers: NVML Shared Library Not Found."]


def test_a_driver_that_isnt_loaded_and_then_is(driver: PretendDriver, read: Reader) -> None:
    """A later reading lists the cards."""
    assert read()["problems"] == ["No NVIDIA driver answers: Driver Not Loaded."]
    driver.set_devices(card(1))
    found = read()
    assert summary(found) == [("GPU-1", "starting", 23)]
    assert (found["problems"], found["driver"]) == ([], "999.01")


def test_four_cards(driver: PretendDriver, read: Reader) -> None:
    """UUID, name, size, and the free memory without what the driver reserves."""
    driver.set_devices(card(1), card(2, 3 * GIB), card(3, 20 * GIB), card(4))
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
    """Every reading is new; a process that is killed frees its memory."""
    driver.set_devices(card(1))
    with subprocess.Popen(["sleep", "600"]) as holder:
        driver.hold_memory(holder.pid, 0, 6 * GIB)
        assert summary(read()) == [("GPU-1", "starting", 17)]
        holder.send_signal(signal.SIGKILL)
    assert summary(read()) == [("GPU-1", "starting", 23)]


def test_memory_by_process(driver: PretendDriver, read: Reader) -> None:
    """Where the driver lists it; otherwise it is empty, which is no problem."""
    driver.set_devices(card(1), card(2))
    with subprocess.Popen(["sleep", "600"]) as holder:
        driver.hold_memory(holder.pid, 1, 6 * GIB)
        assert read()["held"] == {"GPU-1": {}, "GPU-2": {str(holder.pid): 6 * GIB}}
        driver.set_faults("nvmlDeviceGetComputeRunningProcesses -1 3 0")
        found = read()
        assert (found["held"], found["problems"]) == ({"GPU-1": {}, "GPU-2": {}}, [])
        holder.kill()


@pytest.mark.parametrize("code", [3, 13, 25])
def test_a_driver_without_version_2_figures(driver: PretendDriver, read: Reader, code: int) -> None:
    """It is asked by version 1."""
    driver.set_devices(card(1, 3 * GIB))
    driver.set_faults(f"nvmlDeviceGetMemoryInfo_v2 0 {code} 0")
    assert summary(read()) == [("GPU-1", "starting", 20)]


def test_a_card_that_shares_the_hosts_memory(driver: PretendDriver, read: Reader) -> None:
    """It has no figures of its own, and that is no fault."""
    driver.set_devices(card(1))
    driver.set_faults("nvmlDeviceGetMemoryInfo_v2 0 3 0", "nvmlDeviceGetMemoryInfo 0 3 0")
    assert summary(read()) == [("GPU-1", "starting", 0)]


def read_gauges(found: Any) -> list[tuple[int | None, int | None, int | None]]:
    return [(each["temperature_c"], each["load_percent"], each["power_w"]) for each in found["devices"]]


def test_temperature_load_and_power(driver: PretendDriver, read: Reader) -> None:
    """Each card has its own; what one doesn't tell, or tells as the greatest number, is unknown and no fault."""
    driver.set_devices(card(1), card(2), card(3), f"gpu GPU-4 {80 * GIB} 0 0", f"mig MIG-a {GIB} 0 0")
    driver.set_gauges("0 61 97 299600", f"1 45 0 {2**32 - 1}", "3 50 8 70000")
    driver.set_faults("nvmlDeviceGetUtilizationRates 3 3 0")
    found = read()
    assert read_gauges(found) == [(61, 97, 300), (45, 0, None), (None, None, None), (50, None, 70)]
    assert (found["problems"], found["trouble"]) == ([], "")
    for name in ("Temperature", "UtilizationRates", "PowerUsage"):
        for code in (1, 3, 13, 15, 999):
            driver.set_faults(f"nvmlDeviceGet{name} 0 {code} 0")
            figures = read_gauges(read())[0]
            assert figures.count(None) == 1, (name, code)


@pytest.mark.parametrize(("code", "why"), [(15, "GPU is lost"), (999, "Unknown Error")])
def test_a_lost_card_doesnt_hide_the_others(driver: PretendDriver, read: Reader, code: int, why: str) -> None:
    """It is listed as lost, with the driver's own words."""
    driver.set_devices(card(1), card(2), card(3))
    driver.set_faults(f"nvmlDeviceGetMemoryInfo_v2 1 {code} 0", f"nvmlDeviceGetMigMode 1 {code} 0")
    found = read()
    assert [device["state"] for device in found["devices"]] == ["starting", "lost", "starting"]
    assert found["devices"][1]["reason"] == f"The card does not answer: {why}."


def test_a_card_without_a_handle(driver: PretendDriver, read: Reader) -> None:
    """It is a problem, not a device: nothing could be started on it."""
    driver.set_devices(card(1), card(2))
    driver.set_faults("nvmlDeviceGetHandleByIndex 0 15 0")
    found = read()
    assert summary(found) == [("GPU-2", "starting", 23)]
    assert found["problems"] == ["Card 0 does not answer: GPU is lost."]
    driver.set_faults()
    assert len(read()["devices"]) == 2


def test_a_driver_that_doesnt_list_its_cards(driver: PretendDriver, read: Reader) -> None:
    """The reading has no cards and one problem."""
    driver.set_devices(card(1))
    driver.set_faults("nvmlDeviceGetCount -1 999 0")
    found = read()
    assert (found["devices"], len(found["problems"])) == ([], 1)


def test_a_slow_driver(driver: PretendDriver, read: Reader) -> None:
    """The reading waits for it, and the figures are right."""
    driver.set_devices(card(1))
    driver.set_faults("nvmlDeviceGetMemoryInfo_v2 0 0 200")
    assert summary(read()) == [("GPU-1", "starting", 23)]


def test_instances_stand_for_the_card_they_divide(driver: PretendDriver, read: Reader) -> None:
    """A card in MIG mode runs nothing; its instances are devices with their own memory."""
    driver.set_devices(
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


class Clock:
    """Seconds that pass only when they are set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Nvml:
    """The functions of pynvml that the stub can't serve: opening again, events."""

    def __init__(self) -> None:
        self.opened = 0
        self.events: list[tuple[str, int]] = []
        self.without_events = False

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:  # noqa: N802
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, _: int) -> str:  # noqa: N802
        return "GPU-1"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlEventSetCreate(self) -> str:  # noqa: N802
        return "events"

    def nvmlDeviceRegisterEvents(self, *_: object) -> None:  # noqa: N802
        if self.without_events:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlEventSetWait_v2(self, _: str, __: int) -> Any:  # noqa: N802
        if not self.events:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        device, xid = self.events.pop()
        return SimpleNamespace(device=device, eventData=xid)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(nvml, "time", made)
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """Replace pynvml; the card has a name and no figures."""
    made = Nvml()
    monkeypatch.setattr(nvml, "pynvml", made)
    monkeypatch.setattr(nvml, "_read_device", lambda name, _: Device(name, "cuda", state=made.state))
    monkeypatch.setattr(nvml, "_read_held", lambda _: {})
    made.state = "starting"  # type: ignore[attr-defined]
    return made


def test_nvml_is_opened_again_now_and_then(clock: Clock, calls: Nvml) -> None:
    """That finds new cards; it is done more often while a card is lost, which finds it again."""
    driver = nvml.Driver()
    for _ in range(10):
        driver.read_cards()
        clock.now += 60.0
    assert calls.opened == 2
    calls.state = "lost"  # type: ignore[attr-defined]
    for _ in range(10):
        driver.read_cards()
        clock.now += 5.0
    assert calls.opened == 7


@pytest.mark.parametrize(
    ("xid", "state"), [(79, "lost"), (48, "lost"), (119, "lost"), (13, "starting"), (31, "starting"), (43, "starting")]
)
def test_a_critical_message_takes_a_card_out_for_a_minute(clock: Clock, calls: Nvml, xid: int, state: str) -> None:
    """If it is a fault of the card and not of an application; later its own answers count."""
    driver = nvml.Driver()
    driver.read_cards()
    calls.events.append(("GPU-1", xid))
    driver.wait_for_event(1.0)
    device = driver.read_cards().devices[0]
    assert device.state == state
    assert (f"Xid {xid}: " in device.reason) is (state == "lost")
    clock.now += 61.0
    assert driver.read_cards().devices[0].state == "starting"


def test_a_card_without_events_is_read_at_the_same_pace(clock: Clock, calls: Nvml) -> None:
    """There is no event to wait for, so it sleeps for the same time."""
    calls.without_events = True
    driver = nvml.Driver()
    driver.read_cards()
    driver.wait_for_event(1.0)
    assert clock.slept == [1.0]


def test_critical_messages_through_the_real_pynvml(driver: PretendDriver) -> None:
    """The wait ends with the message, and the next reading has it."""
    driver.set_devices(card(1), card(2))
    driver.set_xids("1 31", "1 79")
    code = (
        "import dataclasses, json; from gpu_pool import nvml; driver = nvml.Driver(); driver.read_cards();"
        "driver.wait_for_event(60.0); driver.wait_for_event(60.0); print(driver.read_cards().to_json())"
    )
    env = {**os.environ, **driver.env}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, timeout=60, check=True).stdout
    found = Cards.parse(output)
    assert [device.state for device in found.devices] == ["starting", "lost"]
    assert found.devices[1].reason == "The driver reports Xid 79: it has fallen off the bus."


@pytest.mark.parametrize(
    ("code", "word", "is_absent"),
    [
        (18, "reboot: the driver's library was upgraded", False),
        (9, "sudo modprobe nvidia", True),
        (999, "a reboot may help", False),
        (4, "/dev/nvidia", False),
        (10, "dmesg", False),
        (15, "dmesg", False),
    ],
)
@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_driver_in_trouble_says_what_to_do(
    driver: PretendDriver, read: Reader, function: str, code: int, word: str, is_absent: bool
) -> None:
    """The trouble has the number of the error; only a driver that isn't loaded may mean that there is no card."""
    driver.set_devices(card(1))
    driver.set_faults(f"{function} -1 {code} 0")
    found = read()
    assert f"NVML error {code}: " in found["trouble"]
    assert word in found["trouble"]
    assert (found["is_absent"], len(found["problems"]), found["devices"]) == (is_absent, 1, [])
    driver.set_faults()
    assert read()["trouble"] == ""


def test_cards_of_which_none_works(driver: PretendDriver, read: Reader) -> None:
    """All lost or without a handle is trouble; one that works is none. A driver without cards is like no driver."""
    driver.set_devices(card(1), card(2))
    driver.set_faults("nvmlDeviceGetMemoryInfo_v2 -1 15 0")
    assert read()["trouble"].startswith("No card works (GPU-1: The card does not answer: GPU is lost; GPU-2: ")
    driver.set_faults("nvmlDeviceGetHandleByIndex -1 999 0")
    assert read()["trouble"].startswith("Card 0 does not answer: Unknown Error. Card 1 does not answer: ")
    driver.set_faults("nvmlDeviceGetHandleByIndex 0 15 0")
    assert read()["trouble"] == ""
    driver.set_faults()
    driver.set_devices()
    found = read()
    assert (found["is_absent"], "lists no card" in found["trouble"]) == (True, True)


@pytest.mark.parametrize(
    ("asked", "names", "trouble", "problems"),
    [
        ("GPU-2", ["GPU-2"], "", 0),
        ("1,0", ["GPU-1", "GPU-2"], "", 0),
        ("2", ["MIG-a", "MIG-b"], "", 0),
        ("MIG-b", ["MIG-b"], "", 0),
        ("", [], "", 1),
        ("-1", [], "", 1),
        ("GPU-gone", [], "names no card of this machine. Set it to a UUID", 1),
    ],
)
def test_the_environment_limits_the_cards(
    driver: PretendDriver, asked: str, names: list[str], trouble: str, problems: int
) -> None:
    """CUDA_VISIBLE_DEVICES holds for every reading; a mistake in it is trouble, none on purpose is not."""
    driver.set_devices(card(1), card(2), f"gpu GPU-3 {80 * GIB} 0 0", f"mig MIG-a {GIB} 0 0", f"mig MIG-b {GIB} 0 0")
    reader = Reader({**driver.env, "CUDA_VISIBLE_DEVICES": asked})
    found = reader()
    reader.close()
    assert [device["id"] for device in found["devices"]] == names
    assert sorted(found["held"]) == names
    assert (trouble in found["trouble"], bool(found["trouble"]), len(found["problems"])) == (
        True,
        bool(trouble),
        problems,
    )


def test_process_numbers_of_another_namespace_are_not_taken_for_ours(driver: PretendDriver, read: Reader) -> None:
    """In a container the driver may count as its host does: no figure is better than another program's."""
    driver.set_devices(card(1), card(2))
    with subprocess.Popen(["sleep", "600"]) as first, subprocess.Popen(["sleep", "600"]) as second:
        driver.hold_memory(first.pid, 0, 6 * GIB, number=(1 << 22) + 17)
        driver.hold_memory(second.pid, 1, GIB)
        found = read()
        assert found["held"] == {"GPU-1": {}, "GPU-2": {str(second.pid): GIB}}
        assert summary(found) == [("GPU-1", "starting", 17), ("GPU-2", "starting", 22)]
        first.kill()
        second.kill()
