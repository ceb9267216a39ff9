"""Weights brought into safetensors: complete, equal, and not twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.musetalk.commands.convert import import_folder, plan_import
from models.musetalk.commands.verify import verify_folder
from models.types import EngineError
from tests.models.musetalk.weight_files import (
    NAMES,
    Attack,
    find_installed,
    list_nets,
    open_tiny,
    same_tensors,
    save_zip,
    state_of,
)


def test_import_makes_a_folder_without_pickles(master: Path, tmp_path: Path) -> None:
    """What arrives is complete, holds the same tensors, loads, and has the hash of each file in its manifest."""
    target = tmp_path / "new"
    lines = list(import_folder(master, target, replace=False))
    assert len(lines) == 6
    assert {path.suffix for path in target.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    assert {path.stat().st_mode & 0o777 for path in (target / "converted").glob("*.safetensors")} == {0o644}
    for before, after in zip(list_nets(open_tiny(master)), list_nets(open_tiny(target)), strict=True):
        assert same_tensors(state_of(before), state_of(after))
    manifest = json.loads((target / "converted" / "manifest.json").read_text())
    assert manifest["files"]["unet-v15.safetensors"]["source"]["path"] == str(master / "musetalkV15" / "unet.pth")
    assert {verdict.verdict for verdict in verify_folder(target, hashes=True)} == {"ok", "note"}
    whisper = load_file(target / "converted" / "whisper.safetensors")
    assert not any(name.startswith("model.") for name in whisper)


def test_import_in_place_and_again(root: Path) -> None:
    """The folder's own pickles are converted and kept; a second import does nothing; a changed source is done anew."""
    list(import_folder(root, root, replace=False))
    assert all(find_installed(root, name).variant.form == "converted" for name in NAMES)
    assert (root / "musetalkV15" / "unet.pth").exists()
    assert all(step.is_done for step in plan_import(root, root, replace=False))
    assert not any(step.is_done for step in plan_import(root, root, replace=True))
    path = root / "s3fd" / "s3fd-619a316812.pth"
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, path)
    assert [step.found.part.name for step in plan_import(root, root, replace=False) if not step.is_done] == ["s3fd"]
    list(import_folder(root, root, replace=False))
    assert torch.equal(state_of(open_tiny(root).s3fd)["conv1_1.bias"], state["conv1_1.bias"] + 1)


def test_import_refuses_bad_sources_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """A pickle with code, or an empty folder: an error that says so, and no file that looks converted."""
    save_zip(Attack(tmp_path / "pwned"), root / "musetalkV15" / "unet.pth")
    with pytest.raises(EngineError, match="weights_unsafe"):
        list(import_folder(root, tmp_path / "new", replace=False))
    assert not list((tmp_path / "new").rglob("*.safetensors"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineError, match="holds no weights"):
        list(import_folder(tmp_path / "empty", tmp_path / "new", replace=False))


def test_import_takes_the_onnx_file_along(root: Path, tmp_path: Path) -> None:
    """It can't be converted, so it is copied, and the result is complete."""
    (root / "dwpose" / "dw-ll_ucoco_384.pth").unlink()
    (root / "dwpose" / "dw-ll_ucoco_384.onnx").write_bytes(b"onnx")
    list(import_folder(root, tmp_path / "new", replace=False))
    assert open_tiny(tmp_path / "new").pose == tmp_path / "new" / "dwpose" / "dw-ll_ucoco_384.onnx"


def test_import_stops_before_a_disk_is_full(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't fit is not begun."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(EngineError, match="disk_full"):
        list(import_folder(root, tmp_path / "new", replace=False))
    assert not list((tmp_path / "new").iterdir())


def test_tensors_that_share_memory_are_written_apart(root: Path) -> None:
    """A checkpoint may store one number for a whole tensor, or two views of one storage."""
    path = root / "s3fd" / "s3fd-619a316812.pth"
    state = torch.load(path, weights_only=True)
    state["conv1_1.bias"] = torch.zeros(()).expand(state["conv1_1.bias"].shape)
    torch.save(state, path)
    list(import_folder(root, root, replace=False))
    assert same_tensors(state_of(open_tiny(root).s3fd), {name: tensor.contiguous() for name, tensor in state.items()})
