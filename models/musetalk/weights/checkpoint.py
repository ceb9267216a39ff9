"""State dicts from files that somebody downloaded: mapped, never executed, and each mistake named with its cure."""

from __future__ import annotations

import json
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.musetalk.weights.index import repair_hint
from models.types import EngineError

State = dict[str, Tensor]

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before 1.6 begins with this number
GIT_LFS = b"version https://git-lfs"
LONGEST_HEADER_BYTES = 64 << 20
MOST_PICKLES = 8  # one in a zip, five in the older format
HARMLESS = ("torch.", "collections.OrderedDict", "collections.defaultdict", "__builtin__.set", "builtins.set")
LEFTOVERS = (
    "numpy.",
    "mmengine.",
    "mmcv.",
    "mmpose.",
    "mmdet.",
    "_codecs.encode",
)  # of a training run, beside its tensors


class Leftover:
    """Takes the place of an object that a training run stored beside its tensors, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Leftover:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def read_state(path: Path, name: str) -> State:
    """Name -> tensor on the CPU, mapped from the file where its format allows.

    `name` is what a person knows it by, and its ending tells the format. Raises EngineError weights_damaged for a
    truncated or foreign file, weights_unsafe for a pickle that would run code.
    """
    if name.endswith(".safetensors"):
        return _read_safetensors(path, name)
    found = _read_pickle(path, name)
    inner = found.get("state_dict") if isinstance(found, dict) else None
    state = inner if isinstance(inner, dict) else found
    if not isinstance(state, dict):
        raise damaged_error(name, f"holds a {type(state).__name__} instead of named tensors")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise damaged_error(name, "holds no tensors")
    return tensors


def damaged_error(name: str, what: str) -> EngineError:
    return EngineError("weights_damaged", f"the weight file {name} {what}", repair_hint(name))


def _read_safetensors(path: Path, name: str) -> State:
    _check_length(path, name)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no dict)
    except SafetensorError as error:
        raise damaged_error(name, f"is no safetensors file ({error})") from error


def read_metadata(path: Path, name: str) -> dict[str, str]:
    """What the writer of a safetensors file said of it. Raises EngineError weights_damaged."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise damaged_error(name, f"is no safetensors file ({error})") from error


def _check_length(path: Path, name: str) -> None:
    """Raise weights_damaged unless the file is as long as its own header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= LONGEST_HEADER_BYTES:
            raise damaged_error(name, foreign_text(head + file.read(64), "safetensors file"))
        text = file.read(length)
    try:
        tensors = [value for key, value in json.loads(text).items() if key != "__metadata__"]
        expected = 8 + length + max(value["data_offsets"][1] for value in tensors)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        cut = len(text) < length
        raise damaged_error(name, truncation_text(size) if cut else foreign_text(head, "safetensors file")) from error
    if size != expected:
        raise damaged_error(
            name, truncation_text(size, expected) if size < expected else f"is {size - expected} bytes too long"
        )


def truncation_text(size: int, expected: int | None = None) -> str:
    return f"is cut off: {size:,} bytes" + (f" of {expected:,}" if expected else ", its end is missing")


def foreign_text(head: bytes, expected: str) -> str:
    """Say what a file is that isn't `expected`, from its first bytes."""
    start = head.lstrip().lower()
    if not head:
        return "is empty"
    if head.startswith(GIT_LFS):
        return "is only a pointer of Git LFS to the weights, not the weights"
    if start.startswith((b"<!doctype", b"<html")):
        return f"is a web page, not a {expected}: its download was answered with a page"
    return f"is no {expected}"


def _read_pickle(path: Path, name: str) -> Any:
    with path.open("rb") as file:
        head = file.read(64)
    zipped = head.startswith(ZIP)
    if zipped and not zipfile.is_zipfile(path):
        raise damaged_error(name, truncation_text(path.stat().st_size))
    if not zipped and not head.startswith(LEGACY):
        _refuse_code(path, name)
        raise damaged_error(name, foreign_text(head, "torch checkpoint"))
    try:
        with torch.serialization.safe_globals(_stand_ins(path) if zipped else []):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, TypeError, LookupError) as error:
        _refuse_code(path, name)
        if "unexpected EOF" in str(error) or isinstance(error, EOFError):
            raise damaged_error(name, truncation_text(path.stat().st_size)) from error
        raise damaged_error(name, "is no torch checkpoint, or is damaged") from error


def _refuse_code(path: Path, name: str) -> None:
    """Raise weights_unsafe if the pickle names anything but tensors and what trainings leave beside them."""
    if code := next((found for found in named_globals(path) if not found.startswith(HARMLESS + LEFTOVERS)), ""):
        raise EngineError(
            "weights_unsafe",
            f"the weight file {name} would run code ({code}) when it is opened, so it was not opened",
            f"don't use this file; {repair_hint(name)}",
        )


def _stand_ins(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    return [(Leftover, found) for found in set(named_globals(path)) if found.startswith(LEFTOVERS)]


def named_globals(path: Path) -> Iterator[str]:
    """What a pickle, alone or inside a torch zip, would import: read from its opcodes, nothing is executed."""
    try:
        stream = BytesIO(_pickles_in(path))
        for _ in range(MOST_PICKLES):
            yield from _globals_of_one(stream)
    except (ValueError, EOFError, OSError, KeyError, LookupError, zipfile.BadZipFile, NotImplementedError):
        return


def _globals_of_one(stream: BytesIO) -> Iterator[str]:
    """Of one pickle; the stream stands at its end afterwards. Raises ValueError where there is none."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def _pickles_in(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(LONGEST_HEADER_BYTES)
    with zipfile.ZipFile(path) as archive:
        inside = [info for info in archive.infolist() if info.filename.endswith("data.pkl")]
        with archive.open(inside[0]) as file:
            return file.read(LONGEST_HEADER_BYTES)
