"""The files of jobs, by the uid of a row and a name of ours: never by a path, and no link is followed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from agent.fs import is_file, open_regular, read_regular
from agent.fs.layout import Folders
from agent.ledger.places import Places, resolve
from agent.ledger.reader import Rows, find_failed_folder
from agent.page.facts import name_kind
from agent.results.video_file import find_first_part, find_video

VIDEO, FACE, FIRST = "video", "face", "first"
OF_DONE = (VIDEO, "preview.jpg", "contact.jpg", "result.json")
OF_FAILED = ("error.json", "job.json")
KINDS = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".json": "application/json",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".avif": "image/avif",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
}
FACES = "SELECT json_extract(media, '$.avatar.path') AS path, inputs FROM jobs WHERE uid = ?"
PRIVATE = "private, max-age=3600"


class HeldFile(FileResponse):
    """A file that is open already: what is sent is what was checked, whatever its name means by now."""

    def __init__(self, fd: int, suffix: str, filename: str | None = None) -> None:
        self._fd = fd
        super().__init__(
            f"/proc/self/fd/{fd}",
            media_type=KINDS[suffix],
            filename=filename,
            stat_result=os.fstat(fd),
            headers={"cache-control": PRIVATE},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._fd)


def find_face(db: Rows, uid: str, folders: Folders) -> Path | None:
    """Return the file of a job's face, wherever on the share it is now; None where it isn't there."""
    places = Places(folders.share, folders.state)
    for row in db.query(FACES, [uid]):
        named = Path(places.expand(row["path"] or ""))
        filed = Path(places.expand(row["inputs"] or ""))
        found = [path for path in (named, filed / named.name) if path.is_relative_to(resolve(folders.share))]
        return next((path for path in found if is_file(path)), None)
    return None


def find_file(db: Rows, row: Mapping[str, Any], folders: Folders, name: str) -> Path:
    """Return where a file of a job is, if it is anywhere. Raises HTTPException for a name that is none of its files."""
    if name == FACE and (face := find_face(db, str(row["uid"]), folders)):
        return face
    if row["state"] == "done" and name in OF_DONE:
        folder = folders.outbox / str(row["result"])
        return find_video(folder) if name == VIDEO else folder / name
    if name == FIRST and row["first_part"]:
        return find_first_part(folders.outbox / str(row["first_part"]))
    if row["state"] in ("failed", "cancelled") and name in OF_FAILED:
        return find_failed_folder(db, folders, row) / name
    raise HTTPException(404, "a job of this state has no such file")


def serve_file(db: Rows, row: Mapping[str, Any], folders: Folders, name: str, *, download: bool) -> HeldFile:
    """Return a file of a job, or the part of it that the request asks for."""
    path = find_file(db, row, folders, name)
    return _hold(path, f"{row['name']}{path.suffix}" if download else None)


def read_record(db: Rows, row: Mapping[str, Any], folders: Folders, limit_bytes: int) -> bytes:
    """Return the content of result.json or error.json. Raises OSError."""
    name = "result.json" if row["state"] == "done" else "error.json"
    return read_regular(find_file(db, row, folders, name), limit_bytes)


def serve_avatar(folders: Folders, names: Sequence[str], name: str) -> HeldFile:
    """Return the picture of the avatar `name`, one of the files `names` of the library."""
    found = next((one for one in names if Path(one).stem == name and name_kind(one)), None)
    if found is None:
        raise HTTPException(404, "the library has no picture of that name that browsers show")
    return _hold(folders.avatars / found, None)


def _hold(path: Path, filename: str | None) -> HeldFile:
    try:
        return HeldFile(open_regular(path), path.suffix.lower(), filename)
    except (OSError, ValueError):
        raise HTTPException(404, "it is no longer there: it was moved or deleted") from None
