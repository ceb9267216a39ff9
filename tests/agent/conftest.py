"""Fixtures of the tests of the daemon and of what people see of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.fs.folders import make_folders
from agent.settings import Settings
from agent.settings_file import format_settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings in tmp_path/musedrop.toml, with all folders."""
    (tmp_path / "musedrop.toml").write_text(format_settings(".", "./state"))
    made = load_settings(tmp_path / "musedrop.toml")
    make_folders((*made.folders.of_share, *made.folders.of_state))
    return made
