"""Open state dicts from files that somebody downloaded: mapped, never executed, each mistake named with its cure."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.checkpoints.torch_file import MOST_DIMENSIONS, TorchFileError, read_torch_file, truncation_text
from models.checkpoints.unpickler import TensorRecord
from models.types import EngineError

State = dict[str, Tensor]

GIT_LFS = b"version https://git-lfs"
LONGEST_HEADER_BYTES = 64 << 20
WRAPPERS = ("state_dict", "model_state_dict", "model", "ema_state_dict", "ema", "module", "params_ema", "params")
"""Under which names trainings keep a state dict among other things, the better one first; then comes any other."""
DEEPEST_WRAPPER = 3
PREFIXES = ("module.", "_orig_mod.")
"""Of networks that were trained on several cards, and of compiled ones."""
MOST_TENSORS = 20_000  # the largest network here has 686
LARGEST_TENSOR_BYTES = 1 << 40  # one number may be shown as a whole tensor, but not as an absurd one
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


def read_state(path: Path, name: str, repair: str) -> State:
    """Return name -> tensor on the CPU, mapped from the file where its format allows.

    `name` is what a person knows it by, and its ending tells the format; `repair` says how to get it again.
    Of a pickle the tensors are taken alone, and whatever else is in it becomes nothing.
    Raises EngineError weights_damaged for a truncated or foreign file, weights_unsafe for a pickle that holds code
    and no tensors.
    """
    read = _read_safetensors if name.endswith(".safetensors") else _read_torch
    return read(path, name, repair)


def damaged_error(name: str, what: str, repair: str) -> EngineError:
    return EngineError("weights_damaged", f"the weight file {name} {what}", repair)


def _read_safetensors(path: Path, name: str, repair: str) -> State:
    _check_length(path, name, repair)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no dict)
    except SafetensorError as error:
        raise damaged_error(name, f"is no safetensors file ({error})", repair) from error


def read_metadata(path: Path, name: str, repair: str) -> dict[str, str]:
    """What the writer of a safetensors file said of it. Raises EngineError weights_damaged."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise damaged_error(name, f"is no safetensors file ({error})", repair) from error


def _check_length(path: Path, name: str, repair: str) -> None:
    """Raise weights_damaged unless the file is as long as its own header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= LONGEST_HEADER_BYTES:
            raise damaged_error(name, foreign_text(head + file.read(64), "safetensors file"), repair)
        text = file.read(length)
    try:
        tensors = [value for key, value in json.loads(text).items() if key != "__metadata__"]
        expected = 8 + length + max(value["data_offsets"][1] for value in tensors)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        cut = len(text) < length
        what = truncation_text(size) if cut else foreign_text(head, "safetensors file")
        raise damaged_error(name, what, repair) from error
    if size != expected:
        what = truncation_text(size, expected) if size < expected else f"is {size - expected} bytes too long"
        raise damaged_error(name, what, repair)


def foreign_text(head: bytes, expected: str, otherwise: str = "") -> str:
    """Say what a file is that isn't `expected`, from its first bytes; `otherwise` where they tell nothing."""
    start = head.lstrip().lower()
    if not head:
        return "is empty"
    if head.startswith(GIT_LFS):
        return "is only a pointer of Git LFS to the weights, not the weights"
    if start.startswith((b"<!doctype", b"<html")):
        return f"is a web page, not a {expected}: its download was answered with a page"
    return otherwise or f"is no {expected}"


def _read_torch(path: Path, name: str, repair: str) -> State:
    with path.open("rb") as file:
        head = file.read(64)
    try:
        contents = read_torch_file(path)
        records = _select_state(contents.value)
        if len(records) > MOST_TENSORS:
            raise TorchFileError(f"names more than {MOST_TENSORS:,} tensors")
        if records:
            numbers = _Numbers(path, contents.regions)
            return {key: numbers.build(key, record) for key, record in records.items()}
    except TorchFileError as error:
        raise damaged_error(name, foreign_text(head, "torch checkpoint", str(error)), repair) from error
    if contents.refused:
        raise EngineError(
            "weights_unsafe",
            f"the weight file {name} holds no tensors, but would run code ({contents.refused[0]}); none of it was run",
            f"don't use this file; {repair}",
        )
    what = "no tensors" if isinstance(contents.value, dict) else f"a {type(contents.value).__name__}, no named tensors"
    raise damaged_error(name, f"holds {what}", repair)


def _select_state(value: Any) -> dict[str, TensorRecord]:
    """Return the dict with most tensors among `value` and what its wrappers hold; without a common prefix."""
    found = [_tensors_of(candidate) for candidate in _list_candidates(value, DEEPEST_WRAPPER)]
    state = max(found, key=len, default={})
    while prefix := next((one for one in PREFIXES if state and all(key.startswith(one) for key in state)), ""):
        state = {key.removeprefix(prefix): record for key, record in state.items()}
    return state


def _list_candidates(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for name in dict.fromkeys((*WRAPPERS, *value)) if depth else ():
            yield from _list_candidates(value.get(name), depth - 1)


def _tensors_of(candidate: dict[str, Any]) -> dict[str, TensorRecord]:
    return {key: value for key, value in candidate.items() if isinstance(key, str) and isinstance(value, TensorRecord)}


class _Numbers:
    """The bytes of a file as tensors, which are mapped, and copied only where they lie askew."""

    def __init__(self, path: Path, regions: dict[str, range]) -> None:
        self._size, self._regions = path.stat().st_size, regions
        self._mapped = torch.from_file(str(path), shared=False, size=self._size, dtype=torch.uint8)
        self._storages: dict[tuple[str, torch.dtype], Tensor] = {}
        self._copied = 0

    def build(self, name: str, record: TensorRecord) -> Tensor:
        """Return the tensor that a record describes. Raises TorchFileError unless it is inside its storage."""
        dtype = vars(torch).get(record.dtype) if record.dtype else DTYPES.get(record.storage.kind)
        if not isinstance(dtype, torch.dtype) or not _is_shape(record.size, record.stride, record.offset):
            raise TorchFileError(f"describes a tensor that can't be ({name})")
        storage, start = self._open_storage(record.storage.key, dtype), record.offset + record.storage.start
        steps = zip(record.size, record.stride, strict=True)
        end = start + (0 if 0 in record.size else 1 + sum((count - 1) * step for count, step in steps))
        size_bytes = math.prod(record.size) * dtype.itemsize
        if start < 0 or end > len(storage) or size_bytes > LARGEST_TENSOR_BYTES:
            raise TorchFileError(f"describes a tensor outside of its storage ({name})")
        return storage.as_strided(record.size, record.stride, storage.storage_offset() + start)

    def _open_storage(self, key: str, dtype: torch.dtype) -> Tensor:
        if (key, dtype) not in self._storages:
            self._storages[key, dtype] = self._map_storage(key, dtype)
        return self._storages[key, dtype]

    def _map_storage(self, key: str, dtype: torch.dtype) -> Tensor:
        region = self._regions.get(key)
        if region is None:
            raise TorchFileError(f"lacks the storage {key[:100]}")
        count = len(region) // dtype.itemsize
        place = slice(region.start, region.start + count * dtype.itemsize)
        numbers = self._mapped[place]
        if region.start % dtype.itemsize:
            self._copied += len(numbers)
            if self._copied > self._size:
                raise TorchFileError("has storages that overlap")
            numbers = numbers.clone()
        return numbers.view(dtype)


def _is_shape(size: Any, stride: Any, offset: Any) -> bool:
    """Whether these are dimensions, steps and an offset that a tensor can have."""
    if not (isinstance(size, tuple | list) and isinstance(stride, tuple | list)):
        return False
    fits = len(size) == len(stride) <= MOST_DIMENSIONS
    return fits and all(
        type(number) is int and 0 <= number < LARGEST_TENSOR_BYTES for number in (*size, *stride, offset)
    )


def find_mismatch(net: nn.Module, state: State, *, extras: bool) -> str:
    """Return what is wrong with the names and shapes of `state` for `net`; "" if nothing. `extras` may be allowed."""
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if absent := [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]:
        return f"lacks {len(absent)} of {len(wanted)} tensors ({absent[0]} first)"
    if other := [name for name in wanted if name in given and wanted[name] != given[name]]:
        name = other[0]
        return f"has {len(other)} tensors of another shape ({name} is {given[name]} and should be {wanted[name]})"
    if not extras and (unknown := [name for name in given if name not in wanted]):
        return f"has {len(unknown)} tensors that this network has not ({unknown[0]} first)"
    return ""


def move_tensor(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor on `device`, in `dtype` if it has a floating point. The device does the conversion."""
    there = tensor.to(device)
    return there.to(dtype) if there.is_floating_point() else there
