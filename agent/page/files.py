"""The files of jobs, by the uid of a row and a name of ours: never by a path, and no link is followed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from agent.fs import open_regular, read_regular
from agent.settings import Folders

KINDS = {
    "result.mp4": "video/mp4",
    "preview.jpg": "image/jpeg",
    "result.json": "application/json",
    "error.json": "application/json",
    "job.json": "application/json",
}
OF_RESULT = ("result.mp4", "preview.jpg", "result.json")
PICTURES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
PRIVATE = "private, max-age=3600"


class HeldFile(FileResponse):
    """A file that is open already: what is sent is what was checked, whatever its name means by now."""

    def __init__(self, fd: int, kind: str, filename: str | None = None) -> None:
        self._fd = fd
        super().__init__(
            f"/proc/self/fd/{fd}",
            media_type=kind,
            filename=filename,
            stat_result=os.fstat(fd),
            headers={"cache-control": PRIVATE},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._fd)


def find_folder(row: Mapping[str, Any], folders: Folders, name: str) -> Path:
    """Return the folder where a file of a job is, if it is anywhere."""
    if name in OF_RESULT and row["result"]:
        return folders.outbox / str(row["result"])
    return folders.failed / str(row["name"])


def open_file(row: Mapping[str, Any], folders: Folders, name: str) -> int:
    """Return the descriptor of a file of a job. Raises HTTPException where there is none."""
    if name not in KINDS or (name in OF_RESULT) != (row["state"] == "done"):
        raise HTTPException(404, "a job of this state has no such file")
    try:
        return open_regular(find_folder(row, folders, name) / name)
    except (OSError, ValueError):
        raise HTTPException(404, "it is no longer there: it was moved or deleted") from None


def serve_file(row: Mapping[str, Any], folders: Folders, name: str, *, download: bool) -> HeldFile:
    """Return a file of a job, or the part of it that the request asks for."""
    suffix = Path(name).suffix
    return HeldFile(open_file(row, folders, name), KINDS[name], f"{row['name']}{suffix}" if download else None)


def serve_avatar(folders: Folders, names: list[str], name: str) -> HeldFile:
    """Return the picture of the avatar `name`, one of the files `names` of the library."""
    found = next((one for one in names if Path(one).stem == name and Path(one).suffix.lower() in PICTURES), None)
    if found is None:
        raise HTTPException(404, "the library has no picture of that name")
    try:
        return HeldFile(open_regular(folders.avatars / found), PICTURES[Path(found).suffix.lower()])
    except OSError:
        raise HTTPException(404, "it is no longer there") from None


def read_record(row: Mapping[str, Any], folders: Folders, name: str, limit_bytes: int) -> bytes:
    """Return the content of a small file of a job. Raises OSError."""
    return read_regular(find_folder(row, folders, name) / name, limit_bytes)
