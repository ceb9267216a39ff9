"""The sums that triggers keep are those that a scan of the jobs would find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from tests.agent.samples import add_job, set_columns

COUNTED = "SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state"
HOURS = """
SELECT strftime('%Y-%m-%dT%H:00:00Z', finished_ms / 1000, 'unixepoch'),
    sum(state = 'done'), sum(state = 'failed'), sum(state = 'cancelled'),
    sum(CASE WHEN state = 'done' THEN coalesce(frames, 0) ELSE 0 END),
    round(sum(CASE WHEN state = 'done' THEN coalesce(duration_s, 0.0) ELSE 0 END), 3),
    round(avg(CASE WHEN state = 'done' THEN (finished_ms - created_ms) / 1000.0 END), 3)
FROM jobs WHERE finished_ms IS NOT NULL GROUP BY 1 ORDER BY 1
"""
ENGINES = """
SELECT engine, count(*), coalesce(sum(frames), 0), round(coalesce(sum(finished_ms - started_ms), 0) / 1000.0, 3)
FROM jobs WHERE state = 'done' AND finished_ms IS NOT NULL GROUP BY engine ORDER BY engine
"""
ENDS = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
COLUMNS = st.fixed_dictionaries(
    {},
    optional={
        "frames": st.none() | st.integers(0, 10_000),
        "duration_s": st.none() | st.integers(0, 10_000).map(lambda n: n / 25),
        "engine": st.sampled_from([None, "preview", "musetalk"]),
        "finished_ms": st.none() | st.integers(5000, 10_000_000),
        "state": st.sampled_from(ENDS),
    },
)
Step = Callable[[Ledger], None]


def change(uid: str, columns: dict[str, Any]) -> Step:
    return lambda ledger: set_columns(ledger, uid, **columns) if columns else None


def delete(uid: str) -> Step:
    def act(ledger: Ledger) -> None:
        ledger.db.execute("DELETE FROM attempts WHERE job_id = (SELECT id FROM jobs WHERE uid = ?)", [uid])
        ledger.db.execute("DELETE FROM events WHERE job_id = (SELECT id FROM jobs WHERE uid = ?)", [uid])
        ledger.db.execute("DELETE FROM jobs WHERE uid = ?", [uid])

    return act


UIDS = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(st.builds(change, UIDS, COLUMNS) | st.builds(delete, UIDS), max_size=8)


def read(ledger: Ledger, sql: str) -> list[tuple[Any, ...]]:
    return ledger.db.execute(sql).fetchall()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(ENDS), min_size=4, max_size=4), STEPS)
def test_the_sums_are_those_of_a_scan(states: list[JobState], steps: list[Step]) -> None:
    """After any inserts, changes and deletions."""
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "jobs.db")
        for number, (uid, state) in enumerate(zip("abcd", states, strict=True)):
            add_job(ledger, uid, state=state, at_ms=number * 2_000_000)
        for step in steps:
            step(ledger)
        assert read(ledger, "SELECT state, jobs FROM job_counts WHERE jobs > 0 ORDER BY state") == read(ledger, COUNTED)
        assert read(ledger, "SELECT * FROM throughput ORDER BY hour") == read(ledger, HOURS)
        speed = "SELECT engine, jobs, frames, round(run_seconds, 3) FROM engine_speed ORDER BY engine"
        assert read(ledger, speed) == read(ledger, ENGINES)
        ledger.close()
