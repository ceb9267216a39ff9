"""Which lost workers a job is to blame for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.scheduler.crashes import describe_failure, is_caused_by_job
from gpu_pool.slot import explain_exit
from gpu_pool.types import Exited, Failed, RunSpan

ORDER = RunSpan("token/render", 0, 24, {})


def lost(exited: Exited) -> Failed:
    """What the pool says when a worker ends in the middle of a span."""
    return explain_exit("cpu:0", exited).to_failed(ORDER, exited.log)


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP"])
def test_signals_that_a_process_brings_upon_itself(signal: str) -> None:
    """A crash in native code may be the job's doing."""
    assert is_caused_by_job(lost(Exited(1, signal=signal)))


def test_a_disk_that_fails_under_mapped_memory() -> None:
    """Weights and prepared sound are mapped: SIGBUS is no sign, but where only the job's own files are open."""
    lost_span = lost(Exited(1, signal="SIGBUS"))
    assert not is_caused_by_job(lost_span)
    assert is_caused_by_job(replace(lost_span, task="token/inspect"))


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGSTOP", "SIGXCPU", "signal 40"])
def test_signals_that_come_from_others(signal: str) -> None:
    """A worker that was killed from outside does not count against the job."""
    assert not is_caused_by_job(lost(Exited(1, signal=signal)))


def test_an_exit_in_the_middle_of_a_span() -> None:
    """No handler ends the process: a library did, on what it was given."""
    assert is_caused_by_job(lost(Exited(1, code=1, log="free(): invalid pointer")))
    assert is_caused_by_job(lost(Exited(1, code=0)))


def test_the_hosts_memory_and_the_cards() -> None:
    """A job for which this machine is too small kills workers; one that wants more of a card may go to another."""
    assert is_caused_by_job(lost(Exited(1, signal="SIGKILL", out_of_memory=True)))
    said = Failed(*("t/render", 0, 24), "out_of_memory", "CUDA out of memory", fault="worker")
    assert not is_caused_by_job(said)


@pytest.mark.parametrize("code", ["worker_stalled", "worker_misplaced", "device_lost", "device_error"])
def test_workers_that_froze(code: str) -> None:
    """Those count as interruptions, which have a cap of their own."""
    assert not is_caused_by_job(Failed("t/render", 0, 24, code, "The worker on cpu:0 said nothing.", fault="worker"))


@pytest.mark.parametrize("task", ["t/inspect", "t/render"])
def test_workers_that_talked_nonsense(task: str) -> None:
    """A job's media may have taken the worker over."""
    assert is_caused_by_job(Failed(task, 0, 1, "worker_nonsense", "It sent an invalid message.", fault="worker"))


def test_a_worker_that_froze_while_it_inspected() -> None:
    """All that it did was to open the job's own files."""
    assert is_caused_by_job(Failed("t/inspect", 0, 1, "worker_stalled", "It sent nothing for 120 s.", fault="worker"))


def test_the_log_does_not_decide() -> None:
    """A worker that only wrote of a signal, and was killed by another, is judged by the other."""
    assert not is_caused_by_job(lost(Exited(1, signal="SIGKILL", log="caught SIGSEGV in a thread")))


def test_a_cause_has_the_sentence_once_and_the_log() -> None:
    """For the ledger: what happened, then what the worker said last."""
    failed = lost(Exited(1, signal="SIGSEGV", log="loading\nsomething odd"))
    told = describe_failure(failed)
    assert told.count("SIGSEGV") == 1
    assert told.endswith("loading\nsomething odd")
    assert describe_failure(Failed("t", 0, 1, "x", "it broke")) == "it broke"
