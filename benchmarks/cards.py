"""MuseTalk's frames a second on cards: the limit of the arithmetic, what others published, and a projection.

Nothing of it was measured here. `python -m benchmarks.musetalk` prints the table, beside what it measured itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SHARES = 0.5, 0.7
"""Of a card's peak that its convolutions reach, at least and at most; stable-fast's UNet reaches 85 % on a 4080."""
TRAFFIC_GB = 2.741
"""What UNet and decoder read and write for a frame in 16 bits, operator by operator, without the weights."""
WEIGHTS_GB, BATCH = 1.8, 16


@dataclass(frozen=True)
class Card:
    """Peak in TFLOP a second, 16 bits with sums in float32, not sparse; bandwidth in TB a second; published figures."""

    name: str
    peak_tflops: float
    bandwidth_tbs: float
    published: str = "-"


CARDS = (
    Card("RTX 4090", 165.2, 1.008, "72 (LiveTalking, PyTorch), 61-67 (TensorRT, streams)"),
    Card("RTX 5090", 209.5, 1.792),
    Card("Ada, 48 GB", 181.0, 0.96, "112-114"),
    Card("H100 SXM", 989.4, 3.35),
    Card("H200", 989.4, 4.8),
)


def limit_fps(card: Card, gflop: float) -> float:
    """Return frames a second if the card did nothing but multiply, at its peak."""
    return 1000 * card.peak_tflops / gflop


def project_fps(card: Card, gflop: float, share: float) -> float:
    """Return frames a second if convolutions take their share of the peak, and then all else moves through memory."""
    compute_s = gflop / (1000 * card.peak_tflops * share)
    return 1 / (compute_s + (TRAFFIC_GB + WEIGHTS_GB / BATCH) / (1000 * card.bandwidth_tbs))


def list_rows(plain_gflop: float, folded_gflop: float, measured: tuple[str, float] | None) -> Iterator[str]:
    """Yield the table; `measured` is a device and its frames a second."""
    yield f"{'':14}{'limit fps':>11}{'with folds':>12}{'projected':>14}   published"
    for card in CARDS:
        low, high = (project_fps(card, folded_gflop, share) for share in SHARES)
        limits = f"{limit_fps(card, plain_gflop):11.0f}{limit_fps(card, folded_gflop):12.0f}"
        yield f"{card.name:14}{limits}{f'{low:.0f} to {high:.0f}':>14}   {card.published}"
    if measured:
        yield f"measured here: {measured[1]:.2f} frames a second on {measured[0]}"


def report(plain_gflop: float, folded_gflop: float, measured: tuple[str, float] | None = None) -> None:
    """Print the table."""
    shares = " to ".join(f"{share:.0%}" for share in SHARES)
    print(f"\nUNet and decoder: {plain_gflop:.0f} GFLOP a frame, {folded_gflop:.0f} with the folds")
    print("projected, not measured: convolutions at", shares, "of the peak,")
    print(f"and {TRAFFIC_GB} GB a frame through memory, in batches of {BATCH}")
    for row in list_rows(plain_gflop, folded_gflop, measured):
        print(row)


if __name__ == "__main__":
    report(800.0, 693.9)
