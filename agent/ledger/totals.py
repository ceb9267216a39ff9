"""Sums over all jobs, kept by triggers: counting a million rows takes a second, and status.json wants it every two."""

from __future__ import annotations

from agent.jobs.states import JobState

HOUR = "strftime('%Y-%m-%dT%H:00:00Z', {} / 1000, 'unixepoch')"

HOURS = ("done", "failed", "cancelled", "frames", "video_us", "turnaround_ms")
ENGINES = ("jobs", "frames", "run_ms")


def add_hour(row: str, sign: str) -> str:
    """Return the statement that adds a job (`row` is NEW, OLD or jobs) to the hour of its end, or takes it away."""
    done = f"({row}.state = 'done')"
    values = (
        *(f"{sign}({row}.state = '{state}')" for state in HOURS[:3]),
        f"{sign}{done} * coalesce({row}.frames, 0)",
        f"{sign}{done} * CAST(round(coalesce({row}.duration_s, 0) * 1e6) AS INTEGER)",
        f"{sign}{done} * ({row}.finished_ms - {row}.created_ms)",
    )
    key, where = HOUR.format(f"{row}.finished_ms"), f"{row}.finished_ms IS NOT NULL"
    return _upsert("finished_hours", "hour", HOURS, key, values, row, where)


def add_engine(row: str, sign: str) -> str:
    """Return the statement that adds a done job to those of its engine, or takes it away."""
    run_ms = f"{sign}coalesce({row}.finished_ms - {row}.started_ms, 0)"
    values = (f"{sign}1", f"{sign}coalesce({row}.frames, 0)", run_ms)
    where = f"{row}.finished_ms IS NOT NULL AND {row}.state = 'done'"
    return _upsert("engine_totals", "engine", ENGINES, f"coalesce({row}.engine, '')", values, row, where)


def _upsert(
    table: str, key: str, columns: tuple[str, ...], value: str, values: tuple[str, ...], row: str, where: str
) -> str:
    source = "FROM jobs " if row == "jobs" else ""
    sums = ", ".join(f"{column} = {column} + excluded.{column}" for column in columns)
    return (
        f"INSERT INTO {table} ({key}, {', '.join(columns)}) SELECT {value}, {', '.join(values)} {source}WHERE {where}"
        f" ON CONFLICT ({key}) DO UPDATE SET {sums}"
    )


def count_state(row: str, sign: str) -> str:
    return f"UPDATE state_counts SET jobs = jobs {sign} 1 WHERE state = {row}.state"


def _make_trigger(name: str, when: str, *actions: str) -> str:
    return f"CREATE TRIGGER {name} AFTER {when} BEGIN {'; '.join(actions)}; END"


ADD, TAKE = (tuple(make(row, sign) for make in (add_hour, add_engine)) for row, sign in (("NEW", ""), ("OLD", "-")))
TOTALLED = "state, engine, frames, duration_s, created_ms, started_ms, finished_ms"
ENDED = "OLD.finished_ms IS NOT NULL OR NEW.finished_ms IS NOT NULL"

TOTALS = f"""
CREATE TABLE state_counts (
    state TEXT PRIMARY KEY,
    jobs INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE finished_hours (
    hour TEXT PRIMARY KEY,
    {", ".join(f"{column} INTEGER NOT NULL" for column in HOURS)}
) STRICT, WITHOUT ROWID;
CREATE TABLE engine_totals (
    engine TEXT PRIMARY KEY,
    {", ".join(f"{column} INTEGER NOT NULL" for column in ENGINES)}
) STRICT, WITHOUT ROWID;
INSERT INTO state_counts (state) VALUES {", ".join(f"('{state}')" for state in JobState)};
UPDATE state_counts SET jobs = (SELECT count(*) FROM jobs WHERE jobs.state = state_counts.state);
{add_hour("jobs", "")};
{add_engine("jobs", "")};
"""

TRIGGERS = (
    _make_trigger("job_added", "INSERT ON jobs", count_state("NEW", "+"), *ADD),
    _make_trigger("job_deleted", "DELETE ON jobs", count_state("OLD", "-"), *TAKE),
    _make_trigger(
        "job_moved",
        "UPDATE OF state ON jobs WHEN OLD.state <> NEW.state",
        count_state("OLD", "-"),
        count_state("NEW", "+"),
    ),
    _make_trigger("job_totalled", f"UPDATE OF {TOTALLED} ON jobs WHEN {ENDED}", *TAKE, *ADD),
)
