"""What is in the inbox and becomes no job: after a while the share says so, and why."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.clock import Pace
from agent.errors import ErrorCode
from agent.fs import Fingerprint
from agent.intake.folders import InboxFolders
from agent.intake.names import (
    CONTROLS,
    FACES,
    FOREIGN_FACES,
    FOREIGN_VOICES,
    SWITCHES,
    TEXT,
    TEXTS,
    VOICES,
    lower_suffix,
)
from agent.intake.paths import fold_name
from agent.intake.scanner import Candidate, Inbox, to_text
from agent.intake.unpack import ARCHIVES
from agent.jobs.json_text import BadJob
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES

log = logging.getLogger("musedrop")

SHOWN, LISTED = 3, 100
"""Entries that are named in the problem, and in status.json."""
AS_FACE, AS_VOICE = "convert it to JPEG, PNG or MP4", "convert it to WAV, MP3 or FLAC"


@dataclass(frozen=True, slots=True)
class IgnoredEntry:
    """An entry that becomes no job, why, and what to do."""

    name: str
    reason: str
    hint: str

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "reason": self.reason, "hint": self.hint}


class IgnoredEntries:
    """The entries that have been in the inbox for the settle time and `patience_s` and are part of no job.

    `taken` holds the names that were taken out of the inbox, or left by a pair, each with what became of it;
    its keys are folded.
    """

    def __init__(self, inbox: Inbox, folders: InboxFolders | None = None) -> None:
        self._inbox, self._folders = inbox, folders
        self.patience_s = 0.0
        self.rows: list[IgnoredEntry] = []
        self.taken: dict[str, tuple[str, str]] = {}
        self._said: set[str] = set()
        self._seen: object = None
        self._due_s = 0.0
        self.texts: list[str] = []
        """One sentence on all of them, but folders, which people may keep media in."""
        self._telling = Pace()

    def note_taken(self, name: str, sentence: str) -> None:
        """Remember a name that may come back."""
        self.taken.pop(fold_name(name), None)
        self.taken[fold_name(name)] = name, sentence
        if len(self.taken) > 4096:
            del self.taken[next(iter(self.taken))]

    def update(self, now_s: float, in_use: Callable[[], tuple[set[Fingerprint], set[str]]]) -> None:
        """Look at what the last scan found, if that has changed or a time has passed.

        `in_use()` returns the media of jobs, and the names, folded, that waiting jobs give.
        """
        inbox = self._inbox
        seen = (inbox.changes, inbox.entries.count, self._folders and self._folders.changes)
        if (seen == self._seen and now_s < self._due_s) or not self._telling.is_due(now_s):
            return
        self._seen = seen
        with self._telling.measure(now_s, len(inbox.tracked) + len(inbox.others)):
            self._update(now_s, in_use)

    def _update(self, now_s: float, in_use: Callable[[], tuple[set[Fingerprint], set[str]]]) -> None:
        inbox = self._inbox
        old_s = now_s - inbox.settle_s - self.patience_s
        since = [*(file.since_s for file in inbox.tracked.values()), *(since for _, since in inbox.others.values())]
        self._due_s = min((s for s in since if s > old_s), default=float("inf")) + inbox.settle_s + self.patience_s
        rested = sorted(name for name, file in inbox.tracked.items() if file.since_s <= old_s and _may_be_told(name))
        if rested:
            used, named = in_use()
            rested = [name for name in rested if fold_name(name) not in named]
            rested = [name for name in rested if inbox.tracked[name].fingerprint not in used]
        self.rows = [self._explain(name) for name in rested if inbox.folder / name not in inbox.entries]
        old = [(name, kind) for name, (kind, since) in inbox.others.items() if since <= old_s]
        others = sorted((name, kind) for name, kind in old if os.path.lexists(inbox.folder / name))
        self.rows += [IgnoredEntry(to_text(name), *self._explain_other(name, kind)) for name, kind in others]
        self._say_new()

    def _say_new(self) -> None:
        names = {row.name for row in self.rows}
        new = [row for row in self.rows if row.name not in self._said]
        for row in new[:LISTED]:
            log.warning("%s is ignored: %s; %s", row.name, row.reason, row.hint)
        if len(new) > LISTED:
            log.warning("%d more entries of the inbox are ignored", len(new) - LISTED)
        self._said = names
        self.texts = self._describe()

    def _describe(self) -> list[str]:
        rows = [row for row in self.rows if row.hint != FOLDER[1]]
        if not rows:
            return []
        named = ", ".join(f'"{row.name}" ({row.reason})' for row in rows[:SHOWN])
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        return [f"the inbox holds what is no job: {named}{more}; `musedrop status` says what to do"]

    def list_rows(self) -> list[dict[str, str]]:
        """Return the rows of status.json."""
        return [row.to_dict() for row in self.rows[:LISTED]]

    def _explain(self, name: str) -> IgnoredEntry:
        if taken := self.taken.get(fold_name(name)):
            return IgnoredEntry(to_text(name), *_explain_taken(name, *taken))
        is_control = lower_suffix(name) in TEXTS and lower_suffix(Path(name).stem) in CONTROLS
        if self._inbox.tracked[name].fingerprint.size == 0 and not is_control:
            return IgnoredEntry(to_text(name), "it is empty", "write its content, or remove it")
        if lower_suffix(name) == TEXT and not is_control and (told := self._explain_text(name)):
            return IgnoredEntry(to_text(name), *told)
        if self._has_other_half(name):
            return IgnoredEntry(to_text(name), *OTHER_HALF)
        return IgnoredEntry(to_text(name), *_explain_kind(name))

    def _has_other_half(self, name: str) -> bool:
        """Whether there is a voice beside a face, or a face beside a voice: since they are no pair, it is a job's."""
        if lower_suffix(name) not in AVATAR_SUFFIXES | AUDIO_SUFFIXES:
            return False
        beside = {lower_suffix(one) for one in self._inbox.names.list_halves(fold_name(Path(name).stem))}
        return bool(beside & (AUDIO_SUFFIXES if lower_suffix(name) in AVATAR_SUFFIXES else AVATAR_SUFFIXES))

    def _explain_other(self, name: str, kind: str) -> tuple[str, str]:
        if kind == "folder":
            return (self._folders and self._folders.explain(name)) or FOLDER
        if kind == "link":
            return "a link is not followed", "copy the file itself into the inbox"
        return "it is no regular file", "remove it"

    def _explain_text(self, name: str) -> tuple[str, str] | None:
        """Return why a text is not spoken, and what to do; None where it isn't meant to be."""
        stem = to_text(Path(name).stem)
        if self._inbox.speaks_texts:
            return "a text without a face", f"put {stem}.jpg beside it, or a job file that names it"
        beside = self._inbox.names.list_halves(fold_name(Path(name).stem))
        if any(lower_suffix(one) in AVATAR_SUFFIXES for one in beside):
            return "a text is spoken only where [speech] names a program", f"set speech.command, or add {stem}.wav"
        return None

    # what was surely meant as a job ----------------------------------------------------------------------------------

    def find_refused(self, now_s: float, inbox: Inbox | None = None) -> Iterator[tuple[Candidate, BadJob]]:
        """Yield what was surely meant as a job, and why it can't be one. `inbox`: one of its folders, else itself."""
        inbox = inbox or self._inbox
        if not inbox.refusing.is_due(now_s):
            return
        with inbox.refusing.measure(now_s, len(inbox.names.texts) + len(inbox.names.pair_stems)):
            old_s = now_s - inbox.settle_s - self.patience_s
            found = [*_find_odd_job_files(inbox, old_s), *_find_odd_pairs(inbox, old_s)]
        yield from found


def _explain_taken(name: str, taken: str, sentence: str) -> tuple[str, str]:
    if name != taken:
        return f'it differs from "{to_text(taken)}", which a job took, only in case or accents', "give it another name"
    return sentence, "write to another name, and rename the file when it is whole"


def _is_old(inbox: Inbox, name: str, old_s: float) -> bool:
    return inbox.tracked[name].since_s <= old_s and not inbox.is_blocked(name)


def _find_odd_job_files(inbox: Inbox, old_s: float) -> Iterator[tuple[Candidate, BadJob]]:
    for name, mark in sorted(inbox.unreadable.items()):
        file = inbox.tracked.get(name)
        if file and file.fingerprint == mark and file.since_s <= old_s:
            bad = BadJob(ErrorCode.NOT_READABLE, "the job file can't be read", ErrorCode.NOT_READABLE.hint)
            yield Candidate(Path(name).stem, (name,)), bad
    for name in sorted(inbox.names.texts):
        if _is_old(inbox, name, old_s) and inbox.holds_job(name):
            stem = Path(name).stem.removesuffix(".json")
            message = f'"{to_text(name)}" holds a job, but its name doesn\'t end in .json'
            hint = f"rename it to {to_text(stem)}.json; Windows may hide the end of a name"
            yield Candidate(stem, (name,)), _refuse(message, hint)


def _find_odd_pairs(inbox: Inbox, old_s: float) -> Iterator[tuple[Candidate, BadJob]]:
    for stem in sorted(inbox.names.pair_stems):
        halves = [name for name in inbox.names.list_halves(stem) if lower_suffix(name) != TEXT]
        yield from _find_refused_pair([name for name in halves if _is_old(inbox, name, old_s)])


def _find_refused_pair(names: list[str]) -> Iterator[tuple[Candidate, BadJob]]:
    """Yield a face and a voice of one name, one of which is of a kind that is not read."""
    faces = [name for name in names if lower_suffix(name) in FACES]
    voices = [name for name in names if lower_suffix(name) in VOICES]
    foreign = [name for name in names if lower_suffix(name) in FOREIGN_FACES | FOREIGN_VOICES]
    if len(faces) == len(voices) == 1 and foreign:
        hint = AS_FACE if foreign[0] in faces else AS_VOICE
        message = f'"{to_text(foreign[0])}" is of a kind that is not read'
        yield Candidate(Path(faces[0]).stem, (faces[0], voices[0])), _refuse(message, hint)


def _refuse(message: str, hint: str) -> BadJob:
    return BadJob(ErrorCode.UNSUPPORTED_FILE, message, hint)


def _may_be_told(name: str) -> bool:
    """Whether the scanner neither takes it as a job file nor as a control file."""
    return lower_suffix(name) not in {".json", *CONTROLS} and name.lower() not in SWITCHES


OTHER_HALF = (
    "the other file of that name belongs to a job that names it",
    "put a job file that names both, or copy both under another name",
)
FOLDER = ("a folder: only jobs and pairs in it are taken", "put job files, or a face and a voice of one name, into it")


def _explain_kind(name: str) -> tuple[str, str]:
    """Return why a file alone is no job, and what to do."""
    stem, suffix = to_text(Path(name).stem), lower_suffix(name)
    if suffix in TEXTS and (verb := lower_suffix(stem)) in CONTROLS:
        return f"a control file's name ends in {verb}", f"rename it to {stem}; Windows may hide the end of a name"
    if suffix in AVATAR_SUFFIXES:
        return "a face without a voice", f"put {stem}.wav beside it, or a job file that names it"
    if suffix in AUDIO_SUFFIXES:
        return "a voice without a face", f"put {stem}.jpg beside it, or a job file that names it"
    if suffix in FOREIGN_FACES:
        return "pictures and videos of this kind are not read", AS_FACE
    if suffix in FOREIGN_VOICES:
        return "sounds of this kind are not read", AS_VOICE
    if suffix == ".zip":
        return "no job file and no pair is in this archive", "put one into it, or unpack it here"
    if suffix in ARCHIVES:
        return "archives of this kind are not opened", "unpack it, and put its files into the inbox, or pack a .zip"
    if suffix in TEXTS or ".json" in name.lower():
        return "a job file's name ends in .json", f"rename it to {stem.removesuffix('.json')}.json, if it is one"
    return "it is no job file, picture, video or sound of a kind that is read", "remove it, or convert it"
