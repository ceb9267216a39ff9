"""What every motion engine keeps to: the tests that each runs on itself."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.motion.types import MotionEngine, MotionFiles, MotionPlan, MotionRequest, frame_path


def open_folder(plan: MotionPlan, folder: Path) -> MotionFiles:
    """Return the files of a clip that is to be made in the folder."""
    folder.mkdir(parents=True)
    files = MotionFiles(folder)
    files.plan.write_text(plan.to_json_text())
    return files


def make_clip(engines: list[MotionEngine], plan: MotionPlan, folder: Path, seed: int = 0) -> list[bytes]:
    """Make a clip with units in a random order on several engines; return its pictures."""
    files, order = open_folder(plan, folder), random.Random(seed)
    engines[0].prepare(plan, folder, lambda _: None)
    for step, count in enumerate(plan.units):
        for unit in order.sample(range(count), count):
            order.choice(engines).denoise(folder, step, unit, unit + 1, lambda _: None)
            assert files.unit_path(step, unit).exists()
        order.choice(engines).advance(folder, step, lambda _: None)
        assert files.state_path(step + 1).exists()
    files.frames.mkdir()
    engines[-1].decode(folder, files.frames, lambda _: None)
    return [frame_path(files.frames, number).read_bytes() for number in range(plan.frames)]


class MotionEngineContract:
    """Inherit it, and make an engine and a small request of it."""

    def make_engine(self) -> MotionEngine:
        raise NotImplementedError

    def make_request(self, tmp_path: Path) -> MotionRequest:
        raise NotImplementedError

    def test_any_order_and_any_number_of_engines_give_the_same_clip(self, tmp_path: Path) -> None:
        """Units in order on one engine, and at random on two, make the same bytes."""
        plan = self.make_engine().inspect(self.make_request(tmp_path))
        one = make_clip([self.make_engine()], plan, tmp_path / "one", seed=1)
        two = make_clip([self.make_engine(), self.make_engine()], plan, tmp_path / "two", seed=2)
        assert one == two
        assert len(set(one)) > 1, "nothing moves"

    def test_the_frames_are_what_the_plan_says(self, tmp_path: Path) -> None:
        """Each frame has the size of the plan, in multiples of what players take, and there are no more."""
        plan = self.make_engine().inspect(self.make_request(tmp_path))
        make_clip([self.make_engine()], plan, tmp_path / "clip")
        frames = sorted((tmp_path / "clip" / "frames").iterdir())
        assert len(frames) == plan.frames
        shapes = {np.asarray(cv2.imread(str(path))).shape for path in frames}
        assert shapes == {(plan.height, plan.width, 3)}
        assert not {plan.width % 2, plan.height % 2} - {0}

    def test_another_seed_is_another_clip(self, tmp_path: Path) -> None:
        """The seed decides the motion, and stands in what identifies the clip."""
        request = self.make_request(tmp_path)
        plans = [self.make_engine().inspect(replace(request, seed=seed)) for seed in (1, 2)]
        assert plans[0].identity != plans[1].identity
        clips = [make_clip([self.make_engine()], plan, tmp_path / str(n)) for n, plan in enumerate(plans)]
        assert clips[0] != clips[1]

    def test_finished_units_are_not_made_again(self, tmp_path: Path) -> None:
        """A unit that is on disk stays as it is, and one that is missing comes out the same."""
        plan, engine, folder = (
            self.make_engine().inspect(self.make_request(tmp_path)),
            self.make_engine(),
            tmp_path / "f",
        )
        files = open_folder(plan, folder)
        engine.prepare(plan, folder, lambda _: None)
        engine.denoise(folder, 0, 0, plan.units[0], lambda _: None)
        paths = [files.unit_path(0, unit) for unit in range(plan.units[0])]
        before = [path.read_bytes() for path in paths]
        inodes = [path.stat().st_ino for path in paths]
        paths[-1].unlink()
        self.make_engine().denoise(folder, 0, 0, plan.units[0], lambda _: None)
        assert [path.read_bytes() for path in paths] == before
        assert [path.stat().st_ino for path in paths[:-1]] == inodes[:-1]

    def test_a_plan_survives_as_text(self, tmp_path: Path) -> None:
        """A plan that was written and read is the same; it names what result.json has to say."""
        plan = self.make_engine().inspect(self.make_request(tmp_path))
        assert MotionPlan.from_json_text(plan.to_json_text()).to_json_text() == plan.to_json_text()
        assert {"engine", "weights", "licence", "scheduler", "seed"} <= plan.facts.keys()

    def test_a_report_that_raises_ends_the_call(self, tmp_path: Path) -> None:
        """Each long call reports, so that a cancelled one ends soon."""
        plan, engine = self.make_engine().inspect(self.make_request(tmp_path)), self.make_engine()
        files = open_folder(plan, tmp_path / "clip")
        engine.prepare(plan, files.folder, lambda _: None)

        def stop(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.prepare(plan, files.folder, stop)
        with pytest.raises(KeyboardInterrupt):
            engine.denoise(files.folder, 0, 0, 1, stop)
