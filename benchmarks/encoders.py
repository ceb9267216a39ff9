"""When cards wait for the processor: frames a second of cards with x264 and with NVENC, on a simulated clock.

    python -m benchmarks.encoders [--cores 2 4 8 16 32]

The daemon's own dispatcher hands spans to devices that only say how long they take: a card as long as its networks, and
the cores, which all cards share, as long as what a frame costs them. Nothing is encoded. What a frame of 720p costs is
measured by `benchmarks.host_path`; frames a second of a card are the projections of `benchmarks.cards`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.cards import CARDS, SHARES, project_fps
from gpu_pool.types import RunSpan
from tests.agent.simulation import Simulation, cpus
from tests.gpu_pool.fake import Message

COSTS_MS = {"read": 3.1, "paste": 0.5, "x264": 8.3, "join and verify": 3.2}
"""CPU time of a 720p frame beside the networks, measured while other programs ran."""
ON_THE_CARD: dict[str, tuple[str, ...]] = {
    "x264": (),
    "NVENC": ("x264",),
    "NVENC, decoding": ("x264", "read"),
    "NVENC, decoding, paste": ("x264", "read", "paste"),
}
"""What each way takes off the processor; the last two are not built."""
FOLDED_GFLOP = 693.9
JOB_S, MOST_CARDS, CORES = 10, 8, (2, 4, 8, 16, 32)
"""How long a card alone takes for its job; the cards that are tried; the cores."""
WAITS_BELOW = 0.97
"""Of the frames a second that the cards alone would make: with fewer they wait."""


def cost_ms(way: str) -> float:
    """Return the CPU time of a frame in a way to encode."""
    return sum(cost for name, cost in COSTS_MS.items() if name not in ON_THE_CARD[way])


class SharedCores(Simulation):
    """Devices of `fps` frames a second each, whose frames go through the same cores."""

    def __init__(self, folder: Path, cards: int, fps: float, cores: int, frame_ms: float) -> None:
        self.fps, self.core_s, self.busy_until_s = fps, frame_ms / 1000 / cores, dict[str, float]()
        self.rendered, self.busy_s = 0, 0.0
        super().__init__(folder, cpus(cards), frames=round(JOB_S * fps))

    def answer(self, device: str, order: RunSpan) -> Iterable[tuple[float, Message]]:
        """Say when a span is done: its frames wait for the networks or for their share of the cores."""
        told = [*super().answer(device, order)]
        if order.payload["stage"] != "render":
            return told
        now_s, frames = self.clock(), order.stop - order.start
        sharing = 1 + sum(until_s > now_s for other, until_s in self.busy_until_s.items() if other != device)
        self.busy_until_s[device] = end_s = now_s + frames * max(1 / self.fps, sharing * self.core_s)
        self.rendered, self.busy_s = self.rendered + frames, self.busy_s + end_s - now_s
        [(_, done)] = told
        return [(end_s - now_s, done)]


def simulate_fps(cards: int, fps: float, cores: int, frame_ms: float) -> float:
    """Return the frames a second of all cards, each with a job of its own."""
    with tempfile.TemporaryDirectory() as folder:
        simulation = SharedCores(Path(folder), cards, fps, cores, frame_ms)
        try:
            for number in range(cards):
                simulation.add(f"job{number}")
            simulation.finish(cards)
        finally:
            simulation.close()
        return cards * simulation.rendered / simulation.busy_s


def count_served(fps: float, cores: int, frame_ms: float, most: int = MOST_CARDS) -> int:
    """Return how many cards the cores keep busy, at most `most`."""
    served, too_many = 0, most + 1
    while too_many - served > 1:
        cards = (served + too_many) // 2
        if simulate_fps(cards, fps, cores, frame_ms) >= WAITS_BELOW * cards * fps:
            served = cards
        else:
            too_many = cards
    return served


def list_rows(cores: Iterable[int]) -> Iterator[str]:
    """Yield a table in Markdown: how many cards some cores keep busy, by the way to encode."""
    yield (
        "| card | frames a second | cores | "
        + " | ".join(f"{way}: {cost_ms(way):.1f} ms" for way in ON_THE_CARD)
        + " |"
    )
    yield "| --- " * (3 + len(ON_THE_CARD)) + "|"
    counts = [*cores]
    for card in (CARDS[0], CARDS[-1]):
        fps = sum(project_fps(card, FOLDED_GFLOP, share) for share in SHARES) / 2
        for count in counts:
            served = (count_served(fps, count, cost_ms(way)) for way in ON_THE_CARD)
            told: Iterator[Any] = (f"{most} or more" if most == MOST_CARDS else most for most in served)
            yield f"| {card.name} | {fps:.0f} | {count} | " + " | ".join(map(str, told)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, nargs="+", default=CORES)
    for row in list_rows(parser.parse_args().cores):
        print(row, flush=True)


if __name__ == "__main__":
    main()
