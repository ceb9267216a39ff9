"""What result.json and error.json say of a job, and how the files of the share are written as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.fs import atomic_write_bytes
from agent.jobs.states import JobState
from agent.languages import explain_error, translate
from agent.ledger.job import Job
from agent.text import restore_names
from models.types import Output, name_voice_role

RECORD_VERSION = 1
ASKED = {"engine", "fps", "output", "race"}
"""What a job asked for, beside its options, that decides its video."""

_ON_ONE_LINE = json.JSONEncoder(ensure_ascii=False, default=str).encode


def make_result_record(job: Job, name: str, at_ms: int) -> dict[str, Any]:
    """Return what outbox/NAME/result.json says; documented in docs/result.md."""
    outline, facts, spec = job.outline or {}, dict(job.facts or {}), job.spec
    notes = [*(spec.notes if spec else ()), *map(restore_names, (*outline.get("notes", ()), *facts.pop("notes", ())))]
    return {
        "version": RECORD_VERSION,
        "name": job.name,
        "result": name,
        "uid": job.uid,
        "id": job.client_id,
        "state": "done",
        "video": Output(alpha=bool(spec and spec.output.alpha)).file_name,
        "preview": "preview.jpg",
        "engine": job.engine,
        "engine_reason": job.engine_reason,
        "frames": outline.get("frames"),
        "fps": outline.get("fps"),
        "width": outline.get("width"),
        "height": outline.get("height"),
        "duration_s": outline.get("duration_s"),
        "encoder": outline.get("encoder"),
        "avatar": {"given": _given_name(job, "avatar"), "sha256": _find_avatar_hash(outline)},
        "audio": {"given": _given_name(job, "audio"), "sha256": outline.get("audio_sha256")},
        **_describe_additions(job, outline),
        "options": spec.options if spec else {},
        "asked": json.loads(spec.model_dump_json(include=ASKED, exclude_none=True)) if spec else {},
        "notes": notes,
        "advice": outline.get("advice", {}),
        "attempt": job.attempt,
        "interruptions": job.interruptions,
        "from_cache": False,
        **facts,
        "created_at": format_time(job.created_ms),
        "started_at": format_time(job.started_ms),
        "finished_at": format_time(at_ms),
    }


def _describe_additions(job: Job, outline: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says of the keys that few jobs have."""
    hashes = {"audio": outline.get("audio_sha256"), **outline.get("media_sha256", {})}
    media = {
        role: {"given": _given_name(job, role), "sha256": digest}
        for role, digest in hashes.items()
        if role in job.media
    }
    painted = outline.get("voices") or [{"start": 0, "stop": outline.get("frames")}]
    voices = [
        {"face": voice.face, **media[name_voice_role(number)]}
        for number, voice in enumerate((job.spec.voices if job.spec else None) or ())
    ]
    return {
        "voices": voices or None,
        "soundtrack": media.get("soundtrack"),
        "background": media.get("background") or (job.spec.background_colour if job.spec else "") or None,
        "painted": [[voice["start"], voice["stop"]] for voice in painted],
    }


def make_error_record(job: Job) -> dict[str, Any]:
    """Return what failed/NAME/error.json says; documented in docs/errors.md."""
    cancelled = job.state is JobState.CANCELLED
    code = "cancelled" if cancelled else job.error_code or ""
    message = "the job was cancelled" if cancelled else job.error_message or ""
    hint = f"`musedrop retry {job.name}` runs it again" if cancelled else job.error_hint or ""
    return {
        "version": RECORD_VERSION,
        "name": job.name,
        "uid": job.uid,
        "id": job.client_id,
        "state": str(job.state),
        "code": code,
        "message": message,
        "message_zh": explain_error(code, message),
        "hint": hint,
        "hint_zh": translate(hint),
        "retry": cancelled or job.error_retry,
        "stage": job.stage_name,
        "engine": job.engine,
        "attempt": job.attempt,
        "created_at": format_time(job.created_ms),
        "finished_at": format_time(job.finished_ms),
    }


def _find_avatar_hash(outline: dict[str, Any]) -> str | None:
    """Return the hash of the file that the job gave; the avatar may be a clip that was made of it."""
    return outline.get("media_sha256", {}).get("photo") or outline.get("avatar_sha256")


def _given_name(job: Job, role: str) -> str:
    return str(job.media[role]["given"])


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replace a JSON file."""
    atomic_write_bytes(path, format_json(data))


def format_json(data: dict[str, Any], indent: int | None = 2) -> bytes:
    text = _ON_ONE_LINE(data) if indent is None else indent_json(data, indent)
    return f"{text}\n".encode("utf-8", "replace")


def indent_json(value: Any, indent: int, before: str = "\n") -> str:
    """Return what `json.dumps` does with an indent, in a fifth of its time."""
    inside = before + " " * indent
    if isinstance(value, dict) and value:
        lines = [f"{_write_key(key)}: {indent_json(one, indent, inside)}" for key, one in value.items()]
        return f"{{{inside}{f',{inside}'.join(lines)}{before}}}"
    if isinstance(value, list | tuple) and value:
        return f"[{inside}{f',{inside}'.join(indent_json(one, indent, inside) for one in value)}{before}]"
    return _ON_ONE_LINE(value)


def _write_key(key: Any) -> str:
    return _ON_ONE_LINE(key if isinstance(key, str) else str(key))


def format_time(at_ms: int | None) -> str | None:
    """Return milliseconds since 1970 in ISO 8601, UTC, as the views of the ledger write it."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
