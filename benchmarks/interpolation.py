"""How near to the true pictures each way from 4 frames a second to 25 comes where the motion is known, and its price.

python -m benchmarks.interpolation
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np

from models.arrays import F64, U8
from models.media.interpolation import INTERPOLATORS

COUNT, FPS, WANTED = 4, Fraction(4), Fraction(25)
SIDE, PRICED_SIDE = 96, 512
Scene = Callable[[float, int], U8]
"""(number of a picture, or between two; side in pixels) -> the true picture, (side, side, 3) BGR."""


def draw_disc(across: F64, down: F64) -> U8:
    """Return a disc with a pattern, whose middle is where both are 0."""
    disc = 255 / (1 + np.exp((np.hypot(across, down) - 20) / 2))
    shade = disc * (0.7 + 0.3 * np.sin(across / 4) * np.sin((down + 48) / 4))
    return np.repeat(shade[..., None], 3, 2).astype(np.uint8)


def make_grid(side: int) -> tuple[F64, F64]:
    """Return x and y of each pixel where the picture is 96 wide, from its middle."""
    rows, columns = np.mgrid[:side, :side].astype(np.float64) * (SIDE / side) - SIDE / 2
    return columns, rows


def move(step: float) -> Scene:
    """Return a scene in which a disc moves by `step` pixels from picture to picture."""

    def draw(number: float, side: int) -> U8:
        columns, rows = make_grid(side)
        return draw_disc(columns + 18 - step * number, rows)

    return draw


def turn(number: float, side: int) -> U8:
    """Return a disc that turns by 8 degrees from picture to picture, as a head that is tilted."""
    columns, rows = make_grid(side)
    cosine, sine = np.cos(np.radians(8 * number)), np.sin(np.radians(8 * number))
    return draw_disc(cosine * columns + sine * rows, cosine * rows - sine * columns)


def shut(number: float, side: int) -> U8:
    """Return a disc over which a dark lid comes from above, as in a blink."""
    columns, rows = make_grid(side)
    lid = 1 / (1 + np.exp((rows + 18 - 8 * number) / 1.5))
    return np.rint(draw_disc(columns, rows) * (1 - 0.6 * lid[..., None])).astype(np.uint8)


SCENES: dict[str, Scene] = {
    "moves by 2 pixels": move(2),
    "moves by 6 pixels": move(6),
    "moves by 12 pixels": move(12),
    "turns by 8 degrees": turn,
    "a lid shuts by 8 pixels": shut,
}


def measure_db(method: str, scene: Scene) -> float:
    """Return the peak signal-to-noise ratio of all pictures that a method makes, in decibels."""
    made = list(INTERPOLATORS[method](lambda number: scene(number, SIDE), COUNT, FPS, WANTED))
    assert len(made) == int((COUNT - 1) * WANTED / FPS) + 1
    errors = [np.mean((np.float64(one) - scene(n * float(FPS / WANTED), SIDE)) ** 2) for n, one in enumerate(made)]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def measure_price(method: str) -> float:
    """Return the seconds of processor time for each picture of 512 x 512 that a method makes."""
    pictures = [SCENES["moves by 6 pixels"](number, PRICED_SIDE) for number in range(COUNT)]
    before = time.process_time()
    made = sum(1 for _ in INTERPOLATORS[method](pictures.__getitem__, COUNT, FPS, WANTED))
    return (time.process_time() - before) / made


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    cv2.setNumThreads(1)
    print(f"| 4 to 25 frames a second, dB to the true frames | {' | '.join(INTERPOLATORS)} |")
    print(f"| --- |{' --- |' * len(INTERPOLATORS)}")
    for name, scene in SCENES.items():
        print(f"| {name} | {' | '.join(f'{measure_db(method, scene):.1f}' for method in INTERPOLATORS)} |")
    prices = (f"{1000 * measure_price(method):.0f}" for method in INTERPOLATORS)
    print(f"| processor time of a picture of {PRICED_SIDE} x {PRICED_SIDE}, ms | {' | '.join(prices)} |")


if __name__ == "__main__":
    main()
