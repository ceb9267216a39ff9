"""Scans of the inbox: which files are there, which of them are complete, and how they are claimed.

A scan reads the folder anew and is always right; the watcher only makes the next one come sooner.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.fs import (
    Fingerprint,
    atomic_write_bytes,
    is_folder,
    is_open_for_writing,
    map_parallel,
    move_into,
    read_limited,
    read_regular,
)
from agent.fs.folders import hold_folder, list_names, make_folders, move, remove, sync, unlink
from agent.intake.cut_files import is_cut
from agent.intake.paths import fold_name, is_utf8
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES
from agent.service.entry_problems import EntryProblems

CONTROLS = (".cancel", ".retry", ".drain", ".resume", ".unload")
SWITCHES = {f"{verb}{suffix}": verb for verb in ("pause", "resume", "trust-clock") for suffix in ("", ".txt")}
"""Control files of the whole queue; Windows gives every new file a suffix."""
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", "~")
CLUTTER = {"thumbs.db", "desktop.ini", "4913"}
BATCH_FILE, LONGEST_BATCH_BYTES = ".batch", 255
"""The file in a claim that names the folder of the inbox it came from."""
TEXT = ".txt"
"""The suffix of a text that may be spoken."""
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

    `left`: files of the same name that a pair doesn't need.
    """

    name: str
    files: tuple[str, ...]
    text: bytes | None = None
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """What was claimed to become a job: a job file's text, a pair of media (avatar, audio), or a voice alone.

    `batch`: the folder of the inbox that it came in, which names the avatar of a voice alone; "" for the inbox itself.
    """

    uid: str
    name: str
    folder: Path
    text: bytes | None
    media: tuple[str, ...] = ()
    owner: str = ""
    batch: str = ""

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
    is_avatar    whether it has the name of a library avatar: then a voice alone is a job
    rest_s       how long media stay unchanged before they are a job without a job file
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
    _cut: dict[str, tuple[Fingerprint, bool]] = field(default_factory=dict)

    def scan(self, now_s: float) -> bool:
        """Read the folder once.

        False, and `problem` says why, where it can't be read; then nothing is forgotten.
        """
        try:
            found = list(list_entries(self.folder))
        except OSError as error:
            self.problem = f"the inbox {self.folder} can't be read: {error.strerror}"
            return False
        self.problem = ""
        before = self.tracked, self.others
        self.tracked = {name: self._track(name, mark, now_s) for name, kind, mark in found if kind == "file"}
        self.others = {
            name: self.others[name] if self.others.get(name, ("", 0.0))[0] == kind else (kind, now_s)
            for name, kind, _ in found
            if kind != "file"
        }
        self.changes += before != (self.tracked, self.others)
        self.renamed &= self.tracked.keys()
        self.unreadable = {name: mark for name, mark in self.unreadable.items() if name in self.tracked}
        self._cut = {name: known for name, known in self._cut.items() if name in self.tracked}
        return True

    def _track(self, name: str, mark: Fingerprint, now_s: float) -> TrackedFile:
        before = self.tracked.get(name)
        return before if before and before.fingerprint == mark else TrackedFile(name, mark, now_s)

    def is_settled(self, name: str, now_s: float) -> bool:
        """Whether a media file is complete: renamed or quiet, and not open for writing."""
        file = self.tracked.get(name)
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
        waits = [file.since_s + time_s - now_s for file in self.tracked.values() for time_s in times_s]
        return min((wait for wait in waits if wait > 0), default=None)

    # candidates ------------------------------------------------------------------------------------------------------

    def find_candidates(self, now_s: float, in_use: Callable[[], set[Fingerprint]]) -> Iterator[Candidate]:
        """Yield the complete job files, then the complete pairs.

        `in_use()` returns the media that belong to jobs already; it is called only where there may
        be a pair.
        """
        for name in sorted(self.tracked):
            if lower_suffix(name) != ".json" or self.entries.is_blocked(self.folder / name):
                continue
            if (found := self._check_job_file(name, now_s)) is not None:
                yield found
        if self._may_have_pair():
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
            if name not in files or any(self.entries.is_blocked(self.folder / file) for file in files):
                continue
            if all(self._is_quiet(file, now_s) and self.is_settled(file, now_s) for file in files):
                yield Candidate(Path(name).stem, tuple(files))

    def _list_spoken(self, name: str) -> list[str]:
        """Return a voice, and the text of the same stem that goes along with a sound; none where it is a job file."""
        text = f"{Path(name).stem}{TEXT}"
        if lower_suffix(name) == TEXT:
            return [] if self.holds_job(name) else [name]
        return [name, text] if self.speaks_texts and text in self.tracked else [name]

    def _check_job_file(self, name: str, now_s: float) -> Candidate | None:
        path = self.folder / name
        try:
            text = read_regular(path, self.max_job_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                self.unreadable[name] = self.tracked[name].fingerprint
            self.entries.note(path, "be read", error)
            return None
        if not self._is_complete(name, text, is_open_for_writing(path), now_s):
            return None
        return Candidate(path.stem, (name,), text)

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
        if self.tracked[name].fingerprint.size > self.max_job_bytes:
            return False
        text = read_limited(self.folder / name, self.max_job_bytes)
        return text is not None and self.is_job_file(text)

    def _may_have_pair(self) -> bool:
        """Whether an avatar and an audio file have the same stem, in any spelling."""
        names = [Path(name) for name in self.tracked]
        sounds = {fold_name(path.stem) for path in names if self.is_voice(path.name)}
        return any(fold_name(path.stem) in sounds for path in names if path.suffix.lower() in AVATAR_SUFFIXES)

    def _find_pairs(self, now_s: float, in_use: set[Fingerprint]) -> Iterator[Candidate]:
        """Yield the pairs that are complete: an exact match of the stems comes before one in another spelling."""
        job_stems = {fold_name(Path(name).stem) for name in self.tracked if lower_suffix(name) == ".json"}
        halves: dict[str, list[str]] = {}
        for name in sorted(self.tracked):
            if lower_suffix(name) in AVATAR_SUFFIXES or self.is_voice(name):
                halves.setdefault(fold_name(Path(name).stem), []).append(name)
        for stem, names in halves.items():
            free = [name for name in names if self.tracked[name].fingerprint not in in_use]
            if stem not in job_stems and not any(self.entries.is_blocked(self.folder / name) for name in free):
                yield from self._match_halves(free, now_s)

    def _match_halves(self, names: list[str], now_s: float) -> Iterator[Candidate]:
        faces = [name for name in names if lower_suffix(name) in AVATAR_SUFFIXES]
        voices = sorted((name for name in names if self.is_voice(name)), key=order_voices)
        exact = [(face, voice) for face in faces for voice in voices if Path(face).stem == Path(voice).stem]
        for face, voice in exact or [(face, voice) for face in faces for voice in voices]:
            if face not in faces or voice not in voices or (lower_suffix(voice) == TEXT and self.holds_job(voice)):
                continue
            if all(self._is_quiet(half, now_s) and self.is_settled(half, now_s) for half in (face, voice)):
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

    # claims ----------------------------------------------------------------------------------------------------------

    def claim(self, candidate: Candidate, uid: str) -> Submission | None:
        """Move the files into the job's own folder; None if one of them is gone from the inbox, or can't be moved.

        `sync_claims` makes the claim survive a power cut. Raises OSError where nothing can be claimed at all.
        """
        target = self.claimed / uid
        make_folders([target])
        if self.batch:
            atomic_write_bytes(target / BATCH_FILE, self.batch.encode(), durable=False)
        owner = read_owner(self.folder / candidate.files[0])
        for name in candidate.files:
            if not self._take(self.folder / name, target):
                self.settle_claim(target)
                return None
        for name in candidate.files:
            self.tracked.pop(name, None)
        return self.settle_claim(target, owner)

    def claim_refused(self, candidate: Candidate, uid: str) -> Submission | None:
        """Move files that can't be a job into a folder of their own; None where that is not possible."""
        target = self.claimed / uid
        make_folders([target])
        owner = read_owner(self.folder / candidate.files[0])
        if not all(self._take(self.folder / name, target) for name in candidate.files):
            self.settle_claim(target)
            return None
        for name in candidate.files:
            self.tracked.pop(name, None)
        return Submission(uid, to_text(candidate.name), target, b"", owner=owner)

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

    def find_controls(self) -> Iterator[Control]:
        """Yield the control files of the last scan, but those that could not be handled."""
        for name in sorted(self.tracked):
            verb = lower_suffix(name)
            if self.entries.is_blocked(self.folder / name):
                continue
            if verb in CONTROLS:
                yield Control(to_text(Path(name).stem), verb[1:], self.folder / name)
            elif switch := SWITCHES.get(name.lower()):
                yield Control("", switch, self.folder / name)

    def remove_control(self, control: Control) -> bool:
        """Remove a control file that was carried out; False, and its problem is noted, where it has to stay."""
        with self.entries.guard(control.path, "be removed"):
            with suppress(FileNotFoundError):
                unlink(control.path)
            self.tracked.pop(control.path.name, None)
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


def lower_suffix(name: str) -> str:
    return Path(name).suffix.lower()


def is_ignored(name: str) -> bool:
    """Whether the name is one that programs use while they write, or clutter of a desktop."""
    low = name.lower()
    return low.startswith((".", "~$")) or low.endswith(UNFINISHED) or low in CLUTTER or ":zone.identifier" in low


def list_entries(folder: Path) -> Iterator[tuple[str, str, Fingerprint]]:
    """Yield the entries of a folder: each name, "file", "link", "folder" or "special", and its fingerprint."""
    with hold_folder(folder) as fd, os.scandir(fd) as entries:
        for entry in entries:
            if is_ignored(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # gone meanwhile, or the disk can't say
                continue
            yield entry.name, kind_of(status.st_mode), Fingerprint.from_stat(status)


def kind_of(mode: int) -> str:
    """Return what an entry is called; only regular files are ever part of a job."""
    kinds = {stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFDIR: "folder"}
    return kinds.get(stat.S_IFMT(mode), "special")
