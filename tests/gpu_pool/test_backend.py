"""The contract of a backend: what the local one and the fake one both do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from gpu_pool.backend import Backend
from gpu_pool.local import cpu_devices
from gpu_pool.types import Cancel, Done, Exited, Failed, Progress, ProtocolError, Ready, RunSpan, Stop, WorkerMessage
from gpu_pool.wakeup import Wakeup
from gpu_pool.wire import WireError
from tests.gpu_pool.conftest import DEADLINE_S, MakeBackend
from tests.gpu_pool.fake import Clock, FakeBackend, Message, done, progress


def scripted(_: str, run: RunSpan) -> Iterable[tuple[float, Message]]:
    """What a real worker with the test handlers would say."""
    match run.payload["do"]:
        case "count":
            yield 0.0, progress(run)
            yield 0.0, done(run)
        case "count slowly":
            yield 0.2, done(run)
        case "crash":
            yield 0.0, Exited(1, signal=str(run.payload["signal"]), log="about to crash")
        case "leave":
            yield 0.0, Exited(1, code=int(run.payload["code"]), log="I have had enough.")
        case "babble":
            yield 0.0, ProtocolError("babble")


@pytest.fixture(params=["local", "fake"])
def backend(request: pytest.FixtureRequest, make_backend: MakeBackend) -> Iterator[Backend]:
    """Each backend in turn, with two devices."""
    made: Backend = make_backend(2) if request.param == "local" else FakeBackend(cpu_devices(2), Clock(), scripted)
    yield made
    made.close()


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    made = Wakeup()
    yield made
    made.close()


class Ear:
    """Listens to a backend until it has heard enough."""

    def __init__(self, backend: Backend, wakeup: Wakeup) -> None:
        self._backend, self._fd = backend, wakeup.fileno()
        self.heard: list[WorkerMessage] = []

    def until(self, enough: Callable[[WorkerMessage], bool]) -> WorkerMessage:
        """Forget what was heard, and listen for this."""
        self.heard = []
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            self.heard += self._backend.wait(0.5, self._fd)
            if found := [heard for heard in self.heard if enough(heard)]:
                return found[0]
        raise AssertionError(f"not heard; heard: {self.heard}")

    def kind(self, wanted: type, device: str = "cpu:0") -> Message:
        return self.until(lambda heard: heard[0] == device and isinstance(heard[1], wanted))[1]


@pytest.fixture
def ear(backend: Backend, wakeup: Wakeup) -> Ear:
    return Ear(backend, wakeup)


def started(backend: Backend, ear: Ear, device: str = "cpu:0") -> Ready:
    backend.spawn(device)
    ready = ear.kind(Ready, device)
    assert isinstance(ready, Ready)
    return ready


def test_a_spawned_worker_gets_ready(backend: Backend, ear: Ear) -> None:
    """Ready names the device and the process."""
    ready = started(backend, ear)
    assert ready.device == "cpu:0"
    assert ready.pid > 0


def test_devices_are_those_it_was_given(backend: Backend) -> None:
    """Their order is the caller's."""
    assert [device.id for device in backend.devices()] == ["cpu:0", "cpu:1"]


def test_devices_are_the_same_when_workers_come_and_go(backend: Backend, ear: Ear) -> None:
    """A device doesn't vanish with its worker: what is gone is reported as lost."""
    started(backend, ear)
    backend.kill("cpu:0")
    ear.kind(Exited)
    assert [(device.id, device.state) for device in backend.devices()] == [("cpu:0", "starting"), ("cpu:1", "starting")]


def test_a_span_is_run(backend: Backend, ear: Ear) -> None:
    """Progress, then Done, both naming the span."""
    started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 3, 5, {"do": "count"}))
    finished = ear.kind(Done)
    assert isinstance(finished, Done)
    assert (finished.task, finished.start, finished.stop) == ("task", 3, 5)
    assert isinstance(ear.heard[0][1], Progress)


def test_two_workers_run_side_by_side(backend: Backend, ear: Ear) -> None:
    """What one worker says isn't mixed up with what the other says."""
    for device in ("cpu:0", "cpu:1"):
        started(backend, ear, device)
    for device in ("cpu:0", "cpu:1"):
        backend.send(device, RunSpan(device, 0, 5, {"do": "count"}))
    ear.until(lambda _: {on for on, message in ear.heard if isinstance(message, Done)} == {"cpu:0", "cpu:1"})
    assert all(isinstance(message, Progress | Done) and message.task == on for on, message in ear.heard)


def test_a_cancelled_span_ends_and_its_worker_stays(backend: Backend, ear: Ear) -> None:
    """The next span runs in the same process."""
    ready = started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "wait for cancel"}))
    backend.send("cpu:0", Cancel("task"))
    ended = ear.kind(Failed)
    assert isinstance(ended, Failed)
    assert ended.fault == "cancelled"
    backend.send("cpu:0", RunSpan("task", 5, 6, {"do": "count"}))
    assert isinstance(ear.kind(Done), Done)
    backend.kill("cpu:0")
    gone = ear.kind(Exited)
    assert isinstance(gone, Exited)
    assert gone.pid == ready.pid or isinstance(backend, FakeBackend)


def test_a_cancel_of_another_task_is_not_for_this_span(backend: Backend, ear: Ear) -> None:
    """It came too late for the span it was meant for."""
    started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 0, 20, {"do": "count slowly"}))
    backend.send("cpu:0", Cancel("the one before"))
    assert isinstance(ear.kind(Done), Done)


def test_a_crash_is_heard_last_and_names_the_signal(backend: Backend, ear: Ear) -> None:
    """After Exited there is silence, and another worker may be spawned."""
    started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "crash", "signal": "SIGSEGV"}))
    gone = ear.kind(Exited)
    assert isinstance(gone, Exited)
    assert gone.signal == "SIGSEGV"
    assert "about to crash" in gone.log
    assert ear.heard[-1][1] is gone
    started(backend, ear)
    assert [type(message) for _, message in ear.heard] == [Ready]


def test_an_exit_tells_its_code(backend: Backend, ear: Ear) -> None:
    """A worker that just leaves isn't said to have been killed."""
    started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "leave", "code": 3}))
    gone = ear.kind(Exited)
    assert isinstance(gone, Exited)
    assert (gone.code, gone.signal, gone.log.splitlines()[-1]) == (3, "", "I have had enough.")


def test_kill_is_heard_once(backend: Backend, ear: Ear, wakeup: Wakeup) -> None:
    """However often it is asked for."""
    started(backend, ear)
    backend.kill("cpu:0")
    backend.kill("cpu:0")
    gone = ear.kind(Exited)
    assert isinstance(gone, Exited)
    assert gone.signal == "SIGKILL"
    assert backend.wait(0.1, wakeup.fileno()) == []


def test_stop_ends_a_worker_politely(backend: Backend, ear: Ear) -> None:
    """Exit code 0, no signal."""
    started(backend, ear)
    backend.send("cpu:0", Stop())
    gone = ear.kind(Exited)
    assert isinstance(gone, Exited)
    assert (gone.code, gone.signal) == (0, "")


def test_nonsense_is_heard_as_such(backend: Backend, ear: Ear) -> None:
    """And the worker can be killed for it."""
    started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "babble", "bytes": "blah\n"}))
    assert isinstance(ear.kind(ProtocolError), ProtocolError)
    backend.kill("cpu:0")
    assert isinstance(ear.kind(Exited), Exited)


def test_nobody_is_asked_in_vain(backend: Backend, wakeup: Wakeup) -> None:
    """Sending to and killing a worker that isn't there does nothing."""
    backend.send("cpu:0", Cancel("task"))
    backend.kill("cpu:0")
    assert backend.wait(0.0, wakeup.fileno()) == []


def test_a_second_worker_on_a_device_is_refused(backend: Backend, ear: Ear) -> None:
    """It would be lost sight of."""
    started(backend, ear)
    with pytest.raises(ValueError, match="has a worker already"):
        backend.spawn("cpu:0")


def test_a_payload_that_is_no_message_is_refused(backend: Backend, ear: Ear) -> None:
    """The sender hears of it at once, and the worker is as good as before."""
    started(backend, ear)
    with pytest.raises(WireError):
        backend.send("cpu:0", RunSpan("task", 0, 5, {"do": object()}))
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "count"}))
    assert isinstance(ear.kind(Done), Done)


def test_wait_ends_when_the_time_is_up(backend: Backend, wakeup: Wakeup) -> None:
    """With nothing heard."""
    assert backend.wait(0.05, wakeup.fileno()) == []


def test_wait_ends_when_woken(backend: Backend, wakeup: Wakeup) -> None:
    """And leaves the flag up, for whoever owns it."""
    wakeup.raise_flag()
    assert backend.wait(DEADLINE_S, wakeup.fileno()) == []
    assert wakeup.lower_flag()
    assert not wakeup.lower_flag()


def test_a_message_of_a_megabyte_passes(backend: Backend, ear: Ear) -> None:
    """More than a socket holds at once, sent without blocking."""
    started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "count", "ballast": "x" * 1_000_000}))
    assert isinstance(ear.kind(Done), Done)


def test_close_with_work_going_on(backend: Backend, ear: Ear) -> None:
    """Nothing is left of a busy worker."""
    ready = started(backend, ear)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "freeze"}))
    backend.close()
    backend.close()
    assert isinstance(backend, FakeBackend) or not Path(f"/proc/{ready.pid}").exists()
