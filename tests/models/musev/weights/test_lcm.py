"""The LCM-LoRA: what it changes, few steps without guidance, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agent.languages import find_chinese
from models.motion.types import MotionPlan, MotionRequest
from models.musev.commands.verify import choose_selections, verify_folder
from models.musev.engine import MuseVEngine
from models.musev.weights.index import BASES, DEFAULT_BASE, LCM_FILE, Selection
from models.musev.weights.lcm import read_lcm
from models.musev.weights.loader import load_unet
from models.types import EngineError
from tests.models.motion.contract import make_clip

LAYERS = {
    "down_blocks.0.attentions.0.proj_in": (1, 1),
    "down_blocks.0.resnets.0.conv1": (3, 3),
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (),
    "up_blocks.1.resnets.0.time_emb_proj": (),
}
RANK, ALPHA = 4, 2.0


def read_drawing(root: Path) -> dict[str, Tensor]:
    return load_file(root / BASES / DEFAULT_BASE / "unet" / "diffusion_pytorch_model.safetensors")


def make_changes(drawing: dict[str, Tensor], spelling: str = "kohya") -> dict[str, Tensor]:
    """Return changes of some layers, as the published file spells them, or as diffusers does."""
    generator, changes = torch.Generator().manual_seed(5), dict[str, Tensor]()
    for layer, kernel in LAYERS.items():
        outputs, inputs = drawing[f"{layer}.weight"].shape[:2]
        down = torch.randn(RANK, inputs, *kernel, generator=generator) / 8
        up = torch.randn(outputs, RANK, *([1] * len(kernel)), generator=generator) / 8
        if spelling == "kohya":
            name = f"lora_unet_{layer.replace('.', '_')}"
            changes |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            changes[f"{name}.alpha"] = torch.tensor(ALPHA)
        else:
            changes |= {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up * ALPHA / RANK}
    return changes


def write_changes(root: Path, changes: dict[str, Tensor]) -> None:
    (root / LCM_FILE).parent.mkdir(parents=True, exist_ok=True)
    save_file(changes, root / LCM_FILE)


@pytest.fixture
def lcm_root(root: Path) -> Path:
    """A models folder with the changes."""
    write_changes(root, make_changes(read_drawing(root)))
    return root


def inspect(root: Path, photo: Path, **asked: Any) -> MotionPlan:
    given = {"seconds": 1.0, "size": 64, "options": {"lcm": True}, **asked}
    return MuseVEngine("cpu:0").inspect(MotionRequest(str(photo), "anna.png", str(root), **given))


@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
def test_a_changed_layer_computes_what_both_ways_do(root: Path, spelling: str) -> None:
    """A layer and its low-rank way beside it, added, are the layer with the changed weight; all others stay."""
    drawing = read_drawing(root)
    changes = make_changes(drawing)
    write_changes(root, make_changes(drawing, spelling))
    where = (torch.device("cpu"), torch.float32)
    net = load_unet(root, Selection(lcm=True), *where)
    for layer in LAYERS:
        changed = net.get_submodule(layer)
        weight, bias = drawing[f"{layer}.weight"], drawing.get(f"{layer}.bias")
        seen = torch.randn(2, weight.shape[1], *([8, 8] if isinstance(changed, nn.Conv2d) else []))
        name = f"lora_unet_{layer.replace('.', '_')}"
        down, up = changes[f"{name}.lora_down.weight"], changes[f"{name}.lora_up.weight"]
        if isinstance(changed, nn.Conv2d):
            plain = nn.functional.conv2d(seen, weight, bias, padding=changed.padding)
            low = nn.functional.conv2d(seen, down, padding=changed.padding)
            beside = nn.functional.conv2d(low, up)
        else:
            plain = nn.functional.linear(seen, weight, bias)
            beside = seen @ down.T @ up.T
        assert torch.allclose(changed(seen), plain + ALPHA / RANK * beside, atol=1e-5)
        assert not torch.allclose(changed(seen), plain, atol=1e-3)
    plain_net = load_unet(root, Selection(), *where)
    others = {name for name, one in net.named_parameters() if not torch.equal(one, plain_net.get_parameter(name))}
    assert others == {f"{layer}.weight" for layer in LAYERS}


def test_a_clip_takes_four_steps_without_guidance(lcm_root: Path, photo: Path, tmp_path: Path) -> None:
    """A fifth of the units; each step draws its noise from the seed, so two workers make what one makes."""
    plan = inspect(lcm_root, photo)
    assert plan.units == (1,) * 4
    assert plan.facts["scheduler"] == "LCM"
    assert plan.facts["lcm"]
    frames = make_clip([MuseVEngine("cpu:0")], plan, tmp_path / "one")
    assert make_clip([MuseVEngine("cpu:0"), MuseVEngine("cpu:0")], plan, tmp_path / "two") == frames
    assert make_clip([MuseVEngine("cpu:0")], inspect(lcm_root, photo, seed=2), tmp_path / "seed") != frames
    write_changes(lcm_root, {name: one * 2 for name, one in make_changes(read_drawing(lcm_root)).items()})
    assert inspect(lcm_root, photo).identity["fingerprint"] != plan.identity["fingerprint"]


def test_a_file_that_fits_is_verified(lcm_root: Path) -> None:
    """`verify` names it, once it is there, and says what it changes."""
    verdicts = list(verify_folder(lcm_root, choose_selections(lcm_root, None, Selection().base), hashes=True))
    found = {one.file: one for one in verdicts}[LCM_FILE]
    assert found.found.startswith("changes 4 tensors of the base model")
    assert found.verdict != "bad"


def test_steps_and_guidance_may_be_asked_for(lcm_root: Path, photo: Path) -> None:
    """Four steps and no guidance are defaults alone."""
    plan = inspect(lcm_root, photo, steps=2, guidance=1.5)
    assert plan.units == (2, 2)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", (4, 4), "has no change of this network"),
        ("lora_unet_conv_in.lora_up.weight", (4, 4), "has no change of this network"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", (7, 4, 1, 1), "in another shape"),
        ("conv_in.weight", (4, 4), "is no LCM-LoRA"),
        ("lora_unet_conv_in.alpha", (2,), "is no LCM-LoRA"),
    ],
)
def test_another_file_is_refused_by_name(root: Path, name: str, shape: tuple[int, ...], said: str) -> None:
    """By `verify` and by the worker, with the command that downloads it again."""
    drawing = read_drawing(root)
    write_changes(root, {**make_changes(drawing), name: torch.zeros(shape)})
    with pytest.raises(EngineError, match=f"weights_damaged: .*{said}") as caught:
        read_lcm(root, drawing)
    assert "--lcm" in caught.value.hint
    assert find_chinese(caught.value.message)
    verdicts = verify_folder(root, choose_selections(root, None, Selection().base), hashes=True)
    assert [one.verdict for one in verdicts if one.file == LCM_FILE] == ["bad"]
