"""The files of the avatar library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.jobs.media_names import AVATAR_SUFFIXES, is_library_name


def list_library(folder: Path) -> Iterator[Path]:
    """Yield what jobs can use as avatars: files, and folders of pictures."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_picture = path.suffix.lower() in AVATAR_SUFFIXES and not path.name.startswith(".")
        if (is_picture and path.is_file()) or (is_library_name(path.name) and path.is_dir()):
            yield path


def name_avatar(path: Path) -> str:
    """Return what jobs call an avatar of the library."""
    return path.name if path.is_dir() else path.stem
