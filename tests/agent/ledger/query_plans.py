"""What SQLite reads for a statement: a ledger of a million rows is not to be read whole by accident."""

from __future__ import annotations

import re
import sqlite3

GROWING = re.compile(
    r"SCAN (jobs|j|n|events|e|attempts|a)\b(?! USING (COVERING )?INDEX jobs_(untidy|waiting|delayed|by_turn))"
)
"""A step that reads every row of a table that grows with each job; `j` and the like are its aliases.

The indexes named are of a few jobs: those that wait, and those whose files are to be moved.
"""
BY_STATE = re.compile(r"SEARCH (jobs|j|n)\b USING (COVERING )?INDEX jobs_by_state \(state=\?\)$")
ENDED = re.compile(r"'(done|failed|cancelled)'")
"""Together: a step that reads all jobs that have ended, which are most of the table."""
IN_ORDER = re.compile(r"SCAN jobs USING (COVERING )?INDEX jobs_by_(finish|creation)$")
"""Reads the first rows by a time, where there is a limit."""


def find_scans(conn: sqlite3.Connection, sql: str) -> list[str]:
    """Return the steps of the plan that read a growing table whole."""
    steps = [str(step[3]) for step in conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
    is_limited = "LIMIT" in sql and not any(step.startswith("USE TEMP B-TREE") for step in steps)
    growing = [step for step in steps if GROWING.match(step) and not (is_limited and IN_ORDER.match(step))]
    return growing + [step for step in steps if BY_STATE.match(step) and ENDED.search(sql)]
