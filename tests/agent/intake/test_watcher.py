"""File events of the inbox: what wakes the daemon, and when the watcher knows that it sees nothing."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.intake.watcher import CLOSE_WRITE, CREATE, HEADER, MOVED_TO, Q_OVERFLOW, InboxWatcher, split_events

JOB = b'{"avatar": "face.jpg", "audio": "voice.wav"}'


@pytest.fixture
def woken(tmp_path: Path) -> Iterator[tuple[InboxWatcher, threading.Event]]:
    (tmp_path / "inbox").mkdir(exist_ok=True)
    event = threading.Event()
    watch = InboxWatcher(tmp_path / "inbox", event.set)
    assert watch.start()
    yield watch, event
    watch.stop()


def take_until_moved(woken: tuple[InboxWatcher, threading.Event], name: str) -> tuple[set[str], set[str]]:
    """Return all names, and those that were renamed, until this one was."""
    watch, event = woken
    names, moved = set[str](), set[str]()
    while name not in moved:
        assert event.wait(10)
        event.clear()
        for known, new in zip((names, moved), watch.take_events(), strict=True):
            known.update(new)
    return names, moved


def test_a_watch_wakes_for_a_rename(woken: tuple[InboxWatcher, threading.Event]) -> None:
    """A file renamed into place is reported with its name, at once."""
    watch, _ = woken
    beside = watch.folder / ".a.tmp"
    beside.write_bytes(JOB)
    beside.rename(watch.folder / "a.json")
    assert take_until_moved(woken, "a.json") == ({".a.tmp", "a.json"}, {"a.json"})
    assert watch.take_moved() == set()


def test_a_file_that_leaves_is_no_news(woken: tuple[InboxWatcher, threading.Event]) -> None:
    """The daemon's own claims don't wake it: a moved name counts where it arrived."""
    watch, event = woken
    (watch.folder / "a.json").write_bytes(JOB)
    assert event.wait(10)
    (watch.folder / "a.json").rename(watch.folder.parent / "a.json")
    (watch.folder.parent / "a.json").rename(watch.folder / "b.json")
    assert take_until_moved(woken, "b.json") == ({"a.json", "b.json"}, {"b.json"})


def test_a_burst_of_events_wakes_once(tmp_path: Path) -> None:
    """The first event since the last look wakes the daemon, which takes all others with it."""
    wakes: list[int] = []
    watch = InboxWatcher(tmp_path, lambda: wakes.append(1))
    for number in range(3):
        watch.note(CLOSE_WRITE, f"{number}.json")
    assert len(wakes) == 1
    assert watch.take_events()[0] == {"0.json", "1.json", "2.json"}
    watch.note(CREATE, "3.json")
    assert len(wakes) == 2


def test_events_are_cut_out_of_what_the_kernel_wrote() -> None:
    """Names are padded with zeros, and may be no UTF-8; an overflow has none."""
    data = HEADER.pack(1, MOVED_TO, 7, 16) + b"a.json".ljust(16, b"\0")
    data += HEADER.pack(-1, Q_OVERFLOW, 0, 0) + HEADER.pack(1, CREATE, 0, 16) + b"\xff.wav".ljust(16, b"\0")
    assert list(split_events(data)) == [(MOVED_TO, "a.json"), (Q_OVERFLOW, ""), (CREATE, "\udcff.wav")]


def test_lost_events_wake_all_the_same(tmp_path: Path) -> None:
    """Where the kernel's queue was full, a scan is due, and no name of the lost ones is made up."""
    wakes: list[int] = []
    watch = InboxWatcher(tmp_path, lambda: wakes.append(1))
    watch.note(Q_OVERFLOW, "")
    assert (wakes, watch.touched, watch.take_events()) == ([1], True, (set(), set()))


def test_names_and_renames_are_taken_together(woken: tuple[InboxWatcher, threading.Event]) -> None:
    """What was renamed is always among the names to look at, or a large inbox would forget that it is whole."""
    watch, _ = woken
    watch.note(MOVED_TO, "b.json")
    watch.note(CREATE, "c.json")
    assert watch.touched
    assert watch.take_events() == ({"b.json", "c.json"}, {"b.json"})
    assert not watch.touched
    watch.moved.add("d.json")
    assert watch.take_events() == ({"d.json"}, {"d.json"})
    assert watch.take_events() == (set(), set())


def test_a_claim_holds_back_no_news(woken: tuple[InboxWatcher, threading.Event], tmp_path: Path) -> None:
    """What is moved in from another folder right after a file was taken out counts as renamed into place."""
    watch, _ = woken
    (watch.folder / "first.json").write_bytes(JOB)
    (tmp_path / "second.json").write_bytes(JOB)
    (watch.folder / "first.json").rename(tmp_path / "first.json")
    (tmp_path / "second.json").rename(watch.folder / "second.json")
    assert take_until_moved(woken, "second.json")[1] == {"second.json"}


def test_a_watch_knows_that_it_is_blind(woken: tuple[InboxWatcher, threading.Event]) -> None:
    """After the folder was made anew, the watch says so and can be started again."""
    watch, event = woken
    assert watch.is_alive
    keep = watch.folder.with_name("old")  # so that the new folder can't get the old inode
    watch.folder.rename(keep)
    watch.folder.mkdir()
    assert not watch.is_alive
    assert watch.start()
    assert watch.is_alive
    event.clear()
    (watch.folder / "b.json").write_bytes(JOB)
    assert event.wait(10)


def test_a_watch_that_is_given_up_has_no_problem(tmp_path: Path) -> None:
    """Once the inbox is polled, that nobody could tell of new files is no trouble any more."""
    watch = InboxWatcher(tmp_path / "nowhere", lambda: None)
    assert not watch.start()
    assert watch.problem
    watch.stop()
    assert watch.problem == ""


@pytest.mark.parametrize("lack", ["instances", "watches", "threads"])
def test_what_the_system_refuses_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str) -> None:
    """No inotify instance, watch or thread left: a problem, no end; the next start may succeed."""
    watch = InboxWatcher(tmp_path, lambda: None)

    def refuse(*_arguments: object, **_words: object) -> None:
        if lack == "threads":
            raise RuntimeError("can't start new thread")
        raise OSError(errno.EMFILE, "limit reached")

    target = {
        "instances": "agent.intake.watcher.open_inotify",
        "watches": "agent.intake.watcher.add_watch",
        "threads": "threading.Thread.start",
    }
    with monkeypatch.context() as patch:
        patch.setattr(target[lack], refuse)
        assert not watch.start()
        assert "it is polled: " in watch.problem
        assert not watch.is_alive
    assert watch.start()
    watch.stop()
