"""Fixtures of the tests of the daemon and of what people see of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.fs.folders import make_folders
from agent.ledger import ledger
from agent.settings import Settings
from agent.settings_file import format_settings, load_settings

DURABLE_PRAGMAS = ledger.PRAGMAS
"""Those of the product."""


@pytest.fixture(scope="session", autouse=True)
def unflushed_ledgers() -> Iterator[None]:
    """Let ledgers of this process reach the disk whenever the system likes: no test here cuts the power."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger, "PRAGMAS", (*DURABLE_PRAGMAS, "synchronous = OFF"))
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings in tmp_path/musedrop.toml, with all folders."""
    (tmp_path / "musedrop.toml").write_text(format_settings(".", "./state"))
    made = load_settings(tmp_path / "musedrop.toml")
    make_folders((*made.folders.of_share, *made.folders.of_state))
    return made
