"""What the page does, always as files in the inbox: jobs of uploaded files, and control files.

All of it raises ClientError for what the daemon would refuse, and OSError where the inbox takes no file.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from agent import client
from agent.fs import make_safe_name
from agent.fs.folders import move, sync
from agent.jobs.states import LIVE, RETRIABLE
from agent.ledger.sqlite import Database
from agent.page import facts
from agent.page.uploads import Upload, Uploads
from agent.scheduler.device_names import file_safe
from agent.settings import Settings

MAX_JOBS = 100
KEYS = ("engine", "fps", "priority", "strategy", "options", "output", "max_attempts", "timeout_s")
"""The keys of a job file that the page may set, beside its name, its face and its voice."""
JOB_VERBS = {"cancel": LIVE, "retry": RETRIABLE}
DEVICE_VERBS = ("drain", "resume")
QUEUE_VERBS = ("pause", "resume")


def submit_jobs(settings: Settings, uploads: Uploads, asked: Any) -> list[dict[str, str]]:
    """Hand in all jobs of a request; none of them where the daemon would refuse one.

    `asked`: {"jobs": [{"name", "avatar", "audio", and any of KEYS}]}; avatar and audio are {"upload": word}, or
    {"library": name} for an avatar. Return the name and the id of each. Raises HTTPException.
    """
    jobs = asked.get("jobs") if isinstance(asked, dict) else None
    if not isinstance(jobs, list) or not 0 < len(jobs) <= MAX_JOBS or not all(isinstance(job, dict) for job in jobs):
        raise HTTPException(400, f'"jobs" is a list of 1 to {MAX_JOBS} jobs')
    used: dict[str, tuple[Upload, str]] = {}
    made = [_make_job(settings, uploads, job, used) for job in jobs]
    for word, (upload, name) in used.items():
        move(upload.path, settings.folders.inbox / name)
        uploads.take(word)
    names = [client.write_job_file(settings.folders.inbox, job["name"], job["text"]) for job in made]
    sync(settings.folders.inbox)
    return [{"name": name, "id": job["id"]} for name, job in zip(names, made, strict=True)]


def _make_job(
    settings: Settings, uploads: Uploads, asked: Mapping[str, Any], used: dict[str, tuple[Upload, str]]
) -> dict[str, str]:
    """Return the text of a job file, its name and its id. Adds to `used` what becomes a file of the inbox, by word."""
    identity = uuid.uuid4().hex

    def name_media(role: str) -> str:
        given = asked.get(role)
        if not isinstance(given, dict):
            raise HTTPException(400, f'"{role}" is missing')
        if role == "avatar" and isinstance(given.get("library"), str):
            client.check_library_name(settings, given["library"])
            return str(given["library"])
        word = str(given.get("upload", ""))
        upload = uploads.find(word)
        if upload is None:
            raise HTTPException(409, "a file is no longer there: send it again")
        given_name = Path(upload.stem + upload.suffix)
        if role == "audio":
            client.check_voice_kind(settings, given_name)
        if word not in used:
            used[word] = (upload, client.name_copy(given_name, f"{word[:8]}.{role}"))
        return used[word][1]

    record = {"version": 1, "avatar": name_media("avatar"), "audio": name_media("audio")}
    text = client.format_job({**record, **{key: asked.get(key) for key in KEYS}, "id": identity})
    return {"name": make_safe_name(str(asked.get("name") or "video")), "id": identity, "text": text}


def control_job(settings: Settings, db: Database, uid: str, verb: str) -> None:
    """Write the control file for a job, if it can happen to it. Raises HTTPException."""
    row = facts.find_job(db, uid)
    if verb not in JOB_VERBS or row is None:
        raise HTTPException(404, "there is no such job")
    if row["state"] not in JOB_VERBS[verb]:
        raise HTTPException(409, f"{row['name']} is {row['state']}")
    client.write_control_file(settings, uid, verb)


def control_device(settings: Settings, db: Database, device: str, verb: str) -> None:
    """Take a device out of service or back. Raises HTTPException."""
    if verb not in DEVICE_VERBS or device not in {row["device"] for row in client.list_devices(db)}:
        raise HTTPException(404, "there is no such device")
    client.write_control_file(settings, file_safe(device), verb)


def control_queue(settings: Settings, verb: str) -> None:
    """Pause the queue, or let it go on. Raises HTTPException."""
    if verb not in QUEUE_VERBS:
        raise HTTPException(404, "there is no such command")
    client.control_queue(settings, verb)
