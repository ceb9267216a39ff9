"""A node as the daemon sees it, over a link that a test writes and reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.cluster.messages import (
    Absent,
    Beat,
    Broken,
    Ended,
    Figures,
    FromNode,
    Heard,
    Hello,
    Kill,
    Pass,
    Refused,
    Spawn,
    Start,
    decode_to_node,
)
from gpu_pool.cluster.node import MAX_DEVICES, RECHECK_S, Node, NodeTimes
from gpu_pool.types import Done, Exited, Progress, ProtocolError, Ready, RunSpan
from gpu_pool.wire import encode, encode_any
from tests.gpu_pool.nodes import FACTS, make_start

TIMES = NodeTimes(beat_s=1.0, fence_s=8.0, lost_s=10.0, first_s=60.0, retry_s=5.0)
CPU = Figures("cpu:0", "cpu", name="CPU")
CARD = Figures("GPU-1/2", "cuda", total_bytes=1 << 30, free_bytes=1 << 29, card="GPU-1", age_s=0.5)


class ScriptedLink:
    """A link whose other end is a test."""

    def __init__(self) -> None:
        self.incoming: list[bytes] = []
        self.sent: list[bytes] = []
        self.is_closed = False

    def fileno(self) -> int:
        raise NotImplementedError

    def send(self, data: bytes) -> bool:
        self.sent += [line for line in data.split(b"\n") if line]
        return True

    def receive(self) -> bytes | None:
        return self.incoming.pop(0) if self.incoming else None

    def explain_end(self) -> str:
        return "no route to host"

    def close(self, wait_s: float = 0.0) -> None:  # noqa: ARG002  as a real one
        self.is_closed = True


class Meeting:
    """A node, its present link, and the clock of the daemon."""

    def __init__(self, folder: Path) -> None:
        self.now_s, self.links, self.refusal = 100.0, [ScriptedLink()], ""
        self.links.clear()
        start = make_start(folder)
        self.node = Node("box2", self.open, lambda: start, facts=FACTS, times=TIMES, clock=lambda: self.now_s)
        self.messages = self.node.serve()

    def open(self) -> ScriptedLink:
        if self.refusal:
            raise OSError(self.refusal)
        self.links.append(ScriptedLink())
        return self.links[-1]

    @property
    def link(self) -> ScriptedLink:
        return self.links[-1]

    def say(self, *messages: FromNode | bytes) -> list[Any]:
        """Have the node say something; return what the pool gets."""
        self.link.incoming += [m if isinstance(m, bytes) else encode_any(m) for m in messages]
        return self.node.serve()

    def pass_time(self, seconds: float) -> list[Any]:
        self.now_s += seconds
        return self.node.serve()

    def get_heard(self) -> list[Any]:
        return [decode_to_node(line) for line in self.link.sent]


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    made = Meeting(tmp_path)
    made.say(Hello(FACTS, sees_state=True), CPU, CARD)
    return made


def start_worker(meeting: Meeting, device: str = "box2/cpu:0") -> None:
    meeting.node.spawn(device, unloaded=False)
    ready = Ready(device.removeprefix("box2/"), 7)
    assert meeting.say(Heard(ready.device, encode(ready).decode())) == [(device, replace(ready, device=device))]


def test_its_devices_and_cards_bear_its_name(meeting: Meeting) -> None:
    """Two machines have a cpu:0 each; figures are as old as the node says."""
    cpu, card = meeting.node.devices()
    assert (cpu.id, cpu.card, cpu.node, cpu.state) == ("box2/cpu:0", "", "box2", "starting")
    assert (card.id, card.card, card.read_at_s) == ("box2/GPU-1/2", "box2/GPU-1", 99.5)


def test_it_is_asked_once_for_what_runs_there(meeting: Meeting) -> None:
    """Start comes first, and only once."""
    assert [type(message) for message in meeting.get_heard()] == [Start]


def test_commands_reach_the_worker_by_the_name_that_it_has_there(meeting: Meeting) -> None:
    """Spawn, a line, and Kill."""
    start_worker(meeting)
    run = RunSpan("task", 0, 5, {"path": "/x"})
    meeting.node.send("box2/cpu:0", run)
    meeting.node.kill("box2/cpu:0")
    assert meeting.get_heard()[1:] == [Spawn("cpu:0"), Pass("cpu:0", encode(run).decode()), Kill("cpu:0")]


def test_reports_come_back(meeting: Meeting) -> None:
    """Progress, a broken protocol and the end, each with the name of the device."""
    start_worker(meeting)
    progress = Progress("task", 0, 5, 3)
    said = meeting.say(Heard("cpu:0", encode(progress).decode()), Broken("cpu:0", "babble"), Ended("cpu:0", 7, code=3))
    assert [message for _, message in said] == [progress, ProtocolError("babble"), Exited(7, code=3)]
    assert {device for device, _ in said} == {"box2/cpu:0"}


LIES = ["", "{}", '{"kind": "done"}', '{"kind":"progress","task":"t","start":1e999}', "[" * 99]


@pytest.mark.parametrize("line", LIES)
def test_a_worker_that_lies_there_is_read_as_one_here(meeting: Meeting, line: str) -> None:
    """The daemon trusts no line of a worker because a node passed it on."""
    start_worker(meeting)
    said = meeting.say(Heard("cpu:0", line))
    assert [type(message) for _, message in said] == [ProtocolError]


@pytest.mark.parametrize(
    "message",
    [
        b"no json\n",
        b'{"kind": "figures", "id": "cpu:1"}\n',
        b'{"kind": "start"}\n',
        b"x" * (8 << 20),
        encode_any(replace(CPU, id="cpu\x1b[2J")),
        encode_any(replace(CPU, id="c" * 300)),
        encode_any(replace(CPU, id="")),
        encode_any(replace(CARD, free_bytes=-1)),
        encode_any(replace(CARD, total_bytes=1 << 60)),
        encode_any(replace(CARD, age_s=-5.0)),
    ],
    ids=range(10),
)
def test_a_node_that_says_what_no_node_says_is_left(meeting: Meeting, message: bytes) -> None:
    """Its workers have ended, its devices are lost, and it is tried again later."""
    start_worker(meeting)
    ((device, ended),) = meeting.say(message)
    assert (device, type(ended), ended.signal) == ("box2/cpu:0", Exited, "SIGKILL")
    assert {device.state for device in meeting.node.devices()} == {"lost"}
    assert meeting.link.is_closed
    assert meeting.node.trouble.startswith("box2 sent what is no message")
    meeting.pass_time(RECHECK_S - 1)
    assert len(meeting.links) == 1
    meeting.pass_time(1)
    assert len(meeting.links) == 2


def test_a_node_that_lies_again_and_again_is_left_alone_for_longer(meeting: Meeting) -> None:
    """Each of its lies interrupts jobs; good work makes up for them."""
    for pause_s in (RECHECK_S, 2 * RECHECK_S, 4 * RECHECK_S):
        meeting.say(b"no json\n")
        meeting.pass_time(pause_s - 1)
        assert meeting.link.is_closed
        meeting.pass_time(1)
        meeting.say(Hello(FACTS, sees_state=True), CPU)
    start_worker(meeting)
    meeting.say(Heard("cpu:0", encode(Done("task", 0, 5, 1.0)).decode()))
    meeting.say(Refused("No space left on device: /far"))
    assert meeting.node.trouble == "box2 can't go on: No space left on device: /far"
    meeting.pass_time(RECHECK_S)
    assert not meeting.link.is_closed


def test_a_node_names_no_end_of_devices(meeting: Meeting) -> None:
    """Their number is bounded."""
    for number in range(MAX_DEVICES - 2):
        meeting.say(replace(CPU, id=f"cpu:{number + 1}"))
    assert not meeting.link.is_closed
    meeting.say(replace(CPU, id="cpu:9999"))
    assert meeting.link.is_closed


def test_nothing_counts_before_hello(tmp_path: Path) -> None:
    """A node whose versions are not known has no devices."""
    meeting = Meeting(tmp_path)
    meeting.say(CPU)
    assert meeting.node.devices() == []
    assert meeting.link.is_closed


def test_a_silent_node_is_lost_after_its_time_and_comes_back(meeting: Meeting) -> None:
    """Its workers have ended then, once; they are not asked for again under the new link."""
    start_worker(meeting)
    assert meeting.pass_time(TIMES.lost_s - 0.1) == []
    ((device, ended),) = meeting.pass_time(0.2)
    assert (device, ended.signal) == ("box2/cpu:0", "SIGKILL")
    assert [device.state for device in meeting.node.devices()] == ["lost", "lost"]
    assert "said nothing for 10 s" in meeting.node.trouble
    assert meeting.pass_time(TIMES.retry_s) == []
    assert meeting.say(Ended("cpu:0", 7), Hello(FACTS, sees_state=True)) == []
    meeting.pass_time(RECHECK_S)
    assert meeting.say(Hello(FACTS, sees_state=True), CPU, CARD) == []
    assert {device.state for device in meeting.node.devices()} == {"starting"}
    assert meeting.node.trouble == ""


def test_a_machine_that_is_waited_for_is_used_when_it_joins(tmp_path: Path) -> None:
    """The program that leads there waits longer than any node may; now and then it is started anew."""
    meeting = Meeting(tmp_path)
    absent = Absent("no living node of the cluster is called b")
    for _ in range(11):
        meeting.pass_time(TIMES.first_s - 5)
        assert meeting.say(absent) == []
        assert meeting.node.trouble == "box2 is not there: no living node of the cluster is called b"
    meeting.pass_time(5)
    assert len(meeting.links) == 2
    meeting.say(absent, Absent("Ray starts the agent of b", is_coming=True))
    assert meeting.node.trouble == "box2 is not there yet: Ray starts the agent of b"
    meeting.say(Hello(FACTS, sees_state=True), CPU)
    assert (meeting.node.trouble, [device.state for device in meeting.node.devices()]) == ("", ["starting"])


def test_signs_of_life_go_both_ways(meeting: Meeting) -> None:
    """One a second from the daemon; one of the node keeps it."""
    for _ in range(30):
        meeting.say(Beat())
        assert meeting.pass_time(1.0) == []
    assert not meeting.link.is_closed
    assert len([one for one in meeting.get_heard() if isinstance(one, Beat)]) == 30
    assert meeting.node.deadline_s - meeting.now_s <= TIMES.beat_s


def test_a_link_that_ends_says_why(meeting: Meeting) -> None:
    """The last line of the program that led there."""
    meeting.say(b"")
    assert meeting.node.trouble == "the link to box2 ended: no route to host"


def test_a_machine_that_cannot_be_reached_is_tried_again(tmp_path: Path) -> None:
    """Every few seconds, and a worker that is asked for meanwhile has ended."""
    meeting = Meeting(tmp_path)
    meeting.say(Hello(FACTS, sees_state=True), CPU)
    meeting.refusal = "No such file or directory: 'ssh'"
    meeting.say(b"")
    meeting.pass_time(TIMES.retry_s)
    assert "can't be reached: No such file" in meeting.node.trouble
    meeting.node.spawn("box2/cpu:0", unloaded=False)
    ((_, ended),) = meeting.pass_time(0.0)
    assert (ended.code, "can't be reached" in ended.log) == (1, True)


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello({**FACTS, "python": "4"}, sees_state=True), "box2 has python 4 instead of 3"),
        (Hello({"musedrop": "1"}, sees_state=True), "box2 has python nothing instead of 3"),
        (Hello(FACTS, sees_state=False), "box2 does not see the state folder"),
    ],
)
def test_a_node_that_differs_is_sick_until_it_does_not(tmp_path: Path, hello: Hello, reason: str) -> None:
    """Its bytes could differ; it is looked at again after a while."""
    meeting = Meeting(tmp_path)
    meeting.say(hello, CPU)
    (device,) = meeting.node.devices()
    assert device.state == "sick"
    assert device.reason.startswith(reason)
    assert meeting.node.trouble == device.reason
    for _ in range(round(RECHECK_S)):
        meeting.say(Beat())
        meeting.pass_time(1.0)
    meeting.pass_time(TIMES.retry_s)
    meeting.say(Hello(FACTS, sees_state=True), CPU)
    assert [device.state for device in meeting.node.devices()] == ["starting"]


def test_a_second_worker_is_refused(meeting: Meeting) -> None:
    """As in a backend of this machine."""
    start_worker(meeting)
    with pytest.raises(ValueError, match="has a worker already"):
        meeting.node.spawn("box2/cpu:0", unloaded=False)


def test_done_of_a_worker_that_has_ended_is_not_told(meeting: Meeting) -> None:
    """Nothing follows Exited."""
    start_worker(meeting)
    late = encode(Done("task", 0, 5, 1.0)).decode()
    said = meeting.say(Ended("cpu:0", 7), Heard("cpu:0", late))
    assert [type(message) for _, message in said] == [Exited]
