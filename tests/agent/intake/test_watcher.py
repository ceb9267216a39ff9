"""File events of the inbox: what wakes the daemon, and when the watcher knows that it sees nothing."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.events import FileCreatedEvent, FileMovedEvent

from agent.intake.watcher import InboxWatcher
from tests.share import until

JOB = b'{"avatar": "face.jpg", "audio": "voice.wav"}'


@pytest.fixture
def woken(tmp_path: Path) -> Iterator[tuple[InboxWatcher, threading.Event]]:
    (tmp_path / "inbox").mkdir(exist_ok=True)
    event = threading.Event()
    watch = InboxWatcher(tmp_path / "inbox", event.set)
    assert watch.start()
    yield watch, event
    watch.stop()


def test_a_watch_wakes_for_a_rename(woken: tuple[InboxWatcher, threading.Event]) -> None:
    """A file renamed into place is reported with its name, at once."""
    watch, event = woken
    beside = watch.folder / ".a.tmp"
    beside.write_bytes(JOB)
    beside.rename(watch.folder / "a.json")
    assert event.wait(60)
    until(lambda: "a.json" in watch.moved, 60, lambda: f"seen: {watch.take_events()}")
    assert "a.json" in watch.take_moved()
    assert watch.take_moved() == set()


def test_a_file_that_leaves_is_no_news(woken: tuple[InboxWatcher, threading.Event]) -> None:
    """The daemon's own claims don't wake it: a moved name counts where it arrived."""
    watch, event = woken
    watch.on_any_event(FileMovedEvent(str(watch.folder / "a.json"), ""))
    assert not event.is_set()
    watch.on_any_event(FileMovedEvent("", str(watch.folder / "b.json")))
    assert event.is_set()
    assert watch.take_moved() == {"b.json"}


def test_names_and_renames_are_taken_together(woken: tuple[InboxWatcher, threading.Event]) -> None:
    """What was renamed is always among the names to look at, or a large inbox would forget that it is whole."""
    watch, _ = woken
    watch.on_any_event(FileMovedEvent("", str(watch.folder / "b.json")))
    watch.on_any_event(FileCreatedEvent(str(watch.folder / "c.json")))
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
    until(lambda: "second.json" in watch.moved, 60, lambda: f"seen: {watch.take_events()}")


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
    assert event.wait(60)


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
        "instances": "watchdog.observers.inotify_c.InotifyFD._create_inotify_fd",
        "watches": "watchdog.observers.inotify.InotifyObserver.schedule",
        "threads": "threading.Thread.start",
    }
    with monkeypatch.context() as patch:
        patch.setattr(target[lack], refuse)
        assert not watch.start()
        assert "it is polled: " in watch.problem
        assert not watch.is_alive
    assert watch.start()
    watch.stop()


def test_a_burst_wakes_once(tmp_path: Path) -> None:
    """Later events before the daemon has taken the first are noted and wake nobody; the next one after it does."""
    wakes: list[int] = []
    watch = InboxWatcher(tmp_path, lambda: wakes.append(1))
    for number in range(3):
        watch.on_any_event(FileCreatedEvent(str(tmp_path / f"{number}.json")))
    assert (len(wakes), watch.take_events()[0]) == (1, {"0.json", "1.json", "2.json"})
    watch.on_any_event(FileCreatedEvent(str(tmp_path / "3.json")))
    assert len(wakes) == 2
