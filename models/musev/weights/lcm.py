"""The LCM-LoRA, low-rank changes with which a base model needs a few steps and no guidance: added to its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints.states import State, damaged_error, read_state
from models.musev.weights.index import LCM_FILE, repair_hint

KOHYA = "lora_unet_"
"""How names of layers begin, with an underscore for each dot, in the published file; "unet." is that of diffusers."""
NAME = re.compile(r"(.+?)\.(lora_down\.weight|lora_up\.weight|alpha|lora_A\.weight|lora_B\.weight)")
ROLES = {"lora_A.weight": "down", "lora_down.weight": "down", "lora_B.weight": "up", "lora_up.weight": "up"}


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of a layer: up (out, r, 1, 1) times down (in dimensions with r in front), as far as `scale` says."""

    up: Tensor
    down: Tensor
    scale: float

    def change(self, weight: Tensor, device: torch.device) -> Tensor:
        """Return the changed weight, float32 on the device."""
        up, down = (one.to(device, torch.float32).flatten(1) for one in (self.up, self.down))
        return weight.to(device, torch.float32) + self.scale * (up @ down).view(weight.shape)

    def fits(self, weight: Tensor) -> bool:
        outputs, rank = weight.shape[0], self.down.shape[0]
        sizes = (self.up.numel(), self.down.numel())
        return self.up.shape[0] == outputs and sizes == (outputs * rank, rank * weight[0].numel())


def merge_lcm(
    root: Path, drawing: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a base model's UNet that the LCM-LoRA in the models folder changes.

    Raises EngineError weights_damaged unless each of its changes is one of this network.
    """
    for name, change in read_lcm(root, drawing).items():
        yield name, change.change(drawing[name], device).to(dtype)


def read_lcm(root: Path, drawing: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """Return the changes by the weights that they change. Raises EngineError weights_damaged."""
    layers = group_layers(read_state(root / LCM_FILE, LCM_FILE, repair_hint(LCM_FILE)))
    known = {f"{KOHYA}{name.removesuffix('.weight').replace('.', '_')}": name for name in drawing}
    known |= {f"unet.{name.removesuffix('.weight')}": name for name in drawing}
    found = dict[str, LowRank]()
    for layer, tensors in layers.items():
        name = known.get(layer, "")
        if not name.endswith(".weight") or not {"up", "down"} <= tensors.keys():
            raise damaged_error(LCM_FILE, f"has no change of this network in {layer[:80]}", repair_hint(LCM_FILE))
        rank = tensors["down"].shape[0]
        alpha = tensors["alpha"].item() if "alpha" in tensors else rank
        found[name] = LowRank(tensors["up"], tensors["down"], alpha / rank)
        if not found[name].fits(drawing[name]):
            raise damaged_error(LCM_FILE, f"has {layer[:80]} in another shape", repair_hint(LCM_FILE))
    return found


def group_layers(state: State) -> dict[str, dict[str, Tensor]]:
    """Return up, down and alpha of each layer. Raises EngineError weights_damaged for other tensors."""
    layers = dict[str, dict[str, Tensor]]()
    for name, tensor in state.items():
        matched = NAME.fullmatch(name)
        role = ROLES.get(matched[2], matched[2]) if matched else ""
        is_usable = tensor.numel() == 1 if role == "alpha" else tensor.ndim >= 2 and tensor.numel() > 0
        if matched is None or not is_usable:
            raise damaged_error(LCM_FILE, f"is no LCM-LoRA ({name[:80]})", repair_hint(LCM_FILE))
        layers.setdefault(matched[1], {})[role] = tensor
    return layers
