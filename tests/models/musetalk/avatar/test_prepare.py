"""An avatar prepared batch by batch, with networks that answer at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.arrays import F32, U8, Floats
from models.musetalk.avatar.prepare import MAX_BATCH_BYTES, prepare_avatar, read_batches
from models.musetalk.avatar.store import PreparedAvatar
from models.musetalk.options import read_options
from models.musetalk.tracking.regions import Region
from models.types import EngineError
from tests.models.musetalk.tracking.heads import face_at

FRAMES, SIDE = 7, 120


class Pictures:
    """Grey frames that count how often they are read; the face is bright."""

    def __init__(self, has_face: Sequence[bool]) -> None:
        self.has_face, self.reads = has_face, 0

    def __len__(self) -> int:
        return len(self.has_face)

    def read(self, frame: int) -> U8:
        self.reads += 1
        return np.full((240, 320, 3), 200 if self.has_face[frame] else 0, np.uint8)


class Models:
    """Finds `faces` faces in bright frames, in the same place."""

    frames_per_batch = 3

    def __init__(self, faces: int = 1) -> None:
        self.faces = faces
        self.batches: list[int] = []

    def detect(self, frames: Sequence[U8], *, reference: bool) -> list[Floats]:  # noqa: ARG002
        box = np.array([100, 60, 220, 180, 0.9], np.float32)
        return [np.stack([box] * self.faces) if frame.any() else np.zeros((0, 5), np.float32) for frame in frames]

    def find_landmarks(self, frames: Sequence[U8], regions: Sequence[Region] | None = None) -> Floats:  # noqa: ARG002
        return np.stack([face_at(160, 120, SIDE)] * len(frames))

    def parse_faces(self, squares: Sequence[U8]) -> U8:
        return np.ones((len(squares), 512, 512), np.uint8)

    def encode_faces(self, faces: U8) -> F32:
        self.batches.append(len(faces))
        return np.zeros((len(faces), 8, 32, 32), np.float32)


def prepare(folder: Path, frames: Pictures, models: Models, **options: Any) -> PreparedAvatar:
    prepare_avatar(folder, frames, Fraction(25), models, read_options(options)[0], {"name": "face.mp4"})
    return PreparedAvatar(folder)


@pytest.mark.parametrize("options", [{}, {"reference": True}])
def test_frames_are_prepared_in_batches(tmp_path: Path, options: dict[str, Any]) -> None:
    """Every frame is read twice; those without a face take no part in a batch and have no mask."""
    frames, models = Pictures([True] * 4 + [False] + [True] * 2), Models()
    avatar = prepare(tmp_path, frames, models, **options)
    assert frames.reads == 2 * FRAMES
    assert models.batches == [3, 2, 1]
    assert avatar.seen.tolist() == frames.has_face
    assert avatar.region(4) == (0, 0, 0, 0)
    assert avatar.read_mask(0).any()
    assert avatar.about["frames"] == FRAMES
    assert set(avatar.about) >= {"jitter_px", "raw_jitter_px", "cuts", "shift_range"}


def test_a_batch_of_large_frames_is_smaller() -> None:
    """However many frames go at once, they take no more memory than the limit, unless one alone does."""

    class Large(Pictures):
        def read(self, frame: int) -> U8:  # noqa: ARG002
            return np.broadcast_to(np.uint8(0), (4000, MAX_BATCH_BYTES // 2 // 12_000 - 1, 3))

    sizes = [len(numbers) for numbers, _ in read_batches(Large([True] * 5), 16)]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    ("faces", "options", "code"), [(0, {}, "no_face"), (2, {"face": 2}, "bad_option"), (0, {"face": 2}, "no_face")]
)
def test_a_face_that_is_missing_is_named(tmp_path: Path, faces: int, options: dict[str, Any], code: str) -> None:
    """Without any face the file is named; with too few of them, their number too."""
    with pytest.raises(EngineError, match=r"face\.mp4") as refused:
        prepare(tmp_path, Pictures([faces > 0] * FRAMES), Models(faces), **options)
    assert refused.value.code == code
    assert (f"shows {faces}" in refused.value.message) == (code == "bad_option")


def test_the_next_batch_is_read_while_the_networks_see_one(tmp_path: Path) -> None:
    """The detector gets the first batch, and returns only when a frame of the second was read."""
    ahead = threading.Event()

    class Watched(Pictures):
        def read(self, frame: int) -> U8:
            if frame == Models.frames_per_batch:
                ahead.set()
            return super().read(frame)

    class Patient(Models):
        def detect(self, frames: Sequence[U8], *, reference: bool) -> list[Floats]:
            assert ahead.wait(60)
            return super().detect(frames, reference=reference)

    assert len(prepare(tmp_path, Watched([True] * FRAMES), Patient())) == FRAMES


def test_a_cancelled_preparation_is_no_avatar(tmp_path: Path) -> None:
    """What `tick` raises ends the work before the track is written."""

    def cancel() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        prepare_avatar(
            tmp_path, Pictures([True] * 3), Fraction(25), Models(), read_options({})[0], {"name": "a"}, cancel
        )
    assert list(tmp_path.iterdir()) == []


def test_a_face_given_by_its_box_is_not_searched(tmp_path: Path) -> None:
    """All frames have that box, and where the parser sees no face an ellipse of it is repainted."""
    options, _ = read_options({"face_box": [20, 30, 60, 80], "extra_margin": 0})
    models = Models()
    models.detect = models.find_landmarks = None  # type: ignore[method-assign,assignment]
    models.parse_faces = lambda squares: np.zeros((len(squares), 512, 512), np.uint8)  # type: ignore[method-assign]
    frames = Pictures([False] * FRAMES)
    prepare_avatar(tmp_path, frames, Fraction(25), models, options, {"name": "cat.png"}, face_box=(100, 60, 60, 80))
    avatar = PreparedAvatar(tmp_path)
    assert avatar.seen.all()
    assert {avatar.box(frame) for frame in range(FRAMES)} == {(100, 60, 160, 140)}
    mask, region = avatar.read_mask(3), avatar.region(3)
    assert region[0] >= 100
    assert region[3] <= 140
    assert mask[len(mask) // 2].max() > 200
    assert mask[:, : mask.shape[1] // 2].sum() == pytest.approx(mask[:, mask.shape[1] // 2 :].sum(), rel=0.1)
