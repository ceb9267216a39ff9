"""The weights of one version, opened: mapped, in the precision that was asked for, with a fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.atomic import hash_file
from models.checkpoints.manifest import Entry, hashed_stamp, sample_hash, write_entry
from models.musetalk.commands.convert import import_folder
from models.musetalk.weights.loader import file_fingerprint, load_part, open_weights
from models.types import EngineError
from tests.models.musetalk.weight_files import (
    CPU,
    find_installed,
    list_nets,
    open_tiny,
    same_tensors,
    state_of,
)


def test_every_network_is_opened_and_ready(master: Path) -> None:
    """No tensor is left without memory, none wants gradients, all are in eval mode, and each is loaded only once."""
    weights = open_tiny(master)
    for net in list_nets(weights):
        assert not net.training
        assert not any(tensor.is_meta or tensor.requires_grad for tensor in [*net.parameters(), *net.buffers()])
    assert weights.unet is weights.unet
    assert weights.feature_extractor.feature_size == 80


def test_the_tensors_are_those_of_the_file(master: Path) -> None:
    """UNet and VAE by their own names, Whisper's encoder without its prefix."""
    weights = open_tiny(master)
    raw = torch.load(master / "musetalkV15" / "unet.pth", weights_only=True)
    assert same_tensors(state_of(weights.unet), raw)
    heard = torch.load(master / "whisper" / "pytorch_model.bin", weights_only=True)
    state = state_of(weights.whisper)
    assert same_tensors(state, {name: heard[f"model.encoder.{name}"] for name in state})
    assert len(state) < len(heard)


def test_on_the_cpu_nothing_is_copied(master: Path) -> None:
    """In float32 each tensor lies where its file is mapped, instead of in memory of its own."""
    net = load_part(find_installed(master, "vae"), CPU, torch.float32)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    name = str(master / "sd-vae" / "diffusion_pytorch_model.safetensors")
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[-1] == name]
    assert all(any(a <= tensor.data_ptr() < b for a, b in ranges) for tensor in net.state_dict().values())


def test_precision_is_asked_for(master: Path) -> None:
    """UNet, VAE and Whisper in bfloat16, the face networks stay in float32; counters stay whole numbers."""
    weights = open_tiny(master, torch.bfloat16)
    assert {p.dtype for net in list_nets(weights)[:3] for p in net.parameters()} == {torch.bfloat16}
    assert {p.dtype for net in list_nets(weights)[3:] for p in net.parameters()} == {torch.float32}
    assert weights.bisenet.state_dict()["cp.resnet.bn1.num_batches_tracked"].dtype == torch.int64


def test_dwpose_as_onnx_is_handed_on_as_a_file(root: Path) -> None:
    """Where there is only the ONNX file, that is what one gets."""
    (root / "dwpose" / "dw-ll_ucoco_384.pth").unlink()
    (root / "dwpose" / "dw-ll_ucoco_384.onnx").write_bytes(b"onnx")
    assert open_tiny(root).pose == root / "dwpose" / "dw-ll_ucoco_384.onnx"


def test_missing_files_are_named_with_the_command(root: Path) -> None:
    """Before anything is loaded, and also when a file disappears later."""
    with pytest.raises(EngineError, match=r"musetalk/pytorch_model\.bin") as caught:
        open_weights(root, "v1", CPU, torch.float32)
    assert caught.value.code == "weights_missing"
    assert "musedrop models fetch --version v1" in caught.value.hint
    weights = open_tiny(root)
    (root / "whisper" / "config.json").unlink()
    with pytest.raises(EngineError, match=r"whisper/config\.json"):
        _ = weights.whisper


def test_a_recorded_hash_is_taken_from_either_manifest(root: Path) -> None:
    """What was hashed when it was downloaded or converted is not read again."""
    list(import_folder(root, root, replace=False))
    write_entry(root, "musetalkV15/unet.pth", Entry(hashed_stamp(root / "musetalkV15" / "unet.pth")))
    for name in ("musetalkV15/unet.pth", "converted/unet-v15.safetensors"):
        assert file_fingerprint(root, name) == hash_file(root / name)
    assert file_fingerprint(root, "sd-vae/config.json") == sample_hash(root / "sd-vae" / "config.json")


def test_the_fingerprint_changes_with_each_file(root: Path) -> None:
    """Other weights or another config, another fingerprint; the same files, the same one; parts can be asked alone."""
    prints = {open_tiny(root).fingerprint}
    assert prints == {open_tiny(root).fingerprint}
    of_faces = open_tiny(root).fingerprint_of("pose", "s3fd")
    for file in ("musetalkV15/unet.pth", "sd-vae/config.json", "whisper/preprocessor_config.json"):
        (root / file).write_bytes((root / file).read_bytes() + b" ")
        prints.add(open_tiny(root).fingerprint)
    assert len(prints) == 4
    assert open_tiny(root).fingerprint_of("pose", "s3fd") == of_faces
