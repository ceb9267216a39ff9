"""What must be equal on two machines for their results to have the same bytes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.motion.catalog import find_pipelines
from models.musetalk.weights import index
from models.musev.weights.index import Selection, default_variant, installed_files, list_missing_for_default

PACKAGES = ("numpy", "opencv-python-headless", "av", "torch", "diffusers", "transformers", "onnxruntime")
"""Those that compute pixels or sound, or encode them."""
SOURCES = ("gpu_pool", "models")


def describe_installation(options: Mapping[str, Any]) -> dict[str, str]:
    """Return versions, a hash of the code, and one of the weights, by names that people read.

    `options` are those of `models.handler`. A package that isn't installed has no entry. Of weights names and sizes
    count, not contents, which `musedrop models verify` checks: reading them takes a minute.
    """
    models_dir = Path(options.get("models_dir") or ".")
    weights = {"weights": hash_weights(models_dir), "motion weights": hash_motion_weights(models_dir)}
    return {**describe_code(), **{name: value for name, value in weights.items() if value}}


@cache
def describe_code() -> dict[str, str]:
    """Return the versions and the hash of the code, as they were when this process first asked."""
    packages = {package: find_version(package) for package in PACKAGES}
    known = {name: value for name, value in packages.items() if value}
    return {"Python": platform.python_version(), "code of musedrop": hash_sources(), **known}


def find_version(package: str) -> str:
    """Return the version of a package without importing it, "" where it isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def hash_sources() -> str:
    """Return a hash of the modules that workers run."""
    root = Path(__file__).resolve().parents[1]
    files = sorted(file for package in SOURCES for file in (root / package).rglob("*.py"))
    return hash_parts(part for file in files for part in (str(file.relative_to(root)).encode(), file.read_bytes()))


def hash_weights(models_dir: Path) -> str:
    """Return a hash of the names and sizes of MuseTalk's files, "" where some are missing."""
    return hash_names_and_sizes(index.list_installed_files(models_dir))


def hash_motion_weights(models_dir: Path) -> str:
    """Return the same of MuseV's files, where none is missing, and of all pipelines; "" where there are neither."""
    is_whole = not list_missing_for_default(models_dir)
    musev = installed_files(models_dir, Selection(default_variant(models_dir))) if is_whole else []
    pipelines = [file for folder in find_pipelines(models_dir) for file in sorted(folder.rglob("*.safetensors"))]
    return hash_names_and_sizes([*musev, *pipelines])


def hash_names_and_sizes(files: Iterable[Path]) -> str:
    """Return a hash of the files' names and sizes, "" where there is none, or one can't be read."""
    try:
        parts = [f"{file.name} {file.stat().st_size}".encode() for file in files]
    except OSError:
        return ""
    return hash_parts(parts) if parts else ""


def hash_parts(parts: Iterable[bytes]) -> str:
    """Return twelve digits, so that people can compare them."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()[:12]
