"""A real daemon over a share that holds every kind of thing in every place at once, with the rights of a user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.odd_entries import KINDS, POWERS, SUFFIXES, put_all_names, put_kind, remove
from tests.share import Share, until

PLACES = ("inbox", "outbox", "failed", "archive", "archive/2026-01-01", "avatars", ".musedrop")
OURS = (".musedrop/claimed", ".musedrop/staging", ".musedrop/trash")
USUAL_S = 60.0
WITHOUT_POWERS = ("setpriv", "--bounding-set", ",".join(f"-{power}" for power in POWERS))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="drops the powers of root"),
]


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    made = Share(tmp_path, module="tests.e2e.noop", wrapper=WITHOUT_POWERS)
    made.start()
    yield made
    made.end()
    remove(tmp_path)


def drop_good(share: Share, name: str) -> None:
    """Drop a job as people do, and wait for it."""
    share.put(f"{name}-face.png", b"face")
    share.put(f"{name}-voice.wav", b"voice")
    share.drop(name, avatar=f"{name}-face.png", audio=f"{name}-voice.wav")
    share.wait_for(name, "done", timeout_s=USUAL_S)


def test_everything_everywhere_at_once(share: Share) -> None:
    """While the daemon runs, and at its next start, good jobs end; what can't be handled is named."""
    for place in sorted((*PLACES, *OURS), key=lambda place: place == "inbox"):  # what it refuses goes to other places
        folder = share.folder / place
        folder.mkdir(exist_ok=True)
        for suffix in SUFFIXES if place == "inbox" else ("", ".json"):
            put_all_names(folder, suffix)
            for number, kind in enumerate(KINDS):
                put_kind(folder, kind, f"-{number}{suffix}")
    drop_good(share, "first")
    until(lambda: "can't be" in str((share.status_file() or {}).get("problems")), 60, share.log)
    until(lambda: bool((share.status_file() or {}).get("ignored")), 40, share.log)
    share.kill()
    share.start()
    drop_good(share, "second")
    assert share.stop() == 0
    share.start()
    drop_good(share, "third")


def test_a_daemon_without_stderr_and_home(share: Share) -> None:
    """Its home can't be read, and nothing is there to log to: the log is a file, and jobs are done."""
    assert share.stop() == 0
    home = share.root / "home"
    home.mkdir(mode=0)
    share.launch_closed(HOME=str(home))
    until(share.is_up, 60, share.log)
    drop_good(share, "hello")
    assert "hello is done" in (share.state / "logs" / "daemon.log").read_text()


def test_media_that_may_not_be_read(share: Share) -> None:
    """The job fails with a code and a hint; others go on; with the right it can be retried."""
    share.put("face.png", b"face")
    path = share.inbox / "voice.wav"
    share.put("voice.wav", b"voice")
    path.chmod(0)
    share.drop("hello", avatar="face.png", audio="voice.wav")
    drop_good(share, "good")
    row = share.wait_for("hello", "failed", timeout_s=60.0)
    assert row["error_code"] == "not_readable"
    assert "chmod" in row["error_hint"]
    path.chmod(0o644)
    (share.inbox / "hello.retry").touch()
    share.wait_for("hello", "done")
