"""Two daemons with states of their own and one share: one of them serves it, the other says why it doesn't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.noop import LEASE_SPEED
from tests.e2e.smb.server import SmbServer
from tests.needs import need
from tests.share import Share, until

FAST = {LEASE_SPEED: "10"}


@pytest.fixture
def share(make_share: Callable[..., Share]) -> Share:
    return make_share(module="tests.e2e.noop")


@pytest.fixture
def second(make_share: Callable[..., Share], share: Share) -> Share:
    """Return a daemon of the same share with another state."""
    made = make_share(module="tests.e2e.noop")
    made.config.write_text(made.config.read_text().replace('share = "share"', f'share = "{share.folder}"'))
    shutil.rmtree(made.folder)
    made.folder, made.inbox, made.outbox, made.failed = share.folder, share.inbox, share.outbox, share.failed
    return made


def wait_for_refusal(daemon: Share) -> str:
    """Wait until the daemon has ended with 2; return what it has said."""
    assert daemon.daemon is not None
    assert daemon.daemon.wait(120) == 2, daemon.log()
    assert "Traceback" not in daemon.log()
    return daemon.log().splitlines()[-1]


def run_pair(share: Share, name: str) -> None:
    share.put(f"{name}.jpg", name.encode())
    share.put(f"{name}.wav", name.encode())
    share.wait_for(name, "done")


def test_a_second_daemon_is_refused_and_may_follow(share: Share, second: Share) -> None:
    """While the first one lives the second ends with a sentence; after a kill or a stop it begins at once."""
    share.start()
    assert share.daemon is not None
    for _ in range(2):
        second.launch()
        said = wait_for_refusal(second)
        assert f"the share {share.folder} is served by another daemon, process {share.daemon.pid} on " in said
    status = share.status_file()
    assert status is not None
    assert status["daemon"]["pid"] == share.daemon.pid
    run_pair(share, "first")
    share.kill()
    second.start()
    run_pair(second, "second")
    share.launch()
    assert "is served by another daemon" in wait_for_refusal(share)
    assert second.stop() == 0
    share.start()
    run_pair(share, "third")
    assert sorted(path.name for path in share.outbox.iterdir()) == ["first", "second", "third"]


def test_a_daemon_that_was_killed_is_back_at_once(share: Share) -> None:
    """Its own lease does not stop it, also not one of an earlier start of the machine."""
    share.start()
    share.kill()
    lease = share.folder / ".musedrop" / "lease"
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {"boot": "earlier", "pid": 1}))
    share.start()
    run_pair(share, "again")
    assert "waiting" not in share.log()
    assert share.stop() == 0


def test_a_daemon_whose_share_was_taken_over_stops_by_itself(share: Share, second: Share) -> None:
    """It publishes nothing any more; its jobs end once, under the other's hand, and it knows that afterwards."""
    share.start(**FAST)
    for name in ("slow", "other"):
        share.put(f"{name}.wav", name.encode())
        share.put(f"{name}-face.jpg", name.encode())
        share.drop(name, avatar=f"{name}-face.jpg", audio=f"{name}.wav", options={"frame_s": 60.0, "frames": 24})
        share.wait_for(name, "running")
    lease = share.folder / ".musedrop" / "lease"
    taken = json.loads(lease.read_text()) | {"host": "asleep", "boot": "elsewhere", "pid": 7, "state": "elsewhere"}
    lease.write_text(json.dumps(taken))
    said = wait_for_refusal(share)
    assert "was taken over by another daemon, process 7 on asleep: this one stops" in said
    share.daemon = None
    assert [share.job(name)["state"] for name in ("slow", "other")] == ["queued", "queued"]
    assert json.loads(lease.read_text()) == taken
    lease.unlink()
    second.start()
    run_pair(second, "pair")
    for name in ("slow", "other"):
        second.wait_for(name, "running")
        second.put(f"{name}.cancel", b"")
        second.error(name)
    assert second.stop() == 0
    share.start()
    assert [share.job(name)["state"] for name in ("slow", "other", "pair")] == ["cancelled", "cancelled", "done"]
    assert [path.name for path in share.outbox.iterdir()] == ["pair"]


@pytest.mark.timeout(300)
def test_a_dead_daemon_of_another_machine_is_followed_after_a_while(share: Share, second: Share) -> None:
    """Its clock may be wrong by years: only that its lease does not change counts."""
    leave_foreign_lease(share)
    second.launch(**FAST)
    until(lambda: "waiting to see whether it is alive" in json.dumps(problems(second)), 60, second.log)
    run_pair(second, "followed")
    assert "was left by process 7 on far: taken over" in second.log()
    assert second.stop() == 0


@pytest.mark.timeout(300)
def test_a_daemon_beyond_smb_is_seen_by_its_renewals(share: Share, second: Share) -> None:
    """Another machine writes its lease through the server of the share, and no lock or clock of it is seen here."""
    need("smbclient", "smbclient")
    lease = leave_foreign_lease(share)
    server = SmbServer(share.root, share.folder)
    try:
        server.wait_until_up()
        second.launch()
        until(lambda: "waiting to see whether it is alive" in json.dumps(problems(second)), 60, second.log)
        renewed = share.root / "renewed"
        renewed.write_text(json.dumps(lease | {"renewal": "next"}))
        server.run(f'put "{renewed}" .musedrop/lease')
        assert "is served by another daemon, process 7 on far" in wait_for_refusal(second)
    finally:
        server.end()


def leave_foreign_lease(share: Share) -> dict[str, Any]:
    """Leave the share as a daemon of another machine does that has crashed, or is alive; return its lease."""
    share.start()
    share.kill()
    path = share.folder / ".musedrop" / "lease"
    lease = json.loads(path.read_text()) | {"host": "far", "boot": "far", "pid": 7, "state": "far"}
    path.write_text(json.dumps(lease))
    return dict(lease)


def problems(daemon: Share) -> list[str]:
    """Return what the daemon logs that its share has; it may not write status.json there."""
    return [line for line in daemon.log().splitlines() if "WARNING" in line or "ERROR" in line]
