"""The order of the checks on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from agent.selftest import judge
from agent.selftest.judge import KEPT_LIMIT_BYTES, judge_failure
from agent.selftest.rows import FORMS, RUN_AGAIN, Row
from agent.selftest.workers import WORKERS, DeviceWorkers, Target
from gpu_pool.types import Done, Failed

Figures = Mapping[str, Any]
PRECISIONS = {"cuda": ("fp32", "fp16"), "cpu": ("fp32",)}
"""Those that every device of a kind computes; where there is bf16, it comes last."""


def examine_device(workers: DeviceWorkers, target: Target, folders: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows of a device, each as soon as it is known.

    `folders`: `models_dir` with the weights, `cache` for compiled kernels. Nothing follows a device that can't compute.
    """
    return _Examination(workers, target, folders).examine()


class _Examination:
    def __init__(self, workers: DeviceWorkers, target: Target, folders: Mapping[str, str]) -> None:
        self._workers, self._target, self._kind = workers, target, target.kind
        self._folders = dict(folders)
        self._bf16 = False

    def examine(self) -> Iterator[Row]:
        row = self._check("device", "device", self._judge_device)
        yield row
        if row.verdict == "bad":
            yield Row("others", "note", "left out: no other check can run", RUN_AGAIN)
            return
        yield from self._check_networks()
        yield self._check("copies", "copies", lambda figures: judge.judge_copies(figures, self._kind))
        yield from self._check_encoders()
        yield from self._check_speed()
        yield self._check("weights", "precisions", lambda figures: judge.judge_precisions(figures, self._kind))
        yield self._check("batch sizes", "batches", lambda figures: judge.judge_batches(figures, self._kind))
        yield self._check(FORMS, "forms", lambda figures: judge.judge_forms(figures, self._kind))
        yield self._check("compiled", "compiled", lambda figures: judge.judge_compiled(figures, self._kind))
        yield self._check_two_workers()
        yield self._check_kill()

    def _ask(self, check: str, **more: Any) -> Done | Failed:
        return self._workers.ask({"check": check, **self._folders, **more})[0]

    def _check(self, name: str, check: str, build_row: Callable[[Figures], Row], **more: Any) -> Row:
        return judge_end(name, self._ask(check, **more), build_row)

    def _judge_device(self, figures: Figures) -> Row:
        self._bf16 = bool(figures.get("bf16"))
        return judge.judge_device(figures, self._target.card)

    def _check_networks(self) -> Iterator[Row]:
        for precision in PRECISIONS[self._kind] + (("bf16",) if self._bf16 else ()):
            name = f"networks {precision}"
            yield self._check(name, "networks", partial(self._judge_networks, name, precision), precision=precision)
        name = "face networks"
        yield self._check(name, name, partial(self._judge_networks, name, "fp32"))

    def _judge_networks(self, name: str, precision: str, figures: Figures) -> Row:
        return judge.judge_networks(name, figures, precision, self._kind)

    def _check_encoders(self) -> Iterator[Row]:
        end = self._ask("encoders")
        if isinstance(end, Failed):
            yield judge_failure("encoders", end)
        else:
            yield from judge.judge_encoders(end.result, self._kind)

    def _check_speed(self) -> Iterator[Row]:
        end = self._ask("speed")
        yield judge_end("speed", end, judge.judge_speed)
        if isinstance(end, Done):
            yield judge.judge_memory(end.result, self._kind)

    def _check_two_workers(self) -> Row:
        name, payload = "two workers", {"check": "faces", **self._folders}
        ends = self._workers.ask(payload)
        if isinstance(ends[0], Done):
            ends += self._workers.ask(payload, WORKERS)
        if failed := next((end for end in ends if isinstance(end, Failed)), None):
            return judge_failure(name, failed)
        alone, *together = (end.result for end in ends if isinstance(end, Done))
        return judge.judge_workers(alone, together)

    def _check_kill(self) -> Row:
        end = self._ask("hold")
        if isinstance(end, Failed):
            return judge_failure("kill -9", end)
        held_bytes = int(end.result["held_bytes"])
        kept_bytes, seconds = self._workers.kill(held_bytes, KEPT_LIMIT_BYTES)
        return judge.judge_freed(held_bytes, kept_bytes, seconds, self._kind)


def judge_end(name: str, end: Done | Failed, build_row: Callable[[Figures], Row]) -> Row:
    """Return the row of a check that has ended."""
    if isinstance(end, Failed):
        return judge_failure(name, end)
    return build_row(end.result)
