"""The lower face of one frame over the others of a video."""

from __future__ import annotations

import numpy as np

from models.preview.geometry import invert_affine, transform_points
from models.preview.lower_face import LowerFace, cut_lower_face
from models.preview.mouth import find_mouth
from tests.models.preview.portraits import draw, find_face, portrait


def test_the_persons_own_mouth_rests() -> None:
    """Laid over a frame with the mouth wide open, in darker light, the lips are those of the reference in that light;
    eyes and background are untouched."""
    closed = draw(portrait(), 0.0)
    face = find_face(closed)
    mouth = find_mouth(closed, face)
    wide = (draw(portrait(), 0.9) * 0.8).astype(np.uint8)
    frame = wide.copy()
    LowerFace(cut_lower_face(closed, face, mouth), face, mouth).lay(frame, face, 1.0)
    back = invert_affine(face.to_upright)
    corners = transform_points([(mouth.x - 25, mouth.y - 6), (mouth.x + 25, mouth.y + 24)], back).round().astype(int)
    lips = np.s_[corners[:, 1].min() : corners[:, 1].max(), corners[:, 0].min() : corners[:, 0].max()]
    wanted = closed[lips].astype(float) * 0.8
    assert np.abs(frame[lips] - wanted).mean() < 0.35 * np.abs(wide[lips] - wanted).mean()
    assert (frame[: round(face.eyes[0][1]) + 10] == wide[: round(face.eyes[0][1]) + 10]).all()


def test_a_weight_of_nothing_changes_nothing() -> None:
    """Where the face fades out, so does what is laid over it."""
    image = portrait()
    face = find_face(image)
    frame = image.copy()
    mouth = find_mouth(image, face)
    LowerFace(cut_lower_face(draw(image, 0.0), face, mouth), face, mouth).lay(frame, face, 0.0)
    assert (frame == image).all()
