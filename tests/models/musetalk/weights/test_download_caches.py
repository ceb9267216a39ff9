"""Weights in the download caches of other programs, and in folders of links to them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from models.musetalk.commands.convert import import_folder
from models.musetalk.commands.verify import verify_folder
from models.musetalk.weights.download_caches import find_in_cache, list_published, show_as_models_folder
from models.musetalk.weights.index import Version, missing_files_for
from tests.models.musetalk.weight_files import CPU, list_nets, open_tiny, same_tensors, state_of


def lay_out_v1(models: Path) -> Path:
    """The older version's folder beside the newer one's: the same network by another name."""
    (models / "musetalk").mkdir()
    shutil.copy(models / "musetalkV15" / "musetalk.json", models / "musetalk" / "musetalk.json")
    shutil.copy(models / "musetalkV15" / "unet.pth", models / "musetalk" / "pytorch_model.bin")
    return models


def put_in_hugging_face(models: Path, cache: Path) -> Path:
    """Each file as a blob, and a link to it in the snapshot of one commit; an older commit is incomplete."""
    for name, (repository, file) in list_published().items():
        if (models / name).is_file():
            downloads = cache / f"models--{repository.replace('/', '--')}"
            (downloads / "blobs").mkdir(parents=True, exist_ok=True)
            (downloads / "refs").mkdir(exist_ok=True)
            (downloads / "refs" / "main").write_text("b" * 40)
            (downloads / "snapshots" / ("a" * 40)).mkdir(parents=True, exist_ok=True)
            blob = downloads / "blobs" / name.replace("/", "-")
            shutil.copy(models / name, blob)
            link = downloads / "snapshots" / ("b" * 40) / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    return cache


def put_in_modelscope(models: Path, cache: Path) -> Path:
    """The repositories as folders, Whisper's by another owner."""
    for name, (repository, file) in list_published().items():
        if (models / name).is_file():
            place = cache / "hub" / "models" / repository.replace("openai/", "openai-mirror/") / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(models / name, place)
    return cache


@pytest.mark.parametrize("put", [put_in_hugging_face, put_in_modelscope])
@pytest.mark.parametrize("version", ["v15", "v1"])
def test_a_cache_is_imported(master: Path, root: Path, tmp_path: Path, put: Any, version: Version) -> None:
    """What is there is found by its repository, converted, and the same; S3FD is where torch keeps it."""
    lay_out_v1(root)
    cache = put(root, tmp_path / "cache")
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(root / "s3fd" / "s3fd-619a316812.pth", checkpoints)
    target = tmp_path / "new"
    assert len(list(import_folder(cache, target, replace=False))) == 7
    assert missing_files_for(version, target) == []
    assert {verdict.verdict for verdict in verify_folder(target, (version,), hashes=True)} <= {"ok", "note"}
    for before, after in zip(list_nets(open_tiny(master)), list_nets(open_tiny(target)), strict=True):
        assert same_tensors(state_of(before), state_of(after))
    assert all(line.endswith("already converted") for line in import_folder(cache, target, replace=False))


def test_a_models_folder_is_taken_as_it_is(root: Path, tmp_path: Path) -> None:
    """Even if a cache is inside it; a folder of anything else is left alone too."""
    put_in_hugging_face(root, root / "hub")
    (tmp_path / "empty").mkdir()
    for folder in (root, tmp_path / "empty"):
        with show_as_models_folder(folder) as shown:
            assert shown == folder
    assert find_in_cache(tmp_path / "none") == {}


def test_a_folder_of_links_is_a_models_folder(master: Path, root: Path, tmp_path: Path) -> None:
    """People link the snapshots of several repositories into one folder: nothing is copied and all of it opens."""
    links = tmp_path / "links"
    for path in (path for path in root.rglob("*") if path.is_file()):
        (links / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (links / path.relative_to(root)).symlink_to(path)
    for before, after in zip(list_nets(open_tiny(master)), list_nets(open_tiny(links)), strict=True):
        assert same_tensors(state_of(before), state_of(after))
    assert {verdict.verdict for verdict in verify_folder(links, hashes=True)} <= {"ok", "note"}


def test_configs_with_the_line_endings_of_windows(root: Path) -> None:
    """An editor there, or git, leaves CR LF and a mark of the encoding before the text."""
    for path in root.rglob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    weights = open_tiny(root)
    assert all(net.state_dict() for net in list_nets(weights))
    assert weights.feature_extractor.feature_size == 80
    assert weights.device == CPU
