"""Scans of the inbox: which files are there, which of them are complete, and how they are claimed.

Scans find everything by themselves; events of the watcher only make that sooner. What was found to have changed is
looked at again before it is taken.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from agent.clock import Pace
from agent.fs import (
    Fingerprint,
    atomic_write_bytes,
    is_folder,
    is_open_for_writing,
    is_written_to,
    map_parallel,
    move_into,
    open_fd,
    open_regular,
    read_bytes,
    read_limited,
    take_fingerprint,
)
from agent.fs.folders import hold_folder, list_names, make_folders, move, remove, sync, unlink
from agent.intake.cut_files import is_cut
from agent.intake.names import CONTROLS, SWITCHES, TEXT, WITH_CONTENT, Names, lower_suffix
from agent.intake.paths import fold_name, is_utf8
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES
from agent.service.entry_problems import EntryProblems

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", "~")
CLUTTER = {"thumbs.db", "desktop.ini", "4913"}
SMALL = 256
"""An inbox of so many entries is read anew in every scan."""
SLICE = 512
"""Entries of a larger one that are looked at in each period, though nothing says that they have changed."""
TIME_STEP_S = 2.0
"""How long a folder may change without another time of change."""
BATCH_FILE, LONGEST_BATCH_BYTES = ".batch", 255
"""The file in a claim that names the folder of the inbox it came from."""
UNPARSED_GRACE = 10
"""Settle times for a job file that doesn't parse, if the kernel can't say whether it is open."""


@dataclass(frozen=True, slots=True)
class TrackedFile:
    """A file of the inbox; `since_s`: when a scan first found it so, in monotonic seconds."""

    name: str
    fingerprint: Fingerprint
    since_s: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a scan found complete: the name of the job, its files, and the text of a job file.

    left   files of the same name that a pair doesn't need
    mark   what the job file was when it was read
    owner  of the first file, as "uid:1000"
    """

    name: str
    files: tuple[str, ...]
    text: bytes | None = None
    left: tuple[str, ...] = ()
    mark: Fingerprint | None = None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was claimed to become a job: a job file's text, a pair of media (avatar, audio), or a voice alone.

    `batch`: the folder of the inbox that it came in, which names the avatar of a voice alone; "" for the inbox itself.
    `files`: the names of all that was claimed; None where the folder says it.
    """

    uid: str
    name: str
    folder: Path
    text: bytes | None
    media: tuple[str, ...] = ()
    owner: str = ""
    batch: str = ""
    files: tuple[str, ...] | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text or b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Control:
    """A control file for a job (cancel, retry), a device (drain, resume, unload) or the queue ("")."""

    name: str
    verb: str
    path: Path


@dataclass
class Inbox:
    """One inbox folder.

    settle_s     how long a file must stay unchanged where nothing else tells that it is complete
    is_job_file  whether bytes are a whole job file
    entries      the entries that could not be handled
    tracked      the files of the last scan, by name
    renamed      names that a rename put into place: their writers have finished
    unsettled    whether a claim may have been left without a row
    others       the entries of the last scan that are no regular files: what each is, and since when
    unreadable   job files that may not be read, as they are
    changes      how often a scan has found something else than the one before
    piece_settle_s  the settle time of a file that promises more than is there, and was not renamed into place
    batch        the name of this folder where it is one of the inbox, "" for the inbox itself
    speaks_texts    whether a text is as good as a voice
    names        an index of the files
    refusing     how often to look for what can't be a job
    is_avatar    whether it has the name of a library avatar: then a voice alone is a job
    rest_s       how long media stay unchanged before they are a job without a job file
    is_ordered   whether a flushed folder of this file system has all earlier renames flushed, too
    """

    folder: Path
    claimed: Path
    settle_s: float
    max_job_bytes: int
    is_job_file: Callable[[bytes], bool]
    entries: EntryProblems = field(default_factory=EntryProblems)
    problem: str = ""
    unsettled: bool = False
    tracked: dict[str, TrackedFile] = field(default_factory=dict)
    renamed: set[str] = field(default_factory=set)
    others: dict[str, tuple[str, float]] = field(default_factory=dict)
    unreadable: dict[str, Fingerprint] = field(default_factory=dict)
    changes: int = 0
    piece_settle_s: float = 0.0
    batch: str = ""
    speaks_texts: bool = False
    is_avatar: bool = False
    rest_s: float = 0.0
    is_ordered: bool = False
    names: Names = field(default_factory=Names)
    refusing: Pace = field(default_factory=Pace)
    _other_names: Names = field(default_factory=Names)
    _cut: dict[str, tuple[Fingerprint, bool]] = field(default_factory=dict)
    _jobs_by_content: dict[str, tuple[Fingerprint, bool]] = field(default_factory=dict)
    _skipped: set[str] = field(default_factory=set)
    _fresh: dict[str, float] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _rotation: Iterator[str] = field(default_factory=lambda: iter(()))
    _listing: Pace = field(default_factory=Pace)
    _folder_state: tuple[int, int, int] = (0, 0, 0)
    _same_since_s: float = 0.0
    _is_stale: bool = True

    def scan(self, now_s: float, touched: Collection[str] | None = None) -> bool:
        """Find out what has changed. `touched`: the names that events gave, which are all that a large inbox is
        looked at for; None once in each period.

        False, and `problem` says why, where it can't be read; then nothing is forgotten.
        """
        try:
            with hold_folder(self.folder) as fd:
                known = len(self.tracked) + len(self.others) + len(self._skipped)
                if touched is None or known <= SMALL:
                    self._read(fd, now_s, is_small=known <= SMALL)
                else:
                    self._look_at(fd, touched, now_s)
        except OSError as error:
            self.problem = f"the inbox {self.folder} can't be read: {error.strerror}"
            return False
        self.problem = ""
        self.renamed &= self.tracked.keys()
        return True

    def _read(self, fd: int, now_s: float, *, is_small: bool) -> None:
        """List the folder, if names may have come or gone, and look at what is new, and at a part of the rest."""
        self._note_folder(os.fstat(fd), now_s)
        new: Collection[str] = ()
        if is_small or (self._is_stale and self._listing.is_due(now_s)):
            with self._listing.measure(now_s, 0 if is_small else len(self.tracked)):
                new = self._list(fd)
            self._is_stale = False
        left = [*self.tracked, *self.others] if is_small else list(islice(self._rotation, SLICE))
        if not left:
            self._rotation = iter([*self.tracked, *self.others])
        self._look_at(fd, [*new, *left], now_s)

    def _note_folder(self, status: os.stat_result, now_s: float) -> None:
        """Find out whether names may have come or gone since the last listing."""
        state = status.st_dev, status.st_ino, status.st_mtime_ns
        if state != self._folder_state:
            self._folder_state, self._same_since_s = state, now_s
        self._is_stale |= now_s - self._same_since_s < TIME_STEP_S

    def _list(self, fd: int) -> set[str]:
        """Forget the names that are gone; return the new ones."""
        found = set(os.listdir(fd))
        for name in [name for known in (self.tracked, self.others) for name in known if name not in found]:
            self.forget(name)
        self._skipped &= found
        return {name for name in found if not (name in self.tracked or name in self.others or name in self._skipped)}

    def _look_at(self, fd: int, names: Collection[str], now_s: float) -> None:
        for name in names:
            self._look(fd, name, now_s)

    def _look(self, fd: int, name: str, now_s: float) -> None:
        """Take note of what an entry is now."""
        if is_ignored(name):
            self._skipped.add(name)
            return
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:  # gone meanwhile, or the disk can't say
            self.forget(name)
            return
        kind = kind_of(status.st_mode)
        if kind == "file":
            self._track(name, Fingerprint.from_stat(status), now_s)
        elif name not in self.others or self.others[name][0] != kind:
            self.forget(name)
            self.others[name] = (kind, now_s)
            self._other_names.add(name)
            self._note_change(name)

    def _track(self, name: str, mark: Fingerprint, now_s: float) -> TrackedFile:
        before = self.tracked.get(name)
        if before is not None and before.fingerprint == mark:
            return before
        if before is None:
            self.forget(name)
            self.names.add(name)
        self.tracked[name] = file = TrackedFile(name, mark, now_s)
        self._fresh[name] = now_s
        self._note_change(name)
        return file

    def forget(self, name: str) -> None:
        """Take a name out of what is known of the inbox: it is gone."""
        if self.tracked.pop(name, None) is not None:
            self.names.remove(name)
            self._note_change(name)
        elif self.others.pop(name, None) is not None:
            self._other_names.remove(name)
            self._note_change(name)
        for known in (self.unreadable, self._cut, self._fresh, self._jobs_by_content):
            known.pop(name, None)

    def forget_all(self) -> None:
        """Know nothing of the folder: it can't be read."""
        for name in [*self.tracked, *self.others]:
            self.forget(name)

    def _note_change(self, name: str) -> None:
        self.changes += 1
        self._changed.add(name)

    def take_changed(self) -> set[str]:
        """Return the names that have come, gone or changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def find_names(self, name: str) -> list[str]:
        """Return the entries of that name, in any spelling, links included."""
        return [*self.names.list_spellings(name), *self._other_names.list_spellings(name)]

    def is_file(self, name: str) -> bool:
        """Whether the last scan found a regular file of that name."""
        return name in self.tracked

    def refresh(self, name: str, now_s: float) -> TrackedFile | None:
        """Look at a file once more before it is taken; None where there is no regular file of that name."""
        try:
            status = (self.folder / name).lstat()
        except OSError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        return self._track(name, Fingerprint.from_stat(status), now_s) if name in self.tracked else None

    def is_settled(self, name: str, now_s: float) -> bool:
        """Whether a media file is complete: renamed or quiet, and not open for writing."""
        file = self.refresh(name, now_s)
        if file is None:
            return False
        if file.fingerprint.size == 0:
            rest_s = self.settle_s if name in self.renamed else self._settle_time_s(file)
            return now_s - file.since_s >= rest_s and not self._has_part_beside(name)
        if name not in self.renamed and now_s - file.since_s < self._settle_time_s(file):
            return False
        return is_open_for_writing(self.folder / name) is not True

    def _settle_time_s(self, file: TrackedFile) -> float:
        """Return how long a file must stay unchanged: longer where it promises more than is there."""
        if self.piece_settle_s <= self.settle_s or not (file.fingerprint.size == 0 or self._is_cut(file)):
            return self.settle_s
        return self.piece_settle_s

    def _is_cut(self, file: TrackedFile) -> bool:
        known = self._cut.get(file.name)
        if known is None or known[0] != file.fingerprint:
            known = self._cut[file.name] = file.fingerprint, is_cut(self.folder / file.name)
        return known[1]

    def _has_part_beside(self, name: str) -> bool:
        """Whether an empty file is the placeholder of a download that goes on beside it."""
        stem = Path(name).stem
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - names are all that is needed
        except OSError:
            return False
        return any(other.startswith(stem) and other.lower().endswith(UNFINISHED) for other in names)

    def next_settle_s(self, now_s: float) -> float | None:
        """Return the seconds until the next file may have settled."""
        times_s = {self.settle_s, max(self.settle_s, self.piece_settle_s)}
        waits = [since_s + time_s - now_s for since_s in self._fresh.values() for time_s in times_s]
        self._fresh = {name: since_s for name, since_s in self._fresh.items() if since_s + max(times_s) > now_s}
        return min((wait for wait in waits if wait > 0), default=None)

    # candidates ------------------------------------------------------------------------------------------------------

    def find_candidates(self, now_s: float, in_use: Callable[[], set[Fingerprint]]) -> Iterator[Candidate]:
        """Yield the complete job files, then the complete pairs.

        `in_use()` returns the media that belong to jobs already; it is called only where there may
        be a pair.
        """
        for name in sorted(self.names.job_files):
            if not self.is_blocked(name) and (found := self._check_job_file(name, now_s)) is not None:
                yield found
        if any(not self.names.has_job_file(stem) for stem in self.names.pair_stems):
            yield from self._find_pairs(now_s, in_use())
        if self.is_avatar:
            yield from self._find_voices(now_s, in_use())

    def _find_voices(self, now_s: float, in_use: set[Fingerprint]) -> Iterator[Candidate]:
        """Yield the complete voices that no job file and no face of their stem may belong to."""
        others = [name for name in self.tracked if lower_suffix(name) in AVATAR_SUFFIXES | {".json"}]
        taken = {fold_name(Path(name).stem) for name in others}
        for name in sorted(self.tracked, key=order_voices):
            if not self.is_voice(name) or fold_name(Path(name).stem) in taken:
                continue
            taken.add(fold_name(Path(name).stem))
            files = [other for other in self._list_spoken(name) if self.tracked[other].fingerprint not in in_use]
            if name not in files or any(map(self.is_blocked, files)):
                continue
            if all(self.is_settled(file, now_s) and self._is_quiet(file, now_s) for file in files):
                yield Candidate(Path(name).stem, tuple(files))

    def _list_spoken(self, name: str) -> list[str]:
        """Return a voice, and the text of the same stem that goes along with a sound; none where it is a job file."""
        text = f"{Path(name).stem}{TEXT}"
        if lower_suffix(name) == TEXT:
            return [] if self.holds_job(name) else [name]
        return [name, text] if self.speaks_texts and text in self.tracked else [name]

    def is_blocked(self, name: str) -> bool:
        """Whether the entry could not be handled before, and there is no reason to try it again now."""
        return self.entries.count > 0 and self.entries.is_blocked(self.folder / name)

    def _check_job_file(self, name: str, now_s: float) -> Candidate | None:
        path = self.folder / name
        try:
            with open_fd(open_regular(path)) as fd:
                status, text = os.fstat(fd), read_bytes(fd, self.max_job_bytes + 1)
                writing = is_written_to(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                self.unreadable[name] = self.tracked[name].fingerprint
            self.entries.note(path, "be read", error)
            return None
        mark = self._track(name, Fingerprint.from_stat(status), now_s).fingerprint
        if not self._is_complete(name, text, writing, now_s):
            return None
        return Candidate(path.stem, (name,), text, mark=mark, owner=f"uid:{status.st_uid}")

    def _is_complete(self, name: str, text: bytes, writing: bool | None, now_s: float) -> bool:
        """Whether a job file is whole.

        A JSON object is no proper prefix of another: if it parses, it has its end.
        """
        quiet_s = now_s - self.tracked[name].since_s
        if writing:
            return False
        if self.is_job_file(text):
            return writing is False or name in self.renamed or quiet_s >= self.settle_s
        is_piece = name not in self.renamed and not text.rstrip(b"\0 \r\n\t").endswith(b"}")
        return quiet_s >= max(
            self.settle_s * (1 if writing is False else UNPARSED_GRACE), self.piece_settle_s if is_piece else 0.0
        )

    def holds_job(self, name: str) -> bool:
        """Whether a file of another name is a whole job file by its content."""
        mark = self.tracked[name].fingerprint
        known = self._jobs_by_content.get(name)
        if known is None or known[0] != mark:
            text = read_limited(self.folder / name, self.max_job_bytes) if mark.size <= self.max_job_bytes else None
            known = self._jobs_by_content[name] = mark, text is not None and self.is_job_file(text)
        return known[1]

    def _find_pairs(self, now_s: float, in_use: set[Fingerprint]) -> Iterator[Candidate]:
        """Yield the pairs that are complete: an exact match of the stems comes before one in another spelling."""
        for stem in sorted(self.names.pair_stems):
            halves = self.names.list_halves(stem)
            if sum(self._is_quiet(name, now_s) for name in halves) < 2:
                continue
            names = [name for name in halves if lower_suffix(name) in AVATAR_SUFFIXES or self.is_voice(name)]
            free = [name for name in names if self.tracked[name].fingerprint not in in_use]
            if not self.names.has_job_file(stem) and not any(map(self.is_blocked, free)):
                yield from self._match_halves(free, now_s)

    def _match_halves(self, names: list[str], now_s: float) -> Iterator[Candidate]:
        faces = [name for name in names if lower_suffix(name) in AVATAR_SUFFIXES]
        voices = sorted((name for name in names if self.is_voice(name)), key=order_voices)
        exact = [(face, voice) for face in faces for voice in voices if Path(face).stem == Path(voice).stem]
        for face, voice in exact or [(face, voice) for face in faces for voice in voices]:
            if face not in faces or voice not in voices or (lower_suffix(voice) == TEXT and self.holds_job(voice)):
                continue
            if all(self._is_quiet(half, now_s) and self._stays_quiet(half, now_s) for half in (face, voice)):
                faces.remove(face)
                voices.remove(voice)
                stem = Path(face).stem
                left = [name for name in (*faces, *voices) if Path(name).stem == stem]
                yield Candidate(stem, (face, voice), left=tuple(left))

    def is_voice(self, name: str) -> bool:
        """Whether the name is one of a sound, or of a text that is spoken."""
        return lower_suffix(name) in AUDIO_SUFFIXES or (self.speaks_texts and lower_suffix(name) == TEXT)

    def _is_quiet(self, name: str, now_s: float) -> bool:
        return now_s - self.tracked[name].since_s >= max(self.settle_s, self.rest_s)

    def _stays_quiet(self, name: str, now_s: float) -> bool:
        """Whether a quiet file is complete, and still quiet now that it was looked at again."""
        return self.is_settled(name, now_s) and self._is_quiet(name, now_s)

    # claims ----------------------------------------------------------------------------------------------------------

    def claim(self, candidate: Candidate, uid: str) -> Submission | None:
        """Move the files into the job's own folder; None if one of them is gone from the inbox, or can't be moved.

        `sync_claims` makes the claim survive a power cut. Raises OSError where nothing can be claimed at all.
        """
        target = self.claimed / uid
        owner = candidate.owner or read_owner(self.folder / candidate.files[0])
        if not self._take_all(candidate, target):
            self.settle_claim(target)
            return None
        name = to_text(candidate.name)
        if candidate.text is None:
            is_pair = lower_suffix(candidate.files[0]) in AVATAR_SUFFIXES
            media = candidate.files if is_pair else candidate.files[:1]
            return Submission(uid, name, target, None, media, owner, self.batch, candidate.files)
        if take_fingerprint(target / candidate.files[0]) == candidate.mark:
            return Submission(uid, name, target, candidate.text, (), owner, self.batch, candidate.files)
        return self.settle_claim(target, owner)  # it was changed after it was read: what was taken counts

    def claim_refused(self, candidate: Candidate, uid: str) -> Submission | None:
        """Move files that can't be a job into a folder of their own; None where that is not possible."""
        target, owner = self.claimed / uid, read_owner(self.folder / candidate.files[0])
        if not self._take_all(candidate, target):
            self.settle_claim(target)
            return None
        return Submission(uid, to_text(candidate.name), target, b"", owner=owner)

    def _take_all(self, candidate: Candidate, target: Path) -> bool:
        make_folders([target])
        if self.batch:
            atomic_write_bytes(target / BATCH_FILE, self.batch.encode(), durable=False)
        if not all(self._take(self.folder / name, target) for name in candidate.files):
            return False
        for name in candidate.files:
            self.forget(name)
        return True

    def _take(self, path: Path, target: Path) -> bool:
        """Move a file into a claim; False, and its problem is noted, where that is not possible."""
        try:
            move(path, target / path.name)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.entries.note(path, "be moved", error)
            return False
        self.entries.clear(path)
        return True

    def settle_claim(self, folder: Path, owner: str = "") -> Submission | None:
        """Return what was claimed into the folder; half a pair goes back into the inbox.

        None, too, where the folder can't be read or emptied; then it is settled later.
        """
        submission = None
        with self.entries.guard(folder, "be taken up"):
            submission = read_submission(folder, owner, self.max_job_bytes)
            if submission is None:
                self._give_back(folder)
        return submission

    def sync_claims(self, submissions: Sequence[Submission]) -> None:
        """Make the claims survive a power cut: many at once cost little more than one."""
        self.unsettled |= bool(submissions)
        if not self.is_ordered:
            map_parallel(sync, [submission.folder for submission in submissions])
        if submissions:
            sync(self.claimed)

    @property
    def may_have_unsettled(self) -> bool:
        """Whether claims may have no row, but those of a crash."""
        return self.unsettled or self.entries.has_below(self.claimed)

    def recover_claims(self, has_row: Callable[[str], bool]) -> Iterator[Submission]:
        """Yield the claims without a row; half a pair goes back into the inbox."""
        folders: list[Path] = []
        with self.entries.guard(self.claimed, "be read"):
            folders = [self.claimed / name for name in list_names(self.claimed) if not is_ignored(name)]
            self.unsettled = False
        for folder in folders:
            if self.entries.is_blocked(folder):
                continue
            if not is_utf8(folder.name) or folder.is_symlink() or not is_folder(folder):
                self.entries.note(folder, "be taken up", "it is no folder of ours")
            elif not has_row(folder.name) and (submission := self.settle_claim(folder)) is not None:
                yield submission

    def _give_back(self, folder: Path) -> None:
        batch = read_batch(folder)
        home = self.folder / batch if batch and not self.batch else self.folder
        for name in list_names(folder):
            if name != BATCH_FILE:
                move_into(folder / name, home if is_folder(home) else self.folder, name)
        remove(folder)

    def find_controls(self, now_s: float) -> Iterator[Control]:
        """Yield the control files of the last scan, but those that are being written or could not be handled."""
        for name in sorted(self.names.controls):
            verb = lower_suffix(name)
            if self.is_blocked(name) or (verb in WITH_CONTENT and not self._is_whole_control(name, now_s)):
                continue
            if verb in CONTROLS:
                yield Control(to_text(Path(name).stem), verb[1:], self.folder / name)
            elif switch := SWITCHES.get(name.lower()):
                yield Control("", switch, self.folder / name)

    def _is_whole_control(self, name: str, now_s: float) -> bool:
        file = self.tracked.get(name)
        is_empty_retry = lower_suffix(name) == ".retry" and file is not None and file.fingerprint.size == 0
        return is_empty_retry or self.is_settled(name, now_s)

    def may_become_job(self, name: str, now_s: float, patience_s: float) -> bool:
        """Whether files of a job of that name have come, or were written, only just now."""
        files = (self.tracked.get(part) for part in self.names.list_parts(fold_name(name)))
        longest_s = max(self.settle_s, self.piece_settle_s) + patience_s
        return any(now_s - file.since_s < longest_s for file in files if file is not None)

    def remove_control(self, control: Control) -> bool:
        """Remove a control file that was carried out; False, and its problem is noted, where it has to stay."""
        with self.entries.guard(control.path, "be removed"):
            with suppress(FileNotFoundError):
                unlink(control.path)
            self.forget(control.path.name)
            return True
        return False


def read_submission(folder: Path, owner: str, max_job_bytes: int) -> Submission | None:
    """Read a claimed folder; None if it holds neither a job file nor a pair.

    Later changes of the file don't count.
    """
    names, batch = list_names(folder), read_batch(folder)
    job_files = [name for name in names if lower_suffix(name) == ".json"]
    if job_files:
        text = read_limited(folder / job_files[0], max_job_bytes)
        return Submission(folder.name, to_text(Path(job_files[0]).stem), folder, text or b"", (), owner, batch)
    avatar = [name for name in names if lower_suffix(name) in AVATAR_SUFFIXES]
    voices = sorted((name for name in names if lower_suffix(name) in AUDIO_SUFFIXES | {TEXT}), key=order_voices)
    if not voices or not (avatar or batch):
        return None
    media = (avatar[0], voices[0]) if avatar else (voices[0],)
    return Submission(folder.name, to_text(Path(media[0]).stem), folder, None, media, owner, batch)


def read_batch(folder: Path) -> str:
    """Return the folder of the inbox that a claim came from, "" for the inbox itself."""
    return (read_limited(folder / BATCH_FILE, LONGEST_BATCH_BYTES) or b"").decode("utf-8", "replace")


def read_owner(path: Path) -> str:
    """Return the owner of a file as "uid:1000", "" if there is no such file."""
    try:
        return f"uid:{path.lstat().st_uid}"
    except OSError:
        return ""


def to_text(name: str) -> str:
    """Return a file name as text; bytes that are not UTF-8 become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def order_voices(name: str) -> tuple[bool, str]:
    """Order sounds before texts: a text is spoken only where there is no sound."""
    return lower_suffix(name) == TEXT, name


def is_ignored(name: str) -> bool:
    """Whether the name is one that programs use while they write, or clutter of a desktop."""
    low = name.lower()
    return low.startswith((".", "~$")) or low.endswith(UNFINISHED) or low in CLUTTER or ":zone.identifier" in low


def kind_of(mode: int) -> str:
    """Return what an entry is called; only regular files are ever part of a job."""
    kinds = {stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFDIR: "folder"}
    return kinds.get(stat.S_IFMT(mode), "special")
