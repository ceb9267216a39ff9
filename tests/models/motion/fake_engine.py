"""A motion engine without networks: windows of numbers that are added up, exact and the same on every machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from models.motion.prompts import check_brackets
from models.motion.sizes import choose_size
from models.motion.tensors import read_arrays, write_arrays, write_frame
from models.motion.types import MotionFiles, MotionPlan, MotionRequest
from models.types import EngineError, ProgressCallback

WINDOW, OVERLAP, FPS = 4, 1, 4
STEPS = 3
PIXEL_BYTES = 100
"""Memory that the engine says it needs for each pixel."""


def list_windows(frames: int) -> list[range]:
    """Return windows that overlap by a frame."""
    starts = range(0, max(1, frames - OVERLAP), WINDOW - OVERLAP)
    return [range(start, min(start + WINDOW, frames)) for start in starts]


class FakeMotionEngine:
    """A head that shifts: its state is one number a frame. `calls` counts what was asked of all instances."""

    calls: list[str] = []  # noqa: RUF012 - one list for all, cleared by the tests

    def __init__(self, device: str) -> None:
        self.device = device

    def inspect(self, request: MotionRequest) -> MotionPlan:
        for key in ("prompt", "negative_prompt"):
            check_brackets(getattr(request, key) or "", f"motion.{key}")
        photo = cv2.imread(request.photo)
        if photo is None:
            raise EngineError("avatar_unreadable", f"{request.photo_name} is no picture", "send another")
        height, width = photo.shape[:2]
        size = choose_size((width, height), request.size, 256, lambda w, h: w * h * PIXEL_BYTES, request.device_bytes)
        frames = max(2, round(request.seconds * FPS))
        steps = request.steps or STEPS
        asked = asdict(request)
        identity = {name: asked[name] for name in ("prompt", "seed", "variant", "guidance")}
        identity |= {"engine": "fake", "size": size, "frames": frames, "steps": steps}
        facts = {
            "engine": "fake",
            "weights": "none",
            "licence": "Apache-2.0",
            "scheduler": "none",
            "seed": request.seed,
        }
        units = (2 * len(list_windows(frames)),) * steps
        return MotionPlan(request, *size, frames, str(FPS), units, identity, facts=facts, memory_bytes=PIXEL_BYTES)

    def prepare(self, plan: MotionPlan, folder: Path, report: ProgressCallback) -> None:
        self.calls.append("prepare")
        photo = cv2.imread(plan.request.photo)
        assert photo is not None
        photo = cv2.resize(photo, (plan.width, plan.height))
        noise = np.random.default_rng(plan.request.seed).standard_normal(plan.frames).astype(np.float32)
        write_arrays(MotionFiles(folder).constants, {"photo": photo})
        write_arrays(MotionFiles(folder).state_path(0), {"shift": noise})
        report(1)

    def denoise(self, folder: Path, step: int, start: int, stop: int, report: ProgressCallback) -> None:
        files = MotionFiles(folder)
        shift, windows = read_arrays(files.state_path(step))["shift"], list_windows(files.read_plan().frames)
        for unit in range(start, stop):
            report(unit - start)
            if not files.unit_path(step, unit).exists():
                self.calls.append(f"denoise {step}/{unit}")
                part = shift[list(windows[unit // 2])]
                write_arrays(files.unit_path(step, unit), {"out": np.sin(part * (1 + unit % 2)) / np.float32(3)})
            report(unit + 1 - start)

    def advance(self, folder: Path, step: int, report: ProgressCallback) -> None:
        self.calls.append(f"advance {step}")
        files = MotionFiles(folder)
        shift, windows = read_arrays(files.state_path(step))["shift"], list_windows(files.read_plan().frames)
        total, count = np.zeros_like(shift), np.zeros_like(shift)
        for number, window in enumerate(windows):
            low, high = (read_arrays(files.unit_path(step, 2 * number + half))["out"] for half in (0, 1))
            total[list(window)] += low + np.float32(3.5) * (high - low)
            count[list(window)] += 1
        write_arrays(files.state_path(step + 1), {"shift": shift + total / count})
        shutil.rmtree(files.unit_path(step, 0).parent, ignore_errors=True)
        report(1)

    def decode(self, folder: Path, out: Path, report: ProgressCallback) -> None:
        self.calls.append("decode")
        files = MotionFiles(folder)
        plan, photo = files.read_plan(), read_arrays(files.constants)["photo"]
        for number, shift in enumerate(read_arrays(files.state_path(len(plan.units)))["shift"]):
            moved = np.array([[1, 0, 3 * np.sin(shift)], [0, 1, 2 * np.cos(shift)]], np.float32)
            frame = cv2.warpAffine(photo, moved, (plan.width, plan.height), borderMode=cv2.BORDER_REPLICATE)
            write_frame(out, number, np.asarray(frame, np.uint8))
            report(0)
