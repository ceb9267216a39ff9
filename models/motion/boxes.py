"""What a clip shows of its photo: the middle, in another size; and boxes of the photo, in pixels of the clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.arrays import U8
from models.options import MIN_FACE, scale_box
from models.types import EngineError

SMALLEST = {"face_box": MIN_FACE, "mouth": 1}
"""The options that are boxes of the avatar, with the shortest side that they need."""
Size = tuple[int, int]
"""Width and height in pixels."""


def cut_middle(photo: U8, clip: Size) -> U8:
    """Return the part of a photo (height, width, 3) that a clip of that size shows."""
    tall, wide = photo.shape[:2]
    width, height = min(wide, round(tall * clip[0] / clip[1])), min(tall, round(wide * clip[1] / clip[0]))
    left, top = (wide - width) // 2, (tall - height) // 2
    return photo[top : top + height, left : left + width]


def place_boxes(options: Mapping[str, Any], photo: Size, clip: Size) -> dict[str, Any]:
    """Return options whose boxes of the photo are in pixels of the clip; what is no box is left to the engine.

    Raises EngineError bad_option for a face that is not inside of the photo, and a box of which the clip shows too
    little.
    """
    boxes = {name: options[name] for name in SMALLEST if is_box(options.get(name))}
    if "face_box" in boxes:
        scale_box(boxes["face_box"], "face_box", photo, photo)
    return {**options, **{name: place_box(name, box, photo, clip) for name, box in boxes.items()}}


def is_box(box: object) -> bool:
    """Whether it is x, y, width and height."""
    if not isinstance(box, list | tuple) or len(box) != 4:
        return False
    return all(isinstance(one, int | float) and not isinstance(one, bool) and one >= 0 for one in box)


def place_box(name: str, box: list[float], photo: Size, clip: Size) -> list[float]:
    scale = max(clip[0] / photo[0], clip[1] / photo[1])
    left, top = ((photo[side] * scale - clip[side]) / 2 for side in (0, 1))
    x, y, width, height = (one * scale for one in box)
    across = max(0.0, x - left), min(float(clip[0]), x + width - left)
    down = max(0.0, y - top), min(float(clip[1]), y + height - top)
    if min(across[1] - across[0], down[1] - down[0]) < SMALLEST[name]:
        message = (
            f"the clip shows the middle of the photo in {clip[0]} x {clip[1]} pixels, and too little of what the option"
            f' "{name}" says'
        )
        raise EngineError("bad_option", message, "cut the photo so that the face is in its middle")
    return [across[0], down[0], across[1] - across[0], down[1] - down[0]]
