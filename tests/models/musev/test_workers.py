"""One clip by one, two and four processes that run the tasks of a worker, with tiny networks."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.motion.stage import Animator, make_motion_request
from models.motion.types import MotionFiles, MotionRequest, frame_path
from models.musev.engine import MuseVEngine
from models.types import Animation, ProgressCallback, Request

FORK: Any = multiprocessing.get_context("fork")
"""Processes that have the networks of this one from the start."""
LIMIT_S = 120
MOTION: dict[str, Any] = {
    "engine": "musev",
    "seconds": 1.5,
    "size": 64,
    "steps": 2,
    "options": {"window": 4, "overlap": 2},
}


@pytest.fixture(scope="module")
def animator(musev_master: Path, photo: Path) -> Animator:
    """A worker whose networks are loaded, which those that are forked from it share."""
    made = Animator("cpu:0")
    engine = made.open_engine("musev")
    assert isinstance(engine, MuseVEngine)
    asked = {name: value for name, value in MOTION.items() if name != "engine"}
    networks = engine.open_networks(engine.inspect(MotionRequest(str(photo), "anna.png", str(musev_master), **asked)))
    assert networks.unet.device == networks.vae.device
    return made


def fork_workers(count: int, units: range, act: Callable[[int], None]) -> None:
    """Let so many processes pull units until none is left."""
    following = FORK.Value("i", units.start)

    def pull() -> None:
        while True:
            with following.get_lock():
                unit, following.value = following.value, following.value + 1
            if unit >= units.stop:
                return
            act(unit)

    workers = [FORK.Process(target=pull) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT_S)
    assert [worker.exitcode for worker in workers] == [0] * count


def kill_within(act: Callable[[ProgressCallback], None], reports: int) -> None:
    """Begin a span in a process that is killed when it has reported so often."""
    reached, left = FORK.Event(), [reports]

    def report(_: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            reached.set()
            threading.Event().wait()

    victim = FORK.Process(target=act, args=(report,))
    victim.start()
    assert reached.wait(LIMIT_S)
    victim.kill()
    victim.join(LIMIT_S)
    assert victim.exitcode == -signal.SIGKILL


def list_spans(units: Sequence[int]) -> Iterator[tuple[int, range, int]]:
    """Yield the number of a task, spans of it that may run at once, and after how many reports the first is killed."""
    yield 0, range(1), 2
    for step, count in enumerate(units, 1):
        yield step, range(count), 5  # among the layers of the network
        yield step, range(count, count + 1), 1
    yield len(units) + 1, range(1), 3


def make_clip(animator: Animator, request: Request, workers: int, *, kills: bool = False) -> list[bytes]:
    """Run the tasks of a clip by so many processes; return its frames."""
    files = MotionFiles(request.files.animation)
    plan = animator.open_engine("musev").inspect(make_motion_request(request))
    animation = Animation("musev", "key", plan.units)

    def run(step: int, unit: int, report: ProgressCallback) -> None:
        animator.run(request, animation, step, (unit, unit + 1), report)

    for step, spans, reports in list_spans(plan.units):
        if kills:
            kill_within(partial(run, step, spans.start), reports)
            assert not files.is_done(animation, step, spans.start)
        fork_workers(workers, spans, partial(run, step, report=lambda _: None))
        assert all(files.is_done(animation, step, unit) for unit in spans)
    return [frame_path(files.frames, number).read_bytes() for number in range(plan.frames)]


def test_any_number_of_workers_and_kills_in_each_step_give_one_clip(
    animator: Animator, musev_master: Path, photo: Path, tmp_path: Path
) -> None:
    """One worker, two and four, and two of which one is killed in each step, make the same bytes."""
    clips = []
    for number, (workers, kills) in enumerate([(1, False), (2, True), (4, False)]):
        work = tmp_path / str(number)
        request = Request("preview", str(photo), "v.wav", str(work), "out", "cache", str(musev_master), motion=MOTION)
        request.files.photo.parent.mkdir(parents=True)
        request.files.photo.write_bytes(photo.read_bytes())
        clips.append(make_clip(animator, request, workers, kills=kills))
    assert clips[0] == clips[1] == clips[2]
    assert len(set(clips[0])) > 2
