"""A job that is running: which stage it is in, which spans are left, and what a worker is told. No I/O but `exists`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.ledger.job import Job
from gpu_pool.types import DeviceKind, Progress, Span, Task, grid
from models.types import STAGES, Inspection, Request, Stage

CPU_STAGES = ("inspect", "assemble")


@dataclass
class Run:
    """One claimed attempt at a job.

    served_ms    when it last had a device, or was claimed
    waiting_for  why no device would do, as it was last told
    units_before what of the stage lay on disk when it was entered
    """

    job: Job
    token: str
    request: Request
    kind: DeviceKind
    outline: Inspection | None
    stage: Stage = "inspect"
    finished: set[Span] = field(default_factory=set)
    progress: dict[Span, int] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    stage_started: float = 0.0
    units_before: int = 0
    deadline: float | None = None
    dirty: bool = True
    outline_is_new: bool = False
    served_ms: int = 0
    waiting_for: str | None = None

    @property
    def task_id(self) -> str:
        return f"{self.token}/{self.stage}"

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans of the present stage. Rendering is cut on the grid; the other stages are one span.

        So is a preparation of several units, and then one more span joins its parts.
        """
        if self.outline is None or self.stage not in self.outline.units:
            return (Span(0, 1),)
        units = max(1, self.outline.units[self.stage])
        if self.stage == "prepare" and units > 1:
            return (*grid(units), Span(units, units + 1))
        return grid(units) if self.stage == "render" else (Span(0, units),)

    @property
    def ready(self) -> tuple[Span, ...]:
        """The spans that are left and can be done now: parts are joined when all of them are there."""
        left = tuple(span for span in self.spans if span not in self.finished)
        return left[:-1] if self.stage == "prepare" and len(left) > 1 else left

    @property
    def kind_now(self) -> DeviceKind:
        """The kind of device that the present stage needs."""
        return "cpu" if self.stage in CPU_STAGES else self.kind

    @property
    def units_total(self) -> int:
        return self.spans[-1].stop

    @property
    def units_done(self) -> int:
        running = {span: done for span, done in self.progress.items() if span not in self.finished}
        return sum(span.units for span in self.finished) + sum(running.values())

    def eta_s(self, now: float) -> float | None:
        """Seconds until all frames are rendered at the pace of this stage so far; None where that can't be told."""
        done = self.units_done - self.units_before
        if self.stage != "render" or done <= 0:
            return None
        return round((self.units_total - self.units_done) * (now - self.stage_started) / done, 1)

    @property
    def complete(self) -> bool:
        return len(self.finished) == len(self.spans)

    def enter(self, now: float) -> None:
        """Go to the first stage that still has something to do, by what lies on disk."""
        for stage in STAGES[STAGES.index(self.stage) :]:
            self.stage = stage
            self.finished = {span for span in self.spans if self._on_disk(span)}
            if not self.complete:
                break
        self.progress.clear()
        self.stage_started, self.units_before = now, self.units_done
        self.dirty = True

    def leave(self, now: float) -> None:
        """Book the time of the present stage and go on to the next."""
        self.seconds[self.stage] = round(self.seconds.get(self.stage, 0.0) + now - self.stage_started, 3)
        self.stage = STAGES[STAGES.index(self.stage) + 1]
        self.enter(now)

    def _on_disk(self, span: Span) -> bool:
        files = self.request.files
        if self.stage == "inspect":
            return self.outline is not None and files.avatar.exists() and files.audio.exists()
        if self.stage == "prepare":
            return files.prepared.exists() or files.prepared_part_path(span.start, span.stop).exists()
        return self.stage == "render" and files.part_path(span.start, span.stop).exists()

    def task(self, running: tuple[Span, ...]) -> Task:
        """What is left of the present stage, as the pool wants it; `payload` is added to what is started."""
        return Task(
            id=self.task_id,
            kind=self.kind_now,
            todo=tuple(span for span in self.ready if span not in running),
            running=running,
            strategy=self.job.strategy,
            model="" if self.stage in CPU_STAGES else self.request.engine,
            memory_bytes=self.outline.memory_bytes if self.outline else 0,
        )

    def payload(self) -> dict[str, Any]:
        """What a worker is told of the present stage."""
        outline = self.outline.to_dict() if self.outline else None
        message: dict[str, Any] = {"stage": self.stage, "request": self.request.to_dict(), "outline": outline}
        if self.stage == "assemble":
            spans = grid(max(1, self.outline.units["render"])) if self.outline else ()
            message["spans"] = [[span.start, span.stop] for span in spans]
        return message

    def note(self, message: Progress) -> None:
        self.progress[Span(message.start, message.stop)] = message.units_done
        self.dirty = True

    def finish(self, span: Span, device: str) -> None:
        self.finished.add(span)
        self.progress.pop(span, None)
        if self.stage == "render" and device not in self.devices:
            self.devices.append(device)
        self.dirty = True

    def inspected(self, result: Mapping[str, Any]) -> None:
        self.outline = Inspection.from_dict(dict(result["outline"]))
        self.outline_is_new = True

    def unsaved_outline(self) -> dict[str, Any]:
        """Columns of the job's row, once after it was inspected."""
        if self.outline is None or not self.outline_is_new:
            return {}
        self.outline_is_new = False
        outline = self.outline
        return {"outline": outline.to_dict(), "frames": outline.frames, "duration_s": outline.duration_s}
