"""`musedrop notify`: desktop notifications for jobs that finish or fail.

It reads the ledger like any other reader. Interface and markup are those of freedesktop.org:
https://specifications.freedesktop.org/notification-spec/1.2.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from agent.errors import UserError
from agent.hooks.ends import EndReader
from agent.languages import speak
from agent.ledger.reader import Reader
from agent.text import escape

MAX_AT_ONCE = 4
"""More jobs than this that end together become one notification."""
NORMAL, CRITICAL = 1, 2
ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification. `body` is text, not markup."""

    summary: str
    body: str = ""
    urgent: bool = False


class NotificationService:
    """The notification service of this session. Raises UserError where there is none."""

    def __init__(self) -> None:
        try:
            jeepney: Any = import_module("jeepney")
            blocking: Any = import_module("jeepney.io.blocking")
        except ModuleNotFoundError:
            raise UserError("notifications need D-Bus: pip install '.[desktop]' in the checkout") from None
        self._call: Callable[..., Any] = jeepney.new_method_call
        self._error = jeepney.MessageType.error
        path, name = "/org/freedesktop/Notifications", "org.freedesktop.Notifications"
        self._service = jeepney.DBusAddress(path, bus_name=name, interface=name)
        try:
            self._bus = blocking.open_dbus_connection("SESSION")
        except (KeyError, OSError) as error:
            raise UserError(f"there is no session bus here ({error}): run this in a desktop session") from None

    def show(self, notice: Notification) -> None:
        icon = "dialog-error" if notice.urgent else "video-x-generic"
        hints = {"urgency": ("y", CRITICAL if notice.urgent else NORMAL), "desktop-entry": ("s", "musedrop")}
        body = html.escape(notice.body, quote=False)
        words: tuple[Any, ...] = ("musedrop", 0, icon, notice.summary, body, [], hints, -1)
        try:
            reply = self._bus.send_and_get_reply(
                self._call(self._service, "Notify", "susssasa{sv}i", words), timeout=ANSWER_S
            )
        except OSError as error:
            raise UserError(f"the session bus went away ({error}): run this again in a desktop session") from None
        if reply.header.message_type is self._error:
            raise UserError(
                f"no desktop shows notifications here: {reply.body[0] if reply.body else 'no reason given'}"
            )

    def close(self) -> None:
        self._bus.close()


def follow_jobs(open_ledger: Callable[[], Reader], show: Callable[[Notification], None]) -> Iterator[None]:
    """Call `show` for every job that finishes from now on; each step reads the ledger once.

    The ledger is opened for each step: a restored backup is another file.
    """
    ends = EndReader()
    while True:
        ledger = open_ledger()
        try:
            fresh = ends.read_new(ledger)
        finally:
            ledger.close()
        for notice in build_notifications(fresh):
            show(notice)
        yield


def build_notifications(rows: list[dict[str, Any]]) -> list[Notification]:
    """Return one notification per job, or one for all if there are more than MAX_AT_ONCE."""
    if len(rows) <= MAX_AT_ONCE:
        return [build_notification(row) for row in rows]
    failed = [row for row in rows if row["state"] == "failed"]
    bad = f", {len(failed)} failed" if failed else ""
    return [
        Notification(
            speak(f"{len(rows)} jobs have ended{bad}"), ", ".join(escape(row["name"]) for row in failed), bool(failed)
        )
    ]


def build_notification(row: dict[str, Any]) -> Notification:
    name = escape(row["name"])
    match row["state"]:
        case "done":
            return Notification(speak(f"{name} is done"), f"outbox/{escape(row['result'] or '')}")
        case "failed":
            return Notification(speak(f"{name} failed"), escape(speak(row["error_message"] or "")), urgent=True)
    return Notification(speak(f"{name} was cancelled"))
