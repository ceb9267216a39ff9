"""The engines that make a clip of a photo, and which can run here. Imports nothing heavy, for the daemon's sake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from models.catalog import EngineChoice, choose_kind, find_missing_packages, has_cuda_torch, is_installed
from models.checkpoints.manifest import stamp_files
from models.musev.weights.index import list_missing_for_default, list_used_files
from models.types import DeviceKind, EngineError, EngineInfo

PACKAGES = ("torch", "diffusers", "transformers", "safetensors")
MOTION_ENGINES: dict[str, EngineInfo] = {
    info.name: info
    for info in (
        EngineInfo(
            name="musev",
            factory="models.musev.engine:MuseVEngine",
            kinds=("cuda", "cpu"),
            packages=PACKAGES,
            extra="motion",
            summary="MuseV: its weights are for non-commercial research only",
        ),
        EngineInfo(
            name="diffusers",
            factory="models.motion.diffusers.engine:DiffusersEngine",
            kinds=("cuda", "cpu"),
            packages=(*PACKAGES, "ftfy", "accelerate"),
            extra="motion",
            summary="image-to-video pipelines of diffusers, such as Wan 2.2 TI2V-5B (Apache-2.0)",
        ),
    )
}
FETCH_MUSEV = "musedrop models fetch --engine musev --accept-licence"
MISSING = 'get the weights (docs/motion.md says which and where), or leave out "motion"'


def find_pipelines(models_dir: Path) -> list[Path]:
    """Return the folders of image-to-video pipelines, by name."""
    return sorted(path.parent for path in (models_dir / "motion").glob("*/model_index.json"))


def list_missing_pipelines(models_dir: Path) -> list[str]:
    return [] if find_pipelines(models_dir) else ["motion/wan2.2-ti2v-5b/model_index.json"]


WEIGHT_CHECKS: dict[str, Callable[[Path], list[str]]] = {
    "musev": list_missing_for_default,
    "diffusers": list_missing_pipelines,
}
"""Functions that list the missing files of an engine, in the default variant."""


def list_pipeline_files(models_dir: Path, motion: Mapping[str, Any]) -> list[Path]:
    """Return all files of the pipeline that a job asks for, by default the first."""
    variant = motion.get("variant", "")
    folders = [folder for folder in find_pipelines(models_dir) if variant in ("", folder.name)]
    return sorted(path for folder in folders[:1] for path in folder.rglob("*") if path.is_file())


USED_FILES: dict[str, Callable[[Path, Mapping[str, Any]], list[Path]]] = {
    "musev": list_used_files,
    "diffusers": list_pipeline_files,
}
"""Functions that list the files which decide a clip, of what a job asks for; see `Request.motion`."""


def stamp_motion(models_dir: Path, motion: Mapping[str, Any]) -> str:
    """Return a hash of names, sizes and times of the files that a clip is made with, "" where some are missing."""
    try:
        return stamp_files(USED_FILES[motion["engine"]](models_dir, motion))
    except (OSError, EngineError):
        return ""


def explain_unavailable(engine: EngineInfo, models_dir: Path) -> str:
    """Return why the engine can't run here, or "" if it can."""
    if not is_installed(engine):
        return f"the {engine.name} engine is not part of this installation"
    if absent := find_missing_packages(engine):
        return f"{', '.join(absent)} not installed (`pip install '.[{engine.extra}]'`)"
    check = WEIGHT_CHECKS.get(engine.name)
    missing = check(models_dir) if check else []
    return f"{len(missing)} of its files are missing in {models_dir} ({missing[0]} first)" if missing else ""


def suggest_command(engine: EngineInfo) -> str:
    """Return the command that gets what an engine lacks; "" where there is none."""
    if find_missing_packages(engine):
        return f"pip install '.[{engine.extra}]'"
    return FETCH_MUSEV if engine.name == "musev" else ""


def choose_motion(asked: str | None, models_dir: Path, kinds: Iterable[DeviceKind]) -> EngineChoice | None:
    """Resolve `auto` to the first engine with weights, or check the one asked for; None where none is.

    Raises EngineError engine_unavailable.
    """
    if asked is None:
        return None
    names = list(MOTION_ENGINES) if asked == "auto" else [asked]
    reasons = {name: explain_unavailable(MOTION_ENGINES[name], models_dir) for name in names}
    found = next((name for name, why in reasons.items() if not why), None)
    if found is None:
        why = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        command = "" if asked == "auto" else suggest_command(MOTION_ENGINES[asked])
        hint = f'run `{command}`, or leave out "motion"' if command else MISSING
        raise EngineError("engine_unavailable", f"the job asks for motion, but no engine can make it: {why}", hint)
    present = tuple(kinds) if has_cuda_torch() else ("cpu",)
    said = "its weights are installed" if asked == "auto" else "asked for by the job"
    return EngineChoice(found, choose_kind(MOTION_ENGINES[found], present), said)
