"""Make a clip of few frames a second one of more. `INTERPOLATORS` is where a better way is added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path

import av
import cv2
import numpy as np
from av.filter import Graph

from models.arrays import F32, U8
from models.media.numbered import find_numbered, read_numbered, write_ffv1
from models.media.opening import USUAL
from models.types import Limits

SMOOTH_FPS = 23
"""A clip of more frames a second is left as it is."""
PADDING = 3
"""So many pictures of the way back, or more, does FFmpeg see before the first and after the last: it needs some."""

Read = Callable[[int], U8]
"""Returns a picture by its number, (height, width, 3) BGR."""
Interpolator = Callable[[Read, int, Fraction, Fraction], Iterator[U8]]
"""(read, number of pictures, their rate, wanted rate) -> pictures from the time of the first to that of the last."""


def write_clip(
    folder: Path,
    target: Path,
    fps: Fraction,
    method: str,
    wanted_fps: Fraction,
    limits: Limits = USUAL,
    tick: Callable[[int], None] = lambda _: None,
) -> Fraction:
    """Write the numbered pictures of a folder as a lossless video at a rate that looks smooth; return that rate.

    method      a name of `INTERPOLATORS`, or "none": the rate stays
    wanted_fps  the rate of a clip that has fewer than `SMOOTH_FPS`
    tick        called with 0 for each picture

    Raises EngineError media_too_large.
    """
    paths = find_numbered(folder)
    rate = wanted_fps if method != "none" and fps < SMOOTH_FPS else fps

    def read(number: int) -> U8:
        tick(0)
        return next(read_numbered([paths[number]], limits))

    if rate == fps:
        write_ffv1(map(read, range(len(paths))), target, fps, limits)
    else:
        write_ffv1(INTERPOLATORS[method](read, len(paths), fps, rate), target, rate, limits)
    return rate


def blend(read: Read, count: int, fps: Fraction, wanted_fps: Fraction) -> Iterator[U8]:
    """Mix each two neighbours by how near they are in time: what moves fast is seen twice."""
    kept: dict[int, U8] = {}
    for time in _list_times(count, fps, wanted_fps):
        first = int(time)
        second = min(first + 1, count - 1)
        kept = {number: kept[number] if number in kept else read(number) for number in {first, second}}
        share = float(time - first)
        mixed = kept[first] * np.float32(1 - share) + kept[second] * np.float32(share)
        yield np.rint(mixed).astype(np.uint8)


def follow_blocks(read: Read, count: int, fps: Fraction, wanted_fps: Fraction) -> Iterator[U8]:
    """Move blocks of pixels along their way between neighbours, by FFmpeg's `minterpolate`."""
    if count < 2:
        yield from blend(read, count, fps, wanted_fps)
        return
    in_step = (wanted_fps / fps).denominator  # after so many pictures both rates have one at the same time
    padding = in_step * ceil(PADDING / in_step)
    wanted, made = set(_list_times(count, fps, wanted_fps)), 0
    for time, picture in _filter(read, _reflect(count, padding), fps, wanted_fps):
        if time - padding in wanted:
            made += 1
            yield picture
    if made != len(wanted):
        raise RuntimeError(f"minterpolate made {made} of {len(wanted)} pictures")


def follow_flow(read: Read, count: int, fps: Fraction, wanted_fps: Fraction) -> Iterator[U8]:
    """Move each pixel along its way between neighbours, by the optical flow that OpenCV's DIS finds both ways."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pair, first = None, -1
    for time in _list_times(count, fps, wanted_fps):
        if pair is None or int(time) != first:
            first = int(time)
            pictures = read(first), read(min(first + 1, count - 1))
            grey = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pictures]
            there, back = (np.zeros((*grey[0].shape, 2), np.float32) for _ in range(2))  # what DIS begins with
            dis.calc(grey[0], grey[1], there)
            dis.calc(grey[1], grey[0], back)
            pair = (*pictures, there, back)
        yield _warp(*pair, float(time - first))


def _warp(one: U8, other: U8, there: F32, back: F32, share: float) -> U8:
    """Return what is between two pictures, `share` of the way to the other."""
    if share == 0:
        return one
    flow = (1 - share) * there - share * back
    rows, columns = np.mgrid[: one.shape[0], : one.shape[1]].astype(np.float32)
    moved = [
        cv2.remap(
            picture,
            (columns + way * flow[..., 0]).astype(np.float32),
            (rows + way * flow[..., 1]).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for picture, way in ((one, -share), (other, 1 - share))
    ]
    return np.asarray(cv2.addWeighted(moved[0], 1 - share, moved[1], share, 0), np.uint8)


INTERPOLATORS: dict[str, Interpolator] = {"flow": follow_flow, "minterpolate": follow_blocks, "blend": blend}


def _list_times(count: int, fps: Fraction, wanted_fps: Fraction) -> list[Fraction]:
    """Return when the wanted pictures are shown, in pictures of the source."""
    return [number * fps / wanted_fps for number in range(int((count - 1) * wanted_fps / fps) + 1)]


def _reflect(count: int, padding: int) -> Sequence[int]:
    """Return -padding ... count + padding - 1 as numbers of pictures that are played forward and back."""
    period = 2 * (count - 1)
    return [min(number % period, period - number % period) for number in range(-padding, count + padding)]


def _filter(read: Read, numbers: Sequence[int], fps: Fraction, wanted_fps: Fraction) -> Iterator[tuple[Fraction, U8]]:
    """Yield the time of each picture that the filter makes, in pictures of the source, and the picture."""
    graph, base = Graph(), 1 / (fps * wanted_fps * 1000)
    first = read(numbers[0])
    height, width = first.shape[:2]
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("yuv444p"), time_base=base)
    how = f"fps={wanted_fps}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"
    sink = graph.add("buffersink")
    filters = [source, graph.add("minterpolate", how), sink]
    for one, other in pairwise(filters):
        one.link_to(other)
    graph.configure()
    for place, number in enumerate([*numbers, None]):
        if number is not None:
            frame = av.VideoFrame.from_ndarray(read(number), "bgr24").reformat(format="yuv444p")
            frame.pts, frame.time_base = int(place / fps / base), base
            source.push(frame)
        else:
            source.push(None)
        yield from _pull(sink, fps)


def _pull(sink: av.filter.context.FilterContext, fps: Fraction) -> Iterator[tuple[Fraction, U8]]:
    while True:
        try:
            made = sink.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(made, av.VideoFrame)  # noqa: S101 - the graph has no sound
        assert made.pts is not None  # noqa: S101
        assert made.time_base is not None  # noqa: S101
        yield made.pts * made.time_base * fps, np.asarray(made.to_ndarray(format="bgr24"), np.uint8)
