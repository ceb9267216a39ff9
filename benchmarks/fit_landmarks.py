"""Fit the tables of models/preview/landmarks.npz, and print how far fitted points are from the judged ones.

Run from the root as `python -m benchmarks.fit_landmarks FOLDER [--check]`.
FOLDER holds square crops 00000.png, 00001.png ... with one face each, points.npz with `points` (n, 478, 2), the pixels
that a face mesh gives for each crop, and `source` (n,), where the crop comes from, and none/*, pictures without a face.
With --check a quarter of the sources is left out and judged instead of writing the tables.
The pictures of the tests are not used here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.arrays import F32, F64, U8, Array
from models.preview import landmarks as lm
from models.preview.geometry import align_ends, align_eyes, transform_points

MESH = [33, 159, 133, 145, 362, 386, 263, 374, 61, 291, 0, 13, 14, 17, 152, 176, 400, 172, 397, 1, 2, 105, 334]
"""The numbers of the POINTS in the mesh."""
RIDGE, LEAST_EYES, COPIES = 0.004, 65.0, 12
rng = np.random.default_rng(7)


@dataclass(frozen=True)
class Sample:
    """A crop (h, w, 3) uint8 BGR and its points (23, 2) in pixels."""

    image: U8
    points: F64

    @property
    def eyes(self) -> F64:
        return lm.average_corners(self.points)

    def mirror(self) -> Sample:
        width = self.image.shape[1]
        points = (self.points * [-1, 1] + [width - 1, 0])[list(lm.MIRRORED)]
        return Sample(np.ascontiguousarray(self.image[:, ::-1]), points)

    def vary(self) -> Sample:
        """Return it blurred, brighter or darker, grey and with noise, now and then."""
        image = self.image
        if rng.random() < 0.4:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 4)), np.uint8)
        if rng.random() < 0.5:
            curve = 255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.6)
            image = np.asarray(cv2.LUT(image, curve.astype(np.uint8)), np.uint8)
        if rng.random() < 0.15:
            image = np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, 2)
        if rng.random() < 0.25:
            noise = rng.normal(0, rng.uniform(2, 12), (*image.shape[:2], 1)).astype(np.float32)
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        return Sample(image, self.points)


def displace(eyes: F64, shift: float, scale: float, turn_deg: float) -> F64:
    """Return eyes moved at random, as a detector errs."""
    middle, distance = eyes.mean(0), float(np.hypot(*(eyes[1] - eyes[0])))
    angle, grown = np.radians(rng.normal(0, turn_deg)), np.exp(rng.normal(0, scale))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * grown
    return np.asarray(middle + (eyes - middle) @ turn.T + rng.normal(0, shift, 2) * distance)


class Regression:
    """Collects features and wanted values; fits a table."""

    def __init__(self) -> None:
        self.features: list[F32] = []
        self.wanted: list[F64] = []

    def add(self, features: F32, wanted: F64) -> None:
        self.features.append(features)
        self.wanted.append(wanted.ravel())

    def fit(self, weights: F64 | None = None, ridge: float = RIDGE) -> F64:
        x, y = np.array(self.features), np.array(self.wanted, np.float32)
        share = (np.ones(len(x)) if weights is None else weights).astype(np.float32)[:, None]
        share = share / share.sum()
        mean_x, mean_y = (x * share).sum(0), (y * share).sum(0)
        x, y = x - mean_x, y - mean_y
        square = (x * share).T @ x + np.eye(x.shape[1], dtype=np.float32) * ridge
        table = np.linalg.solve(square, (x * share).T @ y)
        return np.vstack([table, mean_y - mean_x @ table]).astype(np.float64)


def fit_tables(samples: list[Sample], copies: int) -> dict[str, F64]:
    """Return the tables of points: the eyes, the whole face, the lips, an eye and the opening."""
    parts = {name: Regression() for name in ("eyes", "face", "lips", "eye", "opening")}
    for sample in vary_all(samples, copies):
        add_face(parts, sample)
        add_lips(parts, sample)
        add_eyes(parts, sample)
    return {name: part.fit() for name, part in parts.items()}


def vary_all(samples: list[Sample], copies: int) -> Iterator[Sample]:
    for sample in samples:
        for copy in range(copies):
            chosen = sample.mirror() if copy % 2 else sample
            yield chosen.vary() if copy > 1 else chosen


def add_face(parts: dict[str, Regression], sample: Sample) -> None:
    near = rng.random() < 0.4
    affine = align_eyes(displace(sample.eyes, *((0.05, 0.06, 4) if near else (0.11, 0.14, 7))))
    parts["eyes"].add(lm.FACE_WINDOW.extract(sample.image, affine), transform_points(sample.eyes, affine))
    affine = align_eyes(displace(sample.eyes, 0.035, 0.035, 2))
    parts["face"].add(lm.FACE_WINDOW.extract(sample.image, affine), transform_points(sample.points, affine))


def add_lips(parts: dict[str, Regression], sample: Sample) -> None:
    distance = float(np.hypot(*(sample.eyes[1] - sample.eyes[0])))
    guess = sample.points + (rng.normal(0, [0.03, 0.04]) + rng.normal(0, 0.022, sample.points.shape)) * distance
    affine = align_ends(guess[8], guess[9])
    features, wanted = lm.LIPS_WINDOW.extract_colours(sample.image, affine), transform_points(sample.points, affine)
    parts["lips"].add(features, wanted[lm.LIPS])
    gap = float(np.clip((wanted[12, 1] - wanted[11, 1]) / 0.3, 0, 1))
    parts["opening"].add(features, np.array([gap, gap]))


def add_eyes(parts: dict[str, Regression], sample: Sample) -> None:
    for eye in (sample, sample.mirror()):
        distance = float(np.hypot(*(eye.eyes[1] - eye.eyes[0])))
        guess = eye.points + (rng.normal(0, 0.02, 2) + rng.normal(0, 0.012, eye.points.shape)) * distance
        affine = align_ends(guess[0], guess[2])
        parts["eye"].add(lm.EYE_WINDOW.extract(eye.image, affine), transform_points(eye.points, affine)[lm.LEFT_EYE])


def fit_likeness(tables: dict[str, F64], samples: list[Sample], others: list[U8]) -> F64:
    """Return the table that tells faces from what lies beside them, and from other pictures."""
    known, part = lm.Tables({name: table.astype(np.float32) for name, table in tables.items()}), Regression()
    for sample in vary_all(samples, 4):
        part.add(extract_fitted(known, sample.image, displace(sample.eyes, 0.08, 0.1, 6))[0], np.ones(2))
    faces = len(part.features)
    for sample in samples:
        for _ in range(4):
            add_beside(part, known, sample)
    for image in others:
        for _ in range(40):
            size = rng.uniform(20, 120)
            at = rng.uniform(0, 1, 2) * image.shape[1::-1]
            eyes = displace(np.array([at, at + (size, 0)]), 0, 0.1, 25)
            part.add(extract_fitted(known, image, eyes)[0], -np.ones(2))
    rest = len(part.features) - faces
    return part.fit(np.repeat([0.5 / faces, 0.5 / rest], [faces, rest]), ridge=0.02)


def add_beside(part: Regression, known: lm.Tables, sample: Sample) -> None:
    distance = float(np.hypot(*(sample.eyes[1] - sample.eyes[0])))
    away = rng.normal(0, 1, 2)
    away *= rng.uniform(0.8, 2.2) * distance / np.hypot(*away)
    features, eyes = extract_fitted(known, sample.image, displace(sample.eyes, 0, 0.5, 40) + away)
    if np.abs(eyes - sample.eyes).max() > 0.5 * distance:
        part.add(features, -np.ones(2))


def extract_fitted(known: lm.Tables, image: U8, eyes: F64) -> tuple[F32, F64]:
    """Return the features of the face that is fitted near these eyes, and its eyes."""
    extract: Callable[[U8, F64], F32] = lm.FACE_WINDOW.extract
    for _ in range(2):
        eyes = known.predict("eyes", extract, image, align_eyes(eyes))
    points = known.predict("face", extract, image, align_eyes(eyes))
    eyes = lm.average_corners(points)
    return extract(image, align_eyes(eyes)), eyes


def read_samples(folder: Path) -> tuple[list[Sample], list[str]]:
    with np.load(folder / "points.npz") as stored:
        points, sources = stored["points"][:, MESH].astype(np.float64), stored["source"].tolist()
    samples = [Sample(np.asarray(cv2.imread(str(folder / f"{n:05d}.png")), np.uint8), p) for n, p in enumerate(points)]
    large = [n for n, each in enumerate(samples) if np.hypot(*(each.eyes[1] - each.eyes[0])) > LEAST_EYES]
    return [samples[n] for n in large], [sources[n] for n in large]


def print_errors(samples: list[Sample]) -> None:
    """Print median, 90 and 97 per cent of the errors in hundredths of the eye distance."""
    errors, likeness = [], []
    for sample in vary_all(samples, 3):
        fitted = lm.fit_landmarks(sample.image, displace(sample.eyes, 0.09, 0.1, 6), rough=True)
        upright = align_eyes(sample.eyes)
        errors.append(transform_points(fitted.points, upright) - transform_points(sample.points, upright))
        likeness.append(fitted.likeness)
    error = np.array(errors)
    rows = {
        "eyes": np.abs((error[:, [0, 4]] + error[:, [2, 6]]) / 2).max((1, 2)),
        "lids apart": np.abs(error[:, [3, 7], 1] - error[:, [1, 5], 1]).max(1),
        "corners of the mouth": np.abs(error[:, 8:10]).max((1, 2)),
        "lips apart": np.abs(error[:, 12, 1] - error[:, 11, 1]),
        "chin": np.abs(error[:, 14, 1]),
    }
    for name, row in rows.items():
        print(f"{name:<22}" + "".join(f"{value:8.1f}" for value in np.percentile(row, [50, 90, 97])))
    print("likeness below 0:", f"{float((np.array(likeness) < 0).mean()):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    samples, sources = read_samples(given.folder)
    left_out = set(rng.permutation(sorted(set(sources)))[::4]) if given.check else set()
    used = [sample for sample, source in zip(samples, sources, strict=True) if source not in left_out]
    others = [np.asarray(cv2.imread(str(path)), np.uint8) for path in sorted((given.folder / "none").glob("*"))]
    tables = fit_tables(used, COPIES)
    tables["likeness"] = fit_likeness(tables, used, others)
    arrays: dict[str, Array] = {}
    for name, table in tables.items():
        arrays[name], arrays[f"{name}_scale"] = lm.quantize(table)
    path = given.folder / "checked.npz" if given.check else lm.TABLES_FILE
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{path}: {path.stat().st_size} bytes from {len(used)} faces")
    if given.check:
        lm.TABLES_FILE = path
        print_errors([sample for sample, source in zip(samples, sources, strict=True) if source in left_out])


if __name__ == "__main__":
    main()
