"""The public views: what they are asked for is found by an index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.ledger.ledger import Ledger
from tests.agent.ledger.query_plans import find_scans
from tests.agent.samples import a_ledger, add_job

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENTED = [
    query
    for page in sorted(DOCS.glob("*.md"))
    for query in re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
]
SEARCHES = {
    "job_status": ("name", "uid", "id", "state", "created_at", "finished_at"),
    "device_events": ("at",),
    "job_events": ("name", "uid"),
    "job_attempts": ("name", "uid"),
    "job_quality": ("name", "uid", "finished_at"),
}
"""View -> the columns by which the docs say that rows are found without reading the others."""
FOUND = [f"SELECT * FROM {view} WHERE {column} = 'x'" for view, columns in SEARCHES.items() for column in columns]  # noqa: S608 - constants
NEWEST = [
    "SELECT * FROM job_status WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 20",
    "SELECT * FROM job_status WHERE finished_at IS NULL ORDER BY created_at LIMIT 20",
    "SELECT * FROM job_status WHERE finished_at >= '2026' ORDER BY finished_at",
    "SELECT * FROM job_status WHERE created_at >= '2026' ORDER BY created_at DESC LIMIT 20",
    "SELECT * FROM job_status WHERE name = 'x' OR id = 'x' OR uid = 'x' ORDER BY created_at DESC LIMIT 1",
]
SMALL = [f"SELECT * FROM {view}" for view in ("queue", "device_status", "throughput", "job_counts", "engine_speed")]  # noqa: S608
"""Views whose rows are few however many jobs have ended."""
SAID = ("SELECT * FROM job_status", "SELECT * FROM job_events", "SELECT * FROM job_attempts")
"""Those that read all rows, as they are asked to."""


@pytest.mark.parametrize("query", [*DOCUMENTED, *FOUND, *NEWEST, *SMALL])
def test_no_query_reads_all_jobs(tmp_path: Path, query: str) -> None:
    """Every query of the docs, and every search that they name, has an index."""
    ledger = a_ledger(tmp_path)
    assert find_scans(ledger.db.conn, query) == []
    ledger.close()


@pytest.mark.parametrize("query", SAID)
def test_a_scan_is_seen(tmp_path: Path, query: str) -> None:
    """The check finds what it looks for."""
    ledger = a_ledger(tmp_path)
    assert find_scans(ledger.db.conn, query)
    ledger.close()


def test_every_view_has_a_search(tmp_path: Path) -> None:
    """A view that is added gets its place in this file."""
    ledger = a_ledger(tmp_path)
    assert {query.split()[3] for query in (*FOUND, *SMALL)} == set(ledger.db.view_names())
    ledger.close()


def waiting_for(ledger: Ledger) -> dict[str, str | None]:
    return {row["name"]: row["waiting_for"] for row in ledger.rows("SELECT name, waiting_for FROM job_status")}


def test_the_reason_of_the_queue_comes_before_that_of_a_job(tmp_path: Path) -> None:
    """While the queue stands, all its jobs say so; after that each has its own reason again."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "one")
    add_job(ledger, "two")
    ledger.update("two", waiting_for="a second try")
    ledger.queue.set_waiting_for("the queue is paused")
    assert set(waiting_for(ledger).values()) == {"the queue is paused"}
    assert {row["waiting_for"] for row in ledger.rows("SELECT * FROM queue")} == {"the queue is paused"}
    ledger.queue.set_waiting_for(None)
    assert waiting_for(ledger) == {"one": None, "two": "a second try"}
    ledger.close()
