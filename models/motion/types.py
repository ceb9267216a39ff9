"""The interface of engines that make a clip of a moving person from one photo. Standard library only.

The work of a clip is cut into steps, and each step into units that may run in any order on any worker: an engine's unit
is, for example, half of the guidance of one window of frames. All that passes from call to call is in one folder.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from models.types import Animation, ProgressCallback


@dataclass(frozen=True, slots=True)
class MotionRequest:
    """What a job asks of a motion engine.

    photo            path of the photo, and `photo_name` as its user calls it
    models_dir       folder of all weights; `base` names a folder of a base model, "": the engine's default
    prompt           None: the engine's own for a calm speaker; so is `negative_prompt`
    seconds          of the clip at its native rate
    size             the shorter side in pixels, a multiple of 64; None: the engine's default, or less where
                     `device_bytes` has no room for it
    variant          which of the engine's published networks, "": its default
    guidance, steps  None: the engine's default
    device_bytes     memory of the largest device that may run it; 0: a processor, which any size fits
    options          the engine's own, such as `motion_speed`
    """

    photo: str
    photo_name: str
    models_dir: str
    prompt: str | None = None
    negative_prompt: str | None = None
    seconds: float = 6.0
    seed: int = 1
    size: int | None = None
    variant: str = ""
    guidance: float | None = None
    steps: int | None = None
    base: str = ""
    device_bytes: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MotionPlan:
    """How an engine makes the clip of a request.

    width, height   of the clip in pixels
    frames, fps     what `decode` writes, before interpolation; the rate is exact, as "4" or "30000/1001"
    units           number of units in each step, in the order of the steps
    identity        all that decides the frames beside the content of the photo: prompt, seed, size, weights ... (JSON)
    memory_bytes    device memory that a worker needs for a unit, the networks included; 0: unknown
    facts           for result.json: engine, weights, licence, scheduler, prompt ... (JSON)
    notes           sentences for result.json
    """

    request: MotionRequest
    width: int
    height: int
    frames: int
    fps: str
    units: tuple[int, ...]
    identity: dict[str, Any]
    memory_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json_text(cls, text: str) -> MotionPlan:
        data = json.loads(text)
        request = MotionRequest(**data["request"])
        return cls(**{**data, "request": request, "units": tuple(data["units"]), "notes": tuple(data["notes"])})


@dataclass(frozen=True, slots=True)
class MotionFiles:
    """The paths inside the folder of a clip that is being made. Each file but those of `frames` appears by rename.

    The step after the last has a state, too: that which `decode` reads.
    """

    folder: Path

    @property
    def plan(self) -> Path:
        """The plan as JSON, which is there before `prepare` is called."""
        return self.folder / "plan.json"

    @property
    def stamp(self) -> Path:
        """Which weights there were when the clip was planned; on the daemon's machine alone."""
        return self.folder / "weights.stamp"

    @property
    def constants(self) -> Path:
        """What does not change from step to step, such as the encoded photo and prompt."""
        return self.folder / "constants.safetensors"

    @property
    def frames(self) -> Path:
        """The folder of the decoded frames; complete when it exists."""
        return self.folder / "frames"

    def state_path(self, step: int) -> Path:
        """Return what a step begins with."""
        return self.folder / f"state-{step:04d}.safetensors"

    def kept_path(self, step: int) -> Path:
        """Return what `decode` reads beside the last state, where a step has such a thing."""
        return self.folder / f"kept-{step:04d}.safetensors"

    def unit_path(self, step: int, unit: int) -> Path:
        """Return the output of a unit of a step."""
        return self.folder / f"step-{step:04d}" / f"unit-{unit:05d}.safetensors"

    def is_done(self, animation: Animation, task: int, unit: int) -> bool:
        """Whether a span of a task of `Animation.tasks` need not be run again; the last one always is."""
        steps = len(animation.units)
        if task > steps or self.frames.exists():
            return task <= steps + 1 and self.frames.exists()
        if any(self.state_path(step).exists() for step in range(task, steps + 1)):
            return True
        return task > 0 and self.unit_path(task - 1, unit).exists()

    def remove_step(self, step: int) -> None:
        """Remove what a step before the present one has left; the state after it is on disk."""
        shutil.rmtree(self.unit_path(step, 0).parent, ignore_errors=True)
        self.state_path(step).unlink(missing_ok=True)

    def read_plan(self) -> MotionPlan:
        return MotionPlan.from_json_text(self.plan.read_text(encoding="utf-8"))


def frame_path(folder: Path, number: int) -> Path:
    """Return the picture of a frame among those that `decode` writes, counted from 0."""
    return folder / f"{number:06d}.png"


class MotionEngine(Protocol):
    """A way to move a person in a photo. A worker keeps one instance for all jobs; it is made with the device's id.

    A clip shows the middle of its photo: the largest part with the shape of the clip.

    The networks are loaded by the first call that needs them and stay. `report` takes the number of finished units of
    the call (0 for as long as none is); it is called often, because it raises to stop a cancelled call and keeps the
    worker from being taken for stalled. Calls may come again after a crash, and write the same bytes then.
    """

    def inspect(self, request: MotionRequest) -> MotionPlan:
        """Check the request and what is installed, and plan the clip. Loads no network.

        Raises EngineError motion_size, bad_prompt, bad_option, weights_missing, weights_damaged, weights_unsafe.
        """
        ...

    def prepare(self, plan: MotionPlan, folder: Path, report: ProgressCallback) -> None:
        """Encode photo and prompt: write `constants`, then the state of step 0, which says that it is done."""
        ...

    def denoise(self, folder: Path, step: int, start: int, stop: int, report: ProgressCallback) -> None:
        """Write the outputs of units [start, stop) of a step. Each depends on the state of the step alone."""
        ...

    def advance(self, folder: Path, step: int, report: ProgressCallback) -> None:
        """Add the outputs of all units in a fixed order, apply the scheduler, write the state of the next step.

        What only `decode` reads goes into `MotionFiles.kept_path` before. Other machines get these files and no others.
        """
        ...

    def decode(self, folder: Path, out: Path, report: ProgressCallback) -> None:
        """Write the pictures of all frames of the clip into the empty folder `out`; see `frame_path`."""
        ...
