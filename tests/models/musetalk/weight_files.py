"""Weights for tests of the files that users have: opened, compared, and saved in every format of torch.

What today's torch can't write any more, a tar and a pickle made by hand, is written here byte by byte.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoints.states import DTYPES
from models.musetalk.weights.index import InstalledPart, find_part, get_part
from models.musetalk.weights.loader import Weights, open_weights

CPU = torch.device("cpu")


NAMES = ("unet-v15", "vae", "whisper", "pose", "bisenet", "s3fd")


def open_tiny(root: Path, dtype: torch.dtype = torch.float32) -> Weights:
    return open_weights(root, "v15", CPU, dtype)


def find_installed(root: Path, name: str) -> InstalledPart:
    part = find_part(get_part(name), root)
    assert part is not None
    return part


def state_of(net: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = net.state_dict()
    return state


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def list_nets(weights: Weights) -> list[nn.Module]:
    pose = weights.pose
    assert isinstance(pose, nn.Module)
    return [weights.unet, weights.vae, weights.whisper, pose, weights.bisenet, weights.s3fd]


HTML = b"<!DOCTYPE html><html><body>Too many requests</body></html>"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:7ebf\nsize 3400074924\n"


@dataclass
class Attack:
    """Would create a file when it is unpickled."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def save_zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def save_legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_bare(protocol: int) -> Callable[[Any, Path], None]:
    """Return a way of saving: by pickle alone, without torch."""

    def save(value: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(value, protocol))

    return save


def save_tar(state: dict[str, torch.Tensor], path: Path) -> None:
    """Save as torch did before 0.2: members `storages`, `tensors` and `pickle`; what shares memory shares a storage."""
    names = {dtype: name for name, dtype in DTYPES.items() if name != "UntypedStorage"}
    storages, tensors = io.BytesIO(), io.BytesIO()
    roots = {tensor.untyped_storage().data_ptr(): tensor for tensor in state.values()}
    dump(len(roots), storages)
    for key, tensor in roots.items():
        whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
        dump((key, "cpu", getattr(torch, names[tensor.dtype])), storages)
        storages.write(struct.pack("<q", len(whole)) + whole.view(torch.uint8).numpy().tobytes())
    dump([], storages)
    dump(len(state), tensors)
    for number, tensor in enumerate(state.values()):
        dump((number, tensor.untyped_storage().data_ptr(), "torch.FloatTensor"), tensors)
        numbers = (*tensor.shape, *tensor.stride(), tensor.storage_offset())
        tensors.write(struct.pack(f"<i4x{len(numbers)}q", tensor.dim(), *numbers))
    parts = [b"\x80\x02ccollections\nOrderedDict\n](", *map(pair_in_tar, state, range(len(state))), b"e\x85R."]
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (("storages", storages), ("tensors", tensors), ("pickle", io.BytesIO(b"".join(parts)))):
            info = tarfile.TarInfo(name)
            info.size = len(content.getvalue())
            content.seek(0)
            archive.addfile(info, content)


def dump(value: Any, stream: io.BytesIO) -> None:
    stream.write(pickle.dumps(value, 2))


def pair_in_tar(name: str, number: int) -> bytes:
    """One [name, tensor] of a Python 2 OrderedDict."""
    return b"](U" + bytes([len(name)]) + name.encode() + b"K" + bytes([number]) + b"Qe"


def save_by_hand(pickled: bytes, path: Path, storages: dict[str, bytes] | None = None, **options: Any) -> None:
    """Write a zip of torch around any pickle. `storages` are bytes by their keys; 16 numbers in "0" by default."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, content in (storages or {"0": NUMBERS.numpy().tobytes()}).items():
            archive.writestr(f"archive/data/{key}", content)


NUMBERS = torch.arange(16.0)
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x10tQ%s\x89ccollections\nOrderedDict\n)RtR"
)
"""A tensor in a pickle, with room for offset, size and stride."""
WHOLE = TENSOR % b"K\x00K\x10\x85K\x01\x85"


def pickle_beside(other: bytes) -> bytes:
    """A pickled dict of a tensor "weight" and whatever `other` leaves on the stack."""
    return b"\x80\x02}(X\x06\x00\x00\x00weight" + WHOLE + b"X\x04\x00\x00\x00meta" + other + b"u."


def all_kinds() -> dict[str, torch.Tensor]:
    """Tensors of every kind that a state dict may hold: shared, turned, cut, narrow, whole numbers, scalars."""
    base = torch.arange(24.0).reshape(4, 6)
    state = {"whole": base, "turned": base.t(), "cut": base[1:3, 2:5], "again": base}
    state |= {"half": torch.arange(5).half(), "brain": torch.arange(5).bfloat16(), "double": torch.rand(3).double()}
    state |= {"counter": torch.tensor(7), "flags": torch.tensor([True, False]), "bytes": torch.arange(9).byte()}
    return state | {"parameter": torch.nn.Parameter(torch.rand(2, 3)), "empty": torch.zeros(0, 4)}


def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    """Whether names, numbers, dtypes and strides are the same."""
    alike = [(found[name].dtype, found[name].stride()) == (wanted[name].dtype, wanted[name].stride()) for name in found]
    return same_tensors(found, wanted) and all(alike)
