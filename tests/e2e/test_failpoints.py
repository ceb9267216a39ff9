"""The daemon and its workers, made to fail at each named place, in each way."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.credentials.boxes import SEAL_NAME
from gpu_pool.failpoints import VARIABLE, failpoint
from tests.e2e.oracle import check
from tests.share import ROOT, Share, alive, face, until, voice

DAEMON = ("claimed", "before_insert", "inserted", "running", "assembled", "published", "migration")
SIGNING = ("credentials", "collected", "certificate", "signing", "signed", "reported")
"""Passed only where results are signed; the tests of the last four, in the program for that, are in
tests/agent/credentials."""
FIRST = "first_part"
"""Passed only where the first part of a video is shown."""
WORKER = ("received", "mid_span", "span_done")
ACTIONS = ("kill", "stop", "raise", "enospc")
JOBS = ("one", "two", "three")


def drop_jobs(share: Share, short: tuple[str, ...] = JOBS[2:]) -> None:
    """Drop pairs, whose spans go to several workers, and `short` jobs, which one worker does at once."""
    for name in JOBS:
        stems = (f"{name} face", f"{name} voice") if name in short else (name, name)
        share.put(f"{stems[0]}.png", b"face")
        share.put(f"{stems[1]}.wav", b"voice")
        if name in short:
            share.drop(name, avatar=f"{stems[0]}.png", audio=f"{stems[1]}.wav", options={"frames": 20})


def fail_once(share: Share, place: str, action: str, flag: Path) -> None:
    """Have the daemon fail at a place, and start it again unless it goes on by itself."""
    share.launch(**{VARIABLE: f"{place}:{action}:{flag}"})
    until(flag.exists, 60, share.log)
    if action == "stop":
        share.kill()
    elif action in ("kill", "raise"):
        assert share.daemon is not None
        assert share.daemon.wait(30) != 0
    if action == "enospc":
        until(share.is_up, 60, share.log)
    else:
        share.start()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", DAEMON)
def test_the_daemon_fails_somewhere(make_share: Callable[..., Share], tmp_path: Path, place: str, action: str) -> None:
    """It dies, hangs, raises or finds the disk full: afterwards each job has one result."""
    share = make_share(module="tests.e2e.noop", settle_s=0.05)
    drop_jobs(share)
    fail_once(share, place, action, tmp_path / "reached")
    share.wait_until_finished(len(JOBS), 60)
    until(lambda: not list(share.inbox.iterdir()), 60, share.log)
    workers = share.workers()
    assert share.stop() == 0
    check(share, JOBS, workers)


@pytest.mark.parametrize(("place", "action"), [*(("credentials", action) for action in ACTIONS), ("collected", "kill")])
def test_the_daemon_fails_when_a_result_is_signed(
    make_share: Callable[..., Share], tmp_path: Path, place: str, action: str
) -> None:
    """It fails when the row says so, or just before: afterwards the result is published once, and was signed once."""
    share = make_share(settle_s=0.05, sign="auto")
    share.put("one.jpg", face())
    share.put("one.wav", voice())
    fail_once(share, place, action, tmp_path / "reached")
    share.wait_for("one", "done")
    assert [path.name for path in share.outbox.iterdir()] == ["one"]
    verified = share.musedrop("verify", "one")
    assert verified.returncode == 0, verified
    assert "signed by musedrop" in verified.stdout
    assert (share.outbox / "one" / "result.mp4").read_bytes().count(b"free" + SEAL_NAME) == 1
    assert not list((share.state / "credentials" / "signed").iterdir())


@pytest.mark.parametrize("action", ACTIONS)
def test_the_daemon_fails_when_a_first_part_is_shown(
    make_share: Callable[..., Share], tmp_path: Path, action: str
) -> None:
    """Its folder is there or not; afterwards it is not, and the job has one result."""
    share = make_share(module="tests.e2e.noop", settle_s=0.05)
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    slow = {"frame_s": 0.02, "frames": 96}  # four spans, one after the other
    share.drop("one", avatar="face.png", audio="voice.wav", options=slow, strategy="queue", preview_first=True)
    fail_once(share, FIRST, action, tmp_path / "reached")
    share.wait_until_finished(1, 60)
    until(lambda: not list(share.inbox.iterdir()), 60, share.log)
    workers = share.workers()
    assert share.stop() == 0
    check(share, ["one"], workers)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", WORKER)
@pytest.mark.parametrize("short", [(), JOBS], ids=["long", "short"])
def test_a_worker_fails_somewhere(
    make_share: Callable[..., Share], place: str, action: str, short: tuple[str, ...]
) -> None:
    """It dies, hangs, raises or finds the disk full: its span is repeated, one result each."""
    share = make_share(module="tests.e2e.noop", settle_s=0.05, stall_s=1.0)
    flag = share.state / "cache" / "reached"  # a worker writes nowhere else
    share.start(**{VARIABLE: f"{place}:{action}:{flag}"})
    drop_jobs(share, short)
    share.wait_until_finished(len(JOBS), 60)
    assert flag.exists()
    assert {row["state"] for row in share.rows()} == {"done"}
    until(lambda: not list(share.inbox.iterdir()), 60, share.log)
    workers = share.workers()
    assert share.stop() == 0
    check(share, JOBS, workers)


@pytest.mark.parametrize("action", ["kill", "stop"])
def test_the_daemon_fails_while_it_drains(make_share: Callable[..., Share], tmp_path: Path, action: str) -> None:
    """It dies or hangs while it stops: no worker survives, and the next start finishes."""
    share = make_share(module="tests.e2e.noop", settle_s=0.05)
    flag = tmp_path / "reached"
    share.start(**{VARIABLE: f"draining:{action}:{flag}"})
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    share.drop("slow", avatar="face.png", audio="voice.wav", options={"frame_s": 0.05})
    share.wait_for("slow", "queued", "running")
    workers = share.workers()
    assert share.daemon is not None
    share.daemon.send_signal(signal.SIGTERM)
    until(flag.exists, 60, share.log)
    share.kill()
    until(lambda: not any(map(alive, workers)), 60, lambda: "workers outlive the daemon")
    share.start()
    share.wait_for("slow", "done")


def test_every_place_is_tested() -> None:
    """The places in the code are those that the tests above know."""
    sources = [*(ROOT / "agent").rglob("*.py"), *ROOT.glob("gpu_pool/*.py")]
    places = {name for path in sources for name in re.findall(r'failpoint\("(\w+)"\)', path.read_text())}
    assert places == {*DAEMON, *SIGNING, *WORKER, FIRST, "draining"}


def test_a_place_is_passed_without_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A failpoint does nothing without the variable, for another place, or with its flag set."""
    monkeypatch.delenv(VARIABLE, raising=False)
    failpoint("claimed")
    monkeypatch.setenv(VARIABLE, f"inserted:raise:{tmp_path / 'a'},claimed:raise:{tmp_path / 'b'}")
    failpoint("running")
    with pytest.raises(RuntimeError, match="claimed"):
        failpoint("claimed")
    failpoint("claimed")
    assert os.listdir(tmp_path) == ["b"]  # noqa: PTH208
