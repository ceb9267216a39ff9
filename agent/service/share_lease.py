"""Which daemon serves the share: its lease is a small file beside the share's id, which it renews.

Two daemons with states of their own would publish every job twice. Neither clocks nor locks of another machine can be
trusted over NFS and SMB: its lease is dead when its content has not changed for a while, as the one who waits counts.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.clock import Clock
from agent.errors import UserError
from agent.fs import read_regular, swap_bytes
from agent.ledger.ledger import Ledger

log = logging.getLogger("musedrop")

RENEW_S = 10.0
PATIENCE_S = 60.0
"""After so long without a change the daemon of another machine counts as dead: that is four renewals at least."""
CONFIRM_S = 2.0
"""After a dead lease was taken over, a second one who did the same would be seen within this time."""
MAX_BYTES = 4096
HOST = re.compile(r"[\w.-]{1,255}")
STATE_KEY = "state_id"
TAKING_OVER = "the share was left by another daemon and is being taken over"
PROC = Path("/proc")


class ShareTaken(UserError):
    """Another daemon serves the share; the message names it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A daemon: its machine and the start of that, its process, and its state folder.

    `pid_space` names the processes among which `pid` is one, and `started` tells it from a later one of its number.
    """

    host: str
    boot: str
    pid_space: str
    pid: int
    started: str
    state: str

    def is_dead(self, other: Holder) -> bool | None:
        """Whether another daemon has ended for sure; None where this one can't know.

        There is one daemon for each state folder, so this one has taken the place of an earlier one with its own.
        """
        if other.state == self.state:
            return True
        can_see = self.boot and self.pid_space and (other.boot, other.pid_space) == (self.boot, self.pid_space)
        return not is_running(other.pid, other.started) if can_see else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class ShareLease:
    """The lease of this daemon. It is checked before each use of the share, and read once in `RENEW_S`."""

    def __init__(self, share: Path, file: Path, state: Path, ledger: Ledger, clock: Clock) -> None:
        self._share, self._file, self._state, self._ledger, self._clock = share, file, state, ledger, clock
        self._content = b""
        self._due_ms, self._is_confirmed = 0, False
        self._watched, self._since_s = b"", 0.0

    def check(self) -> str:
        """Renew the lease if that is due; return why the share can't be used yet, "" where it can.

        Raises ShareTaken where another daemon serves the share, or OSError.
        """
        if self._content and self._clock.boot_ms() < self._due_ms:
            return "" if self._is_confirmed else TAKING_OVER
        found = read_lease(self._file)
        if self._content and found == self._content:
            self._is_confirmed = True
            self._take(found)
            return ""
        other = parse_holder(found)
        is_free = self._describe_self().is_dead(other) if other is not None else None if found.strip() else True
        if is_free is False or (is_free is None and self._content):
            raise ShareTaken(self._say_lost(other) if self._content else self._say_taken(other))
        if is_free is None and not self._has_expired(found):
            return f"{other or 'another daemon'} was the last to serve the share: waiting to see whether it is alive"
        return self._take_over(found, must_confirm=is_free is None)

    @property
    def is_held(self) -> bool:
        """Whether the share is ours, as far as is known."""
        return self._is_confirmed

    def release(self) -> None:
        """Leave the share to the next daemon, if it is ours."""
        if self._content:
            blanks = b" " * len(self._content)  # it keeps its place on a full disk
            with suppress(OSError):
                swap_bytes(self._file, self._content, blanks, MAX_BYTES)
        self._content, self._is_confirmed = b"", False

    def _has_expired(self, found: bytes) -> bool:
        """Whether the lease of another machine has not changed for `PATIENCE_S`. Raises ShareTaken where it has."""
        now_s = self._clock.now_s()
        if self._watched and found != self._watched:
            raise ShareTaken(self._say_taken(parse_holder(found)))
        if not self._watched:
            self._watched, self._since_s = found, now_s
        return now_s - self._since_s >= PATIENCE_S

    def _take_over(self, found: bytes, *, must_confirm: bool) -> str:
        if not self._take(found):
            return "another daemon has just begun to serve the share"
        self._watched, self._is_confirmed = b"", not must_confirm
        if not must_confirm:
            return ""
        log.warning("the share %s was left by %s: taken over", self._share, parse_holder(found) or "another daemon")
        self._due_ms = self._clock.boot_ms() + round(1000 * CONFIRM_S)
        return TAKING_OVER

    def _take(self, found: bytes) -> bool:
        """Write the lease anew where it still is what was found; return whether it is ours then."""
        lease = asdict(self._describe_self()) | {"renewal": secrets.token_hex(8)}
        content = json.dumps(lease).encode() + b"\n"
        if not swap_bytes(self._file, found, content, MAX_BYTES):
            return False
        self._content, self._due_ms = content, self._clock.boot_ms() + round(1000 * RENEW_S)
        return True

    def _describe_self(self) -> Holder:
        pid, host = os.getpid(), os.uname().nodename
        state_id = self._ledger.recall(STATE_KEY)
        if state_id is None:
            state_id = secrets.token_hex(8)
            self._ledger.remember(STATE_KEY, state_id)
        state = f"{host}:{self._state}:{state_id}"  # a copy of the folder is another one
        return Holder(host, self._clock.boot_id(), find_pid_space(), pid, read_start(pid), state)

    def _say_taken(self, other: Holder | None) -> str:
        return (
            f"the share {self._share} is served by another daemon, {other or 'which has just begun'}: "
            "stop that one first, or give this one a share of its own"
        )

    def _say_lost(self, other: Holder | None) -> str:
        return (
            f"the share {self._share} was taken over by another daemon, {other or 'which has just begun'}: "
            "this one stops; give one of the two a share of its own"
        )


def read_lease(file: Path) -> bytes:
    """Return the content, b"" where there is none. Raises OSError."""
    try:
        return read_regular(file, MAX_BYTES)
    except FileNotFoundError:
        return b""


def parse_holder(content: bytes) -> Holder | None:
    """Return who wrote a lease; None where that can't be read, such as one that is just being written."""
    try:
        found = json.loads(content)
        texts = [found[key] for key in ("host", "boot", "pid_space", "started", "state")]
        host, boot, pid_space, started, state = texts
        pid = found["pid"]
        is_sound = all(isinstance(text, str) for text in texts) and type(pid) is int and 0 < pid < 1 << 31
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Holder(host, boot, pid_space, pid, started, state) if is_sound and HOST.fullmatch(host) else None


# processes ------------------------------------------------------------------------------------------------------------


def find_pid_space() -> str:
    """Return what names the processes that this one can see, "" where that is not known: containers have their own."""
    try:
        return str((PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def read_start(pid: int) -> str:
    """Return when a process was started, in the kernel's count, "" where that can't be read or it has ended."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def is_running(pid: int, started: str) -> bool:
    """Whether the process of that number runs, and is the one that was started then."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, and is another user's
    if not (PROC / str(pid)).exists():
        return True  # hidden from this user
    return read_start(pid) == started
