"""The figures on made-up faults: each fault moves its figure, and no other."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from models.quality.figures import Figures, measure_jitter, merge_figures, shift
from models.quality.meter import measure_steps
from tests.models.quality.faults import FRAMES, make_curve, make_frames, make_trace, measure

STILL = {
    "sharpness": 0.12,
    "drift": 0.2,
    "jitter": 0.05,
    "seam": 0.8,
    "no_face": 0.0,
    "sync": 0.06,
    "lag_ms": 6.0,
    "silent_motion": 0.05,
}
"""By how much a figure may move when something else is wrong."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """The figures of the face without a fault."""
    curve, trace = make_curve(), make_trace()
    return measure(tmp_path_factory.mktemp("sound"), make_frames(curve, trace), trace, curve)


def find_moved(one: Figures, other: Figures) -> dict[str, float]:
    """Return the figures that moved, and by how much."""
    before, after = asdict(one), asdict(other)
    return {name: after[name] - before[name] for name, room in STILL.items() if abs(after[name] - before[name]) > room}


def test_a_face_without_fault(sound: Figures) -> None:
    """Every figure is known, and far from its limit."""
    assert sound.frames_measured == FRAMES
    assert None not in asdict(sound).values()
    assert sound.sharpness is not None
    assert sound.sharpness > 0.7
    assert (sound.jitter, sound.no_face, sound.silent_motion) == (0.0, 0.0, 0.0)
    assert sound.sync is not None
    assert sound.sync > 0.9
    assert abs(sound.lag_ms or 0) < 10
    assert (sound.seam or 0) < 1


def test_a_blurred_mouth(tmp_path: Path, sound: Figures) -> None:
    """A mouth that is soft all the time lowers the sharpness alone; one that becomes soft drifts as well."""
    curve, trace = make_curve(), make_trace()
    soft = measure(tmp_path, make_frames(curve, trace, blur_from=0), trace, curve)
    assert find_moved(sound, soft).keys() == {"sharpness"}
    assert (soft.sharpness or 1) < 0.6 * (sound.sharpness or 0)
    softer = measure(tmp_path, make_frames(curve, trace, blur_from=75), trace, curve)
    assert find_moved(sound, softer).keys() == {"drift"}
    assert (softer.drift or 1) < 0.6


def test_a_shifted_sound(tmp_path: Path, sound: Figures) -> None:
    """Sound that is 120 ms early makes the mouth late by 120 ms, and late sound early."""
    curve, trace = make_curve(), make_trace()
    frames = make_frames(curve, trace)
    for by_frames in (-3, 3):
        moved = find_moved(sound, measure(tmp_path, frames, trace, shift(curve, by_frames)))
        assert moved.keys() == {"lag_ms"}
        assert moved["lag_ms"] == pytest.approx(-40 * by_frames, abs=10)


def test_a_trembling_box(tmp_path: Path, sound: Figures) -> None:
    """A box that trembles by 2 pixels of 140 has a jitter of about 1.4 percent; one that moves or swings has none."""
    curve, trace = make_curve(), make_trace(jitter_px=2.0)
    moved = find_moved(sound, measure(tmp_path, make_frames(curve, trace), trace, curve))
    assert moved.keys() == {"jitter"}
    assert moved["jitter"] == pytest.approx(100 * 2 / 140, rel=0.25)
    still = make_trace()
    swing = 14 * np.sin(2 * np.pi * 2 * np.arange(FRAMES) / 25)[:, None] * [1, 0.2, 0, 0]
    assert (measure_jitter(replace(still, painted=still.painted + swing)) or 0) < 0.2
    steady = replace(still, painted=still.painted + np.linspace(0, 9, FRAMES)[:, None] * [1, 0.2, 0, 0])
    assert find_moved(sound, measure(tmp_path, make_frames(curve, steady), steady, curve)) == {}


def test_a_step_of_tone(tmp_path: Path, sound: Figures) -> None:
    """What is painted 8 levels brighter than the skin around it has a seam of 8 levels; darker is no better."""
    curve, trace = make_curve(), make_trace()
    for levels in (8, -8):
        moved = find_moved(sound, measure(tmp_path, make_frames(curve, trace, seam=levels), trace, curve))
        assert moved.keys() == {"seam"}
        assert moved["seam"] == pytest.approx(8, abs=1)


def test_a_step_of_colour(tmp_path: Path, sound: Figures) -> None:
    """What is painted redder than the skin around it, and no brighter, has a seam as well."""
    curve, trace = make_curve(), make_trace()
    frames = make_frames(curve, trace)
    for frame in frames:
        frame[105:181, 50:150] = np.clip(frame[105:181, 50:150] + np.array([-4, -5, 11]), 0, 255)
    moved = find_moved(sound, measure(tmp_path, frames, trace, curve))
    assert moved.keys() == {"seam"}
    assert moved["seam"] == pytest.approx(7.5, abs=1.5)


def test_a_step_that_the_avatar_has_is_no_seam(tmp_path: Path, sound: Figures) -> None:
    """What is known of its own picture is taken off, and a seam beside it is seen all the same."""
    curve, trace = make_curve(), make_trace()
    [own] = make_frames(curve[:1], trace, seam=12)
    bare = np.tile(measure_steps(own, trace.painted[0], len(own), "around"), (FRAMES, 1, 1))
    known = replace(trace, bare=bare)
    assert find_moved(sound, measure(tmp_path, make_frames(curve, trace, seam=12), known, curve)) == {}
    moved = find_moved(sound, measure(tmp_path, make_frames(curve, trace, seam=4), known, curve))
    assert moved.keys() == {"seam"}
    assert moved["seam"] == pytest.approx(8, abs=1)


def test_frames_without_a_face(tmp_path: Path, sound: Figures) -> None:
    """Their share is told, and the other figures are those of the frames that show it."""
    curve, trace = make_curve(), make_trace()
    gone = replace(trace, seen=np.arange(FRAMES) >= 25)
    moved = find_moved(sound, measure(tmp_path, make_frames(curve, trace), gone, curve))
    assert moved == {"no_face": 0.25}


def test_a_mouth_that_moves_in_a_pause(tmp_path: Path, sound: Figures) -> None:
    """The share of the silence in which it moves, the moments around the words left out."""
    curve, trace = make_curve(), make_trace()
    found = measure(tmp_path, make_frames(curve, trace, restless=True), trace, curve)
    assert (found.silent_motion or 0) > 0.4
    assert find_moved(sound, found).keys() == {"silent_motion"}
    at_s, pause = np.arange(FRAMES) / 25, curve == 0
    restless = np.where(pause, 0.7 * np.abs(np.sin(2 * np.pi * 3 * at_s)), curve)
    chewing = measure(tmp_path, make_frames(restless, trace), trace, curve)
    assert (chewing.silent_motion or 0) > 0.3
    open_still = measure(tmp_path, make_frames(np.where(pause, 0.6, curve), trace), trace, curve)
    assert open_still.silent_motion == 0


def test_what_says_nothing_has_no_figure(tmp_path: Path) -> None:
    """Silence has no sync, a voice without a pause no silence, and frames that were not seen nothing at all."""
    curve, trace = make_curve(), make_trace()
    silent = measure(tmp_path, make_frames(0 * curve, trace), trace, 0 * curve)
    assert (silent.sync, silent.lag_ms, silent.silent_motion) == (None, None, None)
    talking = np.maximum(curve, 0.1)
    assert measure(tmp_path, make_frames(talking, trace), trace, talking).silent_motion is None
    gone = replace(trace, seen=np.zeros(FRAMES, bool))
    nothing = measure(tmp_path, make_frames(curve, trace), gone, curve)
    assert (nothing.frames_measured, nothing.no_face, nothing.sharpness, nothing.sync) == (0, 1.0, None, None)


def test_of_several_faces_the_worst_counts(sound: Figures) -> None:
    """The softest mouth, the greatest lag in either direction, and what is known of one alone."""
    worse = replace(sound, sharpness=0.1, lag_ms=-200.0, seam=None)
    merged = merge_figures([sound, worse])
    assert (merged["sharpness"], merged["lag_ms"], merged["seam"]) == (0.1, -200.0, sound.seam)
