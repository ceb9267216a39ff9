"""Names as Windows and macOS compare them."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from agent.fs import follow_links
from agent.intake.paths import PathLookup, fold_name

LONG_AGO_NS = 1_600_000_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Takes").mkdir()
    for name in ("Zo\u00eb.wav", "Takes/One.wav"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Zo\u00eb.wav", "Zo\u00eb.wav"),
        ("zoe\u0308.WAV", "Zo\u00eb.wav"),
        ("takes/one.wav", "Takes/One.wav"),
        ("TAKES/ONE.WAV", "Takes/One.wav"),
        ("Takes", None),
        ("two.wav", None),
        ("takes/../zo\u00eb.wav", None),
        ("one.wav/one.wav", None),
        ("a" * 300, None),
    ],
)
def test_a_file_is_found_by_any_spelling(folder: Path, given: str, found: str | None) -> None:
    """Case and Unicode form don't matter, in folders neither; only regular files are found, and none by `..`."""
    assert PathLookup().find(folder, PurePosixPath(given)) == (folder / found if found else None)


def test_an_ambiguous_name_finds_nothing(folder: Path) -> None:
    """Of two files that differ in case alone, only an exact name means one."""
    (folder / "takes").mkdir()
    (folder / "takes" / "one.wav").write_bytes(b"x")
    lookup = PathLookup()
    assert lookup.find(folder, PurePosixPath("takes/one.wav")) == folder / "takes" / "one.wav"
    assert lookup.find(folder, PurePosixPath("TAKES/one.wav")) is None


def test_a_folder_is_listed_again_when_it_has_changed(folder: Path) -> None:
    """A listing is kept while the folder's time stands still, and never trusted while that time is young."""
    lookup = PathLookup()
    os.utime(folder, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert lookup.find(folder, PurePosixPath("LATE.wav")) is None
    (folder / "late.wav").write_bytes(b"x")
    assert lookup.find(folder, PurePosixPath("LATE.wav")) == folder / "late.wav"
    (folder / "late.wav").rename(folder / "later.wav")
    assert lookup.find(folder, PurePosixPath("LATER.wav")) == folder / "later.wav"
    os.utime(folder, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert lookup.find(folder, PurePosixPath("LATER.WAV")) == folder / "later.wav"
    (folder / "newest.wav").write_bytes(b"x")
    os.utime(folder, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert lookup.find(folder, PurePosixPath("NEWEST.wav")) is None


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    """An error of the file system is no news."""
    assert PathLookup().find(tmp_path / "nowhere", PurePosixPath("a.wav")) is None


def test_links_are_followed_even_in_circles(tmp_path: Path) -> None:
    """A loop and an endless name have an answer, where Path.resolve has an exception."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("real")
    assert follow_links(tmp_path / "link") == tmp_path / "real"
    assert follow_links(tmp_path / "loop").parent == tmp_path
    assert follow_links(tmp_path / ("a" * 5000)).parent == tmp_path


def test_names_fold_alike() -> None:
    """Composed and decomposed letters, and capitals."""
    assert fold_name("ZO\u00cb") == fold_name("zoe\u0308")
    assert fold_name("a") != fold_name("b")
