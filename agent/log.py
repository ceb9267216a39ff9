"""The daemon's log: lines for people, or JSON lines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from agent.printable import plain
from agent.settings import Settings


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """One line a message, whatever is in the name of a job; a traceback follows on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = plain(record.message)
        return super().formatMessage(record)


def set_up(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if settings.log.format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(PlainLines("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler], force=True)
