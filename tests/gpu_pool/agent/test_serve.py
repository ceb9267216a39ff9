"""The agent as a process: what it does without a daemon, and with one that says what no daemon says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpu_pool.agent.pipe import Pipe
from gpu_pool.agent.serve import Agent
from gpu_pool.cluster.courier import SpanFiles
from gpu_pool.cluster.messages import (
    Beat,
    Broken,
    Ended,
    Figures,
    FromNode,
    Heard,
    Hello,
    Kill,
    Refused,
    Spawn,
    Start,
    decode_from_node,
)
from gpu_pool.cluster.node import NodeTimes
from gpu_pool.types import Done, Exited, Failed, Ready
from gpu_pool.wire import decode_report, encode, encode_any
from tests.gpu_pool.cluster.pairs import Pair
from tests.gpu_pool.nodes import FACTS, make_start
from tests.gpu_pool.pools import DEADLINE_S, wait_for_end


class AgentProcess:
    """An agent whose daemon is a test."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "gpu_pool.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def say(self, *messages: Any) -> None:
        assert self.popen.stdin
        for message in messages:
            self.popen.stdin.write(message if isinstance(message, bytes) else encode_any(message))
        self.popen.stdin.flush()

    def hear(self, kind: type[FromNode]) -> Any:
        """Return the next message of this kind."""
        assert self.popen.stdout
        while line := self.popen.stdout.readline():
            if isinstance(message := decode_from_node(line.rstrip()), kind):
                return message
        raise AssertionError(f"the agent ended: {self.end()}")

    def end(self) -> str:
        """Wait for its end; return what it wrote to stderr."""
        return self.popen.communicate(timeout=DEADLINE_S)[1].decode()


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    made = AgentProcess()
    yield made
    made.popen.kill()
    with made.popen:
        pass


def start_worker(agent: AgentProcess, folder: Path, fence_s: float) -> int:
    agent.say(make_start(folder, times=NodeTimes(beat_s=0.2, fence_s=fence_s)))
    assert agent.hear(Hello) == Hello(FACTS, sees_state=True)
    assert agent.hear(Figures).id == "cpu:0"
    agent.say(Spawn("cpu:0"))
    ready = decode_report(agent.hear(Heard).line.encode())
    assert isinstance(ready, Ready)
    return ready.pid


def test_without_a_word_of_the_daemon_it_ends_its_workers(agent: AgentProcess, tmp_path: Path) -> None:
    """The pipe is open: the machines can't reach each other. The daemon gives the work to others later."""
    worker = os.pidfd_open(start_worker(agent, tmp_path, fence_s=1.0))
    assert wait_for_end(worker, DEADLINE_S)
    os.close(worker)
    assert "nothing was heard of the daemon for 1 s" in agent.end()


def test_what_lay_in_the_pipe_while_it_was_stopped_is_no_sign_of_life(agent: AgentProcess, tmp_path: Path) -> None:
    """Its worker ran on without it; the daemon has given the work to others meanwhile, and nothing new is begun."""
    worker = os.pidfd_open(start_worker(agent, tmp_path, fence_s=1.0))
    agent.popen.send_signal(signal.SIGSTOP)
    agent.say(Beat(), Kill("cpu:0"), Spawn("cpu:0"))
    assert not wait_for_end(worker, 1.2)
    agent.say(Beat())
    agent.popen.send_signal(signal.SIGCONT)
    assert wait_for_end(worker, DEADLINE_S)
    os.close(worker)
    assert "nothing was heard of the daemon for 1 s" in agent.end()


def test_with_the_pipe_it_ends_its_workers(agent: AgentProcess, tmp_path: Path) -> None:
    """As after kill -9 of the daemon, or of the program that leads to the node."""
    worker = os.pidfd_open(start_worker(agent, tmp_path, fence_s=600.0))
    assert agent.popen.stdin
    agent.popen.stdin.close()
    assert wait_for_end(worker, DEADLINE_S)
    os.close(worker)
    agent.popen.wait(DEADLINE_S)


def test_the_state_folder_is_seen_by_what_is_in_it(agent: AgentProcess, tmp_path: Path) -> None:
    """Another folder of the same name has no such file, or another content."""
    agent.say(make_start(tmp_path, text="other"))
    assert agent.hear(Hello).sees_state is False


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (Spawn("cpu:0"), "the first message is Start"),
        (b"no json\n", "no message of a daemon"),
        (b'{"kind": "hello"}\n', "no message of a daemon"),
    ],
)
def test_it_ends_where_it_is_told_nonsense(agent: AgentProcess, first: object, told: str) -> None:
    """What it can say of it, it says."""
    agent.say(first)
    assert told in agent.end()


def test_what_it_cannot_do_is_told(agent: AgentProcess, tmp_path: Path) -> None:
    """Such as a package that isn't installed there."""
    start = make_start(tmp_path)
    agent.say(Start(**{name: getattr(start, name) for name in start.__slots__} | {"describe": "no.such:module"}))
    assert agent.hear(Refused).reason.startswith("ModuleNotFoundError")


def test_the_end_of_a_span_that_a_worker_does_not_have_is_its_own_fault(tmp_path: Path) -> None:
    """The daemon is told of nonsense of that worker; the others go on."""
    sent: list[FromNode] = []
    agent = Agent(cast(Pipe, SimpleNamespace(send=sent.append)))
    agent._files = Pair(tmp_path).node
    agent._report(("cpu:0", Done("task", 0, 5, 1.0)))
    assert sent == [Broken("cpu:0", "the end of a span it doesn't have")]


def test_a_span_that_fails_has_made_nothing_and_says_why(tmp_path: Path) -> None:
    """It is the job that ends then, with the words of its engine, and not the worker."""
    sent: list[FromNode] = []
    agent, pair = Agent(cast(Pipe, SimpleNamespace(send=sent.append, unsent_bytes=0))), Pair(tmp_path)
    agent._files = pair.node
    pair.deliver(SpanFiles((), (pair.work / "a",)))
    failed = Failed("task", 0, 5, "no_face", "there is no face", "send another")
    agent._report(("cpu:0", failed))
    for _ in range(3):
        agent._send_files()
    assert sent == [Heard("cpu:0", encode(failed).decode())]
    assert pair.courier.finish("cpu:0", failed) == failed


def test_the_end_of_a_worker_is_told_though_its_files_are_not(tmp_path: Path) -> None:
    """Without it the daemon would never start another one."""
    sent: list[FromNode] = []
    agent, pair = Agent(cast(Pipe, SimpleNamespace(send=sent.append, unsent_bytes=0))), Pair(tmp_path)
    agent._files = pair.node
    pair.deliver(SpanFiles((), (pair.work / "a",)))
    agent._report(("cpu:0", Done("task", 0, 5, 1.0)))
    agent._report(("cpu:0", Exited(7, code=1)))
    for _ in range(4):
        agent._send_files()
    assert sent == [Broken("cpu:0", "work/a was not made"), Ended("cpu:0", 7, code=1)]
