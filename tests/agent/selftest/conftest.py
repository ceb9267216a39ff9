"""Settings with their folders, and weights that are only names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.fs.folders import make_folders
from agent.settings import Settings
from agent.settings_file import format_settings, load_settings
from models.catalog import ENGINES


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a share in tmp_path; torch's own downloads don't count."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "musedrop.toml").write_text(format_settings(".", "./state"))
    made = load_settings(tmp_path / "musedrop.toml")
    make_folders((*made.folders.of_share, *made.folders.of_state))
    return made


@pytest.fixture
def touch_weights(settings: Settings) -> Callable[[], None]:
    """A function that makes all weight files, empty."""

    def touch() -> None:
        for file in ENGINES["musetalk"].weights:
            (settings.models_dir / file).parent.mkdir(parents=True, exist_ok=True)
            (settings.models_dir / file).touch()

    return touch
