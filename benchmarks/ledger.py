"""What a ledger of many rows costs: idle daemon, start, a pair, and each documented query.

python -m benchmarks.ledger [--rows N] [--seconds S]

The rows are copies of one that a daemon has written, with its events and its attempt, one every half minute.
Of a thousand 900 are done, 80 failed and 20 cancelled; the last 20 jobs wait for media.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import statistics
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from benchmarks.idle import cpu_seconds
from tests.share import ROOT, Share

STEP_MS, WAITING, ROUNDS = 30_000, 20, 5
STATE = f"CASE WHEN i <= {WAITING} THEN 'waiting' WHEN i % 1000 < 20 THEN 'cancelled'"
STATE += " WHEN i % 1000 < 100 THEN 'failed' ELSE 'done' END"
FILL = """
WITH RECURSIVE numbers(i) AS (SELECT {rows} UNION ALL SELECT i - 1 FROM numbers WHERE i > 1)
INSERT INTO jobs ({columns}) SELECT {values} FROM numbers CROSS JOIN (SELECT * FROM jobs WHERE name = 'hello') job
"""
COPY = """
INSERT INTO {table} (job_id, {columns}) SELECT j.id, {columns}
FROM (SELECT id FROM jobs WHERE name <> 'hello') j CROSS JOIN (
    SELECT {columns} FROM {table} WHERE job_id = (SELECT id FROM jobs WHERE name = 'hello')
)
"""


def fill(path: Path, rows: int) -> None:
    """Copy the row of `hello` so many times, with its events and its attempt."""
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = WAL; BEGIN;")
        columns = [row[1] for row in conn.execute("PRAGMA table_info(jobs)") if row[1] != "id"]
        times = ("created_ms", "queued_ms", "since_ms", "started_ms", "finished_ms")
        changed = {column: f"{column} - i * {STEP_MS}" for column in times}
        changed["finished_ms"] = f"iif(i <= {WAITING}, NULL, {changed['finished_ms']})"
        changed |= {"uid": "printf('%016x', i)", "name": "'job-' || i", "client_id": "'order-' || i", "state": STATE}
        changed |= {"tidied": "1", "swept": "1"}
        values = [changed.get(column, column) for column in columns]
        conn.execute(FILL.format(rows=rows, columns=", ".join(columns), values=", ".join(values)))
        for table in ("events", "attempts"):
            copied = [row[1] for row in conn.execute(f"PRAGMA table_info({table})") if "id" not in row[1]]
            conn.execute(COPY.format(table=table, columns=", ".join(copied)))
        conn.commit()


def measure_start_s(share: Share) -> float:
    began = time.monotonic()
    share.start()
    return time.monotonic() - began


def measure_idle_percent(share: Share, seconds: float) -> float:
    assert share.daemon is not None
    pause = threading.Event()
    pause.wait(8.0)  # until the workers are up
    before = cpu_seconds(share.daemon.pid)
    pause.wait(seconds)
    return 100 * (cpu_seconds(share.daemon.pid) - before) / seconds


def measure_pair_s(share: Share, name: str) -> float:
    began = time.monotonic()
    share.put(f"{name}.jpg", b"face")
    share.put(f"{name}.wav", b"voice")
    share.wait_for(name, "done")
    return time.monotonic() - began


def measure_queries_ms(path: Path) -> dict[str, float]:
    """Return the milliseconds of each documented query, connection and all rows included: the median."""
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("status-queries.md", "operations.md"))
    return {query: measure_query_ms(path, query) for query in re.findall(r"```sql\n(.*?)```", pages, re.DOTALL)}


def measure_query_ms(path: Path, query: str) -> float:
    took_ms = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as conn:
            conn.execute(query).fetchall()
        took_ms.append(1000 * (time.monotonic() - began))
    return statistics.median(took_ms)


def measure(folder: Path, rows: int, seconds: float) -> None:
    """Print what a ledger of so many rows costs."""
    share = Share(folder, module="tests.e2e.noop", settle_s=1.0, write_s=2.0, wait_media_s=86_400.0)
    share.config.write_text(share.config.read_text().replace("scan_s = 0.5", ""))
    share.start()
    try:
        measure_pair_s(share, "hello")
        share.stop()
        ledger = share.state / "jobs.db"
        fill(ledger, rows)
        print(f"{rows:,} rows, {ledger.stat().st_size / 2**20:.0f} MiB")
        print(f"  start {measure_start_s(share):8.2f} s")
        print(f"  idle  {measure_idle_percent(share, seconds):8.2f} % of one core")
        print(f"  pair  {measure_pair_s(share, 'pair'):8.2f} s, with one second to settle")
        for query, took_ms in measure_queries_ms(ledger).items() if rows else ():
            print(f"  {took_ms:8.2f} ms   {' '.join(query.split())[:100]}")
    finally:
        share.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the idle daemon is watched")
    asked = parser.parse_args()
    for rows in (0, asked.rows):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder) / "ledger", rows, asked.seconds)


if __name__ == "__main__":
    main()
