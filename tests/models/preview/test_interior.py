"""The inside of an open mouth."""

from __future__ import annotations

import numpy as np

from tests.models.preview.portraits import draw, make_grey, portrait


def test_a_grey_portrait_stays_grey() -> None:
    """The cavity, the tongue and the teeth take the colour of the picture."""
    image = make_grey(portrait())
    frame = draw(image, 1.0).astype(int)
    assert np.abs(frame[..., 0] - frame[..., 2]).max() <= 2
