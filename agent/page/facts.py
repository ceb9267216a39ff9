"""What the page shows: rows of the ledger's views, and status.json, as sections of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agent import __version__, client
from agent.fs import read_regular
from agent.languages import explain_error, find_chinese, translate
from agent.ledger.queue import QueueRows
from agent.ledger.sqlite import Database
from agent.settings import Settings

QUEUE_ROWS = 100
RECENT_ROWS = 24
MAX_PAGE_ROWS = 200
MAX_STATUS_BYTES = 16 << 20
MAX_RECORD_BYTES = 1 << 20
FINISHED = ("done", "failed", "cancelled")
RUNNING = "SELECT * FROM job_status WHERE state = 'running' ORDER BY priority DESC, created_at"
RECENT = "SELECT * FROM job_status WHERE state = ? ORDER BY finished_at DESC LIMIT ?"
HOURS = "SELECT * FROM throughput WHERE hour >= ? ORDER BY hour"
SPEEDS = "SELECT * FROM engine_speed ORDER BY engine"
JOB = "SELECT * FROM job_status WHERE uid = ?"

TOLD = ("error_message", "error_hint", "waiting_for", "reason", "hint")
"""Keys whose values are sentences."""

Section = dict[str, Any] | list[dict[str, Any]]


def read_sections(db: Database, status: Mapping[str, Any], settings: Settings, now: datetime) -> dict[str, Section]:
    """Return all sections but the head. `status`: the content of status.json, {} without one."""
    eta_s = {row.get("uid"): row.get("eta_s") for row in status.get("running", ())}
    at_ms = int(now.timestamp() * 1000)
    day_ago = (now.astimezone(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H")
    failed = [*db.query(RECENT, ["failed", RECENT_ROWS]), *db.query(RECENT, ["cancelled", RECENT_ROWS])]
    return {
        "devices": [add_chinese(_without(row, "updated_at")) for row in client.list_devices(db)],
        "running": [add_chinese({**row, "eta_s": eta_s.get(row["uid"])}) for row in db.query(RUNNING)],
        "queue": [add_chinese(row) for row in QueueRows(db).list_first(at_ms, QUEUE_ROWS)],
        "done": list(db.query(RECENT, ["done", RECENT_ROWS])),
        "failed": [
            add_chinese(row)
            for row in sorted(failed, key=lambda row: str(row["finished_at"]), reverse=True)[:RECENT_ROWS]
        ],
        "ignored": [add_chinese(row) for row in status.get("ignored", ())],
        "figures": {"hours": list(db.query(HOURS, [day_ago])), "engines": list(db.query(SPEEDS))},
        "counts": client.count_jobs(db),
        "library": list_library(settings),
    }


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
    """Return the avatars of the library by name."""
    try:
        names = sorted(set(map(client.name_avatar, client.list_library(settings.folders.avatars))))
    except OSError:
        return []
    return [{"name": name} for name in names if name.isprintable()]


def list_jobs(db: Database, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows of finished jobs, the newest end first.

    `wanted`: state, q (part of a name), submitter, day (YYYY-MM-DD, UTC), before (finished_at of the last row known),
    limit. Each may be missing.
    """
    states = [state for state in wanted.get("state", "").split(",") if state in FINISHED] or ["done"]
    where, given = [f"state IN ({','.join('?' * len(states))})"], list[Any](states)
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
    return list(db.query(sql, given))


def find_job(db: Database, uid: str) -> dict[str, Any] | None:
    """Return the row of a job, None where there is none."""
    return next(map(add_chinese, db.query(JOB, [uid])), None)


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
