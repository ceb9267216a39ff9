"""What a daemon of this release leaves on the disk, to be checked in when the release is made.

`python -m tests.e2e.released ledger FILE` writes a ledger, once for each schema version; `... disk FILE` packs a share
and a state folder whose daemon was killed while it had jobs in every state, once for each release.

The files stay in tests/data for ever: every later release opens them, and finishes their jobs.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.share import Share, until

MEDIA = {"avatar": "face.jpg", "audio": "voice.wav"}
ENDS = {"done": "done", "failed": "failed", "refused": "failed", "cancelled": "cancelled"}


def make_ledger(target: Path) -> None:
    """Write a ledger with jobs in every state but running, by a real daemon whose workers make no pictures."""
    with TemporaryDirectory() as folder:
        share = Share(Path(folder), module="tests.e2e.noop", wait_media_s=3600)
        share.start()
        try:
            finish_some(share)
            (share.inbox / "pause").touch()
            share.drop("queued", **MEDIA)
            share.wait_for("queued", "queued")
            share.stop()
        finally:
            share.end()
        shutil.copyfile(share.state / "jobs.db", target)


def make_disk(target: Path) -> None:
    """Pack the folders of a daemon that was killed with a job that is rendered and one that could not be published."""
    with TemporaryDirectory() as folder:
        share = Share(Path(folder), module="tests.e2e.noop", workers=1, wait_media_s=3600, keep_media_s=3600)
        try:
            share.start()
            finish_some(share)
            requeue_one(share)
            leave_running(share)
        finally:
            share.end()
        with closing(sqlite3.connect(share.state / "jobs.db")) as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for path in (share.state / "daemon.lock", *(share.state / "logs").iterdir()):
            path.unlink()
        with tarfile.open(target, "w:gz") as archive:
            archive.add(share.folder, "share")
            archive.add(share.state, "state")


def finish_some(share: Share) -> None:
    """Jobs that end in every way, and one that waits for its audio."""
    share.put("face.jpg", b"face")
    share.put("voice.wav", b"voice")
    share.drop("waiting", avatar="face.jpg", audio="late.wav")
    share.drop("done", **MEDIA, id="order-1", submitter="anna", priority="high")
    share.drop("failed", **MEDIA, options={"fail": True})
    share.put("refused.json", b"no job")
    share.drop("cancelled", avatar="face.jpg", audio="never.wav")
    share.wait_for("cancelled", "waiting")
    (share.inbox / "cancelled.cancel").touch()
    for name, state in ENDS.items():
        share.wait_for(name, state)
    until((share.failed / "cancelled" / "error.json").exists, 60, share.log)


def requeue_one(share: Share) -> None:
    """A job whose video is lost between two daemons waits to be assembled again, in a queue that is paused."""
    with_outbox_away(share, lambda: drop_unpublished(share, "requeued"))
    for video in (share.folder / ".musedrop" / "staging").glob("*/result.mp4"):
        video.unlink()
    share.start()
    share.wait_for("requeued", "queued")


def leave_running(share: Share) -> None:
    """Of three more jobs one is queued, one is assembled and can't be published, and one has rendered two spans."""
    share.drop("queued", **MEDIA, priority="low")
    share.wait_for("queued", "queued")

    def leave() -> None:
        drop_unpublished(share, "publishing", kill=False)
        share.drop("running", **MEDIA, priority="high", options={"frames": 480, "frame_s": 0.03})
        share.wait_for("running", "queued")
        (share.inbox / "resume").touch()
        until(lambda: share.job("running")["units_done"] > 60, 60, share.log)
        share.kill()

    with_outbox_away(share, leave)


def with_outbox_away(share: Share, act: Callable[[], None]) -> None:
    away = share.outbox.rename(share.outbox.with_name("away"))
    act()
    away.rename(share.outbox)


def drop_unpublished(share: Share, name: str, *, kill: bool = True) -> None:
    """A job that is done but for its result, which has no outbox to go to; then the queue is paused."""
    share.drop(name, **MEDIA, priority="high", options={"frame_s": 0.1})
    share.wait_for(name, "queued", "running")
    (share.inbox / "resume").touch()
    share.wait_for(name, "running")
    (share.inbox / "pause").touch()
    until(lambda: share.job(name)["stage"] == "publish" and share.job(name)["waiting_for"] is not None, 60, share.log)
    if kill:
        share.kill()


if __name__ == "__main__":
    {"ledger": make_ledger, "disk": make_disk}[sys.argv[1]](Path(sys.argv[2]))
