"""Desktop notifications, also over a real message bus with a notification service."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import pytest
from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

from agent.desktop.notify import Notification, NotificationService, build_notifications, follow_jobs
from agent.errors import UserError
from agent.ledger.job import JobError
from agent.ledger.ledger import Ledger
from agent.ledger.reader import open_reader
from tests.agent.samples import a_spec, add_job, read_job

NAME = "org.freedesktop.Notifications"


def finish(ledger: Ledger, uid: str, at_ms: int, message: str = "") -> None:
    job = read_job(ledger, uid)
    if message:
        ledger.transitions.fail(job, JobError("no_face", message, ""), at_ms=at_ms)
    else:
        ledger.transitions.cancel(job, at_ms=at_ms)


def test_each_end_is_told_once(tmp_path: Path) -> None:
    """Every job that ends from now on is shown once, also two of one millisecond, also a retry."""
    path = tmp_path / "jobs.db"
    ledger = Ledger(path)
    for uid in ("old", "a", "b", "c"):
        add_job(ledger, uid, name=uid)
    finish(ledger, "old", 1000)
    told: list[Notification] = []
    steps = follow_jobs(lambda: open_reader(path), told.append)
    next(steps)
    assert told == []
    finish(ledger, "a", 1000)
    finish(ledger, "b", 2000, "no face <was> found")
    next(steps)
    assert told == [Notification("a was cancelled"), Notification("b failed", "no face <was> found", urgent=True)]
    finish(ledger, "c", 2000)
    next(steps)
    next(steps)
    assert [notice.summary for notice in told[2:]] == ["c was cancelled"]
    ledger.transitions.queue(ledger.transitions.reopen(read_job(ledger, "a"), a_spec(), at_ms=2500), {}, at_ms=2500)
    finish(ledger, "a", 3000)
    next(steps)
    assert [notice.summary for notice in told[3:]] == ["a was cancelled"]
    ledger.close()


def test_many_ends_are_told_as_one() -> None:
    """Many jobs make one notification that names the failed ones, with escapes made visible."""
    done = {"name": "x", "state": "done", "result": "x"}
    bad = {"name": "bad\x1b", "state": "failed", "error_message": "no"}
    assert build_notifications([done] * 9 + [bad]) == [
        Notification("10 jobs have ended, 1 failed", "bad\\x1b", urgent=True)
    ]
    assert build_notifications([done]) == [Notification("x is done", "outbox/x")]


def serve(address: str, heard: queue.Queue[Any], answers: int, ready: threading.Event) -> None:
    """Act as a notification service: record each call, and refuse the last one."""
    connection = open_dbus_connection(address)
    connection.send_and_get_reply(message_bus.RequestName(NAME), timeout=20)
    ready.set()
    while answers:
        message = connection.receive(timeout=20)
        if message.header.message_type is not MessageType.method_call:
            continue
        heard.put((message.header.fields[HeaderFields.member], message.body))
        answers -= 1
        if answers:
            connection.send(new_method_return(message, "u", (1,)))
        else:
            connection.send(new_error(message, f"{NAME}.Error", "s", ("the screen is off",)))
    connection.close()


def test_the_service_gets_what_the_standard_says(bus: str) -> None:
    """Notify has its eight arguments with markup escaped; a refusal becomes a UserError."""
    heard: queue.Queue[Any] = queue.Queue()
    ready = threading.Event()
    service = threading.Thread(target=serve, args=(bus, heard, 2, ready))
    service.start()
    assert ready.wait(20)
    desktop = NotificationService()
    desktop.show(Notification("b failed", "a <b> & c", urgent=True))
    member, body = heard.get(timeout=20)
    assert member == "Notify"
    assert body[:6] == ("musedrop", 0, "dialog-error", "b failed", "a &lt;b&gt; &amp; c", [])
    assert body[6]["urgency"] == ("y", 2)
    with pytest.raises(UserError, match="the screen is off"):
        desktop.show(Notification("x"))
    desktop.close()
    service.join(60)


@pytest.mark.usefixtures("bus")
def test_nobody_shows_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus without the service, and no bus at all, are UserErrors."""
    desktop = NotificationService()
    with pytest.raises(UserError, match="no desktop shows notifications"):
        desktop.show(Notification("x"))
    desktop.close()
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(UserError, match="desktop session"):
        NotificationService()
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    with pytest.raises(UserError, match="desktop session"):
        NotificationService()


def test_a_chinese_session_gets_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a job and why it failed, as the environment asks for; its name stays."""
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    row = {"name": "nothing to do", "state": "failed", "error_message": "no face was found in a.jpg", "result": None}
    [failed] = build_notifications([row])
    assert (failed.summary, failed.body) == ("nothing to do 失败", "在 a.jpg 中没有找到人脸")
    [done] = build_notifications([{**row, "state": "done", "result": "x"}])
    assert (done.summary, done.body) == ("nothing to do 已完成", "outbox/x")
