"""The dispatcher: gives idle devices the spans of the most urgent jobs, and writes what the workers report."""

from __future__ import annotations

import json
import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.errors import ErrorCode
from agent.fs import Fingerprint, atomic_write_bytes, catch, discard, is_disk_full, is_file, read_regular
from agent.fs.folders import move, remove
from agent.jobs.spec import JobSpec
from agent.ledger.job import Job, JobError
from agent.ledger.ledger import Ledger
from agent.scheduler.attempt import Attempt, FinishedAttempt
from agent.scheduler.crashes import describe_failure, is_caused_by_job
from agent.scheduler.devices import Devices
from agent.scheduler.disk_faults import describe_disk_fault, explain_unreadable_medium, name_trouble
from agent.scheduler.engines import EngineChooser
from agent.scheduler.race import Entrant, Race, list_entrants
from agent.scheduler.ready_queue import ReadyQueue, read_ready_queue
from agent.scheduler.reports import is_whole_job, make_plan, read_plan
from agent.service.log import make_extra
from agent.settings import CurrentSettings
from agent.text import restore_names
from gpu_pool.failpoints import failpoint
from gpu_pool.types import Device, DeviceChanged, DeviceKind, Done, Event, Failed, PoolEvent, Progress, Span, Task
from models.catalog import ENGINES, EngineChoice, stamp_weights
from models.facts import describe_code
from models.motion.catalog import choose_motion, stamp_motion
from models.types import EngineError, GivenVoice, Inspection, Output, Request

log = logging.getLogger("musedrop")

MAX_CRASHES = 2
MAX_ATTEMPTS = 64
"""Running jobs, those that wait for a device included."""
RESERVE_AFTER_MS, RESERVE_UNTIL_MS = 30_000, 300_000
"""How long a job must have waited for memory until less urgent jobs get none, and when that ends."""
REDO_RENDER = ("part_damaged", "result_invalid", "encoder_unavailable")
"""Failures after which the rendered parts are useless: all must be whole, and come from one encoder."""
MAX_BACKOFF_S = 60.0
CONTENT = {"engine", "fps", "options", "output", "from_s", "to_s", "soundtrack_db", "background", "motion", "race"}
HASHES = ("avatar_sha256", "audio_sha256", "media_sha256")
SAME_CLIP = "another job makes the same clip"
PLAN, MAX_PLAN_BYTES = "plan.json", 1 << 20
"""What the parts of a video are made by, in its work folder."""
PROBE = Task(id="probe", kind="cpu", todo=(Span(0, 1),), strategy="queue", is_local=True)
"""Every job starts with `inspect` on a CPU device here: a job is started only when one is free for it."""


class Dispatcher:
    """The running jobs.

    `attempts` holds the running attempts by the uid of their job.
    While there is a hold reason no further job is started; while the dispatcher is paused no span is started either.
    """

    def __init__(self, settings: CurrentSettings, ledger: Ledger, devices: Devices, clock: Clock) -> None:
        self.settings, self.ledger, self.devices, self.clock = settings, ledger, devices, clock
        self.folders = settings.current.folders
        self._work = self.folders.work  # resolves links
        self.pool = devices.pool
        self.attempts: dict[str, Attempt] = {}
        self._hold_reason, self._paused = "", False
        self._engines = EngineChooser(settings.current.models_dir, clock)
        self._has_claimed = False
        self._disk_faults: dict[str, tuple[str, float]] = {}
        self._done_beside: Counter[str] = Counter()
        self._frame_s: dict[tuple[str, DeviceKind], float] = {}
        self._first_parts: list[Attempt] = []

    def hold(self, reason: str) -> None:
        """Start no further job, and say so in the rows of the queued ones; "" starts jobs again."""
        if reason != self._hold_reason:
            self._hold_reason = reason
            self.explain_waits()

    def set_paused(self, *, paused: bool) -> None:
        self._paused = paused

    @property
    def units_done(self) -> int:
        """The units of all running attempts."""
        return sum(attempt.units_done for attempt in self.attempts.values())

    @property
    def has_running_spans(self) -> bool:
        return any(self.pool.running_spans(attempt.task_id) for attempt in self.attempts.values())

    def move_times(self, by_ms: int) -> None:
        """Keep the ages and pauses of unfinished jobs when the calendar was set by so much."""
        with self.ledger.together():
            self.ledger.queue.move_times(by_ms)
            self.bound_pauses()
        for attempt in self.attempts.values():
            attempt.served_ms += by_ms

    def bound_pauses(self) -> None:
        """Let no job rest longer than the longest pause."""
        self.ledger.queue.bound_pauses(self.clock.at_ms() + round(1000 * MAX_BACKOFF_S))

    def choose_engine(self, asked: str, kinds: Iterable[DeviceKind], version: object = None) -> EngineChoice:
        """Return the engine for a job that asks for one. Raises EngineError engine_unavailable."""
        return self._engines.choose(asked, kinds, version)

    # rows -> spans ---------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give every idle device a span, those of the most urgent job first."""
        with self.ledger.together():
            self.assign()
        self.release()

    def assign(self) -> None:
        """Plan spans for the idle devices, in a transaction of the caller; `release` follows when it is on disk."""
        devices = [] if self._paused else self.pool.devices()
        idle = sum(device.state == "idle" for device in devices)
        if not idle:
            return
        at_ms = self.clock.at_ms()
        length = 0 if self._hold_reason else idle + 1
        queue = read_ready_queue(self.ledger, self.attempts.values(), devices, length, at_ms, self.find_held()[0])
        reserved: set[DeviceKind] = set()
        for attempt in sorted(self.attempts.values(), key=lambda attempt: sort_key(attempt, queue, at_ms)):
            while queue.jobs and queue.levels[0] > queue.level_of(attempt, at_ms) and self._start_next(queue, at_ms):
                pass
            if attempt.device_kind in reserved or self._awaits_clip(attempt):
                continue
            self._start_first_part(attempt)
            has_device = self._start_spans(attempt, queue.waiting + self._count_starved(attempt))
            if not has_device and self._should_reserve(attempt, at_ms):
                reserved.add(attempt.device_kind)  # or small spans would take each bit of memory that becomes free
        while queue.jobs and self._start_next(queue, at_ms):
            pass

    def release(self) -> None:
        """Send the first spans of jobs that were started: their rows are on disk now."""
        if self._has_claimed:
            self._has_claimed = False
            failpoint("running")
            self.pool.release()

    def _count_starved(self, one: Attempt) -> int:
        """Count the other attempts that have no device, and would take one of the kind that this one wants."""
        others = (a for a in self.attempts.values() if a is not one and a.device_kind == one.device_kind)
        return sum(other.waiting_for is None and not self.pool.running_spans(other.task_id) for other in others)

    def _start_spans(self, attempt: Attempt, waiting: int, *, hold: bool = False) -> bool:
        """Start what can start; return whether the job has a device then. With `hold` the release sends the spans."""
        running, at_ms = self.pool.running_spans(attempt.task_id), self.clock.at_ms()
        if running:
            attempt.served_ms = at_ms
        task = attempt.make_task(running)
        plan = self.pool.plan(task, waiting) if task.todo else None
        if plan is None:
            return bool(running)
        for assignment in plan.assignments:
            self.devices.jobs[assignment.device] = attempt.job.uid
            if task.model and not running and not self.pool.has_model(assignment.device, task.model):
                attempt.load_s = self.devices.find_load_s(task.model)
        self.pool.start(replace(plan, task=replace(plan.task, payload=attempt.make_payload())), hold=hold)
        attempt.served_ms, attempt.is_dirty = at_ms, True
        self._set_waiting_for(attempt, None)
        return True

    def _start_first_part(self, attempt: Attempt) -> None:
        """Have a video made of the first part, once in an attempt, if a device is free: before others of its job."""
        plan = self.pool.plan(attempt.make_first_task(), 0) if attempt.can_show_first else None
        if plan is not None:
            attempt.has_first = True
            self.devices.jobs[plan.assignments[0].device] = attempt.job.uid
            self.pool.start(plan)

    def _awaits_clip(self, attempt: Attempt) -> bool:
        """Whether an earlier job makes the same clip now, which this one finds when it inspects again then."""
        key, others = attempt.clip_key, self.attempts.values()
        awaits = bool(key) and any(one.clip_key == key and one.job.id < attempt.job.id for one in others)
        if awaits:
            attempt.awaits_clip = True
            self._set_waiting_for(attempt, SAME_CLIP)
        elif attempt.awaits_clip:
            attempt.inspect_again(self.clock.now_s())
        return awaits

    def _should_reserve(self, attempt: Attempt, at_ms: int) -> bool:
        """Whether the job has waited for memory that becomes free when our workers end their spans."""
        if not RESERVE_AFTER_MS < at_ms - attempt.served_ms < RESERVE_UNTIL_MS:
            return False
        kind, need_bytes = attempt.device_kind, attempt.make_task(()).memory_bytes
        return will_have_room(need_bytes, [d for d in self.pool.devices() if d.card and d.kind == kind])

    def _start_next(self, queue: ReadyQueue, at_ms: int) -> bool:
        """Start the first job of the queue, if a device is free for it and fewer attempts than there are devices are
        as urgent: a more urgent job need not wait until all others have ended."""
        level = queue.levels[0]
        ahead = [a for a in self.attempts.values() if a.waiting_for is None and queue.level_of(a, at_ms) >= level]
        is_full = len(ahead) >= queue.in_service or len(self.attempts) >= MAX_ATTEMPTS
        if is_full or not self.pool.has_idle(PROBE):
            return False
        job = queue.pop()
        try:
            attempt = self._start_attempt(job, queue.kinds)
        except OSError as error:
            if is_disk_full(error):
                raise
            self._wait_out(job, f"{error.strerror}: {error.filename}")
            return True
        if attempt is not None:
            self._start_spans(attempt, queue.waiting, hold=True)
        return True

    def _start_attempt(self, job: Job, kinds: set[DeviceKind]) -> Attempt | None:
        """Write the start of an attempt; None where no engine can run the job, which has failed then."""
        assert job.spec is not None  # noqa: S101 - only jobs that were read are ever queued
        version = job.spec.options.get("version")
        try:
            race = list_entrants(job.spec, lambda asked: self.choose_engine(asked, kinds, version))
            motion = choose_motion(job.spec.motion_engine, self.settings.current.models_dir, kinds)
        except EngineError as error:
            self.close_failed(job, JobError(error.code, error.message, error.hint))
            return None
        now_s, at_ms, token = self.clock.now_s(), self.clock.at_ms(), secrets.token_hex(8)
        choice = race.entrant.choice
        request = self._make_request(job, race.entrant, token)
        if motion is not None:
            request = race.entrant.add_motion(request, motion.engine, self._count_bytes(motion.kind))
        known, request = self._find_plan(request)
        attempt = Attempt(job, token, request, choice.kind, known, served_ms=at_ms, inspection_is_new=known is not None)
        attempt.race = race if job.spec.race is not None else None
        attempt.motion_kind = motion.kind if motion else "cpu"
        attempt.stage_seconds.update(job.stage_seconds)
        attempt.enter_stage(now_s)
        if job.first_part is None:
            attempt.first_s = job.spec.choose_first_s(self.settings.current.output.preview_first_s)
        attempt.deadline_s = now_s + job.spec.timeout_s if job.spec.timeout_s else None
        attempt.usual_frame_s = self._frame_s.get((choice.engine, choice.kind))
        engine = {"engine": choice.engine, "engine_reason": choice.reason}
        attempt.job = self.ledger.transitions.start(job, token, stage=attempt.row_stage, **engine, at_ms=at_ms)
        attempt.may_go_on = self._may_go_on(attempt)
        self._has_claimed = True
        self.attempts[job.uid] = attempt
        said = (job.name, attempt.job.attempt, choice.engine)
        log.info("%s: attempt %d with the %s engine", *said, extra=make_extra(job))
        return attempt

    def _find_plan(self, request: Request) -> tuple[Inspection | None, Request]:
        """Return the inspection that what is on disk of a video was made by, and the request as it was then.

        Without it that is of no use, and is removed: no part of another engine, or of other settings, weights, media or
        code, may get into the video.
        """
        work = Path(request.work)
        try:
            found = read_plan(read_regular(work / PLAN, MAX_PLAN_BYTES), request, stamp_makers(request))
        except OSError:
            found = None
        if found is not None:
            known, planned = found
            if known.animation is None or known.animation.engine == request.motion.get("engine"):
                return known, planned
        if any(work.iterdir()):
            remove(work)
            work.mkdir(parents=True)
        return None, request

    def _keep_plan(self, attempt: Attempt, outline: Mapping[str, Any]) -> None:
        """Write what the parts will be made by beside them. A full disk is the trouble of later stages."""
        path, request = Path(attempt.request.work, PLAN), attempt.request
        if catch(atomic_write_bytes, path, make_plan(outline, request, stamp_makers(request))):
            discard(path)

    def _may_go_on(self, attempt: Attempt) -> bool:
        """Whether a worker may do all stages of the job: the first time, and where nothing is to be loaded."""
        job, is_light = attempt.job, not (ENGINES[attempt.request.engine].weights or attempt.request.motion)
        is_first = job.attempt == 1 and attempt.kind == "cpu" and attempt.stage == "inspect"
        return is_light and is_first and not (job.client_id and self.ledger.find_done_duplicate(job))

    def _count_bytes(self, kind: DeviceKind) -> int:
        """Return the memory of the largest device of that kind that workers may take; 0 for processors."""
        reserve = self.settings.current.devices.reserve_mib << 20
        totals = (device.total_bytes for device in self.pool.devices() if device.kind == kind and device.card)
        return max(0, max(totals, default=0) - reserve)

    def _make_request(self, job: Job, entrant: Entrant, token: str) -> Request:
        """Return the request for a video; those of a race have a folder of their own each."""
        settings, spec, engine = self.settings.current, entrant.spec, entrant.choice.engine
        work = self._work / job.uid / (entrant.folder if spec.race is not None else "")
        work.mkdir(parents=True, exist_ok=True)
        return Request(
            engine=engine,
            avatar=job.media["avatar"]["path"],
            audio=job.media["audio"]["path"],
            media={role: job.media[role]["path"] for role in spec.media_names if role != "audio"},
            from_s=spec.from_s,
            to_s=spec.to_s,
            soundtrack_db=spec.soundtrack_db or 0.0,
            background=spec.background_colour,
            voices=tuple(GivenVoice(voice.face, voice.from_s or 0.0) for voice in spec.voices or ()),
            work=str(work),
            out=str(self._find_staging(job, token)),
            cache=str(self.folders.cache),
            models_dir=str(settings.models_dir),
            cache_bytes=int(settings.cache.max_gib * 2**30),
            fps=spec.fps,
            options=dict(spec.options),
            output=self._choose_output(spec),
            limits=settings.media_limits,
            metadata={"title": job.name, "comment": f"musedrop, engine {engine}"},
            marks={
                role: [*astuple(Fingerprint.from_dict(medium)), *medium.get("sample", ())]
                for role, medium in job.media.items()
            },
            strict=spec.strict,
            forms=dict(self.devices.forms),
            tuned={
                card: choice.model_dump(include={"batch_size", "compile"})
                for card, choice in self.devices.tuned.items()
            },
        )

    def _choose_output(self, spec: JobSpec) -> Output:
        """Return how the video is encoded; "auto" means x264 where tuning found it faster than NVENC."""
        output = spec.resolve_output(self.settings.current.encoding)
        is_open = output.encoder == "auto" and self.devices.prefers_x264
        return replace(output, encoder="libx264") if is_open else output

    def _find_staging(self, job: Job, token: str) -> Path:
        return self.folders.staging / f"{job.uid}-{token}"

    # waits -----------------------------------------------------------------------------------------------------------

    def find_held(self) -> tuple[list[str], str]:
        """Return the engines, "auto" included, whose jobs stay queued, and why.

        A driver in trouble is not the same as no card: their jobs must not run elsewhere.
        """
        trouble = self.pool.driver_trouble
        engines = self._engines.list_on_cards() if trouble else []
        return engines, trouble if engines else ""

    def explain_waits(self) -> None:
        """Write into the row of each job without a device why it has none, unless it is only a matter of turns."""
        reason = self._hold_reason or self.pool.wait_reason(PROBE) or None
        held, why = self.find_held()
        self.ledger.queue.set_waiting_for(reason, dict.fromkeys(held, why))
        for attempt in self.attempts.values():
            task = attempt.make_task(self.pool.running_spans(attempt.task_id))
            waits = task.todo and not task.running
            cause = SAME_CLIP if attempt.awaits_clip else self.pool.wait_reason(task) or None
            self._set_waiting_for(attempt, cause if waits else None)

    def _set_waiting_for(self, attempt: Attempt, reason: str | None) -> None:
        if reason != attempt.waiting_for:
            attempt.waiting_for = reason
            self.ledger.update(attempt.job.uid, waiting_for=reason)

    # events -> rows --------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Wait for the workers, at most so long; return what they report."""
        return self.pool.poll(timeout_s)

    def collect(self, events: Iterable[PoolEvent]) -> list[FinishedAttempt]:
        """Write what the workers reported, in a transaction of the caller; return the attempts that are finished."""
        finished = []
        for event in events:
            if isinstance(event, DeviceChanged):
                self.devices.record(event.device)
            elif (ended := self._record_event(event)) is not None:
                finished.append(ended)
        return finished

    def continue_attempt(self, attempt: Attempt) -> None:
        """Render an attempt after all, which could have taken the result of an earlier job."""
        self.attempts[attempt.job.uid] = attempt
        attempt.leave_stage(self.clock.now_s())

    def _record_event(self, event: Event) -> FinishedAttempt | None:
        message = event.message
        attempt = next((attempt for attempt in self.attempts.values() if attempt.task_id == message.task), None)
        if attempt is None:
            self._record_first_part(event)
            return None
        match message:
            case Progress():
                attempt.note_progress(message)
            case Done():
                return self._record_done(attempt, message, event.device)
            case Failed():
                return self._record_failure(attempt, message, event.device)
        return None

    def take_first_parts(self) -> list[tuple[Job, Path]]:
        """Return the running jobs whose first part has been made since the last call, each with its folder."""
        made, self._first_parts = self._first_parts, []
        return [(attempt.job, Path(attempt.request.first_out)) for attempt in made if self._runs(attempt)]

    def _runs(self, attempt: Attempt) -> bool:
        return self.attempts.get(attempt.job.uid) is attempt

    def _record_first_part(self, event: Event) -> None:
        """Note the end of a first part; one that can't be made is no fault of its job, which goes on."""
        message = event.message
        attempt = next((one for one in self.attempts.values() if one.first_task_id == message.task), None)
        match message:
            case Done() if attempt is not None:
                self._first_parts.append(attempt)
            case Failed() if attempt is not None:
                discard(Path(attempt.request.first_out))
                said = (attempt.job.name, message.message)
                log.warning("%s: its first part can't be shown: %s", *said, extra=make_extra(attempt.job, event.device))

    def _record_done(self, attempt: Attempt, message: Done, device: str) -> FinishedAttempt | None:
        attempt.finish_span(Span(message.start, message.stop), device)
        if attempt.stage == "inspect":
            attempt.set_inspection(message.result)
            may_be_known = attempt.job.client_id and not (attempt.race and attempt.race.made)
            if may_be_known and (earlier := self.ledger.find_done_duplicate(attempt.job)):
                return self._settle_duplicate(attempt, earlier)
            if is_whole_job(message.result):
                attempt.skip_to_end(message.result["stage_seconds"], device, self.clock.now_s())
                return self._finish_attempt(attempt, message.result["facts"])
            self._keep_plan(attempt, message.result["outline"])
        elif attempt.stage == "animate" and "outline" in message.result:
            attempt.set_inspection(message.result)
            self._keep_plan(attempt, message.result["outline"])
        if not attempt.is_complete:
            return None
        if attempt.stage != "assemble":
            if attempt.stage == "render" and (frame_s := attempt.measure_frame_s(self.clock.now_s())) is not None:
                self._frame_s[attempt.request.engine, attempt.kind] = frame_s
            attempt.leave_stage(self.clock.now_s())
            return None
        attempt.add_stage_time(self.clock.now_s())
        return self._finish_attempt(attempt, message.result)

    def _finish_attempt(self, attempt: Attempt, facts: Mapping[str, Any]) -> FinishedAttempt | None:
        if (race := attempt.race) is not None:
            attempt.note_video(race, facts)
            if race.advance():
                self._make_next_video(attempt, race)
                return None
            return self._finish_race(attempt, race)
        return self._finish_last(attempt, facts)

    def _make_next_video(self, attempt: Attempt, race: Race) -> None:
        """Go on with the next entrant of a race, from the beginning."""
        choice, token = race.entrant.choice, f"{attempt.job.run_token}-{race.at}"
        try:
            request = self._make_request(attempt.job, race.entrant, token)
            if motion := attempt.request.motion:
                request = race.entrant.add_motion(request, motion["engine"], motion["device_bytes"])
            known, request = self._find_plan(request)
        except OSError as error:
            self._drop(attempt)
            self._requeue(attempt, f"{error.strerror}: {error.filename}")
            return
        self._stop_first_part(attempt)
        attempt.begin_again(request, choice.kind, token, known, self.clock.now_s())
        self._set_engine(attempt, choice)
        attempt.may_go_on = self._may_go_on(attempt)
        attempt.usual_frame_s = self._frame_s.get((choice.engine, choice.kind))
        said = (attempt.job.name, race.at + 1, len(race.entrants), choice.engine)
        log.info("%s: video %d of %d, with the %s engine", *said, extra=make_extra(attempt.job))

    def _set_engine(self, attempt: Attempt, choice: EngineChoice) -> None:
        attempt.job = self.ledger.update_and_read(
            attempt.job.uid, engine=choice.engine, engine_reason=choice.reason, stage=attempt.row_stage
        )

    def _finish_race(self, attempt: Attempt, race: Race) -> FinishedAttempt | None:
        """Keep the best video; it takes the place where that of a job without a race is."""
        best, told = race.choose_best(self.settings.current.quality.model_dump())
        for video in race.made:
            if video is not best:
                discard(Path(video.request.out))
        attempt.take_back(best, race.sum_stage_seconds())
        attempt.request = replace(best.request, out=str(self._find_staging(attempt.job, attempt.job.run_token or "")))
        self._set_engine(attempt, best.entrant.choice)
        if attempt.request.out != best.request.out:
            try:
                move(Path(best.request.out), Path(attempt.request.out))
            except OSError as error:
                self._drop(attempt)
                self._requeue(attempt, f"{error.strerror}: {best.request.out}")
                return None
        return self._finish_last(attempt, {**best.facts, "race": told})

    def _lose_video(self, attempt: Attempt, failed: Failed) -> tuple[bool, FinishedAttempt | None]:
        """Have a race go on without the present entrant; return whether it can, and its end if that was the last."""
        race, share = attempt.race, self.folders.share_id_file
        is_tried_again = may_retry(attempt.job, failed)
        if race is None or is_tried_again or describe_disk_fault(failed, self.folders) or not is_file(share):
            return False, None
        if race.at + 1 == len(race.entrants) and not race.made:
            return False, None
        self.pool.cancel(attempt.task_id)
        discard(Path(attempt.request.out))
        race.lose(f"{failed.code}: {restore_names(failed.message)}")
        if not race.advance():
            return True, self._finish_race(attempt, race)
        self._make_next_video(attempt, race)
        return True, None

    def _finish_last(self, attempt: Attempt, facts: Mapping[str, Any]) -> FinishedAttempt:
        self._done_beside.update(self._disk_faults.keys() - {attempt.job.uid})
        self._forget_faults(attempt.job)
        self._disk_faults.clear()
        self._stop_first_part(attempt)
        del self.attempts[attempt.job.uid]
        made_with = self.devices.describe_makers(attempt.devices, attempt.request.output)
        return FinishedAttempt(attempt, {**facts, "made_with": made_with})

    def _settle_duplicate(self, attempt: Attempt, earlier: Job) -> FinishedAttempt | None:
        """Fail a job whose id belongs to a job of other content; one of the same content is finished."""
        job = attempt.job
        outline = attempt.inspection.to_dict() if attempt.inspection else None
        if content_of(job.spec, outline) == content_of(earlier.spec, earlier.outline):
            del self.attempts[job.uid]
            return FinishedAttempt(attempt, earlier=earlier)
        message = f'the id "{job.client_id}" is that of the job "{earlier.name}", which asked for something else'
        self._fail_attempt(attempt, JobError(ErrorCode.ID_CONFLICT, message, ErrorCode.ID_CONFLICT.hint))
        return None

    def _record_failure(self, attempt: Attempt, failed: Failed, device: str) -> FinishedAttempt | None:
        told = describe_failure(failed) if failed.fault == "worker" else failed.message
        self.ledger.record_event(attempt.job.uid, failed.code, self.clock.at_ms(), told, device)
        if failed.code == ErrorCode.INTERNAL:
            for line in failed.detail.splitlines():
                log.error("%s: %s", attempt.job.name, line, extra=make_extra(attempt.job, device))
        attempt.progress.pop(Span(failed.start, failed.stop), None)
        if failed.fault == "worker":
            self._record_interruption(attempt, failed, device)
        elif failed.fault == "job":
            goes_on, finished = self._lose_video(attempt, failed)
            if goes_on:
                return finished
            self._end_failed(attempt, failed)
        return None

    def _record_interruption(self, attempt: Attempt, failed: Failed, device: str) -> None:
        """Only the span of a lost worker is lost, unless the job itself seems to crash workers."""
        cause, is_crash = f"{device}: {describe_failure(failed)}", is_caused_by_job(failed)
        job = attempt.job = self.ledger.transitions.record_interruption(attempt.job, cause, crash=is_crash)
        said = (job.name, failed.start, failed.stop, device, failed.message)
        log.warning("%s: span %d-%d lost on %s: %s", *said, extra=make_extra(job, device))
        if job.crashes >= MAX_CRASHES:
            message = f"the job crashed or stalled its worker twice; last: {failed.message}"
            self._fail_attempt(attempt, JobError(ErrorCode.POISON, message, ErrorCode.POISON.hint))
        elif job.interruptions > self.settings.current.pool.max_interruptions:
            message = f"its workers died {job.interruptions} times: {failed.message}"
            self._fail_attempt(
                attempt, JobError(ErrorCode.INTERRUPTED, message, ErrorCode.INTERRUPTED.hint, retry=True)
            )
        elif is_crash and attempt.stage == "inspect":
            self._drop(attempt)
            self.ledger.transitions.requeue_last(job, failed.message, at_ms=self.clock.at_ms())

    def _end_failed(self, attempt: Attempt, failed: Failed) -> None:
        """Fail the job, or queue it for a later attempt; an attempt that the loss of the share ended does not count."""
        job, error = attempt.job, JobError(failed.code, restore_names(failed.message), failed.hint, failed.retry)
        self._drop(attempt)
        if not is_file(self.folders.share_id_file):
            self._requeue(attempt, f"the share went away: {failed.message}")
            return
        if (unreadable := explain_unreadable_medium(job, failed, self._done_beside[job.uid])) is not None:
            self.close_failed(job, unreadable)
            return
        if fault := describe_disk_fault(failed, self.folders):
            self._requeue(attempt, fault)
            self._wait_out(job, fault)
            return
        if failed.code in REDO_RENDER:
            discard(attempt.request.files.parts)
        if not may_retry(job, failed):
            self.close_failed(job, error)
            return
        delay_s = min(2.0 ** (job.failures + 1), MAX_BACKOFF_S)
        self.ledger.transitions.retry_later(job, error, delay_s=delay_s, at_ms=self.clock.at_ms())
        log.warning("%s: %s; tried again in %.0f s", job.name, failed.message, delay_s, extra=make_extra(job))

    def _wait_out(self, job: Job, fault: str) -> None:
        """Let a queued job rest while the share or the state has trouble; that counts as no attempt."""
        delay_s = min(2.0 * self._disk_faults.get(job.uid, ("", 0.5))[1], MAX_BACKOFF_S)
        self._disk_faults[job.uid] = fault, delay_s
        why = f"{name_trouble(fault)}; tried again in {delay_s:.0f} s"
        self.ledger.transitions.postpone(job, why, delay_s=delay_s, at_ms=self.clock.at_ms())
        log.error("%s waits: %s", job.name, why, extra=make_extra(job))

    def _forget_faults(self, job: Job) -> None:
        self._disk_faults.pop(job.uid, None)
        self._done_beside.pop(job.uid, None)

    @property
    def disk_fault(self) -> str:
        """What is wrong with the share or the state, as the last attempts found it; "" if nothing is."""
        return next((f"jobs wait, {name_trouble(f)}" for f, _ in self._disk_faults.values()), "")

    # ends ------------------------------------------------------------------------------------------------------------

    def _drop(self, attempt: Attempt) -> None:
        """Stop the running spans of an attempt; later messages of its token are ignored."""
        self._save(attempt)
        self.pool.cancel(attempt.task_id)
        self._stop_first_part(attempt)
        self.attempts.pop(attempt.job.uid, None)
        for video in attempt.race.made if attempt.race else ():
            discard(Path(video.request.out))
        discard(Path(attempt.request.out))

    def _stop_first_part(self, attempt: Attempt) -> None:
        """Make no more of a first part; what was made of it is not needed any longer."""
        if not attempt.has_first:
            return
        self.pool.cancel(attempt.first_task_id)
        discard(Path(attempt.request.first_out))

    def _requeue(self, attempt: Attempt, why: str) -> None:
        self.ledger.transitions.requeue(replace(attempt.job, stage=attempt.row_stage), why, at_ms=self.clock.at_ms())

    def _fail_attempt(self, attempt: Attempt, error: JobError) -> None:
        self._drop(attempt)
        self.close_failed(attempt.job, error)

    def close_failed(self, job: Job, error: JobError) -> None:
        self._forget_faults(job)
        self.ledger.transitions.fail(job, error, at_ms=self.clock.at_ms())
        log.error("%s failed (%s): %s", job.name, error.code, error.message, extra=make_extra(job))

    def cancel(self, job: Job) -> None:
        """End a job that is not finished, wherever it is."""
        if (attempt := self.attempts.get(job.uid)) is not None:
            self._drop(attempt)
        self._forget_faults(job)
        self.ledger.transitions.cancel(job, at_ms=self.clock.at_ms())
        log.info("%s cancelled", job.name, extra=make_extra(job))

    def fail_overdue(self) -> None:
        """Fail the jobs that took longer than their timeout_s."""
        now_s = self.clock.now_s()
        for attempt in list(self.attempts.values()):
            if attempt.deadline_s is not None and now_s > attempt.deadline_s:
                timeout_s = attempt.job.spec.timeout_s if attempt.job.spec else None
                message = f"it was not finished after {timeout_s:g} s"
                self._fail_attempt(attempt, JobError(ErrorCode.TIMEOUT, message, ErrorCode.TIMEOUT.hint, retry=True))

    def requeue_all(self, why: str) -> None:
        """Write running jobs back into the queue, as the pool is closed."""
        for attempt in self.attempts.values():
            self._requeue(attempt, why)

    # progress --------------------------------------------------------------------------------------------------------

    def save_progress(self) -> None:
        """Write the progress of running jobs and the state of devices, in one transaction.

        It need not be on disk sooner: after a crash a job continues by the files of its work folder.
        """
        with self.ledger.together():
            self.devices.save()
            for attempt in self.attempts.values():
                if attempt.is_dirty:
                    self._save(attempt)

    def _save(self, attempt: Attempt) -> None:
        uid = attempt.job.uid
        device = ", ".join(self.devices.list_working_on(uid)) or None
        self.ledger.update(uid, **attempt.take_columns(), device=device)


def content_of(spec: JobSpec | None, outline: Mapping[str, Any] | None) -> object:
    """Return what decides the frames and the sound of a job, to compare two jobs."""
    asked = spec.model_dump(include=CONTENT) if spec else {}
    asked |= {"voices": [(voice.face, voice.from_s or 0) for voice in (spec.voices or ())]} if spec else {}
    hashes: dict[str, Any] = {name: outline.get(name) or None for name in HASHES} if outline else {}
    further = dict(hashes.get("media_sha256") or {})
    if photo := further.pop("photo", None):  # the avatar is a clip as soon as that is made
        hashes |= {"avatar_sha256": photo, "media_sha256": further or None}
    return asked, hashes


def stamp_makers(request: Request) -> str:
    """Return what makes the parts of a video: the code, its libraries, and the weights of the engines."""
    root = Path(request.models_dir)
    weights = stamp_weights(root) if ENGINES[request.engine].weights else ""
    clip = stamp_motion(root, request.motion) if request.motion else ""
    return json.dumps([describe_code(), weights, clip])


def may_retry(job: Job, failed: Failed) -> bool:
    """Whether another attempt may do better, and the job has one left."""
    return failed.retry and job.spec is not None and job.failures + 1 < job.spec.max_attempts


def sort_key(attempt: Attempt, queue: ReadyQueue, at_ms: int) -> tuple[int, bool, int]:
    """Higher level first; then jobs that are only assembled any more, so that results leave; then first come."""
    return (-queue.level_of(attempt, at_ms), attempt.stage != "assemble", attempt.job.id)


def will_have_room(need_bytes: int, devices: Iterable[Device]) -> bool:
    """Whether a card that is busy for us has so much memory, not counting what our workers there hold."""
    room: Counter[str] = Counter()
    busy = set()
    for device in devices:
        room[device.card] = max(room[device.card], device.free_bytes)
        busy |= {device.card} if device.state == "busy" else set()
    for device in devices:
        room[device.card] += device.held_bytes
    return any(room[card] >= need_bytes for card in busy)
