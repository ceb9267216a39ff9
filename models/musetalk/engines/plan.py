"""How a job paints in 8 bits: made once, when it is prepared, and the same for all workers of the job. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.musetalk.engines.qdq import Bits

NETWORKS = ("unet", "decode")
"""The names by which the inpainter has them, too."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Which stages run in 8 bits, and how values are scaled there.

    wide     the precision of the other stages
    batches  frames at once, by network
    windows  tokens of an audio window, and their width
    nodes    the convolutions in 8 bits, by network
    ranges   the largest absolute values of what the convolutions see, by network and tensor
    stages   all stages with the precision that each one runs in, as the result names them
    verdict  what the gate found, by stage; "together" is all that were kept, "engine" the built engine
    reason   why no stage is in 8 bits; "" where some are
    """

    bits: Bits
    wide: str
    batches: dict[str, int] = field(default_factory=dict)
    windows: tuple[int, int] = (0, 0)
    nodes: dict[str, list[str]] = field(default_factory=dict)
    ranges: dict[str, dict[str, float]] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    verdict: dict[str, dict[str, float]] = field(default_factory=dict)
    reason: str = ""

    @property
    def networks(self) -> list[str]:
        """The networks of which some stage runs in 8 bits; the others run as without a plan."""
        return [name for name in NETWORKS if self.nodes.get(name)]

    @property
    def note(self) -> str:
        """What a user has to know: which stages stay wide; "" where none does."""
        if not self.networks:
            return f"no stage runs in {self.bits}, all in {self.wide}: {self.reason}"
        wide = [name for name, precision in self.stages.items() if precision != self.bits]
        if not wide:
            return ""
        return f"{len(wide)} of {len(self.stages)} stages run in {self.wide}, as {self.bits} changes their pictures"

    def describe(self, provider: str) -> dict[str, Any]:
        """Return what the result says, as JSON."""
        told = {"precision": self.bits, "provider": provider, "batch": self.batches, "stages": self.stages}
        gate = {name: {key: round(value, 4) for key, value in one.items()} for name, one in self.verdict.items()}
        return {**told, "gate": gate, **({"reason": self.reason} if self.reason else {})}

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> EnginePlan:
        """Raises OSError or ValueError where it is missing or damaged."""
        known: dict[str, Any] = json.loads(path.read_bytes())
        return cls(**{**known, "windows": tuple(known["windows"])})
