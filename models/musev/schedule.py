"""The steps of denoising, as the folder of the base model says; between two steps all is in named tensors."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.types import EngineError

CLASSES = {
    "PNDMScheduler": "scheduling_pndm",
    "DDIMScheduler": "scheduling_ddim",
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
}
LCM = "LCMScheduler"
SPACINGS = ("leading", "linspace", "trailing")
FITTING_STEPS = (1, 4, 10, 20, 50)
"""Numbers of steps that are tried where a scheduler can't take those that were asked for."""
SINGLE = ("cur_sample", "cur_model_output")
"""What PNDM remembers of earlier steps beside the list `ets`: tensors, or nothing."""


def read_config(path: Path, name: str) -> dict[str, Any]:
    """Return the config of a scheduler. Raises EngineError weights_damaged, bad_option for one that isn't known."""
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
        kind = str(config["_class_name"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        hint = "put the file of the base model there"
        raise EngineError("weights_damaged", f"{name} is no config of a scheduler ({error})", hint) from error
    spacing = config.get("timestep_spacing", _default_spacing(kind))
    if kind not in CLASSES or spacing not in SPACINGS or config.get("prediction_type", "epsilon") != "epsilon":
        what = f"{kind}, {spacing}, {config.get('prediction_type', 'epsilon')}"
        hint = f"use a base model with one of {', '.join(CLASSES)} that predicts epsilon"
        raise EngineError("bad_option", f"the base model has a scheduler that MuseV can't follow: {what}", hint)
    return {**config, "timestep_spacing": spacing}


def check_steps(config: dict[str, Any], name: str, steps: int) -> None:
    """Raise EngineError weights_damaged for a config that no scheduler can be made of, bad_option for such steps.

    `name`: of the file that the config was read from.
    """
    if not (problem := find_problem(config, steps)):
        return
    if fitting := [one for one in FITTING_STEPS if not find_problem(config, one)]:
        near = min(fitting, key=lambda one: abs(one - steps))
        message = f"the scheduler of the base model can't take {steps} steps ({problem})"
        raise EngineError("bad_option", message, f"ask for motion.steps {near}, for example")
    message = f"{name} is no config of a scheduler ({problem})"
    raise EngineError("weights_damaged", message, "put the file of the base model there")


def find_problem(config: dict[str, Any], steps: int) -> str:
    """Return why there is no scheduler of that config that takes so many steps, "" if there is one."""
    try:
        schedule = Schedule(config, steps)
    except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError) as error:
        return str(error).partition("\n")[0][:120]
    most, numbers = float(config.get("num_train_timesteps", 1000)), [*schedule.timesteps, schedule.noise_scale]
    if not all(math.isfinite(one) and 0 <= one < max(most, 1) for one in numbers[:-1]) or not 0 < numbers[-1] < 1e4:
        return "its numbers are no times of a training"
    return ""


def choose_config(config: dict[str, Any], *, is_lcm: bool) -> dict[str, Any]:
    """Return the config that is followed: with LCM its own way, on the noise levels of the base model."""
    return {**config, "_class_name": LCM} if is_lcm else config


def describe_config(config: dict[str, Any]) -> str:
    """Return the kind and the spacing, for result.json; LCM has steps of its own."""
    if config["_class_name"] == LCM:
        return "LCM"
    return f"{config['_class_name'].removesuffix('Scheduler')} ({config['timestep_spacing']})"


def _default_spacing(kind: str) -> str:
    return "linspace" if kind == "EulerDiscreteScheduler" else "leading"


class Schedule:
    """The steps of one shot. Nothing is kept between calls: each step begins with the state of the one before."""

    def __init__(self, config: dict[str, Any], steps: int) -> None:
        from importlib import import_module

        kind = config["_class_name"]
        module = CLASSES.get(kind, "scheduling_lcm")
        cls = getattr(import_module(f"diffusers.schedulers.{module}"), kind)
        self._make_plain = lambda: cls.from_config(
            {key: value for key, value in config.items() if key != "_class_name"}
        )
        self._steps = steps
        self.draws_noise = kind == LCM
        scheduler = self._make_scheduler(0)
        self.timesteps: list[float] = [float(t) for t in scheduler.timesteps]
        self.noise_scale = float(scheduler.init_noise_sigma)

    def _make_scheduler(self, step: int) -> Any:
        """Return a scheduler of diffusers that stands before a step, and remembers none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy, for what diffusers does
            scheduler = self._make_plain()
            scheduler.set_timesteps(self._steps)
        scheduler.is_scale_input_called = True  # `scale` calls it on another instance
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(step)
        return scheduler

    def scale(self, latents: Tensor, step: int) -> Tensor:
        """Return what the network is shown of the latents in a step."""
        scheduler = self._make_scheduler(step)
        return scheduler.scale_model_input(latents, scheduler.timesteps[step])

    def advance(
        self, step: int, memory: dict[str, Tensor], noise: Tensor, latents: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the latents after a step, and what the next step has to know beside them.

        LCM adds new noise after each step but the last, which is drawn from the generator.
        """
        scheduler = self._make_scheduler(step)
        if hasattr(scheduler, "ets"):
            scheduler.counter = step
            scheduler.ets = [memory[name] for name in sorted(memory) if name.startswith("ets")]
            for name in SINGLE:
                setattr(scheduler, name, memory.get(name, getattr(scheduler, name)))
        drawn = {"generator": generator} if self.draws_noise else {}
        latents = scheduler.step(noise, scheduler.timesteps[step], latents, return_dict=False, **drawn)[0]
        return latents, self._remember(scheduler)

    @staticmethod
    def _remember(scheduler: Any) -> dict[str, Tensor]:
        named = {f"ets{number}": value for number, value in enumerate(getattr(scheduler, "ets", ()))}
        named |= {name: getattr(scheduler, name, None) for name in SINGLE}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
