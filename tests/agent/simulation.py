"""A dispatcher over fake workers, on a clock that jumps: real rows, a real pool, no processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.ledger.job import Job
from agent.scheduler.attempt import FinishedAttempt
from agent.scheduler.devices import Devices
from agent.scheduler.dispatcher import Dispatcher
from agent.scheduler.reports import explain_refusal
from agent.settings import CurrentSettings
from agent.settings_file import load_settings
from gpu_pool.pool import Pool
from gpu_pool.types import Device, Done, Failed, RunSpan
from models.types import Inspection
from tests.agent.fake_clock import FakeClock
from tests.agent.samples import a_ledger, add_job
from tests.gpu_pool.fake import Answer, FakeBackend, Message

Story = Callable[[str, str, RunSpan], list[tuple[float, Message]] | None]
"""(device, job name, order) -> what the worker says instead of doing it, or None."""


def cpus(count: int) -> list[Device]:
    return [Device(f"cpu:{n}", "cpu") for n in range(count)]


class Cards(FakeBackend):
    """A fake whose driver always has fresh figures: a worker holds what its span needs, as long as it runs."""

    def __init__(self, devices: Sequence[Device], clock: FakeClock, answer: Answer) -> None:
        super().__init__(devices, clock, answer)
        self.time = clock
        self.holding: dict[str, tuple[int, float]] = {}

    def devices(self) -> Sequence[Device]:
        there = super().devices()
        held = {name: size for name, (size, until) in self.holding.items() if self.time() < until}
        taken: Counter[str] = Counter()
        for device in there:
            taken[device.card] += held.get(device.id, 0)
        return tuple(
            replace(
                device,
                held_bytes=held.get(device.id, 0),
                free_bytes=max(0, device.free_bytes - taken[device.card]),
                read_at_s=self.time(),
            )
            for device in there
        )


class Simulation:
    """`frames`: length of each job; `frame_s`: what a frame costs. The other stages take a tenth of a second."""

    def __init__(self, folder: Path, devices: Sequence[Device], frames: int = 96, frame_s: float = 0.1) -> None:
        (folder / "share").mkdir(exist_ok=True)
        (folder / "musedrop.toml").write_text('share = "share"\nstate = "state"\n')
        self.settings = load_settings(folder / "musedrop.toml")
        self.settings.folders.share_id_file.parent.mkdir(exist_ok=True)
        self.settings.folders.share_id_file.touch()
        self.frames, self.frame_s, self.prepare_units, self.memory_bytes = frames, frame_s, 1, 0
        self.slowness: dict[str, float] = {}
        self.clock = FakeClock()
        self.ledger = a_ledger(folder)
        self.backend = Cards(devices, self.clock, self.answer)
        self.pool = Pool(self.backend, stall_s=1000.0, clock=self.clock, refuse=explain_refusal)
        self.devices = Devices(self.ledger, self.pool, self.clock)
        self.dispatcher = Dispatcher(CurrentSettings(self.settings), self.ledger, self.devices, self.clock)
        self.story: Story = lambda *_: None
        self.done: list[str] = []
        self.placed: list[tuple[float, str, str, str]] = []
        self.settle()

    def close(self) -> None:
        self.pool.close()
        self.ledger.close()

    def settle(self) -> None:
        """Until all workers are up."""
        while any(device.state == "starting" for device in self.pool.devices()):
            self.collect()

    def add(self, name: str, **keys: Any) -> Job:
        mark = {"inode": 1, "size": 1, "mtime_ns": 1}
        return self.add_with(
            name, {role: {"given": role, "path": role, **mark} for role in ("avatar", "audio")}, **keys
        )

    def add_with(self, name: str, media: dict[str, Any], **keys: Any) -> Job:
        return add_job(self.ledger, name, name=name, at_ms=self.clock.at_ms(), media=media, **keys)

    def answer(self, device: str, order: RunSpan) -> Iterable[tuple[float, Message]]:
        name = order.payload["request"]["metadata"]["title"]
        stage = order.payload["stage"]
        self.placed.append((self.clock(), device, name, stage))
        told = self.story(device, name, order)
        if told is not None:
            return told
        takes = (order.stop - order.start) * self.frame_s * self.slowness.get(device, 1) if stage == "render" else 0.1
        if not device.startswith("cpu"):
            self.backend.holding[device] = ((order.payload["outline"] or {})["memory_bytes"], self.clock() + takes)
        result = json.loads(json.dumps({"outline": self.inspection().to_dict()})) if stage == "inspect" else {}
        return [(takes, Done(order.task, order.start, order.stop, takes, result))]

    def inspection(self) -> Inspection:
        units = {"inspect": 1, "prepare": self.prepare_units, "render": self.frames, "assemble": 1}
        inspection = Inspection(self.frames, "25", 64, 64, self.frames / 25, units, memory_bytes=self.memory_bytes)
        return replace(inspection, avatar_sha256="a" * 64, audio_sha256="b" * 64)

    def end(self, finished: FinishedAttempt) -> None:
        """End a job as the publisher does; the result of an earlier job is never there any more."""
        if finished.earlier is not None:
            self.dispatcher.continue_attempt(finished.attempt)
            return
        job = finished.attempt.job
        self.ledger.update(job.uid, **finished.attempt.take_columns())
        self.ledger.transitions.finish(job, job.name, at_ms=self.clock.at_ms())
        self.done.append(job.name)

    def collect(self) -> None:
        events = self.dispatcher.wait(1.0)
        with self.ledger.together():
            for finished in self.dispatcher.collect(events):
                self.end(finished)
            self.dispatcher.assign()
        self.dispatcher.release()

    def step(self) -> None:
        self.dispatcher.dispatch()
        self.collect()

    def run(self, until: Callable[[], bool], within_s: float = 10_000.0) -> None:
        end = self.clock() + within_s
        while not until():
            assert self.clock() < end, f"{self.rows()} {self.placed[-5:]}"
            self.step()

    def finish(self, jobs: int) -> None:
        self.run(lambda: len(self.done) == jobs)

    def rows(self) -> list[dict[str, Any]]:
        return self.ledger.rows("SELECT * FROM job_status ORDER BY created_at, name")

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.rows() if row["name"] == name)

    def renders(self, name: str) -> list[tuple[float, str]]:
        return [(at, device) for at, device, job, stage in self.placed if (job, stage) == (name, "render")]


def fails(order: RunSpan, code: str, **more: Any) -> Message:
    return Failed(order.task, order.start, order.stop, code, code, **more)


Build = Callable[..., Simulation]
"""(devices, **how) -> a simulation over the folder of the test."""
GIB = 1 << 30


def a_card(name: str, free_gib: int = 48, *, worker: str = "") -> Device:
    """A card of 48 GiB; `worker`: what a second worker's id adds."""
    return Device(name + worker, "cuda", card=name, total_bytes=48 * GIB, free_bytes=free_gib * GIB)
