"""Weights of MuseV -> fp16 safetensors of our own, with a manifest: done once, and no start needs a pickle again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as change
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.atomic import atomic_write_by_name
from models.checkpoints.manifest import Entry, hashed_stamp, recorded_sha256, write_entry
from models.checkpoints.sources import check_room
from models.checkpoints.states import State, damaged_error
from models.musev.weights.index import (
    CONVERTED,
    VARIANTS,
    InstalledPart,
    Part,
    Selection,
    find_part,
    is_file,
    missing_error,
    repair_hint,
)
from models.musev.weights.loader import check_part, read_part

HALF_OF = (torch.float32, torch.float64, torch.bfloat16)


def import_folder(root: Path, base: str, *, replace: bool) -> Iterator[str]:
    """Convert all parts that are there; yields a line for each. Raises EngineError.

    `base` is the folder of a base model inside `root`.
    """
    parts = {part.name: (selection, part) for selection, part in list_parts(base)}
    found = {name: (selection, find_original(part, root)) for name, (selection, part) in parts.items()}
    work = {name: (selection, one) for name, (selection, one) in found.items() if one}
    if not work:
        raise missing_error(root, Selection(base=base))
    todo = [one for _, one in work.values() if replace or not is_done(one)]
    check_room(root, sum(one.path.stat().st_size // 2 for one in todo), "the conversion needs")
    for name, (selection, one) in work.items():
        done = not replace and is_done(one)
        yield f"{name}: {'already converted' if done else convert_part(one, selection)}"


def list_parts(base: str) -> Iterator[tuple[Selection, Part]]:
    for variant in VARIANTS:
        selection = Selection(variant, base)
        yield from ((selection, part) for part in selection.parts)


def find_original(part: Part, root: Path) -> InstalledPart | None:
    """Return the best form of a part that is no conversion."""
    if part.config and not is_file(root / part.config_file):
        return None
    return next((InstalledPart(part, root, file) for file in part.originals if is_file(root / file)), None)


def is_done(original: InstalledPart) -> bool:
    """Whether there is a conversion that is as the manifest knows it, and not older than its source."""
    found = find_part(original.part, original.root)
    if found is None or found.file != original.part.converted:
        return False
    return bool(recorded_sha256(original.root / CONVERTED, found.path.name))


def convert_part(found: InstalledPart, selection: Selection) -> str:
    """Write one conversion, read again and found equal, and enter it into the manifest. Returns what was done."""
    check_part(found, selection)
    state = {name: to_half(tensor) for name, tensor in read_part(found).items()}
    target = found.root / found.part.converted
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write_by_name(target) as path:
        save_file(state, path, metadata={"format": "pt"})
        path.chmod(0o644)
        check_equal(state, path, found.part.converted)
    source = change(hashed_stamp(found.path), path=found.file)
    stamp = change(hashed_stamp(target), path=target.name)
    write_entry(target.parent, target.name, Entry(stamp, source=source))
    return f"{found.part.converted}: {len(state)} tensors, {stamp.bytes / 2**20:,.0f} MiB"


def to_half(tensor: Tensor) -> Tensor:
    """Return a tensor with storage of its own, in fp16 where it has a floating point."""
    return (tensor.half() if tensor.dtype in HALF_OF else tensor).contiguous().clone()


def check_equal(state: State, path: Path, name: str) -> None:
    """Raise EngineError weights_damaged unless the file holds these tensors."""
    from models.checkpoints.states import read_state

    written = read_state(path, "written.safetensors", repair_hint(name))
    if written.keys() != state.keys() or not all(torch.equal(written[key], one) for key, one in state.items()):
        raise damaged_error(name, "does not hold what was written", repair_hint(name))
