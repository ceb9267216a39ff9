"""Log records as entries of systemd's journal, with levels and fields (`journalctl JOB=hello`).

The protocol is one datagram a message, https://systemd.io/JOURNAL_NATIVE_PROTOCOL.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import IO

from agent.text import escape

SOCKET = "/run/systemd/journal/socket"
LONGEST_MESSAGE = 48 << 10
"""In characters; a longer entry would not fit into a datagram."""
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))


def is_journal(stream: IO[str], env: Mapping[str, str]) -> bool:
    """Whether the stream is connected to the journal: systemd names the file in JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalHandler(logging.Handler):
    """Sends each record as an entry; `fallback` takes the records that the journal doesn't."""

    def __init__(self, fallback: logging.Handler, address: str = SOCKET) -> None:
        super().__init__()
        self.fallback, self.address = fallback, address
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._channel.settimeout(1.0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._channel.sendto(encode_entry(self.make_entry(record)), self.address)
        except OSError:
            self.fallback.emit(record)

    def make_entry(self, record: logging.LogRecord) -> dict[str, str]:
        message = escape(record.getMessage())
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        return {
            "MESSAGE": message[:LONGEST_MESSAGE],
            "PRIORITY": str(syslog_priority(record.levelno)),
            "SYSLOG_IDENTIFIER": "musedrop",
            "LOGGER": record.name,
            **{key: escape(value) for key, value in getattr(record, "fields", {}).items()},
        }

    def close(self) -> None:
        self._channel.close()
        super().close()


def syslog_priority(level: int) -> int:
    """Return syslog's number of a level of logging."""
    return next((number for least, number in PRIORITIES if level >= least), 7)


def encode_entry(entry: Mapping[str, str]) -> bytes:
    r"""Return the datagram of an entry; a value of several lines is preceded by its length.

    >>> encode_entry({"JOB": "a", "MESSAGE": "b\nc"})
    b'JOB=a\nMESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00b\nc\n'
    """
    return b"".join(_encode_field(key, value.encode("utf-8", "replace")) for key, value in entry.items())


def _encode_field(key: str, value: bytes) -> bytes:
    name = key.encode()
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
