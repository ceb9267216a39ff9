"""Whatever is in whichever place of the share: the daemon goes on, and the good job ends in its usual time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import fs
from agent.daemon import MAX_WAIT_S
from agent.results.retention import EVERY_S
from agent.settings_file import load_settings
from tests.agent.test_daemon import Setup
from tests.odd_entries import (
    KINDS,
    SUFFIXES,
    dropping_powers,
    make_full_folder,
    put_all_names,
    put_kind,
    remove,
    remove_flags,
    set_immutable,
)

PLACES = (
    "inbox",
    "outbox",
    "failed",
    "archive",
    "archive/2026-01-01",
    "avatars",
    ".musedrop",
    ".musedrop/claimed",
    ".musedrop/staging",
    ".musedrop/trash",
)
USUAL_S = 12.0
"""A scan, the settle time, and the turns of a job."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users")


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    """A daemon for which the rights of files hold."""
    fs._thread_pool.cache_clear()
    made = Setup(tmp_path)
    made.turn()
    made.folders.inbox.chmod(0o1777)
    yield made
    made.daemon.pool.close()
    made.daemon.ledger.close()
    fs._thread_pool.cache_clear()
    remove(tmp_path)


def check_good_job(setup: Setup, name: str = "good", within_s: float = USUAL_S) -> None:
    """Drop a job as people do, and see it through, its files included."""
    setup.drop(name)
    setup.run(name, "done", within_s=within_s)
    for _ in range(10):
        setup.turn(pass_s=1.0)
    job = setup.daemon.ledger.find(name)
    assert job is not None
    assert Path(job.inputs or "").is_dir(), setup.daemon.problems.texts


def check_twice(setup: Setup, within_s: float = USUAL_S) -> None:
    """Before and after a restart, without the powers of root."""
    with dropping_powers():
        check_good_job(setup, within_s=within_s)
        setup.daemon.abandon()
        setup.start()
        check_good_job(setup, "again")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_place(setup: Setup, kind: str, place: str) -> None:
    """No kind of file or folder keeps the good job waiting."""
    folder = setup.share / place
    folder.mkdir(exist_ok=True)
    for suffix in SUFFIXES if place == "inbox" else ("", ".json"):
        put_kind(folder, kind, suffix)
    check_twice(setup)


@pytest.mark.parametrize("place", PLACES)
def test_every_name_in_every_place(setup: Setup, place: str) -> None:
    """As a file and as a folder, with the suffixes that mean something."""
    (setup.share / place).mkdir(exist_ok=True)
    for suffix in SUFFIXES:
        put_all_names(setup.share / place, suffix)
    check_twice(setup, within_s=2 * USUAL_S if place == "inbox" else USUAL_S)  # there they are jobs before it, too


@pytest.mark.parametrize("place", [place for place in PLACES if place != ".musedrop"])
def test_a_place_that_cannot_be_read(setup: Setup, place: str) -> None:
    """The daemon lives through it and a restart; what it keeps from going on is done when the place can be read."""
    folder = setup.share / place
    folder.mkdir(exist_ok=True)
    with dropping_powers():
        folder.chmod(0)
        if place != "inbox":
            setup.drop("hello", **({"avatar": "anna"} if place == "avatars" else {}))
        for _ in range(8):
            setup.turn(pass_s=MAX_WAIT_S)
        setup.daemon.abandon()
        setup.start()
        for _ in range(4):
            setup.turn(pass_s=MAX_WAIT_S)
        if place in ("inbox", "outbox", ".musedrop/claimed"):
            assert setup.status()["problems"]
        if place == "avatars":
            assert "can't be read" in setup.row("hello")["waiting_for"]
        folder.chmod(0o755)
        if place == "avatars":
            (folder / "anna.jpg").write_bytes(b"x")
            os.utime(folder / "anna.jpg", (1e9, 1e9))
        if place == "inbox":
            setup.drop("hello")
        setup.run("hello", "done")
        for _ in range(4):
            setup.turn(pass_s=EVERY_S)
        told = [text for text in setup.status()["problems"] if '"face.jpg"' not in text]
        assert told == []  # a face that no job names may be told


@pytest.mark.parametrize("place", [*PLACES[:4], "avatars", ".musedrop", "status.json", "status.db"])
def test_a_place_that_is_a_link_to_itself(setup: Setup, place: str) -> None:
    """The daemon lives through it and a restart, also while jobs are under way, and goes on when it is over."""
    path, kept = setup.share / place, setup.share / "kept"
    setup.frame_s = 1.0
    setup.drop("hello", **({"avatar": "anna"} if place == "avatars" else {}))
    with dropping_powers():
        for _ in range(3):
            setup.turn(pass_s=1.0)
        if path.exists():
            path.rename(kept)
        path.symlink_to(path.name)
        for _ in range(4):
            setup.turn(pass_s=MAX_WAIT_S)
        setup.daemon.abandon()
        setup.settings = load_settings(setup.config)
        setup.start()
        for _ in range(4):
            setup.turn(pass_s=MAX_WAIT_S)
        path.unlink()
        if kept.exists():
            kept.rename(path)
        setup.frame_s = 0.01
        for _ in range(20):  # the first job ends, and its media, of the same names, are filed away
            setup.turn(pass_s=1.0)
        check_good_job(setup, "later", within_s=100.0)


def a_failed_job(setup: Setup) -> Path:
    """Cancel a job; return its folder in failed."""
    setup.frame_s = 10.0
    setup.drop("hello")
    setup.run("hello", "running")
    setup.put("hello.cancel")
    for _ in range(4):
        setup.turn(pass_s=MAX_WAIT_S)
    setup.frame_s = 0.01
    assert setup.state("hello") == "cancelled"
    return setup.folders.failed / "hello"


@pytest.mark.parametrize("name", ["error.json", "job.json", "hello.json", "face.jpg"])
def test_a_retry_where_something_is_a_folder(setup: Setup, name: str) -> None:
    """The job is tried again with what can be used, or the folder is named; others go on."""
    folder = a_failed_job(setup)
    (folder / name).unlink(missing_ok=True)
    make_full_folder(folder / name)
    with dropping_powers():
        setup.put("hello.retry")
        check_good_job(setup)
        assert setup.state("hello") in ("queued", "running", "done")


def test_a_retry_that_cannot_be_carried_out(setup: Setup) -> None:
    """It is named in the problems and in the job's events, and carried out when that is possible."""
    folder = a_failed_job(setup)
    set_immutable(folder)
    with dropping_powers():
        setup.put("hello.retry")
        check_good_job(setup)
        assert any("hello.retry can't be carried out" in text for text in setup.status()["problems"])
        [event] = setup.daemon.ledger.rows("SELECT * FROM job_events WHERE kind = 'problem'")
        assert event["name"] == "hello"
    remove_flags(folder)
    with dropping_powers():
        setup.run("hello", "done")


def test_a_control_file_that_cannot_be_removed_works_once(setup: Setup) -> None:
    """A later job of that name is not cancelled by it, even after a restart; it goes when it can be removed."""
    setup.frame_s = 10.0
    setup.drop("hello")
    setup.run("hello", "running")
    setup.put("hello.cancel")
    path = setup.folders.inbox / "hello.cancel"
    set_immutable(path)
    with dropping_powers():
        setup.run("hello", "cancelled")
        setup.frame_s = 0.01
        check_good_job(setup, "hello")
        setup.daemon.abandon()
        setup.start()
        for _ in range(3):
            setup.turn(pass_s=60.0)
        check_good_job(setup, "hello")
        assert any("hello.cancel can't be removed" in text for text in setup.daemon.problems.texts)
    remove_flags(path)
    with dropping_powers():
        setup.turn(pass_s=MAX_WAIT_S)
    assert not path.exists()
    assert setup.daemon.problems.texts == []


def test_an_entry_is_tried_again_when_it_changes(setup: Setup) -> None:
    """A job file that could not be moved is taken as soon as it can."""
    setup.drop("hello")
    path = setup.folders.inbox / "hello.json"
    set_immutable(path)
    with dropping_powers():
        check_good_job(setup)
        assert any("inbox/hello.json can't be moved" in text for text in setup.status()["problems"])
    remove_flags(path)
    with dropping_powers():
        check_good_job(setup, "hello")
    assert setup.daemon.problems.texts == []


def test_a_medium_that_cannot_be_filed_away(setup: Setup) -> None:
    """The job is done all the same, and the medium follows when it can."""
    setup.drop("hello")
    path = setup.folders.inbox / "voice.wav"
    set_immutable(path)
    with dropping_powers():
        setup.run("hello", "done")
        for _ in range(4):
            setup.turn(pass_s=MAX_WAIT_S)
        assert setup.status()["problems"] == ["inbox/voice.wav can't be filed away: Operation not permitted"]
    remove_flags(path)
    with dropping_powers():
        setup.turn(pass_s=MAX_WAIT_S)
    assert not path.exists()
    assert setup.daemon.problems.texts == []
