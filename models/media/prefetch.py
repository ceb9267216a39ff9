"""Iterators that work ahead in threads of their own, so that decoding, painting and encoding overlap."""

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
    """The items of `source`, made in another thread, at most `depth` of them before they are taken.

    What `source` raises is raised here, after the items before it. Whether this ends by itself, by an error or by
    `close`: `source` has been closed, by the thread that ran it, and that thread is gone. Whatever belongs to a thread
    has to be opened inside `source`, which may be such an iterator too.
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

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        filled = thread.submit(fill)
        try:
            while (item := items.get()) is not _END:
                room.release()
                yield item
            filled.result()
        finally:
            stop.set()
            room.release()


@contextmanager
def closing_all(*sources: Iterator[Any]) -> Iterator[None]:
    """Close generators as soon as nobody wants their items, not when somebody lets an exception go."""
    try:
        yield
    finally:
        for source in sources:
            if isinstance(source, Generator):
                source.close()
