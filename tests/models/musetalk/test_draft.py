"""Drafts: what is painted, what is an average, and that spans decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.arrays import F32, U8
from models.media import split_planes
from models.musetalk.draft import DraftPlan, blend_faces, number_shots, plan_draft, read_keys
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.options import read_options
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import make_request, prepare_job, write_image, write_video

ONE_SHOT = np.zeros(8, np.int64)


def face(number: int) -> U8:
    return np.full((1, 2, 2, 3), number, np.uint8)


def blend(plan: DraftPlan, faces: range) -> list[int]:
    """The grey of each shown face of a span, where that of a painted one is ten times its number."""
    shown = plan.find_shown(faces)
    painted = (face(10 * int(plan.keys[key])) for key in plan.find_needed(shown))
    return [int(one[0, 0, 0, 0]) for one in blend_faces(plan, shown, painted)]


def test_every_second_face_is_painted() -> None:
    """The others are between their neighbours; the last one, which has one neighbour, is like it."""
    plan = plan_draft([(np.ones(8, np.bool_), ONE_SHOT)])
    assert plan.keys.tolist() == [0, 2, 4, 6]
    assert blend(plan, range(8)) == [0, 10, 20, 30, 40, 50, 60, 60]
    assert blend(plan, range(3, 6)) == [30, 40, 50]


def test_neither_cuts_nor_gaps_are_blended_over() -> None:
    """A face takes its neighbour of the same shot alone, and is painted itself where it has none."""
    shown = np.array([1, 1, 0, 1, 0, 1, 1, 1], np.bool_)
    plan = plan_draft([(shown, np.array([0, 0, 0, 0, 0, 0, 1, 1]))])
    assert plan.keys.tolist() == [0, 3, 5, 6]
    assert blend(plan, range(8)) == [0, 0, 30, 50, 60, 60]
    assert number_shots(np.array([4, 5, 6, 6, 5]), 3, [2]).tolist() == [0, 1, 1, 1, 1]


def test_voices_have_faces_of_their_own() -> None:
    """Each of two voices, of which one is hidden for a while, is blended with itself."""
    second = np.array([0, 1, 1, 1, 0, 0, 0, 1], np.bool_)
    plan = plan_draft([(np.ones(8, np.bool_), ONE_SHOT), (second, ONE_SHOT)])
    whole = blend(plan, range(16))
    assert whole == [0, 20, 50, 40, 50, 60, 50, 80, 100, 120, 120, 150]
    assert blend(plan, range(4)) + blend(plan, range(4, 16)) == whole


def test_nothing_shown_needs_nothing() -> None:
    """In a pause no face is painted."""
    plan = plan_draft([(np.zeros(8, np.bool_), ONE_SHOT)])
    assert plan.find_needed(plan.find_shown(range(8))) == range(0)
    assert blend(plan, range(8)) == []


def test_far_keys_are_read_apart() -> None:
    """A pause of minutes between two faces is not read."""
    asked: list[range] = []

    def read(numbers: range) -> F32:
        asked.append(numbers)
        return np.array(numbers, np.float32)

    assert read_keys(np.array([2, 4, 900, 902]), read, 2).tolist() == [2, 4, 900, 902]
    assert asked == [range(2, 5), range(900, 903)]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.lay_out(tmp_path_factory.mktemp("models"))


def test_a_draft_is_marked_and_paints_half(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the faces go through the networks, any cut gives the same bytes, and result and picture say draft."""
    painted: list[range] = []
    stream = Inpainter.stream

    def note(self: Inpainter, frames: range, *rest: Any) -> Iterator[U8]:
        painted.append(frames)
        return stream(self, frames, *rest)

    monkeypatch.setattr(Inpainter, "stream", note)
    avatar = write_video(tmp_path / "face.mp4", [True] * 3)
    full = make_request(tmp_path, models_dir, avatar, job="full", silence="model")
    engine, outline = prepare_job(full)
    usual = list(engine.render(full, outline, 0, 10))
    assert "draft" not in str(engine.report(full, outline)["notes"])
    painted.clear()
    draft = make_request(tmp_path, models_dir, avatar, job="draft", silence="model", quality="draft")
    engine, outline = prepare_job(draft)
    whole = list(engine.render(draft, outline, 0, 10))
    assert sum(map(len, painted)) == 5
    cut = [frame for a, b in ((0, 3), (3, 4), (4, 10)) for frame in engine.render(draft, outline, a, b)]
    assert all(np.array_equal(one, other) for one, other in zip(whole, cut, strict=True))
    corner = slice(0, 10), slice(0, 20)
    for number, pair in enumerate(zip(whole, usual, strict=True)):
        one, other = (split_planes(frame)[0].astype(int) for frame in pair)
        assert (one[corner] != other[corner]).any()
        assert number % 2 or np.abs(one[40:] - other[40:]).max() <= 1
    report = engine.report(draft, outline)
    assert report["label"]
    assert report["musetalk"]["quality"] == "draft"
    assert any("draft" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("given", "text"), [({}, ""), ({"label": "AI"}, "AI"), ({"label": True, "quality": "draft"}, "AI DRAFT")]
)
def test_a_label_is_written_where_it_is_asked_for(given: dict[str, Any], text: str) -> None:
    """By itself only a draft has one; a final video has the letters AI if its job says so."""
    assert read_options(given)[0].label_text == text


def test_a_final_video_may_say_that_it_is_made_by_ai(tmp_path: Path, models_dir: Path) -> None:
    """The letters are in the corner of each frame, the rest of the picture is as without them."""
    avatar = write_image(tmp_path / "face.png")
    plain = make_request(tmp_path, models_dir, avatar, job="plain", silence="model")
    engine, outline = prepare_job(plain)
    usual = list(engine.render(plain, outline, 0, 2))
    assert not engine.report(plain, outline)["label"]
    marked = make_request(tmp_path, models_dir, avatar, job="marked", silence="model", label="AI")
    engine, outline = prepare_job(marked)
    for one, other in zip(engine.render(marked, outline, 0, 2), usual, strict=True):
        assert not np.array_equal(split_planes(one)[0][:10, :15], split_planes(other)[0][:10, :15])
        assert np.array_equal(split_planes(one)[0][40:], split_planes(other)[0][40:])
    assert engine.report(marked, outline)["label"]


def test_the_label_leaves_faces_alone(tmp_path: Path, models_dir: Path) -> None:
    """It is bottom left where a face is in its corner."""
    given: dict[str, Any] = {"silence": "model", "quality": "draft", "face_box": [0, 0, 60, 60]}
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), **given)
    engine, outline = prepare_job(request)
    [frame] = engine.render(request, outline, 0, 1)
    luma = split_planes(frame)[0]
    assert luma[-20:, :40].max() > 150
