"""The MuseTalk engine as the handler uses it, on tiny weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch

from models import media
from models.handler import Handler
from models.musetalk import networks, session
from models.musetalk.engine import ENGINE_BYTES, NVENC_BYTES, MuseTalkEngine, count_bytes
from models.musetalk.networks import Networks, Setup
from models.musetalk.options import Options, read_inspected_options
from models.musetalk.weights import loader as weights_loader
from models.musetalk.weights.index import InstalledPart
from models.types import EngineError, Inspection
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import make_request, write_image


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.lay_out(tmp_path_factory.mktemp("models"))


def test_missing_weights_are_said_before_any_work(tmp_path: Path, models_dir: Path) -> None:
    """A job for v1 where only v15 lies names the files and the command."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), version="v1")
    with pytest.raises(EngineError) as refused:
        Handler("cpu:0").inspect(request)
    assert refused.value.code == "weights_missing"
    assert "musetalk/pytorch_model.bin" in refused.value.message
    assert "--version v1" in refused.value.hint


def test_a_job_without_a_version_gets_the_one_that_is_here(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With v1 alone the job is of v1, and remains so in all stages though v15 comes while it runs."""
    root = tmp_path / "models"
    shutil.copytree(models_dir, root)
    (root / "musetalkV15").rename(root / "musetalk")
    (root / "musetalk" / "unet.pth").rename(root / "musetalk" / "pytorch_model.bin")
    loaded: list[str] = []
    monkeypatch.setattr(MuseTalkEngine, "_open_session", lambda _, *given: loaded.append(given[1].version))
    engine = MuseTalkEngine("cuda:0")
    request = make_request(tmp_path, root, write_image(tmp_path / "face.png"))
    inspection = Handler("cpu:0").inspect(request)
    shutil.copytree(models_dir / "musetalkV15", root / "musetalkV15")
    engine.open_session(request, Inspection.from_dict(json.loads(json.dumps(inspection.to_dict()))))
    assert loaded == ["v1"]
    assert read_inspected_options(request, inspection).parsing == "raw"
    assert read_inspected_options(request, replace(inspection, details={})).version == "v15"


def test_a_worker_loads_the_version_that_is_here(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker on a card loads when it starts is what a job without a version needs."""
    (tmp_path / "musetalk").mkdir()
    for name in ("musetalk.json", "pytorch_model.bin"):
        (tmp_path / "musetalk" / name).touch()
    loaded: list[str] = []

    def open_session(_: MuseTalkEngine, *given: Any) -> Any:
        loaded.append(given[1].version)
        return SimpleNamespace(measure_footprint=dict)

    monkeypatch.setattr(MuseTalkEngine, "_open_session", open_session)
    for folder in (tmp_path, models_dir):
        MuseTalkEngine("GPU-1").load(str(folder))
    assert loaded == ["v1", "v15"]


def test_a_worker_on_a_card_lives_without_a_torch_for_cards(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it should load at its start is left out, and its log says why."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    handler = Handler("GPU-1")
    handler.preload("musetalk", str(models_dir))
    assert handler.stats == {}
    assert "can't use the card GPU-1" in capsys.readouterr().out


def test_an_encoder_on_the_card_is_counted() -> None:
    """Where NVENC may encode, its context is part of what a card must have room for."""
    on_card, on_host = (Inspection(1, "25", 64, 64, 0.04, {}, encoder=name) for name in ("auto", "libx264"))
    assert count_bytes(Options(), on_card) - count_bytes(Options(), on_host) == NVENC_BYTES
    assert count_bytes(Options(precision="fp32"), on_host) > count_bytes(Options(), on_host)
    assert count_bytes(Options(precision="int8"), on_host) - count_bytes(Options(), on_host) == ENGINE_BYTES


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were loaded, each time that one was."""
    names: list[str] = []
    for module, loader in ((networks, "load_optimised"), (networks, "load_part"), (weights_loader, "load_part")):
        load = getattr(module, loader)

        def note(found: InstalledPart, *given: Any, load: Any = load) -> Any:
            names.append(found.part.name)
            return load(found, *given)

        monkeypatch.setattr(module, loader, note)
    return names


def open_all(engine: MuseTalkEngine, models_dir: Path, **options: Any) -> Networks:
    """Load what a job with these options needs, all of it."""
    opened = engine._open_session(str(models_dir), Options(**options), models_dir).networks
    _ = opened.inpainter, opened.whisper_encoder, opened._faces, opened.weights.bisenet
    return opened


def test_jobs_that_alternate_load_nothing_again(models_dir: Path, loads: list[str]) -> None:
    """Batch sizes and compiled code belong to a job, not to the networks; face networks stay with any precision."""
    engine = MuseTalkEngine("cpu:0")
    first = open_all(engine, models_dir, precision="fp32")
    assert sorted(loads) == ["bisenet", "pose", "s3fd", "unet-v15", "vae", "whisper"]
    loads.clear()
    for options, unet in (({"batch_size": 2}, 2), ({}, 4), ({"compile": True}, 4), ({"bbox_shift": 3}, 4)):
        again = open_all(engine, models_dir, precision="fp32", **options)
        assert again is first
        assert again.inpainter.sizes.unet == unet
    assert loads == []
    assert open_all(engine, models_dir, reference=True).inpainter.plain
    assert loads == ["unet-v15", "vae"]


def test_a_job_runs_one_form_a_type_of_card(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form that was the type's when the job was inspected, in all its spans; elsewhere the usual one."""
    request = replace(make_request(tmp_path, models_dir, write_image(tmp_path / "face.png")), forms={"Card": "norms"})
    inspection = Inspection.from_dict(json.loads(json.dumps(Handler("cpu:0").inspect(request).to_dict())))
    setups: list[Setup] = []
    monkeypatch.setattr(session, "RenderSession", lambda setup, *_: setups.append(setup))
    monkeypatch.setattr(session, "select_device", torch.device)
    for device, name, asked in (
        ("cuda:0", "Card", request),
        ("cuda:0", "Card", replace(request, forms={"Card": "shuffled"})),
        ("cuda:0", "Other card", request),
        ("cpu:0", "Card", request),
        ("cuda:0", "Card", replace(request, options={"reference": True})),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        MuseTalkEngine(device).open_session(asked, inspection)
    assert [setup.form for setup in setups] == ["norms", "norms", "usual", "usual", "usual"]


def test_auto_is_what_tuning_found_when_the_job_was_inspected(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On that type of device, in all spans; what the job itself says counts more, and the reference is not tuned."""
    tuned = {"Card": {"batch_size": 8, "compile": True}, "cpu": {"batch_size": 2, "compile": False}}
    request = replace(make_request(tmp_path, models_dir, write_image(tmp_path / "face.png")), tuned=tuned)
    inspection = Inspection.from_dict(json.loads(json.dumps(Handler("cpu:0").inspect(request).to_dict())))
    setups: list[Setup] = []
    monkeypatch.setattr(session, "RenderSession", lambda setup, *_: setups.append(setup))
    monkeypatch.setattr(session, "select_device", torch.device)
    for device, name, options in (
        ("cuda:0", "Card", {}),
        ("cuda:0", "Other card", {}),
        ("cpu:0", "", {}),
        ("cuda:0", "Card", {"batch_size": 4, "compile": False}),
        ("cuda:0", "Card", {"reference": True}),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        MuseTalkEngine(device).open_session(replace(request, options=options, tuned={}), inspection)
    assert [(setup.batch_size, setup.kernels is not None) for setup in setups] == [
        (8, True),
        (None, False),
        (2, False),
        (4, False),
        (None, False),
    ]


def test_another_form_loads_unet_and_vae_again(models_dir: Path, loads: list[str]) -> None:
    """Once in the life of a worker: the form of a type of card remains."""
    setup = Setup.of(str(models_dir), Options(precision="bf16"), models_dir)
    first = Networks(setup, torch.device("cpu"))
    assert first.inpainter.form == "usual"
    again = replace(setup, form="norms")
    assert not first.adapt(again)
    loads.clear()
    assert Networks(again, torch.device("cpu"), first.weights).inpainter.form == "norms"
    assert loads == ["unet-v15", "vae"]


def test_weights_that_were_replaced_are_noticed(tmp_path: Path, models_dir: Path, loads: list[str]) -> None:
    """A warm worker runs the next job on the new ones, and keys the avatars by them."""
    root = tmp_path / "models"
    shutil.copytree(models_dir, root)
    engine = MuseTalkEngine("cpu:0")
    before = open_all(engine, root)
    fingerprint = before.vision_fingerprint
    loads.clear()
    state = torch.load(root / "s3fd" / "s3fd-619a316812.pth", weights_only=True)
    state["conv1_1.bias"][0] += 1
    torch.save(state, root / "new.pth")
    (root / "new.pth").replace(root / "s3fd" / "s3fd-619a316812.pth")
    after = open_all(engine, root)
    assert after is not before
    assert after.vision_fingerprint != fingerprint
    assert sorted(loads) == ["bisenet", "pose", "s3fd", "unet-v15", "vae", "whisper"]
    (root / "s3fd" / "s3fd-619a316812.pth").unlink()
    with pytest.raises(EngineError) as refused:
        open_all(engine, root)
    assert refused.value.code == "weights_missing"


def pictures_in(path: Path) -> list[bytes]:
    """Each frame as it is coded."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_a_whole_job_by_its_stages(tmp_path: Path, models_dir: Path) -> None:
    """Inspect, prepare, render, assemble at a film's rate: a verified mp4, encoded once, with its facts."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), 0.5)
    request = replace(request, fps="24000/1001")
    handler = Handler("cpu:0")
    message: dict[str, Any] = {"request": request.to_dict(), "outline": None}
    inspection = handler.run({**message, "stage": "inspect"}, 0, 1, lambda _: None)["outline"]
    message["outline"] = json.loads(json.dumps(inspection))
    handler.run({**message, "stage": "prepare"}, 0, 1, lambda _: None)
    handler.run({**message, "stage": "render"}, 0, 12, lambda _: None)
    facts = handler.run({**message, "stage": "assemble", "spans": [[0, 12]]}, 0, 1, lambda _: None)
    media.verify_video(tmp_path / "out" / "result.mp4", 12, Fraction(24000, 1001))
    assert pictures_in(tmp_path / "out" / "result.mp4") == pictures_in(request.files.part_path(0, 12))
    assert facts["musetalk"]["painter"]["precision"] == "fp32"
    assert facts["musetalk"]["jitter_px"] == 0
    assert facts["musetalk"]["shift_range"][1] >= 0
    assert json.loads(json.dumps(facts)) == facts
