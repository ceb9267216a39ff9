"""The avatar cache: whole entries or none, work done once, a bounded size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.avatars import AvatarCache, content_key, sha256_file
from models.types import EngineError
from tests.share import ROOT

BUILDER = """
import os, sys
from pathlib import Path
from models.avatars import AvatarCache

def build(folder):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    print("building", flush=True)
    if sys.argv[3] == "wait":
        sys.stdin.readline()
    (folder / "data").write_text("whole")

print(AvatarCache(Path(sys.argv[1]), 1 << 20).entry("key", build), flush=True)
"""


def writes(text: str, calls: list[str] | None = None):  # type: ignore[no-untyped-def]
    def build(folder: Path) -> None:
        if calls is not None:
            calls.append(text)
        (folder / "data").write_text(text)

    return build


def builder(root: Path, log: Path, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(root), str(log), how]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    """The second request finds what the first one made."""
    cache, calls = AvatarCache(tmp_path, 1 << 20), []
    first = cache.entry("a", writes("one", calls))
    assert cache.entry("a", writes("two", calls)) == first
    assert (first / "data").read_text() == "one"
    assert calls == ["one"]


def test_two_processes_do_the_work_once(tmp_path: Path) -> None:
    """The one that comes second waits for the first and gets its entry."""
    log = tmp_path / "log"
    first = builder(tmp_path / "cache", log, "wait")
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = builder(tmp_path / "cache", log, "go")
    told, _ = first.communicate("\n", timeout=60)
    also, _ = second.communicate(timeout=60)
    assert told == also
    assert log.read_text() == "built\n"


def test_a_killed_builder_leaves_no_entry(tmp_path: Path) -> None:
    """kill -9 in the middle of a build: nothing looks like an entry, and the next one builds it."""
    log = tmp_path / "log"
    dying = builder(tmp_path / "cache", log, "wait")
    assert dying.stdout is not None
    dying.stdout.readline()
    dying.kill()
    dying.communicate()
    cache = AvatarCache(tmp_path / "cache", 1 << 20)
    assert cache.size() == 0
    assert (cache.entry("key", writes("again")) / "data").read_text() == "again"


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    """A file that is shorter or missing, or a broken manifest, is noticed and never fatal."""
    cache = AvatarCache(tmp_path, 1 << 20)
    folder = cache.entry("a", writes("one"))
    if damage == "cut":
        (folder / "data").write_text("o")
    elif damage == "gone":
        (folder / "data").unlink()
    else:
        (folder / "manifest.json").write_text("{")
    assert (cache.entry("a", writes("new")) / "data").read_text() == "new"


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """Over the size, the entry that was not asked for longest is removed, never the one just asked for."""
    cache = AvatarCache(tmp_path, 250)
    for key in ("a", "b"):
        cache.entry(key, writes("x" * 100))
    cache.entry("a", writes("never"))
    cache.entry("c", writes("x" * 100))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a", "c"]
    huge = cache.entry("d", writes("x" * 1000))
    assert huge.is_dir()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """What the builder raises passes through; the key is free again."""
    cache = AvatarCache(tmp_path, 1 << 20)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise EngineError("no_face", "none", "another")

    with pytest.raises(EngineError, match="no_face"):
        cache.entry("a", fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert (cache.entry("a", writes("ok")) / "data").read_text() == "ok"


def test_keys_depend_on_every_part(tmp_path: Path) -> None:
    """Another option, another size or another file makes another key."""
    keys = {content_key("x", 1, None), content_key("x", 2, None), content_key("x", 1, [1]), content_key("y", 1, None)}
    assert len(keys) == 4
    assert content_key("x", 1) == content_key("x", 1)
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f").startswith("ba7816bf")
