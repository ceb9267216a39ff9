"""Jobs in 8 bits on the processor, by ONNX Runtime: their plan, their engine, and what is in the cache."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models.avatars import is_complete
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.engines import engine_cache
from models.musetalk.engines.calibration import Calibration, Sample
from models.musetalk.engines.engine_cache import EngineCache, choose_batches, run_ticking
from models.musetalk.engines.onnx_export import list_stages
from models.musetalk.engines.plan import EnginePlan
from models.musetalk.engines.providers import CPU, Host, open_session
from models.musetalk.inpainting.picture_gate import PictureDifference, PictureLimit
from models.musetalk.networks import Networks
from models.types import EngineError, Inspection, Request
from tests.models.musetalk import tiny
from tests.models.musetalk.engines.small_nets import HEARD, load_small
from tests.models.musetalk.jobs import make_request, prepare_job, write_image

FRAMES = 10


@dataclass
class Job:
    """A prepared job: what it asked for, who prepared it, and its frames."""

    request: Request
    engine: MuseTalkEngine
    inspection: Inspection
    frames: list[Any]

    @property
    def plan(self) -> EnginePlan:
        return EnginePlan.read(self.request.files.prepared / "engine.json")

    @property
    def cache(self) -> EngineCache:
        """The cache as the job's worker has it."""
        networks = self.engine.open_session(self.request, self.inspection).networks
        return networks._open_cache((Path(self.request.cache), 1 << 30, lambda: None))


class Jobs:
    """Jobs in one folder with one avatar and one cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.models_dir = folder, tiny.lay_out(folder / "models")
        self.avatar = write_image(folder / "face.png")

    def make(self, name: str, avatar: Path | None = None, **options: Any) -> Job:
        request = make_request(self.folder, self.models_dir, avatar or self.avatar, job=name, **options)
        engine, inspection = prepare_job(request)
        return Job(request, engine, inspection, list(engine.render(request, inspection, 0, FRAMES)))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Jobs whose UNet and VAE are small enough to be exported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Networks, "_load_inpainter_nets", load_small)
        yield Jobs(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def int8(jobs: Jobs) -> Job:
    pytest.importorskip("onnx")
    return jobs.make("narrow", precision="int8")


@pytest.fixture(scope="module")
def fp32(jobs: Jobs) -> Job:
    return jobs.make("wide", precision="fp32")


def test_a_result_says_which_stages_run_in_8_bits(int8: Job, fp32: Job) -> None:
    """Those that fail the gate alone stay wide; the pictures are within it, and not those of the wide networks."""
    told = int8.engine.report(int8.request, int8.inspection)
    engine = told["musetalk"]["painter"]["engine"]
    assert (engine["precision"], engine["provider"]) == ("int8", CPU)
    assert set(engine["stages"].values()) == {"int8", "fp32"}
    failed = [name for name, one in engine["gate"].items() if one["within"] < 0.989 or one["shift"] > 0.501]
    assert all(engine["stages"][name] == "fp32" for name in failed)
    assert engine["gate"]["engine"]["within"] >= 0.989
    wide = [*engine["stages"].values()].count("fp32")
    assert told["notes"] == [f"{wide} of 13 stages run in fp32, as int8 changes their pictures"]
    apart = [np.abs(one.astype(int) - other) for one, other in zip(int8.frames, fp32.frames, strict=True)]
    assert 0 < max(int(one.max()) for one in apart) < 64
    assert float(np.mean(apart)) < 0.5


def test_every_worker_paints_a_job_the_same(int8: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker takes the plan and the engine that are there, however the job is cut, and builds nothing."""
    monkeypatch.setattr(engine_cache, "export_networks", None)
    monkeypatch.setattr(engine_cache, "quantise", None)
    other = MuseTalkEngine("cpu:1")
    spans = ((0, 3), (3, 4), (4, FRAMES))
    cut = [frame for a, b in spans for frame in other.render(int8.request, int8.inspection, a, b)]
    assert all(np.array_equal(one, another) for one, another in zip(int8.frames, cut, strict=True))


def test_the_next_job_of_an_avatar_plans_nothing(
    jobs: Jobs, int8: Job, fp32: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan is that of the first, also in another worker; a wide job between them paints as ever."""
    monkeypatch.setattr(engine_cache, "Calibration", None)
    again = jobs.make("again", precision="int8")
    assert again.plan == int8.plan
    assert [one.tobytes() for one in again.frames] == [one.tobytes() for one in int8.frames]
    between = list(again.engine.render(fp32.request, fp32.inspection, 0, FRAMES))
    assert [one.tobytes() for one in between] == [one.tobytes() for one in fp32.frames]
    then = list(again.engine.render(int8.request, int8.inspection, 0, FRAMES))
    assert [one.tobytes() for one in then] == [one.tobytes() for one in int8.frames]


def test_fp8_is_held_to_the_same_gate(jobs: Jobs, int8: Job, fp32: Job) -> None:
    """The same exported networks with FP8 nodes; three bits of mantissa keep fewer stages than INT8."""
    made = jobs.make("fp8", precision="fp8")
    assert made.plan.bits == "fp8"
    assert len(made.plan.verdict) >= len(made.plan.stages) == len(int8.plan.stages)
    assert [*made.plan.stages.values()].count("fp8") < [*int8.plan.stages.values()].count("int8")
    apart = [np.abs(one.astype(int) - other).mean() for one, other in zip(made.frames, fp32.frames, strict=True)]
    assert float(np.mean(apart)) < 0.5


def test_where_every_stage_fails_the_job_runs_as_usual_and_says_so(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are those of the wide job, and a note tells why."""
    cv2.imwrite(str(other := jobs.folder / "other.png"), (tiny.picture() * 0.9).astype(np.uint8))
    strict = Calibration.choose
    monkeypatch.setattr(Calibration, "choose", lambda self: strict(self, PictureLimit(0, 1.0, 0.0)))
    made = jobs.make("none", other, precision="int8")
    usual = jobs.make("usual", other)
    assert made.plan.networks == []
    assert [one.tobytes() for one in made.frames] == [one.tobytes() for one in usual.frames]
    [note] = made.engine.report(made.request, made.inspection)["notes"]
    assert note == "no stage runs in int8, all in fp32: none keeps its pictures"
    assert set(made.plan.stages.values()) == {"fp32"}


def test_an_engine_that_paints_otherwise_than_its_trial_is_not_used(
    int8: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a card makes of the network is held to the gate once more, as it runs."""
    monkeypatch.setattr(Sample, "compare", lambda *_: PictureDifference(within=0.5, shift=3.0, most=90))
    monkeypatch.setattr(engine_cache, "Calibration", lambda *_: SimpleNamespace(choose=lambda: int8.plan))
    networks = int8.engine.open_session(int8.request, int8.inspection).networks
    sample = Sample(networks.inpainter, *make_inputs())
    found = int8.cache._make_plan(tmp_path, EnginePlan("int8", "fp32", {"unet": 4, "decode": 1}, (50, HEARD)), sample)
    assert (found.networks, found.verdict["engine"]["shift"]) == ([], 3.0)
    assert found.note == "no stage runs in int8, all in fp32: the built engine changes the pictures"


def test_a_plan_is_for_networks_in_its_precision(int8: Job) -> None:
    """A device that has them in another one paints nothing, instead of other pictures."""
    with pytest.raises(EngineError, match="beside fp16, and this device has the networks in fp32") as failed:
        int8.cache.open_networks(replace(int8.plan, wide="fp16"))
    assert failed.value.code == "engine_unavailable"


def test_weights_that_need_bf16_stay_in_it(int8: Job) -> None:
    """Where fp16 overflows nothing is exported, and the result says why."""
    brain = replace(int8.cache, inpainter=int8.cache.inpainter)
    wide = brain.inpainter.dtype
    brain.inpainter.dtype = torch.bfloat16
    try:
        found = brain.fetch_plan("int8", {"unet": 4, "decode": 1}, *make_inputs())
    finally:
        brain.inpainter.dtype = wide
    assert found.note == "no stage runs in int8, all in bf16: these weights overflow in fp16"


def test_exported_networks_are_the_networks(int8: Job) -> None:
    """In their batch, with the pixels of PyTorch, and the stages of both networks."""
    cache = Path(int8.request.cache)
    whole = [path.parent for path in cache.glob("*/unet.onnx") if (path.parent / "decode.onnx").exists()]
    folder = next(one for one in whole if b"QuantizeLinear" not in (one / "unet.onnx").read_bytes())
    assert is_complete(folder)
    assert {"down_blocks.0", "mid_block", "up_blocks.0"} <= {*list_stages(folder / "unet.onnx")}
    assert [*list_stages(folder / "decode.onnx")][:3] == ["other", "conv_in", "mid_block"]
    unet, decode = (open_session(folder / f"{name}.onnx", [(CPU, {})]) for name in ("unet", "decode"))
    assert [one.shape[0] for one in (*unet.get_inputs(), *decode.get_inputs())] == [4, 4, 1]
    latents, heard = make_inputs()
    wanted = int8.cache.inpainter.run_modules(
        lambda predict, _: predict(torch.from_numpy(latents), torch.from_numpy(heard))
    )
    found = unet.run(None, {"latents": latents, "audio_windows": heard})[0]
    assert np.allclose(found, wanted.numpy(), atol=1e-4)


def test_an_engine_is_kept_by_card_driver_and_version(int8: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another card, driver, library, network, batch or range has a key of its own."""
    one = int8.cache
    card = Host("RTX 4090", (8, 9), "550.1")
    hosts = [one.host, card, replace(card, card="L4"), replace(card, driver="560.2"), replace(card, capability=(9, 0))]
    caches = [replace(one, host=host) for host in hosts] + [replace(one, weights="other")]
    plan = int8.plan
    plans = [replace(plan, batches={"unet": 8, "decode": 8}), replace(plan, ranges={}), replace(plan, bits="fp8")]
    keys = [cache._make_key("engine", dataclasses.asdict(plan)) for cache in [one, *caches]]
    keys += [one._make_key("engine", dataclasses.asdict(other)) for other in plans]
    monkeypatch.setattr("models.musetalk.engines.providers.version", lambda _: "99")
    keys.append(one._make_key("engine", dataclasses.asdict(plan)))
    assert keys[0] == keys[1]
    assert len({*keys}) == len(keys) - 1


def test_free_memory_does_not_choose_the_batch() -> None:
    """It is the job's, or the same on each card; a power of two that a card takes."""
    assert choose_batches("cuda", None) == {"unet": 8, "decode": 8}
    assert choose_batches("cuda", 5) == {"unet": 4, "decode": 4}
    assert choose_batches("cuda", 64) == {"unet": 16, "decode": 16}
    assert choose_batches("cpu", None) == {"unet": 4, "decode": 1}


def test_a_long_build_is_alive_and_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ticks meanwhile; what a tick raises comes out, and so does what the work raises."""
    monkeypatch.setattr(engine_cache, "TICK_S", 0.01)
    ended, ticks = threading.Event(), []

    def tick() -> None:
        ticks.append(1)
        ended.set()

    assert run_ticking(lambda: ended.wait(60), tick)
    assert ticks

    def cancel() -> None:
        ended.set()
        raise KeyboardInterrupt

    ended.clear()
    with pytest.raises(KeyboardInterrupt):
        run_ticking(lambda: ended.wait(60), cancel)

    def fail() -> None:
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        run_ticking(fail, lambda: None)


def make_inputs() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    latents, heard = random.standard_normal((4, 8, 32, 32)), random.standard_normal((4, 50, HEARD))
    return latents.astype(np.float32), heard.astype(np.float32)
