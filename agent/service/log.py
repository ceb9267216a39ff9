"""The daemon's log: entries of the journal under systemd, lines for people, or JSON lines."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from agent.service.journal import JournalHandler, is_journal
from agent.service.process import open_closed_streams
from agent.text import escape

if TYPE_CHECKING:
    from agent.settings import Settings


class LoggedJob(Protocol):
    """A job, or a submission that becomes one."""

    @property
    def name(self) -> str: ...

    @property
    def uid(self) -> str: ...


def make_extra(job: LoggedJob | None = None, device: str = "") -> dict[str, Any]:
    """Return the `extra=` of a message: its job and device, as fields."""
    fields = {"JOB": job.name, "JOB_UID": job.uid} if job else {}
    return {"fields": fields | ({"DEVICE": device} if device else {})}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= {key.lower(): value for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class PlainFormatter(logging.Formatter):
    """One line a message, even if a job's name has line breaks. A traceback has its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = escape(record.message)
        return super().formatMessage(record)


def configure_logging(settings: Settings) -> None:
    """Send the log to stderr in the format of the settings, or to the journal.

    Where stderr was closed when the process was started, logs/daemon.log takes its place.
    """
    notice = open_closed_streams(settings.folders.logs / "daemon.log")
    lines = logging.StreamHandler(sys.stderr)
    handler: logging.Handler = lines
    if settings.log.format == "json":
        lines.setFormatter(JsonFormatter())
    else:
        lines.setFormatter(PlainFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    if settings.log.format == "auto" and is_journal(sys.stderr, os.environ):
        handler = JournalHandler(fallback=lines)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line says them
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler], force=True)
    if notice:
        logging.getLogger("musedrop").warning("%s", notice)
