"""Prepared avatars on the disk: what is written is read, damage is noticed, workers share the work."""

from __future__ import annotations

import errno
import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models import avatars as entry
from models.avatars import MANIFEST, AvatarCache, fetch_entry, hash_files
from models.musetalk.avatar.store import AvatarTrack, AvatarWriter, PreparedAvatar
from models.types import EngineError

FRAMES = 5
MAX_BYTES = 64 << 20


def latents_of(frame: int) -> np.ndarray:
    return np.random.default_rng(frame).standard_normal((8, 32, 32)).astype(np.float32)


def mask_of(frame: int) -> np.ndarray:
    return np.random.default_rng(frame).integers(0, 256, (20 + frame, 30), np.uint8)


def a_track() -> AvatarTrack:
    boxes = np.tile(np.array([10, 20, 40, 60], np.int32), (FRAMES, 1))
    return AvatarTrack(boxes, np.array([True, True, False, True, True]))


def build(folder: Path) -> None:
    writer = AvatarWriter(folder, a_track())
    for frame in range(FRAMES):
        if frame == 2:
            writer.add(None, None)
        else:
            writer.add(latents_of(frame), mask_of(frame), (10, 40, 40, 60 + frame))
    writer.close({"avatar_sha256": "a", "summary": "s"})


def never(_: Path) -> None:
    raise AssertionError("this avatar is prepared")


def get(cache: AvatarCache, target: Path, make: Callable[[Path], None] = build) -> bool:
    return fetch_entry(cache, "key", make, target, lambda: None)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Latents to the bit, masks in their own sizes, and the frame without a face keeps its place."""
    build(tmp_path)
    prepared = PreparedAvatar(tmp_path)
    assert len(prepared) == FRAMES
    wanted = np.array([4, 0, 3, 3])
    assert np.array_equal(prepared.read_latents(wanted), np.stack([latents_of(int(n)) for n in wanted]))
    for frame in (0, 1, 3, 4):
        assert np.array_equal(prepared.read_mask(frame), mask_of(frame))
    assert not prepared.seen[2]
    assert not prepared.read_latents(np.array([2])).any()
    assert prepared.box(1) == (10, 20, 40, 60)
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".pkl", ".pt", ".png")]


def test_a_frame_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """An avatar is never called prepared with a frame too few."""
    writer = AvatarWriter(tmp_path, a_track())
    writer.add(None, None)
    with pytest.raises(ValueError, match="1 frames were prepared instead of 5"):
        writer.close({})


def test_the_second_job_finds_it_there(tmp_path: Path) -> None:
    """The first prepares, the second takes; both read the same, and the files are not there twice."""
    with AvatarCache(tmp_path / "cache", MAX_BYTES) as cache:
        assert get(cache, tmp_path / "one") is False
        assert get(cache, tmp_path / "two", never) is True
    assert np.array_equal(PreparedAvatar(tmp_path / "one").read_mask(4), PreparedAvatar(tmp_path / "two").read_mask(4))
    files = [tmp_path / "cache" / "key" / "latents.f32", *(tmp_path / job / "latents.f32" for job in ("one", "two"))]
    assert len({path.stat().st_ino for path in files}) == 1


def test_a_job_keeps_its_avatar_when_the_cache_drops_it(tmp_path: Path) -> None:
    """The cache drops the entry for another avatar; the running job keeps its files."""
    with AvatarCache(tmp_path / "cache", 1) as cache:
        get(cache, tmp_path / "one")
        fetch_entry(cache, "other", build, tmp_path / "two", lambda: None)
        assert not (tmp_path / "cache" / "key").exists()
    assert np.array_equal(PreparedAvatar(tmp_path / "one").read_mask(1), mask_of(1))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    """A flipped bit, half a file, a missing one, no manifest: never an error, always the right data."""
    with AvatarCache(tmp_path / "cache", MAX_BYTES) as cache:
        get(cache, tmp_path / "one")
        folder = tmp_path / "cache" / "key"
        victim = folder / (MANIFEST if damage == "manifest" else "masks.zz")
        data = bytearray(victim.read_bytes())
        victim.unlink()
        if damage == "flipped":
            data[len(data) // 2] ^= 1
        if damage == "cut":
            data = data[: len(data) // 2]
        if damage not in ("gone", "manifest"):
            victim.write_bytes(data)
        assert get(cache, tmp_path / "two") is False
        assert np.array_equal(PreparedAvatar(tmp_path / "two").read_mask(1), mask_of(1))
        assert get(cache, tmp_path / "three", never) is True


def test_a_disk_that_always_damages_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two rebuilds the job learns of it instead of trying for ever."""
    looks = itertools.count()
    monkeypatch.setattr(entry, "hash_files", lambda folder: {} if next(looks) % 2 else hash_files(folder))
    with AvatarCache(tmp_path / "cache", MAX_BYTES) as cache, pytest.raises(OSError, match="is the disk all right"):
        get(cache, tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_two_workers_do_the_work_once(tmp_path: Path) -> None:
    """Both want the same avatar at the same time: one prepares, the other waits and takes it."""
    begun, go_on = threading.Event(), threading.Event()
    builds: list[int] = []
    found: dict[str, bool] = {}

    def slow(folder: Path) -> None:
        builds.append(1)
        begun.set()
        assert go_on.wait(30)
        build(folder)

    def worker(name: str, waiting: Callable[[], None]) -> None:
        with AvatarCache(tmp_path / "cache", MAX_BYTES) as cache:
            found[name] = fetch_entry(cache, "key", slow, tmp_path / name, waiting)

    first = threading.Thread(target=worker, args=("first", lambda: None))
    second = threading.Thread(target=worker, args=("second", go_on.set))
    first.start()
    assert begun.wait(30)
    second.start()
    first.join(30)
    second.join(30)
    assert builds == [1]
    assert found == {"first": False, "second": True}
    assert np.array_equal(
        PreparedAvatar(tmp_path / "first").read_mask(0), PreparedAvatar(tmp_path / "second").read_mask(0)
    )


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A full disk fails the preparation, and no part of an entry stays."""

    def full(folder: Path) -> None:
        (folder / "latents.f32").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with AvatarCache(tmp_path / "cache", MAX_BYTES) as cache:
        with pytest.raises(EngineError) as refused:
            get(cache, tmp_path / "one", full)
        assert (refused.value.code, refused.value.retry) == ("disk_full", True)
        assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []
        assert get(cache, tmp_path / "one") is False


def test_about_is_plain_json(tmp_path: Path) -> None:
    """What the list of avatars shows can be read without any library."""
    build(tmp_path)
    assert json.loads((tmp_path / "about.json").read_text())["summary"] == "s"
