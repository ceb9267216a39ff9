"""The tables and the public views of jobs.db, as migrations. Views are the promise; tables may change."""

from __future__ import annotations

from agent.jobs.queue_order import AGEING_MS
from agent.ledger.sqlite import Database, Migrations
from gpu_pool.failpoints import failpoint

migrations = Migrations("musedrop")

SCHEMA_VERSION = 1
"""Number of migrations known to this release; kept in `PRAGMA user_version`."""

APPLICATION_ID = 0x6D757365
""""muse": lets `file` and other tools recognise the database."""

TABLES = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    client_id TEXT,
    submitter TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('waiting', 'queued', 'running', 'done', 'failed', 'cancelled')),
    stage TEXT NOT NULL DEFAULT 'inspect'
        CHECK (stage IN ('inspect', 'prepare', 'render', 'assemble', 'publish')),
    priority INTEGER NOT NULL DEFAULT 0,
    strategy TEXT NOT NULL DEFAULT 'auto',
    engine_asked TEXT NOT NULL DEFAULT 'auto',
    engine TEXT,
    engine_reason TEXT,
    spec TEXT,
    digest TEXT NOT NULL DEFAULT '',
    media TEXT NOT NULL DEFAULT '{}',
    outline TEXT,
    frames INTEGER,
    duration_s REAL,
    stage_seconds TEXT NOT NULL DEFAULT '{}',
    units_done INTEGER NOT NULL DEFAULT 0,
    units_total INTEGER NOT NULL DEFAULT 0,
    device TEXT,
    waiting_for TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    run_token TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    error_code TEXT,
    error_message TEXT,
    error_hint TEXT,
    error_retry INTEGER,
    result TEXT,
    facts TEXT,
    inputs TEXT,
    tidied INTEGER NOT NULL DEFAULT 0,
    swept INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    queued_ms INTEGER NOT NULL DEFAULT 0,
    since_ms INTEGER NOT NULL,
    started_ms INTEGER,
    finished_ms INTEGER
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, priority DESC, id);
CREATE INDEX jobs_by_turn ON jobs (submitter, priority, queued_ms, id, not_before_ms) WHERE state = 'queued';
CREATE INDEX jobs_by_name ON jobs (name, id);
CREATE INDEX jobs_by_client_id ON jobs (client_id, id) WHERE client_id IS NOT NULL;
CREATE INDEX jobs_untidy ON jobs (id) WHERE tidied = 0 OR swept = 0;

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    attempt INTEGER NOT NULL,
    run_token TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    outcome TEXT CHECK (outcome IN ('done', 'failed', 'cancelled', 'interrupted')),
    error_code TEXT,
    error_message TEXT,
    interruptions INTEGER NOT NULL DEFAULT 0,
    cause TEXT,
    UNIQUE (job_id, attempt)
) STRICT;

CREATE TABLE submitters (
    submitter TEXT PRIMARY KEY,
    served_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX submitters_by_turn ON submitters (served_ms);

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    job_id INTEGER REFERENCES jobs (id),
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    device TEXT,
    detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX events_by_job ON events (job_id, id);

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    card TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    since_ms INTEGER NOT NULL,
    until_ms INTEGER,
    total_bytes INTEGER NOT NULL DEFAULT 0,
    free_bytes INTEGER NOT NULL DEFAULT 0,
    held_bytes INTEGER NOT NULL DEFAULT 0,
    worker_pid INTEGER,
    model TEXT NOT NULL DEFAULT '',
    load_s REAL NOT NULL DEFAULT 0,
    batch INTEGER NOT NULL DEFAULT 0,
    job_id INTEGER REFERENCES jobs (id),
    updated_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE drained (
    device TEXT PRIMARY KEY,
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

ISO = "strftime('%Y-%m-%dT%H:%M:%fZ', {} / 1000.0, 'unixepoch')"

VIEWS = f"""
CREATE VIEW job_status AS
SELECT
    name, uid, client_id AS id, state, stage,
    CASE WHEN state = 'done' THEN 100.0
         WHEN stage IN ('assemble', 'publish') THEN 99.0
         WHEN stage = 'render' AND units_total > 0 THEN round(98.0 * units_done / units_total, 1)
         ELSE 0.0 END AS percent,
    units_done, units_total, engine, engine_asked, device, priority, strategy, submitter, attempt, interruptions,
    waiting_for, error_code, error_message, error_hint, result,
    frames, duration_s,
    {ISO.format("created_ms")} AS created_at,
    {ISO.format("since_ms")} AS since,
    {ISO.format("started_ms")} AS started_at,
    {ISO.format("finished_ms")} AS finished_at,
    round((finished_ms - started_ms) / 1000.0, 3) AS run_seconds
FROM jobs;

CREATE VIEW queue AS
WITH clock AS (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS at),
ready AS (
    SELECT id, state, priority, submitter, queued_ms, at, state = 'waiting' OR not_before_ms > at AS later
    FROM jobs, clock WHERE state IN ('queued', 'waiting')
),
ranked AS (
    SELECT *, max(priority, min(priority + CASE WHEN state = 'queued' AND at > queued_ms
                                                THEN (at - queued_ms) / {AGEING_MS} ELSE 0 END,
                                max(priority) OVER (PARTITION BY later))) AS level
    FROM ready
),
rounds AS (
    SELECT ranked.*, row_number() OVER (PARTITION BY later, submitter, level ORDER BY queued_ms, id) AS round,
        max(coalesce(served_ms, 0), queued_ms - {AGEING_MS}) AS turn
    FROM ranked LEFT JOIN submitters USING (submitter)
)
SELECT
    row_number() OVER (ORDER BY later, level DESC, round, turn, rounds.queued_ms, id) AS position,
    j.name, j.uid, j.state, j.priority, level, j.submitter, j.engine_asked, j.waiting_for,
    {ISO.format("j.created_ms")} AS created_at
FROM rounds JOIN jobs j USING (id);

CREATE VIEW job_events AS
SELECT j.name, j.uid, {ISO.format("e.at_ms")} AS at, e.kind, e.device, e.detail
FROM events e JOIN jobs j ON j.id = e.job_id ORDER BY e.id;

CREATE VIEW job_attempts AS
SELECT
    j.name, j.uid, a.attempt, a.outcome, a.error_code, a.error_message, a.interruptions, a.cause,
    {ISO.format("a.started_ms")} AS started_at, {ISO.format("a.ended_ms")} AS ended_at
FROM attempts a JOIN jobs j ON j.id = a.job_id ORDER BY a.id;

CREATE VIEW device_status AS
SELECT
    d.id AS device, d.card, d.kind, d.name, d.state, d.reason,
    {ISO.format("d.since_ms")} AS since, {ISO.format("d.until_ms")} AS until,
    d.worker_pid, d.model, d.load_s AS load_seconds, d.batch,
    d.total_bytes / 1048576 AS total_mib, d.free_bytes / 1048576 AS free_mib, d.held_bytes / 1048576 AS held_mib,
    j.name AS job, {ISO.format("d.updated_ms")} AS updated_at
FROM devices d LEFT JOIN jobs j ON j.id = d.job_id;

CREATE VIEW throughput AS
SELECT
    strftime('%Y-%m-%dT%H:00:00Z', finished_ms / 1000, 'unixepoch') AS hour,
    sum(state = 'done') AS done, sum(state = 'failed') AS failed, sum(state = 'cancelled') AS cancelled,
    sum(CASE WHEN state = 'done' THEN frames ELSE 0 END) AS frames,
    round(sum(CASE WHEN state = 'done' THEN duration_s ELSE 0 END), 3) AS video_seconds,
    round(avg(CASE WHEN state = 'done' THEN (finished_ms - created_ms) / 1000.0 END), 3) AS mean_turnaround_s
FROM jobs WHERE finished_ms IS NOT NULL GROUP BY 1;
"""


@migrations()
def first_light(db: Database) -> None:
    for statement in statements(TABLES + VIEWS):
        db.execute(statement)
    failpoint("migration")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")


def statements(script: str) -> list[str]:
    """Split at the semicolons that end lines: `executescript` would commit the migration's transaction."""
    return [part.strip() for part in script.split(";\n") if part.strip()]
