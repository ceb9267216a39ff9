"""kill -9 at any moment: every job is finished exactly once."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from threading import Event

import pytest

from tests.share import Share, are_gone, face, until, voice

JOBS = 10
KILLS = 20


@pytest.mark.timeout(400)
def test_kill_9_at_twenty_moments_over_ten_jobs(make_share: Callable[..., Share]) -> None:
    """After many kills, each dropped job has one row, one result and a verified video."""
    share = make_share(keep_media_s=0.0)
    schedule = random.Random(20)
    share.inbox.mkdir(parents=True)
    names = [f"job{n}" for n in range(JOBS)]
    picture, sound = face(), voice(1.4)
    pending = list(names)
    pause = Event()
    for _ in range(KILLS):
        share.start()
        if pending:
            drop(share, pending.pop(), picture, sound)
        workers = share.workers()
        pause.wait(schedule.uniform(0.0, 1.2))
        share.kill()
        until(partial(are_gone, workers), 60, lambda: "workers outlive the daemon")
    share.start()
    share.wait_until_finished(JOBS)
    assert share.stop() == 0
    check(share, names)


def drop(share: Share, name: str, picture: bytes, sound: bytes) -> None:
    """Half of the jobs are pairs, half are job files with media of their own."""
    if name[-1] in "02468":
        share.put(f"{name}.jpg", picture)
        share.put(f"{name}.wav", sound)
        return
    share.put(f"{name}-face.jpg", picture)
    share.put(f"{name}-voice.wav", sound)
    share.drop(name, avatar=f"{name}-face.jpg", audio=f"{name}-voice.wav")


def check(share: Share, names: list[str]) -> None:
    rows = share.rows()
    assert sorted(row["name"] for row in rows) == sorted(names)
    assert {row["state"] for row in rows} == {"done"}, rows
    assert sorted(path.name for path in share.outbox.iterdir()) == sorted(names)
    for row in rows:
        result = share.result(row["name"])
        assert (result["uid"], result["frames"]) == (row["uid"], 35)
    assert not list((share.state / "work").iterdir())
    assert not list((share.folder / ".musedrop" / "claimed").iterdir())
    assert not list((share.folder / ".musedrop" / "staging").iterdir())
    with sqlite3.connect(share.state / "jobs.db") as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    conn.close()


@pytest.mark.parametrize("how", ["move", "copy"])
def test_share_and_state_that_move_keep_their_queue(make_share: Callable[..., Share], how: str) -> None:
    """Queued and waiting jobs end, and a failed one is retried, where the folders are under other names."""
    share = make_share(module="tests.e2e.noop", wait_media_s=600, keep_media_s=3600)
    root = share.root / "clips"
    root.mkdir()
    (root / "far.wav").write_bytes(b"far")
    set_roots(share, root)
    share.start()
    share.put("face.jpg", b"face")
    share.drop("failed", avatar="face.jpg", audio=str(root / "far.wav"), options={"fail": True})
    share.wait_for("failed", "failed")
    until((share.failed / "failed" / "error.json").exists, 30, share.log)
    share.drop("kept", avatar="kept.jpg", audio="kept.wav")
    share.put("kept.jpg", b"kept")
    share.put("kept.wav", b"kept")
    share.wait_for("kept", "done")
    share.put("pause", b"")
    share.drop("queued", avatar="face.jpg", audio=str(root / "far.wav"))
    share.drop("waiting", avatar="face.jpg", audio="late.wav")
    share.put("pair.jpg", b"pair")
    share.put("pair.wav", b"pair")
    for name, state in (("queued", "queued"), ("pair", "queued"), ("waiting", "waiting")):
        share.wait_for(name, state)
    assert share.stop() == 0
    move_folders(share, how)
    set_roots(share, share.root / "new clips", share.root / "new share", share.root / "new state")
    share.start()
    share.put("late.wav", b"late")
    job = share.failed / "failed" / "job.json"
    job.write_text(job.read_text().replace(str(root), str(share.root / "new clips")).replace('"fail": true', ""))
    share.put("failed.retry", b"")
    share.put("resume", b"")
    for name in ("queued", "pair", "waiting", "failed"):
        share.wait_for(name, "done")
    until(lambda: not (share.failed / "failed").exists(), 30, share.log)
    assert [row["name"] for row in share.rows()].count("kept") == 1, "its media are kept, and no pair"


def set_roots(share: Share, root: Path, folder: Path | None = None, state: Path | None = None) -> None:
    """Write the settings of a share: its folders, and one more that jobs may read."""
    lines = [
        line for line in share.config.read_text().splitlines() if not line.startswith(("media_roots", "share", "state"))
    ]
    share.folder, share.state = folder or share.folder, state or share.state
    share.inbox, share.outbox, share.failed = (share.folder / name for name in ("inbox", "outbox", "failed"))
    lines.insert(lines.index("[inbox]") + 1, f'media_roots = ["{root}"]')
    share.config.write_text("\n".join([f'share = "{share.folder}"', f'state = "{share.state}"', *lines, ""]))


def move_folders(share: Share, how: str) -> None:
    """Give all folders new names, by a rename or by a copy that keeps the times."""
    for name in ("share", "state", "clips"):
        target = share.root / f"new {name}"
        if how == "move":
            (share.root / name).rename(target)
        else:
            subprocess.run(["cp", "-a", str(share.root / name), str(target)], check=True)
            shutil.rmtree(share.root / name)


@pytest.mark.parametrize("how", ["backup", "lost wal", "no ledger"])
def test_a_ledger_older_than_the_share_makes_nothing_twice(make_share: Callable[..., Share], how: str) -> None:
    """What was published, has failed and was filed away since is known again, jobs with an id included."""
    share = make_share(module="tests.e2e.noop")
    share.start()
    assert share.stop() == 0
    share.start()
    share.put("pause", b"")
    drop_named(share, "queued")
    drop_named(share, "keyed", id="order-1")
    for name in ("queued", "keyed"):
        share.wait_for(name, "queued")
    backup = share.root / "backup.db"
    with closing(sqlite3.connect(share.state / "jobs.db")) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    share.put("resume", b"")
    drop_named(share, "later", id="order-2")
    drop_named(share, "bad", options={"fail": True})
    for name in ("queued", "keyed", "later"):
        share.wait_for(name, "done")
    share.wait_for("bad", "failed")
    until(lambda: not list(share.inbox.iterdir()), 60, share.log)
    before = {row["name"]: row for row in share.rows()}
    share.kill()
    lose(share.state, how, backup)
    share.start()
    share.wait_until_finished(4)
    after = {row["name"]: row for row in share.rows()}
    for name, row in before.items():
        for key in ("uid", "id", "state", "result", "error_code", "frames", "created_at"):
            assert after[name][key] == row[key], (name, key)
    share.put("resume", b"")
    drop_named(share, "later", id="order-2")
    until((share.outbox / "later-2").exists, 60, share.log)
    assert share.result("later-2")["cached_from"] == "later"
    assert sorted(path.name for path in share.outbox.iterdir()) == ["keyed", "later", "later-2", "queued"]
    assert [path.name for path in share.failed.iterdir()] == ["bad"]


def drop_named(share: Share, name: str, **keys: object) -> None:
    """Drop a job file with media of its own, which are filed away after it."""
    share.put(f"{name}-face.jpg", name.encode())
    share.put(f"{name}-voice.wav", name.encode())
    share.drop(name, avatar=f"{name}-face.jpg", audio=f"{name}-voice.wav", **keys)


def lose(state: Path, how: str, backup: Path) -> None:
    """Lose what the ledger learned last, or all of it."""
    for path in state.glob("jobs.db*"):
        if how != "lost wal" or path.name != "jobs.db":
            path.unlink()
    if how == "backup":
        shutil.copy(backup, state / "jobs.db")


def test_a_damaged_page_is_found_after_a_kill(
    make_share: Callable[..., Share],
) -> None:
    """In an index, which the start itself does not read: one sentence, exit code 2; nothing is lost without it."""
    share = make_share(module="tests.e2e.noop")
    share.start()
    for number in range(40):
        share.drop(f"bad{number}", avatar="", audio="")
    drop_named(share, "good")
    share.wait_until_finished(41)
    until(lambda: len(list(share.failed.iterdir())) == 40 and not list(share.inbox.iterdir()), 60, share.log)
    share.kill()
    ledger = share.state / "jobs.db"
    with closing(sqlite3.connect(ledger)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [page] = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_name'").fetchone()
        [size] = conn.execute("PRAGMA page_size").fetchone()
    with ledger.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    share.launch()
    assert share.daemon is not None
    assert share.daemon.wait(60) == 2
    done = share.musedrop("doctor")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert f"the ledger {ledger} is damaged" in done.stderr
    assert share.log().rpartition("INFO")[2].count("is damaged (") == 1
    assert "Traceback" not in share.log()
    for path in share.state.glob("jobs.db*"):
        path.rename(share.root / path.name)
    share.start()
    share.wait_until_finished(41)
    assert share.job("good")["state"] == "done"
    assert [path.name for path in share.outbox.iterdir()] == ["good"]


def test_faults_of_a_disk_use_up_no_attempt(make_share: Callable[..., Share]) -> None:
    """Jobs of each stage and error wait, say why, and are done when the disk works again."""
    share = make_share(module="tests.e2e.noop")
    (broken := share.root / "broken").touch()
    share.start()
    numbers = (errno.EIO, errno.EDQUOT, errno.ENOSPC, errno.ESTALE, errno.EACCES)
    names = []
    for stage, number in product(("inspect", "prepare", "render", "assemble"), numbers):
        names.append(f"{stage}-{number}")
        fault = {"fault_stage": stage, "fault_errno": number, "fault_while": str(broken)}
        drop_named(share, names[-1], options=fault)
    tried = "SELECT name FROM job_status WHERE attempt > 3"
    until(lambda: {row["name"] for row in share.rows(tried)} == set(names), 200, share.log)
    for name in names:
        reason = os.strerror(int(name.rpartition("-")[2]))
        until(partial(is_waiting_for, share, name, reason), 100, share.log)
    assert "the share or the state has trouble" in json.dumps(share.status_file())
    broken.unlink()
    share.wait_until_finished(len(names))
    assert {share.job(name)["state"] for name in names} == {"done"}


def is_waiting_for(share: Share, name: str, reason: str) -> bool:
    return reason in (share.job(name)["waiting_for"] or "")
