"""The contract of a backend: what the local one, a node behind a pipe, one of a Ray cluster and the fake one all do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from gpu_pool.backend import Backend
from gpu_pool.cluster.node import NodeTimes
from gpu_pool.local import cpu_devices
from gpu_pool.types import Cancel, Done, Exited, Failed, Progress, ProtocolError, Ready, RunSpan, Stop, WorkerMessage
from gpu_pool.wakeup import Wakeup
from gpu_pool.wire import WireError
from tests.gpu_pool.fake import Clock, FakeBackend, Message, make_done, make_progress
from tests.gpu_pool.nodes import RAY_SECRET, NodeAlone, RayCluster, make_node
from tests.gpu_pool.pools import DEADLINE_S, MakeBackend

RAY_TIMES = NodeTimes(beat_s=0.2, fence_s=25.0, lost_s=30.0, retry_s=0.5)
"""Ray takes seconds to start what it is asked for, more on a busy machine."""


def answer_as_handler(_: str, run: RunSpan) -> Iterable[tuple[float, Message]]:
    """Answer as a real worker with the test handlers does."""
    match run.payload["do"]:
        case "count":
            yield 0.0, make_progress(run)
            yield 0.0, make_done(run)
        case "count slowly":
            yield 0.2, make_done(run)
        case "crash":
            yield 0.0, Exited(1, signal=str(run.payload["signal"]), log="about to crash")
        case "leave":
            yield 0.0, Exited(1, code=int(run.payload["code"]), log="I have had enough.")
        case "babble":
            yield 0.0, ProtocolError("babble")


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    made = Wakeup()
    yield made
    made.close()


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """Two nodes, with the token in the environment of this process."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in RAY_SECRET.items():
            patched.setenv(name, value)
        cluster = RayCluster()
        yield cluster
        cluster.end()


@pytest.fixture(params=["local", "node", pytest.param("ray", marks=pytest.mark.cluster), "fake"])
def backend(
    request: pytest.FixtureRequest, make_backend: MakeBackend, tmp_path: Path, wakeup: Wakeup
) -> Iterator[Backend]:
    """Each backend in turn, with two devices."""
    made: Backend
    match request.param:
        case "local":
            made = make_backend(2)
        case "node":
            made = NodeAlone(make_node(tmp_path / "box2"), tmp_path / "logs", wakeup.fileno(), 2)
        case "ray":
            node = make_node(tmp_path / "box2", times=RAY_TIMES, command=request.getfixturevalue("ray_cluster").bridge)
            made = NodeAlone(node, tmp_path / "logs", wakeup.fileno(), 2)
        case _:
            made = FakeBackend(cpu_devices(2), Clock(), answer_as_handler)
    yield made
    made.close()


class Listener:
    """Waits for messages from a backend."""

    def __init__(self, backend: Backend, wakeup: Wakeup) -> None:
        self._backend, self._fd = backend, wakeup.fileno()
        self.messages: list[WorkerMessage] = []

    def wait_until(self, is_wanted: Callable[[WorkerMessage], bool]) -> WorkerMessage:
        """Forget earlier messages and wait for one that is wanted."""
        self.messages = []
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            self.messages += self._backend.wait(0.5, self._fd)
            if found := [message for message in self.messages if is_wanted(message)]:
                return found[0]
        raise AssertionError(f"no such message: {self.messages}")

    def wait_for(self, kind: type, device: str = "cpu:0") -> Message:
        return self.wait_until(lambda message: message[0] == device and isinstance(message[1], kind))[1]


@pytest.fixture
def listener(backend: Backend, wakeup: Wakeup) -> Listener:
    return Listener(backend, wakeup)


def start_worker(backend: Backend, listener: Listener, device: str = "cpu:0") -> Ready:
    backend.spawn(device)
    ready = listener.wait_for(Ready, device)
    assert isinstance(ready, Ready)
    return ready


def test_a_spawned_worker_gets_ready(backend: Backend, listener: Listener) -> None:
    """Ready names the device and the process."""
    ready = start_worker(backend, listener)
    assert ready.device == "cpu:0"
    assert ready.pid > 0


def test_devices_are_those_it_was_given(backend: Backend) -> None:
    """In the order in which they were given."""
    assert [device.id for device in backend.devices()] == ["cpu:0", "cpu:1"]


def test_devices_are_the_same_when_workers_come_and_go(backend: Backend, listener: Listener) -> None:
    """A device isn't removed with its worker: one that is gone is reported as lost."""
    start_worker(backend, listener)
    backend.kill("cpu:0")
    listener.wait_for(Exited)
    assert [(device.id, device.state) for device in backend.devices()] == [("cpu:0", "starting"), ("cpu:1", "starting")]


def test_a_span_is_run(backend: Backend, listener: Listener) -> None:
    """Progress, then Done, both naming the span."""
    start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 3, 5, {"do": "count"}))
    finished = listener.wait_for(Done)
    assert isinstance(finished, Done)
    assert (finished.task, finished.start, finished.stop) == ("task", 3, 5)
    assert isinstance(listener.messages[0][1], Progress)


def test_two_workers_run_side_by_side(backend: Backend, listener: Listener) -> None:
    """The messages of the two workers aren't mixed up."""
    for device in ("cpu:0", "cpu:1"):
        start_worker(backend, listener, device)
    for device in ("cpu:0", "cpu:1"):
        backend.send(device, RunSpan(device, 0, 5, {"do": "count"}))
    listener.wait_until(
        lambda _: {on for on, message in listener.messages if isinstance(message, Done)} == {"cpu:0", "cpu:1"}
    )
    assert all(isinstance(message, Progress | Done) and message.task == on for on, message in listener.messages)


def test_a_cancelled_span_ends_and_its_worker_stays(backend: Backend, listener: Listener) -> None:
    """The next span runs in the same process."""
    ready = start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "wait for cancel"}))
    backend.send("cpu:0", Cancel("task"))
    ended = listener.wait_for(Failed)
    assert isinstance(ended, Failed)
    assert ended.fault == "cancelled"
    backend.send("cpu:0", RunSpan("task", 5, 6, {"do": "count"}))
    assert isinstance(listener.wait_for(Done), Done)
    backend.kill("cpu:0")
    gone = listener.wait_for(Exited)
    assert isinstance(gone, Exited)
    assert gone.pid == ready.pid or isinstance(backend, FakeBackend)


def test_a_cancel_of_another_task_is_not_for_this_span(backend: Backend, listener: Listener) -> None:
    """It was meant for an earlier span and came too late."""
    start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 0, 20, {"do": "count slowly"}))
    backend.send("cpu:0", Cancel("the one before"))
    assert isinstance(listener.wait_for(Done), Done)


def test_a_crash_is_the_last_message_and_names_the_signal(backend: Backend, listener: Listener) -> None:
    """Nothing follows Exited, and another worker may be spawned."""
    start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "crash", "signal": "SIGSEGV"}))
    gone = listener.wait_for(Exited)
    assert isinstance(gone, Exited)
    assert gone.signal == "SIGSEGV"
    assert "about to crash" in gone.log
    assert listener.messages[-1][1] is gone
    start_worker(backend, listener)
    assert [type(message) for _, message in listener.messages] == [Ready]


def test_an_exit_has_its_code(backend: Backend, listener: Listener) -> None:
    """A worker that exits by itself isn't reported as killed."""
    start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "leave", "code": 3}))
    gone = listener.wait_for(Exited)
    assert isinstance(gone, Exited)
    assert (gone.code, gone.signal, gone.log.splitlines()[-1]) == (3, "", "I have had enough.")


def test_kill_is_reported_once(backend: Backend, listener: Listener, wakeup: Wakeup) -> None:
    """Even if it is requested twice."""
    start_worker(backend, listener)
    backend.kill("cpu:0")
    backend.kill("cpu:0")
    gone = listener.wait_for(Exited)
    assert isinstance(gone, Exited)
    assert gone.signal == "SIGKILL"
    assert backend.wait(0.1, wakeup.fileno()) == []


def test_stop_ends_a_worker(backend: Backend, listener: Listener) -> None:
    """With exit code 0 and no signal."""
    start_worker(backend, listener)
    backend.send("cpu:0", Stop())
    gone = listener.wait_for(Exited)
    assert isinstance(gone, Exited)
    assert (gone.code, gone.signal) == (0, "")


def test_garbage_is_a_protocol_error(backend: Backend, listener: Listener) -> None:
    """After it the worker can be killed."""
    start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "babble", "bytes": "blah\n"}))
    assert isinstance(listener.wait_for(ProtocolError), ProtocolError)
    backend.kill("cpu:0")
    has_ended = any(isinstance(message, Exited) for _, message in listener.messages)
    assert has_ended or isinstance(listener.wait_for(Exited), Exited)


def test_without_a_worker_send_and_kill_do_nothing(backend: Backend, wakeup: Wakeup) -> None:
    """Both return, and no message follows."""
    backend.send("cpu:0", Cancel("task"))
    backend.kill("cpu:0")
    assert backend.wait(0.0, wakeup.fileno()) == []


def test_a_second_worker_on_a_device_is_refused(backend: Backend, listener: Listener) -> None:
    """The backend keeps one process for each device."""
    start_worker(backend, listener)
    with pytest.raises(ValueError, match="has a worker already"):
        backend.spawn("cpu:0")


def test_a_payload_that_is_no_message_is_refused(backend: Backend, listener: Listener) -> None:
    """The caller gets an error at once, and the worker runs the next span."""
    start_worker(backend, listener)
    with pytest.raises(WireError):
        backend.send("cpu:0", RunSpan("task", 0, 5, {"do": object()}))
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "count"}))
    assert isinstance(listener.wait_for(Done), Done)


def test_wait_ends_when_the_time_is_up(backend: Backend, wakeup: Wakeup) -> None:
    """Without messages."""
    assert backend.wait(0.05, wakeup.fileno()) == []


def test_wait_ends_when_woken(backend: Backend, wakeup: Wakeup) -> None:
    """It leaves the flag raised, for the owner to lower."""
    wakeup.raise_flag()
    assert backend.wait(DEADLINE_S, wakeup.fileno()) == []
    assert wakeup.lower_flag()
    assert not wakeup.lower_flag()


def test_a_message_of_a_megabyte_passes(backend: Backend, listener: Listener) -> None:
    """It is larger than the buffer of a socket, and is sent without blocking."""
    start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "count", "ballast": "x" * 1_000_000}))
    assert isinstance(listener.wait_for(Done), Done)


def test_close_with_work_going_on(backend: Backend, listener: Listener) -> None:
    """No process is left of a busy worker."""
    ready = start_worker(backend, listener)
    backend.send("cpu:0", RunSpan("task", 0, 5, {"do": "freeze"}))
    backend.close()
    backend.close()
    assert isinstance(backend, FakeBackend) or not Path(f"/proc/{ready.pid}").exists()
