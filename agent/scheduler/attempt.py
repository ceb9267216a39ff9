"""An attempt at a job: its stage, the spans that are left, and the messages for workers. No I/O but `exists`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.ledger.job import Job
from agent.scheduler.race import MadeVideo, Race
from gpu_pool.types import DeviceKind, Progress, Span, Task, grid
from models.motion.types import MotionFiles
from models.types import STAGES, Inspection, Request, Stage

CPU_STAGES = ("inspect", "assemble")
"""They read and write the share, which the daemon's machine has; what makes a clip of its frames inspects it again."""


@dataclass
class Attempt:
    """One attempt at a job that is running.

    devices       the devices that rendered a span
    units_before  how much of the stage was on disk when it was entered
    deadline_s    when the attempt has taken too long, in monotonic seconds
    served_ms     when it last had a device, or was started; milliseconds since 1970
    waiting_for   why it has no device, as its row says it
    load_s        how long a model is loaded in the present stage, as far as that is known; 0: it is loaded
    usual_frame_s how long a frame took in an earlier job of the engine, None: not known
    is_dirty      whether the row is older than the attempt
    may_go_on     whether its worker may do all stages at once if the inspection shows a short job
    step          the number of the present task, in a stage that has several
    motion_kind   the kind of device that a clip is made on
    awaits_clip   whether another attempt was making the same clip
    first_s       the first part is shown of videos that are longer than that; None: of none
    has_first     whether the first part was begun to be made into a video
    race          the videos that are made of the job, to keep the best; None: it is one video
    """

    job: Job
    token: str
    request: Request
    kind: DeviceKind
    inspection: Inspection | None
    stage: Stage = "inspect"
    finished_spans: set[Span] = field(default_factory=set)
    progress: dict[Span, int] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_started_s: float = 0.0
    units_before: int = 0
    deadline_s: float | None = None
    is_dirty: bool = True
    inspection_is_new: bool = False
    served_ms: int = 0
    waiting_for: str | None = None
    may_go_on: bool = False
    load_s: float = 0.0
    usual_frame_s: float | None = None
    step: int = 0
    motion_kind: DeviceKind = "cpu"
    awaits_clip: bool = False
    first_s: float | None = None
    has_first: bool = False
    race: Race | None = None

    @property
    def task_id(self) -> str:
        return f"{self.token}/{self.stage}" + (f"/{self.step}" if self.stage == "animate" else "")

    @property
    def first_task_id(self) -> str:
        return f"{self.token}/first"

    @property
    def tasks(self) -> tuple[int, ...]:
        """The number of spans of each task of the animation; none where there is nothing to animate, or no more."""
        return self.inspection.animation.tasks if self.inspection and self.inspection.animation else ()

    @property
    def clip_key(self) -> str:
        """What identifies the clip that is made now, "" in other stages."""
        animation = self.inspection.animation if self.inspection and self.stage == "animate" else None
        return animation.key if animation else ""

    @property
    def row_stage(self) -> str:
        """The stage as the column `stage` holds it: `animated` says the rest."""
        return "prepare" if self.stage == "animate" else self.stage

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans of the present stage: those of the grid while rendering, else one.

        A preparation of several units is cut on the grid, too, and one more span joins its parts.
        """
        if self.stage == "animate":
            return tuple(Span(unit, unit + 1) for unit in range(self.tasks[self.step])) if self.tasks else ()
        if self.inspection is None or self.stage not in self.inspection.units:
            return (Span(0, 1),)
        units = max(1, self.inspection.units[self.stage])
        if self.stage == "prepare" and units > 1:
            return (*grid(units), Span(units, units + 1))
        return self.render_spans if self.stage == "render" else (Span(0, units),)

    @property
    def render_spans(self) -> tuple[Span, ...]:
        """The spans of the render stage, which are the parts of the video; none before the inspection."""
        return grid(max(1, self.inspection.units["render"]), self.inspection.batch) if self.inspection else ()

    @property
    def ready_spans(self) -> tuple[Span, ...]:
        """The unfinished spans that can run now; the span that joins parts comes after all others."""
        left = tuple(span for span in self.spans if span not in self.finished_spans)
        return left[:-1] if self.stage in ("animate", "prepare") and len(left) > 1 else left

    @property
    def device_kind(self) -> DeviceKind:
        """The kind of device that the present stage runs on."""
        if self.stage == "animate":
            return self.motion_kind if self.model else "cpu"
        return "cpu" if self.stage in CPU_STAGES else self.kind

    @property
    def model(self) -> str:
        """The engine that a worker has to load for the present task, "" for none."""
        if self.stage == "animate":
            animation = self.inspection.animation if self.inspection else None
            return animation.engine if animation and self.step < len(self.tasks) - 1 else ""
        return "" if self.stage in CPU_STAGES else self.request.engine

    @property
    def memory_bytes(self) -> int:
        """The memory of a card that a worker needs for the present task; 0: unknown."""
        if self.inspection is None:
            return 0
        animation = self.inspection.animation if self.stage == "animate" else None
        return animation.memory_bytes if animation else self.inspection.memory_bytes

    @property
    def can_show_first(self) -> bool:
        """Whether the first part can be shown now, and others are still to be rendered."""
        if (
            self.first_s is None
            or self.has_first
            or self.inspection is None
            or self.stage != "render"
            or self.is_complete
        ):
            return False
        return self.inspection.duration_s > self.first_s and self.render_spans[0] in self.finished_spans

    @property
    def units_total(self) -> int:
        return sum(self.tasks) if self.stage == "animate" else self.spans[-1].stop

    @property
    def units_done(self) -> int:
        running = {span: done for span, done in self.progress.items() if span not in self.finished_spans}
        before = sum(self.tasks[: self.step]) if self.stage == "animate" else 0
        return before + sum(span.units for span in self.finished_spans) + sum(running.values())

    def eta_s(self, now_s: float) -> float | None:
        """Return the seconds until all frames are rendered, at the pace so far; None where that isn't known.

        Of an animation it is the time until the clip is made. Before the first frame the pace is that of an earlier
        job. A model that is loaded first counts once.
        """
        if self.stage == "animate":
            unit_s = self.measure_frame_s(now_s)
            return None if unit_s is None else round(unit_s * (self.units_total - self.units_done), 1)
        if self.stage not in ("prepare", "render") or self.inspection is None:
            return None
        done = self.units_done - self.units_before if self.stage == "render" else 0
        frame_s = self.measure_frame_s(now_s) if done > 0 else self.usual_frame_s
        if frame_s is None:
            return None
        loading_s = 0.0 if done > 0 else max(0.0, self.load_s - (now_s - self.stage_started_s))
        left = self.inspection.units["render"] - (self.units_done if self.stage == "render" else 0)
        return round(loading_s + left * frame_s, 1)

    def measure_frame_s(self, now_s: float) -> float | None:
        """Return the seconds for a frame, or a unit of a clip, without those of loading; None before the first."""
        done = self.units_done - self.units_before
        return max(0.0, now_s - self.stage_started_s - self.load_s) / done if done > 0 else None

    @property
    def is_complete(self) -> bool:
        return self.finished_spans.issuperset(self.spans)

    def enter_stage(self, now_s: float) -> None:
        """Go to the first stage, from the present one on, whose files are not all on disk."""
        for stage in STAGES[STAGES.index(self.stage) :]:
            self.stage, self.step = stage, 0
            self._skip_finished_tasks()
            if not self.is_complete:
                break
        self.load_s = 0.0
        self.stage_started_s, self.units_before = now_s, self.units_done
        self.is_dirty = True

    def leave_stage(self, now_s: float) -> None:
        """Go to the next task of the present stage, or add up its time and go to the next stage."""
        if self.step + 1 < len(self.tasks) and self.stage == "animate":
            self.step += 1
            self._skip_finished_tasks()
            self.is_dirty = True
            return
        self.add_stage_time(now_s)
        self.stage = STAGES[STAGES.index(self.stage) + 1]
        self.enter_stage(now_s)

    def _skip_finished_tasks(self) -> None:
        """Go to the first task of the present stage whose files are not all on disk, or to the last one."""
        self.progress.clear()
        self.finished_spans = {span for span in self.spans if self._is_on_disk(span)}
        while self.stage == "animate" and self.is_complete and self.step + 1 < len(self.tasks):
            self.step += 1
            self.finished_spans = {span for span in self.spans if self._is_on_disk(span)}

    def inspect_again(self, now_s: float) -> None:
        """Go back to the inspection, which finds what another attempt has made in the meantime."""
        self.awaits_clip, self.inspection, self.stage = False, None, "inspect"
        self.enter_stage(now_s)

    def note_video(self, race: Race, facts: Mapping[str, Any]) -> None:
        """Keep what is known of a video that was made, while others of the race are."""
        known = (self.request, self.inspection, self.kind, self.devices, self.stage_seconds)
        race.made.append(MadeVideo(race.entrant, facts, *known))

    def take_back(self, video: MadeVideo, seconds: dict[str, float]) -> None:
        """Be the attempt again that made this video; `seconds`: of each stage, of all videos."""
        self.request, self.inspection, self.kind, self.devices = (
            video.request,
            video.inspection,
            video.kind,
            video.devices,
        )
        self.stage, self.stage_seconds, self.inspection_is_new = "assemble", seconds, True
        self.finished_spans = set(self.spans)

    def begin_again(
        self, request: Request, kind: DeviceKind, token: str, known: Inspection | None, now_s: float
    ) -> None:
        """Make another video of the same job, in another work folder: from its inspection on, unless that is known."""
        self.request, self.kind, self.token, self.awaits_clip = request, kind, token, False
        self.devices, self.stage_seconds = [], {}
        self.inspection, self.inspection_is_new, self.stage = known, known is not None, "inspect"
        self.enter_stage(now_s)

    def add_stage_time(self, now_s: float) -> None:
        """Add the time since the present stage was entered."""
        seconds = self.stage_seconds.get(self.stage, 0.0) + now_s - self.stage_started_s
        self.stage_seconds[self.stage] = round(seconds, 3)

    def _is_on_disk(self, span: Span) -> bool:
        files = self.request.files
        if self.stage == "inspect":
            copies = map(files.medium_path, ("avatar", "audio", *self.request.media))
            return self.inspection is not None and all(path.exists() for path in copies)
        if self.stage == "animate":
            animation = self.inspection.animation if self.inspection else None
            return animation is None or MotionFiles(files.animation).is_done(animation, self.step, span.start)
        if self.stage == "prepare":
            return files.prepared.exists() or files.prepared_part_path(span.start, span.stop).exists()
        return self.stage == "render" and files.part_path(span.start, span.stop).exists()

    def make_task(self, running: tuple[Span, ...]) -> Task:
        """Return the unfinished spans of the present stage, without the payload, for the pool to plan."""
        return Task(
            id=self.task_id,
            kind=self.device_kind,
            todo=tuple(span for span in self.ready_spans if span not in running),
            running=running,
            strategy="auto" if self.race else self.job.strategy,
            model=self.model,
            memory_bytes=self.memory_bytes,
            is_local=self.stage in CPU_STAGES or (self.stage == "animate" and not self.model),
        )

    def make_payload(self) -> dict[str, Any]:
        """Return the message for a worker that runs a span of the present stage."""
        outline = self.inspection.to_dict() if self.inspection else None
        message: dict[str, Any] = {"stage": self.stage, "request": self.request.to_dict(), "outline": outline}
        if self.stage == "inspect":
            message["goes_on"] = self.may_go_on and self.job.interruptions == 0
        if self.stage == "animate":
            message["step"] = self.step
        if self.stage == "assemble":
            message["spans"] = [[span.start, span.stop] for span in self.render_spans]
        return message

    def make_first_task(self) -> Task:
        """Return the task that makes a video of the first part."""
        request, outline = self.request.to_dict(), self.inspection.to_dict() if self.inspection else None
        payload = {"stage": "first", "request": request, "outline": outline, "stop": self.render_spans[0].stop}
        return Task(self.first_task_id, "cpu", (Span(0, 1),), strategy="queue", payload=payload, is_local=True)

    def note_progress(self, message: Progress) -> None:
        self.progress[Span(message.start, message.stop)] = message.units_done
        self.is_dirty = True

    def finish_span(self, span: Span, device: str) -> None:
        self.finished_spans.add(span)
        self.progress.pop(span, None)
        if self.stage == "render" and device not in self.devices:
            self.devices.append(device)
        self.is_dirty = True

    def set_inspection(self, result: Mapping[str, Any]) -> None:
        """Take over what the inspection of the media found; the pool has refused what does not fit."""
        self.inspection = Inspection.from_dict(dict(result["outline"]))
        self.inspection_is_new = True

    def skip_to_end(self, stage_seconds: Mapping[str, float], device: str, now_s: float) -> None:
        """Take over that the worker which inspected has done all later stages, too, in so many seconds."""
        self.add_stage_time(now_s)
        alone_s = self.stage_seconds["inspect"] - sum(stage_seconds.values())
        self.stage_seconds |= {**stage_seconds, "inspect": round(max(0.0, alone_s), 3)}
        self.stage, self.devices = "assemble", [device]
        self.finished_spans = set(self.spans)
        self.is_dirty = True

    def take_columns(self) -> dict[str, Any]:
        """Return the columns of the job's row that follow the attempt, which is not dirty then."""
        self.is_dirty = False
        columns: dict[str, Any] = {"stage": self.row_stage, "stage_seconds": self.stage_seconds}
        if self.request.motion:
            columns["animated"] = int(self.stage not in ("inspect", "animate"))
        columns |= {"units_done": self.units_done, "units_total": self.units_total}
        if self.inspection is not None and self.inspection_is_new:
            self.inspection_is_new = False
            found = self.inspection
            columns |= {"outline": found.to_dict(), "frames": found.frames, "duration_s": found.duration_s}
        return columns


@dataclass(frozen=True, slots=True)
class FinishedAttempt:
    """An attempt that has no more spans to run, for the publisher.

    facts    what the worker that assembled the video said of it
    earlier  the job of the same id and content whose result this one takes, instead of being rendered
    """

    attempt: Attempt
    facts: Mapping[str, Any] = field(default_factory=dict)
    earlier: Job | None = None
