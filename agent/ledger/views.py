"""The public views of jobs.db. They are the promise to readers: a column keeps its name and its meaning."""

from __future__ import annotations

from agent.jobs.queue_order import AGEING_MS

OPEN = "finished_ms IS NULL AND state IN ('queued', 'waiting')"
"""Jobs that have not started."""
QUEUE_REASON = "queue_reason"
"""The row of `meta` that says what all queued jobs wait for: one row, however many they are.

With ":" and an engine after it, what those wait for that ask for this engine."""
DRAFT_KEY = "draft:"
DRAFT_UIDS = f"SELECT substr(key, {len(DRAFT_KEY) + 1}) FROM meta WHERE key GLOB '{DRAFT_KEY}*'"
"""The uids of all drafts. They are few: each is deleted soon after its end."""
WAITING_FOR = (
    "CASE WHEN {0}.state = 'queued'"
    f" THEN coalesce((SELECT value FROM meta WHERE key = '{QUEUE_REASON}'),"
    f" (SELECT value FROM meta WHERE key = '{QUEUE_REASON}:' || {{0}}.engine_asked), {{0}}.waiting_for)"
    " ELSE {0}.waiting_for END"
)


def format_iso(column: str) -> str:
    """Return the expression for milliseconds since 1970 as text in ISO 8601. Indexes are on the same expression."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000.0, 'unixepoch')"


QUEUE = f"""
WITH {{ctes}}
clock AS (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS at),
ready AS (
    SELECT id, state, priority, submitter, queued_ms, at, state = 'waiting' OR not_before_ms > at AS later
    FROM {{source}}, clock WHERE {{only}}
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
    j.name, j.uid, j.state, j.priority, level, j.submitter, j.engine_asked, {WAITING_FOR.format("j")} AS waiting_for,
    {format_iso("j.created_ms")} AS created_at
FROM rounds JOIN jobs j USING (id)
"""
"""Ranks the jobs of `source`, the first in turn first. `ctes`: what `source` is made of."""

QUALITY = (
    *("frames_measured", "sharpness", "drift", "jitter", "seam"),
    *("no_face", "sync", "lag_ms", "silent_motion"),
)
"""The figures of a result, as a worker measures them."""


def read_fact(path: str, key: str) -> str:
    """Return the expression for a value in the facts of a job; `json_extract` is refused in views of a file."""
    return f"(SELECT value FROM json_each(facts, '{path}') WHERE key = '{key}')"


VIEWS = f"""
CREATE VIEW job_status AS
SELECT
    name, uid, client_id AS id, state,
    CASE WHEN animated = 0 AND stage = 'prepare' THEN 'animate' ELSE stage END AS stage,
    CASE WHEN state = 'done' THEN 100.0
         WHEN stage IN ('assemble', 'publish') THEN 99.0
         WHEN animated = 0 AND stage = 'prepare' AND units_total > 0 THEN round(49.0 * units_done / units_total, 1)
         WHEN animated = 1 AND stage = 'render' AND units_total > 0 THEN round(49 + 49.0 * units_done / units_total, 1)
         WHEN animated = 1 AND stage = 'prepare' THEN 49.0
         WHEN stage = 'render' AND units_total > 0 THEN round(98.0 * units_done / units_total, 1)
         ELSE 0.0 END AS percent,
    units_done, units_total, engine, engine_asked, device, priority, strategy, submitter, attempt, interruptions,
    {WAITING_FOR.format("jobs")} AS waiting_for, error_code, error_message, error_hint, result,
    frames, duration_s,
    {format_iso("created_ms")} AS created_at,
    {format_iso("since_ms")} AS since,
    {format_iso("started_ms")} AS started_at,
    {format_iso("finished_ms")} AS finished_at,
    round((finished_ms - started_ms) / 1000.0, 3) AS run_seconds,
    (SELECT group_concat(value, char(10)) FROM json_each(outline, '$.advice')) AS advice,
    first_part
FROM jobs;

CREATE VIEW queue AS {QUEUE.format(ctes="", source="jobs", only=OPEN)};

CREATE VIEW job_events AS
SELECT j.name, j.uid, {format_iso("e.at_ms")} AS at, e.kind, e.device, e.detail
FROM events e JOIN jobs j ON j.id = e.job_id ORDER BY e.id;

CREATE VIEW device_events AS
SELECT device, {format_iso("at_ms")} AS at, kind, detail FROM events WHERE job_id IS NULL ORDER BY id;

CREATE VIEW job_attempts AS
SELECT
    j.name, j.uid, a.attempt, a.outcome, a.error_code, a.error_message, a.interruptions, a.cause,
    {format_iso("a.started_ms")} AS started_at, {format_iso("a.ended_ms")} AS ended_at
FROM attempts a JOIN jobs j ON j.id = a.job_id ORDER BY a.id;

CREATE VIEW job_quality AS
SELECT
    name, uid, engine, result,
    {", ".join(f"{read_fact('$.quality', figure)} AS {figure}" for figure in QUALITY)},
    {read_fact("$", "warnings")} AS warnings, {format_iso("finished_ms")} AS finished_at
FROM jobs WHERE state = 'done' AND facts IS NOT NULL;

CREATE VIEW device_status AS
SELECT
    d.id AS device, d.card, d.kind, d.name, d.state, d.reason,
    {format_iso("d.since_ms")} AS since, {format_iso("d.until_ms")} AS until,
    d.worker_pid, d.model, d.load_s AS load_seconds, d.batch,
    d.total_bytes / 1048576 AS total_mib, d.free_bytes / 1048576 AS free_mib, d.held_bytes / 1048576 AS held_mib,
    j.name AS job, {format_iso("d.updated_ms")} AS updated_at, d.temperature_c, d.load_percent, d.power_w
FROM devices d LEFT JOIN jobs j ON j.id = d.job_id;

CREATE VIEW throughput AS
SELECT
    hour, done, failed, cancelled, frames, round(video_us / 1e6, 3) AS video_seconds,
    round(turnaround_ms / 1000.0 / nullif(done, 0), 3) AS mean_turnaround_s
FROM finished_hours WHERE done + failed + cancelled > 0;

CREATE VIEW job_counts AS SELECT state, jobs FROM state_counts;

CREATE VIEW engine_speed AS
SELECT
    nullif(engine, '') AS engine, jobs, frames, run_ms / 1000.0 AS run_seconds,
    round(frames * 1000.0 / nullif(run_ms, 0), 1) AS frames_per_second
FROM engine_totals WHERE jobs > 0;
"""
