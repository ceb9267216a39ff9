"""From landmarks to boxes: the published rule, and smooth boxes over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.musetalk.tracking.boxes import make_reference_box, plan_boxes, plan_reference_boxes, pose_grid_px
from models.musetalk.tracking.landmarks import measure_boxes
from tests.models.musetalk.recipe import golden
from tests.models.musetalk.tracking.heads import SIZE, face_at, still, video

NOWHERE = np.full(4, np.nan)


CASES = golden("05_bbox_from_landmarks")


@pytest.mark.parametrize("case", range(len(CASES["names"])), ids=CASES["names"].tolist())
def test_the_published_rule(case: int) -> None:
    """The box is the golden one, and so is its lower edge with the margin of v1.5."""
    height, width = CASES["hw"][case].tolist()
    points, shift = CASES["landmarks68"][case], int(CASES["shift"][case])
    detected = CASES["detector_box"][case] if CASES["face_found"][case] else None
    box = make_reference_box(points, detected, shift)
    assert (box or (0, 0, 0, 0)) == tuple(CASES["bbox"][case])
    if box is not None:
        assert detected is not None
        track = plan_reference_boxes(points[None], detected[None], (width, height), shift=shift, margin=10)
        assert track.boxes[0, 3] == CASES["v15_y2_margin10"][case]


def test_reference_boxes_stand_alone() -> None:
    """In the reference's way each frame has its own box; one without a face has its neighbour's and is reported."""
    points, detected = video(still(5) + np.arange(5)[:, None] * 7)
    detected[3] = -1
    track = plan_reference_boxes(points, detected, SIZE, margin=10)
    for number in (0, 1, 2, 4):
        box = make_reference_box(points[number], detected[number], 0)
        assert box is not None
        assert tuple(track.boxes[number]) == (*box[:3], min(box[3] + 10, 720))
    assert track.gaps == ((3, 4),)
    assert tuple(track.boxes[3]) in (tuple(track.boxes[2]), tuple(track.boxes[4]))


def test_reference_boxes_at_the_lower_edge() -> None:
    """With the margin of v1.5 they end at the edge; v1 leaves them beyond it."""
    points, detected = video(np.array([[640.0, 700.0], [640.0, 635.0]]))
    assert plan_reference_boxes(points, detected, SIZE, margin=10).boxes[:, 3].tolist() == [720, 720]
    assert plan_reference_boxes(points, detected, SIZE).boxes[:, 3].tolist() == [780, 715]
    assert plan_boxes(points, detected, SIZE, cuts=(1,), margin=10).boxes[:, 3].tolist() == [790, 725]


@pytest.mark.parametrize("side", [64, 256, 900])
def test_a_margin_may_grow_with_the_face(side: int) -> None:
    """10 pixels of a face of 256 are 2 or 3 of one of 64, and 35 of one of 900; a head at rest keeps them steady."""
    points = np.repeat(face_at(640, 360, side)[None], 12, 0) + np.random.default_rng(0).normal(0, 0.2, (12, 1, 1))
    detected = np.repeat([[640 - side / 2, 360 - side / 2, 640 + side / 2, 360 + side / 2]], 12, 0)
    without, with_share = (plan_boxes(points, detected, SIZE, margin_share=share).boxes for share in (0.0, 10 / 256))
    height = (without[:, 3] - without[:, 1]).mean()
    added = with_share[:, 3] - without[:, 3]
    assert added.mean() == pytest.approx(10 / 256 * height, abs=1)
    assert np.ptp(added) <= 1
    assert np.array_equal(with_share[:, :3], without[:, :3])


def test_a_reference_box_outside_of_the_picture_is_no_face() -> None:
    """Where nothing of a box shows there is nothing to cut: a face half a picture away, or one without any width."""
    points, detected = video(np.array([[640.0, 360.0], [1500.0, 360.0], [-300.0, 360.0]]))
    assert plan_reference_boxes(points, detected, SIZE).seen.tolist() == [True, False, False]


def test_a_still_has_the_box_of_the_rule() -> None:
    """For a picture our way and the reference's are the same."""
    points, detected = video(still(1, 500.3, 411.8))
    track = plan_boxes(points, detected, SIZE)
    assert tuple(track.boxes[0]) == make_reference_box(points[0], detected[0], 0)
    assert (track.jitter_px, track.gaps, track.cuts) == (0.0, (), ())


def test_a_still_in_many_frames_is_one_box() -> None:
    """A picture shown as a video has one box."""
    track = plan_boxes(*video(still(90, 500.3, 411.8)), SIZE)
    assert len(np.unique(track.boxes, axis=0)) == 1
    assert track.jitter_px == 0.0


def test_the_tremor_of_a_resting_head_goes() -> None:
    """A head at rest, seen on the grid of the pose net with a tremor: the boxes that trembled by pixels rest."""
    points, detected = video(still(150), grain=pose_grid_px(SIZE))
    track = plan_boxes(points, detected, SIZE)
    assert track.raw_jitter_px > 1.5
    assert track.jitter_px < 0.1 * track.raw_jitter_px
    assert np.abs(np.diff(track.boxes, axis=0)).max() <= 1


def test_a_moving_head_is_followed_without_delay() -> None:
    """A nod of 2 Hz and 30 px: nearer to the truth than the raw boxes, and neither late nor early by a frame."""
    time = np.arange(150) / 25
    path = still(150) + np.stack([60 * np.sin(2 * np.pi * 0.5 * time), 30 * np.sin(2 * np.pi * 2.0 * time)], 1)
    truth = measure_boxes(np.stack([face_at(x, y) for x, y in path]), 0)[10:-10]
    points, detected = video(path, grain=pose_grid_px(SIZE))
    track = plan_boxes(points, detected, SIZE)
    raw = plan_reference_boxes(points, detected, SIZE)

    def error(boxes: np.ndarray, late: int = 0) -> float:
        return float(np.sqrt(((boxes[10 + late : len(boxes) - 10 + late] + 0.5 - truth) ** 2).mean()))

    assert error(track.boxes) < error(raw.boxes)
    assert error(track.boxes) < min(error(track.boxes, 1), error(track.boxes, -1))
    assert track.jitter_px < 0.5 * track.raw_jitter_px


def test_shot_cuts_are_kept_sharp() -> None:
    """On both sides of a cut the boxes are those that each shot has for itself."""
    path = np.concatenate([still(30, 300, 300), still(30, 900, 420)])
    points, detected = video(path)
    both = plan_boxes(points, detected, SIZE, cuts=(30,))
    assert both.cuts == (30,)
    assert np.array_equal(both.boxes[:30], plan_boxes(points[:30], detected[:30], SIZE).boxes)
    assert np.array_equal(both.boxes[30:], plan_boxes(points[30:], detected[30:], SIZE).boxes)


def test_frames_without_a_face_stay_in_step() -> None:
    """They have the box of the nearest frame with one, in their shot if there is one, and their ranges are told."""
    path = np.concatenate([still(20, 300, 300), still(20, 900, 420)])
    points, detected = video(path)
    gone = [0, 1, 8, 19, 20, 21, 39]
    detected[gone], points[gone] = NOWHERE, np.nan
    track = plan_boxes(points, detected, SIZE, cuts=(20,))
    assert track.boxes.shape == (40, 4)
    assert track.gaps == ((0, 2), (8, 9), (19, 22), (39, 40))
    left, right = track.boxes[5], track.boxes[30]
    assert (track.boxes[:20] == left).all()
    assert (track.boxes[20:] == right).all()


def test_a_shot_without_any_face() -> None:
    """It borrows boxes next door and shows no face in all its frames."""
    points, detected = video(still(30))
    detected[10:20], points[10:20] = -1, np.nan
    track = plan_boxes(points, detected, SIZE, cuts=(10, 20))
    assert track.gaps == ((10, 20),)
    assert (track.boxes == track.boxes[0]).all()


def test_no_face_at_all() -> None:
    """The track says so and doesn't fail: the caller knows the file's name."""
    track = plan_boxes(np.full((4, 68, 2), np.nan), np.full((4, 5), np.nan), SIZE)
    assert not track.seen.any()
    assert track.gaps == ((0, 4),)
    assert track.boxes.shape == (4, 4)
    assert plan_reference_boxes(np.zeros((4, 68, 2)), np.full((4, 4), -1.0), SIZE).gaps == ((0, 4),)


def test_a_face_that_leaves_the_picture_keeps_its_box() -> None:
    """Past every edge the box goes on as it was: no jump to the detector's, no other size, until most of it is gone."""
    for step in ([-6, 0], [6, 0], [0, -4], [0, 4]):
        path = still(90) + np.arange(90)[:, None] * step * 2
        track = plan_boxes(*video(path, 240.0), SIZE)
        sides = track.boxes[track.seen][:, 2:] - track.boxes[track.seen][:, :2]
        assert np.ptp(sides, 0).max() <= 1
        assert np.abs(np.diff(track.boxes[track.seen][:, :2], axis=0) - np.array(step) * 2).max() <= 1
        x1, y1, x2, y2 = track.boxes[track.seen].T
        assert (min(x1.min(), y1.min()) < 0) or x2.max() > SIZE[0] or y2.max() > SIZE[1]


def test_a_box_that_is_nearly_outside_is_no_face() -> None:
    """Where less than a quarter of it shows, there is nothing to paint."""
    points, detected = video(np.array([[640.0, 360.0], [-70.0, 360.0]]))
    assert plan_boxes(points, detected, SIZE).seen.tolist() == [True, False]


def test_odd_sizes_are_like_any_other() -> None:
    """Nothing is rounded to even numbers."""
    points, detected = video(still(5, 160.5, 119.5), 101.0)
    rule = make_reference_box(points[0], detected[0], 0)
    assert tuple(plan_boxes(points[:1], detected[:1], (321, 241)).boxes[0]) == rule
    assert np.abs(plan_boxes(points, detected, (321, 241)).boxes - rule).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(1, 30),
    size=st.tuples(st.integers(1, 400), st.integers(1, 300)),
    rate=st.sampled_from([1.0, 12.0, 29.97, 120.0]),
    smooth=st.booleans(),
    shift=st.integers(-30, 30),
)
def test_any_nonsense_gives_boxes_that_can_be_cut(
    seed: int, frames: int, size: tuple[int, int], rate: float, smooth: bool, shift: int
) -> None:
    """Whatever the networks say, where a face counts as seen its box has an area and shares pixels with the frame."""
    random = np.random.default_rng(seed)
    middle, side = random.uniform(-0.3, 1.3, (frames, 2)) * size, random.uniform(1, 300)
    points = middle[:, None] + random.normal(0, side * random.choice([0.3, 5]), (frames, 68, 2))
    detected = np.concatenate([middle - side / 2, middle + side / 2], 1)
    gone = random.random(frames) < 0.3
    detected[gone], points[gone] = random.choice([np.nan, -1]), np.nan
    cuts = sorted(set(random.integers(0, frames + 2, 3).tolist()))
    plans = [plan_boxes(points, detected, size, cuts=cuts, rate=rate, smooth=smooth, shift=shift)]
    plans.append(plan_reference_boxes(points, detected, size, shift=shift))
    for track in plans:
        assert track.boxes.shape == (frames, 4)
        assert not track.seen[gone].any()
        x1, y1, x2, y2 = track.boxes[track.seen].T
        assert ((x2 > x1) & (y2 > y1)).all()
        assert ((x1 < size[0]) & (y1 < size[1]) & (x2 > 0) & (y2 > 0)).all()
        if track.seen.any():
            assert all(row.tolist() in track.boxes[track.seen].tolist() for row in track.boxes)


def test_five_minutes_take_a_second() -> None:
    """7,500 frames are planned at once, calm and in step."""
    frames = 7_500
    path = still(frames) + np.stack([40 * np.sin(np.arange(frames) / 40), np.zeros(frames)], 1)
    points = face_at(0, 0)[None] + path[:, None]
    detected = np.concatenate([path - 100, path + 100], 1)
    track = plan_boxes(points, detected, SIZE, cuts=range(1000, frames, 1000))
    assert track.boxes.shape == (frames, 4)
    assert track.jitter_px < 0.5
