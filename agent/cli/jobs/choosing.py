"""Which jobs the names of a command mean, and whether what is asked for can happen to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent import client
from agent.client import ClientError, suggest
from agent.jobs.states import LIVE, RETRIABLE, UNSTARTED
from agent.ledger.reader import Rows

WHY_NOT = {
    "cancel": {"done": "is done already", "failed": "has failed already", "cancelled": "is cancelled already"},
    "retry": {
        "done": "is done: drop its files again for another video",
        "waiting": "is not finished: it waits for its media",
        "queued": "is not finished: it is queued",
        "running": "is not finished: it is running",
    },
    "priority": {
        "running": "is running already",
        **dict.fromkeys(("done", "failed", "cancelled"), "has ended already"),
    },
}
STATES: Mapping[str, Sequence[str]] = {"cancel": LIVE, "retry": RETRIABLE, "priority": UNSTARTED}
"""States of jobs to which a verb can happen."""
MANY = 100_000
"""Jobs that `--all` and `--failed` may mean at once."""


def require_job(db: Rows, name: str) -> dict[str, Any]:
    """Return the newest job of that name, id or uid. Raises ClientError."""
    row = client.find_job(db, name)
    if row is None:
        raise ClientError(make_unknown_text(db, name))
    return row


def make_unknown_text(db: Rows, name: str) -> str:
    near = suggest(name, client.list_names(db))
    return f"no job is called {name}{near}; `musedrop status` lists them"


def list_in_states(db: Rows, states: Sequence[str]) -> list[dict[str, Any]]:
    """Return all jobs in these states, the oldest first."""
    marks = ", ".join("?" for _ in states)
    sql = f"SELECT * FROM job_status WHERE state IN ({marks}) ORDER BY created_at LIMIT {MANY}"  # noqa: S608 - marks only
    return client.query(db, sql, list(states))


def choose_for(verb: str, db: Rows, names: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the jobs of these names to which the verb can happen, and a sentence on each other name."""
    states = STATES[verb]
    chosen, refusals = [], []
    for name in names:
        rows = client.list_of_name(db, name)
        possible = [row for row in rows if row["state"] in states]
        if possible:
            chosen.append(possible[0])
        elif not rows:
            refusals.append(make_unknown_text(db, name))
        else:
            refusals.append(f"{name} {WHY_NOT[verb][rows[0]['state']]}")
    return chosen, refusals


def name_for_control(row: dict[str, Any]) -> str:
    """Return the name of a control file that means exactly this job."""
    return str(row["uid"])
