"""Run one step of a pipeline at a time: its scheduler hands out one time and keeps what the network predicts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from models.arrays import F32

Arrays = dict[str, np.ndarray[Any, Any]]
SCALARS = "scalars.json"


class OneStep:
    """A scheduler that stands in for another: it has the time of one step, or none, and changes no sample.

    `output` is what the pipeline predicted, with its guidance.
    """

    def __init__(self, inner: Any, step: int | None, *, is_scaled: bool) -> None:
        """`is_scaled`: the latents are those of an earlier call, and not scaled as the first noise is."""
        self._inner, self._step, self._is_scaled = inner, step, is_scaled
        self.timesteps = torch.empty(0)
        self.output: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def init_noise_sigma(self) -> Any:
        return 1.0 if self._is_scaled else self._inner.init_noise_sigma

    def set_timesteps(self, *arguments: Any, **more: Any) -> None:
        self._inner.set_timesteps(*arguments, **more)
        whole = self._inner.timesteps
        self.timesteps = whole[:0] if self._step is None else whole[self._step : self._step + 1]

    def step(
        self, predicted: torch.Tensor, _: Any, sample: torch.Tensor, *, return_dict: bool = True, **__: Any
    ) -> Any:
        self.output = predicted
        return SimpleNamespace(prev_sample=sample) if return_dict else (sample,)


def advance_scheduler(scheduler: Any, steps: int, step: int, state: Arrays, predicted: F32) -> Arrays:
    """Apply step number `step` of `steps` to the state's "latents"; return the next state.

    The state also holds what the scheduler remembers from step to step.
    """
    scheduler.set_timesteps(steps, device="cpu")
    restore_scheduler(scheduler, state)
    latents = torch.from_numpy(state["latents"])
    with torch.inference_mode():
        moved = scheduler.step(torch.from_numpy(predicted), scheduler.timesteps[step], latents, return_dict=False)[0]
    return {"latents": moved.to(torch.float32).numpy(), **save_scheduler(scheduler)}


def save_scheduler(scheduler: Any) -> Arrays:
    """Return all that a scheduler holds beside its configuration, as arrays."""
    scalars: dict[str, Any] = {}
    arrays: Arrays = {}
    for name, value in vars(scheduler).items():
        if value is None or isinstance(value, bool | int | float | str):
            scalars[name] = value
        elif isinstance(value, torch.Tensor):
            arrays[f"self.{name}"] = value.cpu().numpy()
        elif isinstance(value, list) and all(item is None or isinstance(item, torch.Tensor) for item in value):
            scalars[f"{name}[]"] = [item is not None for item in value]
            arrays |= {f"self.{name}.{n}": item.cpu().numpy() for n, item in enumerate(value) if item is not None}
    arrays[SCALARS] = np.frombuffer(json.dumps(scalars).encode(), np.uint8)
    return arrays


def restore_scheduler(scheduler: Any, arrays: Arrays) -> None:
    """Give a scheduler back what `save_scheduler` returned; nothing before the first step."""
    if SCALARS not in arrays:
        return
    for name, value in json.loads(arrays[SCALARS].tobytes()).items():
        if name.endswith("[]"):
            there = [
                torch.from_numpy(arrays[f"self.{name[:-2]}.{n}"].copy()) if is_there else None
                for n, is_there in enumerate(value)
            ]
            setattr(scheduler, name[:-2], there)
        else:
            setattr(scheduler, name, value)
    for name, array in arrays.items():
        attribute = name.removeprefix("self.")
        if name.startswith("self.") and "." not in attribute:
            setattr(scheduler, attribute, torch.from_numpy(array.copy()))
