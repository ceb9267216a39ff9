"""File events of the inbox.

They only make the next scan come sooner; a lost event delays a job by one period.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper


class InboxWatcher(FileSystemEventHandler):
    """Wakes the daemon when a file of the inbox is created, closed or renamed into place.

    Only the first event since the last `take_events` does: a burst of files costs one wake.
    """

    def __init__(self, folder: Path, wake: Callable[[], None]) -> None:
        self.folder, self.wake = folder, wake
        self.moved: set[str] = set()
        self._names: set[str] = set()
        self._lock = Lock()
        self.touched = False
        self.problem = ""
        self._observer: InotifyObserver | None = None
        self._inode = 0

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileMovedEvent) and not event.dest_path:
            return  # it left the folder, as every claimed file does
        with self._lock:
            if isinstance(event, FileMovedEvent):
                self.moved.add(_get_name(event.dest_path))
            self._names.add(_get_name(event.dest_path or event.src_path))
            is_first, self.touched = not self.touched, True
        if is_first:
            self.wake()

    def take_events(self) -> tuple[set[str], set[str]]:
        """Return the names that had an event since the last call, and those of them that were renamed into place.

        Both at once: a scan that looks at the first alone finds all of the second.
        """
        with self._lock:
            self.touched = False
            names, moved = self._names, self.moved
            self._names, self.moved = set(), set()
        return names | moved, moved

    def take_moved(self) -> set[str]:
        """Return the names that were renamed into place since the last call; all other events are forgotten."""
        return self.take_events()[1]

    @property
    def is_alive(self) -> bool:
        """Whether events still arrive: all threads run, and the folder is still the same."""
        observer = self._observer
        if observer is None or not observer.is_alive() or not all(e.is_alive() for e in observer.emitters):
            return False
        try:
            return self.folder.stat().st_ino == self._inode
        except OSError:
            return False

    def start(self) -> bool:
        """Watch the folder as it is now.

        False, and `problem` says why, where that is not possible.
        """
        self.stop()
        # watchdog waits half a second for the other half of a move, so after each claim, and holds
        # back later events meanwhile. With full events one half of a move is enough.
        InotifyMoveEventGrouper.delay = 0.0
        wanted: list[type[FileSystemEvent]] = [FileCreatedEvent, FileMovedEvent, FileClosedEvent]
        try:
            self._inode = self.folder.stat().st_ino
            self._observer = InotifyObserver(generate_full_events=True)
            self._observer.schedule(self, str(self.folder), event_filter=wanted)
            self._observer.start()
        except (OSError, RuntimeError) as error:  # no watch, instance, descriptor or thread left
            self.stop()
            reason = error.strerror if isinstance(error, OSError) else error
            self.problem = f"the inbox sends no file events, it is polled: {reason}"
            return False
        return True

    def stop(self) -> None:
        self.problem = ""
        if self._observer is not None:
            with suppress(RuntimeError):  # a part of it that never ran
                self._observer.stop()
                self._observer.join(timeout=2.0)
        self._observer = None


def _get_name(path: bytes | str) -> str:
    return os.path.basename(os.fsdecode(path))  # noqa: PTH119 - str in, str out
