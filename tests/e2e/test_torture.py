"""Kill schedules: daemon and workers die, freeze and stop at random moments, from a seed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from threading import Event

import pytest

from tests.e2e.oracle import check
from tests.share import Share, alive, until

SCHEDULES = int(os.environ.get("MUSEDROP_SCHEDULES", "40"))
JOBS = 8
BLOWS = 6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_schedule_of_kills(make_share: Callable[..., Share], seed: int) -> None:
    """Whatever is struck when, each of eight jobs ends once, and what is done has one result."""
    dice = random.Random(seed)
    share = make_share(module="tests.e2e.noop", settle_s=0.05, stall_s=1.0)
    names = [f"job{n}" for n in range(JOBS)]
    share.launch()
    pending = list(names)
    pause, workers = Event(), set[int]()
    for _ in range(BLOWS):
        for name in [pending.pop() for _ in range(min(len(pending), dice.randint(1, 3)))]:
            drop(share, name, dice)
        pause.wait(dice.uniform(0.0, 0.6))
        workers.update(share.workers())
        strike(share, dice)
    for name in pending:
        drop(share, name, dice)
    until(share.is_up, 60, share.log)
    share.wait_until_finished(JOBS)
    until(lambda: not list(share.inbox.iterdir()), 60, lambda: f"left in the inbox: {os.listdir(share.inbox)}")  # noqa: PTH208
    workers.update(share.workers())
    assert share.stop() == 0
    until(lambda: not any(map(alive, workers)), 60, lambda: f"left: {list(filter(alive, workers))}")
    check(share, names, list(workers))


def drop(share: Share, name: str, dice: random.Random) -> None:
    """A pair, or a job file whose media may come later than itself."""
    if dice.random() < 0.5:
        share.put(f"{name}.png", name.encode())
        share.put(f"{name}.wav", name.encode())
        return
    job = {
        "avatar": f"{name}-a.png",
        "audio": f"{name}-b.wav",
        "options": {"frame_s": 0.004, "frames": dice.choice((1, 20, 48))},
        "preview_first": dice.random() < 0.5,
    }
    steps: list[Callable[[], None]] = [
        lambda: share.put(f"{name}-a.png", name.encode()),
        lambda: share.put(f"{name}-b.wav", name.encode()),
        lambda: share.drop(name, **job),
    ]
    dice.shuffle(steps)
    for step in steps:
        step()


def strike(share: Share, dice: random.Random) -> None:
    """Kill or stop the daemon and start another, or kill or freeze one of its workers."""
    blow = dice.choice(("kill daemon", "kill daemon", "stop daemon", "kill worker", "freeze worker"))
    if blow.endswith("worker"):
        live = [pid for pid in share.workers() if alive(pid)]
        with suppress(ProcessLookupError):
            if live:
                os.kill(dice.choice(live), signal.SIGKILL if blow == "kill worker" else signal.SIGSTOP)
        return
    if blow == "kill daemon":
        share.kill()
    else:
        share.stop()
    share.launch()
