"""A look at a node for people: whether it is reached, what it has, and how fast the way there is."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gpu_pool.cluster.link import Link
from gpu_pool.cluster.messages import (
    MAX_NODE_LINE_BYTES,
    Absent,
    Figures,
    FromNode,
    Hello,
    MessageReader,
    Probe,
    Probed,
    Refused,
    Start,
    decode_from_node,
)
from gpu_pool.wire import WireError, encode_any

T = TypeVar("T", Hello, Probed)
SHORT_PROBES, LONG_PROBES = 5, 8
LONG_CHARS, LONG_S = 1 << 20, 5.0


class NodeSilent(Exception):
    """The node can't be used; the message says why."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a look at a node found.

    trouble       why it can't be reached, "" if it is; the rest is empty then
    facts         what must be equal on all machines, as it is there
    sees_state    whether it sees the state folder
    devices       its devices
    round_trip_s  median of the way there and back
    clock_s       how far its clock is ahead of ours
    down_bytes_s, up_bytes_s    bytes a second to the node and from it
    """

    trouble: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    sees_state: bool = False
    devices: tuple[Figures, ...] = ()
    round_trip_s: float = 0.0
    clock_s: float = 0.0
    down_bytes_s: float = 0.0
    up_bytes_s: float = 0.0


class NodeProbe:
    """Looks at one node over a link, which it closes. No worker is started there."""

    def __init__(self, link: Link, start: Start, timeout_s: float) -> None:
        self._link, self._start = link, start
        self._until_s = time.monotonic() + timeout_s
        self._reader = MessageReader[FromNode](decode_from_node, MAX_NODE_LINE_BYTES)
        self._waited_for = ""
        self._devices: dict[str, Figures] = {}

    def run(self) -> NodeReport:
        """Return what was found; a node that can't be used is a trouble in it."""
        try:
            self._send(encode_any(self._start))
            hello = self._wait_for(Hello)
            if hello.trouble:
                raise NodeSilent(hello.trouble)
            trips = sorted(self._measure(0, 0) for _ in range(SHORT_PROBES))
            round_trip_s, clock_s = trips[len(trips) // 2]
            down_bytes_s, up_bytes_s = self._measure_speed(LONG_CHARS, 0), self._measure_speed(0, LONG_CHARS)
        except (NodeSilent, WireError) as error:
            return NodeReport(trouble=str(error))
        finally:
            self._link.close(1.0)
        return NodeReport(
            facts=hello.facts,
            sees_state=hello.sees_state,
            devices=tuple(self._devices.values()),
            round_trip_s=round_trip_s,
            clock_s=clock_s,
            down_bytes_s=down_bytes_s,
            up_bytes_s=up_bytes_s,
        )

    def _measure_speed(self, sent_chars: int, answer_chars: int) -> float:
        """Return bytes a second, of one long message where the way is slow, and of several where it is not."""
        count = took_s = 0.0
        while count < LONG_PROBES and took_s < LONG_S:
            took_s += self._measure(sent_chars, answer_chars)[0]
            count += 1
        return count * (sent_chars + answer_chars) / took_s

    def _measure(self, sent_chars: int, answer_chars: int) -> tuple[float, float]:
        """Return how long an answer took, and how far the node's clock is ahead."""
        began_s, at_s = time.monotonic(), time.time()
        self._send(encode_any(Probe(answer_chars, "x" * sent_chars)))
        answer = self._wait_for(Probed)
        took_s = time.monotonic() - began_s
        return took_s, answer.at_s - (at_s + took_s / 2)

    def _send(self, data: bytes) -> None:
        while not self._link.send(data):
            data = b""
            self._select(write=True)

    def _wait_for(self, kind: type[T]) -> T:
        while True:
            for message in self._receive():
                if isinstance(message, Refused) or (isinstance(message, Absent) and not message.is_coming):
                    raise NodeSilent(message.reason)
                if isinstance(message, Absent):
                    self._waited_for = f": {message.reason}"
                if isinstance(message, kind):
                    return message
            self._select()

    def _receive(self) -> list[FromNode]:
        data = self._link.receive()
        if data == b"":
            raise NodeSilent(self._link.explain_end() or "the link ended")
        messages = list(self._reader.feed(data or b""))
        self._devices |= {message.id: message for message in messages if isinstance(message, Figures)}
        return messages

    def _select(self, *, write: bool = False) -> None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise NodeSilent(f"it doesn't answer in time{self._waited_for}")
        select.select([self._link], [self._link] if write else [], [], left_s)
