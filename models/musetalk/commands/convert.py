"""Weights of any form -> safetensors of our own, with a manifest: done once, and no start needs a pickle again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.atomic import atomic_write
from models.musetalk.inpainting import fused_weights as ready
from models.musetalk.inpainting.precision import DTYPES, name_of
from models.musetalk.weights.checkpoint import damaged, read_state
from models.musetalk.weights.index import CONVERTED, PARTS, READY_PARTS, Found, Part, Variant, check_room, forms
from models.musetalk.weights.loader import examined
from models.musetalk.weights.manifest import Entry, entry_of, hashed, read_manifest, recorded_sha256, write_entry
from models.types import EngineError


@dataclass(frozen=True, slots=True)
class Step:
    """One part to bring over: from where, and whether `target` has it already."""

    found: Found
    target: Path
    done: bool

    @property
    def converted(self) -> Variant:
        return self.found.part.variants[0]

    @property
    def result(self) -> Found:
        return Found(self.found.part, self.converted, self.target)

    @property
    def here(self) -> bool:
        """Whether the part is a conversion in `target` itself, whose source is not there any more."""
        return self.found.variant.form == "converted" and self.found.root == self.target

    @property
    def bytes(self) -> int:
        return 0 if self.here else self.found.weights.stat().st_size


def plan(source: Path, target: Path, *, replace: bool) -> list[Step]:
    """What an import from `source` into `target` has to do; parts that are not in `source` are left out."""
    steps, same = [], source.resolve() == target.resolve()
    for part in PARTS:
        found, own = importable(part, source, same=same), Found(part, part.variants[0], target)
        if found is not None:
            steps.append(Step(found, target, not replace and up_to_date(found, target)))
        elif same and own.variant.complete(target):
            steps.append(Step(own, target, vouched_for(own)))
    return steps


def importable(part: Part, source: Path, *, same: bool) -> Found | None:
    """The best form of a part in `source`; its own conversions count only when they are brought somewhere else."""
    for variant in forms(part):
        if not (same and variant.form == "converted") and variant.complete(source):
            return Found(part, variant, source)
    return None


def up_to_date(found: Found, target: Path) -> bool:
    if found.variant.form == "onnx":
        copy = target / found.variant.weights
        return copy.is_file() and copy.stat().st_size == found.weights.stat().st_size
    converted = found.part.variants[0]
    if not converted.complete(target):
        return False
    entry = read_manifest(target / CONVERTED).get(Path(converted.weights).name)
    known = entry is not None and entry.source is not None and entry.source.fits(entry_of(found.weights))
    return known and vouched_for(Found(found.part, converted, target))


@dataclass(frozen=True, slots=True)
class ReadyStep:
    """One ready file that has to be there when its part has been brought."""

    step: Step
    dtype: torch.dtype
    replace: bool

    @property
    def name(self) -> str:
        return f"{self.step.found.part.name} in {name_of(self.dtype)}"

    @property
    def done(self) -> bool:
        return self.step.done and not self.replace and ready.is_written(self.step.result, self.dtype)

    @property
    def bytes(self) -> int:
        return ready.size_of(self.step.found, self.dtype)

    def take(self) -> str:
        found = self.step.result
        kept = not self.replace and ready.is_written(found, self.dtype)
        return "already there" if kept else ready.write(found, self.dtype)


def vouched_for(own: Found) -> bool:
    """Whether the manifest knows a conversion as it is now: not after a copy that lost the times of its files."""
    return all(recorded_sha256(path.parent, path.name) for path in (own.weights, *own.configs))


def bring(step: Step) -> str:
    """Do one step: what appears in `target` is whole, read again and found equal. Returns what was done."""
    found, target = step.found, step.target
    if found.variant.form == "onnx":
        copy(found.weights, target / found.variant.weights)
        return f"{found.variant.weights} copied as it is"
    if step.here:
        return recognised(found)
    state, _ = examined(found)
    folder = target / CONVERTED
    folder.mkdir(exist_ok=True)
    for path, name in zip(found.configs, step.converted.configs, strict=True):
        copy(path, target / name)
    weights = target / step.converted.weights
    with atomic_write(weights) as path:
        save_file({name: alone(tensor) for name, tensor in state.items()}, path, metadata={"format": "pt"})
        path.chmod(0o644)
        ready.compare(state, read_state(path, step.converted.weights), step.converted.weights)
    source = replace(hashed(found.weights), path=known_as(found, target))
    stamp = replace(hashed(weights), path=weights.name)
    write_entry(folder, weights.name, Entry(stamp, source=source))
    for name in step.converted.configs:
        config = target / name
        write_entry(folder, config.name, Entry(replace(hashed(config), path=config.name)))
    return f"{step.converted.weights}: {len(state)} tensors, {stamp.bytes / 2**20:,.0f} MiB"


def recognised(own: Found) -> str:
    """Enter a conversion, whose source is not here any more, into its manifest anew, if it is still what it was."""
    examined(own)
    for path, file in zip((own.weights, *own.configs), own.variant.files, strict=True):
        before, stamp = read_manifest(path.parent).get(path.name), replace(hashed(path), path=path.name)
        if before is not None and before.stamp.sha256 != stamp.sha256:
            raise damaged(file, "has changed since it was converted")
        write_entry(path.parent, path.name, Entry(stamp, source=before.source if before else None))
    return f"{own.variant.weights} recognised"


def alone(tensor: Tensor) -> Tensor:
    """A tensor that fills its own storage, as safetensors wants it; the same one where it does already."""
    fills = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if fills and tensor.is_contiguous() else tensor.contiguous().clone()


def copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as path:
            shutil.copyfile(source, path)


def known_as(found: Found, target: Path) -> str:
    """The source's path as the manifest keeps it: relative where it lies in the same folder."""
    inside = found.weights.resolve().is_relative_to(target.resolve())
    return str(found.weights.resolve().relative_to(target.resolve()) if inside else found.weights.resolve())


def import_folder(source: Path, target: Path, *, replace: bool, precisions: Sequence[str] = ()) -> Iterator[str]:
    """Bring all parts of `source` into `target`; yields a line for each. Raises EngineError.

    precisions   "fp16", "bf16", "fp32": in these a start will find UNet and VAE ready
    """
    target.mkdir(parents=True, exist_ok=True)
    steps = plan(source, target, replace=replace)
    if not steps:
        raise EngineError(
            "weights_missing",
            f"{source} holds no weights of MuseTalk in any known form",
            "give the folder `models` of a MuseTalk installation, or get one with `musedrop models fetch`",
        )
    able = [step for step in steps if step.found.part.name in READY_PARTS]
    finishing = [ReadyStep(step, DTYPES[name], replace) for step in able for name in precisions]
    everything: list[Step | ReadyStep] = [*steps, *finishing]
    check_room(target, sum(one.bytes for one in everything if not one.done), "the conversion needs")
    for step in steps:
        yield f"{step.found.part.name}: already converted" if step.done else f"{step.found.part.name}: {bring(step)}"
    for last in finishing:
        yield f"{last.name}: {last.take()}"
