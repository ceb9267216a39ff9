"""Write jobs and control files into the inbox, and read rows of the ledger."""

from __future__ import annotations

import difflib
import io
import json
import uuid
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import UserError
from agent.fs import atomic_copy, atomic_create, create_empty, list_numbered, make_safe_name
from agent.intake.names import TEXT
from agent.intake.paths import PathLookup, fold_name
from agent.jobs.json_text import BadJob
from agent.jobs.parse import parse_job
from agent.jobs.spec import AVATAR_SUFFIXES, is_library_name
from agent.ledger.reader import Reader, Rows, open_reader
from agent.library import list_library, name_avatar
from agent.scheduler.device_names import complete
from agent.settings import Settings

LONGEST_STEM = 40


class ClientError(UserError):
    """A request can't be carried out; the message says what to do."""


@dataclass(frozen=True, slots=True)
class JobTicket:
    """A submitted job: its name, and the id that its row is found by."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that can be submitted: its name and id, the text of its job file, and the copies that it needs.

    `copies`: files, each with its name in the inbox.
    """

    name: str
    id: str
    text: str
    copies: tuple[tuple[Path, str], ...]


def submit(settings: Settings, avatar: str, audio: Path, job: dict[str, Any], name: str | None) -> JobTicket:
    """Copy the media, then the job file into the inbox, each atomically. Nothing is copied for a job that is refused.

    Raises ClientError where the inbox or a file is missing, or the job file would not be accepted.
    """
    return send(settings, check_request(settings, avatar, audio, job, name))


def send(settings: Settings, request: JobRequest) -> JobTicket:
    """Copy what a job needs, then its job file into the inbox."""
    inbox = settings.folders.inbox
    for path, target in request.copies:
        atomic_copy(path, inbox / target)
    return JobTicket(write_job_file(inbox, request.name, request.text), request.id)


def write_job_file(inbox: Path, name: str, text: str) -> str:
    """Write a job file beside those that the daemon has not taken yet; return its name without .json."""
    return next(one for one in list_numbered(name) if atomic_create(inbox / f"{one}.json", text.encode()))


def format_job(record: Mapping[str, Any]) -> str:
    """Return the text of a job file; a key that is None is left out. Raises ClientError as `check_job` does."""
    text = json.dumps({key: value for key, value in record.items() if value is not None}, indent=2, ensure_ascii=False)
    check_job(text)
    return text


def check_request(settings: Settings, avatar: str, audio: Path, job: dict[str, Any], name: str | None) -> JobRequest:
    """Return what is to be copied and written for a job. Raises ClientError as `submit` does."""
    inbox = settings.folders.inbox
    if not inbox.is_dir():
        raise ClientError(f"there is no inbox at {inbox}: run `musedrop init` first, or give another settings file")
    tag = uuid.uuid4().hex
    identity = str(job.get("id") or tag)
    name = make_safe_name(name or audio.stem)
    if not Path(avatar).is_file():
        check_library_name(settings, avatar)
    if not audio.is_file():
        raise ClientError(f"there is no file {audio}{suggest_file(audio)}: give a sound file, or a video with sound")
    check_voice_kind(settings, audio)
    files = {"avatar": Path(avatar), "audio": audio}
    named = {role: name_in_inbox(path, inbox, f"{tag[:8]}.{role}") for role, path in files.items() if path.is_file()}
    record = {"version": 1, "avatar": avatar, **named, **{key: value for key, value in job.items() if key != "id"}}
    text = format_job({**record, "id": identity})
    copies = [(files[role], target) for role, target in named.items() if not is_inside(files[role], inbox)]
    return JobRequest(name, identity, text, tuple(copies))


def check_voice_kind(settings: Settings, audio: Path) -> None:
    """Raise ClientError for a text where nothing speaks it."""
    if audio.suffix.lower() == TEXT and not settings.speech.command:
        raise ClientError(f"{audio} is a text, and no program that speaks it is set: see [speech] in the settings")


def is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().parent == folder.resolve()


def check_job(text: str) -> None:
    """Raise ClientError where the daemon would refuse this job file."""
    try:
        parse_job(text.encode("utf-8", "surrogatepass"))
    except BadJob as bad:
        raise ClientError(f"{bad.message}. {bad.hint}") from None


def check_library_name(settings: Settings, avatar: str) -> None:
    """Raise ClientError where `avatar` is neither a file nor a name of the library."""
    if not is_library_name(avatar):
        known = suggest_file(Path(avatar))
        raise ClientError(f"there is no file {avatar}{known}: give an image, a video, or the name of a library avatar")
    folder = settings.folders.avatars
    if PathLookup().find_avatar(folder, avatar, AVATAR_SUFFIXES) is not None:
        return
    names = sorted({name_avatar(path) for path in list_library(folder)})
    near = suggest(avatar, [*names, *list_faces_beside(Path(avatar))])
    raise ClientError(f"the library has no avatar {avatar}{near}; `musedrop avatar list` shows them")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean NAME?)" for the nearest known name, "" where none is near."""
    by_folded = {fold_name(one): one for one in known}
    near = difflib.get_close_matches(fold_name(name), by_folded, n=1)
    return f" (did you mean {by_folded[near[0]]}?)" if near else ""


def suggest_file(path: Path) -> str:
    """Return " (did you mean NAME?)" for a file beside it of nearly this name."""
    try:
        return suggest(path.name, (other.name for other in path.parent.iterdir() if other.is_file()))
    except OSError:
        return ""


def list_faces_beside(path: Path) -> list[str]:
    """Return the names of the pictures and videos in a path's folder."""
    try:
        return [other.name for other in path.parent.iterdir() if other.suffix.lower() in AVATAR_SUFFIXES]
    except OSError:
        return []


def name_in_inbox(path: Path, inbox: Path, tag: str) -> str:
    """Return the name for the job file: its own where the file is in the inbox, else that of the copy.

    Messages name a copy without the tag (`agent.text.restore_names`).
    """
    return path.name if is_inside(path, inbox) else name_copy(path, tag)


def name_copy(path: Path, tag: str) -> str:
    """Return the name of a copy in the inbox; `tag` is eight hexadecimal digits and the role."""
    return f"{make_safe_name(path.stem)[:LONGEST_STEM]}-{tag}{path.suffix.lower()}"


def make_silence(seconds: float, rate: int = 16_000) -> bytes:
    """Return a wav file without a sound."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes(bytes(2 * round(seconds * rate)))
    return file.getvalue()


def write_control_file(settings: Settings, name: str, verb: str) -> None:
    """Write NAME.VERB into the inbox, such as hello.cancel, hello.front or cpu-0.drain."""
    if "/" in name or name in ("", ".", ".."):
        raise ClientError(f'"{name}" is not a name; `musedrop status` and `musedrop devices` list them')
    _touch(settings, f"{name}.{verb}")


def list_devices(db: Rows) -> list[dict[str, Any]]:
    return query(db, "SELECT * FROM device_status ORDER BY device")


def find_device(db: Rows, name: str) -> str:
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


def open_ledger(settings: Settings) -> Reader:
    return open_reader(settings.folders.ledger)


def query(db: Rows, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
    return list(db.query(sql, parameters or []))


def list_ignored(settings: Settings) -> list[dict[str, str]]:
    """Return what the daemon has found in the inbox that is no job, from status.json; nothing where there is none."""
    try:
        return list(json.loads(settings.folders.status_file.read_bytes())["ignored"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def find_job(db: Rows, name: str) -> dict[str, Any] | None:
    """Return the newest job of that name, id or uid, as a row of job_status."""
    found = query(
        db, "SELECT * FROM job_status WHERE name = ? OR id = ? OR uid = ? ORDER BY created_at DESC LIMIT 1", [name] * 3
    )
    return found[0] if found else None


def list_of_name(db: Rows, name: str) -> list[dict[str, Any]]:
    """Return all jobs of that name, id or uid as rows of job_status, the newest first."""
    sql = "SELECT * FROM job_status WHERE name = ? OR id = ? OR uid = ? ORDER BY created_at DESC"
    return query(db, sql, [name] * 3)


def list_names(db: Rows, limit: int = 1000) -> list[str]:
    """Return the names of the newest jobs, each once."""
    rows = query(db, "SELECT name FROM job_status ORDER BY created_at DESC LIMIT ?", [limit])
    return list(dict.fromkeys(str(row["name"]) for row in rows))


def count_jobs(db: Rows) -> dict[str, int]:
    """Return how many jobs are in each state."""
    return {str(row["state"]): int(row["jobs"]) for row in query(db, "SELECT state, jobs FROM job_counts")}


def list_jobs(db: Rows, limit: int = 20) -> list[dict[str, Any]]:
    """Return rows of job_status: unfinished jobs first, then the newest results."""
    rows = query(db, "SELECT * FROM job_status WHERE finished_at IS NULL ORDER BY created_at LIMIT ?", [limit])
    ended = "SELECT * FROM job_status WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?"
    return rows + query(db, ended, [limit - len(rows)])


def list_events(db: Rows, uid: str) -> list[dict[str, Any]]:
    return query(db, "SELECT * FROM job_events WHERE uid = ? ORDER BY at", [uid])


def list_last_events(db: Rows, limit: int) -> list[dict[str, Any]]:
    """Return the newest events of all jobs, the oldest of them first."""
    return query(db, "SELECT * FROM (SELECT * FROM job_events ORDER BY at DESC LIMIT ?) ORDER BY at", [limit])
