"""What every motion engine keeps to: the tests that each runs on itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.arrays import U8
from models.motion import sizes
from models.motion.types import MotionEngine, MotionFiles, MotionPlan, MotionRequest, frame_path
from models.types import EngineError


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@contextmanager
def run_small() -> Iterator[None]:
    """Allow clips that are smaller than users get; one thread is enough for tiny networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "SMALLEST", 64)
        yield
    torch.set_num_threads(threads)


def decode_picture(data: bytes) -> U8:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


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


def run_first_unit(engine: MotionEngine, plan: MotionPlan, folder: Path) -> None:
    files = open_folder(plan, folder)
    engine.prepare(plan, files.folder, lambda _: None)
    engine.denoise(files.folder, 0, 0, 1, lambda _: None)


@dataclass(frozen=True)
class Made:
    """A clip that one engine has made, and two engines whose networks are loaded."""

    engines: tuple[MotionEngine, MotionEngine]
    request: MotionRequest
    plan: MotionPlan
    pictures: list[bytes]


class MotionEngineContract:
    """Inherit it, and make an engine and a small request of it; both are called before fixtures of a function."""

    @classmethod
    def make_engine(cls) -> MotionEngine:
        raise NotImplementedError

    @classmethod
    def make_request(cls, folder: Path) -> MotionRequest:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory: pytest.TempPathFactory) -> Made:
        folder = tmp_path_factory.mktemp("made")
        engines, request = (cls.make_engine(), cls.make_engine()), cls.make_request(folder)
        plan = engines[0].inspect(request)
        return Made(engines, request, plan, make_clip([engines[0]], plan, folder / "clip", seed=1))

    def test_any_order_and_any_number_of_engines_give_the_same_clip(self, made: Made, tmp_path: Path) -> None:
        """Units in order on one engine, and at random on two, make the same bytes."""
        assert make_clip(list(made.engines), made.plan, tmp_path / "two", seed=2) == made.pictures
        assert len(set(made.pictures)) > 1, "nothing moves"

    def test_the_frames_are_what_the_plan_says(self, made: Made) -> None:
        """Each frame has the size of the plan, in multiples of what players take, and there are no more."""
        assert len(made.pictures) == made.plan.frames
        shapes = {decode_picture(data).shape for data in made.pictures}
        assert shapes == {(made.plan.height, made.plan.width, 3)}
        assert not {made.plan.width % 2, made.plan.height % 2} - {0}

    def test_another_seed_is_another_clip(self, made: Made, tmp_path: Path) -> None:
        """The seed decides the motion, and stands in what identifies the clip."""
        plan = made.engines[0].inspect(replace(made.request, seed=2))
        assert plan.identity != made.plan.identity
        assert make_clip([made.engines[0]], plan, tmp_path / "other") != made.pictures

    def test_finished_units_are_not_made_again(self, made: Made, tmp_path: Path) -> None:
        """A unit that is on disk stays as it is, and one that is missing comes out the same."""
        plan, folder = made.plan, tmp_path / "clip"
        files = open_folder(plan, folder)
        made.engines[0].prepare(plan, folder, lambda _: None)
        made.engines[0].denoise(folder, 0, 0, plan.units[0], lambda _: None)
        paths = [files.unit_path(0, unit) for unit in range(plan.units[0])]
        before = [path.read_bytes() for path in paths]
        inodes = [path.stat().st_ino for path in paths]
        paths[-1].unlink()
        made.engines[1].denoise(folder, 0, 0, plan.units[0], lambda _: None)
        assert [path.read_bytes() for path in paths] == before
        assert [path.stat().st_ino for path in paths[:-1]] == inodes[:-1]

    def test_the_threads_of_a_worker_do_not_change_its_numbers(self, made: Made, tmp_path: Path) -> None:
        """One thread and three write the same bytes: how many a worker has follows from how many workers there are."""
        written = []
        for threads in (1, 3):
            files = open_folder(made.plan, tmp_path / str(threads))
            with use_threads(threads):
                made.engines[0].prepare(made.plan, files.folder, lambda _: None)
                made.engines[0].denoise(files.folder, 0, 0, 1, lambda _: None)
                assert torch.get_num_threads() == threads
            made_files = (files.constants, files.state_path(0), files.unit_path(0, 0))
            written.append([path.read_bytes() for path in made_files])
        assert written[0] == written[1]

    def test_a_plan_survives_as_text(self, made: Made) -> None:
        """A plan that was written and read is the same; it names what result.json has to say."""
        assert MotionPlan.from_json_text(made.plan.to_json_text()).to_json_text() == made.plan.to_json_text()
        assert {"engine", "weights", "licence", "scheduler", "seed"} <= made.plan.facts.keys()

    def test_a_report_that_raises_ends_the_call(self, made: Made, tmp_path: Path) -> None:
        """Each long call reports, so that a cancelled one ends soon; run again, it makes what it would have made."""
        engine, other = made.engines
        files, undisturbed = (open_folder(made.plan, tmp_path / name) for name in ("clip", "undisturbed"))

        def stop(_: int) -> None:
            raise KeyboardInterrupt

        other.prepare(made.plan, undisturbed.folder, lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            engine.prepare(made.plan, files.folder, stop)
        engine.prepare(made.plan, files.folder, lambda _: None)
        other.denoise(undisturbed.folder, 0, 0, 1, lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            engine.denoise(files.folder, 0, 0, 1, stop)
        assert not files.unit_path(0, 0).exists()
        engine.denoise(files.folder, 0, 0, 1, lambda _: None)
        assert files.state_path(0).read_bytes() == undisturbed.state_path(0).read_bytes()
        assert files.unit_path(0, 0).read_bytes() == undisturbed.unit_path(0, 0).read_bytes()

    def test_progress_counts_units(self, made: Made, tmp_path: Path) -> None:
        """A call tells of 0 units until the first is done, and of all at its end; it never goes back."""
        plan, files = made.plan, open_folder(made.plan, tmp_path / "clip")
        prepared, denoised, advanced = list[int](), list[int](), list[int]()
        made.engines[0].prepare(plan, files.folder, prepared.append)
        made.engines[0].denoise(files.folder, 0, 0, plan.units[0], denoised.append)
        made.engines[0].advance(files.folder, 0, advanced.append)
        assert [told[-1] for told in (prepared, denoised, advanced)] == [1, plan.units[0], 1]
        for told in (prepared, denoised, advanced):
            assert told == sorted(told)

    def test_brackets_without_a_partner_are_refused(self, made: Made) -> None:
        """Before any work, in either prompt, with what to do."""
        for key in ("prompt", "negative_prompt"):
            with pytest.raises(EngineError, match=f"bad_prompt: .*motion.{key}") as caught:
                made.engines[0].inspect(replace(made.request, **{key: "a (smile"}))  # type: ignore[arg-type]
            assert caught.value.hint


class WeightsContract(MotionEngineContract):
    """The same of engines that have weights."""

    @classmethod
    def make_damaged_request(cls, folder: Path) -> MotionRequest:
        """Return a request with weights in the folder, of which a file is cut off."""
        raise NotImplementedError

    def test_damaged_weights_are_named(self, tmp_path: Path) -> None:
        """By the first call that opens them, with what to do."""
        engine = self.make_engine()
        plan = engine.inspect(self.make_damaged_request(tmp_path))
        with pytest.raises(EngineError, match="weights_damaged") as caught:
            run_first_unit(engine, plan, tmp_path / "clip")
        assert caught.value.hint
