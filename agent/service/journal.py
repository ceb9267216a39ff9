"""systemd's journal by its own protocol, so that levels and fields arrive: `journalctl JOB=hello`, `-p warning`.

The protocol is one datagram a message, https://systemd.io/JOURNAL_NATIVE_PROTOCOL.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import IO

from agent.text import plain

SOCKET = "/run/systemd/journal/socket"
LONGEST_MESSAGE = 48 << 10
"""Characters; what is longer than a datagram would have to travel as a file."""
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))


def is_journal(stream: IO[str], env: Mapping[str, str]) -> bool:
    """Whether what is written to the stream ends in the journal: systemd says which file it connected."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Journal(logging.Handler):
    """Each record as an entry of its own; where the journal doesn't answer, `otherwise` takes it."""

    def __init__(self, otherwise: logging.Handler, address: str = SOCKET) -> None:
        super().__init__()
        self.otherwise, self.address = otherwise, address
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._channel.settimeout(1.0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._channel.sendto(encoded(self.entry(record)), self.address)
        except OSError:
            self.otherwise.emit(record)

    def entry(self, record: logging.LogRecord) -> dict[str, str]:
        message = plain(record.getMessage())
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        return {
            "MESSAGE": message[:LONGEST_MESSAGE],
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": "musedrop",
            "LOGGER": record.name,
            **{key: plain(value) for key, value in getattr(record, "fields", {}).items()},
        }

    def close(self) -> None:
        self._channel.close()
        super().close()


def priority(level: int) -> int:
    """syslog's number of a level of logging."""
    return next((number for least, number in PRIORITIES if level >= least), 7)


def encoded(entry: Mapping[str, str]) -> bytes:
    r"""As the journal reads it; a value of several lines is preceded by its length.

    >>> encoded({"JOB": "a", "MESSAGE": "b\nc"})
    b'JOB=a\nMESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00b\nc\n'
    """
    return b"".join(_field(key, value.encode("utf-8", "replace")) for key, value in entry.items())


def _field(key: str, value: bytes) -> bytes:
    name = key.encode()
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
