"""Tunings as `musedrop tune` writes them."""

from __future__ import annotations

from typing import Any

from agent.scheduler.tuning import Choice, Tuning, find_torch_version
from agent.settings import Settings
from models.catalog import stamp_weights

CHOICE = Choice(batch_size=8, compile=True, encoder="h264_nvenc", workers=2)


def make_tuning(settings: Settings, device: str = "GPU-aaaa1111", card: str = "Card", **more: Any) -> Tuning:
    """Return a tuning that holds for what is installed."""
    usual: dict[str, Any] = {
        "device": device,
        "card": card,
        "name": card,
        "driver": "580.1",
        "at_ms": 1,
        "seconds": 2.0,
    }
    holds = {"torch": find_torch_version(), "weights": stamp_weights(settings.models_dir)}
    return Tuning(**{**usual, **holds, "choice": CHOICE, **more})
