"""The daemon's log: entries of the journal under systemd, lines for people, or JSON lines."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Protocol

from agent.service.journal import Journal, is_journal
from agent.settings import Settings
from agent.text import plain


class Named(Protocol):
    """A job, or what wants to be one."""

    @property
    def name(self) -> str: ...

    @property
    def uid(self) -> str: ...


def about(job: Named | None = None, device: str = "") -> dict[str, Any]:
    """For `extra=`: what the message is about, as fields of the journal and of JSON lines."""
    fields = {"JOB": job.name, "JOB_UID": job.uid} if job else {}
    return {"fields": fields | ({"DEVICE": device} if device else {})}


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= {key.lower(): value for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """One line a message, whatever is in the name of a job; a traceback follows on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = plain(record.message)
        return super().formatMessage(record)


def set_up(settings: Settings) -> None:
    lines = logging.StreamHandler(sys.stderr)
    handler: logging.Handler = lines
    if settings.log.format == "json":
        lines.setFormatter(JsonLines())
    else:
        lines.setFormatter(PlainLines("%(asctime)s %(levelname)-7s %(message)s"))
    if settings.log.format == "auto" and is_journal(sys.stderr, os.environ):
        handler = Journal(otherwise=lines)
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler], force=True)
