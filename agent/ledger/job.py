"""One row of `jobs` as the daemon uses it, and how columns become values of SQLite and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from agent.fs import Fingerprint
from agent.jobs.spec import JobSpec
from agent.jobs.states import JobState
from agent.ledger.places import NOWHERE, Places
from agent.ledger.reader import LedgerError

write_json = json.JSONEncoder().encode
JSON_COLUMNS = {"media", "outline", "stage_seconds", "facts"}


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `jobs`; times are milliseconds since 1970."""

    id: int
    uid: str
    name: str
    client_id: str | None
    submitter: str
    state: JobState
    stage: str
    priority: int
    strategy: str
    engine_asked: str
    engine: str | None
    engine_reason: str | None
    spec: JobSpec | None
    media: dict[str, Any]
    outline: dict[str, Any] | None
    stage_seconds: dict[str, float]
    waiting_for: str | None
    attempt: int
    failures: int
    interruptions: int
    crashes: int
    run_token: str | None
    cancel_requested: bool
    error_code: str | None
    error_message: str | None
    error_hint: str | None
    error_retry: bool
    result: str | None
    facts: dict[str, Any] | None
    inputs: str | None
    created_ms: int
    queued_ms: int
    since_ms: int
    started_ms: int | None
    finished_ms: int | None
    animated: int | None
    first_part: str | None

    @property
    def stage_name(self) -> str:
        """The stage as people see it: the rows of older releases have no room for this one."""
        return "animate" if self.animated == 0 and self.stage == "prepare" else self.stage

    @property
    def fingerprints(self) -> set[Fingerprint]:
        """Those of its media, as they were when the job was queued."""
        return {Fingerprint.from_dict(medium) for medium in self.media.values()}


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: a published code, two sentences for people, and whether the same job may succeed later."""

    code: str
    message: str
    hint: str
    retry: bool = False

    def columns(self) -> dict[str, Any]:
        """Return the columns of `jobs` that hold the error."""
        return {
            "error_code": self.code,
            "error_message": self.message,
            "error_hint": self.hint,
            "error_retry": int(self.retry),
        }


JOB_COLUMNS = ", ".join(Job.__slots__)
NEW_ROW: dict[str, Any] = {
    **dict.fromkeys(Job.__slots__),
    **dict.fromkeys(("strategy", "engine_asked"), "auto"),
    **dict.fromkeys(("priority", "attempt", "failures", "interruptions", "crashes"), 0),
    **{"submitter": "", "stage": "inspect", "media": {}, "stage_seconds": {}},
    **{"cancel_requested": False, "error_retry": False},
}
"""What the columns of a new row are that no value was given for."""


def make_job(columns: Mapping[str, Any]) -> Job:
    """Return the job of a row that was inserted with these columns, without reading it again."""
    return Job(**{**NEW_ROW, **_select_values(columns)})


def change_job(job: Job, columns: Mapping[str, Any]) -> Job:
    """Return the job as it is when these columns were written, without reading its row again."""
    return replace(job, **_select_values(columns))


def _select_values(columns: Mapping[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in columns.items() if key in NEW_ROW}
    for key in ("cancel_requested", "error_retry"):
        if key in values:
            values[key] = bool(values[key])
    return values


def read_job(row: Sequence[Any], places: Places = NOWHERE) -> Job:
    """Return the job of a row that was selected as `JOB_COLUMNS`. Raises LedgerError for one that is damaged."""
    values = dict(zip(Job.__slots__, row, strict=True))
    try:
        return _convert(values, places)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise LedgerError(f"row {values['id']} of the ledger is damaged: restore the ledger from a backup") from error


def _convert(values: dict[str, Any], places: Places) -> Job:
    values |= {key: json.loads(values[key]) for key in JSON_COLUMNS if values[key]}
    values |= {
        "state": JobState(values["state"]),
        "spec": read_spec(values["spec"]) if values["spec"] else None,
        "cancel_requested": bool(values["cancel_requested"]),
        "error_retry": bool(values["error_retry"]),
    }
    return Job(**places.expand_columns(values))


@lru_cache(maxsize=256)
def read_spec(text: str) -> JobSpec:
    """Return what a row asks for; a job is read several times on its way."""
    return JobSpec.model_validate_json(text)


@dataclass(frozen=True, slots=True)
class MediaUser:
    """A job whose media may be in the inbox; `filed_ms`: when it ended, None until its other files have followed."""

    uid: str
    filed_ms: int | None
    fingerprints: frozenset[Fingerprint]


@lru_cache(maxsize=1 << 16)
def read_marks(media: str | None) -> frozenset[Fingerprint]:
    """Return the fingerprints in the column `media`. Raises LedgerError for a damaged one."""
    try:
        return frozenset(map(Fingerprint.from_dict, json.loads(media or "{}").values()))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise LedgerError("a row of the ledger is damaged: restore the ledger from a backup") from error


def assignments(columns: Mapping[str, Any], places: Places = NOWHERE) -> tuple[str, list[Any]]:
    """Return `key = ?, ...` for an UPDATE, and its values."""
    return ", ".join(f"{key} = ?" for key in columns), column_values(columns, places)


def column_values(columns: Mapping[str, Any], places: Places = NOWHERE) -> list[Any]:
    """Return the values of columns as SQLite takes them."""
    row = places.shorten_columns(columns)
    return [_write_value(key, value) for key, value in row.items()]


def _write_value(key: str, value: Any) -> Any:
    if key in JSON_COLUMNS and value is not None:
        return write_json(value)
    return value.model_dump_json() if key == "spec" and isinstance(value, JobSpec) else value


def placeholders(values: Iterable[Any]) -> str:
    """Return one `?` for each value, separated by commas."""
    return ", ".join("?" for _ in values)
