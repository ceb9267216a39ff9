"""Writing and removing the files of the service."""

from __future__ import annotations

from pathlib import Path

from agent.cli.systemctl import find_removable, remove_files, write_or_restore
from agent.cli.systemd_units import find_outdated, plan_system_files
from agent.settings import Settings

HERE = Settings.model_validate({"share": "/srv/musedrop", "state": "/var/lib/musedrop"})


def test_written_kept_outdated_removed(tmp_path: Path) -> None:
    """Existing settings are kept, outdated units are found, and written files can be removed."""
    files = plan_system_files(Path("/opt/musedrop/bin/musedrop"), HERE, "new", tmp_path)
    settings = files[0].path
    settings.parent.mkdir()
    settings.write_text("mine")
    assert [file.state for file in files] == ["there, and kept as it is", *["new"] * 8]
    with write_or_restore(files):
        pass
    assert settings.read_text() == "mine"
    assert find_outdated(files) == []
    files[3].path.write_text("older")
    assert find_outdated(files) == [files[3].path]
    gone = find_removable(files)
    assert len(gone) == 8
    remove_files(gone)
    assert find_removable(files) == []
    assert settings.exists()
    assert list((tmp_path / "systemd" / "system").iterdir()) == []
