"""The checks of `musedrop selftest` and `musedrop tune` that a worker runs, by name.

Each returns figures; `agent/selftest/` judges them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.musetalk.inpainting.precision import has_cpu_bf16
from models.musetalk.selftest import accuracy, encoding, performance, tuning
from models.types import ProgressCallback

Figures = dict[str, Any]
UUID = re.compile(r"(?:gpu-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
BF16_MAJOR = 8
"""The first compute capability that multiplies bf16; older cards may lack kernels for it."""

Check = Callable[[torch.device, dict[str, Any], Callable[[], None]], Figures]


def describe_device(device: torch.device, *_: Any) -> Figures:
    """Return how this worker sees its device: of a card the UUID by which CUDA knows it."""
    told = {"torch": torch.__version__, "cuda": torch.version.cuda or "", "threads": torch.get_num_threads()}
    if device.type == "cpu":
        return {**told, "device": "cpu", "count": len(os.sched_getaffinity(0)), "bf16": has_cpu_bf16()}
    if not torch.cuda.is_available():
        return {**told, "device": "", "count": 0}
    about = torch.cuda.get_device_properties(device)
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return {
        **told,
        "device": read_uuid(about),
        "count": torch.cuda.device_count(),
        "name": about.name,
        "bf16": about.major >= BF16_MAJOR,
        "capability": f"{about.major}.{about.minor}",
        "architectures": " ".join(torch.cuda.get_arch_list()),
        "free_bytes": free_bytes,
        "total_bytes": total_bytes,
    }


def read_uuid(about: Any) -> str:
    """Return the UUID of a card as the driver writes it, "" where this torch doesn't know it."""
    found = UUID.fullmatch(str(getattr(about, "uuid", "")).lower())
    return f"GPU-{found[1]}" if found else ""


def _models_dir(payload: dict[str, Any]) -> Path:
    return Path(payload["models_dir"])


CHECKS: dict[str, Check] = {
    "device": describe_device,
    "networks": lambda device, asked, tick: accuracy.compare_networks(device, asked["precision"], tick),
    "face networks": lambda device, _, tick: accuracy.compare_face_networks(device, tick),
    "copies": lambda device, *_: performance.measure_copies(device),
    "encoders": lambda _device, _asked, tick: encoding.compare_encoders(tick),
    "precisions": lambda device, asked, tick: accuracy.compare_precisions(device, _models_dir(asked), tick),
    "batches": lambda device, asked, tick: accuracy.compare_batches(device, _models_dir(asked), tick),
    "compiled": lambda device, asked, tick: accuracy.compare_compiled(
        device, _models_dir(asked), Path(asked["cache"]), tick
    ),
    "forms": lambda device, asked, tick: performance.compare_forms(device, _models_dir(asked), tick),
    "speed": lambda device, asked, tick: performance.measure_speed(device, _models_dir(asked), tick),
    "faces": lambda device, asked, tick: performance.paint_and_hash(device, _models_dir(asked), tick),
    "batch rates": lambda device, asked, tick: tuning.measure_batches(device, _models_dir(asked), tick),
    "compiled rate": lambda device, asked, tick: tuning.measure_compiled(
        device, _models_dir(asked), asked["batch"], Path(asked["cache"]), tick
    ),
    "pace": lambda device, asked, tick: tuning.measure_pace(device, tuning.Pace.read(asked), tick),
    "hold": lambda device, asked, _: performance.hold_networks(device, _models_dir(asked)),
}


def run_check(device: str, payload: dict[str, Any], progress: ProgressCallback) -> Figures:
    """Run the check that the payload names on the worker's device; `device` is the worker's id.

    A PyTorch that can't use the card refuses no check: the figures of "device" say so, and no other check follows.
    """
    chosen = torch.device("cpu" if device.startswith("cpu") else "cuda:0")
    return CHECKS[payload["check"]](chosen, payload, lambda: progress(0))
