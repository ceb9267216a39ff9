"""One clip by pools of one, two and four real workers, with tiny networks, also where workers are killed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.backoff import Backoff
from gpu_pool.failpoints import VARIABLE
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Done, Event, Failed, Span, Task
from models.motion.stage import make_motion_request, write_plan
from models.motion.types import MotionFiles, MotionPlan, frame_path
from models.musev.engine import MuseVEngine
from models.types import Animation, Inspection, Request

LIMIT_S = 250
NO_SUCCESSOR = Backoff(quick_s=1e9, first_s=1e9, sick_s=1e9, sick_max_s=1e9)
"""A worker that was killed is not replaced where there are others: starting one takes seconds."""
MOTION: dict[str, Any] = {
    "engine": "musev",
    "seconds": 1.5,
    "size": 64,
    "steps": 2,
    "options": {"window": 4, "overlap": 2},
    "device_bytes": 0,
    "interpolation": "none",
}


@dataclass
class Studio:
    """A pool of real workers that make one clip; in each of the tasks `kills`, one is killed amid a span.

    The spans of the tasks `last_kills` that are cut short are those that add what the other spans have made.
    """

    folder: Path
    request: Request
    workers: int
    kills: tuple[int, ...] = ()
    last_kills: tuple[int, ...] = ()
    backoff: Backoff = NO_SUCCESSOR
    deaths: int = 0

    def make_clip(self, plan: MotionPlan) -> list[bytes]:
        """Run all tasks of the clip but the last, which makes no frames; return its frames and its latents."""
        files, animation = MotionFiles(self.request.files.animation), Animation("musev", "key", plan.units)
        write_plan(plan, files)
        outline = Inspection(1, "25", 64, 64, 0.04, {"render": 1}, animation=animation).to_dict()
        with Pool(self.open_backend(), stall_s=LIMIT_S, backoff=self.backoff) as pool:
            for step, count in enumerate(animation.tasks[:-1]):
                payload = {"stage": "animate", "step": step, "request": self.request.to_dict(), "outline": outline}
                spans = [Span(unit, unit + 1) for unit in range(count)]
                for part, kills in ((spans[:-1], self.kills), (spans[-1:], self.last_kills)):
                    if part and step in kills:
                        self.trap.unlink()
                    self.run(pool, f"task-{step}", part, payload)
                    assert all(files.is_done(animation, step, span.start) for span in part)
                assert self.trap.exists()
        latents = files.kept_path(len(plan.units) - 1).read_bytes()
        return [latents, *(frame_path(files.frames, number).read_bytes() for number in range(plan.frames))]

    @property
    def trap(self) -> Path:
        """A file without which the next worker that reports from within a span is killed."""
        return self.folder / "trap"

    def open_backend(self) -> LocalBackend:
        self.trap.touch()
        return LocalBackend(
            cpu_devices(self.workers),
            handler="models.handler:open_handler",
            handler_options={},
            log_dir=self.folder / "logs",
            env={VARIABLE: f"mid_span:kill:{self.trap}"},
        )

    def run(self, pool: Pool, name: str, spans: list[Span], payload: dict[str, Any]) -> None:
        """Let the pool run spans until each is done, whoever dies of them."""
        left, deadline = set(spans), time.monotonic() + LIMIT_S
        while left:
            assert time.monotonic() < deadline, (left, pool.devices())
            task = Task(name, "cpu", tuple(sorted(left)), strategy="split", model="musev", payload=payload)
            if plan := pool.plan(task, 0):
                pool.start(plan)
            for event in pool.poll(0.5):
                match event:
                    case Event(message=Done(start=start, stop=stop)):
                        left.discard(Span(start, stop))
                    case Event(message=Failed(code=code) as failed):
                        assert code == "worker_died", failed
                        self.deaths += 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_any_number_of_workers_and_kills_in_each_step_give_one_clip(
    musev_master: Path, photo: Path, tmp_path: Path
) -> None:
    """One worker, two and four make the same bytes, also where one is killed in each task and in what ends it."""
    clips = []
    for workers, kills, last_kills, backoff in (
        (1, (), (), NO_SUCCESSOR),
        (2, (), (2, 3), Backoff(quick_s=0.0)),
        (4, (1, 2), (0,), NO_SUCCESSOR),
    ):
        folder = tmp_path / str(workers)
        work = folder / "work"
        request = Request("preview", str(photo), "v.wav", str(work), "out", "cache", str(musev_master), motion=MOTION)
        request.files.photo.parent.mkdir(parents=True)
        request.files.photo.write_bytes(photo.read_bytes())
        studio = Studio(folder, request, workers, kills, last_kills, backoff)
        clips.append(studio.make_clip(MuseVEngine("cpu:0").inspect(make_motion_request(request))))
        assert studio.deaths == len(kills + last_kills)
    assert clips[0] == clips[1] == clips[2]
    assert len(set(clips[0])) > 3
