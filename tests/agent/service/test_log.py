"""The log in its formats, and where the settings send it."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.service import journal
from agent.service.journal import JournalHandler
from agent.service.log import JsonFormatter, PlainFormatter, configure_logging, make_extra
from agent.settings import Settings
from tests.agent.service.records import LoggedJob, make_record


@pytest.fixture
def root_handlers() -> Iterator[logging.Logger]:
    """The root logger; its handlers and level are restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def a_settings(tmp_path: Path, **log: str) -> Settings:
    return Settings.model_validate({"share": tmp_path / "share", "state": tmp_path / "state", "log": log})


def test_json_lines_have_the_fields() -> None:
    """In small letters, beside level and message."""
    line = json.loads(JsonFormatter().format(make_record("done", job=LoggedJob("hello", "u1"), device="cpu:0")))
    assert {key: line[key] for key in ("job", "job_uid", "device", "message", "level")} == {
        "job": "hello",
        "job_uid": "u1",
        "device": "cpu:0",
        "message": "done",
        "level": "info",
    }


def test_a_name_makes_no_log_lines() -> None:
    """A line break in a job's name can't forge a line of the log; a traceback keeps its own lines."""
    formatter = PlainFormatter("%(levelname)s %(message)s")
    record = logging.LogRecord("musedrop", logging.INFO, "", 0, "%s is done", ("x\nERROR lost",), None)
    assert formatter.format(record) == "INFO x\\nERROR lost is done"
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert formatter.format(record).splitlines()[-1] == "ValueError: why"


def test_the_extra_of_a_message_names_job_and_device() -> None:
    """Only those that there are."""
    assert make_extra() == {"fields": {}}
    assert make_extra(LoggedJob("a", "u1"), "cpu:0") == {"fields": {"JOB": "a", "JOB_UID": "u1", "DEVICE": "cpu:0"}}


@pytest.mark.parametrize(("format", "formatter"), [("text", PlainFormatter), ("auto", PlainFormatter)])
def test_people_get_lines(
    tmp_path: Path, root_handlers: logging.Logger, format: str, formatter: type[logging.Formatter]
) -> None:
    """Also by default, where stderr is no journal; the level is that of the settings."""
    configure_logging(a_settings(tmp_path, format=format, level="warning"))
    [handler] = root_handlers.handlers
    assert isinstance(handler.formatter, formatter)
    assert root_handlers.level == logging.WARNING


def test_collectors_get_json(tmp_path: Path, root_handlers: logging.Logger) -> None:
    """One object a line, if the settings say so."""
    configure_logging(a_settings(tmp_path, format="json"))
    [handler] = root_handlers.handlers
    assert isinstance(handler.formatter, JsonFormatter)


def test_a_service_logs_to_the_journal(
    tmp_path: Path, root_handlers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where systemd has connected stderr to it."""
    with (tmp_path / "stderr").open("w") as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):
        status = (tmp_path / "stderr").stat()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure_logging(a_settings(tmp_path))
        [handler] = root_handlers.handlers
        assert isinstance(handler, JournalHandler)
        assert handler.address == journal.SOCKET
