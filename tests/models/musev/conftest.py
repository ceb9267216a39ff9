"""A models folder with tiny networks, and a photo."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

from models.motion import sizes
from tests.models.musetalk.recipe import synth_frame
from tests.models.musev import tiny


@pytest.fixture(scope="session")
def musev_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder with both variants; not to be changed."""
    return tiny.lay_out(tmp_path_factory.mktemp("musev") / "models")


@pytest.fixture
def root(musev_master: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(musev_master, tmp_path / "models"))


@pytest.fixture(autouse=True)
def _small_clips(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clips may be smaller than users get, and one thread is enough for tiny networks."""
    monkeypatch.setattr(sizes, "SMALLEST", 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "anna.png"
    cv2.imwrite(str(path), synth_frame(3, 300, 280))
    return path
