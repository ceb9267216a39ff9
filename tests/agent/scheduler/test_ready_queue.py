"""The jobs whose turn it is, as the dispatcher sees them."""

from __future__ import annotations

from pathlib import Path

from agent.jobs.queue_order import AGEING_MS
from agent.scheduler.attempt import Attempt
from agent.scheduler.ready_queue import read_ready_queue
from gpu_pool.types import Device
from tests.agent.samples import a_ledger, a_request, add_job, start_job

DEVICES = [
    Device("cpu:0", "cpu", state="idle"),
    Device("GPU-1", "cuda", state="busy"),
    Device("GPU-2", "cuda", state="sick"),
]


def test_the_queue_is_cut_and_counted(tmp_path: Path) -> None:
    """The most urgent jobs come first, with their levels; those beyond the length are counted."""
    ledger = a_ledger(tmp_path)
    for uid, priority in (("a", 0), ("b", 10), ("c", 0), ("d", -5)):
        add_job(ledger, uid, priority=priority)
    queue = read_ready_queue(ledger, [], DEVICES, 3, 2000)
    assert [job.uid for job in queue.jobs] == ["b", "a", "c"]
    assert (queue.levels, queue.highest, queue.waiting) == ([10, 0, 0], 10, 4)
    assert (queue.in_service, queue.kinds) == (2, {"cpu", "cuda"})
    assert queue.pop().uid == "b"
    assert (queue.levels, queue.waiting) == ([0, 0], 3)


def test_a_held_queue_is_empty(tmp_path: Path) -> None:
    """With no length nothing is read, and running jobs still give the highest priority."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "queued", priority=10)
    job = start_job(ledger, add_job(ledger, "running", priority=3), "token", at_ms=1000)
    attempt = Attempt(job, "token", a_request(tmp_path), "cpu", None)
    queue = read_ready_queue(ledger, [attempt], DEVICES, 0, 2000)
    assert (queue.jobs, queue.waiting, queue.highest) == ([], 0, 3)


def test_a_running_job_gains_by_waiting_for_a_device(tmp_path: Path) -> None:
    """Its level grows since it last had one, up to the highest of all."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "urgent", priority=2)
    job = start_job(ledger, add_job(ledger, "running"), "token", at_ms=1000)
    attempt = Attempt(job, "token", a_request(tmp_path), "cpu", None, served_ms=1000)
    queue = read_ready_queue(ledger, [attempt], DEVICES, 1, 2000)
    levels = [queue.level_of(attempt, 1000 + ages * AGEING_MS) for ages in range(4)]
    assert levels == [0, 1, 2, 2]
