"""What every worker opens, by the settings."""

from __future__ import annotations

from agent.settings import Settings
from gpu_pool.types import DeviceKind
from models.catalog import choose_engine

HANDLER = "models.handler:open_handler"
UNLOADED = {"preload": ""}
"""The options of a worker that loads no model before it has a span."""


def make_handler_options(settings: Settings) -> dict[DeviceKind, dict[str, str]]:
    """Return the options of the handler for workers on each kind of device."""
    models_dir = str(settings.models_dir)
    return {
        "cpu": {"preload": "", "models_dir": models_dir},
        "cuda": {"preload": choose_preload(settings), "models_dir": models_dir},
    }


def choose_preload(settings: Settings) -> str:
    """Return the engine that workers on cards load when they start, "" for none."""
    choice = choose_engine("auto", settings.models_dir, {"cpu", "cuda"})
    return choice.engine if settings.devices.preload and choice.kind == "cuda" else ""
