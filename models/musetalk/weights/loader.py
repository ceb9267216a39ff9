"""The weights of MuseTalk, opened in the form that is there: mapped from the disk, assigned, built only once.

Opening checks names and shapes. Nothing is read before it is needed: on the CPU in float32 the pages of the file are
the tensors; for another device or precision each tensor is copied by itself.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoints.manifest import sample_hash
from models.checkpoints.states import State, find_mismatch, move_tensor
from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel
from models.musetalk.nets.whisper import Encoder, MelSpectrogram
from models.musetalk.weights.architectures import (
    build_empty,
    note_other_network,
    read_feature_extractor,
    rename_keys,
)
from models.musetalk.weights.checkpoint import damaged_error, read_state
from models.musetalk.weights.index import (
    InstalledPart,
    Version,
    find_part,
    get_part,
    missing_error,
    missing_files_for,
    parts_of,
    read_hash,
)

Stamps = tuple[tuple[str, int, int, int], ...]
"""Path, size, time of change and inode of each file."""
WITH_LEFTOVERS = ("pose", "whisper")  # their files hold more than the network: a training run, a decoder


class Weights:
    """The networks of one version on one device; each is loaded when it is first asked for and stays.

    `dtype` is that of UNet, VAE and Whisper; the face networks are always float32.
    """

    def __init__(self, root: Path, version: Version, device: torch.device, dtype: torch.dtype) -> None:
        self.root, self.version, self.device, self.dtype = root, version, device, dtype

    @cached_property
    def unet(self) -> UNet2DConditionModel:
        return self._load(f"unet-{self.version}", self.dtype)

    @cached_property
    def vae(self) -> AutoencoderKL:
        return self._load("vae", self.dtype)

    @cached_property
    def whisper(self) -> Encoder:
        """The encoder alone."""
        return self._load("whisper", self.dtype)

    @cached_property
    def feature_extractor(self) -> MelSpectrogram:
        return read_feature_extractor(self.find_part("whisper"))

    @cached_property
    def pose(self) -> nn.Module | Path:
        """DWPose as a module; where the folder has only its ONNX file, that file."""
        found = self.find_part("pose")
        return found.weights if found.variant.form == "onnx" else self._load("pose", torch.float32)

    @cached_property
    def s3fd(self) -> nn.Module:
        return self._load("s3fd", torch.float32)

    @cached_property
    def bisenet(self) -> nn.Module:
        return self._load("bisenet", torch.float32)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 that is another one as soon as any weight or config is another one."""
        return self.fingerprint_of(*(part.name for part in parts_of(self.version)))

    def fingerprint_of(self, *names: str) -> str:
        """Return the same for some parts only: "unet-v15", "unet-v1", "vae", "whisper", "pose", "bisenet", "s3fd"."""
        return hashlib.sha256("\n".join(fingerprint_line(self.find_part(name)) for name in names).encode()).hexdigest()

    def find_part(self, name: str) -> InstalledPart:
        """Return the form of a part that is used. Raises EngineError weights_missing."""
        found = find_part(get_part(name), self.root)
        if found is None:
            raise missing_error(self.version, self.root)
        return found

    def read_stamps(self) -> Stamps:
        """Return what tells whether any file of these networks was replaced. Raises EngineError weights_missing."""
        return tuple(stamp for part in parts_of(self.version) for stamp in read_stamps(self.find_part(part.name)))

    def _load(self, name: str, dtype: torch.dtype) -> Any:
        return load_part(self.find_part(name), self.device, dtype)


def read_stamps(found: InstalledPart) -> Stamps:
    """Return what tells whether a file of a part was replaced. Raises OSError."""
    facts = [(path, path.stat()) for path in found.files]
    return tuple((str(path), one.st_size, one.st_mtime_ns, one.st_ino) for path, one in facts)


def open_weights(models_dir: Path, version: Version, device: torch.device, dtype: torch.dtype) -> Weights:
    """Return the weights of `version` in `models_dir`, none of them loaded yet. Raises EngineError weights_missing."""
    if missing_files_for(version, models_dir):
        raise missing_error(version, models_dir)
    return Weights(models_dir, version, device, dtype)


def load_part(found: InstalledPart, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return one network, ready to run. Raises EngineError weights_damaged, weights_unsafe."""
    state, net = read_part(found)
    return fill_network(net, state, device, dtype)


def fill_network(net: nn.Module, state: State, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Give an empty network these tensors, copied only if they are elsewhere or in another precision."""
    net.load_state_dict({name: move_tensor(tensor, device, dtype) for name, tensor in state.items()}, assign=True)
    return net


def read_part(found: InstalledPart) -> tuple[State, nn.Module]:
    """Return the mapped tensors of a part and its empty network, after names and shapes were compared."""
    state = rename_keys(found.part.name, read_state(found.weights, found.variant.weights))
    net = build_empty(found, state)
    if wrong := find_mismatch(net, state, extras=found.part.name in WITH_LEFTOVERS):
        raise damaged_error(found.variant.weights, wrong + note_other_network(found.part.name, state))
    wanted = net.state_dict()
    return {
        name: state[name] if name in state else torch.zeros_like(t, device="cpu") for name, t in wanted.items()
    }, net


def fingerprint_line(found: InstalledPart) -> str:
    """Return one line of the fingerprint: the hashes of a part's files, from a manifest where one knows them."""
    return " ".join(
        [found.part.name, found.variant.form, *(file_fingerprint(found.root, name) for name in found.variant.files)]
    )


def file_fingerprint(root: Path, name: str) -> str:
    """Return the hash of a file, from the manifest of the folder or the one beside the file where one has it."""
    return read_hash(root, name) or sample_hash(root / name)
