"""One reader for all viewers: what changed is told once, and nothing is told while nothing changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.page import feed as feed_module
from agent.page.feed import Feed, LedgerWatch
from agent.settings import Settings
from tests.agent.samples import add_job


@pytest.fixture(autouse=True)
def _keep_alive_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "KEEP_ALIVE_S", 0.5)


async def take_until_quiet(stream: AsyncIterator[tuple[str, str]]) -> dict[str, Any]:
    """Return the sections that come before the first keep-alive."""
    taken = {}
    async for name, text in stream:
        if not name:
            break
        taken[name] = json.loads(text)
    return taken


def test_a_viewer_gets_everything_then_only_what_changes(settings: Settings, ledger: Ledger) -> None:
    """The first look has all sections; a new job changes only those that it is in."""

    async def follow() -> None:
        feed = Feed(settings, lambda: "")
        async with aclosing(feed.follow()) as stream:
            first = await take_until_quiet(stream)
            assert {"head", "devices", "running", "queue", "done", "failed", "figures", "counts"} <= first.keys()
            add_job(ledger, "u1", name="hello")
            fresh: dict[str, Any] = {}
            while not fresh:
                fresh = await take_until_quiet(stream)
            assert fresh.keys() == {"queue", "counts"}
            assert [row["name"] for row in fresh["queue"]] == ["hello"]
            assert await take_until_quiet(stream) == {}
        feed.close()

    asyncio.run(follow())


def test_many_viewers_share_one_reader(settings: Settings, ledger: Ledger) -> None:
    """Two hundred viewers see the same, and the ledger is read once for all of them."""
    add_job(ledger, "u1", state=JobState.DONE)
    reads = []

    async def follow() -> None:
        feed = Feed(settings, lambda: reads.append(1) or "")  # type: ignore[func-returns-value]

        async def look() -> dict[str, Any]:
            async with aclosing(feed.follow()) as stream:
                return await take_until_quiet(stream)

        seen = await asyncio.gather(*(look() for _ in range(200)))
        assert all(sections == seen[0] for sections in seen)
        assert feed.viewers == 0
        feed.close()

    asyncio.run(follow())
    assert len(reads) < 100


def test_a_ledger_that_is_replaced_is_read_anew(settings: Settings, ledger: Ledger) -> None:
    """A restored backup is another file: its rows are shown, not those of the old one."""
    watch = LedgerWatch(settings, lambda: "")
    add_job(ledger, "u1", name="old")
    first = watch.read(0)
    assert first is not None
    assert [row["name"] for row in first["queue"]] == ["old"]
    ledger.close()
    for path in settings.state.glob("jobs.db*"):
        path.unlink()
    gone = watch.read(0)
    assert gone is not None
    assert gone.keys() == {"head"}
    assert "there is no ledger" in gone["head"]["absence"]
    again = Ledger(settings.folders.ledger)
    add_job(again, "u2", name="new")
    restored = watch.read(0)
    assert restored is not None
    assert [row["name"] for row in restored["queue"]] == ["new"]
    watch.close()
    again.close()


def test_a_commit_that_is_seen_after_its_bytes_is_shown(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was looked at between the bytes of a commit and the commit changes no more; its row is found."""
    watch = LedgerWatch(settings, lambda: "")
    monkeypatch.setattr(feed_module, "_mark", lambda _path: (1, 1, 1))
    watch.read(0)
    watch.read(0)
    assert watch.is_touched()
    assert watch.read(0) is None
    add_job(ledger, "u1", name="hello")
    sections = watch.read(0)
    assert sections is not None
    assert [row["name"] for row in sections["queue"]] == ["hello"]
    watch.close()


def test_a_damaged_ledger_is_said_and_not_raised(settings: Settings) -> None:
    """A file that is no database ends neither the page nor its reader."""
    settings.folders.ledger.write_bytes(b"rubbish" * 1000)
    watch = LedgerWatch(settings, lambda: "")
    sections = watch.read(0)
    assert sections is not None
    assert "damaged" in sections["head"]["absence"]
