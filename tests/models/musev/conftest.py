"""A models folder with tiny networks, and a photo."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.models.motion.contract import run_small
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


@pytest.fixture(scope="module", autouse=True)
def _small_clips() -> Iterator[None]:
    """Clips may be smaller than users get, and one thread is enough for tiny networks."""
    with run_small():
        yield


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "anna.png"
    cv2.imwrite(str(path), synth_frame(3, 300, 280))
    return path
