"""Who may drop files into a share, as text to paste."""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

import pytest

from agent.settings import Settings
from agent.setup import sharing
from tests.needs import need


def test_the_commands_let_a_group_in(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """All folders that users see, and none of the daemon's own; then only how the group gets a member."""
    folders = settings.folders
    folders.inbox.chmod(0o755)
    commands = sharing.list_group_commands(folders)
    assert commands[0] == "sudo groupadd --force musedrop"
    assert commands[2].split()[3:] == [str(place) for place in (folders.share, *sharing.list_shared(folders))]
    assert ".musedrop" not in commands[2]
    folders.inbox.chmod(0o2770)
    monkeypatch.setattr(sharing, "find_own_gid", lambda _: -1)
    monkeypatch.setattr(sharing, "name_group", lambda _: "video team")
    assert sharing.find_group(folders) == "video team"
    assert sharing.list_group_commands(folders) == ("sudo usermod -aG 'video team' NAME",)
    folders.inbox.chmod(0o2777)
    assert sharing.find_group(folders) == "", "every user may"


def test_the_group_of_the_owner_alone_is_no_group(settings: Settings) -> None:
    """Most users have a group of their own, without members."""
    settings.folders.inbox.chmod(0o770)
    os.chown(settings.folders.inbox, -1, sharing.find_own_gid(os.getuid()))
    assert sharing.find_group(settings.folders) == ""


def test_samba_understands_its_section(settings: Settings, tmp_path: Path) -> None:
    """testparm has nothing to say against it."""
    program, conf = need("testparm", "samba-common-bin"), tmp_path / "smb.conf"
    conf.write_text(sharing.format_samba(settings.folders))
    done = subprocess.run([program, "-s", conf], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Unknown parameter" not in done.stderr
    assert f"path = {settings.folders.share}" in done.stdout


def test_samba_gets_the_share_without_the_daemons_folders(settings: Settings) -> None:
    """The section names the path, the group, and hides .musedrop."""
    parser = configparser.ConfigParser()
    parser.read_string(sharing.format_samba(settings.folders))
    section = parser["musedrop"]
    assert Path(section["path"]) == settings.folders.share
    assert (section["valid users"], section["force group"]) == ("@musedrop", "musedrop")
    assert section["veto files"] == "/.musedrop/"
