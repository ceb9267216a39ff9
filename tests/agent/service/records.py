"""Log records, and a handler that keeps their messages."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from agent.service.log import make_extra


@dataclass
class LoggedJob:
    name: str
    uid: str


class MessageList(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def make_record(
    message: str, *, level: int = logging.INFO, job: LoggedJob | None = None, device: str = ""
) -> logging.LogRecord:
    made = logging.LogRecord("musedrop", level, __file__, 1, message, (), None)
    made.__dict__.update(make_extra(job, device))
    return made
