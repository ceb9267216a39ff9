"""Convolutions in 8 bits as PyTorch computes them in float32, for networks that are too wide to be exported here.

Values and kernels are rounded as `models.musetalk.engines.qdq` has them rounded, over the same form of the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.musetalk.engines.calibration import Networks, Sample
from models.musetalk.engines.onnx_export import FORM, STAGE
from models.musetalk.engines.plan import EnginePlan
from models.musetalk.engines.qdq import LARGEST, LEAST_SCALE, Bits
from models.musetalk.engines.stages import choose_stages
from models.musetalk.inpainting.forms import ShuffledUpsample, form_networks
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.inpainting.modules import contiguous_layout


def round_values(values: Tensor, most: Tensor, bits: Bits) -> Tensor:
    """Round to what 8 bits hold where `most` is the largest absolute value, in float32."""
    scale = (most / LARGEST[bits]).clamp(min=LEAST_SCALE)
    steps = (values / scale).clamp(-LARGEST[bits], LARGEST[bits])
    return scale * (steps.round() if bits == "int8" else steps.to(torch.float8_e4m3fn).float())


def round_kernel(weight: Tensor, bits: Bits) -> Tensor:
    """Round an (out, in, h, w) kernel, each filter by its own scale."""
    return round_values(weight, weight.abs().amax((1, 2, 3), keepdim=True), bits)


@contextmanager
def run_in_8_bits(ranges: Mapping[Any, Tensor], bits: Bits) -> Iterator[None]:
    """Round the kernels of convolutions and what they see, whose largest absolute value is given."""
    exact = {module: module.weight for module in ranges}

    def round_input(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (round_values(given[0], ranges[module], bits), *given[1:])

    hooks = [module.register_forward_pre_hook(round_input) for module in ranges]
    for module, weight in exact.items():
        module.weight = nn.Parameter(round_kernel(weight, bits), requires_grad=False)
    yield
    for module, weight in exact.items():
        module.weight = weight
    for hook in hooks:
        hook.remove()


class Emulation:
    """Tries the stages of networks in float32 that an inpainter has."""

    def __init__(self, inpainter: Inpainter, sample: Sample, plan: EnginePlan) -> None:
        made = dict(zip(("unet", "decode"), form_networks(*inpainter.networks, FORM, contiguous_layout), strict=True))
        self._networks: dict[str, Any] = {name: made[name] for name in plan.batches}
        self._sample, self._plan = sample, plan
        self._stages: dict[str, list[Any]] = {}
        for network, net in self._networks.items():
            for name, module in net.named_modules():
                if isinstance(module, nn.Conv2d | ShuffledUpsample):
                    found = STAGE.search(f"{name}.")
                    self._stages.setdefault(f"{network} {found[1] if found else 'other'}", []).append(module)
        self._ranges: dict[nn.Module, Tensor] = {}

    @torch.no_grad()
    def choose(self) -> EnginePlan:
        """Return the plan with the stages whose pictures pass the gate, alone and together."""
        self._find_ranges()
        verdict = choose_stages(self._stages, self._paint, self._sample.wanted)
        precisions = {name: self._plan.bits if name in verdict.kept else self._plan.wide for name in self._stages}
        found = {name: asdict(one) for name, one in verdict.alone.items()}
        both = {"together": asdict(verdict.together)} if verdict.together else {}
        return replace(self._plan, stages=precisions, verdict=found | both)

    def _find_ranges(self) -> None:
        def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            most = given[0].abs().max()
            self._ranges[module] = torch.maximum(most, self._ranges.get(module, most))

        hooks = [one.register_forward_pre_hook(note) for stage in self._stages.values() for one in stage]
        self._sample.paint(self._networks)
        for hook in hooks:
            hook.remove()

    def _paint(self, kept: tuple[str, ...]) -> Tensor:
        networks: Networks = {name: self._networks[name] for name in {stage.partition(" ")[0] for stage in kept}}
        ranges = {module: self._ranges[module] for stage in kept for module in self._stages[stage]}
        with run_in_8_bits(ranges, self._plan.bits):
            return self._sample.paint(networks)
