"""One clip by pools of one, two and four real workers, with tiny networks, also where workers are killed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_pool.backoff import Backoff
from gpu_pool.failpoints import VARIABLE
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.types import Done, Event, Failed, Span, Task
from models.motion.stage import make_motion_request, write_plan
from models.motion.types import MotionFiles, frame_path
from models.musev.engine import MuseVEngine
from models.types import Animation, Inspection, Request

LIMIT_S = 120
PATIENT = Backoff(quick_s=0, sick_after=100)
"""A device whose worker is killed again and again stays in service."""
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
    """A pool of real workers, and one clip that they make.

    killed_at   the place in a worker where one is killed in every second task; "": none is
    first       the first of these tasks
    deaths      of workers in a span
    """

    folder: Path
    request: Request
    workers: int
    killed_at: str = ""
    first: int = 0
    deaths: int = 0

    def make_clip(self) -> list[bytes]:
        """Run all tasks of the clip but the last, which makes no frames; return its frames."""
        plan = MuseVEngine("cpu:0").inspect(make_motion_request(self.request))
        files, animation = MotionFiles(self.request.files.animation), Animation("musev", "key", plan.units)
        write_plan(plan, files)
        outline = Inspection(1, "25", 64, 64, 0.04, {"render": 1}, animation=animation).to_dict()
        failpoint = {VARIABLE: f"{self.killed_at}:kill:{self.trap}"} if self.killed_at else {}
        self.trap.touch()
        backend = LocalBackend(
            cpu_devices(self.workers),
            handler="models.handler:open_handler",
            handler_options={},
            log_dir=self.folder / "logs",
            env=failpoint,
        )
        with Pool(backend, stall_s=LIMIT_S, backoff=PATIENT) as pool:
            for step, count in enumerate(animation.tasks[:-1]):
                payload = {"stage": "animate", "step": step, "request": self.request.to_dict(), "outline": outline}
                spans = [Span(unit, unit + 1) for unit in range(count)]
                for part in (spans[:-1], spans[-1:]):  # the last one adds what the others have made
                    self.run(pool, f"task-{step}", part, payload, kills=bool(self.killed_at) and step % 2 == self.first)
                    assert all(files.is_done(animation, step, span.start) for span in part)
        return [frame_path(files.frames, number).read_bytes() for number in range(plan.frames)]

    @property
    def trap(self) -> Path:
        """A file without which the next worker that comes to the place is killed."""
        return self.folder / "trap"

    def run(self, pool: Pool, name: str, spans: list[Span], payload: dict[str, Any], *, kills: bool) -> None:
        """Let the pool run spans until each is done, and with `kills` a worker was killed at one of them."""
        if spans and kills:
            self.trap.unlink()
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
        assert self.trap.exists()


def test_any_number_of_workers_and_kills_in_each_step_give_one_clip(
    musev_master: Path, photo: Path, tmp_path: Path
) -> None:
    """One worker with all threads, two and four make the same bytes, and where one is killed in each task:
    two of them before a span has done anything, four of them when it has and its end is not reported."""
    clips = []
    for workers, killed_at, first in ((1, "", 0), (2, "mid_span", 0), (4, "span_done", 1)):
        folder = tmp_path / str(workers)
        work = folder / "work"
        request = Request("preview", str(photo), "v.wav", str(work), "out", "cache", str(musev_master), motion=MOTION)
        request.files.photo.parent.mkdir(parents=True)
        request.files.photo.write_bytes(photo.read_bytes())
        studio = Studio(folder, request, workers, killed_at, first)
        clips.append(studio.make_clip())
        assert studio.deaths == (3 if killed_at else 0)
    assert clips[0] == clips[1] == clips[2]
    assert len(set(clips[0])) > 2
