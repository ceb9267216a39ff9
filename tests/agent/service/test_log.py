"""What the log says: to the journal with fields, to people in lines, to collectors as JSON."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.service.journal import LONGEST_MESSAGE, JournalHandler, is_journal, syslog_priority
from agent.service.log import JsonFormatter, make_extra


@dataclass
class Job:
    name: str
    uid: str


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def record(message: str, *, level: int = logging.INFO, job: Job | None = None, device: str = "") -> logging.LogRecord:
    made = logging.LogRecord("musedrop", level, __file__, 1, message, (), None)
    made.__dict__.update(make_extra(job, device))
    return made


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "journal"))
        bound.settimeout(10)
        yield bound


def test_the_journal_gets_level_and_fields(journald: socket.socket) -> None:
    """One datagram an entry; a name with a line break can't add a field of its own."""
    handler = JournalHandler(Kept(), journald.getsockname())
    handler.emit(record("lost", level=logging.WARNING, job=Job("a\nPRIORITY=0", "u1"), device="cpu:0"))
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
    handler = JournalHandler(Kept(), journald.getsockname())
    failed = record("broken")
    try:
        raise ValueError("why")
    except ValueError:
        failed.exc_info = sys.exc_info()
    handler.emit(failed)
    got = journald.recv(100_000)
    size = int.from_bytes(got[8:16], "little")
    assert got.startswith(b"MESSAGE\n")
    assert got[16 : 16 + size].endswith(b"ValueError: why")
    handler.emit(record("x" * 10 * LONGEST_MESSAGE))
    assert len(journald.recv(10 * LONGEST_MESSAGE)) < LONGEST_MESSAGE + 100
    handler.close()


def test_a_journal_that_is_away_loses_nothing(tmp_path: Path) -> None:
    """The lines go where they would have gone without it."""
    otherwise = Kept()
    handler = JournalHandler(otherwise, str(tmp_path / "nobody"))
    handler.emit(record("hello"))
    assert otherwise.messages == ["hello"]
    handler.close()


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    """systemd names device and inode of the stream that it connected; anything else is not the journal."""
    with (tmp_path / "stream").open("w") as stream:
        found = (tmp_path / "stream").stat()
        assert is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not is_journal(stream, {})


def test_json_lines_have_the_fields() -> None:
    """In small letters, beside level and message."""
    line = json.loads(JsonFormatter().format(record("done", job=Job("hello", "u1"), device="cpu:0")))
    assert {key: line[key] for key in ("job", "job_uid", "device", "message", "level")} == {
        "job": "hello",
        "job_uid": "u1",
        "device": "cpu:0",
        "message": "done",
        "level": "info",
    }


def test_levels_are_syslogs() -> None:
    """Also those in between."""
    assert [syslog_priority(level) for level in (5, 10, 20, 25, 30, 40, 50)] == [7, 7, 6, 6, 4, 3, 2]
