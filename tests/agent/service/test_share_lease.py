"""One daemon for each share: who holds the lease, who may take it over, and who has to stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.service import share_lease
from agent.service.share_lease import CONFIRM_S, PATIENCE_S, RENEW_S, ShareLease, ShareTaken
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import a_ledger


class Desk:
    """A share, and daemons of it, each with a state of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock = root, FakeClock()
        self.file = root / "share" / ".musedrop" / "lease"
        self.file.parent.mkdir(parents=True)

    def make(self, state: str = "state") -> ShareLease:
        (self.root / state).mkdir(exist_ok=True)
        ledger = a_ledger(self.root / state)
        return ShareLease(self.root / "share", self.file, self.root / state, ledger, self.clock)

    def read(self) -> dict[str, Any]:
        return dict(json.loads(self.file.read_bytes()))

    def write(self, **keys: Any) -> None:
        """Write the lease of another daemon; the keys that are not given are those of this machine."""
        lease = self.read() | {"state": "another"} | keys
        self.file.write_text(json.dumps(lease))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def dead_pid() -> int:
    """Return the number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_new_share_is_ours_at_once_and_the_lease_is_renewed(desk: Desk) -> None:
    """The content changes when a renewal is due, and not before."""
    lease = desk.make()
    assert lease.check() == ""
    assert lease.is_held
    first = desk.read()
    assert (first["pid"], first["host"], first["boot"]) == (os.getpid(), os.uname().nodename, "boot-1")
    desk.clock.now += RENEW_S / 2
    assert lease.check() == ""
    assert desk.read() == first
    desk.clock.now += RENEW_S
    assert lease.check() == ""
    assert desk.read()["renewal"] != first["renewal"]


def test_the_same_state_need_not_wait(desk: Desk) -> None:
    """After a kill, a crash of the machine or a change of its name: its lock says that the earlier daemon has ended."""
    desk.make().check()
    desk.clock.boot = "boot-2"
    again = desk.make()
    assert again.check() == ""
    assert desk.read()["boot"] == "boot-2"


def test_a_copy_of_the_state_is_another_one(desk: Desk) -> None:
    """Its ledger holds the same id, at another path."""
    desk.make().check()
    (desk.root / "state").rename(desk.root / "copy")
    desk.write(pid=os.getpid(), state=desk.read()["state"])
    with pytest.raises(ShareTaken, match="is served by another daemon, process"):
        desk.make("copy").check()


def test_a_living_daemon_of_this_machine_keeps_the_share(desk: Desk) -> None:
    """The second one is refused at once, and the lease is as it was."""
    desk.make().check()
    before = desk.file.read_bytes()
    with pytest.raises(ShareTaken, match=f"process {os.getpid()} on .*: stop that one first"):
        desk.make("second").check()
    assert desk.file.read_bytes() == before


@pytest.mark.parametrize("change", ["ended", "number used again"])
def test_a_dead_daemon_of_this_machine_is_followed_at_once(desk: Desk, change: str) -> None:
    """Its process is gone, or is one that was started later."""
    desk.make().check()
    if change == "ended":
        desk.write(pid=dead_pid())
    else:
        desk.write(started="1")
    lease = desk.make("second")
    assert lease.check() == ""
    assert lease.is_held


OTHERS: list[dict[str, Any]] = [
    {"host": "far", "boot": "far-boot"},
    {"boot": "boot-0"},
    {"pid_space": "pid:[1]"},
    {"pid_space": "pid:[1]", "pid": 1},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_machine_is_watched_and_refuses_when_it_renews(desk: Desk, other: dict[str, Any]) -> None:
    """Its clock says nothing, its content does: one change is enough, however long it takes."""
    desk.make().check()
    desk.write(**other)
    lease = desk.make("second")
    assert "waiting to see whether it is alive" in lease.check()
    desk.clock.now += PATIENCE_S - 1
    assert "waiting" in lease.check()
    assert not lease.is_held
    desk.write(**other, renewal="next")
    os.utime(desk.file, (1, 1))
    with pytest.raises(ShareTaken, match="is served by another daemon"):
        lease.check()


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_machine_that_is_silent_is_followed(desk: Desk, other: dict[str, Any]) -> None:
    """After the patience the lease is taken over, and confirmed before the share is used."""
    desk.make().check()
    desk.write(**other)
    lease = desk.make("second")
    lease.check()
    desk.clock.now += PATIENCE_S
    assert "being taken over" in lease.check()
    desk.clock.now += CONFIRM_S / 2
    assert "being taken over" in lease.check()
    assert not lease.is_held
    desk.clock.now += CONFIRM_S
    assert lease.check() == ""
    assert lease.is_held


def test_of_two_that_take_over_at_once_one_has_the_share(desk: Desk) -> None:
    """The last one to write confirms its lease; the other one ends before it has used the share."""
    desk.make().check()
    desk.write(host="far", boot="far-boot")
    one, two = desk.make("one"), desk.make("two")
    one.check()
    two.check()
    desk.clock.now += PATIENCE_S
    one.check()
    desk.write(host="other", boot="other-boot")
    desk.clock.now += CONFIRM_S
    with pytest.raises(ShareTaken):
        one.check()
    with pytest.raises(ShareTaken):
        two.check()


def test_a_holder_that_was_silent_for_long_finds_its_lease_taken(desk: Desk) -> None:
    """A machine that slept: its next check ends it, and the new holder's lease stays."""
    lease = desk.make()
    lease.check()
    desk.write(host="far", boot="far-boot")
    desk.clock.uptime_ms += round(1000 * RENEW_S)
    before = desk.file.read_bytes()
    with pytest.raises(ShareTaken, match=r"taken over by another daemon, process \d+ on far: this one stops"):
        lease.check()
    lease.release()
    assert desk.file.read_bytes() == before


def test_a_lease_that_is_gone_is_written_again(desk: Desk) -> None:
    """A person has deleted it."""
    lease = desk.make()
    lease.check()
    desk.file.unlink()
    desk.clock.now += RENEW_S
    assert lease.check() == ""
    assert desk.file.exists()


def test_a_daemon_that_ends_leaves_the_share_to_any(desk: Desk) -> None:
    """The next one begins at once, whatever its machine; the file keeps its place on a full disk."""
    lease = desk.make()
    lease.check()
    size = desk.file.stat().st_size
    lease.release()
    assert desk.file.stat().st_size == size
    assert desk.make("second").check() == ""


@pytest.mark.parametrize("text", ["{", "[]", '{"host": 1}', "\xff", '{"pid": -1}', "[" * 9000], ids=len)
def test_a_lease_that_cannot_be_read_is_watched(desk: Desk, text: str) -> None:
    """It may be one that is just being written, or of a later release."""
    desk.file.write_bytes(text.encode("latin-1"))
    lease = desk.make()
    assert "waiting" in lease.check()
    desk.clock.now += PATIENCE_S
    assert "being taken over" in lease.check()


@pytest.mark.parametrize("make_odd", [lambda path: path.mkdir(), lambda path: path.symlink_to("/proc/version")])
def test_a_lease_that_is_no_file_is_an_error_of_the_share(desk: Desk, make_odd: Callable[[Path], None]) -> None:
    """No link is followed."""
    make_odd(desk.file)
    with pytest.raises(OSError, match=r"directory|symbolic|not a regular"):
        desk.make().check()


def test_a_process_that_is_hidden_from_this_user_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mount of /proc with hidepid shows only own processes."""
    monkeypatch.setattr(share_lease, "PROC", tmp_path)
    assert share_lease.is_running(os.getpid(), "1")
    assert share_lease.find_pid_space() == ""
