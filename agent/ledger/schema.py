"""The tables of jobs.db, as migrations. The views are the promise; tables and indexes may change."""

from __future__ import annotations

from agent.ledger.reader import APPLICATION_ID
from agent.ledger.sqlite import Migrations, PlainDatabase
from agent.ledger.totals import TOTALS, TRIGGERS
from agent.ledger.views import VIEWS, format_iso
from gpu_pool.failpoints import failpoint

migrations = Migrations("musedrop")

SCHEMA_VERSION = 3
"""Number of migrations known to this release; kept in `PRAGMA user_version`."""

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

INDEXES = f"""
DROP INDEX IF EXISTS jobs_by_state;
DROP INDEX IF EXISTS jobs_by_turn;
DROP INDEX IF EXISTS jobs_by_name;
DROP INDEX IF EXISTS jobs_by_client_id;
CREATE INDEX jobs_by_name ON jobs (name, state, id);
CREATE INDEX jobs_by_name_and_creation ON jobs (name, {format_iso("created_ms")});
CREATE INDEX jobs_by_client_id ON jobs (client_id, state, id) WHERE client_id IS NOT NULL;
CREATE INDEX jobs_by_creation ON jobs ({format_iso("created_ms")});
CREATE INDEX jobs_by_finish ON jobs ({format_iso("finished_ms")});
CREATE INDEX jobs_by_state ON jobs (state, {format_iso("finished_ms")});
CREATE INDEX jobs_by_turn ON jobs (state, submitter, priority, queued_ms, id, not_before_ms, finished_ms)
    WHERE finished_ms IS NULL;
CREATE INDEX jobs_waiting ON jobs (id) WHERE state = 'waiting';
CREATE INDEX jobs_delayed ON jobs (not_before_ms) WHERE state = 'queued' AND not_before_ms > 0;
CREATE INDEX attempts_by_token ON attempts (run_token);
"""
"""Rows are found by these without reading the others, which may be millions; tests read the query plans."""


@migrations()
def first_light(db: PlainDatabase) -> None:
    for statement in statements(TABLES):
        db.execute(statement)
    failpoint("migration")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")


@migrations()
def count_instead_of_scan(db: PlainDatabase) -> None:
    """Add indexes, totals that triggers keep, and views that read them."""
    for view in ("job_status", "queue", "job_events", "job_attempts", "device_status", "throughput"):
        db.execute(f"DROP VIEW IF EXISTS {view}")
    for statement in (*statements(INDEXES + TOTALS), *TRIGGERS):
        db.execute(statement)
    failpoint("migration")
    db.execute("PRAGMA user_version = 2")


@migrations()
def gauges_of_cards(db: PlainDatabase) -> None:
    """Add what cards report of themselves, the stage of clips and the place of first parts; make all views anew."""
    for column in ("temperature_c", "load_percent", "power_w"):
        db.execute(f"ALTER TABLE devices ADD COLUMN {column} INTEGER")
    db.execute("ALTER TABLE jobs ADD COLUMN animated INTEGER")
    db.execute("ALTER TABLE jobs ADD COLUMN first_part TEXT")
    db.execute("CREATE INDEX jobs_with_first_part ON jobs (id) WHERE first_part IS NOT NULL")
    for view in db.view_names():
        db.execute(f"DROP VIEW {view}")
    for statement in statements(VIEWS):
        db.execute(statement)
    failpoint("migration")
    db.execute("PRAGMA user_version = 3")


def statements(script: str) -> list[str]:
    """Split at the semicolons that end lines: `executescript` would commit the migration's transaction."""
    return [part.strip() for part in script.split(";\n") if part.strip()]
