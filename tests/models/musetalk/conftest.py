"""Folders of tiny weights, and no weights of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.models.musetalk import tiny


@pytest.fixture(autouse=True)
def _no_torch_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's torch has downloaded doesn't count."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder with tiny weights; not to be changed."""
    return tiny.lay_out(tmp_path_factory.mktemp("master") / "models")


@pytest.fixture
def root(master: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(master, tmp_path / "models"))
