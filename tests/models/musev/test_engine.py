"""The MuseV engine with tiny networks: plans, clips, shots, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.languages import find_chinese
from models.motion.types import MotionEngine, MotionFiles, MotionPlan, MotionRequest
from models.musev.engine import MuseVEngine, shot_path
from models.musev.prompts import CALM_PROMPT
from models.musev.weights.index import BASES, DEFAULT_BASE
from models.types import EngineError
from tests.models.motion.contract import WeightsContract, make_clip, open_folder
from tests.models.musev import tiny

OTHER_OPTIONS = {
    "motion_speed": 8.0,
    "picture_scale": 0.5,
    "window": 8,
    "overlap": 2,
    "shot_frames": 4,
    "crop": "reference",
    "precision": "bf16",
}
"""A value of each option that is not the default."""
SMALL: dict[str, Any] = {"seconds": 1.0, "size": 64, "steps": 2}


@pytest.fixture(scope="module")
def engine() -> MuseVEngine:
    """One engine for all clips, whose networks stay while the weights do."""
    return MuseVEngine("cpu:0")


def request_of(root: Path, photo: Path, **asked: Any) -> MotionRequest:
    return MotionRequest(str(photo), "anna.png", str(root), **{**SMALL, **asked})


def inspect(root: Path, photo: Path, **asked: Any) -> MotionPlan:
    return MuseVEngine("cpu:0").inspect(request_of(root, photo, **asked))


class TestContract(WeightsContract):
    """MuseV keeps to what all motion engines keep to."""

    master: Path
    photo: Path

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _folder(cls, musev_master: Path, photo: Path) -> None:
        cls.master, cls.photo = musev_master, photo

    @classmethod
    def make_engine(cls) -> MotionEngine:
        return MuseVEngine("cpu:0")

    @classmethod
    def make_request(cls, folder: Path) -> MotionRequest:  # noqa: ARG003 - the photo is shared
        return request_of(cls.master, cls.photo, options={"window": 4, "overlap": 2}, steps=1, seconds=1.5)

    @classmethod
    def make_damaged_request(cls, folder: Path) -> MotionRequest:
        root = Path(shutil.copytree(cls.master, folder / "models"))
        file = root / "motion" / "musev_referencenet" / "referencenet" / "diffusion_pytorch_model.bin"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return request_of(root, cls.photo)


def test_a_plan_says_what_is_made(musev_master: Path, photo: Path) -> None:
    """Units are windows times halves, steps those of the scheduler; licence, scheduler and preset are named."""
    plan = inspect(musev_master, photo, seconds=6.0, steps=10)
    assert (plan.width, plan.height, plan.frames, plan.fps) == (64, 64, 25, "4")
    assert plan.units == (6,) * 10
    assert "non-commercial" in plan.facts["licence"]
    assert plan.facts["scheduler"] == "EulerDiscrete (linspace)"
    assert plan.facts["prompt"] == CALM_PROMPT
    assert "preset" in plan.facts["prompt_from"]
    assert any("non-commercial" in note for note in plan.notes)
    assert any("watermark" in note for note in plan.notes)


def test_nothing_guides_at_one(engine: MuseVEngine, musev_master: Path, photo: Path, tmp_path: Path) -> None:
    """With guidance 1 only the half with the prompt is predicted, and the clip is another one."""
    plan = inspect(musev_master, photo, guidance=1.0)
    assert plan.units == (1, 1)
    frames = make_clip([engine], plan, tmp_path / "clip")
    assert len(frames) == plan.frames


@pytest.mark.parametrize("variant", ["musev", "musev_referencenet"])
def test_the_motion_speed_changes_what_is_predicted(
    engine: MuseVEngine, musev_master: Path, photo: Path, tmp_path: Path, variant: str
) -> None:
    """The first unit is another one, except for the variant that has no speed."""
    noises = []
    for number, options in enumerate([{}, {"motion_speed": 8}]):
        plan = inspect(musev_master, photo, variant=variant, steps=1, options=options)
        files = open_folder(plan, tmp_path / str(number))
        engine.prepare(plan, files.folder, lambda _: None)
        engine.denoise(files.folder, 0, 0, 1, lambda _: None)
        noises.append(files.unit_path(0, 0).read_bytes())
    assert (noises[0] == noises[1]) == (variant == "musev")


def test_a_longer_clip_goes_on_from_its_last_frame(
    engine: MuseVEngine, musev_master: Path, photo: Path, tmp_path: Path
) -> None:
    """Shots are more steps of the same kind; each begins with the last latents of the one before and other noise."""
    from models.musev.engine import read_tensors

    plan = inspect(musev_master, photo, seconds=2.0, steps=1, options={"shot_frames": 4})
    assert plan.frames == 9
    assert len(plan.units) == 2
    assert "goes on 1 times" in plan.notes[-1]
    frames = make_clip([engine], plan, tmp_path / "clip")
    assert len(set(frames)) > 4
    first, second = (read_tensors(shot_path(tmp_path / "clip", shot, 1)) for shot in (0, 1))
    assert np.array_equal(second["given"], first["latents"][:, :, -1:])
    assert not np.array_equal(second["latents"], first["latents"])


def test_the_networks_are_told_from_within_a_unit(
    engine: MuseVEngine, musev_master: Path, photo: Path, tmp_path: Path
) -> None:
    """A unit reports before each of its layers, so that a job that is cancelled ends soon."""
    plan = inspect(musev_master, photo)
    files = open_folder(plan, tmp_path / "clip")
    calls: list[int] = []
    engine.prepare(plan, files.folder, lambda _: None)
    engine.denoise(files.folder, 0, 0, 1, calls.append)
    assert calls.count(0) > 15
    assert calls[-1] == 1


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"prompt": "(a"}, "bad_prompt: .*no partner"),
        ({"negative_prompt": "a]"}, "bad_prompt: .*negative"),
        ({"prompt": "(a:1.2.3)"}, 'bad_prompt: "1.2.3" is no weight'),
        ({"negative_prompt": "(a:.)"}, "bad_prompt: .*negative"),
        ({"prompt": "((a:5):5)"}, "bad_prompt: .*weight 25"),
        ({"prompt": f"(a:{'9' * 400})"}, "bad_prompt: .*weight inf"),
        ({"prompt": "xyzw " * 100}, "bad_prompt: .*takes 225"),
        ({"variant": "musev_referencenet_pose"}, "bad_option: .*pose of a video"),
        ({"variant": "other"}, "bad_option: .*no variant"),
        ({"base": "../../etc"}, "bad_option: .*no folder"),
        ({"base": "absent"}, "weights_missing: .*absent/unet"),
        ({"options": {"lcm": True}}, "weights_missing: 1 files .*lcm-lora-sdv1-5/pytorch_lora"),
        ({"options": {"lcm": 1}}, "bad_option: .*lcm can't be 1"),
        ({"options": {"lcm": True}, "steps": 51}, "bad_option: .*51"),
        ({"options": {"speed": 1}}, "bad_option: .*no option speed"),
        ({"options": {"motion_speed": 99}}, "bad_option: .*99"),
        ({"options": {"window": 4.5}}, "bad_option: .*4.5"),
        ({"options": {"window": 4, "overlap": 3}}, "bad_option: .*half"),
        ({"options": {"crop": "left"}}, "bad_option: .*left"),
        ({"size": 1024, "device_bytes": 7 << 30}, "motion_size: .*1024"),
    ],
)
def test_what_cannot_be_made_is_refused(musev_master: Path, photo: Path, asked: dict[str, Any], error: str) -> None:
    """Before any work, by name and with what to do."""
    with pytest.raises(EngineError, match=error) as caught:
        inspect(musev_master, photo, **asked)
    assert caught.value.hint
    assert find_chinese(caught.value.message)
    assert find_chinese(caught.value.hint)


def test_a_base_that_is_not_there_is_not_to_be_fetched(musev_master: Path, photo: Path) -> None:
    """The command fetches the default one alone; the hint says which are there."""
    with pytest.raises(EngineError, match="weights_missing") as caught:
        inspect(musev_master, photo, base="absent")
    assert "fetch" not in caught.value.hint
    assert caught.value.hint.endswith(f"{BASES} has {DEFAULT_BASE}")


def test_the_size_that_fits_is_named(musev_master: Path, photo: Path) -> None:
    """In steps of 64; a clip of no certain size takes what there is memory for."""
    with pytest.raises(EngineError) as caught:
        inspect(musev_master, photo, size=1024, device_bytes=7 << 30)
    fitting = int(caught.value.hint.split("size ")[1].split(",")[0])
    assert fitting % 64 == 0
    plan = inspect(musev_master, photo, size=None, device_bytes=int(6.2 * 2**30))
    assert 256 <= min(plan.width, plan.height) < 512
    assert plan.memory_bytes <= 6.2 * 2**30


@pytest.mark.parametrize(
    ("index", "unet", "said"),
    [
        ("StableDiffusionXLPipeline", {"cross_attention_dim": 2048}, "Stable Diffusion XL"),
        ("StableDiffusionPipeline", {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ("FluxPipeline", {}, "Flux"),
    ],
)
def test_a_base_of_another_family_is_refused_by_name(
    root: Path, photo: Path, index: str, unet: dict[str, Any], said: str
) -> None:
    """Before its weights are opened."""
    base = root / BASES / DEFAULT_BASE
    (base / "model_index.json").write_text(json.dumps({"_class_name": index}))
    config = base / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **unet}))
    with pytest.raises(EngineError, match=f"bad_option: .*is {said}") as caught:
        inspect(root, photo)
    assert "leave out motion.base" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("motion/musev_referencenet/unet/config.json", '{"block_out_channels": 5, "cross_attention_dim": 24}'),
        ("motion/musev_referencenet/unet/config.json", '{"block_out_channels": [32, 32], "cross_attention_dim": 24}'),
        ("motion/musev_referencenet/unet/config.json", "[]"),
        (f"{BASES}/{DEFAULT_BASE}/text_encoder/config.json", '{"hidden_size": 1024}'),
        (f"{BASES}/{DEFAULT_BASE}/text_encoder/config.json", "[]"),
        (f"{BASES}/{DEFAULT_BASE}/text_encoder/config.json", '{"hidden_size": 24, "vocab_size": 100}'),
        (f"{BASES}/{DEFAULT_BASE}/tokenizer/vocab.json", "{"),
        (f"{BASES}/{DEFAULT_BASE}/tokenizer/vocab.json", "[1]"),
        (f"{BASES}/{DEFAULT_BASE}/tokenizer/vocab.json", '{"a": 1}'),
        (f"{BASES}/{DEFAULT_BASE}/tokenizer/tokenizer_config.json", "{"),
    ],
)
def test_a_damaged_config_is_named(root: Path, photo: Path, file: str, text: str) -> None:
    """Whatever is in it: no job ends with an error of a library."""
    (root / file).write_text(text)
    with pytest.raises(EngineError, match="weights_damaged") as caught:
        inspect(root, photo)
    assert "--replace" in caught.value.hint


def test_a_picture_encoder_of_another_width_is_named(root: Path, photo: Path, tmp_path: Path) -> None:
    """Its embedding has to be that which the tokens of the picture are made of."""
    file = root / "motion" / "musev_referencenet" / "ip_adapter_image_proj.bin"
    state = torch.load(file, weights_only=True)["image_proj"]
    torch.save({"image_proj": {**state, "proj.weight": state["proj.weight"][:, :-4].clone()}}, file)
    plan = inspect(root, photo)
    files = open_folder(plan, tmp_path / "clip")
    with pytest.raises(EngineError, match=r"weights_damaged: .*ip_adapter_image_proj.*another shape"):
        MuseVEngine("cpu:0").prepare(plan, files.folder, lambda _: None)


def test_a_base_that_describes_nothing_is_none(root: Path, photo: Path) -> None:
    """What is known of it is said."""
    config = root / BASES / DEFAULT_BASE / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "block_out_channels": None}))
    with pytest.raises(EngineError, match=r"bad_option: .*words of 24 and channels None"):
        inspect(root, photo)


def test_other_weights_are_loaded_anew(root: Path, photo: Path, tmp_path: Path) -> None:
    """A worker that has the networks loaded looks whether their files are still the same."""
    engine, plans, noises = MuseVEngine("cpu:0"), [], []
    for number in range(2):
        plans.append(inspect(root, photo, steps=1))
        files = open_folder(plans[-1], tmp_path / str(number))
        engine.prepare(plans[-1], files.folder, lambda _: None)
        engine.denoise(files.folder, 0, 0, 1, lambda _: None)
        noises.append(files.unit_path(0, 0).read_bytes())
        file = root / "motion" / "musev_referencenet" / "unet" / "diffusion_pytorch_model.bin"
        state = torch.load(file, weights_only=True)
        torch.save({name: one * 1.1 if "temp_convs" in name else one for name, one in state.items()}, file)
    assert plans[0].identity["fingerprint"] != plans[1].identity["fingerprint"]
    assert noises[0] != noises[1]


def test_each_thing_asked_for_is_another_clip(musev_master: Path, photo: Path) -> None:
    """No two of them have one identity, by which the cache knows clips; what changes no frame has the same."""
    asked: list[dict[str, Any]] = [
        {},
        {"seed": 2},
        {"prompt": "a nod"},
        {"negative_prompt": ""},
        {"variant": "musev"},
        {"seconds": 1.25},
        {"size": 128},
        {"steps": 3},
        {"guidance": 3.0},
        *({"options": {name: value}} for name, value in OTHER_OPTIONS.items()),
    ]
    identities = [json.dumps(inspect(musev_master, photo, **one).identity, sort_keys=True) for one in asked]
    assert len(set(identities)) == len(asked)
    named = inspect(musev_master, photo, variant="musev_referencenet", base=DEFAULT_BASE, device_bytes=8 << 30)
    assert json.dumps(named.identity, sort_keys=True) == identities[0]


def test_another_base_is_another_clip(root: Path, photo: Path) -> None:
    """Any folder of the family can be named; the cache knows it by its weights."""
    tiny.lay_out_base(root / BASES / "mine", tiny.shape_of("musev", tiny.SMALL), {**tiny.SCHEDULER, "steps_offset": 0})
    plans = [inspect(root, photo), inspect(root, photo, base="mine")]
    assert plans[0].identity["fingerprint"] != plans[1].identity["fingerprint"]
    assert plans[1].facts["base"] == f"{BASES}/mine"


def test_units_that_are_there_need_no_networks(
    engine: MuseVEngine, musev_master: Path, photo: Path, tmp_path: Path
) -> None:
    """What was made before a crash is not opened again."""
    plan = inspect(musev_master, photo)
    files = open_folder(plan, tmp_path / "clip")
    engine.prepare(plan, files.folder, lambda _: None)
    for unit in range(plan.units[0]):
        MotionFiles(files.folder).unit_path(0, unit).parent.mkdir(exist_ok=True)
        MotionFiles(files.folder).unit_path(0, unit).write_bytes(b"made")
    other = MuseVEngine("cpu:0")
    other.denoise(files.folder, 0, 0, plan.units[0], lambda _: None)
    assert other._networks is not None
    assert "unet" not in vars(other._networks)
