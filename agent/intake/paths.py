"""Names as Windows and macOS compare them: regardless of case and Unicode form."""

from __future__ import annotations

import errno
import time
import unicodedata
from collections.abc import Container
from pathlib import Path, PurePosixPath

from agent.fs import follow_links, take_fingerprint

CLOCK_STEP_NS = 1_000_000_000
"""Two changes of a folder this close together may have the same time."""


NO_SUCH_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class PathLookup:
    """Finds files by names whose spelling may differ in case and Unicode form."""

    def __init__(self) -> None:
        self._listings: dict[Path, tuple[int, dict[str, list[str]]]] = {}

    def find(self, folder: Path, rest: PurePosixPath, *, of_folder: bool = False) -> Path | None:
        """Return the file at folder/rest, or the only one of that name in another spelling; or a folder."""
        if take_fingerprint(follow_links(folder / rest), of_folder=of_folder):
            return folder / rest
        path = folder
        for part in rest.parts:
            matches = [] if part == ".." else self._match(path, part)
            if len(matches) != 1:
                return None
            path = path / matches[0]
        return path if take_fingerprint(follow_links(path), of_folder=of_folder) else None

    def find_avatar(self, library: Path, name: str, suffixes: Container[str]) -> Path | None:
        """Return the avatar of that name: its file, else its folder of numbered pictures. Raises OSError."""
        file = self.find_stem(library, name, suffixes)
        return file or self.find(library, PurePosixPath(name), of_folder=True)

    def find_stem(self, folder: Path, stem: str, suffixes: Container[str]) -> Path | None:
        """Return the file of that stem with one of the suffixes, or of the only stem in another spelling.

        Raises OSError where the folder can't be read.
        """
        names = (name for names in self._list_names(folder).values() for name in names)
        found = [name for name in sorted(names) if Path(name).suffix.lower() in suffixes]
        exact = [name for name in found if Path(name).stem == stem]
        alike = exact or [name for name in found if fold_name(Path(name).stem) == fold_name(stem)]
        return folder / alike[0] if len({Path(name).stem for name in alike}) == 1 else None

    def list_stems(self, folder: Path, suffixes: Container[str]) -> list[str]:
        """Return the stems of the files with one of the suffixes, at most a thousand. Raises OSError."""
        names = [Path(name) for names in self._list_names(folder).values() for name in names]
        return sorted({name.stem for name in names if name.suffix.lower() in suffixes and is_utf8(name.name)})[:1000]

    def _match(self, folder: Path, name: str) -> list[str]:
        """Return the entries of this name; only the exact one if there is one. Raises OSError."""
        matches = self._list_names(folder).get(fold_name(name), [])
        return [name] if name in matches else matches

    def _list_names(self, folder: Path) -> dict[str, list[str]]:
        """Return the names of a folder by their folded form.

        They are kept while the folder is unchanged. Raises OSError where a folder that is there can't be read.
        """
        try:
            changed_ns = folder.stat().st_mtime_ns
            listing = self._listings.get(folder)
            if listing is None or listing[0] != changed_ns:
                names: dict[str, list[str]] = {}
                for path in folder.iterdir():
                    names.setdefault(fold_name(path.name), []).append(path.name)
                listing = (changed_ns if time.time_ns() - changed_ns > CLOCK_STEP_NS else 0, names)
                self._listings[folder] = listing
        except OSError as error:
            if error.errno not in NO_SUCH_FOLDER:
                raise
            return {}
        return listing[1]


def fold_name(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
