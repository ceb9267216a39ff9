"""Where the media of a job are.

A job file names files; only those inside the allowed folders are ever opened.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from secrets import randbits
from typing import Any, Protocol

from agent.errors import ErrorCode
from agent.fs import Fingerprint, follow_links, open_fd, take_fingerprint
from agent.intake.paths import PathLookup, fold_name, is_utf8
from agent.jobs.json_text import BadJob
from agent.jobs.spec import AVATAR_SUFFIXES, URL, JobSpec
from models.inputs import take_sample
from models.nofollow import open_nofollow

Role = str
"""What a medium is for: "avatar", "audio" or a further one of the job file."""
WRITTEN = "has arrived, and is taken as soon as it is known to be complete"
ABSENT = "has not arrived in the inbox"
WINDOWS_PATH = re.compile(r"^([A-Za-z]:/|//)")


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of a job, as it was when the job was queued.

    given   its name in the job file
    sample  `take_sample` of it; empty where nothing could be read of it
    """

    given: str
    path: Path
    fingerprint: Fingerprint
    sample: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        mark = self.fingerprint
        return {
            "given": self.given,
            "path": str(self.path),
            "inode": mark.inode,
            "size": mark.size,
            "mtime_ns": mark.mtime_ns,
            "sample": list(self.sample),
        }


@dataclass(frozen=True, slots=True)
class MissingMedia:
    """A file that has not arrived yet, or can't be read; `reason` is the text for `waiting_for`."""

    reason: str
    code: ErrorCode = ErrorCode.MISSING_MEDIA


class InboxFiles(Protocol):
    """What the last scan knows of the inbox."""

    def find_names(self, name: str) -> list[str]:
        """Return the entries of that name, in any spelling."""
        ...

    def is_file(self, name: str) -> bool:
        """Whether the entry is a regular file."""
        ...

    def take_settled(self, name: str) -> Fingerprint | None:
        """Return the fingerprint of a file, None while it is still being written."""
        ...


@dataclass(frozen=True, slots=True)
class MediaFinder:
    """Finds media in the folders that a job may read from.

    is_settled  whether a file is complete
    path_map    a folder as other machines call it, `D:\\in` or `\\\\nas\\media` -> the folder here
    files       the inbox as it was scanned; without it the folder itself is asked
    """

    inbox: Path
    avatars: Path
    roots: tuple[Path, ...]
    is_settled: Callable[[Path], bool]
    path_map: Mapping[str, Path] = field(default_factory=dict)
    lookup: PathLookup = field(default_factory=PathLookup)
    files: InboxFiles | None = None
    _found: dict[tuple[str, str], MediaFile | MissingMedia] = field(default_factory=dict)
    _inputs: dict[Path, set[str] | None] = field(default_factory=dict)

    def begin_turn(self) -> None:
        """Look anew for what was found in the last turn."""
        self._found.clear()

    def find(
        self, spec: JobSpec, inputs: Path, claimed: Iterable[str] | None = None
    ) -> dict[Role, MediaFile] | MissingMedia:
        """Return the media of a job by their role, or the first that is missing.

        `inputs`: the folder of its claimed files. `claimed`: their names, where they are known.

        Raises BadJob for a path outside the allowed folders.
        """
        self._inputs.clear()
        if claimed is not None:
            self._inputs[inputs] = set(map(fold_name, claimed))
        library, allowed = spec.library_name, self.list_allowed(inputs)
        beside = [inputs, self.inbox / spec.batch, self.inbox] if spec.batch else [inputs, self.inbox]
        avatar = (
            self._find_named(library, spec.avatar, beside, allowed)
            if library
            else self._find_file("avatar", spec.avatar or "", beside, allowed)
        )
        if isinstance(avatar, MissingMedia):
            return avatar
        found = {"avatar": avatar}
        for role, name in spec.media_names.items():
            medium = self._find_file(role, name, beside, allowed)
            if isinstance(medium, MissingMedia):
                return medium
            found[role] = medium
        return found

    def find_left(self, names: Mapping[str, str | None], batch: str = "") -> dict[str, MediaFile]:
        """Return those of the named files that are in the inbox: they follow the job, also if it never runs."""
        found = {}
        for role, given in names.items():
            path = PurePosixPath((given or "").replace("\\", "/"))
            if not path.name or "\0" in path.name or path.is_absolute() or ".." in path.parts:
                continue
            if self.files is not None and not batch and path.parts[1:] == () and not self.files.find_names(path.name):
                continue
            try:
                file = self.lookup.find(self.inbox / batch, path) or self.lookup.find(self.inbox, path)
            except (OSError, ValueError):
                continue
            if file is not None and (fingerprint := take_fingerprint(file)) is not None:
                found[role] = MediaFile(str(given), file, fingerprint)
        return found

    def _find_named(
        self, library: str, avatar: str | None, beside: Sequence[Path], allowed: Sequence[Path]
    ) -> MediaFile | MissingMedia:
        """Find an avatar of the library, else a file of that name, whatever its suffix."""
        found = self._find_avatar(library, allowed)
        if avatar is None or isinstance(found, MediaFile):
            return found
        file = self._find_file("avatar", avatar, beside, allowed)
        arrived = isinstance(file, MediaFile) or file.reason.endswith(WRITTEN)
        return file if arrived else found

    def _find_avatar(self, name: str, allowed: Sequence[Path]) -> MediaFile | MissingMedia:
        """Find an avatar of the library: the file avatars/NAME.jpg, .png, .mp4 ..., or the folder avatars/NAME."""
        try:
            found = self.lookup.find_avatar(self.avatars, name, AVATAR_SUFFIXES)
        except OSError as error:
            return MissingMedia(f'avatar "{name}": {describe_unreadable(self.avatars, error)}')
        if found is None:
            near = self._suggest_avatar(name)
            return MissingMedia(f'avatar "{name}": the library has no avatar of that name{near}')
        return self._check_file("avatar", name, found, allowed)

    def _suggest_avatar(self, name: str) -> str:
        """Return "; did you mean anna?" for the nearest avatar, "" where none is near."""
        stems = {fold_name(stem): stem for stem in self.lookup.list_stems(self.avatars, AVATAR_SUFFIXES)}
        near = difflib.get_close_matches(fold_name(name)[:64], [stem[:64] for stem in stems], n=1)
        return f"; did you mean {stems.get(near[0], near[0])}?" if near else ""

    def _find_file(
        self, role: Role, given: str, beside: Sequence[Path], allowed: Sequence[Path]
    ) -> MediaFile | MissingMedia:
        known = self._found.get((role, given)) if beside[1:] == [self.inbox] else None
        if known is not None and not self._has_entry(beside[0], PurePosixPath(given.replace("\\", "/")).name):
            return known
        places = self._list_places(role, given, beside)
        if (claimed := self._find_claimed(role, given, places[0], beside[0])) is not None:
            return claimed
        if self.files is not None and [folder for folder, _ in places[1:]] == [self.inbox]:
            (inputs, name), _ = places
            if len(name.parts) == 1 and name.name != ".." and not self._has_entry(inputs, name.name):
                found = self._found[role, given] = self._find_in_inbox(self.files, role, given, name.name, allowed)
                return found
        path, missing = None, ABSENT
        for folder, rest in places:
            try:
                path = path or self.lookup.find(folder, rest)
                path = path or (self._find_pictures(folder, rest) if role == "avatar" else None)
            except OSError as error:
                missing = f"can't be looked for: {describe_unreadable(Path(error.filename or folder), error)}"
        paths = {folder / rest for folder, rest in places} | ({path} if path else set())
        if not all(is_below(real, allowed) for real in map(follow_links, paths)):
            raise make_outside_error(role, given)
        if path is None:
            return MissingMedia(f'{role} "{given}" {missing}')
        return self._check_file(role, given, path, allowed)

    def _find_claimed(
        self, role: Role, given: str, place: tuple[Path, PurePosixPath], inputs: Path
    ) -> MediaFile | MissingMedia | None:
        """Find a plain file in the folder of claimed files, which is ours alone: all is whole, without links."""
        folder, rest = place
        if folder != inputs or len(rest.parts) != 1 or rest.name == "..":
            return None
        path = inputs / rest
        mark = take_fingerprint(path)
        return self._check_rights(role, given, path, mark) if mark else None

    def _find_pictures(self, folder: Path, rest: PurePosixPath) -> Path | None:
        """Return a folder of pictures; none of the inbox, where folders hold jobs."""
        found = self.lookup.find(folder, rest, of_folder=True)
        return None if found is None or follow_links(found).is_relative_to(self.inbox) else found

    def _find_in_inbox(
        self, files: InboxFiles, role: Role, given: str, name: str, allowed: Sequence[Path]
    ) -> MediaFile | MissingMedia:
        """Find an entry of the inbox by the last scan, which costs nothing while it is not there."""
        names = files.find_names(name)
        names = [name] if name in names else names
        if len(names) != 1:
            return MissingMedia(f'{role} "{given}" {ABSENT}')
        path = self.inbox / names[0]
        if not files.is_file(names[0]):
            return self._check_file(role, given, path, allowed)
        mark = files.take_settled(names[0])
        return self._check_rights(role, given, path, mark) if mark else make_unwritten(role, given)

    def _has_entry(self, inputs: Path, name: str) -> bool:
        """Whether the folder of claimed files has such a name, in any spelling, or can't be read."""
        if inputs not in self._inputs:
            try:
                self._inputs[inputs] = set(map(fold_name, os.listdir(inputs)))  # noqa: PTH208 - names are all
            except OSError:
                self._inputs[inputs] = None  # the lookup says what is wrong
        names = self._inputs[inputs]
        return names is None or fold_name(name) in names

    def _list_places(self, role: Role, given: str, beside: Sequence[Path]) -> list[tuple[Path, PurePosixPath]]:
        """Return the folders where the file may be, and its path in each."""
        name = check_name(role, given).replace("\\", "/")
        if (place := map_path(name, self.path_map)) is not None:
            return [place]
        if WINDOWS_PATH.match(name):
            raise make_outside_error(role, given)
        path = PurePosixPath(name)
        return [(Path("/"), path.relative_to("/"))] if path.is_absolute() else [(folder, path) for folder in beside]

    def _check_file(self, role: Role, given: str, path: Path, allowed: Sequence[Path]) -> MediaFile | MissingMedia:
        """Follow the links once; the real path is compared with the allowed folders, recorded, and opened later."""
        real = follow_links(path)
        if not is_below(real, allowed):
            raise make_outside_error(role, given)
        fingerprint = take_fingerprint(real)
        if fingerprint is None and role == "avatar" and not real.is_relative_to(self.inbox):
            fingerprint = take_fingerprint(real, of_folder=True)
        if fingerprint is None or not self.is_settled(real):
            return make_unwritten(role, given)
        return self._check_rights(role, given, real, fingerprint)

    def _check_rights(self, role: Role, given: str, real: Path, fingerprint: Fingerprint) -> MediaFile | MissingMedia:
        if not os.access(real, os.R_OK, effective_ids=True):
            return MissingMedia(f"{role} \"{given}\" can't be read by the daemon's user", ErrorCode.NOT_READABLE)
        return MediaFile(given, real, fingerprint, sample_medium(real))

    def list_allowed(self, inputs: Path) -> list[Path]:
        """Return the folders that a job may read from. Links are followed, but none that users can make."""
        share, others = self.inbox.parent, (*self.roots, *self.path_map.values())
        given = [folder if folder.is_relative_to(share) else follow_links(folder) for folder in others]
        return [self.inbox, self.avatars, inputs, *given]


def sample_medium(path: Path) -> tuple[int, ...]:
    """Return the sample of a medium; empty where it can't be read, which the worker that copies it will say."""
    try:
        with open_fd(open_nofollow(path, os.O_RDONLY | os.O_NONBLOCK)) as fd:
            return take_sample(fd, randbits(56))
    except OSError:
        return ()


def make_unwritten(role: Role, given: str) -> MissingMedia:
    """Return that a medium is not whole yet."""
    return MissingMedia(f'{role} "{given}" {WRITTEN}')


def is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def map_path(name: str, path_map: Mapping[str, Path]) -> tuple[Path, PurePosixPath] | None:
    """Return the folder for the longest prefix that matches in any case, and the rest of the path.

    >>> map_path("d:/IN/a/face.jpg", {"D:\\\\in": Path("/srv/in")})
    (PosixPath('/srv/in'), PurePosixPath('a/face.jpg'))
    """
    for prefix, folder in sorted(path_map.items(), key=lambda entry: -len(entry[0])):
        start = prefix.replace("\\", "/").rstrip("/") + "/"
        if name.casefold().startswith(start.casefold()):
            return folder, PurePosixPath(name[len(start) :].lstrip("/"))
    return None


def check_name(role: Role, given: str) -> str:
    """Return the name of a file as it is. Raises BadJob for one that no file can have, and for a URL."""
    if scheme := URL.match(given):
        message = f"{role} is a URL ({scheme[0]}...), and nothing is downloaded"
        raise BadJob(ErrorCode.BAD_VALUE, message, "download it into the inbox and give the name of the file")
    if "\0" in given or not given.strip() or not is_utf8(given):
        hint = "give the name of a file beside the job file"
        raise BadJob(ErrorCode.BAD_VALUE, f"{role} is no file name", hint)
    return given


def make_outside_error(role: Role, given: str) -> BadJob:
    return BadJob(ErrorCode.OUTSIDE_ROOTS, f'{role} "{given}" lies outside the folders that jobs may read')


def describe_unreadable(folder: Path, error: OSError) -> str:
    return f"{folder.name} can't be read: {error.strerror}"
