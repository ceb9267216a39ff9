"""What a photographer would say of the face in a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import U8
from models.preview.face import Face, choose_largest, find_faces
from models.preview.landmarks import JAW, LIPS, POINTS
from models.preview.mouth import find_mouth
from models.quality.meter import cut_grey, measure_reach

Advice = dict[str, str]
"""Code -> a sentence: what is the matter, and what to do."""

DARK = "the face is dark: take a picture with more light on it"
UNSEEN = "no face was seen at a first look: use a picture that shows one from the front, well lit and not covered"
TILTED = "the face is tilted by {:.0f} degrees: turn the picture upright"
SMALL_PX = 96.0
_TURNED, _TILTED_DEG = 0.3, 35.0
_DARK, _BRIGHT = 45.0, 235.0
_BLURRED = 0.018
_OPEN = 16.8
_LOOK_PX = 400
_SURE = 0.52
"""Likeness of a face that is one: in pictures that were turned the wrong way others reach 0.5."""
_NOSE, _CHIN = POINTS.index("nose"), POINTS.index("chin")


@dataclass(frozen=True, slots=True)
class Look:
    """What is measured of a face.

    width_px   of the box around it
    turned     how far the nose is from the middle of the face, -1 to 1
    tilted     degrees from upright
    light      median of the grey of the face, 0 to 255
    detail     fine detail of eyes and brows across or down, where there is less, as a share of their contrast
    cut        whether the edge of the picture cuts the face
    covered    whether no mouth stands out
    gap        between the lips, in hundredths of the eye distance
    """

    width_px: float
    turned: float
    tilted: float
    light: float
    detail: float
    cut: bool
    covered: bool
    gap: float


def look_at(picture: U8, face: Face) -> Look:
    """Measure a face in a (h, w, 3) uint8 BGR picture."""
    height, width = picture.shape[:2]
    points, (x, y, w, h) = face.upright_points, face.box
    (a_x, a_y), (b_x, b_y) = face.eyes
    middle, mouth = points[JAW, 0].mean(), find_mouth(picture, face)
    half = max(1.0, float(np.ptp(points[JAW, 0])) / 2)
    outline = face.landmarks.points[[_CHIN, JAW.start, JAW.stop - 1, *range(LIPS.start, LIPS.stop)]]
    left, top = outline.min(0)
    right, bottom = outline.max(0)
    is_cut = min(left, top, x) < -0.02 * w or max(right, x + w) > width + 0.02 * w
    is_cut = is_cut or bottom > height or y + 0.1 * h < 0
    whole = cut_grey(picture, np.array([x + 0.1 * w, y + 0.15 * h, 0.8 * w, 0.8 * h]), height)
    return Look(
        width_px=w,
        turned=float((points[_NOSE, 0] - middle) / half),
        tilted=float(np.degrees(np.arctan2(b_y - a_y, b_x - a_x))),
        light=float(np.median(whole)) if whole.size else 128.0,
        detail=measure_sharpness(picture, face),
        cut=bool(is_cut),
        covered=not mouth.is_visible,
        gap=mouth.gap,
    )


def measure_sharpness(picture: U8, face: Face) -> float:
    """Return the fine detail of eyes and brows as a share of their contrast.

    A camera or a head that moved takes that of one direction: the lesser of both counts.
    """
    x, y, w, h = face.box
    upper = cut_grey(picture, np.array([x + 0.1 * w, y + 0.15 * h, 0.8 * w, 0.4 * h], np.float64), picture.shape[0])
    if not upper.size:
        return 1.0
    reach = measure_reach(np.array([x, y, w, h]))
    away = (cv2.absdiff(upper, cv2.blur(upper, size)).mean() for size in ((reach, 1), (1, reach)))
    return float(min(away)) / max(1.0, float(upper.std()))


def advise_on_look(look: Look) -> Iterator[tuple[str, str]]:
    """Yield code and sentence of each thing that is the matter with a face."""
    if look.width_px < SMALL_PX:
        yield (
            "face_small",
            f"the face is {look.width_px:.0f} pixels wide: send a larger picture, or cut it closer, so that it has"
            f" {SMALL_PX:.0f}",
        )
    if abs(look.turned) > _TURNED:
        yield "face_turned", "the face is turned aside: take a picture from the front"
    if abs(look.tilted) > _TILTED_DEG:
        yield "face_tilted", TILTED.format(look.tilted)
    if look.light < _DARK:
        yield "face_dark", DARK
    if look.light > _BRIGHT:
        yield "face_bright", "the face is overexposed: take a picture with less light on it"
    if look.detail < _BLURRED:
        yield "face_blurred", "the face is blurred: take a sharper picture, or one that was not enlarged"
    if look.cut:
        yield "face_cut", "the edge of the picture cuts the face: leave room around it"
    if look.covered:
        yield "mouth_covered", "no mouth stands out: use a picture in which nothing covers or hides it"
    elif look.gap > _OPEN:
        yield "mouth_open", "the mouth is open: use a picture with the lips together"


def advise_on_faces(pictures: Sequence[tuple[U8, Sequence[Face]]], chosen: int | None) -> Advice:
    """Return the advice about pictures with their faces from left to right.

    chosen    number of the face that speaks; None: the largest

    Several pictures are frames of a video: what is said counts if it is so in most of those with a face.
    """
    looks = [look_at(picture, face) for picture, faces in pictures if (face := choose_face(faces, chosen)) is not None]
    if not looks:
        return {"face_unseen": UNSEEN} if any(faces for _, faces in pictures) else explain_unseen(pictures[0][0])
    found = [dict(advise_on_look(look)) for look in looks]
    counts = Counter(code for one in found for code in one)
    advice = {code: next(one[code] for one in found if code in one) for code, n in counts.items() if 2 * n > len(looks)}
    if chosen is None and max(len(faces) for _, faces in pictures) > 1:
        most = max(len(faces) for _, faces in pictures)
        advice["several_faces"] = f'{most} faces are seen, and the largest speaks: say which by the option "face"'
    return advice


def explain_unseen(picture: U8) -> Advice:
    """Return why no face is seen in a picture: it is too dark, or not upright, if one is seen when that is mended."""
    scale = min(1.0, _LOOK_PX / max(picture.shape[:2]))
    small = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.createCLAHE(4.0, (4, 4)).apply(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
    hidden = find_faces(np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8))
    if hidden and is_dark(small, choose_largest(hidden)):
        return {"face_dark": DARK}
    for turn, degrees in ((cv2.ROTATE_90_COUNTERCLOCKWISE, 90), (cv2.ROTATE_90_CLOCKWISE, -90), (cv2.ROTATE_180, 180)):
        lying = find_faces(np.asarray(cv2.rotate(small, turn), np.uint8))
        if lying and choose_largest(lying).landmarks.likeness > _SURE:
            return {"face_tilted": TILTED.format(degrees)}
    return {"face_unseen": UNSEEN}


def is_dark(picture: U8, face: Face) -> bool:
    """Whether a part of eyes and brows is dark."""
    x, y, w, h = face.box
    upper = cut_grey(picture, np.array([x + 0.1 * w, y + 0.2 * h, 0.8 * w, 0.3 * h]), len(picture))
    return bool(upper.size and np.percentile(upper, 25) < _DARK)


def choose_face(faces: Sequence[Face], chosen: int | None) -> Face | None:
    """Return the face that speaks, None where it isn't there."""
    if chosen is not None:
        return faces[chosen] if chosen < len(faces) else None
    return choose_largest(faces) if faces else None
