"""What the page shows: rows of the ledger's views, and status.json, as sections of JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.fs import read_regular
from agent.languages import explain_error, find_chinese, translate
from agent.ledger.queue import QueueRows
from agent.ledger.views import DRAFT_UIDS
from agent.library import list_library as find_avatars
from agent.library import name_avatar
from agent.text import name_submitter

if TYPE_CHECKING:
    from agent.ledger.reader import Rows
    from agent.page.figures import DayFigures
    from agent.settings import Settings

QUEUE_ROWS = 100
RECENT_ROWS = 24
MAX_PAGE_ROWS = 200
MAX_STATUS_BYTES = 16 << 20
MAX_RECORD_BYTES = 1 << 20
SHOWN = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"),
    "video": (".mp4", ".m4v", ".mov", ".webm"),
}
"""Suffixes of files that browsers show."""
FINISHED = ("done", "failed", "cancelled")
RUNNING = (
    "SELECT job_status.*, json_extract(media, '$.avatar.path') AS face FROM job_status JOIN jobs USING (uid)"
    " WHERE job_status.state = 'running' AND job_status.submitter <> 'draft'"
    " ORDER BY job_status.priority DESC, created_at"
)
RECENT = "SELECT * FROM job_status WHERE state = ? AND submitter <> 'draft' ORDER BY finished_at DESC LIMIT ?"
DRAFTS = f"SELECT * FROM job_status WHERE uid IN ({DRAFT_UIDS}) ORDER BY created_at"  # noqa: S608 - our own text
SUBMITTERS = "SELECT submitter FROM submitters WHERE submitter NOT IN ('draft', '') ORDER BY served_ms DESC LIMIT 200"
HOURS = "SELECT * FROM throughput WHERE hour >= ? ORDER BY hour"
SPEEDS = "SELECT * FROM engine_speed ORDER BY engine"
JOB = "SELECT * FROM job_status WHERE uid = ?"

TOLD = ("error_message", "error_hint", "waiting_for", "reason", "hint", "state", "stage")
"""Keys whose values are sentences and words for people."""

Section = dict[str, Any] | list[dict[str, Any]]


def read_sections(
    db: Rows, status: Mapping[str, Any], settings: Settings, now: datetime, figures: DayFigures
) -> dict[str, Section]:
    """Return all sections but the head. `status`: the content of status.json, {} without one."""
    eta_s = {row.get("uid"): row.get("eta_s") for row in status.get("running", ())}
    at_ms = int(now.timestamp() * 1000)
    day_ago = (now.astimezone(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H")
    drafts = list(db.query(DRAFTS))
    queue = [row for row in QueueRows(db).list_first(at_ms, QUEUE_ROWS) if row["submitter"] != "draft"]
    failed = [*db.query(RECENT, ["failed", RECENT_ROWS]), *db.query(RECENT, ["cancelled", RECENT_ROWS])]
    sections: dict[str, Section] = {
        "devices": [_without(row, "updated_at") for row in list_devices(db)],
        "running": [
            {**row, "eta_s": eta_s.get(row["uid"]), "face": name_kind(row["face"])}
            for row in map(_sign, db.query(RUNNING))
        ],
        "queue": list(map(_sign, queue)),
        "done": list(map(_sign, db.query(RECENT, ["done", RECENT_ROWS]))),
        "failed": sorted(map(_sign, failed), key=lambda row: str(row["finished_at"]), reverse=True)[:RECENT_ROWS],
        "drafts": drafts,
        "submitters": list(map(_sign, db.query(SUBMITTERS))),
        "ignored": list(status.get("ignored", ())),
        "figures": {
            "hours": [_without_drafts(row, drafts) for row in db.query(HOURS, [day_ago])],
            "engines": list(db.query(SPEEDS)),
            **figures.read(db, now),
        },
        "counts": count_jobs(db, drafts),
        "library": list_library(settings),
    }
    return {
        name: [*map(add_chinese, section)] if isinstance(section, list) else section
        for name, section in sections.items()
    }


def list_devices(db: Rows) -> list[dict[str, Any]]:
    return list(db.query("SELECT * FROM device_status ORDER BY device"))


def count_jobs(db: Rows, drafts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many jobs are in each state, without the drafts."""
    found = {str(row["state"]): int(row["jobs"]) for row in db.query("SELECT state, jobs FROM job_counts")}
    found = Counter(found) - Counter(str(row["state"]) for row in drafts)
    return dict(found)


def _without_drafts(hour: dict[str, Any], drafts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ended = Counter(row["state"] for row in drafts if str(row["finished_at"])[:13] == hour["hour"][:13])
    return {**hour, **{state: hour[state] - ended[state] for state in FINISHED}}


def name_kind(path: str | None) -> str:
    """Return what a browser shows a file as: "image", "video", or "" for what it may not be able to show."""
    return next((kind for kind, suffixes in SHOWN.items() if path and path.lower().endswith(suffixes)), "")


def _sign(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the name of the user who submitted the job."""
    return {**row, "who": name_submitter(row["submitter"])}


def make_head(status: Mapping[str, Any], settings: Settings, absence: str) -> dict[str, Any]:
    """Return what the top of the page says. `absence`: why no daemon is at work, "" where one is."""
    daemon = status.get("daemon", {})
    problems = [str(text) for text in status.get("problems", ())]
    return {
        "version": __version__,
        "share": str(settings.share),
        "absence": absence,
        "absence_zh": translate(absence),
        "paused": bool(status.get("paused")),
        "draining": bool(daemon.get("draining")),
        "engine": str(status.get("engine", "")),
        "problems": problems,
        "problems_zh": [translate(text) for text in problems],
    }


def add_chinese(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its sentences in Chinese too, as KEY_zh, where they are known."""
    found = {f"{key}_zh": find_chinese(str(row[key])) for key in TOLD if row.get(key)}
    if row.get("error_code"):
        found["error_message_zh"] = explain_error(row["error_code"], row.get("error_message") or "")
    return {**row, **{key: text for key, text in found.items() if text}}


def read_status(settings: Settings) -> dict[str, Any]:
    """Return the content of status.json, {} where it can't be read."""
    try:
        status = json.loads(read_regular(settings.folders.status_file, MAX_STATUS_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}


def list_library(settings: Settings) -> list[dict[str, str]]:
    """Return the avatars of the library by name, with what a browser shows them as."""
    try:
        paths = list(find_avatars(settings.folders.avatars))
    except OSError:
        return []
    named = {name_avatar(path): name_kind(path.name) for path in paths}
    return [{"name": name, "kind": named[name]} for name in sorted(named) if name.isprintable()]


def list_jobs(db: Rows, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows of finished jobs, the newest end first.

    `wanted`: state, q (part of a name), submitter, day (YYYY-MM-DD, UTC), before (finished_at of the last row known),
    limit. Each may be missing.
    """
    states = [state for state in wanted.get("state", "").split(",") if state in FINISHED] or ["done"]
    where, given = [f"state IN ({','.join('?' * len(states))}) AND submitter <> 'draft'"], list[Any](states)
    for condition, value in (
        ("instr(lower(name), lower(?))", wanted.get("q", "")),
        ("submitter = ?", wanted.get("submitter", "")),
        ("substr(finished_at, 1, 10) = ?", wanted.get("day", "")),
        ("finished_at < ?", wanted.get("before", "")),
    ):
        if value:
            where.append(condition)
            given.append(value)
    limit = wanted.get("limit", "")
    given.append(max(1, min(MAX_PAGE_ROWS, int(limit) if limit.isascii() and limit.isdigit() else 60)))
    sql = f"SELECT * FROM job_status WHERE {' AND '.join(where)} ORDER BY finished_at DESC LIMIT ?"  # noqa: S608
    return list(map(_sign, db.query(sql, given)))


def find_job(db: Rows, uid: str) -> dict[str, Any] | None:
    """Return the row of a job, None where there is none."""
    return next(map(add_chinese, db.query(JOB, [uid])), None)


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
