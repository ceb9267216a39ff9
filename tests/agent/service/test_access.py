"""`musedrop doctor` on who may read and change what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.cli.doctor import check_access
from agent.service import access
from agent.service.access import list_access
from agent.service.share_folders import lay_out
from agent.settings import Folders, Settings
from agent.settings_file import load_settings
from tests.member import needs_root


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "musedrop.toml").write_text('share = "share"\nstate = "state"\n')
    (tmp_path / "share").mkdir()
    return load_settings(tmp_path / "musedrop.toml")


@pytest.fixture
def folders(settings: Settings) -> Folders:
    before = os.umask(0o022)
    lay_out(settings.folders)
    os.umask(before)
    settings.folders.ledger.touch()
    return settings.folders


def advice(folders: Folders) -> dict[str, str]:
    return {found.what: found.advice for found in list_access(folders) if found.advice}


def test_a_fresh_share_is_as_it_should_be(folders: Folders, settings: Settings) -> None:
    """Each folder says its owner, group and mode, and what the others may do."""
    assert advice(folders) == {}
    found = {finding.what: finding for finding in check_access(settings)}
    outbox = found[f"access to {folders.outbox}"]
    assert outbox.verdict == "ok"
    assert "0755: the group read and enter, other users read and enter" in outbox.found
    assert "0700: the group nothing, other users nothing" in found[f"access to {folders.claimed.parent}"].found


def test_what_is_too_open_has_a_command(folders: Folders, settings: Settings) -> None:
    """What is the daemon's own, the state, and folders that everybody may write to."""
    folders.claimed.parent.chmod(0o755)
    folders.claimed.chmod(0o755)
    folders.state.chmod(0o775)
    folders.inbox.chmod(0o777)
    found = advice(folders)
    assert found[str(folders.claimed.parent)].endswith(f"chmod go= {folders.claimed.parent}")
    assert str(folders.claimed) in found
    assert found[str(folders.state)].endswith(f"chmod go-w {folders.state}")
    assert found[str(folders.inbox)].endswith(f"chmod o-w {folders.inbox}")
    assert {finding.verdict for finding in check_access(settings) if finding.advice} == {"note"}


@needs_root
def test_a_folder_of_another_group_is_named(folders: Folders) -> None:
    """Also one that doesn't hand the group down."""
    os.chown(folders.outbox, -1, 60_900)
    folders.failed.chmod(0o775)
    found = advice(folders)
    assert "chgrp" in found[str(folders.outbox)]
    assert found[str(folders.failed)].endswith(f"chmod g+s {folders.failed}")


def test_a_link_in_the_place_of_a_folder_is_named(folders: Folders, tmp_path: Path) -> None:
    """It is never followed."""
    folders.outbox.rmdir()
    folders.outbox.symlink_to(tmp_path)
    folders.trash.rmdir()
    folders.trash.symlink_to(tmp_path)
    assert "mount" in advice(folders)[str(folders.outbox)]
    assert "remove it" in advice(folders)[str(folders.trash)]


def test_a_kernel_that_guards_less_is_named(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard links to files of others, and folders that are opened one by one."""
    (tmp_path / "protected").write_text("0\n")
    monkeypatch.setattr(access, "HARD_LINKS", tmp_path / "protected")
    monkeypatch.setattr(access, "has_openat2", lambda: False)
    found = {entry.what: entry for entry in list_access(folders)}
    assert found["hard links"].advice == "sysctl fs.protected_hardlinks=1"
    assert found["openat2"].advice == ""


def test_a_share_that_is_not_there_has_no_modes(tmp_path: Path) -> None:
    """Another line says that it is missing."""
    assert list(list_access(Folders(tmp_path / "none", tmp_path, tmp_path, tmp_path))) == []
