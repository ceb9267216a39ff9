"""Which network a state belongs to: old names, old shapes, and what does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.musetalk.weights import architectures as networks
from models.types import EngineError
from tests.models.musetalk.recipe import DATA
from tests.models.musetalk.weight_files import (
    open_tiny,
    same_tensors,
    state_of,
)


def test_old_names_of_the_vae(master: Path, root: Path) -> None:
    """The published VAE calls its attention query, key, value, proj_attn: it gives the same network."""
    modern = state_of(open_tiny(master).vae)
    (root / "sd-vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.copy(DATA / "sd-vae-legacy.bin", root / "sd-vae" / "diffusion_pytorch_model.bin")
    names = torch.load(DATA / "sd-vae-legacy.bin", weights_only=True).keys()
    assert any(".query." in name for name in names)
    assert same_tensors(state_of(open_tiny(root).vae), modern)


def test_the_oldest_shapes_of_the_vae() -> None:
    """Before they were linear layers those four were 1x1 convolutions; other convolutions are left alone."""
    old = {
        "encoder.mid_block.attentions.0.query.weight": torch.rand(4, 4, 1, 1),
        "conv_in.weight": torch.rand(4, 3, 1, 1),
    }
    new = networks.rename_keys("vae", old)
    assert new["encoder.mid_block.attentions.0.to_q.weight"].shape == (4, 4)
    assert new["conv_in.weight"].shape == (4, 3, 1, 1)


def test_counters_may_be_missing(root: Path) -> None:
    """`num_batches_tracked` came with torch 1.0 and is of no use here: without it a file is complete."""
    path = root / "face-parse-bisent" / "79999_iter.pth"
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
    assert same_tensors(state_of(open_tiny(root).bisenet), state)


def changed_state(root: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    path = root / "musetalkV15" / "unet.pth"
    state = dict(torch.load(path, weights_only=True))
    change(state)
    torch.save(state, path)
    with pytest.raises(EngineError) as caught:
        _ = open_tiny(root).unet
    assert caught.value.code == "weights_damaged"
    return caught.value.message


def test_weights_of_another_network(root: Path) -> None:
    """A missing name, a wrong shape and a name too many are told by name."""
    assert "lacks 1 of 684 tensors (conv_in.bias first)" in changed_state(root, lambda state: state.pop("conv_in.bias"))
    shape = {"conv_in.bias": torch.zeros(17)}
    assert "conv_in.bias is (17,) and should be (16,)" in changed_state(root, lambda state: state.update(shape))
    right = {"conv_in.bias": torch.zeros(16), "lora.up": torch.zeros(1)}
    assert "lora.up" in changed_state(root, lambda state: state.update(right))


FILES = {
    "unet": ("musetalkV15/unet.pth", "MuseTalk's UNet"),
    "vae": ("sd-vae/diffusion_pytorch_model.safetensors", "the VAE"),
    "whisper": ("whisper/pytorch_model.bin", "Whisper"),
    "pose": ("dwpose/dw-ll_ucoco_384.pth", "DWPose"),
    "bisenet": ("face-parse-bisent/79999_iter.pth", "the face parser"),
    "s3fd": ("s3fd/s3fd-619a316812.pth", "the face detector"),
}


@pytest.mark.parametrize("place", FILES)
def test_a_file_in_the_place_of_another_is_recognised(root: Path, place: str) -> None:
    """Whichever file was put there, the message says which network it seems to be."""
    path, _ = FILES[place]
    own = (root / path).read_bytes()
    for other, (file, words) in FILES.items():
        if other == place or file.endswith("safetensors") or path.endswith("safetensors"):
            continue
        shutil.copyfile(root / file, root / path)
        with pytest.raises(EngineError, match=f"seems to be {words}") as caught:
            getattr(open_tiny(root), place)
        assert caught.value.code == "weights_damaged"
        (root / path).write_bytes(own)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["encoder.conv1.weight", "decoder.token_embedding.weight"], "whisper/tiny.pt"),
        (["layer1.0.conv1.weight", "fc.weight"], "ResNet-18"),
        (["quant_conv.weight", "post_quant_conv.weight"], "the VAE"),
        (["something.else"], ""),
    ],
)
def test_networks_that_lie_about_in_such_folders(names: list[str], words: str) -> None:
    """Files that MuseTalk's scripts fetch for other ends are told apart, too; strangers stay strangers."""
    seems = networks.note_other_network("pose", dict.fromkeys(names))
    assert words in seems
    assert bool(words) == bool(seems)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"block_out_channels": [16]}', '{"surprise": 1}', '{"sample_size": {}}']
)
@pytest.mark.parametrize("file", ["musetalkV15/musetalk.json", "sd-vae/config.json"])
def test_configs_that_describe_nothing(root: Path, file: str, text: str) -> None:
    """A config that isn't JSON, or of which no fitting network can be built, is named; nothing else is raised."""
    (root / file).write_text(text)
    with pytest.raises(EngineError) as caught:
        _ = open_tiny(root).unet, open_tiny(root).vae
    assert caught.value.code == "weights_damaged"
