"""kill -9 at any moment: every job is finished exactly once."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from functools import partial
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
