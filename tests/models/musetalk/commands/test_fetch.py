"""Which files of MuseTalk are wanted, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.checkpoints import downloads
from models.checkpoints.sources import HUGGING_FACE
from models.musetalk.commands.fetch import list_needed, list_remote_files
from models.musetalk.weights.index import SOURCES, published_files
from models.types import EngineError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_only_what_is_missing_is_wanted(root: Path) -> None:
    """Nothing for a complete folder; with --replace all that is published; for both versions both."""
    assert set(list_needed(root, ["v15"], replace=False)) == set(published_files("v15"))
    for name in published_files("v15"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert list_needed(root, ["v15"], replace=False) == []
    assert list_needed(root, ["v15"], replace=True) == published_files("v15")
    assert list_needed(root, ["v15", "v1"], replace=False) == ["musetalk/pytorch_model.bin", "musetalk/musetalk.json"]


def test_addresses() -> None:
    """The hub by default, HF_ENDPOINT if it is set; S3FD comes from its author, or from where one says."""
    assert downloads.read_endpoint({}) == HUGGING_FACE
    assert downloads.read_endpoint({"HF_ENDPOINT": "https://hf-mirror.com/"}) == "https://hf-mirror.com"
    with pytest.raises(EngineError, match="no web address"):
        downloads.read_endpoint({"HF_ENDPOINT": "file:///etc"})
    urls = {file.file: file.url for file in list_remote_files(SOURCES, "https://m")}
    assert urls["sd-vae/config.json"] == "https://m/stabilityai/sd-vae-ft-mse/resolve/main/config.json"
    assert urls["s3fd/s3fd-619a316812.pth"].startswith("https://www.adrianbulat.com/")
    assert list_remote_files(["s3fd/s3fd-619a316812.pth"], "https://m", "https://n/s.pth")[0].url == "https://n/s.pth"
    with pytest.raises(EngineError, match="nobody publishes"):
        list_remote_files(["../../etc/passwd"], "https://m")


def test_known_hashes_are_hashes() -> None:
    """S3FD's file carries the first ten digits of its SHA-256 in its name, by torch's custom."""
    known = {name: source for name, source in SOURCES.items() if source.sha256}
    assert all(len(bytes.fromhex(source.sha256 or "")) == 32 for source in known.values())
    assert all(source.bytes for source in known.values())
    held = {name for name, source in SOURCES.items() if source.sha256 or source.config}
    assert set(SOURCES) - held == {"musetalk/pytorch_model.bin"}
    assert (SOURCES["s3fd/s3fd-619a316812.pth"].sha256 or "").startswith("619a316812")
