"""One reader of the ledger for all viewers: it looks for changes, and each viewer gets the sections that changed.

It looks only while somebody is there, and says nothing while nothing changes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import UserError
from agent.ledger.reader import Reader, Unreadable, open_reader
from agent.page import facts
from agent.page.figures import DayFigures

if TYPE_CHECKING:
    from agent.settings import Settings

POLL_S = 0.25
SLOW_POLLS = 12
"""The share, and whether a daemon is alive, are looked at in each of so many polls."""
SETTLE_S = 1.0
"""How long after a change of the ledger's files its commit may become visible."""
PERIOD_S = 300.0
"""Sections that depend on the time of day are made again after so long."""
KEEP_ALIVE_S = 30.0

Mark = tuple[int, int, int]


class LedgerWatch:
    """Reads the sections when a file has changed. All but `is_touched` runs in one thread."""

    def __init__(self, settings: Settings, describe_absence: Callable[[], str]) -> None:
        self._settings, self._describe_absence = settings, describe_absence
        self._figures = DayFigures()
        self._files = (settings.folders.ledger, settings.folders.ledger.with_name("jobs.db-wal"))
        self._reader: Reader | None = None
        self._touched: tuple[Mark, ...] = ()
        self._settled_s = 0.0
        self._seen: tuple[object, ...] = ()

    def is_touched(self) -> bool:
        """Whether the files of the ledger, on a local disk, have changed since the last `read`, or just before it.

        A commit counts some time after its bytes are in the file: they are flushed in between.
        """
        return time.monotonic() < self._settled_s or self._touched != tuple(map(_mark, self._files))

    def read(self, period: int) -> dict[str, Any] | None:
        """Return all sections, None where nothing has changed since the last call. A new `period` is a change."""
        touched = tuple(map(_mark, self._files))
        if self._reader is not None and touched[0][:2] != self._touched[0][:2]:
            self.close()
        if touched != self._touched:
            self._touched, self._settled_s = touched, time.monotonic() + SETTLE_S
        folders, absence = self._settings.folders, self._describe_absence()
        seen = (touched, self._read_version(), _mark(folders.status_file), _mark(folders.avatars), absence, period)
        if seen == self._seen:
            return None
        self._seen = seen
        status = facts.read_status(self._settings)
        try:
            self._reader = self._reader or open_reader(folders.ledger)
            sections = facts.read_sections(self._reader, status, self._settings, datetime.now(UTC), self._figures)
        except (UserError, Unreadable) as error:
            self.close()
            sections, absence = {}, absence or str(error)
        return {"head": facts.make_head(status, self._settings, absence), **sections}

    def _read_version(self) -> object:
        """Return a number that is another one after each commit."""
        with suppress(Unreadable):
            return self._reader and self._reader.execute("PRAGMA data_version").fetchone()
        return None

    def close(self) -> None:
        if self._reader is not None:
            with suppress(Unreadable):
                self._reader.close()
        self._reader, self._seen = None, ()


class Feed:
    """What all viewers follow: each section as text, with a number that grows when it changes."""

    def __init__(self, settings: Settings, describe_absence: Callable[[], str]) -> None:
        self._watch = LedgerWatch(settings, describe_absence)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._texts: dict[str, tuple[int, str]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._version = 0
        self.viewers = 0

    async def follow(self) -> AsyncGenerator[tuple[str, str], None]:
        """Yield the name and the JSON text of each section, and again when it has changed; ("", "") now and then."""
        self.viewers += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())
            seen: dict[str, int] = {}
            while True:
                changed = self._changed
                for name, (version, text) in list(self._texts.items()):
                    if seen.get(name) != version:
                        seen[name] = version
                        yield name, text
                try:
                    await asyncio.wait_for(changed.wait(), KEEP_ALIVE_S)
                except TimeoutError:
                    yield "", ""
        finally:
            self.viewers -= 1

    async def _run(self) -> None:
        polls = 0
        while self.viewers:
            if polls % SLOW_POLLS == 0 or self._watch.is_touched():
                await self._look()
            polls += 1
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        loop, period = asyncio.get_running_loop(), int(time.monotonic() // PERIOD_S)
        sections = await loop.run_in_executor(self._thread, self._watch.read, period)
        if sections is None:
            return
        texts = {name: json.dumps(section, ensure_ascii=False, default=str) for name, section in sections.items()}
        changed = {name for name, text in texts.items() if self._texts.get(name, (0, ""))[1] != text}
        if changed:
            self._version += 1
            self._texts.update({name: (self._version, texts[name]) for name in changed})
            self._changed.set()
            self._changed = asyncio.Event()

    async def read_now(self) -> dict[str, Any]:
        """Return the sections as they are at this moment, for a page without scripts."""
        await self._look()
        return {name: json.loads(text) for name, (_, text) in self._texts.items()}

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._thread.submit(self._watch.close)
        self._thread.shutdown()


def _mark(path: Path) -> Mark:
    """Return what changes when a file is replaced (device and inode), and when it is written to (time)."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_dev, status.st_ino, status.st_mtime_ns)
