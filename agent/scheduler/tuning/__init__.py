"""tune.json in the state folder: what `musedrop tune` found fastest on each device, which `auto` takes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.fs import atomic_write_bytes
from agent.settings import Settings
from gpu_pool.cards import CardRules
from models.catalog import stamp_weights

FORMAT = 1
PROCESSOR = "cpu"
LARGEST_BATCH = 16
"""Spans of jobs begin at its multiples, so that every smaller batch fits into them."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Choice(Strict):
    """What jobs and settings that say "auto" take on a type of card.

    batch_size  frames that go through the networks at once, at most; memory may allow fewer
    compile     whether UNet and decoder run compiled
    encoder     what makes the videos
    workers     processes on each card
    """

    batch_size: Annotated[int, Field(ge=1, le=LARGEST_BATCH)]
    compile: bool
    encoder: Literal["libx264", "h264_nvenc"]
    workers: Annotated[int, Field(ge=1, le=16)]

    @property
    def summary(self) -> str:
        """One line for people."""
        compiled = "compiled" if self.compile else "not compiled"
        each = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return f"batches of {self.batch_size}, {compiled}, videos by {self.encoder}, {each} a card"


class Tuning(Strict):
    """What was measured on a device.

    card             its type as PyTorch names it, "cpu" for a processor
    name             its type as the driver names it
    torch, weights   what it holds for, as in the report of a self-test
    at_ms            when it was measured, milliseconds since 1970
    figures          frames a second, as JSON
    """

    device: str
    card: str
    name: str
    driver: str
    torch: str
    weights: str
    at_ms: int
    seconds: float
    choice: Choice
    figures: dict[str, Any] = {}


class Tunings(Strict):
    version: int = FORMAT
    devices: tuple[Tuning, ...] = ()


def find_torch_version() -> str:
    """Return the version of torch without importing it, "" where it isn't installed."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def read_tunings(path: Path) -> tuple[Tuning, ...]:
    """Return what is in the file, oldest first; nothing where it is missing or of another kind."""
    try:
        found = Tunings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return ()
    return tuple(sorted(found.devices, key=lambda one: one.at_ms)) if found.version == FORMAT else ()


def write_tunings(path: Path, tunings: Iterable[Tuning]) -> None:
    """Write the file anew, whole; a device that isn't among the tunings keeps its own. Raises OSError."""
    kept = {**{one.device: one for one in read_tunings(path)}, **{one.device: one for one in tunings}}
    found = Tunings(devices=tuple(kept.values())).model_dump(mode="json")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def find_tunings(settings: Settings) -> dict[str, Tuning]:
    """Return the last tuning of each type of device that holds for the torch and the weights of today."""
    if not (found := read_tunings(settings.folders.tuning_file)):
        return {}
    torch, weights = find_torch_version(), stamp_weights(settings.models_dir)
    return {one.card: one for one in found if (one.torch, one.weights) == (torch, weights)}


def card_rules(settings: Settings) -> CardRules:
    """Return which cards are used, and by how many workers each: with "auto" as many as `musedrop tune` chose."""
    devices = settings.devices
    if devices.workers_per_device != "auto":
        return CardRules(devices.only, devices.exclude, devices.workers_per_device)
    chosen = {one.name: one.choice.workers for card, one in find_tunings(settings).items() if card != PROCESSOR}
    return CardRules(devices.only, devices.exclude, workers_of=chosen)
