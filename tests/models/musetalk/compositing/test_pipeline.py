"""Work ahead in threads: the same frames as without, bounded, and no thread left behind however it ends."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from models import media
from models.arrays import U8
from models.musetalk.compositing.composite import BgrBlend, YuvBlend
from models.musetalk.compositing.pipeline import (
    BATCHES_AHEAD,
    FRAMES_AHEAD,
    BlendCache,
    compose_frames,
    compose_serially,
    read_frames,
)
from tests import media_samples as samples

FPS = Fraction(25)
BOX, SIZE = (20, 12, 70, 56), (96, 64)
MASK = np.full((64, 64), 255, np.uint8)
CROP = (16, 0, 80, 64)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """After every test here there are as many threads as before."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def backgrounds(count: int) -> Iterator[U8]:
    return samples.numbered_frames(count)


def batches(count: int, size: int = 4) -> Iterator[U8]:
    """`count` faces, grey by their number."""
    grey = np.arange(count, dtype=np.uint8)
    for start in range(0, count, size):
        part = grey[start : start + size]
        yield np.broadcast_to(part[:, None, None, None], (len(part), 256, 256, 3)).copy()


def make_blend() -> BgrBlend:
    return BgrBlend(MASK, BOX, CROP, SIZE)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_frames_are_those_of_the_plain_way(count: int) -> None:
    """Overlapping changes nothing: same frames, same order, each with its own face."""
    plain = list(compose_serially(backgrounds(count), batches(count), [(make_blend(),)] * count))
    overlapped = list(compose_frames(backgrounds(count), batches(count), [(make_blend(),)] * count))
    assert len(overlapped) == count
    for n, (one, other) in enumerate(zip(plain, overlapped, strict=True)):
        assert np.array_equal(one, other)
        assert (one[30:50, 30:60] == n).all()
        assert samples.number_of(one[:, 72:].repeat(4, axis=1)[:, :96]) >= 0


def test_frames_without_a_face_pass_and_take_none() -> None:
    """A background without blends stays as it is; the next face goes to the next frame that needs one."""
    frames = list(compose_frames(backgrounds(4), batches(2), [(), (make_blend(),), (), (make_blend(),)]))
    for n in (0, 2):
        assert np.array_equal(frames[n], samples.numbered(n))
    assert [int(frames[n][40, 40, 0]) for n in (1, 3)] == [0, 1]


@pytest.mark.parametrize(("faces", "frames", "blends"), [(3, 4, 4), (5, 4, 4), (4, 3, 4), (4, 5, 4)])
def test_numbers_that_do_not_agree_are_a_mistake(faces: int, frames: int, blends: int) -> None:
    """Too few or too many faces, frames or blends never shift what belongs together."""
    with pytest.raises(ValueError, match=r"fewer|more|shorter|longer"):
        list(compose_frames(backgrounds(frames), batches(faces), [(make_blend(),)] * blends))


class Broken(Exception):
    pass


def breaking(at: int) -> Iterator[U8]:
    for n in range(at):
        yield samples.numbered(n)
    raise Broken(at)


@pytest.mark.parametrize("at", [0, 1, 7])
def test_an_error_comes_after_what_was_made_before_it(at: int) -> None:
    """What a stage raises arrives as it is, once the frames before it are through."""
    frames = compose_frames(breaking(at), batches(20), [(make_blend(),)] * 20)
    assert len(list(islice(frames, at))) == at
    with pytest.raises(Broken):
        next(frames)


def test_an_error_of_the_networks_ends_the_film() -> None:
    """The faces' error is the film's, and the decoder's thread ends too."""

    def failing() -> Iterator[U8]:
        yield from batches(4)
        raise Broken

    with pytest.raises(Broken):
        list(compose_frames(backgrounds(50), failing(), [(make_blend(),)] * 50))


def test_closing_closes_every_source_in_its_own_thread() -> None:
    """A caller that stops early leaves nothing open: files are closed by the thread that opened them."""
    closed: dict[str, bool] = {}

    def source(name: str, items: Iterator[U8]) -> Iterator[U8]:
        here = threading.get_ident()
        try:
            yield from items
        finally:
            closed[name] = threading.get_ident() == here

    frames = compose_frames(source("frames", backgrounds(90)), source("faces", batches(90)), [(make_blend(),)] * 90)
    next(frames)
    frames.close()
    assert closed == {"frames": True, "faces": True}


def test_a_film_that_nobody_looks_at_starts_no_thread() -> None:
    """Made and dropped: nothing was opened, nothing has to be closed."""
    before = threading.active_count()
    frames = compose_frames(breaking(0), batches(0), [])
    assert threading.active_count() == before
    frames.close()


class Cancelled(Exception):
    pass


def test_a_cancelled_part_stops_all_stages(tmp_path: Path) -> None:
    """The tick of a cancelled span raises: no part, and all threads are gone before the error is out."""

    def tick(done: int) -> None:
        if done == 5:
            raise Cancelled

    before = threading.active_count()
    with pytest.raises(Cancelled) as stopped:
        media.write_part(
            tmp_path / "part.mp4",
            compose_frames(backgrounds(60), batches(60), [(make_blend(),)] * 60),
            count=60,
            fps=FPS,
            width=96,
            height=64,
            encoder="libx264",
            crf=18,
            progress=tick,
        )
    assert threading.active_count() == before, stopped
    assert list(tmp_path.iterdir()) == []


def test_from_a_video_to_a_part(tmp_path: Path) -> None:
    """Read, blended into planes and encoded, back and forth over the source: the same bytes as one after another."""
    source = samples.video(tmp_path / "avatar.mp4", 20)
    order = [*range(20), *reversed(range(20))]
    blends = BlendCache(lambda n: YuvBlend(MASK, BOX, CROP, SIZE, opacity=n / 20))

    def opened() -> media.VideoFrames:
        return media.VideoFrames(source, FPS, as_yuv=True)

    for name, how in (("plain.mp4", compose_serially), ("ahead.mp4", compose_frames)):
        pastes = ((blend,) if (blend := blends.get(n)) else () for n in order)
        frames = how(read_frames(opened, order), batches(40), pastes)
        asked = {"count": 40, "fps": FPS, "width": 96, "height": 64, "encoder": "libx264", "crf": 18}
        media.write_part(tmp_path / name, frames, progress=lambda _: None, **asked)  # type: ignore[arg-type]
    assert (tmp_path / "plain.mp4").read_bytes() == (tmp_path / "ahead.mp4").read_bytes()


def test_memory_does_not_grow_with_the_length() -> None:
    """Ten times as many frames take no more memory: all there ever is waits between the stages."""

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            for _ in compose_frames(backgrounds(count), batches(count), iter((make_blend(),) for _ in range(count))):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(5)
    short, long = peak(40), peak(400)
    room = (2 * FRAMES_AHEAD + 4) * 96 * 64 * 3 + (BATCHES_AHEAD + 2) * 4 * 256 * 256 * 3
    assert long < short * 1.1 + 100_000
    assert long < 2 * room


def test_pastes_are_made_once_while_they_fit() -> None:
    """A source frame that comes again finds its masks; the oldest go when there are too many."""
    made: list[int] = []

    def make(source: int) -> BgrBlend | None:
        made.append(source)
        return make_blend() if source else None

    cache = BlendCache(make, max_bytes=3 * make_blend().nbytes)
    for source in (0, 1, 2, 1, 2, 0):
        cache.get(source)
    assert made == [0, 1, 2]
    for source in (3, 4, 4, 2):
        cache.get(source)
    assert made == [0, 1, 2, 3, 4]
    cache.get(1)
    assert made == [0, 1, 2, 3, 4, 1]
    assert BlendCache(make, max_bytes=1).get(5) is not None
