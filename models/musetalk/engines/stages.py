"""Which stages of a network may run in 8 bits: those whose pictures pass the gate, alone and together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from models.musetalk.inpainting.picture_gate import QUANTISED, PictureDifference, PictureLimit, compare_pictures


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said.

    kept      the stages that run in 8 bits; the others stay in 16
    alone     how far the pictures are with each stage alone in 8 bits
    together  the same of all that are kept; None where none is
    """

    kept: tuple[str, ...]
    alone: dict[str, PictureDifference]
    together: PictureDifference | None


def choose_stages(
    stages: Iterable[str],
    paint: Callable[[tuple[str, ...]], Tensor],
    wanted: Tensor,
    limit: PictureLimit = QUANTISED,
) -> Verdict:
    """Leave out stages that fail the gate alone, then the worst one after the other until all pass it together.

    paint   returns the pictures (n, h, w, 3) uint8 with these stages in 8 bits
    wanted  those of the plain way
    """
    alone = {stage: compare_pictures(paint((stage,)), wanted, limit) for stage in stages}
    kept = [stage for stage, difference in alone.items() if difference.passes(limit)]
    while kept:
        together = compare_pictures(paint(tuple(kept)), wanted, limit)
        if together.passes(limit):
            return Verdict(tuple(kept), alone, together)
        kept.remove(min(kept, key=lambda stage: (alone[stage].within, -alone[stage].shift)))
    return Verdict((), alone, None)
