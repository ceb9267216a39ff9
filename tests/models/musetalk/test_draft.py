"""Drafts: what is painted, what is an average, and that spans decide nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file, save_file

from models.arrays import F32, U8
from models.atomic import hash_file
from models.checkpoints.manifest import Entry, hashed_stamp, write_entry
from models.handler import Handler
from models.media import split_planes
from models.musetalk.commands.fetch import list_named, list_remote_files
from models.musetalk.commands.verify import verify_folder
from models.musetalk.draft import DraftPlan, blend_faces, number_shots, plan_draft, read_keys
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.networks import Networks, Setup
from models.musetalk.options import read_options
from models.musetalk.weights.index import missing_files
from models.types import EngineError
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
    assert report["musetalk"]["decoder"] == "vae"
    assert any("draft" in note for note in report["notes"])


def test_taesd_decodes_a_draft_where_its_weights_are(tmp_path: Path, master: Path) -> None:
    """Result, label and hashes say so, spans decide nothing, final videos don't have it, and a new file counts."""
    models_dir = Path(shutil.copytree(master, tmp_path / "models"))
    avatar = write_video(tmp_path / "face.mp4", [True] * 3)
    given: dict[str, Any] = {"silence": "model", "quality": "draft"}
    usual = make_request(tmp_path, models_dir, avatar, job="usual", **given)
    engine, outline = prepare_job(usual)
    before = list(engine.render(usual, outline, 0, 4))
    file = tiny.add_taesd(models_dir)
    write_entry(models_dir, str(file.relative_to(models_dir)), Entry(hashed_stamp(file)))
    assert all(np.array_equal(*pair) for pair in zip(engine.render(usual, outline, 0, 4), before, strict=True))
    draft = make_request(tmp_path, models_dir, avatar, job="draft", **given)
    engine, outline = prepare_job(draft)
    whole = list(engine.render(draft, outline, 0, 4))
    cut = [frame for a, b in ((0, 1), (1, 4)) for frame in engine.render(draft, outline, a, b)]
    assert all(np.array_equal(one, other) for one, other in zip(whole, cut, strict=True))
    assert all(
        (split_planes(one)[0][40:] != split_planes(other)[0][40:]).any()
        for one, other in zip(whole, before, strict=True)
    )
    report = engine.report(draft, outline)
    assert (report["label"], report["musetalk"]["quality"], report["musetalk"]["decoder"]) == (True, "draft", "taesd")
    assert any("TAESD" in note for note in report["notes"])
    assert report["weights_sha256"] == {"taesd/diffusion_pytorch_model.safetensors": hash_file(file)}
    full = make_request(tmp_path, models_dir, avatar, job="full", silence="model")
    final = Handler("cpu:0").inspect(full)
    assert "draft_decoder" not in final.details
    state = load_file(file)
    save_file({name: 0 * tensor for name, tensor in state.items()}, file, metadata={"format": "pt"})
    changed = list(engine.render(draft, outline, 0, 4))
    assert any((one != other).any() for one, other in zip(changed, whole, strict=True))
    file.unlink()
    with pytest.raises(EngineError, match="taesd/, are gone") as caught:
        list(engine.render(draft, outline, 0, 4))
    assert caught.value.code == "weights_missing"


def test_taesd_decodes_latents_as_diffusers_does(master: Path, tmp_path: Path) -> None:
    """Its latents are the scaled ones that the UNet gives, and its pictures are RGB in -1..1."""
    models_dir = Path(shutil.copytree(master, tmp_path / "models"))
    folder = tiny.add_taesd(models_dir).parent
    setup = Setup.of(str(models_dir), read_options({"precision": "fp32", "quality": "draft"})[0], tmp_path)
    latents = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    decode = Networks(setup, torch.device("cpu")).open_draft_decoder()
    published: Any = AutoencoderTiny(**json.loads((folder / "config.json").read_text())).eval()
    published.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    with torch.no_grad():
        wanted = published.decode(latents).sample
        faces, are_finite = decode(latents)
    levels = ((wanted / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).flip(-1)
    assert torch.equal(faces, levels)
    assert are_finite.all()


@pytest.mark.parametrize("harm", ["narrow", "short", "more", "half", "pickle"])
def test_a_bad_taesd_is_refused_by_name(root: Path, harm: str) -> None:
    """Names and shapes are compared, before a frame is painted and by `verify`, which says what repairs it."""
    file = tiny.add_taesd(root)
    state = load_file(file)
    first = "decoder.layers.0.weight"
    bad = {"narrow": {**state, first: state[first][:4].clone()}, "more": {**state, "other.weight": torch.zeros(1)}}
    bad["short"] = {name: tensor for name, tensor in state.items() if name != first}
    if harm in bad:
        save_file(bad[harm], file, metadata={"format": "pt"})
    elif harm == "half":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        torch.save(state, file)
    setup = Setup.of(str(root), read_options({"precision": "fp32", "quality": "draft"})[0], root)
    with pytest.raises(EngineError) as caught:
        Networks(setup, torch.device("cpu")).open_draft_decoder()
    assert caught.value.code == "weights_damaged"
    assert "models fetch --replace taesd/" in str(caught.value.hint)
    verdicts = {verdict.file: verdict for verdict in verify_folder(root, hashes=False)}
    assert verdicts["taesd/diffusion_pytorch_model.safetensors"].verdict == "bad"


def test_taesd_is_offered_and_not_needed(root: Path) -> None:
    """`verify` says how to get it; the folder's name fetches its two files, which are pinned."""
    [verdict] = [one for one in verify_folder(root, hashes=False) if one.file.startswith("taesd/")]
    assert (verdict.verdict, "models fetch taesd" in verdict.advice) == ("note", True)
    assert missing_files(root) == []
    names = list_named(["taesd", "s3fd/s3fd-619a316812.pth"])
    files = list_remote_files(names, "https://huggingface.co")
    assert [file.file for file in files][:2] == ["taesd/config.json", "taesd/diffusion_pytorch_model.safetensors"]
    assert len(files) == 3
    assert len(files[1].sha256 or "") == 64
    tiny.add_taesd(root)
    assert {one.verdict for one in verify_folder(root, hashes=False) if one.file.startswith("taesd/")} == {"ok"}


@pytest.mark.parametrize(
    ("given", "text"), [({}, ""), ({"label": "AI"}, "AI"), ({"label": True, "quality": "draft"}, "AI DRAFT")]
)
def test_a_label_is_written_where_it_is_asked_for(given: dict[str, Any], text: str) -> None:
    """By itself only a draft has one; a final video has the letters AI if its job says so."""
    options = read_options(given)[0]
    assert options.describe_label() == text
    assert options.describe_label(has_draft_decoder=True) == text + " TAESD" * options.is_draft


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
