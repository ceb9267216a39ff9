"""The engines there are, and which of them can run here. Imports nothing heavy: the daemon reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from models.musetalk.weights import index as layout
from models.types import DeviceKind, EngineError, EngineInfo

ENGINES: dict[str, EngineInfo] = {
    card.name: card
    for card in (
        EngineInfo(
            name="musetalk",
            factory="models.musetalk.engine:MuseTalkEngine",
            kinds=("cuda", "cpu"),
            packages=("torch", "diffusers", "transformers", "safetensors", "soxr", "onnxruntime"),
            extra="musetalk",
            weights=tuple(layout.published_files("v15")),
            summary="MuseTalk lip-sync: needs its weights, and a GPU to be of use",
        ),
        EngineInfo(
            name="preview",
            factory="models.preview.engine:PreviewEngine",
            kinds=("cpu",),
            summary="moves the mouth of a portrait on the CPU; needs no downloaded weights",
        ),
    )
}

FORMS: dict[str, Callable[[Path], list[str]]] = {"musetalk": layout.missing_files}
"""Engines whose weights may lie in several forms: what tells which files are missing."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine runs a job, on which kind of device, and why this one."""

    engine: str
    kind: DeviceKind
    reason: str


def find_missing_weights(card: EngineInfo, models_dir: Path) -> list[str]:
    """Names of the files that are still needed; weights that lie there in another form or version count."""
    if card.name in FORMS:
        return FORMS[card.name](models_dir)
    return [file for file in card.weights if not (models_dir / file).is_file()]


def find_missing_packages(card: EngineInfo) -> list[str]:
    return [name for name in card.packages if find_spec(name) is None]


def install_command(card: EngineInfo, models_dir: Path) -> str:
    """The command that brings what is missing, or ""."""
    if find_missing_packages(card):
        return f"pip install '.[{card.extra}]'"
    return "musedrop models fetch" if find_missing_weights(card, models_dir) else ""


def is_installed(card: EngineInfo) -> bool:
    """Whether the code of the engine is here; `find_spec` looks without importing it."""
    package, _, _ = card.factory.partition(":")
    parent = package.rpartition(".")[0]
    return find_spec(parent) is not None and find_spec(package) is not None


def unavailable_reason(card: EngineInfo, models_dir: Path, kinds: Iterable[DeviceKind]) -> str:
    """Why the engine can't run here, or "" if it can."""
    if not is_installed(card):
        return f"the {card.name} engine is not part of this installation"
    if absent := find_missing_packages(card):
        return f"{', '.join(absent)} not installed (`{install_command(card, models_dir)}`)"
    if missing := find_missing_weights(card, models_dir):
        files = f"{len(missing)} weight files are missing ({missing[0]} first)"
        return f"{files}; `{install_command(card, models_dir)}` gets them"
    if not set(card.kinds) & set(kinds):
        return f"no device of kind {' or '.join(card.kinds)} is available"
    return ""


def choose_engine(asked: str, models_dir: Path, kinds: Iterable[DeviceKind]) -> EngineChoice:
    """Resolve `auto`, or check the engine that was asked for. Raises EngineError(engine_unavailable)."""
    present = tuple(kinds)
    if asked != "auto":
        card = ENGINES[asked]
        if why := unavailable_reason(card, models_dir, present):
            hint = 'install what is missing (`musedrop doctor` lists it), or ask for "auto" or "preview"'
            raise EngineError("engine_unavailable", f'the job asks for the engine "{asked}", but {why}', hint)
        return EngineChoice(asked, choose_kind(card, present), "asked for by the job")
    musetalk = ENGINES["musetalk"]
    why = unavailable_reason(musetalk, models_dir, present) or ("" if "cuda" in present else "there is no GPU")
    if not why:
        return EngineChoice("musetalk", "cuda", "auto: its weights are installed and a GPU is available")
    return EngineChoice("preview", "cpu", f"auto: not musetalk, because {why}")


def choose_kind(card: EngineInfo, present: tuple[DeviceKind, ...]) -> DeviceKind:
    return next(kind for kind in card.kinds if kind in present)
