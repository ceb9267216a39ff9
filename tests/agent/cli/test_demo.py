"""The scratch share of `musedrop demo`; tests/e2e/test_cli.py runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.demo import drop_examples, make_scratch_share
from agent.errors import UserError
from tests.share import EXAMPLES


def test_a_scratch_share_is_made_anew(tmp_path: Path) -> None:
    """Files of an earlier demo are removed; a folder with other files is refused and kept."""
    folder = tmp_path / "demo"
    settings = make_scratch_share(folder)
    (settings.folders.inbox / "old.json").write_text("{}")
    make_scratch_share(folder)
    assert not list(settings.folders.inbox.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="other files"):
        make_scratch_share(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_the_examples_are_dropped(tmp_path: Path) -> None:
    """Each job file and each pair is a job; README files are not dropped."""
    assert drop_examples(EXAMPLES, tmp_path) == ["hello", "portrait", "video"]
    assert not list(tmp_path.glob("*.md"))
