"""Paths in which no part may be a link, with openat2 and where the kernel has none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from models import nofollow
from models.nofollow import open_folder, open_nofollow


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to open a path."""
    if request.param == "walk":
        monkeypatch.setattr(nofollow, "has_openat2", lambda: False)
    elif not nofollow.has_openat2():
        pytest.skip("this kernel has no openat2")
    return str(request.param)


def read(path: Path | str, folder: int | None = None) -> bytes:
    fd = open_nofollow(path, os.O_RDONLY, folder=folder)
    try:
        return os.read(fd, 99)
    finally:
        os.close(fd)


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refused(path: Path | str, folder: int | None = None) -> int:
    """The number of the error."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked by the caller
        open_nofollow(path, os.O_RDONLY, folder=folder)
    return caught.value.errno or 0


@pytest.mark.usefixtures("way")
def test_a_plain_path_is_opened(tmp_path: Path) -> None:
    """Absolute, or from a folder on."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"one")
    assert read(tmp_path / "a" / "b" / "file") == b"one"
    folder = open_folder(tmp_path / "a")
    assert read("b/file", folder=folder) == b"one"
    os.close(folder)


@pytest.mark.usefixtures("way")
def test_a_link_anywhere_in_the_path_is_refused(tmp_path: Path) -> None:
    """As the file, as its folder, as a folder above, and dangling."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"one")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a" / "inner").symlink_to("b")
    (tmp_path / "a" / "b" / "other").symlink_to("file")
    (tmp_path / "a" / "b" / "none").symlink_to("nothing")
    for path in ("link/b/file", "a/inner/file", "a/b/other", "a/b/none"):
        assert refused(tmp_path / path) in (errno.ELOOP, errno.ENOTDIR), path
    for path in ("link", "a/inner"):
        with pytest.raises(OSError, match=r"link|inner"):
            open_folder(tmp_path / path)


@pytest.mark.usefixtures("way")
def test_a_path_stays_below_its_folder(tmp_path: Path) -> None:
    """Neither `..` nor an absolute path leads out, and a missing file is missing."""
    (tmp_path / "a").mkdir()
    (tmp_path / "secret").write_bytes(b"one")
    folder = open_folder(tmp_path / "a")
    assert refused("../secret", folder=folder) == errno.EXDEV
    assert refused(str(tmp_path / "secret"), folder=folder) == errno.EXDEV
    assert refused("none", folder=folder) == errno.ENOENT
    os.close(folder)


@pytest.mark.usefixtures("way")
def test_another_mount_is_refused_where_asked() -> None:
    """/proc is another file system than the root folder."""
    root = open_folder("/")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number says which
        open_folder("proc", folder=root, same_mount=True)
    assert caught.value.errno == errno.EXDEV
    os.close(open_folder("proc", folder=root))
    os.close(root)


@pytest.mark.usefixtures("way")
def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """Neither after a success nor after an error."""
    before = count_descriptors()
    (tmp_path / "link").symlink_to(".")
    for path in (tmp_path / "link" / "x", tmp_path / "none" / "x", tmp_path / "link"):
        refused(path)
    os.close(open_folder(tmp_path))
    assert count_descriptors() == before
