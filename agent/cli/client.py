"""What the command line does for a user, and any program could: files into the inbox, rows out of the ledger."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import UserError
from agent.fs import atomic_copy, atomic_write, make_safe_name
from agent.ledger.reader import open_reader
from agent.ledger.sqlite import Database
from agent.scheduler.device_names import complete
from agent.settings import Settings


class ClientError(UserError):
    """Something a person asked for can't be done; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A submitted job: its name, and the id by which its row is found."""

    name: str
    id: str


def submit(settings: Settings, avatar: str, audio: Path, job: dict[str, Any], name: str | None) -> Ticket:
    """Copy the media and then the job file into the inbox, each visible only when it is whole."""
    inbox = settings.folders.inbox
    if not inbox.is_dir():
        raise ClientError(f"there is no inbox at {inbox}: run `musedrop init` first, or name another settings file")
    identity = str(job.get("id") or uuid.uuid4().hex)
    name = make_safe_name(name or audio.stem)
    picture = Path(avatar)
    if picture.is_file():
        avatar = _hand_over(picture, inbox, f"{name}-{identity[:8]}.avatar")
    elif picture.suffix or "/" in avatar:
        raise ClientError(f"there is no file {avatar}: give an image, a video, or the name of a library avatar")
    if not audio.is_file():
        raise ClientError(f"there is no file {audio}: give a sound file, or a video with sound")
    sound = _hand_over(audio, inbox, f"{name}-{identity[:8]}.audio")
    record = {"version": 1, "avatar": avatar, "audio": sound, "id": identity, **job}
    text = json.dumps({key: value for key, value in record.items() if value is not None}, indent=2, ensure_ascii=False)
    atomic_write(inbox / f"{name}.json", text.encode())
    return Ticket(name, identity)


def _hand_over(path: Path, inbox: Path, stem: str) -> str:
    """The name by which the job file can call the medium; copied into the inbox unless it lies there."""
    if path.resolve().parent == inbox.resolve():
        return path.name
    target = f"{make_safe_name(stem)}{path.suffix.lower()}"
    atomic_copy(path, inbox / target)
    return target


def ask(settings: Settings, name: str, verb: str) -> None:
    """Leave a control file: NAME.cancel or NAME.retry, DEVICE.drain or DEVICE.resume."""
    if "/" in name or name in ("", ".", ".."):
        raise ClientError(f'"{name}" is no name; `musedrop status` and `musedrop devices` list them')
    _leave(settings, f"{name}.{verb}")


def devices_of(db: Database) -> list[dict[str, Any]]:
    return rows(db, "SELECT * FROM device_status ORDER BY device")


def device_called(db: Database, name: str) -> str:
    """The one device, or the one card with all its workers, that a person means."""
    listed = devices_of(db)
    found = complete(name, listed)
    if len(found) == 1:
        return found[0]
    there = ", ".join(found or [row["device"] for row in listed]) or "none: has the daemon run?"
    raise ClientError(f'{"several devices are" if found else "no device is"} called "{name}"; there are {there}')


def switch(settings: Settings, verb: str) -> None:
    """Leave a control file for the whole queue: pause or resume."""
    _leave(settings, verb)


def _leave(settings: Settings, file: str) -> None:
    if not settings.folders.inbox.is_dir():
        raise ClientError(f"there is no inbox at {settings.folders.inbox}: is the share mounted?")
    (settings.folders.inbox / file).touch()


def reader(settings: Settings) -> Database:
    return open_reader(settings.folders.ledger)


def rows(db: Database, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
    return list(db.query(sql, parameters or []))


def status_of(db: Database, name: str) -> dict[str, Any] | None:
    """The newest job of that name, id or uid."""
    found = rows(
        db, "SELECT * FROM job_status WHERE name = ? OR id = ? OR uid = ? ORDER BY created_at DESC LIMIT 1", [name] * 3
    )
    return found[0] if found else None


def overview(db: Database, limit: int = 20) -> list[dict[str, Any]]:
    """Unfinished jobs first, then the newest results."""
    order = "ORDER BY finished_at IS NOT NULL, CASE WHEN finished_at IS NULL THEN created_at END, finished_at DESC"
    return rows(db, f"SELECT * FROM job_status {order} LIMIT ?", [limit])  # noqa: S608 - a constant


def events_of(db: Database, uid: str) -> list[dict[str, Any]]:
    return rows(db, "SELECT * FROM job_events WHERE uid = ? ORDER BY at", [uid])
