"""The inbox: which files lie there, which of them are complete, and how they are claimed.

A scan of the directory is the truth; watchdog only makes the next scan come sooner.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

from agent.fs import at_once, move_in, sync
from agent.jobs.parse import AUDIO_SUFFIXES, AVATAR_SUFFIXES

CONTROLS = (".cancel", ".retry", ".drain", ".resume")
SWITCHES = {"pause": "pause", "pause.txt": "pause", "resume": "resume", "resume.txt": "resume"}
"""Control files of the whole queue; Windows gives every new file a suffix."""
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", "~")
CLUTTER = {"thumbs.db", "desktop.ini", "4913"}
UNPARSED_GRACE = 10
"""Settle times given to a job file that doesn't parse, where the kernel can't say whether it is still open."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A file of the inbox and since when (seconds of the caller's clock) it has not changed."""

    name: str
    fingerprint: Fingerprint
    since: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Something complete that wants to be a job: a job file with its text, or a pair of media."""

    uid: str
    name: str
    folder: Path
    text: bytes | None
    media: tuple[str, ...] = ()
    owner: str = ""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text or b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Control:
    """A wish about a job (cancel, retry) or a device (drain, resume)."""

    name: str
    verb: str
    path: Path


@dataclass(frozen=True, slots=True)
class Claimable:
    """What a scan found complete: the name of the job, its files, and the text if one of them is a job file."""

    name: str
    files: tuple[str, ...]
    text: bytes | None = None


@dataclass
class Inbox:
    """One inbox folder. `settle_s`: how long a file must stay as it is where nothing better is known."""

    folder: Path
    claimed: Path
    settle_s: float
    max_job_bytes: int
    parses: Callable[[bytes], bool]
    problem: str = ""
    seen: dict[str, Seen] = field(default_factory=dict)
    renamed: set[str] = field(default_factory=set)

    def scan(self, now: float) -> bool:
        """Look at the directory once. False, and `problem` says why, where it can't be read: no news of its files."""
        try:
            present = dict(listing(self.folder))
        except OSError as error:
            self.problem = f"the inbox {self.folder} can't be read: {error.strerror}"
            return False
        self.problem = ""
        self.seen = {name: self._look(name, mark, now) for name, mark in present.items()}
        self.renamed &= self.seen.keys()
        return True

    def _look(self, name: str, mark: Fingerprint, now: float) -> Seen:
        before = self.seen.get(name)
        return before if before and before.fingerprint == mark else Seen(name, mark, now)

    def settled(self, name: str, now: float) -> bool:
        """Whether a medium is complete: renamed into place, or unchanged long enough, and not open for writing."""
        entry = self.seen.get(name)
        if entry is None or entry.fingerprint.size == 0:
            return entry is not None and now - entry.since >= self.settle_s
        if name not in self.renamed and now - entry.since < self.settle_s:
            return False
        return open_for_writing(self.folder / name) is not True

    def next_settle(self, now: float) -> float | None:
        """Seconds until the next file may have settled."""
        waits = [entry.since + self.settle_s - now for entry in self.seen.values()]
        return min((wait for wait in waits if wait > 0), default=None)

    def claimable(self, now: float, spoken_for: Callable[[], set[Fingerprint]]) -> Iterator[Claimable]:
        """Job files and pairs that are complete. `spoken_for()`: media that belong to jobs already, asked for where
        there may be a pair."""
        for name in sorted(self.seen):
            if suffix(name) == ".json" and (found := self._job_file(name, now)) is not None:
                yield found
        if self._twins():
            yield from self._pairs(now, spoken_for())

    def _job_file(self, name: str, now: float) -> Claimable | None:
        path = self.folder / name
        text = read_small(path, self.max_job_bytes)
        if text is None:
            return None
        writing = open_for_writing(path)
        if not self._finished(name, text, writing, now):
            return None
        return Claimable(path.stem, (name,), text)

    def _finished(self, name: str, text: bytes, writing: bool | None, now: float) -> bool:
        """A whole JSON object never is a proper prefix of another, so one that parses and isn't open is complete."""
        quiet_s = now - self.seen[name].since
        if writing:
            return False
        if self.parses(text):
            return writing is False or name in self.renamed or quiet_s >= self.settle_s
        return quiet_s >= self.settle_s * (1 if writing is False else UNPARSED_GRACE)

    def _twins(self) -> bool:
        """Whether an avatar and a sound are called the same."""
        names = [Path(name) for name in self.seen]
        sounds = {path.stem for path in names if path.suffix.lower() in AUDIO_SUFFIXES}
        return any(path.stem in sounds for path in names if path.suffix.lower() in AVATAR_SUFFIXES)

    def _pairs(self, now: float, spoken_for: set[Fingerprint]) -> Iterator[Claimable]:
        free = {name for name, entry in self.seen.items() if entry.fingerprint not in spoken_for}
        job_stems = {Path(name).stem for name in self.seen if suffix(name) == ".json"}
        sounds = {Path(name).stem: name for name in sorted(free, reverse=True) if suffix(name) in AUDIO_SUFFIXES}
        for name in sorted(free):
            stem = Path(name).stem
            sound = sounds.get(stem)
            if suffix(name) not in AVATAR_SUFFIXES or sound is None or stem in job_stems:
                continue
            if all(now - self.seen[half].since >= self.settle_s and self.settled(half, now) for half in (name, sound)):
                del sounds[stem]
                yield Claimable(stem, (name, sound))

    def claim(self, found: Claimable, uid: str) -> Drop | None:
        """Move the files out of the inbox under the job's own folder. None if somebody took them back.

        `sync_claims` makes it last.
        """
        target = self.claimed / uid
        target.mkdir(parents=True)
        owner = owner_of(self.folder / found.files[0])
        try:
            for name in found.files:
                (self.folder / name).rename(target / name)
        except FileNotFoundError:
            self.give_back(target)
            return None
        for name in found.files:
            self.seen.pop(name, None)
        return drop_of(target, owner, self.max_job_bytes)

    def sync_claims(self, drops: Sequence[Drop]) -> None:
        """Make the claims survive a power cut: many at once cost little more than one."""
        at_once(sync, [drop.folder for drop in drops])
        if drops:
            sync(self.claimed)

    def unclaimed(self, known: Callable[[str], bool]) -> Iterator[Drop]:
        """Claims that a crash left without a row: finished, or given back where half of a pair is gone."""
        for folder in sorted(self.claimed.iterdir()) if self.claimed.is_dir() else ():
            if known(folder.name):
                continue
            drop = drop_of(folder, "", self.max_job_bytes)
            if drop is None:
                self.give_back(folder)
            else:
                yield drop

    def give_back(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            move_in(path, self.folder, path.name)
        folder.rmdir()

    def controls(self) -> Iterator[Control]:
        for name in sorted(self.seen):
            verb = suffix(name)
            if verb in CONTROLS:
                yield Control(Path(name).stem, verb[1:], self.folder / name)
            elif switch := SWITCHES.get(name.lower()):
                yield Control("", switch, self.folder / name)


def drop_of(folder: Path, owner: str, max_job_bytes: int) -> Drop | None:
    """Read a claimed folder; the bytes read here are the job, whatever happens to the file later."""
    names = sorted(path.name for path in folder.iterdir())
    job_files = [name for name in names if suffix(name) == ".json"]
    if job_files:
        text = read_small(folder / job_files[0], max_job_bytes)
        return Drop(folder.name, readable(Path(job_files[0]).stem), folder, text or b"", owner=owner)
    avatar = [name for name in names if suffix(name) in AVATAR_SUFFIXES]
    audio = [name for name in names if suffix(name) in AUDIO_SUFFIXES]
    if not avatar or not audio:
        return None
    return Drop(folder.name, readable(Path(avatar[0]).stem), folder, None, (avatar[0], audio[0]), owner)


def readable(name: str) -> str:
    """A file name as text; bytes that are no UTF-8 show as question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def suffix(name: str) -> str:
    return Path(name).suffix.lower()


def ignored(name: str) -> bool:
    low = name.lower()
    return low.startswith((".", "~$")) or low.endswith(UNFINISHED) or low in CLUTTER or ":zone.identifier" in low


def listing(folder: Path) -> Iterator[tuple[str, Fingerprint]]:
    """Regular files only: a link, a pipe or a folder in the inbox is nobody's job."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if ignored(entry.name):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                yield entry.name, Fingerprint(found.st_ino, found.st_size, found.st_mtime_ns)


def fingerprint(path: Path) -> Fingerprint | None:
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return Fingerprint(found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def open_plain(path: Path) -> int:
    """A descriptor of a regular file; never follows a link, never waits for the other end of a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def open_for_writing(path: Path) -> bool | None:
    """Whether any process of this machine has the file open for writing; None where the kernel can't say."""
    try:
        fd = open_plain(path)
    except OSError:
        return None
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    finally:
        os.close(fd)
    return False


def read_small(path: Path, limit: int) -> bytes | None:
    """At most limit + 1 bytes, so that what is too big can be told from what is not; None if it can't be read now."""
    try:
        fd = open_plain(path)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(limit + 1)


def owner_of(path: Path) -> str:
    try:
        return f"uid:{path.stat().st_uid}"
    except OSError:
        return ""


class Watch(FileSystemEventHandler):
    """Shortens the wait for the next scan. It may die, lose events or be absent: then jobs start a little later."""

    def __init__(self, folder: Path, wake: Callable[[], None]) -> None:
        self.folder, self.wake = folder, wake
        self.moved: set[str] = set()
        self.touched = False
        self.problem = ""
        self._observer: InotifyObserver | None = None
        self._inode = 0

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileMovedEvent):
            if not event.dest_path:
                return  # it has left, as every claim does
            self.moved.add(os.path.basename(os.fsdecode(event.dest_path)))  # noqa: PTH119 - str in, str out
        self.touched = True
        self.wake()

    def take_moved(self) -> set[str]:
        """Names renamed into place since the last call."""
        self.touched = False
        moved, self.moved = self.moved, set()
        return moved

    @property
    def alive(self) -> bool:
        observer = self._observer
        if observer is None or not observer.is_alive() or not all(e.is_alive() for e in observer.emitters):
            return False
        try:
            return self.folder.stat().st_ino == self._inode
        except OSError:
            return False

    def start(self) -> bool:
        """Watch the folder as it is now; False, and `problem` says why, where that is not possible."""
        self.stop()
        # watchdog waits for the other half of a move, and holds back what comes meanwhile: half a second after each
        # claim. With full events a half is as good as a whole, also where a file came from another folder.
        InotifyMoveEventGrouper.delay = 0.0
        observer = InotifyObserver(generate_full_events=True)
        try:
            self._inode = self.folder.stat().st_ino
            wanted: list[type[FileSystemEvent]] = [FileCreatedEvent, FileMovedEvent, FileClosedEvent]
            observer.schedule(self, str(self.folder), event_filter=wanted)
            observer.start()
        except OSError as error:
            self.problem = f"nobody tells of new files in the inbox, it is polled: {error.strerror}"
            return False
        self._observer = observer
        return True

    def stop(self) -> None:
        self.problem = ""
        if self._observer is not None and self._observer.is_alive():
            self._observer.stop()
            self._observer.join(timeout=2.0)
        self._observer = None
