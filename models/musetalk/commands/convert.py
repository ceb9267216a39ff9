"""Weights of any form -> safetensors of our own, with a manifest: done once, and no start needs a pickle again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.atomic import atomic_write, atomic_write_by_name
from models.checkpoints.manifest import Entry, hashed_stamp, read_manifest, recorded_sha256, stamp_of, write_entry
from models.checkpoints.sources import check_room
from models.musetalk.inpainting import fused_weights
from models.musetalk.inpainting.precision import DTYPES, precision_name
from models.musetalk.weights.checkpoint import damaged_error, read_state
from models.musetalk.weights.download_caches import show_as_models_folder
from models.musetalk.weights.index import (
    CONVERTED,
    PARTS,
    READY_PARTS,
    InstalledPart,
    Part,
    Variant,
    forms_of,
)
from models.musetalk.weights.loader import read_part
from models.types import EngineError


@dataclass(frozen=True, slots=True)
class ImportStep:
    """One part to bring over: from where, and whether `target` has it already."""

    found: InstalledPart
    target: Path
    is_done: bool

    @property
    def converted(self) -> Variant:
        return self.found.part.variants[0]

    @property
    def result(self) -> InstalledPart:
        return InstalledPart(self.found.part, self.converted, self.target)

    @property
    def is_in_place(self) -> bool:
        """Whether the part is a conversion in `target` itself, whose source is not there any more."""
        return self.found.variant.form == "converted" and self.found.root == self.target

    @property
    def bytes(self) -> int:
        return 0 if self.is_in_place else self.found.weights.stat().st_size


def plan_import(source: Path, target: Path, *, replace: bool) -> list[ImportStep]:
    """Return what an import from `source` into `target` has to do, without the parts that `source` lacks."""
    steps, same = [], source.resolve() == target.resolve()
    for part in PARTS:
        found, own = find_importable(part, source, same=same), InstalledPart(part, part.variants[0], target)
        if found is not None:
            steps.append(ImportStep(found, target, not replace and is_up_to_date(found, target)))
        elif same and own.variant.is_complete(target):
            steps.append(ImportStep(own, target, is_recorded(own)))
    return steps


def find_importable(part: Part, source: Path, *, same: bool) -> InstalledPart | None:
    """Return the best form of a part in `source`; in the same folder its conversions do not count."""
    for variant in forms_of(part):
        if not (same and variant.form == "converted") and variant.is_complete(source):
            return InstalledPart(part, variant, source)
    return None


def is_up_to_date(found: InstalledPart, target: Path) -> bool:
    if found.variant.form == "onnx":
        copy = target / found.variant.weights
        return copy.is_file() and copy.stat().st_size == found.weights.stat().st_size
    converted = found.part.variants[0]
    if not converted.is_complete(target):
        return False
    entry = read_manifest(target / CONVERTED).get(Path(converted.weights).name)
    known = entry is not None and entry.source is not None and entry.source.matches(stamp_of(found.weights))
    return known and is_recorded(InstalledPart(found.part, converted, target))


@dataclass(frozen=True, slots=True)
class ReadyFileStep:
    """One ready file that has to be there when its part has been brought."""

    step: ImportStep
    dtype: torch.dtype
    replace: bool

    @property
    def name(self) -> str:
        return f"{self.step.found.part.name} in {precision_name(self.dtype)}"

    @property
    def is_done(self) -> bool:
        return self.step.is_done and not self.replace and fused_weights.has_ready_file(self.step.result, self.dtype)

    @property
    def bytes(self) -> int:
        return fused_weights.ready_file_bytes(self.step.found, self.dtype)

    def run(self) -> str:
        found = self.step.result
        kept = not self.replace and fused_weights.has_ready_file(found, self.dtype)
        return "already there" if kept else fused_weights.write_ready_file(found, self.dtype)


def is_recorded(own: InstalledPart) -> bool:
    """Whether the manifest knows a conversion as it is now: not after a copy that lost the times of its files."""
    return all(recorded_sha256(path.parent, path.name) for path in own.files)


def import_weights(step: ImportStep) -> str:
    """Do one step: what appears in `target` is whole, read again and found equal. Returns what was done."""
    found, target = step.found, step.target
    if found.variant.form == "onnx":
        copy_file(found.weights, target / found.variant.weights)
        return f"{found.variant.weights} copied as it is"
    if step.is_in_place:
        return renew_record(found)
    state, _ = read_part(found)
    folder = target / CONVERTED
    folder.mkdir(exist_ok=True)
    for path, name in zip(found.configs, step.converted.configs, strict=True):
        copy_file(path, target / name)
    weights = target / step.converted.weights
    with atomic_write_by_name(weights) as path:
        save_file({name: with_own_storage(tensor) for name, tensor in state.items()}, path, metadata={"format": "pt"})
        path.chmod(0o644)
        fused_weights.check_equal(state, read_state(path, step.converted.weights), step.converted.weights)
    source = replace(hashed_stamp(found.weights), path=source_name(found, target))
    stamp = replace(hashed_stamp(weights), path=weights.name)
    write_entry(folder, weights.name, Entry(stamp, source=source))
    for name in step.converted.configs:
        config = target / name
        write_entry(folder, config.name, Entry(replace(hashed_stamp(config), path=config.name)))
    return f"{step.converted.weights}: {len(state)} tensors, {stamp.bytes / 2**20:,.0f} MiB"


def renew_record(own: InstalledPart) -> str:
    """Enter a conversion, whose source is not here any more, into its manifest anew, if it is still what it was."""
    read_part(own)
    for path, file in zip(own.files, own.variant.files, strict=True):
        before, stamp = read_manifest(path.parent).get(path.name), replace(hashed_stamp(path), path=path.name)
        if before is not None and before.stamp.sha256 != stamp.sha256:
            raise damaged_error(file, "has changed since it was converted")
        write_entry(path.parent, path.name, Entry(stamp, source=before.source if before else None))
    return f"{own.variant.weights} recognised"


def with_own_storage(tensor: Tensor) -> Tensor:
    """Return a tensor that fills its own storage, as safetensors requires; the same one if it does already."""
    fills = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if fills and tensor.is_contiguous() else tensor.contiguous().clone()


def copy_file(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as path:
            shutil.copyfile(source, path)


def source_name(found: InstalledPart, target: Path) -> str:
    """Return the path of the source for the manifest: relative where it is in the same folder."""
    inside = found.weights.resolve().is_relative_to(target.resolve())
    return str(found.weights.resolve().relative_to(target.resolve()) if inside else found.weights.resolve())


def import_folder(source: Path, target: Path, *, replace: bool, precisions: Sequence[str] = ()) -> Iterator[str]:
    """Bring all parts of `source` into `target`; yields a line for each. Raises EngineError.

    source       a models folder, or the download cache of Hugging Face or ModelScope
    precisions   "fp16", "bf16", "fp32": in these a start will find UNet and VAE ready
    """
    target.mkdir(parents=True, exist_ok=True)
    with show_as_models_folder(source) as folder:
        steps = plan_import(folder, target, replace=replace)
        if not steps:
            raise EngineError(
                "weights_missing",
                f"{source} holds no weights of MuseTalk in any known form",
                "give the folder `models` of a MuseTalk installation, or get one with `musedrop models fetch`",
            )
        able = [step for step in steps if step.found.part.name in READY_PARTS]
        finishing = [ReadyFileStep(step, DTYPES[name], replace) for step in able for name in precisions]
        everything: list[ImportStep | ReadyFileStep] = [*steps, *finishing]
        check_room(target, sum(one.bytes for one in everything if not one.is_done), "the conversion needs")
        for step in steps:
            yield f"{step.found.part.name}: {'already converted' if step.is_done else import_weights(step)}"
        for last in finishing:
            yield f"{last.name}: {last.run()}"
