"""Avatars with transparency: over a background, and with a result that keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import media
from models.handler import Handler
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.options import read_inspected_options
from models.types import Inspection, Output, Request
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import make_request, prepare_job

BOX = [52, 32, 56, 56]
CLEAR = 24
"""Columns at the left that are transparent; as many after them are half transparent."""


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.lay_out(tmp_path_factory.mktemp("models"))


def write_transparent_face(path: Path) -> Path:
    opacity = np.full((tiny.HEIGHT, tiny.WIDTH), 255, np.uint8)
    opacity[:, :CLEAR], opacity[:, CLEAR : 2 * CLEAR] = 0, 128
    cv2.imwrite(str(path), np.dstack([tiny.picture(), opacity]))
    return path


@pytest.fixture
def request_of_face(tmp_path: Path, models_dir: Path) -> Request:
    return make_request(tmp_path, models_dir, write_transparent_face(tmp_path / "face.png"), face_box=BOX)


def render(request: Request) -> tuple[Inspection, Iterator[np.ndarray]]:
    engine, inspection = prepare_job(request)
    return inspection, engine.render(request, inspection, 0, 3)


def test_a_background_is_behind_the_avatar(request_of_face: Request) -> None:
    """Its colour is seen in the result where the avatar is transparent, and only there."""
    inspection, frames = render(replace(request_of_face, background="#00b140"))
    for planes in frames:
        shown = media.yuv_to_bgr(np.asarray(planes, np.uint8), inspection.colour)
        assert np.abs(shown[:, : CLEAR - 4].astype(int) - (64, 177, 0)).max() <= 4
        assert np.abs(shown[:, -8:].astype(int) - tiny.picture()[:, -8:]).max() <= 24


def test_a_result_with_transparency_has_that_of_the_avatar(request_of_face: Request, tmp_path: Path) -> None:
    """Every frame has the opacity of the avatar, its colours outside of the mouth, and a mouth that moves."""
    inspection, frames = render(replace(request_of_face, output=Output(alpha=True)))
    kept = np.stack(list(frames))
    opacity = cv2.imread(str(tmp_path / "face.png"), cv2.IMREAD_UNCHANGED)[..., 3]  # type: ignore[index]
    assert kept.shape == (3, tiny.HEIGHT, tiny.WIDTH, 4)
    assert all(np.array_equal(frame[..., 3], opacity) for frame in kept)
    own = tiny.picture().astype(int)
    assert np.abs(kept[:, :, -8:, :3] - own[:, -8:]).max() == 0
    assert np.abs(kept[:, :16, CLEAR : 2 * CLEAR, :3] - own[:16, CLEAR : 2 * CLEAR]).max() <= 2
    x, y, width, height = BOX
    assert np.abs(kept[:, y : y + height, x : x + width, :3] - own[y : y + height, x : x + width]).max() > 30
    assert (inspection.encoder, inspection.memory_bytes > 0) == ("prores_ks", True)


def test_a_span_of_its_own_makes_the_same_frames(request_of_face: Request) -> None:
    """As everywhere, a frame depends on its number alone."""
    request = replace(request_of_face, output=Output(alpha=True))
    inspection, frames = render(request)
    whole = list(frames)
    [last] = MuseTalkEngine("cpu:0").render(request, inspection, 2, 3)
    assert np.array_equal(last, whole[2])


def test_the_background_decides_what_is_prepared(request_of_face: Request) -> None:
    """The network sees it at the edge of the face: another one is prepared anew."""
    engine, inspection = prepare_job(request_of_face)
    session, options = (
        engine.open_session(request_of_face, inspection),
        read_inspected_options(request_of_face, inspection),
    )
    requests = (request_of_face, *(replace(request_of_face, background=colour) for colour in ("#00b140", "#000000")))
    keys = {session.make_avatar_key(request, inspection, options) for request in requests}
    keys.add(session.make_avatar_key(requests[0], replace(inspection, media_sha256={"background": "ab"}), options))
    assert len(keys) == 4


def test_what_cannot_be_seen_is_noted(request_of_face: Request, tmp_path: Path) -> None:
    """An avatar without transparency shows no background, and keeps none."""
    cv2.imwrite(str(tmp_path / "face.png"), tiny.picture())
    for asked, word in (({"background": "#00b140"}, "no background"), ({"output": Output(alpha=True)}, "has none")):
        notes = Handler("cpu:0").inspect(replace(request_of_face, **asked)).notes
        assert any("without transparency" in note and word in note for note in notes)
