"""Rows become spans on devices, and what the workers say becomes rows again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.job import JobSpec, JobState
from agent.ledger import Job, Ledger
from agent.outbox import discard
from agent.runs import Run
from agent.settings import Settings
from gpu_pool.pool import Pool
from gpu_pool.types import DeviceChanged, DeviceKind, Done, Event, Failed, Progress, Span, Task
from models.catalog import choose
from models.types import EngineError, Outline, Request

log = logging.getLogger("musedrop")

CRASH_SIGNALS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
MOST_CRASHES = 2
REDO_RENDER = ("part_damaged", "result_invalid", "encoder_unavailable")
"""Failures after which parts that were made are of no use: all must come from one encoder, and be whole."""
LONGEST_BACKOFF_S = 60.0
PROBE = Task(id="probe", kind="cpu", todo=(Span(0, 1),), strategy="queue")
"""Every job starts with `inspect` on a CPU device: a job is claimed only when one is free for it."""


class Dispatch:
    """The running jobs. `clock` is monotonic seconds for durations; `at` is wall time in milliseconds for rows."""

    def __init__(
        self, settings: Settings, ledger: Ledger, pool: Pool, assembled: Callable[[Run, dict[str, Any]], None]
    ):
        self.settings, self.ledger, self.pool, self.assembled = settings, ledger, pool, assembled
        self.runs: dict[str, Run] = {}
        self.device_jobs: dict[str, str] = {}

    # rows -> spans ---------------------------------------------------------------------------------------------------

    def dispatch(self, now: float, at: int) -> None:
        """Give every idle device something to do, the most urgent job first."""
        idle = sum(device.state == "idle" for device in self.pool.devices())
        queued = self.ledger.next_queued(at, idle + 1) if idle else []
        waiting = self.ledger.count(JobState.QUEUED) if idle else 0
        for run in sorted(self.runs.values(), key=urgency):
            if queued and queued[0].priority > run.job.priority:
                waiting -= self._start_queued(queued, now, at, waiting, above=run.job.priority)
            self._start(run, waiting)
        self._start_queued(queued, now, at, waiting, above=None)

    def _start(self, run: Run, waiting: int) -> bool:
        task = run.task(self.pool.running(run.task_id))
        plan = self.pool.plan(task, waiting) if task.todo else None
        if plan is None:
            return False
        for assignment in plan.assignments:
            self.device_jobs[assignment.device] = run.job.uid
        self.pool.start(plan)
        run.dirty = True
        return True

    def _start_queued(self, queued: list[Job], now: float, at: int, waiting: int, *, above: int | None) -> int:
        """Claim jobs while a device is free for them; returns how many."""
        started = 0
        while queued and (above is None or queued[0].priority > above):
            if len(self.runs) >= len(self.pool.devices()) or self.pool.plan(PROBE, waiting) is None:
                break
            run = self._claim(queued.pop(0), now, at)
            started += 1
            if run is not None:
                self._start(run, waiting - started)
        return started

    def _claim(self, job: Job, now: float, at: int) -> Run | None:
        """Record RUNNING; the caller starts. None where the job can't run here at all."""
        assert job.spec is not None  # noqa: S101 - only jobs that were read are ever queued
        kinds: set[DeviceKind] = {device.kind for device in self.pool.devices()}
        try:
            choice = choose(job.spec.engine, self.settings.models_dir, kinds)
        except EngineError as error:
            self.close_failed(job, at, error.code, error.message, error.hint)
            return None
        token = secrets.token_hex(8)
        request = self.request(job, job.spec, choice.engine, token)
        outline = Outline.from_dict(job.outline) if job.outline and job.engine == choice.engine else None
        run = Run(job, token, request, choice.kind, outline, seconds=dict(job.stage_seconds))
        run.enter(now)
        run.deadline = now + job.spec.timeout_s if job.spec.timeout_s else None
        self.ledger.claim(
            job, token, at=at, stage=run.stage, engine=choice.engine, engine_reason=choice.reason, units_done=0
        )
        run.job = replace(job, state=JobState.RUNNING, attempt=job.attempt + 1, run_token=token, engine=choice.engine)
        run.job = replace(run.job, engine_reason=choice.reason, started_ms=job.started_ms or at)
        self.runs[job.uid] = run
        log.info("%s: attempt %d with the %s engine (%s)", job.name, run.job.attempt, choice.engine, choice.reason)
        return run

    def request(self, job: Job, spec: JobSpec, engine: str, token: str) -> Request:
        settings = self.settings
        work = settings.folders.work / job.uid
        work.mkdir(parents=True, exist_ok=True)
        return Request(
            engine=engine,
            avatar=job.media["avatar"]["path"],
            audio=job.media["audio"]["path"],
            work=str(work),
            out=str(settings.folders.staging / f"{job.uid}-{token}"),
            cache=str(settings.folders.cache),
            models_dir=str(settings.models_dir),
            cache_bytes=int(settings.cache.max_gib * 2**30),
            fps=spec.fps,
            options=dict(spec.options),
            output=spec.encoding(settings.encoding),
            limits=settings.media_limits,
            metadata={"title": job.name, "comment": f"musedrop, engine {engine}"},
        )

    # events -> rows --------------------------------------------------------------------------------------------------

    def collect(self, timeout_s: float, now: Callable[[], float], at: Callable[[], int]) -> bool:
        """Wait for the workers, at most so long, and book what they say. True if they said anything."""
        events = self.pool.poll(timeout_s)
        for event in events:
            if isinstance(event, DeviceChanged):
                self._device(event, at())
            else:
                self._book(event, now(), at())
        return bool(events)

    def _device(self, event: DeviceChanged, at: int) -> None:
        device = event.device
        job = self.device_jobs.get(device.id) if device.state == "busy" else None
        self.ledger.device(device, at=at, job=job)
        if device.state in ("sick", "lost"):
            log.warning("device %s is %s: %s", device.id, device.state, device.reason)

    def _book(self, event: Event, now: float, at: int) -> None:
        message = event.message
        token, _, stage = message.task.partition("/")
        run = next((run for run in self.runs.values() if run.token == token), None)
        if run is None or run.stage != stage:
            return
        match message:
            case Progress():
                run.note(message)
            case Done():
                self._span_done(run, message, event.device, now)
            case Failed():
                self._span_failed(run, message, event.device, at)

    def _span_done(self, run: Run, message: Done, device: str, now: float) -> None:
        run.finish(Span(message.start, message.stop), device)
        if run.stage == "inspect":
            run.inspected(message.result)
            assert run.outline is not None  # noqa: S101 - inspected() has just set it
            outline = run.outline
            self.ledger.update(
                run.job.uid, outline=outline.to_dict(), frames=outline.frames, duration_s=outline.duration_s
            )
        if not run.complete:
            return
        if run.stage == "assemble":
            run.seconds["assemble"] = round(now - run.stage_started, 3)
            del self.runs[run.job.uid]
            self.assembled(run, dict(message.result))
            return
        run.leave(now)
        self.save(run)

    def _span_failed(self, run: Run, failed: Failed, device: str, at: int) -> None:
        job = run.job
        self.ledger.event(job.uid, failed.code, at, failed.detail or failed.message, device)
        run.progress.pop(Span(failed.start, failed.stop), None)
        if failed.fault == "worker":
            self._interrupted(run, failed, device, at)
        elif failed.fault == "job":
            self._failed(run, failed, at)

    def _interrupted(self, run: Run, failed: Failed, device: str, at: int) -> None:
        """A worker died under the job: only that span is lost, unless the job itself seems to kill workers."""
        job = run.job
        crash = any(signal in failed.message for signal in CRASH_SIGNALS) or failed.code == "out_of_memory"
        run.job = job = replace(job, interruptions=job.interruptions + 1, crashes=job.crashes + crash)
        self.ledger.update(job.uid, interruptions=job.interruptions, crashes=job.crashes)
        log.warning("%s: span %d-%d lost on %s: %s", job.name, failed.start, failed.stop, device, failed.message)
        if job.crashes >= MOST_CRASHES:
            hint = "the input makes the engine crash: convert it with another program, or choose other options"
            self.drop_run(run)
            self.close_failed(job, at, "poison", f"the job crashed its worker twice; last: {failed.message}", hint)
        elif job.interruptions > self.settings.pool.max_interruptions:
            hint = "see the worker's log in the state folder; `musedrop doctor` checks the devices; then retry the job"
            self.drop_run(run)
            self.close_failed(
                job,
                at,
                "interrupted",
                f"its workers died {job.interruptions} times: {failed.message}",
                hint,
                retry=True,
            )

    def _failed(self, run: Run, failed: Failed, at: int) -> None:
        job = replace(run.job, failures=run.job.failures + 1)
        self.drop_run(run)
        if failed.code in REDO_RENDER:
            discard(run.request.files.parts)
        assert job.spec is not None  # noqa: S101 - it ran
        if not failed.retry or job.failures >= job.spec.max_attempts:
            self.close_failed(job, at, failed.code, failed.message, failed.hint, retry=failed.retry)
            return
        backoff_s = min(2.0**job.failures, LONGEST_BACKOFF_S)
        log.warning("%s: %s; tried again in %.0f s", job.name, failed.message, backoff_s)
        self.ledger.end_attempt(run.token, "failed", at=at, code=failed.code, message=failed.message)
        self.ledger.move(
            job.uid, JobState.QUEUED, at=at, token=run.token, detail=failed.message, failures=job.failures, device=None
        )
        waiting_for = f"a second try in {backoff_s:.0f} s, after: {failed.message}"
        self.ledger.update(job.uid, not_before_ms=at + int(1000 * backoff_s), waiting_for=waiting_for)

    # ends ------------------------------------------------------------------------------------------------------------

    def drop_run(self, run: Run) -> None:
        """Stop what still runs of it; later messages of its token find nobody."""
        self.pool.cancel(run.task_id)
        self.runs.pop(run.job.uid, None)
        discard(Path(run.request.out))

    def close_failed(self, job: Job, at: int, code: str, message: str, hint: str, *, retry: bool = False) -> None:
        with self.ledger.together():
            error: dict[str, Any] = {"error_code": code, "error_message": message, "error_hint": hint}
            error["error_retry"] = int(retry)
            if job.run_token:
                self.ledger.end_attempt(job.run_token, "failed", at=at, code=code, message=message)
            self.ledger.move(
                job.uid, JobState.FAILED, at=at, detail=message, finished_ms=at, device=None, waiting_for=None, **error
            )
        log.error("%s failed (%s): %s", job.name, code, message)

    def close_cancelled(self, job: Job, at: int) -> None:
        if (run := self.runs.get(job.uid)) is not None:
            self.drop_run(run)
        with self.ledger.together():
            if job.run_token:
                self.ledger.end_attempt(job.run_token, "cancelled", at=at)
            self.ledger.move(job.uid, JobState.CANCELLED, at=at, finished_ms=at, device=None, waiting_for=None)
        log.info("%s cancelled", job.name)

    def expire(self, now: float, at: int) -> None:
        """Fail the jobs that took longer than their timeout_s."""
        for run in [run for run in self.runs.values() if run.deadline is not None and now > run.deadline]:
            self.drop_run(run)
            timeout_s = run.job.spec.timeout_s if run.job.spec else None
            hint = "give it more time (timeout_s), a shorter audio, or more devices"
            self.close_failed(run.job, at, "timeout", f"it was not finished after {timeout_s:g} s", hint, retry=True)

    # progress --------------------------------------------------------------------------------------------------------

    def save_progress(self) -> None:
        """Write the progress of all running jobs in one transaction."""
        dirty = [run for run in self.runs.values() if run.dirty]
        if dirty:
            with self.ledger.together():
                for run in dirty:
                    self.save(run)

    def save(self, run: Run) -> None:
        devices = sorted({device for device, uid in self.device_jobs.items() if uid == run.job.uid})
        busy = {device.id for device in self.pool.devices() if device.state == "busy"}
        self.ledger.update(
            run.job.uid,
            stage=run.stage,
            units_done=run.units_done,
            units_total=run.units_total,
            stage_seconds=run.seconds,
            device=", ".join(device for device in devices if device in busy) or None,
        )
        run.dirty = False


def urgency(run: Run) -> tuple[int, int, int]:
    """Higher priority first; then jobs that are nearly finished, so that results leave; then first come."""
    return (-run.job.priority, run.stage != "assemble", run.job.id)
