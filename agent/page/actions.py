"""What the page does, always as files in the inbox: jobs of uploaded files, and control files.

All of it raises UserError for what the daemon would refuse, and OSError where the inbox takes no file.
The checks of jobs are imported when the first job comes: they are a third of the memory of this process.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from agent.fs import atomic_copy, atomic_write_bytes, create_empty, make_safe_name, open_regular
from agent.fs.folders import move, sync
from agent.jobs.media_names import AVATAR_SUFFIXES, is_library_name
from agent.jobs.states import LIVE, RETRIABLE, UNSTARTED
from agent.ledger.reader import Rows, open_reader, read_spec
from agent.page import facts
from agent.page.files import find_face
from agent.scheduler.device_names import file_safe
from agent.text import restore_names

if TYPE_CHECKING:
    from agent.page.uploads import Upload, Uploads
    from agent.settings import Settings

MAX_JOBS = 100
KEYS = (
    *("engine", "fps", "priority", "strategy", "options", "output", "background", "max_attempts", "timeout_s"),
    *("from_s", "to_s"),
)
"""The keys of a job file that the page may set, beside its name, its face and its voice."""
KEPT = ("engine", "fps", "options", "output", "background")
"""Those that a job takes over from the one whose face it has."""
TURNS = dict.fromkeys(("front", "high", "normal", "low"), UNSTARTED)
JOB_VERBS = {"cancel": LIVE, "retry": RETRIABLE, **TURNS}
DEVICE_VERBS = ("drain", "resume")
QUEUE_VERBS = ("pause", "resume")
SILENCE_S = 0.1
USERS = (
    "SELECT name FROM jobs WHERE finished_ms IS NULL AND state IN ('waiting', 'queued') AND submitter <> 'draft'"
    " AND coalesce(json_extract(spec, '$.template'), json_extract(spec, '$.avatar')) = ?"
)
"""Jobs that use an avatar and have not been started."""


@dataclass
class Media:
    """What becomes a file of the inbox, each once: uploads by their word, faces of earlier jobs by their uid."""

    uploads: dict[str, tuple[Upload, str]] = field(default_factory=dict)
    faces: dict[str, tuple[Path, str]] = field(default_factory=dict)


def submit_jobs(settings: Settings, uploads: Uploads, asked: Any) -> list[dict[str, str]]:
    """Hand in all jobs of a request; none of them where the daemon would refuse one.

    `asked`: {"jobs": [{"name", "avatar", "audio", and any of KEYS}]}; avatar and audio are {"upload": word}, or
    {"library": name} or {"job": uid} for an avatar. Return the name and the id of each. Raises HTTPException.
    """
    from agent import client

    jobs = asked.get("jobs") if isinstance(asked, dict) else None
    if not isinstance(jobs, list) or not 0 < len(jobs) <= MAX_JOBS or not all(isinstance(job, dict) for job in jobs):
        raise HTTPException(400, f'"jobs" is a list of 1 to {MAX_JOBS} jobs')
    used, inbox = Media(), settings.folders.inbox
    made = [_make_job(settings, uploads, job, used) for job in jobs]
    for path, name in used.faces.values():
        copy_regular(path, inbox / name)
    for word, (upload, name) in used.uploads.items():
        move(upload.path, inbox / name)
        uploads.take(word)
    names = [client.write_job_file(inbox, job["name"], job["text"]) for job in made]
    sync(inbox)
    return [{"name": name, "id": job["id"]} for name, job in zip(names, made, strict=True)]


def submit_draft(settings: Settings, uploads: Uploads, asked: Any) -> dict[str, str]:
    """Hand in a draft of a face, which stays an upload; return its id. Raises HTTPException.

    `asked`: "avatar" as in `submit_jobs`, and "options".
    """
    from agent import client

    if not isinstance(asked, dict):
        raise HTTPException(400, "a draft is an object")
    used, tag, inbox = Media(), uuid.uuid4().hex, settings.folders.inbox
    avatar, kept = _name_face(settings, uploads, asked.get("avatar"), used)
    options = {**(kept.get("options") or {}), **(asked.get("options") or {}), "draft": True}
    voice = f"silence-{tag[:8]}.audio.wav"
    record = {"version": 1, "avatar": avatar, "audio": voice, "id": tag, "priority": "high", "options": options}
    text = client.format_job(record)
    for path, name in used.faces.values():
        copy_regular(path, inbox / name)
    for upload, name in used.uploads.values():
        lend(upload.path, inbox / name)
    atomic_write_bytes(inbox / voice, client.make_silence(SILENCE_S))
    client.write_job_file(inbox, f"draft-{tag[:8]}", text)
    return {"id": tag}


def copy_regular(path: Path, target: Path) -> None:
    """Copy a file into the inbox; no link is followed. Raises OSError."""
    fd = open_regular(path)
    try:
        atomic_copy(Path(f"/proc/self/fd/{fd}"), target)
    finally:
        os.close(fd)


def lend(path: Path, target: Path) -> None:
    """Give a file of the inbox a second name, as a copy where the file system has no hard links. Raises OSError."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        atomic_copy(path, target)


def _make_job(settings: Settings, uploads: Uploads, asked: Mapping[str, Any], used: Media) -> dict[str, str]:
    """Return the text of a job file, its name and its id. Adds to `used` what becomes a file of the inbox."""
    from agent import client

    identity = uuid.uuid4().hex
    avatar, kept = _name_face(settings, uploads, asked.get("avatar"), used)
    upload = _find_upload(uploads, asked.get("audio"), "audio")
    client.check_voice_kind(settings, Path(upload.stem + upload.suffix))
    audio = _name_upload(asked["audio"]["upload"], upload, "audio", used)
    given = {key: asked[key] for key in KEYS if asked.get(key) is not None}
    text = client.format_job({"version": 1, "avatar": avatar, "audio": audio, **kept, **given, "id": identity})
    return {"name": make_safe_name(str(asked.get("name") or "video")), "id": identity, "text": text}


def _name_face(settings: Settings, uploads: Uploads, given: Any, used: Media) -> tuple[str, dict[str, Any]]:
    """Return what a job file calls a face, and what it takes over with it from an earlier job."""
    from agent import client

    if isinstance(given, dict) and isinstance(given.get("library"), str):
        client.check_library_name(settings, given["library"])
        return given["library"], {}
    if isinstance(given, dict) and isinstance(given.get("job"), str):
        return _name_earlier_face(settings, given["job"], used)
    upload = _find_upload(uploads, given, "avatar")
    return _name_upload(given["upload"], upload, "avatar", used), {}


def _name_earlier_face(settings: Settings, uid: str, used: Media) -> tuple[str, dict[str, Any]]:
    from agent import client

    with closing(open_reader(settings.folders.ledger)) as db:
        spec = read_spec(db, uid)
        face = find_face(db, uid, settings.folders)
    kept = {key: spec[key] for key in KEPT if spec.get(key)}
    named = str(spec.get("template") or spec.get("avatar") or "")
    if is_library_name(named):
        client.check_library_name(settings, named)
        return named, kept
    if face is None:
        raise HTTPException(409, "the face of this job is no longer there: choose its file again")
    if uid not in used.faces:
        tag = f"{uuid.uuid4().hex[:8]}.avatar"
        used.faces[uid] = face, client.name_copy(Path(restore_names(face.name)), tag)
    return used.faces[uid][1], kept


def _find_upload(uploads: Uploads, given: Any, role: str) -> Upload:
    if not isinstance(given, dict):
        raise HTTPException(400, f'"{role}" is missing')
    upload = uploads.find(str(given.get("upload", "")))
    if upload is None:
        raise HTTPException(409, "a file is no longer there: send it again")
    return upload


def _name_upload(word: str, upload: Upload, role: str, used: Media) -> str:
    from agent import client

    if word not in used.uploads:
        used.uploads[word] = (upload, client.name_copy(Path(upload.stem + upload.suffix), f"{word[:8]}.{role}"))
    return used.uploads[word][1]


# control files --------------------------------------------------------------------------------------------------------


def control_job(settings: Settings, db: Rows, uid: str, verb: str, text: str = "") -> None:
    """Write the control file for a job, if it can happen to it. Raises HTTPException.

    `text`: with retry, the job file that takes the place of the job's.
    """
    row = facts.find_job(db, uid)
    if verb not in JOB_VERBS or row is None:
        raise HTTPException(404, "there is no such job")
    if row["state"] not in JOB_VERBS[verb]:
        raise HTTPException(409, f"{row['name']} is {row['state']}")
    file = settings.folders.inbox / f"{uid}.{verb}"
    if verb == "retry" and text:
        from agent import client

        client.check_job(text)
        atomic_write_bytes(file, text.encode())
    else:
        create_empty(file)


def control_device(settings: Settings, db: Rows, device: str, verb: str) -> None:
    """Take a device out of service or back. Raises HTTPException."""
    if verb not in DEVICE_VERBS or device not in {row["device"] for row in facts.list_devices(db)}:
        raise HTTPException(404, "there is no such device")
    create_empty(settings.folders.inbox / f"{file_safe(device)}.{verb}")


def control_queue(settings: Settings, verb: str) -> None:
    """Pause the queue, or let it go on. Raises HTTPException."""
    if verb not in QUEUE_VERBS:
        raise HTTPException(404, "there is no such command")
    create_empty(settings.folders.inbox / verb)


def add_avatar(settings: Settings, uploads: Uploads, asked: Any) -> None:
    """Hand in a face for the library: {"upload": word, "name"}. Raises HTTPException."""
    upload, name = _find_upload(uploads, asked, "upload"), str(asked.get("name", ""))
    if upload.suffix not in AVATAR_SUFFIXES or not is_library_name(name) or name != make_safe_name(name):
        raise HTTPException(422, f'"{name}" can\'t name an avatar: no slash, no dot at its beginning, no file suffix')
    if name in {row["name"] for row in facts.list_library(settings)}:
        raise HTTPException(409, f"the library has {name} already: choose another name")
    move(upload.path, settings.folders.inbox / f"{name}{upload.suffix}.avatar")
    uploads.take(str(asked["upload"]))


def forget_avatar(settings: Settings, db: Rows, name: str) -> None:
    """Take an avatar out of the library. Raises HTTPException."""
    if name not in {row["name"] for row in facts.list_library(settings)}:
        raise HTTPException(404, f"the library has no avatar {name}")
    if waiting := [row["name"] for row in db.query(USERS, [name])]:
        raise HTTPException(409, f"{len(waiting)} unstarted jobs need {name}, {waiting[0]} first")
    create_empty(settings.folders.inbox / f"{name}.forget")
