"""The size of a clip."""

from __future__ import annotations

import pytest

from models.motion.sizes import choose_size, shape_size
from models.types import EngineError


@pytest.mark.parametrize(
    ("photo", "side", "size"),
    [
        ((1000, 1000), 512, (512, 512)),
        ((3000, 4000), 512, (512, 640)),
        ((4000, 3000), 512, (640, 512)),
        ((400, 4000), 256, (256, 512)),
    ],
)
def test_a_clip_has_about_the_shape_of_the_photo(photo: tuple[int, int], side: int, size: tuple[int, int]) -> None:
    """Both sides are multiples of 64, and the longer one is cut off where it is very long."""
    assert shape_size(*photo, side) == size


def count_bytes(width: int, height: int) -> int:
    return width * height


def test_the_default_size_follows_the_memory() -> None:
    """Where nothing is asked for, the largest size up to the default that fits is taken; on a processor any fits."""
    assert choose_size((100, 100), None, 512, count_bytes, 0) == (512, 512)
    assert choose_size((100, 100), None, 512, count_bytes, 400 * 400) == (384, 384)


def test_a_size_without_memory_names_one_that_fits() -> None:
    """The hint has the size to ask for."""
    with pytest.raises(EngineError, match="motion_size: a clip of 512 x 512") as caught:
        choose_size((100, 100), 512, 512, count_bytes, 400 * 400)
    assert "size 384" in caught.value.hint


def test_no_size_fits() -> None:
    """The smallest size is named where not even that fits."""
    with pytest.raises(EngineError, match="256 x 256") as caught:
        choose_size((100, 100), None, 512, count_bytes, 1000)
    assert "more memory" in caught.value.hint
