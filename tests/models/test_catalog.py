"""Which engine runs a job here, and why."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from models import catalog
from models.catalog import (
    ENGINES,
    choose_engine,
    find_missing_packages,
    find_missing_weights,
    has_cuda_torch,
    suggest_command,
)
from models.types import DeviceKind, EngineError, EngineInfo


@pytest.fixture
def musetalk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where a musetalk engine is installed with all its weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    info = EngineInfo("musetalk", "models.handler:Handler", ("cuda", "cpu"), ENGINES["musetalk"].weights)
    monkeypatch.setitem(catalog.ENGINES, "musetalk", info)
    for file in info.weights:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


@pytest.mark.parametrize(("kinds", "engine"), [({"cpu"}, "preview"), ({"cpu", "cuda"}, "musetalk")])
def test_auto_takes_musetalk_where_it_can_run(musetalk: Path, kinds: set[DeviceKind], engine: str) -> None:
    """With weights and a GPU it is musetalk, without a GPU the preview, with the reason."""
    choice = choose_engine("auto", musetalk, kinds)
    assert choice.engine == engine
    assert "GPU" in choice.reason


def test_auto_names_the_missing_weights(musetalk: Path) -> None:
    """With one file less, the reason names it."""
    (musetalk / "sd-vae" / "config.json").unlink()
    choice = choose_engine("auto", musetalk, {"cpu", "cuda"})
    assert choice.engine == "preview"
    assert "sd-vae/config.json" in choice.reason
    assert find_missing_weights(ENGINES["musetalk"], musetalk) == ["sd-vae/config.json"]


def test_an_engine_asked_by_name_is_that_engine_or_an_error(musetalk: Path) -> None:
    """An engine asked for by name is never replaced."""
    assert choose_engine("musetalk", musetalk, {"cpu"}).kind == "cpu"
    assert choose_engine("musetalk", musetalk, {"cuda", "cpu"}).kind == "cuda"
    assert choose_engine("preview", musetalk, {"cuda", "cpu"}).engine == "preview"
    (musetalk / "whisper" / "config.json").unlink()
    with pytest.raises(EngineError, match="engine_unavailable"):
        choose_engine("musetalk", musetalk, {"cuda", "cpu"})


def test_an_engine_without_its_code_is_not_promised(musetalk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is not in this installation is unavailable, with or without weights."""
    info = replace(ENGINES["musetalk"], factory="models.nowhere.engine:Engine")
    monkeypatch.setitem(catalog.ENGINES, "musetalk", info)
    with pytest.raises(EngineError, match="not part of this installation"):
        choose_engine("musetalk", musetalk, {"cpu", "cuda"})


def test_missing_packages_come_with_their_command(musetalk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without torch is told what to install, and jobs go to the preview engine."""
    info = replace(ENGINES["musetalk"], packages=("json", "no_such_torch"), extra="musetalk")
    monkeypatch.setitem(catalog.ENGINES, "musetalk", info)
    choice = choose_engine("auto", musetalk, {"cpu", "cuda"})
    assert choice.engine == "preview"
    assert "no_such_torch not installed (`pip install '.[musetalk]'`)" in choice.reason
    assert suggest_command(info, musetalk) == "pip install '.[musetalk]'"


def test_missing_weights_come_with_their_command(musetalk: Path) -> None:
    """The reason has the command that downloads them; with all weights there is none."""
    assert suggest_command(ENGINES["musetalk"], musetalk) == ""
    (musetalk / "sd-vae" / "config.json").unlink()
    assert "`musedrop models fetch` gets them" in choose_engine("auto", musetalk, {"cpu", "cuda"}).reason
    assert suggest_command(ENGINES["musetalk"], musetalk) == "musedrop models fetch"


def test_weights_in_other_forms_count(musetalk: Path) -> None:
    """Version 1 alone, safetensors or DWPose as ONNX suffice, without opening a file."""
    for old, new in (
        ("musetalkV15/unet.pth", "musetalk/pytorch_model.bin"),
        ("musetalkV15/musetalk.json", "musetalk/musetalk.json"),
        ("whisper/pytorch_model.bin", "whisper/model.safetensors"),
        ("dwpose/dw-ll_ucoco_384.pth", "dwpose/dw-ll_ucoco_384.onnx"),
    ):
        (musetalk / new).parent.mkdir(exist_ok=True)
        (musetalk / old).rename(musetalk / new)
    assert choose_engine("auto", musetalk, {"cpu", "cuda"}).engine == "musetalk"
    assert find_missing_weights(ENGINES["musetalk"], musetalk) == []


@pytest.mark.parametrize(
    ("version", "engine"), [(None, "musetalk"), ("v1", "musetalk"), ("v15", "preview"), (["v15"], "musetalk")]
)
def test_auto_is_no_engine_that_lacks_the_version_of_the_job(musetalk: Path, version: object, engine: str) -> None:
    """With version 1 alone a job that names version 1.5 is not MuseTalk's, and the reason has the command."""
    for file in ("musetalkV15/unet.pth", "musetalkV15/musetalk.json"):
        (musetalk / file).unlink()
    for file in ("musetalk/pytorch_model.bin", "musetalk/musetalk.json"):
        (musetalk / file).parent.mkdir(exist_ok=True)
        (musetalk / file).touch()
    choice = choose_engine("auto", musetalk, {"cpu", "cuda"}, version)
    assert choice.engine == engine
    assert ("`musedrop models fetch --version v15` gets them" in choice.reason) is (engine == "preview")


def test_the_preview_engine_needs_nothing(tmp_path: Path) -> None:
    """It has no weights and no packages of its own."""
    info = ENGINES["preview"]
    assert (find_missing_weights(info, tmp_path), find_missing_packages(info), suggest_command(info, tmp_path)) == (
        [],
        [],
        "",
    )


def test_a_torch_for_processors_uses_no_card(musetalk: Path) -> None:
    """`auto` takes the preview engine and says why; a job that asks for MuseTalk gets the processor, and is told."""
    auto, asked, preview = (
        choose_engine(engine, musetalk, {"cuda", "cpu"}, None, False) for engine in ("auto", "musetalk", "preview")
    )
    assert (auto.engine, auto.kind) == ("preview", "cpu")
    assert "PyTorch is a build for processors" in auto.reason
    assert (asked.engine, asked.kind) == ("musetalk", "cpu")
    assert "PyTorch is a build for processors" in asked.reason
    assert (preview.kind, preview.reason) == ("cpu", "asked for by the job")


@pytest.mark.parametrize(
    ("text", "has_cuda"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("cuda = None\n", False),
        ("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", True),
        ("", True),
        (None, True),
    ],
)
def test_the_build_of_torch_is_read_from_its_version_file(
    text: str | None, has_cuda: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without importing it; where nothing tells, cards count as usable."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('only read')")
    if text is not None:
        (package / "version.py").write_text(text)
    monkeypatch.setattr(catalog, "find_spec", partial(PathFinder.find_spec, path=[str(tmp_path)]))
    has_cuda_torch.cache_clear()
    try:
        assert has_cuda_torch() == has_cuda
    finally:
        has_cuda_torch.cache_clear()
