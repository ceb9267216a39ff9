"""The frame schedule of a job, and what a prepared job tells of its frames."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.musetalk.avatar.store import AvatarTrack, AvatarWriter, PreparedAvatar
from models.musetalk.options import read_options
from models.musetalk.prepared_job import (
    AVATAR,
    FEATURES,
    STATS,
    FrameSchedule,
    PreparedVoices,
    choose_thumbnail_frame,
    plan_frames,
)

RATE = Fraction(25)
SEEN = np.array([True] * 6 + [False] * 2)


def prepare(folder: Path) -> PreparedAvatar:
    """Write an avatar of eight frames, of which the last two show no face."""
    (folder / AVATAR).mkdir()
    writer = AvatarWriter(folder / AVATAR, AvatarTrack(np.zeros((len(SEEN), 4), np.int32), SEEN))
    for number, seen in enumerate(SEEN):
        writer.add(np.full((8, 32, 32), number, np.float32) if seen else None, None)
    writer.close({})
    return PreparedAvatar(folder / AVATAR)


@pytest.mark.parametrize(("given", "before_gap"), [({"silence": "model"}, 0.25), ({"reference": True}, 1)])
def test_faces_fade_except_in_the_references_way(tmp_path: Path, given: dict[str, Any], before_gap: float) -> None:
    """Frames without a face have weight 0; those beside them fade, and there is a voice everywhere."""
    schedule = plan_frames(prepare(tmp_path), np.zeros(0, np.float32), 10, RATE, read_options(given)[0])
    assert schedule.source.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7, 6]
    assert not schedule.weight[6:].any()
    assert schedule.weight[5] == before_gap
    assert (schedule.voice == 1).all()


def test_the_meter_knows_where_the_faces_are(tmp_path: Path) -> None:
    """The boxes of the frames that are shown; no face where none was seen, or where none was prepared."""
    (tmp_path / AVATAR).mkdir()
    boxes = np.tile(np.array([10, 20, 110, 140], np.int32), (len(SEEN), 1)) + np.arange(8, dtype=np.int32)[:, None]
    writer = AvatarWriter(tmp_path / AVATAR, AvatarTrack(boxes, SEEN))
    for seen in SEEN:
        writer.add(np.zeros((8, 32, 32), np.float32) if seen else None, None)
    writer.close({})
    np.save(tmp_path / FEATURES, np.zeros((1, 1, 5, 384), np.float32))
    (tmp_path / STATS).write_text('{"samples": 0}')
    source = np.array([2, 3, 9, 10])
    FrameSchedule(source, np.ones(4, np.float32), np.ones(4, np.float32), SEEN[:4], 0, first=2).write(tmp_path)
    [job] = PreparedVoices(tmp_path, 1).jobs
    trace = job.trace()
    assert trace.seen.tolist() == [True, True, False, False]
    assert trace.faces[:2].tolist() == [[10, 20, 100, 120], [11, 21, 100, 120]]
    assert trace.painted[0].tolist() == [35, 80, 50, 60]
    assert (trace.seam, trace.expected) == ("above", None)


def test_pauses_have_no_weight(tmp_path: Path) -> None:
    """Unless a job says otherwise, frames in silence keep the avatar's own mouth; the reference paints them."""
    options, _ = read_options({})
    schedule = plan_frames(prepare(tmp_path), np.full(100, -90, np.float32), 5, RATE, options)
    assert not schedule.voice.any()
    assert not schedule.weight.any()


def test_the_thumbnail_is_a_loud_frame() -> None:
    """The loudest one whose mouth is inpainted; the middle one where none is, or without sound."""
    levels = np.full(400, -60, np.float32)
    levels[100:108], levels[300:308] = -10, -5
    weight = np.ones(100, np.float32)
    assert choose_thumbnail_frame(levels, weight, RATE) in (75, 76)
    weight[70:] = 0
    assert choose_thumbnail_frame(levels, weight, RATE) in (25, 26)
    assert choose_thumbnail_frame(levels, 0 * weight, RATE) == 50
    assert choose_thumbnail_frame(levels[:0], weight, RATE) == 50


def test_a_prepared_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Runs of inpainted frames by their numbers in the result, with the latents that belong to them."""
    prepare(tmp_path)
    weight = np.array([0, 1, 0.5, 0, 0, 1], np.float32)
    FrameSchedule(np.array([0, 1, 2, 2, 1, 0]), weight, np.ones(6, np.float32), np.ones(6, np.bool_), 1).write(tmp_path)
    np.save(tmp_path / FEATURES, np.ones((20, 5, 4), np.float32))
    (tmp_path / STATS).write_text(json.dumps({"samples": 6400}))
    job = PreparedVoices(tmp_path, 1)
    assert job.find_inpainted_runs(range(6)) == [range(1, 3), range(5, 6)]
    assert job.find_inpainted_runs(range(2, 5)) == [range(2, 3)]
    assert job.read_latents(range(1, 3))[:, 0, 0, 0].tolist() == [1, 2]
    assert job.audio_windows(range(1, 3), RATE, reference=False).shape == (2, 50, 4)


def test_the_faces_of_several_voices_are_numbered_frame_by_frame(tmp_path: Path) -> None:
    """What is read of any range of numbers is what each voice has at its frames."""
    prepare(tmp_path)
    (tmp_path / "voice-1").mkdir()
    prepare(tmp_path / "voice-1")
    source, heard = np.array([0, 1, 2, 2, 1, 0]), np.arange(400, dtype=np.float32).reshape(20, 5, 4)
    for folder, weight, order, features in (
        (tmp_path, [1, 1, 0, 0, 1, 1], source, heard),
        (tmp_path / "voice-1", [1, 1, 1, 0, 0, 1], source[::-1], -heard),
    ):
        weights, all_ones = np.array(weight, np.float32), np.ones(6, np.float32)
        FrameSchedule(order, weights, all_ones, np.ones(6, np.bool_), 1).write(folder)
        np.save(folder / FEATURES, features)
        (folder / STATS).write_text(json.dumps({"samples": 6400}))
    voices = PreparedVoices(tmp_path, 2)
    assert voices.find_inpainted_runs(range(6)) == [range(4), range(5, 6), range(8, 9), range(10, 12)]
    assert voices.find_inpainted_runs(range(2, 5)) == [range(5, 6), range(8, 9)]
    for faces in (range(4), range(5, 6), range(1, 4), range(10, 12)):
        each = [voices.jobs[face % 2].read_latents(range(face // 2, face // 2 + 1))[0] for face in faces]
        assert np.array_equal(voices.read_latents(faces), np.stack(each))
        windows = [
            voices.jobs[face % 2].audio_windows(range(face // 2, face // 2 + 1), RATE, reference=False)[0]
            for face in faces
        ]
        assert np.array_equal(voices.audio_windows(faces, RATE, reference=False), np.stack(windows))
