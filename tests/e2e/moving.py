"""A daemon with the fake motion engine: `python -m tests.e2e.moving --config FILE` is `musedrop run` with it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.handler import Handler
from models.handler import open_handler as open_real_handler
from models.motion.catalog import MOTION_ENGINES, WEIGHT_CHECKS
from models.motion.types import MotionPlan
from models.types import ProgressCallback
from tests.e2e import noop
from tests.models.motion.fake_engine import FakeMotionEngine


class SlowMotionEngine(FakeMotionEngine):
    """The fake engine, which writes down what it makes, and waits where the test says so."""

    def prepare(self, plan: MotionPlan, folder: Path, report: ProgressCallback) -> None:
        note(folder, "prepare", report)
        super().prepare(plan, folder, report)

    def denoise(self, folder: Path, step: int, start: int, stop: int, report: ProgressCallback) -> None:
        note(folder, f"{step}/{start}", report)
        super().denoise(folder, step, start, stop, report)

    def advance(self, folder: Path, step: int, report: ProgressCallback) -> None:
        note(folder, f"{step}/advance", report)
        super().advance(folder, step, report)

    def decode(self, folder: Path, out: Path, report: ProgressCallback) -> None:
        note(folder, "decode", report)
        super().decode(folder, out, report)


def note(folder: Path, what: str, report: ProgressCallback) -> None:
    """Write a call into `cache/units`; wait before one that the file `cache/hold` names, until that is another."""
    cache, pause = folder.parents[2] / "cache", threading.Event()
    while (cache / "hold").exists() and (cache / "hold").read_text() == what:
        (cache / "held").touch()
        report(0)
        pause.wait(0.01)
    with (cache / "units").open("a") as file:
        file.write(what + "\n")


def register() -> None:
    factory = "tests.e2e.moving:SlowMotionEngine"
    MOTION_ENGINES["diffusers"] = replace(MOTION_ENGINES["diffusers"], factory=factory, packages=())
    WEIGHT_CHECKS.clear()


def open_handler(device: str, options: dict[str, Any]) -> Handler:
    register()
    return open_real_handler(device, options)


if __name__ == "__main__":
    register()
    noop.HANDLER = "tests.e2e.moving:open_handler"
    noop.main()
