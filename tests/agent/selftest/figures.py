"""What the workers of a sound card and of a sound processor report, and workers that report it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from agent.selftest.examine import examine_device
from agent.selftest.rows import Row
from agent.selftest.workers import Target
from gpu_pool.types import Done, Failed

CARD = Target("GPU-aaaa1111-0000", "cuda", "Card", "580.1")
CPU = Target("cpu", "cpu", "CPU")
MIB = 1 << 20
EXACT = {"finite": True, "error": 1e-6, "largest": 1e-5}
NETS = {name: dict(EXACT) for name in ("encode", "unet", "decode")}
MOUTH = {"networks": "installed", "precision": "fp16", "psnr_db": 52.0, "largest": 3, "spread": 30.0, "frames": 25}
FACES = {"networks": "installed", "hashes": ["ab"], "seconds": 1.0}

SOUND: dict[str, Any] = {
    "device": {
        "torch": "2.9",
        "cuda": "13.0",
        "threads": 4,
        "device": CARD.id,
        "count": 1,
        "name": "Card",
        "capability": "8.9",
        "bf16": True,
        "free_bytes": 23 << 30,
        "total_bytes": 24 << 30,
    },
    "networks": NETS,
    "face networks": {name: dict(EXACT) for name in ("detector", "pose", "parser", "whisper")},
    "copies": {"to the card": 24.0, "from the card": 25.0, "pageable to the card": 9.0},
    "encoders": {
        "libx264": {"state": "usable", "psnr_db": 48.0, "fps": 200.0, "bytes": 1000},
        "h264_nvenc": {"state": "usable", "psnr_db": 47.0, "fps": 600.0, "bytes": 2000},
    },
    "speed": {
        "networks": "installed",
        "batch": 16,
        "load_s": 2.0,
        "fps": {"whisper": 900.0, "paint": 80.0},
        "memory_bytes": {"before": 0, "peak": 7000 * MIB, "after": 20 * MIB},
    },
    "precisions": {**MOUTH, "wanted": "fp16", "finite": True},
    "batches": {**MOUTH, "batch": 16},
    "forms": {
        "networks": "installed",
        "card": "Card",
        "batch": 16,
        "forms": {
            name: {"unet_ms": 2.0, "decode_ms": decode_ms, "is_same": True}
            for name, decode_ms in (("usual", 8.0), ("norms", 6.0))
        },
        "chosen": "norms",
    },
    "compiled": {**MOUTH, "state": "ready"},
    "faces": FACES,
    "hold": {"networks": "installed", "held_bytes": 6000 * MIB},
}
OF_CPU = {"torch": "2.9", "cuda": "", "threads": 2, "device": "cpu", "count": 4, "bf16": True}


class CannedWorkers:
    """Workers that report sound figures, but for those of some checks.

    others      check -> its figures, or how it fails; "networks bf16" is that check in that precision
    kept_bytes  what a killed worker leaves behind
    """

    def __init__(self, others: Mapping[str, Any] | None = None, kept_bytes: int = 0) -> None:
        self._others, self._kept_bytes = others or {}, kept_bytes
        self.asked: list[str] = []

    def ask(self, payload: Mapping[str, Any], workers: int = 1) -> list[Done | Failed]:
        name = " ".join(filter(None, (payload["check"], payload.get("precision"))))
        self.asked.append(name if workers == 1 else f"{name} x {workers}")
        other = self._others.get(self.asked[-1], self._others.get(name))
        found = other if other is not None else deepcopy(SOUND[payload["check"]])
        if isinstance(found, Failed):
            return [found] * workers
        return [Done("selftest", number, number + 1, 1.0, found) for number in range(workers)]

    def kill(self, held_bytes: int, enough_bytes: int) -> tuple[int, float]:
        assert held_bytes > enough_bytes > 0
        self.asked.append("kill")
        return self._kept_bytes, 0.5


def examine(others: Mapping[str, Any] | None = None, target: Target = CARD, kept_bytes: int = 0) -> dict[str, Row]:
    """Return the rows of a device by name, all sound but for `others`."""
    folders = {"models_dir": "/models", "cache": "/cache"}
    rows = list(examine_device(CannedWorkers(others, kept_bytes), target, folders))
    assert len({row.check for row in rows}) == len(rows)
    return {row.check: row for row in rows}


def change(check: str, **figures: Any) -> dict[str, Any]:
    """Return the sound figures of a check with some replaced."""
    return {**deepcopy(SOUND[check]), **figures}


def fail(code: str = "internal", message: str = "RuntimeError: cuDNN", **more: Any) -> Failed:
    return Failed("selftest", 0, 1, code, message, **more)
