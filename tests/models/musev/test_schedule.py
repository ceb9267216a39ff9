"""The steps of denoising with the schedulers that base models have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from torch import Tensor

from models.musev.schedule import LCM, SPACINGS, Schedule, check_steps, describe_config, read_config
from models.types import EngineError
from tests.models.musev.tiny import SCHEDULER

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CLASSES = {cls.__name__: cls for cls in (PNDMScheduler, DDIMScheduler, EulerDiscreteScheduler, LCMScheduler)}


def config_of(kind: str, spacing: str) -> dict[str, Any]:
    own = {"PNDMScheduler": {"skip_prk_steps": True}, "DDIMScheduler": {"clip_sample": False}}.get(kind, {})
    return {**SCHEDULER, **own, "_class_name": kind, "timestep_spacing": spacing}


def predict(latents: Tensor, time: float) -> Tensor:
    """Stand in for a network."""
    return (latents * 0.3).sin() + time / 2000


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("kind", "own"),
    [
        *((kind, {}) for kind in CLASSES),
        ("PNDMScheduler", {"skip_prk_steps": False, "steps_offset": 0}),
        ("PNDMScheduler", {"set_alpha_to_one": True}),
        ("DDIMScheduler", {"set_alpha_to_one": False, "steps_offset": 0}),
        ("DDIMScheduler", {"clip_sample": True}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ],
)
def test_steps_by_themselves_end_where_the_scheduler_does(kind: str, own: dict[str, Any], spacing: str) -> None:
    """Each step begins with tensors alone, and comes out to the bit as in one go."""
    config = {**config_of(kind, spacing), **own}
    whole: Any = CLASSES[kind].from_config(config)
    whole.set_timesteps(6)
    drawn = {"generator": torch.Generator().manual_seed(8)} if kind == LCM else {}
    noise = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    wanted = noise * whole.init_noise_sigma
    for time in whole.timesteps:
        seen = predict(whole.scale_model_input(wanted, time), float(time))
        wanted = whole.step(seen, time, wanted, return_dict=False, **drawn)[0]
    memory: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(8)
    found = noise * Schedule(config, 6).noise_scale
    for step, time in enumerate(Schedule(config, 6).timesteps):
        schedule = Schedule(config, 6)
        seen = predict(schedule.scale(found, step), time)
        found, memory = schedule.advance(step, memory, seen, found, generator)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(("spacing", "first", "scale"), [("linspace", 999.0, 14.61), ("leading", 901.0, 8.45)])
def test_the_spacing_is_that_of_the_base_model(spacing: str, first: float, scale: float) -> None:
    """It decides the first step and the size of the noise."""
    schedule = Schedule(config_of("EulerDiscreteScheduler", spacing), 10)
    assert schedule.timesteps[0] == first
    assert schedule.noise_scale == pytest.approx(scale, abs=0.05)


def test_a_config_is_read_and_described(tmp_path: Path) -> None:
    """What result.json says is the kind and the spacing; those that can't be followed are refused by name."""
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**SCHEDULER, "timestep_spacing": "trailing"}))
    assert describe_config(read_config(path, "s")) == "EulerDiscrete (trailing)"
    path.write_text(json.dumps({"_class_name": "PNDMScheduler"}))
    assert describe_config(read_config(path, "s")) == "PNDM (leading)"
    for text, code in (
        ('{"_class_name": ["DDIMScheduler"]}', "bad_option"),
        ('{"_class_name": "DDIMScheduler", "beta_schedule": "none"}', "weights_damaged: .*no config"),
        ('{"_class_name": "DDIMScheduler", "beta_start": null}', "weights_damaged: .*no config"),
        ('{"_class_name": "DDIMScheduler", "num_train_timesteps": "x"}', "weights_damaged: .*no config"),
        ('{"_class_name": "DDIMScheduler", "num_train_timesteps": 0}', "weights_damaged: .*no config"),
        ('{"_class_name": "EulerDiscreteScheduler", "beta_start": 10, "beta_end": 20}', "weights_damaged: .*no times"),
        ('{"_class_name": "LCMScheduler"}', "bad_option: .*LCMScheduler"),
        ('{"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}', "bad_option: .*v_prediction"),
        ("{}", "weights_damaged"),
        ("[", "weights_damaged"),
    ):
        path.write_text(text)
        with pytest.raises(EngineError, match=code):
            check_steps(read_config(path, "s"), "s", 10)


def test_steps_that_a_scheduler_can_not_take_are_refused(tmp_path: Path) -> None:
    """PNDM needs four where it begins with steps of Runge and Kutta; a number that it can take is named."""
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**SCHEDULER, "_class_name": "PNDMScheduler"}))
    for steps, fitting in ((2, 4), (3, 4)):
        with pytest.raises(EngineError, match=f"bad_option: .*can't take {steps} steps") as caught:
            check_steps(read_config(path, "s"), "s", steps)
        assert f"motion.steps {fitting}," in caught.value.hint
    check_steps(read_config(path, "s"), "s", 4)
