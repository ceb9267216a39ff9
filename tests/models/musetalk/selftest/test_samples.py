"""The built-in face."""

from __future__ import annotations

import numpy as np

from models.musetalk.selftest.samples import MOUTH, draw_face, draw_frames


def test_the_face_has_a_mouth() -> None:
    """It is the same each time, and has something to see where mouths are compared."""
    face = draw_face()
    assert (face.shape, face.dtype) == ((256, 256, 3), np.dtype(np.uint8))
    assert face[MOUTH].std() > 20
    assert np.array_equal(face, draw_face())
    assert draw_face(512).shape == (512, 512, 3)


def test_frames_move() -> None:
    """Each differs from the one before."""
    frames = draw_frames(160, 90, 3)
    assert [frame.shape for frame in frames] == [(90, 160, 3)] * 3
    assert not np.array_equal(frames[0], frames[1])
