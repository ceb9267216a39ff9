"""Files that go to one node before a span and come back after it, piece by piece, beside all other messages."""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from gpu_pool.cluster.files import HASH, ContentHashes, Receipt, is_file_entry, read_described
from gpu_pool.cluster.messages import CACHE, Bring, Made, Pass, Piece, ToNode, Wants
from gpu_pool.types import Done, Failed, Progress, RunSpan
from gpu_pool.wire import WireError, encode

TELL_S = 1.0


@dataclass(frozen=True, slots=True)
class SpanFiles:
    """The files of a span, all below the roots.

    reads   files and folders; those that aren't there are left out
    makes   without which it isn't done
    may_make   what else comes back if it is made; "folder/*" are new entries of a folder with hashes as names
    """

    reads: tuple[Path, ...] = ()
    makes: tuple[Path, ...] = ()
    may_make: tuple[Path, ...] = ()


ListFiles = Callable[[RunSpan], SpanFiles]


@dataclass(slots=True)
class Delivery:
    """A span on its way to a worker, and what it made on the way back.

    number   of the question which files the node wants
    steps    yields what is sent, None where nothing is yet
    offered  where files are, and their descriptions, by their hashes
    wants    what the node asked for; None before it has
    units    how many are done, as its worker says
    fault    why what was made can't be kept here
    """

    device: str
    run: RunSpan
    files: SpanFiles
    number: int
    told_at_s: float
    steps: Generator[ToNode | None] | None = None
    offered: dict[str, tuple[Path, Any]] = field(default_factory=dict)
    wants: Mapping[str, Any] | None = None
    is_asked: bool = False
    units: int = 0
    fault: OSError | None = None


class Courier:
    """Takes spans with their files to the workers of a node, and back what they make.

    roots       the folders that all files are in, by the names that messages call them by
    list_files  returns what a span reads and makes

    Devices are named as the node does. No method takes longer than reading or writing one piece of a file.
    """

    def __init__(
        self, roots: Mapping[str, Path], list_files: ListFiles, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._roots, self._list_files, self._clock = roots, list_files, clock
        self._hashes = ContentHashes()
        self._going: deque[Delivery] = deque()
        self._spans: dict[str, Delivery] = {}
        self._receipt: Receipt | None = None
        self._receiver: Delivery | None = None
        self._asked = 0
        self._sent_at_s = self._received_at_s = -inf
        self._failed: list[tuple[str, Failed]] = []

    def reset(self) -> None:
        """Forget all, as the link has ended."""
        self._end_receipt()
        self._going.clear()
        self._spans.clear()
        self._failed.clear()

    # to the node -----------------------------------------------------------------------------------------------------

    @property
    def has_step(self) -> bool:
        """Whether `take_step` has something to do now."""
        return bool(self._going) and (not self._going[0].is_asked or self._going[0].wants is not None)

    def send(self, device: str, run: RunSpan) -> None:
        """Take a span to a worker, once its files are there."""
        self._asked += 1
        delivery = Delivery(device, run, self._list_files(run), self._asked, self._clock())
        delivery.steps = self._deliver(delivery)
        self._spans[device] = delivery
        self._going.append(delivery)

    def drop(self, device: str) -> RunSpan | None:
        """Give up a span that its worker hasn't got yet; return it."""
        delivery = next((one for one in self._going if one.device == device), None)
        if delivery is None:
            return None
        self._going.remove(delivery)
        del self._spans[device]
        return delivery.run

    def forget(self, device: str) -> None:
        """Take no more from a worker that has ended, or is to end."""
        self.drop(device)
        delivery = self._spans.pop(device, None)
        if delivery is not None and delivery is self._receiver:
            self._end_receipt()

    def take_step(self) -> ToNode | None:
        """Return what is to be sent next; None: there is more to do before that."""
        delivery = self._going[0]
        self._sent_at_s = self._clock()
        assert delivery.steps is not None  # noqa: S101  `send` has set it
        try:
            message = next(delivery.steps)
        except OSError as error:
            self.drop(delivery.device)
            self._failed.append((delivery.device, build_failed(delivery.run, error)))
            return None
        if isinstance(message, Bring):
            delivery.is_asked = True
        elif isinstance(message, Pass):
            self._going.popleft()
        return message

    def _deliver(self, delivery: Delivery) -> Generator[ToNode | None]:
        entries = dict[str, Any]()
        for path in delivery.files.reads:
            for below, entry in (yield from self._describe(path)).items():
                entries[f"{self._name(path)}/{below}" if below else self._name(path)] = entry
                if is_file_entry(entry):
                    delivery.offered[entry[0]] = (path / below if below else path, entry)
        makes = dict.fromkeys(map(self._name, delivery.files.may_make), False)
        makes |= dict.fromkeys(map(self._name, delivery.files.makes), True)
        yield Bring(delivery.device, delivery.number, entries, makes)
        for digest in delivery.wants or ():
            yield from map(Piece, read_described(*delivery.offered[digest]))
        yield Pass(delivery.device, encode(delivery.run).decode())

    def _describe(self, path: Path) -> Generator[None, None, dict[str, Any]]:
        try:
            return (yield from self._hashes.describe(path))
        except FileNotFoundError:
            if not path.is_relative_to(self._roots[CACHE]):
                raise
            return {}  # removed from the cache to make room

    def _name(self, path: Path) -> str:
        for name, root in self._roots.items():
            if path.is_relative_to(root):
                return f"{name}/{path.relative_to(root).as_posix()}"
        raise ValueError(f"{path} is in no folder that nodes have files of")

    def on_wants(self, wants: Wants) -> None:
        """Go on with a delivery. Raises WireError."""
        delivery = self._going[0] if self._going else None
        if wants.number > self._asked:
            raise WireError("an answer without a question")
        if delivery is None or delivery.number != wants.number:
            return  # it was given up meanwhile
        if not delivery.is_asked or not wants.hashes.keys() <= delivery.offered.keys():
            raise WireError("it wants files that were not offered")
        delivery.wants = wants.hashes

    # from the node ---------------------------------------------------------------------------------------------------

    def on_made(self, made: Made) -> None:
        """Prepare for the pieces of what a span has made. Raises WireError."""
        if self._receipt is not None:
            raise WireError("a file ended early")
        delivery = self._receiver = self._spans.get(made.device)
        if delivery is None or delivery in self._going:
            self._receiver = None
            return  # its worker was killed meanwhile
        target = self._find_target(made.path, delivery.files)
        try:
            self._receipt = Receipt(target, made.files)
            self._take_whole()
        except OSError as error:
            self._give_up(error)

    def _find_target(self, name: str, files: SpanFiles) -> Path:
        """Return the path that is made. Raises WireError where the span makes no such thing."""
        folder, _, last = name.rpartition("/")
        for path in (*files.makes, *files.may_make):
            asked = self._name(path)
            if name == asked and path.name != "*":
                return path
            if asked == f"{folder}/*" and HASH.fullmatch(last):
                return path.with_name(last)
        raise WireError(f"{name[:200]!r} is nothing that the span makes")

    def on_piece(self, piece: Piece) -> None:
        """Write the next piece. Raises WireError."""
        if self._receipt is None:
            return  # of a worker that was killed, or there is no room for it here
        self._received_at_s = self._clock()
        try:
            self._receipt.add(piece.data)
            self._take_whole()
        except OSError as error:
            self._give_up(error)

    def _take_whole(self) -> None:
        if self._receipt is not None and self._receipt.is_whole:
            self._receipt.install(is_locked=self._receipt.target.is_relative_to(self._roots[CACHE]))
            self._receipt = self._receiver = None

    def _give_up(self, error: OSError) -> None:
        if self._receiver is not None:
            self._receiver.fault = error
        self._end_receipt()

    def _end_receipt(self) -> None:
        if self._receipt is not None:
            self._receipt.discard()
        self._receipt = self._receiver = None

    def finish(self, device: str, end: Done | Failed) -> Done | Failed:
        """Return how a span has ended, now that all is here that it made. Raises WireError where something isn't."""
        if any(one.device == device for one in self._going):
            raise WireError("the end of a span that was not sent yet")
        delivery = self._spans.pop(device, None)
        if delivery is None:
            return end
        if self._receipt is not None and self._receiver is delivery:
            raise WireError("a file ended early")
        if delivery.fault is not None:
            return build_failed(delivery.run, delivery.fault)
        missing = [path for path in delivery.files.makes if not path.exists()]
        if isinstance(end, Done) and missing:
            raise WireError(f"{self._name(missing[0])} was not sent")
        return end

    def note_units(self, device: str, progress: Progress) -> None:
        """Remember how far a span is, to say so while files are on their way."""
        if device in self._spans:
            self._spans[device].units, self._spans[device].told_at_s = progress.units_done, self._clock()

    def take_reports(self) -> list[tuple[str, Failed | Progress]]:
        """Return what the pool is told: spans that can't be sent, and once a second those whose files move.

        Those that wait behind others move with them; where nothing moves, the pool sees a stalled worker.
        """
        found: list[tuple[str, Failed | Progress]] = [*self._failed]
        self._failed.clear()
        now_s = self._clock()
        moves = [(delivery, self._sent_at_s) for delivery in self._going]
        if self._receiver is not None:
            moves.append((self._receiver, self._received_at_s))
        for delivery, moved_at_s in moves:
            if now_s - delivery.told_at_s >= TELL_S and moved_at_s > delivery.told_at_s:
                delivery.told_at_s, run = now_s, delivery.run
                found.append((delivery.device, Progress(run.task, run.start, run.stop, delivery.units)))
        return found


def build_failed(run: RunSpan, error: OSError) -> Failed:
    """Return the end of a span whose files can't be read or written here, in the words of a worker of this machine."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = "the disk filled up while files of a machine were written"
        hint = "free some space, or move the state folder to a larger disk; the job goes on where it stopped"
        return Failed(run.task, run.start, run.stop, "disk_full", message, hint, retry=True)
    return Failed(run.task, run.start, run.stop, "internal", f"{type(error).__name__}: {error}", retry=True)
