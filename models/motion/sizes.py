"""The size of a clip: multiples of 64 pixels, in about the shape of the photo, as far as a device has memory."""

from __future__ import annotations

from collections.abc import Callable

from models.types import EngineError

GRAIN = 64
SMALLEST, LARGEST = 256, 1024
"""Of the shorter side, in pixels."""
MAX_RATIO = 2
"""The longer side is at most so many times the shorter one; what is beyond is cut off."""


def shape_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height of a clip whose shorter side is `side`, of a photo of width x height.

    >>> shape_size(3000, 4000, 512), shape_size(4000, 1000, 512)
    ((512, 640), (1024, 512))
    """
    ratio = min(max(width, height) / min(width, height), MAX_RATIO)
    longer = int(side * ratio) // GRAIN * GRAIN
    return (longer, side) if width > height else (side, longer)


def choose_size(
    photo: tuple[int, int],
    asked: int | None,
    default: int,
    count_bytes: Callable[[int, int], int],
    device_bytes: int,
) -> tuple[int, int]:
    """Return width and height of the clip: as asked, or of the default side, less where no device has room.

    photo         width and height in pixels
    count_bytes   memory of a device that a clip of width x height needs
    device_bytes  memory of the largest device, 0 where any size fits

    Raises EngineError motion_size for a size that no device has room for.
    """
    largest = asked or default
    fitting = [side for side in range(SMALLEST, largest + 1, GRAIN) if _fits(photo, side, count_bytes, device_bytes)]
    if fitting and (asked is None or fitting[-1] == asked):
        return shape_size(*photo, fitting[-1])
    width, height = shape_size(*photo, largest if asked else SMALLEST)
    need_gib, have_gib = count_bytes(width, height) / 2**30, device_bytes / 2**30
    message = (
        f"a clip of {width} x {height} pixels needs {need_gib:.1f} GiB of memory, the largest card has {have_gib:.1f}"
    )
    hint = f"ask for size {fitting[-1]}, which fits" if fitting else "use a card with more memory, or a smaller variant"
    raise EngineError("motion_size", message, hint)


def _fits(photo: tuple[int, int], side: int, count_bytes: Callable[[int, int], int], device_bytes: int) -> bool:
    return not device_bytes or count_bytes(*shape_size(*photo, side)) <= device_bytes
