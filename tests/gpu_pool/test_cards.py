"""Reading cards by a process that may hang, crash or print garbage, over a pretended driver."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_pool import cards
from gpu_pool.cards import CardRules, Cards, CardWatch, find_trouble, has_driver_library, list_devices, read_cards
from gpu_pool.types import Device
from gpu_pool.wire import WireError
from tests.gpu_pool.pools import (
    DEADLINE_S,
    Announcement,
    wait_for_end,
)
from tests.nvmlstub import PretendDriver
from tests.test_layers import loaded_by

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
A, B = "GPU-aaaa1111", "GPU-bbbb2222"


def gpu(name: str, used: int = 0) -> str:
    return f"gpu {name} {24 * GIB} {used} {GIB}"


def test_the_daemon_never_loads_the_driver() -> None:
    """Not even the module that would: a crash of the driver would end the daemon."""
    assert "pynvml" not in loaded_by("import agent.daemon, agent.cli.doctor")


def test_devices_of_cards() -> None:
    """The first worker of a card has the card's id, the others a number after it."""
    found = Cards((Device(A, "cuda", free_bytes=5), Device("MIG-x", "cuda", state="lost", reason="why")), read_at_s=7.0)
    made = list_devices(found, CardRules(workers=2))
    assert [(seat.id, seat.card, seat.free_bytes, seat.state, seat.reason, seat.read_at_s) for seat in made] == [
        (A, A, 5, "starting", "", 7.0),
        (f"{A}/2", A, 5, "starting", "", 7.0),
        ("MIG-x", "MIG-x", 0, "lost", "why", 7.0),
        ("MIG-x/2", "MIG-x", 0, "lost", "why", 7.0),
    ]


@pytest.mark.parametrize(
    ("rules", "admitted"),
    [
        (CardRules(), [A, B, "MIG-x"]),
        (CardRules(only=(A,)), [A]),
        (CardRules(only=("GPU-aaaa", "MIG-")), [A, "MIG-x"]),
        (CardRules(exclude=(B,)), [A, "MIG-x"]),
        (CardRules(only=("GPU-",), exclude=("GPU-aaaa",)), [B]),
        (CardRules(only=("GPU-cccc",)), []),
    ],
)
def test_rules(rules: CardRules, admitted: list[str]) -> None:
    """Cards are named by UUID or the beginning of it; `exclude` is stronger than `only`."""
    assert [name for name in (A, B, "MIG-x") if rules.can_use(name)] == admitted


def test_a_reading_as_a_line() -> None:
    """Parsing the line returns the same reading."""
    reading = Cards((Device(A, "cuda", "Stub", 9, 8, card=A),), ("a problem",), "999.01", {A: {"17": 4}}, 1.5)
    assert Cards.parse(reading.to_json().encode()) == reading


@pytest.mark.parametrize("line", [b"", b"[]", b"7", b"{}", b'{"devices":[{}],"problems":[]}', b'{"devices":[]}', b"{"])
def test_what_is_no_reading(line: bytes) -> None:
    """It is refused with a WireError."""
    with pytest.raises(WireError):
        Cards.parse(line)


def test_the_library_is_looked_for_without_loading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In LD_LIBRARY_PATH, in the folders of the system, and in the loader's cache."""
    monkeypatch.setattr(cards, "_SYSTEM_FOLDERS", ())
    assert not has_driver_library({"LD_LIBRARY_PATH": f":/nonexistent:{tmp_path}"}) or has_driver()
    (tmp_path / "libnvidia-ml.so.1").touch()
    assert has_driver_library({"LD_LIBRARY_PATH": f":/nonexistent:{tmp_path}"})
    monkeypatch.setattr(cards, "_SYSTEM_FOLDERS", (str(tmp_path),))
    assert has_driver_library({})


def has_driver() -> bool:
    return has_driver_library({})


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


MakeWatch = Callable[..., CardWatch]


@pytest.fixture
def make_watch(driver: PretendDriver, tmp_path: Path, clock: Clock) -> Iterator[MakeWatch]:
    """Make watches over the pretended driver that read ten times a second."""
    made: list[CardWatch] = []

    def make(**more: Any) -> CardWatch:
        options = {"interval_s": 0.1, "env": driver.env, "clock": clock, **more}
        made.append(CardWatch(tmp_path / "nvml.log", **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def read_until(watch: CardWatch, is_wanted: Callable[[Cards], object]) -> Cards:
    """Read until a reading is wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_wanted(watch.latest):
        assert time.monotonic() < deadline, f"not reached: {watch.latest}"
        if watch.fd is not None:
            select.select([watch.fd], [], [], 0.2)
        watch.serve()
    return watch.latest


def pidfd_of(watch: CardWatch) -> int:
    assert watch.pid is not None
    return os.pidfd_open(watch.pid)


def test_without_a_library_no_process_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for again after a minute, in case a driver has been installed."""
    monkeypatch.setattr(cards, "has_driver_library", lambda _: False)
    watch = CardWatch(tmp_path / "nvml.log")
    assert watch.fd is None
    assert watch.wait_for_first(1000.0).problems == ("No NVIDIA driver is installed.",)
    assert not watch.is_silent
    assert 50.0 < watch.deadline_s - time.monotonic() <= 60.0
    watch.close()


def test_the_first_reading_is_waited_for(driver: PretendDriver, make_watch: MakeWatch) -> None:
    """Others follow, each with new figures."""
    driver.set_devices(gpu(A), gpu(B, 3 * GIB))
    watch = make_watch()
    first = watch.wait_for_first(DEADLINE_S)
    assert [(each.id, each.free_bytes // GIB) for each in first.devices] == [(A, 23), (B, 20)]
    assert first.driver == "999.01"
    driver.set_devices(gpu(A, 5 * GIB))
    later = read_until(watch, lambda found: len(found.devices) == 1)
    assert later.devices[0].free_bytes == 18 * GIB
    assert later.read_at_s > first.read_at_s


def test_a_driver_that_is_not_loaded(driver: PretendDriver, make_watch: MakeWatch) -> None:
    """It is reported as a problem; when the driver is loaded, the cards are listed."""
    watch = make_watch()
    found = watch.wait_for_first(DEADLINE_S)
    assert found.problems == ("No NVIDIA driver answers: Driver Not Loaded.",)
    driver.set_devices(gpu(A))
    read_until(watch, lambda found: found.devices)


def test_a_call_that_takes_ten_seconds_is_survived(driver: PretendDriver, make_watch: MakeWatch, clock: Clock) -> None:
    """The reading becomes stale, and then the process is replaced."""
    driver.set_devices(gpu(A))
    watch = make_watch()
    watch.wait_for_first(DEADLINE_S)
    assert not watch.is_silent
    driver.set_faults("nvmlDeviceGetMemoryInfo_v2 -1 0 60000")
    pidfd = pidfd_of(watch)
    while not watch.is_silent:  # a reading that was under way may still come
        clock.ahead_s += cards.STALE_S
        watch.serve()
    assert watch.pid is not None
    clock.ahead_s += cards.SILENT_S
    watch.serve()
    assert wait_for_end(pidfd, DEADLINE_S)
    assert watch.pid is None
    driver.set_faults()
    clock.ahead_s += cards.RESTART_S
    watch.serve()
    read_until(watch, lambda _: not watch.is_silent)
    os.close(pidfd)


def test_a_driver_that_hangs_from_the_start(driver: PretendDriver, make_watch: MakeWatch) -> None:
    """The first reading is waited for no longer than allowed; the problem is reported."""
    driver.set_devices(gpu(A))
    driver.set_faults("nvmlInit -1 0 60000")
    assert make_watch().wait_for_first(0.3).problems == ("The NVIDIA driver doesn't answer.",)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_a_driver_that_crashes_its_process(
    driver: PretendDriver, make_watch: MakeWatch, clock: Clock, name: str
) -> None:
    """Another is started after a pause, and the cards stay listed meanwhile."""
    driver.set_devices(gpu(A))
    watch = make_watch()
    watch.wait_for_first(DEADLINE_S)
    assert watch.pid is not None
    os.kill(watch.pid, getattr(signal, name))
    read_until(watch, lambda _: watch.pid is None)
    assert watch.latest.devices
    clock.ahead_s += cards.RESTART_S
    assert watch.is_silent
    watch.serve()
    assert watch.pid is not None
    read_until(watch, lambda _: not watch.is_silent)


def test_a_process_that_prints_garbage_is_replaced(
    driver: PretendDriver, make_watch: MakeWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's library may write to the pipe."""
    driver.set_devices(gpu(A))
    watch = make_watch()
    watch.wait_for_first(DEADLINE_S)
    pidfd = pidfd_of(watch)

    def refuse(_: bytes) -> Cards:
        raise WireError("garbage")

    monkeypatch.setattr(Cards, "parse", refuse)
    read_until(watch, lambda _: watch.pid is None)
    assert wait_for_end(pidfd, DEADLINE_S)
    os.close(pidfd)


def test_a_process_that_cant_be_started_is_a_problem(
    driver: PretendDriver, make_watch: MakeWatch, tmp_path: Path
) -> None:
    """It is reported and tried again; the daemon goes on."""
    driver.set_devices(gpu(A))
    (tmp_path / "nvml.log").mkdir()
    watch = make_watch()
    assert watch.fd is None
    assert watch.latest.problems[0].startswith("The NVIDIA driver can't be asked: ")


def test_a_single_reading(driver: PretendDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes within the time, and no process is left."""
    driver.set_devices(gpu(A))
    for name, value in driver.env.items():
        monkeypatch.setenv(name, value)
    assert [each.id for each in read_cards(tmp_path / "logs" / "nvml.log", DEADLINE_S).devices] == [A]
    driver.set_faults("nvmlInit -1 0 60000")
    assert read_cards(tmp_path / "logs" / "nvml.log", 0.2).problems == ("The NVIDIA driver doesn't answer.",)


PARENT = """
import sys, time
from pathlib import Path
from gpu_pool.cards import CardWatch
watch = CardWatch(Path(sys.argv[1]), interval_s=0.05)
if sys.argv[3] == "answers":
    watch.wait_for_first(60.0)
Path(sys.argv[2]).write_text(f"{watch.pid}\\n")
while True:
    time.sleep(60.0)
"""


@pytest.mark.parametrize("doing", ["answers", "hangs"])
def test_the_process_doesnt_outlive_the_daemon(
    driver: PretendDriver, tmp_path: Path, announcement: Announcement, doing: str
) -> None:
    """kill -9 of its parent ends it, whether it waits or hangs in a call of a minute."""
    driver.set_devices(gpu(A))
    if doing == "hangs":
        driver.set_faults("nvmlInit -1 0 60000")
    command = [sys.executable, "-c", PARENT, str(tmp_path / "nvml.log"), announcement.path, doing]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **driver.env}) as parent:
        pidfd = os.pidfd_open(announcement.wait())
        parent.kill()
        assert wait_for_end(pidfd, DEADLINE_S)
    os.close(pidfd)


def test_readings_cross_the_pipe_as_json(driver: PretendDriver) -> None:
    """One line for each interval, until the pipe is closed: then the process ends by itself."""
    driver.set_devices(gpu(A))
    command = [sys.executable, "-m", "gpu_pool.nvml_watch", "--parent", str(os.getpid()), "--interval", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, **driver.env}) as process:
        assert process.stdout
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
    assert [line["devices"][0]["id"] for line in lines] == [A] * 3
    assert lines[0]["read_at_s"] < lines[1]["read_at_s"] < lines[2]["read_at_s"]


@pytest.fixture
def no_device_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /dev."""
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(cards, "DEVICE_FOLDER", str(tmp_path / "dev"))
    return tmp_path / "dev"


@pytest.mark.parametrize(("file", "had_cards"), [("nvidia0", False), ("nvidiactl", False), ("", True)])
def test_a_driver_that_isnt_loaded_is_trouble_where_there_is_a_card(
    driver: PretendDriver, make_watch: MakeWatch, no_device_files: Path, file: str, had_cards: bool
) -> None:
    """A file in /dev or an earlier start shows that there is one; without either there is none."""
    watch = make_watch()
    watch.wait_for_first(DEADLINE_S)
    assert (watch.trouble, watch.latest.problems) == ("", ("No NVIDIA driver answers: Driver Not Loaded.",))
    if file:
        (no_device_files / file).touch()
    watch = make_watch(had_cards=had_cards)
    watch.wait_for_first(DEADLINE_S)
    assert "NVML error 9" in watch.trouble
    driver.set_devices(gpu(A))
    read_until(watch, lambda found: found.devices)
    assert watch.trouble == ""


def test_a_missing_library_is_trouble_where_there_is_a_card(
    make_watch: MakeWatch, no_device_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that was given the files of the cards and no library."""
    monkeypatch.setattr(cards, "has_driver_library", lambda _: False)
    assert make_watch().trouble == ""
    (no_device_files / "nvidia0").touch()
    assert "--gpus all" in make_watch().trouble


@pytest.mark.usefixtures("no_device_files")
def test_a_driver_that_hangs_is_trouble(driver: PretendDriver, make_watch: MakeWatch, clock: Clock) -> None:
    """From the start and later; it isn't where the environment admits no card."""
    driver.set_devices(gpu(A))
    driver.set_faults("nvmlInit -1 0 60000")
    hidden = make_watch(env={**driver.env, "CUDA_VISIBLE_DEVICES": "-1"})
    slow = make_watch()
    assert (slow.trouble, hidden.trouble) == (cards.SILENT_TROUBLE, "")
    driver.set_faults()
    watch = make_watch()
    watch.wait_for_first(DEADLINE_S)
    assert watch.trouble == ""
    clock.ahead_s += cards.STALE_S
    assert watch.trouble == cards.SILENT_TROUBLE


@pytest.mark.parametrize(
    ("rules", "trouble", "found"),
    [
        (CardRules(), "broken", "broken"),
        (CardRules(exclude=("GPU-", "MIG-")), "broken", ""),
        (CardRules(exclude=("",)), "broken", ""),
        (CardRules(exclude=(B,)), "broken", "broken"),
        (CardRules(only=(A,)), "", ""),
        (CardRules(only=(B,)), "", "names no card"),
        (CardRules(only=(A,), exclude=(A,)), "", ""),
    ],
)
def test_trouble_counts_where_cards_are_wanted(rules: CardRules, trouble: str, found: str) -> None:
    """Settings that exclude every card want none; `only` that names no card is a mistake."""
    said = find_trouble(Cards((Device(A, "cuda"),)), trouble, rules)
    assert (found in said, bool(said)) == (True, bool(found))
