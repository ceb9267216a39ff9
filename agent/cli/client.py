"""Write jobs and control files into the inbox, and read rows of the ledger."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import UserError
from agent.fs import atomic_copy, atomic_write_bytes, create_empty, make_safe_name
from agent.ledger.reader import open_reader
from agent.ledger.sqlite import Database
from agent.scheduler.device_names import complete
from agent.settings import Settings


class ClientError(UserError):
    """A request can't be carried out; the message says what to do."""


@dataclass(frozen=True, slots=True)
class JobTicket:
    """A submitted job: its name, and the id that its row is found by."""

    name: str
    id: str


def submit(settings: Settings, avatar: str, audio: Path, job: dict[str, Any], name: str | None) -> JobTicket:
    """Copy the media, then the job file into the inbox, each atomically.

    Raises ClientError where the inbox or a file is missing.
    """
    inbox = settings.folders.inbox
    if not inbox.is_dir():
        raise ClientError(f"there is no inbox at {inbox}: run `musedrop init` first, or give another settings file")
    identity = str(job.get("id") or uuid.uuid4().hex)
    name = make_safe_name(name or audio.stem)
    picture = Path(avatar)
    if picture.is_file():
        avatar = _copy_media(picture, inbox, f"{name}-{identity[:8]}.avatar")
    elif picture.suffix or "/" in avatar:
        raise ClientError(f"there is no file {avatar}: give an image, a video, or the name of a library avatar")
    if not audio.is_file():
        raise ClientError(f"there is no file {audio}: give a sound file, or a video with sound")
    sound = _copy_media(audio, inbox, f"{name}-{identity[:8]}.audio")
    record = {"version": 1, "avatar": avatar, "audio": sound, "id": identity, **job}
    text = json.dumps({key: value for key, value in record.items() if value is not None}, indent=2, ensure_ascii=False)
    atomic_write_bytes(inbox / f"{name}.json", text.encode())
    return JobTicket(name, identity)


def _copy_media(path: Path, inbox: Path, stem: str) -> str:
    """Copy `path` into the inbox unless it is there. Return its name for the job file."""
    if path.resolve().parent == inbox.resolve():
        return path.name
    target = f"{make_safe_name(stem)}{path.suffix.lower()}"
    atomic_copy(path, inbox / target)
    return target


def write_control_file(settings: Settings, name: str, verb: str) -> None:
    """Write NAME.cancel or NAME.retry, DEVICE.drain or DEVICE.resume into the inbox."""
    if "/" in name or name in ("", ".", ".."):
        raise ClientError(f'"{name}" is not a name; `musedrop status` and `musedrop devices` list them')
    _touch(settings, f"{name}.{verb}")


def list_devices(db: Database) -> list[dict[str, Any]]:
    return query(db, "SELECT * FROM device_status ORDER BY device")


def find_device(db: Database, name: str) -> str:
    """Return the one device or card that `name` stands for. Raises ClientError."""
    listed = list_devices(db)
    found = complete(name, listed)
    if len(found) == 1:
        return found[0]
    choices = ", ".join(found or [row["device"] for row in listed]) or "none: has the daemon run?"
    raise ClientError(f'{"several devices are" if found else "no device is"} called "{name}"; there are {choices}')


def control_queue(settings: Settings, verb: str) -> None:
    """Write the control file pause or resume, which is for the whole queue, into the inbox."""
    _touch(settings, verb)


def _touch(settings: Settings, file: str) -> None:
    if not settings.folders.inbox.is_dir():
        raise ClientError(f"there is no inbox at {settings.folders.inbox}: is the share mounted?")
    create_empty(settings.folders.inbox / file)


def open_ledger(settings: Settings) -> Database:
    return open_reader(settings.folders.ledger)


def query(db: Database, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
    return list(db.query(sql, parameters or []))


def list_ignored(settings: Settings) -> list[dict[str, str]]:
    """Return what the daemon has found in the inbox that is no job, from status.json; nothing where there is none."""
    try:
        return list(json.loads(settings.folders.status_file.read_bytes())["ignored"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def find_job(db: Database, name: str) -> dict[str, Any] | None:
    """Return the newest job of that name, id or uid, as a row of job_status."""
    found = query(
        db, "SELECT * FROM job_status WHERE name = ? OR id = ? OR uid = ? ORDER BY created_at DESC LIMIT 1", [name] * 3
    )
    return found[0] if found else None


def list_jobs(db: Database, limit: int = 20) -> list[dict[str, Any]]:
    """Return rows of job_status: unfinished jobs first, then the newest results."""
    rows = query(db, "SELECT * FROM job_status WHERE finished_at IS NULL ORDER BY created_at LIMIT ?", [limit])
    ended = "SELECT * FROM job_status WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?"
    return rows + query(db, ended, [limit - len(rows)])


def list_events(db: Database, uid: str) -> list[dict[str, Any]]:
    return query(db, "SELECT * FROM job_events WHERE uid = ? ORDER BY at", [uid])
