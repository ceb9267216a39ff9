"""What a clip shows of its photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.motion.boxes import cut_middle, place_boxes
from models.types import EngineError


def test_the_middle_of_the_photo_is_shown() -> None:
    """The largest part with the shape of the clip, whichever side is longer."""
    photo = np.zeros((300, 700, 3), np.uint8)
    photo[:, 200:500] = 1
    assert cut_middle(photo, (256, 256)).shape == (300, 300, 3)
    assert cut_middle(photo, (256, 256)).all()
    assert cut_middle(photo.transpose(1, 0, 2), (256, 256)).shape == (300, 300, 3)
    assert cut_middle(photo, (700, 300)).shape == photo.shape


@pytest.mark.parametrize(
    ("box", "photo", "clip", "placed"),
    [
        ([100, 200, 300, 400], (1000, 1000), (500, 500), [50, 100, 150, 200]),
        ([400, 100, 200, 300], (1000, 500), (256, 256), [76.8, 51.2, 102.4, 153.6]),
        ([100, 400, 300, 200], (500, 1000), (256, 256), [51.2, 76.8, 153.6, 102.4]),
        ([0, 0, 1000, 500], (1000, 500), (256, 256), [0, 0, 256, 256]),
    ],
)
def test_a_box_of_the_photo_is_where_the_clip_shows_it(
    box: list[float], photo: tuple[int, int], clip: tuple[int, int], placed: list[float]
) -> None:
    """Scaled, moved by what is cut off, and cut at the edge of the clip; so is that of a mouth."""
    found = place_boxes({"face_box": box, "mouth": box, "seed": 3}, photo, clip)
    assert found == {"face_box": pytest.approx(placed), "mouth": pytest.approx(placed), "seed": 3}


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, 3, "4"], [-1, 0, 50, 50], [True, 0, 50, 50], 5])
def test_what_is_no_box_of_the_photo_is_left_to_the_engine(box: Any) -> None:
    """It refuses that by its own words."""
    assert place_boxes({"face_box": box}, (100, 100), (64, 64)) == {"face_box": box}


def test_a_face_that_the_clip_cuts_off_is_refused() -> None:
    """Before the clip is made: a box at the side of a wide photo, and one that becomes too small."""
    for box, photo in (([0, 0, 200, 200], (2000, 500)), ([900, 900, 40, 40], (2000, 2000))):
        with pytest.raises(EngineError, match=r"bad_option: .*256 x 256 pixels, and too little") as caught:
            place_boxes({"face_box": box}, photo, (256, 256))
        assert "middle" in caught.value.hint
    with pytest.raises(EngineError, match="the picture has 100 x 100 pixels"):
        place_boxes({"face_box": [90, 0, 50, 50]}, (100, 100), (256, 256))
