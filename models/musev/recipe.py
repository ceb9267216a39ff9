"""What decides a clip, as a plan keeps it: from options and files to numbers. Loads no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from models.motion.types import MotionPlan, MotionRequest
from models.musev.pictures import CROPS
from models.musev.weights.index import VARIANTS, Selection, default_variant, select_base
from models.musev.windows import OVERLAP, WINDOW, cut_windows
from models.types import EngineError

FPS = 4
"""Frames a second of a clip before interpolation. The networks know the rate only as `motion_speed`."""
STEPS, GUIDANCE, MOTION_SPEED = 10, 3.5, 4.0
LCM_STEPS, LCM_GUIDANCE = 4, 1.0
MOST_LCM_STEPS = 50
"""Of those that the changes were trained for."""
LONGEST_SHOT = 96
"""Frames that are denoised together; a longer clip goes on from the last frame of the shot before."""
PRECISIONS = ("auto", "fp16", "bf16", "fp32")
REFUSED = {
    "musev_referencenet_pose": "the variant musev_referencenet_pose follows the pose of a video, which is not built",
}


@dataclass(frozen=True, slots=True)
class Tuning:
    """The options that a job may give beside those of all engines.

    motion_speed   how far apart frames are: 1 is slow, 8 is what the networks were trained with
    picture_scale  weight of the picture beside the words, 0 to 2
    window         frames that the network sees together, 4 to 16; `overlap` is how many two windows share
    shot_frames    the longest shot, 4 to 96
    crop           "centre", or "reference" for that of the original program
    precision      "auto" is fp16 on a card and fp32 on a processor
    lcm            with the LCM-LoRA: 4 steps without guidance, instead of 10 with it
    """

    motion_speed: float = MOTION_SPEED
    picture_scale: float = 1.0
    window: int = WINDOW
    overlap: int = OVERLAP
    shot_frames: int = LONGEST_SHOT
    crop: str = CROPS[0]
    precision: str = PRECISIONS[0]
    lcm: bool = False


RANGES: Mapping[str, tuple[float, float]] = {
    "motion_speed": (0, 32),
    "picture_scale": (0, 2),
    "window": (4, 16),
    "overlap": (0, 8),
    "shot_frames": (4, LONGEST_SHOT),
}
CHOICES: Mapping[str, tuple[str | bool, ...]] = {"crop": CROPS, "precision": PRECISIONS, "lcm": (False, True)}


def read_tuning(options: Mapping[str, Any]) -> Tuning:
    """Return the checked options. Raises EngineError bad_option."""
    known = asdict(Tuning())
    for name, value in options.items():
        if name not in known:
            hint = f"these are known: {', '.join(known)}"
            raise EngineError("bad_option", REFUSED.get(name, f"MuseV has no option {name}"), hint)
        known[name] = check_option(name, value)
    if known["overlap"] * 2 > known["window"]:
        message = f"overlap {known['overlap']} is more than half of window {known['window']}"
        raise EngineError("bad_option", message, "give a smaller overlap, or a larger window")
    return Tuning(**known)


def check_option(name: str, value: Any) -> Any:
    if name in CHOICES:
        if any(value is one or (isinstance(value, str) and value == one) for one in CHOICES[name]):
            return value
        allowed = ", ".join(json.dumps(one).strip('"') for one in CHOICES[name])
        raise EngineError("bad_option", f"motion.options.{name} can't be {value!r}", f"give one of {allowed}")
    low, high = RANGES[name]
    whole = name in ("window", "overlap", "shot_frames")
    is_number = isinstance(value, int) or (isinstance(value, float) and not whole)
    if isinstance(value, bool) or not is_number or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise EngineError(
            "bad_option", f"motion.options.{name} can't be {value!r}", f"give {kind} from {low:g} to {high:g}"
        )
    return value if whole else float(value)


def select_weights(request: MotionRequest, tuning: Tuning) -> Selection:
    """Return variant and base of a request. Raises EngineError bad_option."""
    variant = request.variant or default_variant(Path(request.models_dir))
    if variant not in VARIANTS:
        message = REFUSED.get(variant, f'MuseV has no variant "{variant}"')
        raise EngineError("bad_option", message, f"choose the variant {' or '.join(VARIANTS)}")
    return Selection(variant, select_base(request.base), tuning.lcm)


def choose_steps(request: MotionRequest, tuning: Tuning) -> tuple[int, float]:
    """Return the number of steps and the guidance. Raises EngineError bad_option."""
    steps, guidance = (LCM_STEPS, LCM_GUIDANCE) if tuning.lcm else (STEPS, GUIDANCE)
    steps, guidance = request.steps or steps, guidance if request.guidance is None else float(request.guidance)
    if tuning.lcm and steps > MOST_LCM_STEPS:
        message = f"motion.steps can't be {steps} with motion.options.lcm"
        raise EngineError("bad_option", message, f"give at most {MOST_LCM_STEPS}; 4 to 8 are usual")
    return steps, guidance


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the frames beside the photo.

    frames       of the clip, with the photo as the first one
    steps        asked for; some schedulers take more, see `Schedule.timesteps`
    scheduler    config of the base model's
    fingerprint  of the weights
    """

    variant: str
    base: str
    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    scheduler: dict[str, Any]
    fingerprint: str
    tuning: Tuning

    def to_identity(self) -> dict[str, Any]:
        return {"engine": "musev", **asdict(self)}

    @classmethod
    def of_plan(cls, plan: MotionPlan) -> Recipe:
        data = {key: value for key, value in plan.identity.items() if key != "engine"}
        return cls(**{**data, "tuning": Tuning(**data["tuning"])})

    @property
    def selection(self) -> Selection:
        return Selection(self.variant, self.base, self.tuning.lcm)

    @property
    def shots(self) -> int:
        return max(1, ceil((self.frames - 1) / self.tuning.shot_frames))

    @property
    def shot_frames(self) -> int:
        """Frames of each shot, without the one that it begins with."""
        return ceil((self.frames - 1) / self.shots)

    @property
    def windows(self) -> list[range]:
        return cut_windows(self.shot_frames, self.tuning.window, self.tuning.overlap)

    @property
    def halves(self) -> tuple[int, ...]:
        """Which halves of guidance are predicted: 0 without the prompt, 1 with it; that alone where nothing guides."""
        return (0, 1) if self.guidance > 1 else (1,)

    @property
    def units(self) -> int:
        return len(self.windows) * len(self.halves)

    def unit_of(self, window: int, half: int) -> int:
        return window * len(self.halves) + self.halves.index(half)

    def open_unit(self, unit: int) -> tuple[range, int]:
        """Return the window and the half that a unit predicts."""
        window, half = divmod(unit, len(self.halves))
        return self.windows[window], self.halves[half]


def count_frames(seconds: float) -> int:
    """Return the frames of a clip of that length, the photo included."""
    return max(2, round(seconds * FPS) + 1)
