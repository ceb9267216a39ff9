"""What the meter sees of frames: it changes none, and sees the same in BGR and in planes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.arrays import U8
from models.quality.meter import EVERY, Samples, cut_grey, measure_seam, measure_steps, watch_frames
from tests.models.quality.faults import FRAMES, PAINTED, SIDE, make_curve, make_frames, make_trace


def test_frames_pass_unchanged_and_planes_are_seen_alike(tmp_path: Path) -> None:
    """The same objects come out; of 4:2:0 planes the first is looked at, which differs by the range of video alone."""
    trace = make_trace()
    frames = make_frames(make_curve(), trace)[:10]
    planes = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), np.uint8) for frame in frames]
    seen = []
    for name, given in (("bgr", frames), ("yuv", planes)):
        passed = list(watch_frames(iter(given), [trace.cut(0, 10)], 0, SIDE, tmp_path / name))
        assert all(one is other for one, other in zip(passed, given, strict=True))
        samples = Samples.make_empty(1, FRAMES)
        samples.fill(tmp_path / name, 0)
        seen.append(samples)
    assert np.corrcoef(seen[0].patches[0, :10].ravel(), seen[1].patches[0, :10].ravel())[0, 1] > 0.99
    assert np.flatnonzero(np.isfinite(seen[0].seams[0])).tolist() == [0, EVERY]
    assert np.allclose(seen[0].mouths[0, :10], seen[1].mouths[0, :10] * 255 / 219, rtol=0.1, equal_nan=True)


def test_a_generator_that_is_stopped_is_closed(tmp_path: Path) -> None:
    """A cancelled span closes its engine, and leaves no samples."""
    closed = []

    def render() -> object:
        try:
            yield from make_frames(make_curve(), make_trace())
        finally:
            closed.append(True)

    watched = watch_frames(render(), [make_trace()], 0, SIDE, tmp_path / "samples")  # type: ignore[arg-type]
    next(watched)
    watched.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_samples_that_are_lost_are_not_measured(tmp_path: Path, damage: bytes | None) -> None:
    """After a power cut the part is there, and its samples may not be."""
    if damage is not None:
        (tmp_path / "samples").write_bytes(damage)
    samples = Samples.make_empty(1, FRAMES)
    samples.fill(tmp_path / "samples", 0)
    assert not samples.patches.any()


def test_a_box_outside_of_the_picture(tmp_path: Path) -> None:
    """What is cut off isn't seen: there is no seam to measure there, and a mouth beyond the edge is empty."""
    frame: U8 = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert cut_grey(frame, np.array([300.0, 300.0, 20.0, 20.0]), SIDE).size == 0
    assert cut_grey(frame, np.array([-10.0, -10.0, 20.0, 20.0]), SIDE).shape == (10, 10)
    assert np.isnan(measure_seam(frame, np.array([150.0, 150.0, 60.0, 60.0]), SIDE, "around"))
    assert measure_seam(frame, np.array(PAINTED, np.float64), SIDE, "above") == 0.0
    near = np.array([100.0, 120.0, 60.0, 76.0])  # the frame cuts what is below it, and nothing else
    assert (
        np.isnan(measure_steps(frame, near, SIDE, "around"))[:, 0].tolist() == [False] * 6 + [True] * 6 + [False] * 12
    )
    assert measure_seam(frame, near, SIDE, "around") == 0.0
    outside = make_trace()
    outside.mouths[:] += 300
    list(watch_frames(iter([frame] * 5), [outside.cut(0, 5)], 0, SIDE, tmp_path / "samples"))
