"""Whether the disks have room for another job."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.service.disk_space import find_low_disk, format_bytes
from agent.settings import Settings


def make_settings(root: Path, min_free_bytes: int) -> Settings:
    limits = {"min_free_bytes": min_free_bytes}
    return Settings.model_validate({"share": str(root / "share"), "state": str(root / "state"), "limits": limits})


def test_a_disk_with_little_room_is_named(tmp_path: Path) -> None:
    """The first folder whose disk has less than the limit; a folder that is not there has no disk."""
    settings = make_settings(tmp_path, 1 << 50)
    assert find_low_disk(settings) == ""
    for name in ("state", "share"):
        (tmp_path / name).mkdir()
        assert find_low_disk(settings).startswith(f"the disk of {tmp_path / name} is nearly full")
    assert find_low_disk(make_settings(tmp_path, 0)) == ""


@pytest.mark.parametrize(("count", "text"), [(0, "0 MiB"), (5 << 20, "5 MiB"), (3 << 29, "1.5 GiB")])
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    """In MiB, from one GiB on in GiB."""
    assert format_bytes(count) == text
