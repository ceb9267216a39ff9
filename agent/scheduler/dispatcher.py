"""Rows become spans on devices, and what the workers say becomes rows again."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from agent.fs import discard, is_file
from agent.jobs.queue_order import age_priority, sort_by_turn
from agent.jobs.spec import JobSpec
from agent.ledger.job import Job, JobError
from agent.ledger.ledger import Ledger
from agent.scheduler.attempt import Run
from agent.scheduler.crashes import cause, killed_by_job
from agent.scheduler.devices import Devices
from agent.scheduler.engines import Engines
from agent.service.log import make_extra
from agent.settings import Settings
from gpu_pool.failpoints import failpoint
from gpu_pool.types import Device, DeviceChanged, DeviceKind, Done, Event, Failed, Progress, Span, Task
from models.types import EngineError, Inspection, Request

log = logging.getLogger("musedrop")

MOST_CRASHES = 2
MOST_RUNS = 64
"""Jobs that are begun and that nothing here has room for wait beside the others, but not without end."""
HOLD_AFTER_MS, HOLD_UNTIL_MS = 30_000, 300_000
"""A job that found no room for half a minute is waited for, some minutes long: less urgent ones get no memory first."""
IN_SERVICE = ("starting", "idle", "busy")
REDO_RENDER = ("part_damaged", "result_invalid", "encoder_unavailable")
"""Failures after which parts that were made are of no use: all must come from one encoder, and be whole."""
LONGEST_BACKOFF_S = 60.0
CONTENT = {"engine", "fps", "options", "output"}
PROBE = Task(id="probe", kind="cpu", todo=(Span(0, 1),), strategy="queue")
"""Every job starts with `inspect` on a CPU device: a job is claimed only when one is free for it."""


@dataclass
class Line:
    """Jobs of the queue in turn, the level of each; the highest priority of all, how many are waiting, and for what:
    the devices in service and the kinds there are."""

    jobs: list[Job]
    ranks: list[int]
    most: int
    waiting: int
    in_service: int
    kinds: set[DeviceKind]


class Dispatch:
    """The running jobs. `hold` says why no further job is started, if none is; at `rest` no span is either.

    `now` is monotonic seconds for durations; `at` is wall time in milliseconds for rows.
    """

    def __init__(self, settings: Settings, ledger: Ledger, devices: Devices, outlet: Outlet):
        self.settings, self.ledger, self.devices, self.outlet = settings, ledger, devices, outlet
        self.pool = devices.pool
        self.runs: dict[str, Run] = {}
        self.hold, self.rest = "", False
        self._engines = Engines(settings.models_dir)
        self._claimed = False
        self._told: str | None = None

    # rows -> spans ---------------------------------------------------------------------------------------------------

    def dispatch(self, now: float, at: int) -> None:
        """Give every idle device something to do, the most urgent job first."""
        with self.ledger.together():
            self._assign(now, at)
        self._release()

    def _assign(self, now: float, at: int) -> None:
        """Part of a transaction; what is claimed in it waits for `_release`."""
        devices = [] if self.rest else self.pool.devices()
        idle = sum(device.state == "idle" for device in devices)
        if not idle:
            return
        line = self._line(at, idle + 1, devices)
        held: set[DeviceKind] = set()
        for run in sorted(self.runs.values(), key=lambda run: urgency(run, self._rank(run, at, line))):
            while line.jobs and line.ranks[0] > self._rank(run, at, line) and self._claim_next(line, now, at):
                pass
            if run.kind_now in held:
                continue
            if not self._start(run, line.waiting + self._hungry(run), at) and self._room_is_coming(run, at):
                held.add(run.kind_now)  # or small spans would take every bit of memory that gets free
        while line.jobs and self._claim_next(line, now, at):
            pass

    def _release(self) -> None:
        """The claims are on disk now: let their workers know."""
        if self._claimed:
            self._claimed = False
            failpoint("running")
            self.pool.release()

    def _line(self, at: int, length: int, devices: list[Device]) -> Line:
        """The jobs whose turn it is."""
        ready = [] if self.hold else self.ledger.queue.ready(at, length)
        turns = sort_by_turn(ready, self.ledger.queue.served(), at)[:length] if ready else []
        most = max([turn.priority for turn in ready] + [run.job.priority for run in self.runs.values()], default=0)
        ranks = [age_priority(turn.priority, turn.since_ms, at, most) for turn in turns]
        in_service = sum(device.state in IN_SERVICE for device in devices)
        return Line(
            jobs=self.ledger.those(turns),
            ranks=ranks,
            most=most,
            waiting=self.ledger.queue.count(at) if ready else 0,
            in_service=in_service,
            kinds={device.kind for device in devices},
        )

    @staticmethod
    def _rank(run: Run, at: int, line: Line) -> int:
        """The level of a running job: it too gains by waiting for a device."""
        return age_priority(run.job.priority, run.served_ms, at, line.most)

    def _hungry(self, one: Run) -> int:
        """How many other jobs have no device, and would take one of the kind that this one wants."""
        others = (run for run in self.runs.values() if run is not one and run.kind_now == one.kind_now)
        return sum(run.waiting_for is None and not self.pool.running_spans(run.task_id) for run in others)

    def _start(self, run: Run, waiting: int, at: int, *, hold: bool = False) -> bool:
        """Start what can start; True if the job has a device then. `hold`: workers learn of it at the release."""
        running = self.pool.running_spans(run.task_id)
        if running:
            run.served_ms = at
        task = run.task(running)
        plan = self.pool.plan(task, waiting) if task.todo else None
        if plan is None:
            return bool(running)
        for assignment in plan.assignments:
            self.devices.jobs[assignment.device] = run.job.uid
        self.pool.start(replace(plan, task=replace(plan.task, payload=run.payload())), hold=hold)
        run.served_ms, run.dirty = at, True
        self._explain(run, None)
        return True

    def _room_is_coming(self, run: Run, at: int) -> bool:
        """Whether the job has waited for memory that gets free when workers of ours end what they do now."""
        if not HOLD_AFTER_MS < at - run.served_ms < HOLD_UNTIL_MS:
            return False
        devices = [device for device in self.pool.devices() if device.card and device.kind == run.kind_now]
        return makes_room(run.task(()).memory_bytes, devices)

    def _claim_next(self, line: Line, now: float, at: int) -> bool:
        """Claim the next job of the line if a device is free for it, and as many as there are devices don't run before
        it: a more urgent one need not wait for the end of those."""
        before = [
            run for run in self.runs.values() if run.waiting_for is None and self._rank(run, at, line) >= line.ranks[0]
        ]
        if len(before) >= line.in_service or len(self.runs) >= MOST_RUNS or self.pool.plan(PROBE, 0) is None:
            return False
        job = line.jobs.pop(0)
        line.ranks.pop(0)
        line.waiting -= 1
        run = self._claim(job, line.kinds, now, at)
        if run is not None:
            self._start(run, line.waiting, at, hold=True)
        return True

    def explain(self) -> None:
        """Say of each job that waits for a device why none would do, where that isn't only a matter of turns."""
        why = self.hold or self.pool.wait_reason(PROBE) or None
        if why or self._told:
            self.ledger.queue.wait_for(why)
            self._told = why
        for run in self.runs.values():
            task = run.task(self.pool.running_spans(run.task_id))
            self._explain(run, self.pool.wait_reason(task) or None if task.todo and not task.running else None)

    def _explain(self, run: Run, why: str | None) -> None:
        if why != run.waiting_for:
            run.waiting_for = why
            self.ledger.update(run.job.uid, waiting_for=why)

    def _claim(self, job: Job, kinds: set[DeviceKind], now: float, at: int) -> Run | None:
        """Record RUNNING; the caller starts, and nothing is sent before that is on disk.

        None where the job can't run here at all.
        """
        assert job.spec is not None  # noqa: S101 - only jobs that were read are ever queued
        try:
            choice = self._engines.choose(job.spec.engine, kinds, now)
        except EngineError as error:
            self.close_failed(job, at, JobError(error.code, error.message, error.hint))
            return None
        token = secrets.token_hex(8)
        request = self.request(job, job.spec, choice.engine, token)
        outline = Inspection.from_dict(job.outline) if job.outline and job.engine == choice.engine else None
        run = Run(job, token, request, choice.kind, outline, seconds=dict(job.stage_seconds), served_ms=at)
        run.enter(now)
        run.deadline = now + job.spec.timeout_s if job.spec.timeout_s else None
        start = self.ledger.transitions.start
        run.job = start(job, token, stage=run.stage, engine=choice.engine, engine_reason=choice.reason, at_ms=at)
        self._claimed = True
        self.runs[job.uid] = run
        said = (job.name, run.job.attempt, choice.engine, choice.reason)
        log.info("%s: attempt %d with the %s engine (%s)", *said, extra=make_extra(job))
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
            output=spec.resolve_output(settings.encoding),
            limits=settings.media_limits,
            metadata={"title": job.name, "comment": f"musedrop, engine {engine}"},
        )

    # events -> rows --------------------------------------------------------------------------------------------------

    def collect(self, timeout_s: float, now: Callable[[], float], at: Callable[[], int]) -> bool:
        """Wait for the workers, at most so long, book what they say and give them more to do, all in one transaction.

        True if they said anything.
        """
        events = self.pool.poll(timeout_s)
        if events:
            with self.ledger.together():
                for event in events:
                    if isinstance(event, DeviceChanged):
                        self.devices.note(event.device, now(), at())
                    else:
                        self._book(event, now(), at())
                self._assign(now(), at())
            self._release()
        return bool(events)

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
                self._span_done(run, message, event.device, now, at)
            case Failed():
                self._span_failed(run, message, event.device, at)

    def _span_done(self, run: Run, message: Done, device: str, now: float, at: int) -> None:
        run.finish(Span(message.start, message.stop), device)
        if run.stage == "inspect":
            run.inspected(message.result)
            if run.job.client_id and (twin := self.ledger.finished_twin(run.job)) and self._answered(run, twin, at):
                return
        if not run.complete:
            return
        if run.stage == "assemble":
            run.seconds["assemble"] = round(now - run.stage_started, 3)
            self.save(run)
            del self.runs[run.job.uid]
            self.outlet.assembled(run, dict(message.result))
            return
        run.leave(now)

    def _answered(self, run: Run, twin: Job, at: int) -> bool:
        """The same id again: with other content it is refused, with the same it gets the earlier result if that lies
        in the outbox still."""
        job = run.job
        if content(job.spec, run.outline) != content(twin.spec, Inspection.from_dict(twin.outline or {})):
            self.drop_run(run)
            message = f'the id "{job.client_id}" is that of the job "{twin.name}", which asked for something else'
            hint = "give this job an id of its own, or none"
            self.close_failed(job, at, JobError("id_conflict", message, hint))
            return True
        self.save(run)
        if not self.outlet.repeat(run, twin):
            return False
        del self.runs[job.uid]
        return True

    def _span_failed(self, run: Run, failed: Failed, device: str, at: int) -> None:
        job = run.job
        self.ledger.event(job.uid, failed.code, at, cause(failed), device)
        run.progress.pop(Span(failed.start, failed.stop), None)
        if failed.fault == "worker":
            self._interrupted(run, failed, device, at)
        elif failed.fault == "job":
            self._failed(run, failed, at)

    def _interrupted(self, run: Run, failed: Failed, device: str, at: int) -> None:
        """A worker died under the job: only that span is lost, unless the job itself seems to kill workers."""
        record = self.ledger.transitions.record_interruption
        run.job = job = record(run.job, f"{device}: {cause(failed)}", crash=killed_by_job(failed))
        said = (job.name, failed.start, failed.stop, device, failed.message)
        log.warning("%s: span %d-%d lost on %s: %s", *said, extra=make_extra(job, device))
        if job.crashes >= MOST_CRASHES:
            hint = "the input makes the engine crash: convert it with another program, or choose other options"
            self.drop_run(run)
            message = f"the job crashed its worker twice; last: {failed.message}"
            self.close_failed(job, at, JobError("poison", message, hint))
        elif job.interruptions > self.settings.pool.max_interruptions:
            hint = "see the worker's log in the state folder; `musedrop doctor` checks the devices; then retry the job"
            self.drop_run(run)
            message = f"its workers died {job.interruptions} times: {failed.message}"
            self.close_failed(job, at, JobError("interrupted", message, hint, retry=True))

    def _failed(self, run: Run, failed: Failed, at: int) -> None:
        if not is_file(self.settings.folders.share_id_file):
            self._set_back(run, f"the share went away: {failed.message}", at)
            return
        job, error = run.job, JobError(failed.code, failed.message, failed.hint, failed.retry)
        failures = job.failures + 1
        self.drop_run(run)
        if failed.code in REDO_RENDER:
            discard(run.request.files.parts)
        assert job.spec is not None  # noqa: S101 - it ran
        if not failed.retry or failures >= job.spec.max_attempts:
            self.close_failed(job, at, error)
            return
        backoff_s = min(2.0**failures, LONGEST_BACKOFF_S)
        log.warning("%s: %s; tried again in %.0f s", job.name, failed.message, backoff_s, extra=make_extra(job))
        self.ledger.transitions.retry_later(job, error, delay_s=backoff_s, at_ms=at)

    def _set_back(self, run: Run, why: str, at: int) -> None:
        """Back into the queue for a reason that is neither the job's nor the worker's."""
        self.drop_run(run)
        self.ledger.transitions.requeue(replace(run.job, stage=run.stage), why, at_ms=at)

    # ends ------------------------------------------------------------------------------------------------------------

    def drop_run(self, run: Run) -> None:
        """Stop what still runs of it; later messages of its token find nobody."""
        self.save(run)
        self.pool.cancel(run.task_id)
        self.runs.pop(run.job.uid, None)
        discard(Path(run.request.out))

    def close_failed(self, job: Job, at: int, error: JobError) -> None:
        self.ledger.transitions.fail(job, error, at_ms=at)
        log.error("%s failed (%s): %s", job.name, error.code, error.message, extra=make_extra(job))

    def close_cancelled(self, job: Job, at: int) -> None:
        if (run := self.runs.get(job.uid)) is not None:
            self.drop_run(run)
        self.ledger.transitions.cancel(job, at_ms=at)
        log.info("%s cancelled", job.name, extra=make_extra(job))

    def expire(self, now: float, at: int) -> None:
        """Fail the jobs that took longer than their timeout_s."""
        for run in [run for run in self.runs.values() if run.deadline is not None and now > run.deadline]:
            self.drop_run(run)
            timeout_s = run.job.spec.timeout_s if run.job.spec else None
            hint = "give it more time (timeout_s), a shorter audio, or more devices"
            error = JobError("timeout", f"it was not finished after {timeout_s:g} s", hint, retry=True)
            self.close_failed(run.job, at, error)

    # progress --------------------------------------------------------------------------------------------------------

    def save_progress(self) -> None:
        """Write what has become of running jobs and of devices, in one transaction.

        It need not be there sooner: after a crash a job goes on by the files of its work folder.
        """
        with self.ledger.together():
            self.devices.save()
            for run in self.runs.values():
                if run.dirty:
                    self.save(run)

    def save(self, run: Run) -> None:
        found = run.unsaved_outline()
        self.ledger.update(
            run.job.uid,
            stage=run.stage,
            units_done=run.units_done,
            units_total=run.units_total,
            stage_seconds=run.seconds,
            device=", ".join(self.devices.working_on(run.job.uid)) or None,
            **found,
        )
        run.dirty = False


class Outlet(Protocol):
    """Where finished runs go."""

    def assembled(self, run: Run, facts: dict[str, Any]) -> None:
        """The verified video lies in `run.request.out`."""
        ...

    def repeat(self, run: Run, earlier: Job) -> bool:
        """Give the result of an earlier job to this one; False where it is no longer there."""
        ...


def content(spec: JobSpec | None, outline: Inspection | None) -> object:
    """What decides the frames and the sound of a job, to tell whether two jobs ask for the same."""
    asked = spec.model_dump(include=CONTENT) if spec else {}
    return asked, outline and (outline.avatar_sha256, outline.audio_sha256)


def urgency(run: Run, rank: int) -> tuple[int, bool, int]:
    """Higher level first; then jobs that are nearly finished, so that results leave; then first come."""
    return (-rank, run.stage != "assemble", run.job.id)


def makes_room(need_bytes: int, devices: Iterable[Device]) -> bool:
    """Whether some card that is busy for us has so much memory, counted as if our workers there held nothing."""
    room: Counter[str] = Counter()
    busy = set()
    for device in devices:
        room[device.card] = max(room[device.card], device.free_bytes)
        busy |= {device.card} if device.state == "busy" else set()
    for device in devices:
        room[device.card] += device.held_bytes
    return any(room[card] >= need_bytes for card in busy)
