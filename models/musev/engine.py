"""The MuseV engine: from one photo to a clip of the person who moves; see models.motion.types.MotionEngine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.motion.threads import use_one_thread
from models.motion.types import MotionFiles, MotionPlan, MotionRequest
from models.musev.planning import make_plan
from models.types import EngineError, ProgressCallback

if TYPE_CHECKING:
    from torch import Tensor

    from models.musev.networks import Networks


class MuseVEngine:
    """A way to move a person in a photo; `device` is "cpu:0", or the id of the only card that this process sees."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._networks: Networks | None = None

    def inspect(self, request: MotionRequest) -> MotionPlan:
        """Check request, photo and weights, and plan the clip. Loads no network. Raises EngineError."""
        return make_plan(request)

    @use_one_thread()
    def prepare(self, plan: MotionPlan, folder: Path, report: ProgressCallback) -> None:
        """Encode photo and prompts, draw the noise of the first shot."""
        from models.musev.denoising import begin_shot

        files, networks = MotionFiles(folder), self.open_networks(plan)
        report(0)
        encoded, given = networks.encode(plan.request.photo, lambda: report(0))
        write_tensors(files.constants, encoded.to_tensors())
        write_tensors(files.state_path(0), begin_shot(networks.recipe, networks.schedule, given).to_tensors())
        report(1)

    @use_one_thread()
    def denoise(self, folder: Path, step: int, start: int, stop: int, report: ProgressCallback) -> None:
        """Write the outputs of units [start, stop): each the noise that one half sees in one window."""
        from models.musev.denoising import ShotState, predict_unit

        files = MotionFiles(folder)
        networks = self.open_networks(files.read_plan())
        inner = step % len(networks.schedule.timesteps)
        state = ShotState.of_tensors(read_tensors(files.state_path(step)))
        for unit in range(start, stop):
            report(unit - start)
            if not files.unit_path(step, unit).exists():
                with networks.telling(lambda unit=unit: report(unit - start)):  # type: ignore[misc]
                    encoded = networks.read_encoded(files.constants)
                    noise = predict_unit(networks.unet, networks.recipe, networks.schedule, inner, state, encoded, unit)
                write_tensors(files.unit_path(step, unit), {"noise": check_finite(noise)})
            report(unit + 1 - start)

    @use_one_thread()
    def advance(self, folder: Path, step: int, report: ProgressCallback) -> None:
        """Add the outputs of a step; after the last one of a shot, begin the next from its last frame."""
        from models.musev.denoising import ShotState, advance_shot, begin_shot

        files = MotionFiles(folder)
        recipe, schedule = read_recipe(files.read_plan())
        shot, inner = divmod(step, len(schedule.timesteps))
        state = ShotState.of_tensors(read_tensors(files.state_path(step)))
        report(0)
        outputs = {unit: read_tensors(files.unit_path(step, unit))["noise"] for unit in range(recipe.units)}
        state = advance_shot(recipe, schedule, inner, state, outputs)
        if inner + 1 == len(schedule.timesteps):
            write_tensors(files.kept_path(step), {"latents": state.latents, "given": state.given})
            if shot + 1 < recipe.shots:
                state = begin_shot(recipe, schedule, state.latents[:, :, -1:].clone(), state.random)
        write_tensors(files.state_path(step + 1), state.to_tensors())
        report(1)

    @use_one_thread()
    def decode(self, folder: Path, out: Path, report: ProgressCallback) -> None:
        """Write the frames of all shots, the photo first."""
        from models.motion.tensors import write_frame

        plan = MotionFiles(folder).read_plan()
        networks, number = self.open_networks(plan), 0
        for shot in range(networks.recipe.shots):
            stored = read_tensors(shot_path(folder, shot, len(networks.schedule.timesteps)))
            for latents in ([stored["given"]] if shot == 0 else []) + list(stored["latents"].split(1, dim=2)):
                report(number)
                if number < plan.frames:
                    write_frame(out, number, networks.decode(latents))
                number += 1
        report(plan.frames)

    def open_networks(self, plan: MotionPlan) -> Networks:
        """Return the networks for a plan: those of the plan before, if they are the same."""
        from models.musev.networks import Networks, adapt_networks

        self._networks = adapt_networks(self._networks, plan)
        if self._networks is None:
            self._networks = Networks(plan, self.device)
        return self._networks


def read_recipe(plan: MotionPlan) -> tuple[Any, Any]:
    from models.musev.recipe import Recipe
    from models.musev.schedule import Schedule

    recipe = Recipe.of_plan(plan)
    return recipe, Schedule(recipe.scheduler, recipe.steps)


def shot_path(folder: Path, shot: int, steps: int) -> Path:
    """Return the latents of a finished shot of so many steps, which wait to be decoded."""
    return MotionFiles(folder).kept_path((shot + 1) * steps - 1)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by rename; bfloat16, which arrays have not, as float32."""
    import torch

    from models.motion.tensors import write_arrays

    wide = {name: one.float() if one.dtype == torch.bfloat16 else one for name, one in tensors.items()}
    write_arrays(path, {name: one.detach().cpu().numpy() for name, one in wide.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    import torch

    from models.motion.tensors import read_arrays

    return {name: torch.from_numpy(array.copy()) for name, array in read_arrays(path).items()}


def check_finite(noise: Tensor) -> Tensor:
    """Return the noise. Raises EngineError bad_option where the precision was too small for it."""
    if not noise.isfinite().all():
        message = "the networks computed numbers beyond the range of their precision"
        raise EngineError("bad_option", message, 'give motion.options.precision "bf16" or "fp32"')
    return noise
