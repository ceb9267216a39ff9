"""Pipelines of diffusers as motion engines, with tiny random weights in the published format."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    DiffusionPipeline,
    StableVideoDiffusionPipeline,
    WanImageToVideoPipeline,
)
from safetensors.torch import load_file, save_file

from models.motion.diffusers.engine import DiffusersEngine, load_pipeline, read_photo
from models.motion.tensors import read_arrays
from models.motion.types import MotionEngine, MotionRequest
from models.types import EngineError
from tests.models.motion.contract import WeightsContract, decode_picture, make_clip, open_folder, run_small
from tests.models.motion.diffusers.tiny_pipelines import write_svd, write_wan
from tests.models.motion.test_fake_engine import write_photo

STEPS = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "motion").mkdir()
    write_svd(folder / "motion" / "svd")
    write_wan(folder / "motion" / "wan")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _small_clips() -> Iterator[None]:
    with run_small():
        yield


def make_request(tmp_path: Path, models: Path, variant: str, **more: Any) -> MotionRequest:
    asked: dict[str, Any] = {"variant": variant, "seconds": 0.2, "size": 64, "steps": STEPS, **more}
    return MotionRequest(str(write_photo(tmp_path, 300, 300)), "photo.png", str(models), **asked)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


class TestWan(WeightsContract):
    """Wan keeps to what all motion engines keep to."""

    models: Path

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _models(cls, models: Path) -> None:
        cls.models = models

    @classmethod
    def make_engine(cls) -> MotionEngine:
        return DiffusersEngine("cpu:0")

    @classmethod
    def make_request(cls, folder: Path) -> MotionRequest:
        return make_request(folder, cls.models, "wan", prompt="a person blinks", steps=1)

    @classmethod
    def make_damaged_request(cls, folder: Path) -> MotionRequest:
        root = Path(shutil.copytree(cls.models, folder / "models"))
        cut_off(root / "motion" / "wan" / "vae" / "diffusion_pytorch_model.safetensors")
        return make_request(folder, root, "wan")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' Euler with NumPy 2
class TestSvd(TestWan):
    """Stable Video Diffusion does so, too."""

    @classmethod
    def make_request(cls, folder: Path) -> MotionRequest:
        return make_request(folder, cls.models, "svd", steps=1)

    @classmethod
    def make_damaged_request(cls, folder: Path) -> MotionRequest:
        root = Path(shutil.copytree(cls.models, folder / "models"))
        cut_off(root / "motion" / "svd" / "unet" / "diffusion_pytorch_model.safetensors")
        return make_request(folder, root, "svd")


def run_whole(plan: Any, variant: str, models: Path) -> list[Any]:
    """Return the frames of the pipeline when it is called once, as its own documentation does."""
    cls: Any = {"wan": WanImageToVideoPipeline, "svd": StableVideoDiffusionPipeline}[variant]
    pipeline = cls.from_pretrained(models / "motion" / variant)
    pipeline.set_progress_bar_config(disable=True)
    more = {"prompt": plan.facts["prompt"], "negative_prompt": plan.facts["negative_prompt"], "guidance_scale": 5.0}
    svd = {"max_guidance_scale": 3.0, "motion_bucket_id": 60, "decode_chunk_size": 4}
    made = pipeline(
        image=read_photo(plan), width=plan.width, height=plan.height, num_frames=plan.frames, num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(plan.request.seed), output_type="np",
        **(more if variant == "wan" else svd),
    )  # fmt: skip
    return [np.rint(frame[..., ::-1] * 255).astype(np.uint8) for frame in made.frames[0]]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' Euler with NumPy 2
@pytest.mark.parametrize("variant", ["svd", "wan"])
def test_steps_one_by_one_are_the_pipeline_in_one_go(tmp_path: Path, models: Path, variant: str) -> None:
    """What the scheduler remembers from step to step is kept: the frames are those of a plain call."""
    plan = DiffusersEngine("cpu:0").inspect(make_request(tmp_path, models, variant))
    made = [
        decode_picture(data).astype(np.int16)
        for data in make_clip([DiffusersEngine("cpu:0"), DiffusersEngine("cpu:0")], plan, tmp_path / "clip")
    ]
    whole = run_whole(plan, variant, models)
    assert len(made) == len(whole) == plan.frames
    assert max(np.abs(one - two).max() for one, two in zip(made, whole, strict=True)) <= 1


def test_the_plan_says_what_a_pipeline_can_not(tmp_path: Path, models: Path) -> None:
    """SVD takes no prompt and has its own length; both are noted. Wan makes 4 n + 1 frames, at most 121."""
    plan = DiffusersEngine("cpu:0").inspect(make_request(tmp_path, models, "svd", prompt="a person", seconds=6.0))
    assert (plan.frames, plan.fps) == (6, "7")
    assert [note.partition(" makes ")[0].partition(" takes ")[0] for note in plan.notes] == [
        "Stable Video Diffusion"
    ] * 2
    plan = DiffusersEngine("cpu:0").inspect(make_request(tmp_path, models, "wan", seconds=30.0))
    assert (plan.frames, plan.facts["licence"]) == (121, "Apache-2.0")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"variant": "other"}, "weights_missing"),
        ({"base": "x"}, "bad_option"),
        ({"options": {"speed": 1}}, "bad_option"),
        ({"prompt": "(a"}, "bad_prompt"),
        ({"prompt": "a person blinks " * 171}, "bad_prompt"),
        ({"negative_prompt": "blinks " * 513}, "bad_prompt"),
        ({"device_bytes": 1000}, "motion_size"),
    ],
)
def test_what_is_refused(tmp_path: Path, models: Path, more: dict[str, Any], code: str) -> None:
    """Before any network is loaded, with a code and a hint."""
    with pytest.raises(EngineError) as caught:
        DiffusersEngine("cpu:0").inspect(replace(make_request(tmp_path, models, "wan"), **more))
    assert caught.value.code == code
    assert caught.value.hint


def test_a_prompt_is_encoded_as_in_a_plain_call(tmp_path: Path, models: Path) -> None:
    """In its full length, which the pipeline's own function for it would halve; the longest one is taken."""
    engine = DiffusersEngine("cpu:0")
    plan = engine.inspect(make_request(tmp_path, models, "wan", prompt="a person blinks " * 170))
    files = open_folder(plan, tmp_path / "clip")
    engine.prepare(plan, files.folder, lambda _: None)
    assert read_arrays(files.constants)["prompt_embeds"].shape == (1, 512, 16)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_few_frames_are_decoded_together(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six frames of SVD are decoded by four and two: all at once take the memory of a card."""
    decoded: list[int] = []
    plain = AutoencoderKLTemporalDecoder.decode

    def decode(self: Any, latents: torch.Tensor, *rest: Any, **more: Any) -> Any:
        decoded.append(len(latents))
        return plain(self, latents, *rest, **more)

    monkeypatch.setattr(AutoencoderKLTemporalDecoder, "decode", decode)
    plan = DiffusersEngine("cpu:0").inspect(make_request(tmp_path, models, "svd", steps=1))
    make_clip([DiffusersEngine("cpu:0")], plan, tmp_path / "clip")
    assert decoded == [4, 2]


@pytest.mark.parametrize("variant", ["svd", "wan"])
def test_a_card_holds_one_network_at_a_time(models: Path, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    """Its pipeline takes the others off it, computes in bf16, and decodes in tiles where it can."""
    offered: list[Any] = []

    def offload(self: Any) -> None:
        offered.append(self)

    monkeypatch.setattr(DiffusionPipeline, "enable_model_cpu_offload", offload)
    pipeline = load_pipeline(models / "motion" / variant, "cuda")
    assert offered == [pipeline]
    assert pipeline.dtype == torch.bfloat16
    assert getattr(pipeline.vae, "use_tiling", None) == (True if variant == "wan" else None)


def test_other_weights_are_loaded_anew(tmp_path: Path, models: Path) -> None:
    """A worker that has the pipeline loaded looks whether its files are still the same."""
    root = Path(shutil.copytree(models, tmp_path / "models"))
    engine, plans, states = DiffusersEngine("cpu:0"), [], []
    for number in range(2):
        plans.append(engine.inspect(make_request(tmp_path, root, "wan", steps=1)))
        files = open_folder(plans[-1], tmp_path / f"clip-{number}")
        engine.prepare(plans[-1], files.folder, lambda _: None)
        engine.denoise(files.folder, 0, 0, 1, lambda _: None)
        states.append(files.unit_path(0, 0).read_bytes())
        torch.manual_seed(9)
        network = root / "motion" / "wan" / "transformer" / "diffusion_pytorch_model.safetensors"
        save_file({name: torch.randn_like(one) for name, one in load_file(network).items()}, network)
    assert plans[0].identity != plans[1].identity
    assert states[0] != states[1]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("svd/unet/config.json", "{}"),
        ("svd/unet/config.json", '{"num_frames": "x"}'),
        ("svd/unet/config.json", "["),
        ("wan/tokenizer/tokenizer.json", "{"),
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, models: Path, file: str, text: str) -> None:
    """Before any network is loaded."""
    root = Path(shutil.copytree(models, tmp_path / "models"))
    (root / "motion" / file).write_text(text)
    request = make_request(tmp_path, root, file.partition("/")[0], prompt="a person blinks " * 40)
    with pytest.raises(EngineError, match="weights_damaged") as caught:
        DiffusersEngine("cpu:0").inspect(request)
    assert "fetch" in caught.value.hint


def test_a_damaged_or_strange_file_is_named(tmp_path: Path, models: Path) -> None:
    """A network that is cut off, one that is empty, and one as a pickle, whose code does not run."""
    root = Path(shutil.copytree(models, tmp_path / "models"))
    network = root / "motion" / "wan" / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = network.read_bytes()
    plan = DiffusersEngine("cpu:0").inspect(make_request(tmp_path, root, "wan"))
    for number, damage in enumerate((whole[: len(whole) // 2], b"", None)):
        network.unlink(missing_ok=True)
        if damage is None:
            torch.save({"weights": Trap()}, network.with_suffix(".bin"))
        else:
            network.write_bytes(damage)
        files = open_folder(plan, tmp_path / f"clip-{number}")
        with pytest.raises(EngineError, match=r"weights_damaged: .*motion/wan") as caught:
            DiffusersEngine("cpu:0").prepare(plan, files.folder, lambda _: None)
        assert "safetensors" in caught.value.hint


class Trap:
    """Code in a checkpoint, which must not run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint has run')",)
