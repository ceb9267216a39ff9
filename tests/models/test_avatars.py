"""The avatar cache, shared by real processes: one builds, the others wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from models.atomic import hash_file
from models.avatars import MANIFEST, AvatarCache, make_key
from models.types import AVATAR_INDEX, EngineError

ROOT = Path(__file__).parents[2]
ROOM = 1 << 20


def filled(size: int = 100, name: str = "latents.bin") -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / name).write_bytes(b"x" * size)

    return build


def never(_: Path) -> None:
    raise AssertionError("this entry is there: nothing has to be built")


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run `code` in another process, which is killed at the end."""
    prelude = "import sys, pathlib, time\nfrom models.avatars import AvatarCache\nroot = pathlib.Path(sys.argv[1])\n"
    command = [sys.executable, "-c", prelude + code, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.endswith(".tmp")]


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    """The second time nothing is built, also by another cache on the same folder."""
    first = AvatarCache(tmp_path, ROOM).get_or_build("face", filled())
    assert (first / "inner" / "latents.bin").read_bytes() == b"x" * 100
    assert AvatarCache(tmp_path, ROOM).get_or_build("face", never) == first
    assert AvatarCache(tmp_path, ROOM).find_damaged() == []


def test_a_builder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Its error passes, no entry appears, and the next call builds."""
    cache = AvatarCache(tmp_path, ROOM)

    def fail(folder: Path) -> None:
        filled()(folder)
        raise EngineError("no_face", "no face in face.jpg", "send another")

    with pytest.raises(EngineError, match="no_face"):
        cache.get_or_build("face", fail)
    assert visible(tmp_path) == []
    assert leftovers(tmp_path) == []
    assert cache.get_or_build("face", filled()).is_dir()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """ENOSPC while building becomes disk_full with a retry."""

    def fill_the_disk(_: Path) -> None:
        with Path("/dev/full").open("wb", buffering=0) as disk:
            disk.write(b"x")

    with pytest.raises(EngineError) as refused:
        AvatarCache(tmp_path, ROOM).get_or_build("face", fill_the_disk)
    assert (refused.value.code, refused.value.retry) == ("disk_full", True)
    assert str(tmp_path) not in refused.value.message


def shorter(folder: Path) -> None:
    (folder / "inner" / "latents.bin").write_bytes(b"x")


def gone(folder: Path) -> None:
    (folder / "inner" / "latents.bin").unlink()


def unlisted(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def scribbled(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"inner/latents.bin": 3}')


@pytest.mark.parametrize("break_it", [shorter, gone, unlisted, scribbled])
def test_a_broken_entry_is_built_again(tmp_path: Path, break_it: Callable[[Path], None]) -> None:
    """An entry with a short or missing file, or a bad manifest, is built again."""
    break_it(AvatarCache(tmp_path, ROOM).get_or_build("face", filled()))
    folder = AvatarCache(tmp_path, ROOM).get_or_build("face", filled(7))
    assert (folder / "inner" / "latents.bin").stat().st_size == 7


def test_a_check_up_finds_changed_bytes(tmp_path: Path) -> None:
    """A file of the right size and the wrong content is found by its digest."""
    cache = AvatarCache(tmp_path, ROOM)
    folder = cache.get_or_build("face", filled())
    cache.get_or_build("other", filled())
    (folder / "inner" / "latents.bin").write_bytes(b"y" * 100)
    assert cache.find_damaged() == ["face"]


@pytest.mark.parametrize("key", ["", "../face", "a/b", ".hidden", "x" * 129, "face\0"])
def test_keys_are_plain_names(tmp_path: Path, key: str) -> None:
    """No key leads out of the cache or hides in it."""
    with pytest.raises(ValueError, match="can't name an entry"):
        AvatarCache(tmp_path, ROOM).get_or_build(key, filled())


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """When space is needed, the least recently used entry is removed."""
    for age, key in enumerate(("a", "b", "c")):
        with AvatarCache(tmp_path, 350) as cache:
            os.utime(cache.get_or_build(key, filled()), (age, age))
    with AvatarCache(tmp_path, 350) as cache:
        cache.get_or_build("a", never)
    with AvatarCache(tmp_path, 350) as cache:
        cache.get_or_build("d", filled())
        assert visible(tmp_path) == ["a", "c", "d"]
        assert cache.total_bytes == 300


def test_an_entry_larger_than_the_cache_is_kept_while_it_is_used(tmp_path: Path) -> None:
    """The entry just made is never removed."""
    with AvatarCache(tmp_path, 350) as cache:
        cache.get_or_build("small", filled())
        cache.release("small")
        assert cache.get_or_build("large", filled(1000)).is_dir()
        assert visible(tmp_path) == ["large"]


HOLD = """
cache = AvatarCache(root, 10**6)
cache.get_or_build("used", lambda folder: (folder / "f").write_bytes(bytes(100)) and None)
print("ready", flush=True)
sys.stdin.readline()
"""


def test_what_another_process_uses_stays(tmp_path: Path) -> None:
    """An entry is not removed while a process uses it, and can be after that process has ended."""
    with process(HOLD, tmp_path) as holder:
        assert line(holder) == "ready"
        os.utime(tmp_path / "used", (1, 1))
        with AvatarCache(tmp_path, 150) as cache:
            cache.get_or_build("mine", filled())
            assert visible(tmp_path) == ["mine", "used"]
        tell(holder)
        holder.wait()
    with AvatarCache(tmp_path, 150) as cache:
        cache.get_or_build("next", filled())
        assert visible(tmp_path) == ["next"]


RACE = """
built = []
def build(folder):
    built.append(1)
    (folder / "f").write_bytes(b"x" * 1000)
    with open(root.parent / "builders", "a") as log:
        log.write("built\\n")
print("ready", flush=True)
sys.stdin.readline()
folder = AvatarCache(root, 10**6).get_or_build("face", build)
print((folder / "f").stat().st_size, flush=True)
"""


def test_processes_that_want_the_same_at_once_do_it_once(tmp_path: Path) -> None:
    """Of six processes that start together one builds, and all get the same entry."""
    root = tmp_path / "cache"
    with ExitStack() as running:
        racers = [running.enter_context(process(RACE, root)) for _ in range(6)]
        assert [line(racer) for racer in racers] == ["ready"] * 6
        for racer in racers:
            tell(racer)
        assert [line(racer) for racer in racers] == ["1000"] * 6
    assert (tmp_path / "builders").read_text() == "built\n"


BUILD_FOR_EVER = """
def build(folder):
    (folder / "half").write_bytes(b"x")
    print("building", flush=True)
    sys.stdin.readline()
AvatarCache(root, 10**6).get_or_build("face", build)
"""


def test_a_killed_builder_blocks_nobody(tmp_path: Path) -> None:
    """A waiting process can give up, or build after the builder was killed."""
    with process(BUILD_FOR_EVER, tmp_path) as builder:
        assert line(builder) == "building"

        def give_up() -> None:
            raise InterruptedError("cancelled")

        with pytest.raises(InterruptedError):
            AvatarCache(tmp_path, ROOM).get_or_build("face", never, give_up)
        assert len(leftovers(tmp_path)) == 1
        folder = AvatarCache(tmp_path, ROOM).get_or_build("face", filled(), lambda: builder.send_signal(signal.SIGKILL))
    assert (folder / "inner" / "latents.bin").is_file()
    assert leftovers(tmp_path) == []


def test_leftovers_of_other_keys_are_cleared_too(tmp_path: Path) -> None:
    """The next build removes leftovers of killed builders under other keys, but not those of live ones."""
    dead = tmp_path / ".gone.0123456789ab.tmp"
    dead.mkdir()
    with process(BUILD_FOR_EVER, tmp_path) as builder:
        assert line(builder) == "building"
        AvatarCache(tmp_path, ROOM).get_or_build("mine", filled())
        assert not dead.exists()
        assert len(leftovers(tmp_path)) == 1


def test_keys_depend_on_everything_that_is_given(tmp_path: Path) -> None:
    """The same parts give the same key, any other parts another; the hash is SHA-256."""
    assert make_key("face", 1, {"a": 1, "b": 2}) == make_key("face", 1, {"b": 2, "a": 1})
    keys = {make_key(*parts) for parts in [("face", 1), ("face", "1"), ("face1",), ("fac", "e1"), (["face", 1],)]}
    assert len(keys) == 5
    (tmp_path / "empty").write_bytes(b"")
    assert hash_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_entries_are_known_by_their_avatar_as_long_as_they_are_there(tmp_path: Path) -> None:
    """Other machines are given those before they prepare it."""
    cache = AvatarCache(tmp_path, ROOM)
    for key in ("one", "two"):
        cache.get_or_build(key, filled())
        cache.note_avatar("sha", key)
    cache.close()
    index = tmp_path / AVATAR_INDEX / "sha"
    assert sorted(path.name for path in index.iterdir()) == ["one", "two"]
    AvatarCache(tmp_path, 100).make_room()
    assert visible(tmp_path) == ["two"]
    AvatarCache(tmp_path, 100).make_room()
    assert [path.name for path in index.iterdir()] == ["two"]
