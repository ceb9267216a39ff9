"""Where a job's media lie. A job file names files; only those inside the allowed folders are ever opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from agent.intake.paths import Lookup, follow
from agent.intake.scanner import Fingerprint, fingerprint
from agent.jobs.parse import AVATAR_SUFFIXES, BadJob, JobSpec

Role = Literal["avatar", "audio"]
WINDOWS_PATH = re.compile(r"^([A-Za-z]:/|//)")


@dataclass(frozen=True, slots=True)
class Medium:
    """A file that a job uses, as it was when the job became ready."""

    given: str
    path: Path
    mark: Fingerprint

    def to_dict(self) -> dict[str, Any]:
        return {"given": self.given, "path": str(self.path), **asdict(self.mark)}


@dataclass(frozen=True, slots=True)
class Absent:
    """What has not arrived yet, in words for `waiting_for`."""

    what: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The folders a job may read from. `complete(path)` tells whether a file has settled.

    `path_map`: a folder as other machines call it, such as `D:\\in` or `\\\\nas\\media`, and what it is called here.
    """

    inbox: Path
    avatars: Path
    roots: tuple[Path, ...]
    complete: Callable[[Path], bool]
    path_map: Mapping[str, Path] = field(default_factory=dict)
    lookup: Lookup = field(default_factory=Lookup)

    def find(self, spec: JobSpec, inputs: Path) -> dict[Role, Medium] | Absent:
        """Both media of a job, or the first that is not there yet. Raises BadJob for a path outside the folders."""
        library, allowed = spec.library_name, self.allowed(inputs)
        avatar = self._library(library) if library else self._file("avatar", spec.avatar or "", inputs, allowed)
        if isinstance(avatar, Absent):
            return avatar
        audio = self._file("audio", spec.audio, inputs, allowed)
        return audio if isinstance(audio, Absent) else {"avatar": avatar, "audio": audio}

    def _library(self, name: str) -> Medium | Absent:
        """An avatar of the library is the file avatars/NAME.jpg, .png, .mp4 ..."""
        if self.avatars.is_dir():
            for path in sorted(self.avatars.iterdir()):
                if path.stem == name and path.suffix.lower() in AVATAR_SUFFIXES:
                    return self._medium("avatar", name, path)
        return Absent(f'avatar "{name}": the library has no avatar of that name')

    def _file(self, role: Role, given: str, inputs: Path, allowed: Sequence[Path]) -> Medium | Absent:
        places = self._places(role, given, inputs)
        found = next((path for folder, rest in places if (path := self.lookup(folder, rest))), None)
        asked = {folder / rest for folder, rest in places} | ({found} if found else set())
        if not all(any(real.is_relative_to(folder) for folder in allowed) for real in map(follow, asked)):
            raise outside(role, given)
        return self._medium(role, given, found) if found else Absent(f'{role} "{given}" has not arrived in the inbox')

    def _places(self, role: Role, given: str, inputs: Path) -> list[tuple[Path, PurePosixPath]]:
        """Folders, and the path in each of them, where the file may lie."""
        name = named(role, given).replace("\\", "/")
        if (here := mapped(name, self.path_map)) is not None:
            return [here]
        if WINDOWS_PATH.match(name):
            raise outside(role, given)
        path = PurePosixPath(name)
        return [(Path("/"), path.relative_to("/"))] if path.is_absolute() else [(inputs, path), (self.inbox, path)]

    def _medium(self, role: Role, given: str, path: Path) -> Medium | Absent:
        real = follow(path)
        mark = fingerprint(real)
        if mark is None or not self.complete(real):
            return Absent(f'{role} "{given}" is still being written')
        return Medium(given, real, mark)

    def allowed(self, inputs: Path) -> list[Path]:
        """The folders a job may read from, as they are called when links are followed."""
        return [follow(folder) for folder in (self.inbox, self.avatars, inputs, *self.roots, *self.path_map.values())]


def mapped(name: str, path_map: Mapping[str, Path]) -> tuple[Path, PurePosixPath] | None:
    """The folder of this machine that the longest matching prefix stands for, and the rest; case doesn't matter.

    >>> mapped("d:/IN/a/face.jpg", {"D:\\\\in": Path("/srv/in")})
    (PosixPath('/srv/in'), PurePosixPath('a/face.jpg'))
    """
    for prefix, folder in sorted(path_map.items(), key=lambda entry: -len(entry[0])):
        start = prefix.replace("\\", "/").rstrip("/") + "/"
        if name.casefold().startswith(start.casefold()):
            return folder, PurePosixPath(name[len(start) :].lstrip("/"))
    return None


def named(role: Role, given: str) -> str:
    if "\0" in given or not given.strip() or not is_utf8(given):
        raise BadJob("bad_value", f"{role} is no file name", "give the name of a file that lies beside the job file")
    return given


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def outside(role: Role, given: str) -> BadJob:
    return BadJob(
        "outside_roots",
        f'{role} "{given}" lies outside the folders that jobs may read',
        "copy the file into the inbox beside the job file and give its bare name, "
        "or have its folder added to media_roots or path_map in the settings",
    )
