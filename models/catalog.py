"""The known engines, and which can run here. Imports nothing heavy, for the daemon's sake."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from models.checkpoints.manifest import stamp_files
from models.musetalk.weights import index as layout
from models.types import DeviceKind, EngineError, EngineInfo

ENGINES: dict[str, EngineInfo] = {
    info.name: info
    for info in (
        EngineInfo(
            name="musetalk",
            factory="models.musetalk.engine:MuseTalkEngine",
            kinds=("cuda", "cpu"),
            packages=("torch", "diffusers", "safetensors", "soxr", "onnxruntime"),
            extra="musetalk",
            weights=tuple(layout.published_files("v15")),
            summary="MuseTalk lip-sync: needs its weights, and a GPU to be of use",
        ),
        EngineInfo(
            name="preview",
            factory="models.preview.engine:PreviewEngine",
            kinds=("cpu",),
            summary="moves the mouth of a portrait on the CPU; needs no downloaded weights",
            has_seed=True,
        ),
    )
}

BLIND_TORCH = "the installed PyTorch is a build for processors alone (https://pytorch.org has those for cards)"

WEIGHT_CHECKS: dict[str, Callable[[Path, object], list[str]]] = {"musetalk": layout.missing_files}
"""Engines whose weights have several valid forms, each with a function that lists missing files.

Its second argument is the version that a job asks for, None for the default."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine that runs a job, the kind of device, and the reason for the choice."""

    engine: str
    kind: DeviceKind
    reason: str


def find_missing_weights(engine: EngineInfo, models_dir: Path, version: object = None) -> list[str]:
    """Return the names of missing weight files; another form counts as present.

    So does another version, unless one is asked for.
    """
    if engine.name in WEIGHT_CHECKS:
        return WEIGHT_CHECKS[engine.name](models_dir, version)
    return [file for file in engine.weights if not (models_dir / file).is_file()]


def sum_download_bytes(files: Iterable[str]) -> int:
    """Return the bytes of published files, as far as their sizes are known."""
    return sum(layout.SOURCES[file].bytes or 0 for file in files if file in layout.SOURCES)


def stamp_weights(models_dir: Path) -> str:
    """Return a hash of names, sizes and times of MuseTalk's files that jobs use, "" where some are missing.

    Nothing is read of them: the hash is another as soon as a file is replaced.
    """
    try:
        return stamp_files(layout.list_installed_files(models_dir))
    except OSError:  # a file went away between two looks
        return ""


def find_changed_weights(models_dir: Path, hashes: Mapping[str, str]) -> dict[str, str]:
    """Return what has become of the weights of a result: "changed", or "gone" where there is no such file any more.

    What their manifests note of them is compared; a file that they don't know is "unknown".
    """
    found = {name: layout.read_hash(models_dir, name) for name in hashes if (models_dir / name).is_file()}
    states = {name: "gone" if name not in found else "changed" if found[name] else "unknown" for name in hashes}
    return {name: state for name, state in states.items() if found.get(name) != hashes[name]}


def find_missing_packages(engine: EngineInfo) -> list[str]:
    """Return the modules that the engine imports and this Python does not have."""
    return [name for name in engine.packages if find_spec(name) is None]


def suggest_command(engine: EngineInfo, models_dir: Path, version: object = None) -> str:
    """Return the command that installs what is missing, or ""."""
    if find_missing_packages(engine):
        return f"pip install '.[{engine.extra}]'"
    if not find_missing_weights(engine, models_dir, version):
        return ""
    return f"musedrop models fetch --version {version}" if version in layout.VERSIONS else "musedrop models fetch"


@cache
def has_cuda_torch() -> bool:
    """Whether the installed PyTorch is a build for cards; True where that can't be told.

    Its version file is read, not imported: importing takes seconds.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return True
    return re.search(r"^cuda\b[^=\n]*=\s*None", text, re.MULTILINE) is None


def is_installed(engine: EngineInfo) -> bool:
    """Whether this installation has the engine's code; `find_spec` checks without importing it."""
    package, _, _ = engine.factory.partition(":")
    parent = package.rpartition(".")[0]
    return find_spec(parent) is not None and find_spec(package) is not None


def explain_unavailable(
    engine: EngineInfo, models_dir: Path, kinds: Iterable[DeviceKind], version: object = None
) -> str:
    """Return why the engine can't run here, or "" if it can.

    `version` is that of the weights which the job asks for, None for those that are here.
    """
    if not is_installed(engine):
        return f"the {engine.name} engine is not part of this installation"
    if absent := find_missing_packages(engine):
        return f"{', '.join(absent)} not installed (`{suggest_command(engine, models_dir)}`)"
    if missing := find_missing_weights(engine, models_dir, version):
        files = (
            f"{len(missing)} weight files are missing ({missing[0]} first){layout.note_old_files(models_dir, missing)}"
        )
        return f"{files}; `{suggest_command(engine, models_dir, version)}` gets them"
    if not set(engine.kinds) & set(kinds):
        return f"no device of kind {' or '.join(engine.kinds)} is available"
    return ""


def choose_engine(
    asked: str,
    models_dir: Path,
    kinds: Iterable[DeviceKind],
    version: object = None,
    can_use_cards: bool = True,
) -> EngineChoice:
    """Resolve `auto`, or check the engine asked for.

    `can_use_cards` tells whether PyTorch can, see `has_cuda_torch`.

    `version` is that of the weights which the job asks for, None for those that are here: `auto`
    is no engine that lacks them. Raises EngineError engine_unavailable.
    """
    present = tuple(kinds)
    if asked != "auto":
        engine = ENGINES[asked]
        if why := explain_unavailable(engine, models_dir, present):
            hint = 'install what is missing (`musedrop doctor` lists it), or ask for "auto" or "preview"'
            raise EngineError("engine_unavailable", f'the job asks for the engine "{asked}", but {why}', hint)
        if can_use_cards or choose_kind(engine, present) == "cpu":
            return EngineChoice(asked, choose_kind(engine, present), "asked for by the job")
        return EngineChoice(asked, "cpu", f"asked for by the job; on the processor, because {BLIND_TORCH}")
    musetalk = ENGINES["musetalk"]
    why = explain_unavailable(musetalk, models_dir, present, version)
    if not why and "cuda" not in present:
        why = "there is no GPU"
    if not why and not can_use_cards:
        why = BLIND_TORCH
    if not why:
        return EngineChoice("musetalk", "cuda", "auto: its weights are installed and a GPU is available")
    return EngineChoice("preview", "cpu", f"auto: not musetalk, because {why}")


def choose_kind(engine: EngineInfo, present: tuple[DeviceKind, ...]) -> DeviceKind:
    """Return the kind that the engine prefers among those present."""
    return next(kind for kind in engine.kinds if kind in present)
