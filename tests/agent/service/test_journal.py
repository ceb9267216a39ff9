"""Entries of the journal: levels, fields, long messages, and a journal that doesn't answer."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.service.journal import LONGEST_MESSAGE, JournalHandler, is_journal, syslog_priority
from tests.agent.service.records import LoggedJob, MessageList, make_record


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "journal"))
        bound.settimeout(10)
        yield bound


def test_the_journal_gets_level_and_fields(journald: socket.socket) -> None:
    """One datagram an entry; a name with a line break can't add a field of its own."""
    handler = JournalHandler(MessageList(), journald.getsockname())
    handler.emit(make_record("lost", level=logging.WARNING, job=LoggedJob("a\nPRIORITY=0", "u1"), device="cpu:0"))
    lines = journald.recv(10_000).decode().splitlines()
    assert lines == [
        "MESSAGE=lost",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=musedrop",
        "LOGGER=musedrop",
        r"JOB=a\nPRIORITY=0",
        "JOB_UID=u1",
        "DEVICE=cpu:0",
    ]
    handler.close()


def test_tracebacks_and_long_messages(journald: socket.socket) -> None:
    """Several lines travel with their length, and nothing is longer than a datagram."""
    handler = JournalHandler(MessageList(), journald.getsockname())
    failed = make_record("broken")
    try:
        raise ValueError("why")
    except ValueError:
        failed.exc_info = sys.exc_info()
    handler.emit(failed)
    got = journald.recv(100_000)
    size = int.from_bytes(got[8:16], "little")
    assert got.startswith(b"MESSAGE\n")
    assert got[16 : 16 + size].endswith(b"ValueError: why")
    handler.emit(make_record("x" * 10 * LONGEST_MESSAGE))
    assert len(journald.recv(10 * LONGEST_MESSAGE)) < LONGEST_MESSAGE + 100
    handler.close()


def test_a_journal_that_is_away_loses_nothing(tmp_path: Path) -> None:
    """The lines go where they would have gone without it."""
    fallback = MessageList()
    handler = JournalHandler(fallback, str(tmp_path / "nobody"))
    handler.emit(make_record("hello"))
    assert fallback.messages == ["hello"]
    handler.close()


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    """systemd names device and inode of the stream that it connected; anything else is not the journal."""
    with (tmp_path / "stream").open("w") as stream:
        found = (tmp_path / "stream").stat()
        assert is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not is_journal(stream, {})


def test_levels_are_syslogs() -> None:
    """Also those in between."""
    assert [syslog_priority(level) for level in (5, 10, 20, 25, 30, 40, 50)] == [7, 7, 6, 6, 4, 3, 2]
