"""Run iterators ahead in threads of their own, so that decoding, painting and encoding overlap."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Semaphore
from typing import Any, TypeVar

Item = TypeVar("Item")

_END = object()


def prefetch(source: Iterator[Item], depth: int) -> Generator[Item]:
    """Yield the items of `source`, made in another thread, at most `depth` of them before they are
    taken.

    An error of `source` is raised here, after the items before it. However this ends (by itself,
    by an error, by `close`), its thread has closed `source` and has ended. Resources that belong
    to a thread have to be opened inside `source`, which may itself prefetch.
    """
    items: SimpleQueue[Any] = SimpleQueue()
    room, stop = Semaphore(depth), Event()

    def fill() -> None:
        try:
            with closing_all(source):
                while room.acquire() and not stop.is_set() and (item := next(source, _END)) is not _END:
                    items.put(item)
        finally:
            items.put(_END)

    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        future = thread.submit(fill)
        try:
            while (item := items.get()) is not _END:
                room.release()
                yield item
            future.result()
        finally:
            stop.set()
            room.release()


@contextmanager
def closing_all(*sources: Iterator[Any]) -> Iterator[None]:
    """Close the generators among `sources` at the end of the block, also after an error."""
    try:
        yield
    finally:
        for source in sources:
            if isinstance(source, Generator):
                source.close()
