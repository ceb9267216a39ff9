"""Hearing of cards from a process that may hang, crash, or talk nonsense: real processes, the real pynvml on a stub."""

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
from gpu_pool.cards import CardRules, Cards, CardWatch, has_driver_library, list_devices, read_cards
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Device, DeviceChanged, Done, Failed, Span, Task
from gpu_pool.wire import WireError
from tests.gpu_pool.conftest import DEADLINE_S, HANDLERS, Announcement, await_state, device, gone, messages, watch
from tests.nvmlstub import PretendDriver
from tests.test_layers import loaded_by

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
A, B = "GPU-aaaa1111", "GPU-bbbb2222"


def gpu(name: str, used: int = 0) -> str:
    return f"gpu {name} {24 * GIB} {used} {GIB}"


def test_the_daemon_never_loads_the_driver() -> None:
    """Not even the module that would: a crash in there would be the daemon's end."""
    assert "pynvml" not in loaded_by("import agent.daemon, agent.cli.doctor")


def test_seats_of_cards() -> None:
    """The first worker of a card has the card's id, the others a number behind it; all name the card."""
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
    """Cards are named by UUID or the beginning of it; what is excluded stays out even if it is named."""
    assert [name for name in (A, B, "MIG-x") if rules.can_use(name)] == admitted


def test_a_reading_as_a_line() -> None:
    """It comes out as it went in."""
    reading = Cards((Device(A, "cuda", "Stub", 9, 8, card=A),), ("a problem",), "999.01", {A: {"17": 4}}, 1.5)
    assert Cards.parse(reading.to_json().encode()) == reading


@pytest.mark.parametrize("line", [b"", b"[]", b"7", b"{}", b'{"devices":[{}],"problems":[]}', b'{"devices":[]}', b"{"])
def test_what_is_no_reading(line: bytes) -> None:
    """It is refused, whatever it is."""
    with pytest.raises(WireError):
        Cards.parse(line)


def test_the_library_is_looked_for_without_loading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In LD_LIBRARY_PATH, in the folders of the system, in the loader's cache."""
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
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


MakeWatch = Callable[..., CardWatch]


@pytest.fixture
def make_watch(driver: PretendDriver, tmp_path: Path, clock: Clock) -> Iterator[MakeWatch]:
    """Watches over the pretended driver that ask ten times a second."""
    made: list[CardWatch] = []

    def make(**more: Any) -> CardWatch:
        options = {"interval_s": 0.1, "env": driver.env, "clock": clock, **more}
        made.append(CardWatch(tmp_path / "nvml.log", **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def hear(heard: CardWatch, enough: Callable[[Cards], object]) -> Cards:
    """Listen until a reading is like this."""
    deadline = time.monotonic() + DEADLINE_S
    while not enough(heard.latest):
        assert time.monotonic() < deadline, f"waited in vain: {heard.latest}"
        if heard.fd is not None:
            select.select([heard.fd], [], [], 0.2)
        heard.serve()
    return heard.latest


def pidfd_of(heard: CardWatch) -> int:
    assert heard.pid is not None
    return os.pidfd_open(heard.pid)


def test_without_a_library_no_process_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is waited for; after a minute it looks again, in case a driver has been installed."""
    monkeypatch.setattr(cards, "has_driver_library", lambda _: False)
    quiet = CardWatch(tmp_path / "nvml.log")
    assert quiet.fd is None
    assert quiet.wait_for_first(1000.0).problems == ("No NVIDIA driver is installed.",)
    assert not quiet.is_silent
    assert 50.0 < quiet.deadline_s - time.monotonic() <= 60.0
    quiet.close()


def test_the_first_reading_is_waited_for(driver: PretendDriver, make_watch: MakeWatch) -> None:
    """Then more come, and each is fresh."""
    driver.devices(gpu(A), gpu(B, 3 * GIB))
    heard = make_watch()
    first = heard.wait_for_first(DEADLINE_S)
    assert [(each.id, each.free_bytes // GIB) for each in first.devices] == [(A, 23), (B, 20)]
    assert first.driver == "999.01"
    driver.devices(gpu(A, 5 * GIB))
    later = hear(heard, lambda found: len(found.devices) == 1)
    assert later.devices[0].free_bytes == 18 * GIB
    assert later.read_at_s > first.read_at_s


def test_a_driver_that_is_there_but_doesnt_run(driver: PretendDriver, make_watch: MakeWatch) -> None:
    """It is told as a problem, and when the driver comes up, the cards are there."""
    heard = make_watch()
    found = heard.wait_for_first(DEADLINE_S)
    assert found.problems == ("No NVIDIA driver answers: Driver Not Loaded.",)
    driver.devices(gpu(A))
    hear(heard, lambda found: found.devices)


def test_a_call_that_takes_ten_seconds_is_survived(driver: PretendDriver, make_watch: MakeWatch, clock: Clock) -> None:
    """The first reading isn't waited for so long; then figures are too old; then the process is replaced."""
    driver.devices(gpu(A))
    heard = make_watch()
    heard.wait_for_first(DEADLINE_S)
    assert not heard.is_silent
    driver.faults("nvmlDeviceGetMemoryInfo_v2 -1 0 60000")
    pidfd = pidfd_of(heard)
    while not heard.is_silent:  # a reading that was under way may still come
        clock.ahead += cards.STALE_S
        heard.serve()
    assert heard.pid is not None
    clock.ahead += cards.SILENT_S
    heard.serve()
    assert gone(pidfd, DEADLINE_S)
    assert heard.pid is None
    driver.faults()
    clock.ahead += cards.RESTART_S
    heard.serve()
    hear(heard, lambda _: not heard.is_silent)
    os.close(pidfd)


def test_a_driver_that_hangs_from_the_start(driver: PretendDriver, make_watch: MakeWatch) -> None:
    """It is given up after the time that was allowed, with a problem that says so."""
    driver.devices(gpu(A))
    driver.faults("nvmlInit -1 0 60000")
    assert make_watch().wait_for_first(0.3).problems == ("The NVIDIA driver doesn't answer.",)


@pytest.mark.parametrize("blow", ["SIGSEGV", "SIGKILL"])
def test_a_driver_that_crashes_its_process(
    driver: PretendDriver, make_watch: MakeWatch, clock: Clock, blow: str
) -> None:
    """Another is started after a pause, and the cards are as they were."""
    driver.devices(gpu(A))
    heard = make_watch()
    heard.wait_for_first(DEADLINE_S)
    assert heard.pid is not None
    os.kill(heard.pid, getattr(signal, blow))
    hear(heard, lambda _: heard.pid is None)
    assert heard.latest.devices
    clock.ahead += cards.RESTART_S
    assert heard.is_silent
    heard.serve()
    assert heard.pid is not None
    hear(heard, lambda _: not heard.is_silent)


def test_a_process_that_talks_nonsense_is_replaced(
    driver: PretendDriver, make_watch: MakeWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the driver's library that writes where it shouldn't."""
    driver.devices(gpu(A))
    heard = make_watch()
    heard.wait_for_first(DEADLINE_S)
    pidfd = pidfd_of(heard)

    def refuse(_: bytes) -> Cards:
        raise WireError("nonsense")

    monkeypatch.setattr(Cards, "parse", refuse)
    hear(heard, lambda _: heard.pid is None)
    assert gone(pidfd, DEADLINE_S)
    os.close(pidfd)


def test_a_process_that_cant_be_started_is_a_problem(
    driver: PretendDriver, make_watch: MakeWatch, tmp_path: Path
) -> None:
    """Told, and tried again; the daemon goes on."""
    driver.devices(gpu(A))
    (tmp_path / "nvml.log").mkdir()
    heard = make_watch()
    assert heard.fd is None
    assert heard.latest.problems[0].startswith("The NVIDIA driver can't be asked: ")


def test_one_look_for_people(driver: PretendDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading within the time, and no process is left."""
    driver.devices(gpu(A))
    for name, value in driver.env.items():
        monkeypatch.setenv(name, value)
    assert [each.id for each in read_cards(tmp_path / "logs" / "nvml.log", DEADLINE_S).devices] == [A]
    driver.faults("nvmlInit -1 0 60000")
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
    time.sleep(1.0)
"""


@pytest.mark.parametrize("doing", ["answers", "hangs"])
def test_the_process_doesnt_outlive_the_daemon(
    driver: PretendDriver, tmp_path: Path, announcement: Announcement, doing: str
) -> None:
    """kill -9 of its parent ends it, whether it waits or hangs in a call: the hang alone would last a minute."""
    driver.devices(gpu(A))
    if doing == "hangs":
        driver.faults("nvmlInit -1 0 60000")
    command = [sys.executable, "-c", PARENT, str(tmp_path / "nvml.log"), announcement.path, doing]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **driver.env}) as parent:
        pidfd = os.pidfd_open(announcement.wait())
        parent.kill()
        assert gone(pidfd, DEADLINE_S)
    os.close(pidfd)


# the watch under a backend and a pool --------------------------------------------------------------------------------


@pytest.fixture
def make_pool_of_cards(driver: PretendDriver, tmp_path: Path, make_watch: MakeWatch) -> Iterator[Callable[..., Pool]]:
    """Pools of real workers on the pretended cards, and none on the processor."""
    made: list[Pool] = []

    def make(rules: CardRules | None = None, cpus: int = 0, **more: Any) -> Pool:
        heard = make_watch(clock=time.monotonic)
        heard.wait_for_first(DEADLINE_S)
        backend = LocalBackend(
            cpu_devices(cpus),
            handler=f"{HANDLERS}:Obliging",
            handler_options={"common": 1},
            kind_options={"cuda": {"preload": "musetalk"}},
            log_dir=tmp_path / "logs",
            env=driver.env,
            watch=heard,
            rules=rules,
        )
        made.append(Pool(backend, stall_s=30.0, **more))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


MakePoolOfCards = Callable[..., Pool]


def begin_on(pool: Pool, do: str, gib: float = 0, **payload: Any) -> str:
    """Start a span on a card; returns the device, "" if there is none for it."""
    task = Task(do, "cuda", (Span(0, 10),), memory_bytes=int(gib * GIB), payload={"do": do, **payload})
    plan = pool.plan(task, 0)
    if plan is None:
        return ""
    pool.start(plan)
    return plan.assignments[0].device


def test_two_workers_on_each_card(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """Each sees its own card and no other, and gets the options of its kind; a card that is excluded has none."""
    driver.devices(gpu(A), gpu(B), gpu("GPU-cccc3333"))
    pool = make_pool_of_cards(CardRules(workers=2, exclude=("GPU-cccc",)), cpus=1)
    names = [A, f"{A}/2", B, f"{B}/2"]
    assert sorted(each.id for each in pool.devices()) == sorted([*names, "cpu:0"])
    for name in names:
        await_state(pool, "idle", name)
    seen = {}
    for _ in names:
        started = begin_on(pool, "tell")
        told = messages(watch(pool, lambda events: messages(events, Done)), Done)[0].result
        assert told["options"] == {"common": 1, "preload": "musetalk"}
        seen[started] = told["env"]["CUDA_VISIBLE_DEVICES"]
        pool.drain(started)
    assert seen == {A: A, f"{A}/2": A, B: B, f"{B}/2": B}


def test_memory_that_others_take_and_free_is_noticed(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards
) -> None:
    """The poll that waits ends with it, the task that waits says why, and then it starts."""
    driver.devices(gpu(A))
    pool = make_pool_of_cards()
    await_state(pool, "idle", A)
    with subprocess.Popen(["sleep", "600"]) as program:
        driver.hold(program.pid, 0, 20 * GIB)
        watch(pool, lambda _: device(pool, A).free_bytes == 3 * GIB)
        assert begin_on(pool, "count", 8) == ""
        waits = Task("t", "cuda", (Span(0, 1),), memory_bytes=8 * GIB)
        assert pool.wait_reason(waits).endswith(f"is 3072 MiB, on {A}.")
        program.kill()
    events = watch(pool, lambda events: any(isinstance(event, DeviceChanged) for event in events))
    assert [event.device.free_bytes for event in events if isinstance(event, DeviceChanged)] == [23 * GIB]
    assert begin_on(pool, "count", 8) == A


def test_what_our_own_worker_holds_is_known_by_its_process(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards
) -> None:
    """So that it counts as room for that worker."""
    driver.devices(gpu(A))
    pool = make_pool_of_cards()
    worker = await_state(pool, "idle", A)
    assert worker.worker_pid is not None
    driver.hold(worker.worker_pid, 0, 20 * GIB)
    watch(pool, lambda _: device(pool, A).held_bytes == 20 * GIB)
    assert device(pool, A).free_bytes == 3 * GIB
    assert begin_on(pool, "count", 22) == A


def test_a_card_that_falls_off_the_bus_and_comes_back(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards
) -> None:
    """It costs one span; the other card goes on; nobody has to do anything for it to return."""
    driver.devices(gpu(A), gpu(B))
    pool = make_pool_of_cards()
    for name in (A, B):
        await_state(pool, "idle", name)
    begin_on(pool, "wait for cancel")
    driver.faults("nvmlDeviceGetMemoryInfo_v2 0 15 0")
    seen = watch(pool, lambda events: messages(events, Failed))
    assert [(end.fault, end.code) for end in messages(seen, Failed)] == [("worker", "device_lost")]
    assert device(pool, A).state == "lost"
    assert device(pool, A).worker_pid is None
    assert begin_on(pool, "count") == B
    driver.faults()
    await_state(pool, "idle", A)


def test_cards_that_appear_later_get_workers(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """A driver that comes up after the daemon, and a card that isn't listed any more."""
    pool = make_pool_of_cards()
    assert pool.devices() == []
    driver.devices(gpu(A), gpu(B))
    watch(pool, lambda _: len(pool.devices()) == 2)
    await_state(pool, "idle", A)
    driver.devices(gpu(B))
    assert await_state(pool, "lost", A).reason == "The driver doesn't list the card any more."
    driver.devices()
    await_state(pool, "lost", B)


def test_mig_instances_are_devices(driver: PretendDriver, make_pool_of_cards: MakePoolOfCards) -> None:
    """Each with a worker of its own, which sees only the instance."""
    driver.devices(gpu(A), f"mig MIG-x {20 * GIB} 0 0", f"mig MIG-y {20 * GIB} 0 0")
    pool = make_pool_of_cards()
    for name in ("MIG-x", "MIG-y"):
        await_state(pool, "idle", name)
    started = begin_on(pool, "tell")
    told = messages(watch(pool, lambda events: messages(events, Done)), Done)[0].result
    assert told["env"]["CUDA_VISIBLE_DEVICES"] == started


def test_a_silent_driver_is_noticed_while_the_pool_waits(
    driver: PretendDriver, make_pool_of_cards: MakePoolOfCards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing new is started by old figures, the worker that is there stays, and all is well when it answers again."""
    monkeypatch.setattr(cards, "STALE_S", 1.0)
    driver.devices(gpu(A))
    pool = make_pool_of_cards()
    worker = await_state(pool, "idle", A).worker_pid
    driver.faults("nvmlDeviceGetMemoryInfo_v2 -1 0 4000")
    watch(pool, lambda _: device(pool, A).reason == "The NVIDIA driver doesn't answer.")
    assert begin_on(pool, "count") == ""
    driver.faults()
    watch(pool, lambda _: device(pool, A).reason == "")
    assert begin_on(pool, "count") == A
    assert device(pool, A).worker_pid == worker


def test_readings_cross_the_pipe_as_json(driver: PretendDriver) -> None:
    """A line each, about so often, until the pipe is gone: then the process ends by itself."""
    driver.devices(gpu(A))
    command = [sys.executable, "-m", "gpu_pool.nvml_watch", "--parent", str(os.getpid()), "--interval", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, **driver.env}) as process:
        assert process.stdout
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
    assert [line["devices"][0]["id"] for line in lines] == [A] * 3
    assert lines[0]["read_at_s"] < lines[1]["read_at_s"] < lines[2]["read_at_s"]
