"""Which files of MuseTalk to download, and from where. Known releases are in `index.SOURCES`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from models.checkpoints.downloads import RemoteFile, check_web_address
from models.musetalk.weights.index import (
    S3FD_URL,
    SOURCES,
    Version,
    missing_files_for,
    published_files,
    repair_hint,
)
from models.types import EngineError


def list_remote_files(files: Iterable[str], hub: str, s3fd: str = S3FD_URL) -> list[RemoteFile]:
    """Return where to get files, by their names in the folder. Raises EngineError download_failed for unknown names."""
    found = []
    for file in files:
        source = SOURCES.get(file)
        if source is None:
            hint = f"these can be downloaded: {', '.join(SOURCES)}"
            raise EngineError("download_failed", f"nobody publishes a weight file {file}", hint)
        url = hub + source.url if source.url.startswith("/") else check_web_address(s3fd, "the address of S3FD")
        found.append(RemoteFile(file, url, source.bytes, source.sha256, source.config, repair_hint(file)))
    return found


def list_named(names: Iterable[str]) -> list[str]:
    """Return files by their names; the name of a folder stands for all that are published of it."""
    found = [[file for file in SOURCES if file.startswith(f"{name.rstrip('/')}/")] or [name] for name in names]
    return list(dict.fromkeys(file for files in found for file in files))


def list_needed(root: Path, asked: Iterable[Version], *, replace: bool) -> list[str]:
    """Return the names of the files that are missing for the versions; with `replace` all that are published."""
    names = []
    for version in asked:
        names += published_files(version) if replace else missing_files_for(version, root)
    return list(dict.fromkeys(names))
