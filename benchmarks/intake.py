"""Measure jobs per second, from a file to a published result, beside task-spooler and huey.

`python -m benchmarks.intake` uses Debian's `task-spooler` and PyPI's `huey`; a missing one is skipped.
Every queue runs the same number of no-op jobs on four workers.
musedrop reads each job from a file and runs its four stages with one span each.
It commits job, claim and result to SQLite with synchronous=FULL, and publishes an fsynced folder.
huey is SqliteHuey with default settings, one message per job.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.share import Share, until

JOBS, ROUNDS, FLOOD, WORKERS = 1000, 3, 10_000, 4
JOB = json.dumps({"avatar": "face.png", "audio": "voice.wav", "options": {"frames": 1}}).encode()
HUEY = """
from huey import SqliteHuey
huey = SqliteHuey(filename={path!r})
@huey.task()
def nothing(): return 1
"""


def run_musedrop(folder: Path) -> float:
    """Return jobs per second from the first file to the last published result."""
    share = open_share(folder)
    try:
        began = time.monotonic()
        for number in range(JOBS):
            (share.inbox / f".{number}.tmp").write_bytes(JOB)
            (share.inbox / f".{number}.tmp").rename(share.inbox / f"{number}.json")
        until(lambda: count_jobs(share, "done") == JOBS, 600, share.log)
        return JOBS / (time.monotonic() - began)
    finally:
        share.end()


def run_task_spooler(folder: Path) -> float:
    env = {**os.environ, "TS_SOCKET": str(folder / "socket"), "TMPDIR": str(folder), "TS_SLOTS": str(WORKERS)}
    began = time.monotonic()
    for _ in range(JOBS):
        subprocess.run(["tsp", "-n", "true"], env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tsp", "-w"], env=env, check=False, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    subprocess.run(["tsp", "-K"], env=env, check=False)
    return JOBS / seconds


def run_huey(folder: Path) -> float:
    (folder / "app.py").write_text(HUEY.format(path=str(folder / "huey.db")))
    command = ["-m", "huey.bin.huey_consumer", "app.huey", "-w", str(WORKERS), "-k", "process", "-q"]
    enqueue = f"import app, time; began = time.monotonic(); results = [app.nothing() for _ in range({JOBS})];"
    collect = "[result.get(blocking=True, preserve=True) for result in results]; print(time.monotonic() - began)"
    with subprocess.Popen([sys.executable, *command], cwd=folder, stderr=subprocess.DEVNULL) as consumer:
        run = [sys.executable, "-c", enqueue + collect]
        seconds = float(subprocess.run(run, cwd=folder, check=True, capture_output=True, text=True).stdout)
        consumer.terminate()
    return JOBS / seconds


def open_share(folder: Path, settle_s: float = 1.0) -> Share:
    root = folder / "share"
    share = Share(root, module="tests.e2e.noop", workers=WORKERS, settle_s=settle_s, keep_media_s=3600.0, write_s=2.0)
    share.start()
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    share.drop("first", avatar="face.png", audio="voice.wav")
    share.wait_for("first", "done")
    return share


def count_jobs(share: Share, state: str) -> int:
    rows = share.rows("SELECT count(*) AS jobs FROM job_status WHERE state = ? AND name <> 'first'", state)
    return int(rows[0]["jobs"])


def measure_latencies_ms(folder: Path) -> dict[str, float]:
    """Measure the time from a complete file in the inbox to its row, renamed or written in place."""
    share = open_share(folder)
    rename = lambda name: share.put(name, JOB)  # noqa: E731
    write = lambda name: share.put_raw(name, JOB)  # noqa: E731
    try:
        return {
            "accept, renamed": measure_latency_ms(share, "renamed", rename),
            "accept, written": measure_latency_ms(share, "written", write),
        }
    finally:
        share.end()


def measure_latency_ms(share: Share, kind: str, drop: Callable[[str], None], jobs: int = 30) -> float:
    names = [f"{kind}{number}" for number in range(jobs)]
    dropped: dict[str, float] = {}
    for name in names:
        dropped[name] = time.time()
        drop(f"{name}.json")
        share.wait_for(name, "done")
    created = {row["name"]: row["ms"] for row in share.rows("SELECT name, created_ms AS ms FROM jobs")}
    return statistics.median(float(created[name]) - 1000 * dropped[name] for name in names)


def measure_flood_s(folder: Path) -> float:
    """Return the seconds until each of 10,000 files that arrive together has its row."""
    share = open_share(folder)
    try:
        began = time.monotonic()
        for number in range(FLOOD):
            (share.inbox / f"{number}.json").write_bytes(JOB)
        until(lambda: share.rows("SELECT count(*) AS jobs FROM jobs")[0]["jobs"] == FLOOD + 1, 900, share.log)
        return time.monotonic() - began
    finally:
        share.end()


def format_median(measure: Callable[[Path], float]) -> str:
    figures = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            figures.append(measure(Path(folder)))
    return f"{statistics.median(figures):8.0f}   ({min(figures):.0f} to {max(figures):.0f})"


def main() -> None:
    print(f"{JOBS} no-op jobs on {WORKERS} workers, jobs a second: median of {ROUNDS} (least to most)")
    print(f"  musedrop      {format_median(run_musedrop)}")
    print(f"  task-spooler  {format_median(run_task_spooler) if shutil.which('tsp') else 'is not installed'}")
    try:
        import huey as _  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    except ImportError:
        print("  huey          is not installed")
    else:
        print(f"  huey          {format_median(run_huey)}")
    with tempfile.TemporaryDirectory() as folder:
        for what, milliseconds in measure_latencies_ms(Path(folder)).items():
            print(f"{what}: {milliseconds:.1f} ms (median)")
    with tempfile.TemporaryDirectory() as folder:
        print(f"{FLOOD} files at once: every one has its row after {measure_flood_s(Path(folder)):.1f} s")


if __name__ == "__main__":
    main()
