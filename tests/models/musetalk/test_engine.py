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

from models import media
from models.handler import Handler
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.options import read_inspected_options
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
