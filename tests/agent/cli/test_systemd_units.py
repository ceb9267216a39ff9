"""The files of `musedrop service install`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.cli.systemd_units import (
    check_program,
    name_mount_unit,
    plan_user_files,
    read_shipped,
    render_drop_in,
    render_system_settings,
    render_unit,
)
from agent.errors import UserError
from agent.settings import Folders, Settings
from tests.needs import need
from tests.share import ROOT

HERE = Settings.model_validate({"share": "/srv/musedrop", "state": "/var/lib/musedrop"})
FOLDERS = Folders(*map(Path, ("/srv/musedrop", "/var/lib/musedrop", "/var/cache/musedrop", "/var/log/musedrop")))


def settings_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and line[0] not in "#["]


def test_the_shipped_settings_are_those_that_are_written() -> None:
    """systemd/musedrop.toml is the file that is installed."""
    assert render_system_settings(Path("/srv/musedrop")) == (ROOT / "systemd" / "musedrop.toml").read_text(
        encoding="utf-8"
    )


def test_every_part_of_every_unit_is_explained() -> None:
    """Each block of each shipped file has a comment."""
    for path in (ROOT / "systemd").glob("*.service"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# "), path
        sections = [block for block in text.split("\n[")[1:] if not block.startswith("Install")]
        assert all("#" in block or block.startswith("Unit]") for block in sections), path


def test_only_the_share_is_added() -> None:
    """Folders of the settings that systemd doesn't create get a line each."""
    assert settings_of(render_drop_in(FOLDERS, None)) == [
        "RequiresMountsFor=/var/lib/musedrop",
        "ReadWritePaths=-/srv/musedrop",
    ]
    elsewhere = Folders(Path("/home/anna/my share"), Path("/data/50%"), Path("/data/50%/cache"), FOLDERS.logs)
    assert settings_of(render_drop_in(elsewhere, Path("/home/anna"))) == [
        "RequiresMountsFor=/data/50%%",
        "Wants=home-anna.mount",
        "After=home-anna.mount",
        'ReadWritePaths="-/home/anna/my share"',
        "ReadWritePaths=-/data/50%%",
        "ReadWritePaths=-/data/50%%/cache",
        "ProtectHome=tmpfs",
        'BindPaths="-/home/anna/my share"',
    ]


@pytest.mark.parametrize("path", ["/srv/muse-drop", "/a b/ü", "/x/.y", "/a:b_c.d/50%"])
def test_mounts_are_named_as_systemd_names_them(path: str) -> None:
    """The names are those that `systemd-escape` prints."""
    command = [need("systemd-escape", "systemd"), "--path", "--suffix=mount", path]
    assert (
        name_mount_unit(Path(path))
        == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    )


def test_the_program_is_where_it_was_installed() -> None:
    """ExecStart names it with special characters escaped; one in a home folder is refused."""
    assert '\nExecStart="/data/my $$tools/musedrop" run ' in render_unit(
        "musedrop.service", Path("/data/my $tools/musedrop")
    )
    with pytest.raises(UserError, match=r"home folder.*--user"):
        check_program(Path("/home/anna/.venv/bin/musedrop"))
    with pytest.raises(UserError, match="printable"):
        render_unit("musedrop.service", Path("/opt/a\nb"))


def test_the_users_own_units(tmp_path: Path) -> None:
    """They are in the user's folder and run the user's program."""
    files = plan_user_files(tmp_path / "venv" / "bin" / "musedrop", tmp_path, "")
    assert all(file.path.is_relative_to(tmp_path / ".config") for file in files)
    assert f"ExecStart={tmp_path}/venv/bin/musedrop run " in files[1].text
    assert read_shipped("musedrop-user.service") != files[1].text
