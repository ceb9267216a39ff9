"""The folders that a daemon of an earlier release left when it was killed: this one opens them and ends every job."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.share import ROOT, Share, until

RELEASES = sorted((ROOT / "tests" / "data").glob("release-*.tar.gz"))
KEEP_ALL = "\n[retention]\nrows_days = 0\nfailed_days = 0\narchive_days = 0\n"
"""The jobs of a release become older than any retention."""


def unpack(share: Share, archive: Path) -> None:
    """Copy the folders of a release to where the share is, as if its daemon had just been killed there."""
    with tarfile.open(archive) as tar:
        tar.extractall(share.root, filter="data")
    with share.config.open("a") as settings:
        settings.write(KEEP_ALL)
    with closing(sqlite3.connect(share.state / "jobs.db")) as conn:
        [inputs] = conn.execute("SELECT inputs FROM jobs WHERE name = 'done'").fetchone()
        before, after = inputs.partition("/share/")[0], str(share.root)
        conn.execute(
            "UPDATE jobs SET inputs = replace(inputs, ?, ?), media = replace(media, ?, ?)", [before, after] * 2
        )
        for uid, media in conn.execute("SELECT uid, media FROM jobs").fetchall():
            conn.execute("UPDATE jobs SET media = ? WHERE uid = ?", [follow_copies(media), uid])
        conn.execute("UPDATE jobs SET since_ms = ? WHERE state = 'waiting'", [time.time_ns() // 1_000_000])
        conn.commit()


def follow_copies(media: str) -> str:
    """The media of a row with the inodes and times of the copied files."""
    files = json.loads(media)
    for file in files.values():
        status = os.stat(file["path"])  # noqa: PTH116 - a path of the row
        file |= {"inode": status.st_ino, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    return json.dumps(files)


@pytest.mark.parametrize("archive", RELEASES, ids=lambda path: path.name)
def test_every_job_of_an_earlier_release_ends(make_share: Callable[..., Share], archive: Path) -> None:
    """Waiting, queued, requeued, running and unpublished jobs become done; finished ones stay, and can be retried."""
    share = make_share(module="tests.e2e.noop", wait_media_s=600)
    unpack(share, archive)
    before = {row["name"]: row for row in share.rows()}
    share.start()
    share.put("late.wav", b"late")
    for name in ("waiting", "queued", "requeued", "running", "publishing"):
        row = share.wait_for(name, "done", "failed")
        assert (row["state"], row["waiting_for"], row["device"]) == ("done", None, None), row
        result = share.result(row["result"])
        assert (result["uid"], result["frames"]) == (before[name]["uid"], row["frames"])
        assert (share.outbox / row["result"] / "result.mp4").read_bytes().startswith(b"0-")
    for name in ("done", "failed", "refused"):
        kept = share.job(name)
        assert {column: kept[column] for column in before[name]} == before[name]
    assert share.job("publishing")["attempt"] == before["publishing"]["attempt"], (
        "its video is published, not made again"
    )
    assert share.job("running")["attempt"] == before["running"]["attempt"] + 1
    assert share.error("failed")["code"] == "bad_option"

    share.put("face.jpg", b"face")
    share.put("never.wav", b"never")
    share.put("cancelled.retry", b"")
    assert share.wait_for("cancelled", "done")["result"] == "cancelled"
    until(lambda: {path.name for path in share.failed.iterdir()} == {"failed", "refused"}, 60, share.log)
    until(lambda: not list(share.inbox.iterdir()), 60, lambda: f"left: {[p.name for p in share.inbox.iterdir()]}")
    assert share.stop() == 0
    assert not list((share.state / "work").iterdir())
    assert not list((share.folder / ".musedrop" / "staging").iterdir())
    attempts = share.rows("SELECT outcome FROM job_attempts WHERE name = 'running' ORDER BY attempt")
    assert [row["outcome"] for row in attempts] == ["interrupted", "done"]
    assert share.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_there_is_a_disk_of_the_first_release() -> None:
    """A new release adds one: `python -m tests.e2e.released disk tests/data/release-N.tar.gz`."""
    assert "release-0.1.0.tar.gz" in [path.name for path in RELEASES]
