"""Messages between the daemon and the agent of a node, as JSON lines; bytes of files follow theirs as they are.

Lines of workers pass through as texts: the daemon reads them by the same rules as those of its own workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from gpu_pool.cluster.files import PIECE_BYTES
from gpu_pool.types import DeviceKind, DeviceState
from gpu_pool.wire import MAX_LINE_BYTES, WireError, build_schemas, decode_own, decode_strange, encode_any

MAX_NODE_LINE_BYTES = 6 * MAX_LINE_BYTES + (64 << 10)
"""A report of a worker inside of another line, each byte of it written as an escape."""

Message = TypeVar("Message")

CACHE = "cache"
"""The name of the root that all workers of a node share; each has a folder of its own in the place of others."""

# from the daemon to a node -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The first message: what the node's workers run, and where.

    handler           "package.module:factory", which the workers open
    options           for each kind of device what the handler gets; `unloaded_options` are added
                      for a worker that loads no model before it has a span
    cpu_workers       how many workers without a card; `only`, `exclude` and `workers` choose cards
    log_dir           the folder for the logs of its workers
    describe          "package.module:function" that returns what must be equal on all machines, of the options of
                      workers without a card
    shared_file       a file that the daemon has written, and its content: the node reads it to show that it
                      sees the same folders
    beat_s, fence_s   seconds between two signs of life, and without one after which the node ends its workers
    folder            where the node keeps files of jobs, which are brought to it; "": it sees those of the daemon
    roots             the folders of the daemon that such files are in, by the name that messages call them by
    content_bytes     how much the node keeps of what was brought
    """

    handler: str
    options: Mapping[str, Any]
    unloaded_options: Mapping[str, Any]
    cpu_workers: int
    cards: Mapping[str, Any]
    log_dir: str
    describe: str
    shared_file: str
    shared_text: str
    beat_s: float
    fence_s: float
    folder: str = ""
    roots: Mapping[str, Any] = field(default_factory=dict)
    content_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker. `walls` is the JSON of what it may do, "" for anything."""

    device: str
    unloaded: bool = False
    walls: str = ""


@dataclass(frozen=True, slots=True)
class Bring:
    """Have these files for the next span of a worker, whose line follows the pieces; the answer is Wants.

    number   of the question
    files    each file and folder, as `files` describes them, by its path below the name of a root
    makes    paths of what the span makes, which come back, and whether it isn't done without: "work/1/parts/1.mp4";
             or of a folder in which new entries do: "cache/*"
    """

    device: str
    number: int
    files: Mapping[str, Any]
    makes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of a file that is on its way. In both directions, one file after the other."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """The line of a piece: so many bytes follow it."""

    size: int


@dataclass(frozen=True, slots=True)
class Pass:
    """Give a worker a line."""

    device: str
    line: str


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL a worker and its programs."""

    device: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Answer with so many characters: how far away is the node, and how fast is the way there?"""

    answer_chars: int
    data: str = ""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, in both directions."""


# from a node to the daemon -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The answer to Start.

    facts       what `describe` returned
    sees_state  whether the shared file was read
    trouble     why it can't be used now, "" if it can
    """

    facts: Mapping[str, Any]
    sees_state: bool
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """A device of the node, as in `Device`, when it is new or has changed; `age_s` is how old its figures are."""

    id: str
    device_kind: DeviceKind
    name: str = ""
    total_bytes: int = 0
    free_bytes: int = 0
    state: DeviceState = "starting"
    reason: str = ""
    card: str = ""
    held_bytes: int = 0
    age_s: float = 0.0
    temperature_c: int | None = None
    load_percent: int | None = None
    power_w: int | None = None


@dataclass(frozen=True, slots=True)
class Wants:
    """The answer to Bring: the hashes of what isn't there yet, in the order in which pieces are expected."""

    number: int
    hashes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A file or folder that a span has made; its pieces follow, and then the end of the span."""

    device: str
    path: str
    files: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """A line that a worker sent."""

    device: str
    line: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A worker sent something that is no message."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker has ended; the fields are those of Exited."""

    device: str
    pid: int
    code: int = 0
    signal: str = ""
    log: str = ""
    out_of_memory: bool = False
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Probed:
    """The answer to Probe, with the time of the node's clock in seconds since 1970."""

    at_s: float
    data: str


@dataclass(frozen=True, slots=True)
class Absent:
    """The program that leads to the node waits for it. It says so again and again, before all other messages.

    is_coming   whether the node has been found, and its agent is being started
    """

    reason: str
    is_coming: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The node can't do what it was asked to, and ends."""

    reason: str


ToNode = Start | Spawn | Bring | Piece | Pass | Kill | Probe | Beat
FromNode = Hello | Figures | Wants | Made | Piece | Heard | Broken | Ended | Probed | Absent | Refused | Beat
_TO_NODE = build_schemas(Start, Spawn, Bring, Block, Pass, Kill, Probe, Beat)
_FROM_NODE = build_schemas(Hello, Figures, Wants, Made, Block, Heard, Broken, Ended, Probed, Absent, Refused, Beat)


def encode_piece(piece: Piece) -> bytes:
    """Return its line and its bytes."""
    return encode_any(Block(len(piece.data))) + piece.data


def decode_to_node(line: bytes) -> ToNode | Block:
    """Parse a line from the daemon; WireError if it is not one of its messages."""
    return cast(ToNode | Block, decode_own(line, _TO_NODE))


def decode_from_node(line: bytes) -> FromNode | Block:
    """Parse a line from a node; WireError if it is not one of its messages."""
    return cast(FromNode | Block, decode_strange(line, _FROM_NODE))


class MessageReader(Generic[Message]):
    """Cuts a stream of bytes into messages: those that `decode` makes of lines, and pieces.

    WireError as soon as a line is longer than `max_line_bytes`, if that is given, or is no message.
    """

    def __init__(self, decode: Callable[[bytes], Message | Block], max_line_bytes: int | None) -> None:
        self._decode, self._max_line_bytes = decode, max_line_bytes
        self._rest = bytearray()
        self._missing_bytes = 0

    def feed(self, data: bytes) -> Iterator[Message | Piece]:
        """Yield the messages that `data` completes."""
        at = 0
        while at < len(data):
            if self._missing_bytes:
                at = self._add(data, at, at + self._missing_bytes)
                if not self._missing_bytes:
                    yield Piece(self._take())
                continue
            end = data.find(b"\n", at)
            self._rest += data[at : end if end >= 0 else None]
            if self._max_line_bytes is not None and len(self._rest) > self._max_line_bytes:
                raise WireError(f"a line longer than {self._max_line_bytes} bytes")
            if end < 0:
                return
            at, message = end + 1, self._decode(self._take())
            if not isinstance(message, Block):
                yield message
            elif 0 < message.size <= PIECE_BYTES:
                self._missing_bytes = message.size
            else:
                raise WireError("a piece of a file of a wrong length")

    def _add(self, data: bytes, start: int, stop: int) -> int:
        self._rest += data[start:stop]
        self._missing_bytes -= min(stop, len(data)) - start
        return min(stop, len(data))

    def _take(self) -> bytes:
        whole = bytes(self._rest)
        self._rest.clear()
        return whole
