"""Get, check and convert the weights of MuseV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from models.checkpoints.manifest import read_manifest
from models.musev.commands.convert import import_folder
from models.musev.commands.fetch import check_licence, list_needed, list_remote_files
from models.musev.commands.verify import choose_selections, verify_file, verify_folder
from models.musev.weights.index import (
    BASES,
    CONVERTED,
    DEFAULT_BASE,
    VARIANTS,
    InstalledPart,
    Selection,
    default_variant,
    list_missing_for_default,
)
from models.musev.weights.loader import load_unet
from models.types import EngineError
from tests.models.checkpoints.hub import Hub, serving

BASE = f"{BASES}/{DEFAULT_BASE}"
UNET = "motion/musev_referencenet/unet/diffusion_pytorch_model.bin"


def verdicts(root: Path) -> dict[str, str]:
    selections = choose_selections(root, None, BASE)
    return {one.file: f"{one.verdict}: {one.found}" for one in verify_folder(root, selections, hashes=True)}


def test_the_licence_is_said_before_the_download() -> None:
    """Nothing is asked of a server before the user has confirmed it."""
    with pytest.raises(EngineError, match="non-commercial research") as caught:
        check_licence(accepted=False)
    assert "--accept-licence" in caught.value.hint
    check_licence(accepted=True)


def test_only_what_is_missing_is_wanted(root: Path) -> None:
    """Nothing for a complete folder; all of a variant for an empty one."""
    assert list_needed(root, Selection(), replace=False) == []
    (root / UNET).unlink()
    assert list_needed(root, Selection(), replace=False) == [UNET]
    fresh = list_needed(root / "none", Selection("musev"), replace=False)
    assert "motion/musev/unet/config.json" in fresh
    assert not any("referencenet" in file or "IP-Adapter" in file for file in fresh)
    assert "sd-vae/diffusion_pytorch_model.bin" in fresh


def test_files_come_from_the_hub_in_the_form_that_it_has() -> None:
    """Another form of the same weights is taken where the hub has not the usual one; strange names are refused."""
    hub = Hub(files={f"/TMElyralab/MuseV/resolve/main/{BASE}/unet/diffusion_pytorch_model.safetensors": b"x"})
    with serving(hub):
        found = list(list_remote_files([f"{BASE}/unet/diffusion_pytorch_model.bin"], hub.url, Selection()))
        assert [file.file for file in found] == [f"{BASE}/unet/diffusion_pytorch_model.safetensors"]
    with pytest.raises(EngineError, match="no file of"):
        list(list_remote_files(["../passwd"], "https://m", Selection()))


def test_a_complete_folder_is_good(root: Path) -> None:
    """Each network fits, and the steps of the base model are named."""
    found = verdicts(root)
    others = {file: one for file, one in found.items() if not one.startswith("ok")}
    assert list(others) in ([], ["sd-vae/diffusion_pytorch_model.bin"]), others  # it is not the published VAE
    assert "EulerDiscrete (linspace)" in found[f"{BASE}/scheduler/scheduler_config.json"]


def test_weights_are_converted_once(root: Path) -> None:
    """To fp16 without a pickle, written down with their source, and the networks stay the same within fp16."""
    before = load_unet(root, Selection(), torch.device("cpu"), torch.float32).state_dict()
    lines = list(import_folder(root, BASE, replace=False))
    assert len(lines) == 7
    assert all("already converted" in line for line in import_folder(root, BASE, replace=False))
    with safe_open(root / CONVERTED / "musev_referencenet-unet.safetensors", framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118 - it is no dict
    entry = read_manifest(root / CONVERTED)["musev_referencenet-unet.safetensors"]
    assert entry.source is not None
    assert entry.source.path == UNET
    (root / UNET).unlink()
    after = load_unet(root, Selection(), torch.device("cpu"), torch.float32).state_dict()
    assert before.keys() == after.keys()
    assert all((before[name] - after[name]).abs().max() < 2e-3 for name in before)
    assert not any(one.startswith("bad") for one in verdicts(root).values())


def test_the_base_model_is_over_the_motion_weights(root: Path) -> None:
    """What draws comes from the base model, what moves from MuseV."""
    unet = load_unet(root, Selection(), torch.device("cpu"), torch.float32).state_dict()
    motion = torch.load(root / UNET, weights_only=True)
    with safe_open(root / BASE / "unet" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        drawing = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
    assert len(drawing) == 682  # equal widths need four shortcuts fewer than 686
    for name, tensor in unet.items():
        assert torch.equal(tensor, drawing.get(name, motion[name]))
    assert not torch.equal(motion["conv_in.weight"], drawing["conv_in.weight"])


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        ("cut", "weights_damaged"),
        ("code", "weights_unsafe"),
        ("variant", "weights_damaged: .*UNet of musev"),
        ("reference", "weights_damaged: .*ReferenceNet"),
        ("config", "weights_damaged: .*another variant"),
    ],
)
def test_a_bad_checkpoint_is_named(root: Path, damage: str, error: str) -> None:
    """One that is cut off, holds code, or is of another variant or network; `verify` says the same."""
    path = root / UNET
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "code":
        torch.save({"weights": Trap()}, path)
    elif damage == "config":
        config = path.parent / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "need_transformer_in": True}))
    else:
        other = "musev/unet" if damage == "variant" else "musev_referencenet/referencenet"
        path.write_bytes((root / "motion" / other / "diffusion_pytorch_model.bin").read_bytes())
    with pytest.raises(EngineError, match=error) as caught:
        load_unet(root, Selection(), torch.device("cpu"), torch.float32)
    assert "--accept-licence --replace motion/" in caught.value.hint
    found = verify_file(InstalledPart(Selection().motion, root, UNET), Selection(), hashes=False, tick=lambda _: None)
    assert (found.verdict, found.advice) == ("bad", caught.value.hint)


class Trap:
    """Code in a checkpoint, which must not run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint has run')",)


@pytest.mark.parametrize("part", ["text_encoder", "image_encoder"])
@pytest.mark.parametrize("values", [{"hidden_size": "x"}, {"num_attention_heads": 0}, {"num_hidden_layers": 9}])
def test_a_config_that_fits_no_network_is_named(root: Path, part: str, values: dict[str, Any]) -> None:
    """Whatever the library makes of it."""
    folder = BASE if part == "text_encoder" else "IP-Adapter/models"
    config = root / folder / part / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))
    found = verdicts(root)[f"{folder}/{part}/model.safetensors"]
    assert found.startswith("bad: the weight file")


def test_what_is_missing_is_said(root: Path) -> None:
    """With the command that gets it, by `verify` and before a job."""
    (root / BASE / "tokenizer" / "merges.txt").unlink()
    assert list_missing_for_default(root) == [f"{BASE}/tokenizer/merges.txt"]
    assert verdicts(root)[f"{BASE}/tokenizer/merges.txt"].startswith("bad")


def test_the_variant_that_is_there_is_the_default(root: Path) -> None:
    """A folder with the smaller one alone serves jobs that name none."""
    assert default_variant(root) == VARIANTS[0]
    (root / UNET).unlink()
    assert default_variant(root) == "musev"
    assert list_missing_for_default(root) == []
