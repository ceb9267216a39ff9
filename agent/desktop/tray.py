"""`musedrop tray`: an icon of the session that says how it goes, by StatusNotifierItem over D-Bus.

https://www.freedesktop.org/wiki/Specifications/StatusNotifierItem/
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from agent.desktop.icon import draw_icons
from agent.desktop.menu import Item, Menu
from agent.desktop.state import TrayState
from agent.errors import UserError
from agent.languages import speak

ITEM, WATCHER, MENU = "org.kde.StatusNotifierItem", "org.kde.StatusNotifierWatcher", "com.canonical.dbusmenu"
ITEM_PATH, WATCHER_PATH, MENU_PATH = "/StatusNotifierItem", "/StatusNotifierWatcher", "/MenuBar"
PROPERTIES = "org.freedesktop.DBus.Properties"
TITLES = {
    "idle": "nothing to do",
    "working": "working",
    "paused": "paused",
    "trouble": "something needs attention",
    "away": "no daemon is running",
}
READ_S = 1.0
PIXMAPS = "a(iiay)"


class Tray:
    """The item on the session bus. `read` says what goes on; `build_menu` which entries that has. Raises UserError."""

    def __init__(self, read: Callable[[], TrayState], build_menu: Callable[[TrayState], Sequence[Item]]) -> None:
        try:
            self._jeepney: Any = import_module("jeepney")
            blocking: Any = import_module("jeepney.io.blocking")
            bus_messages: Any = import_module("jeepney.bus_messages")
        except ModuleNotFoundError:
            raise UserError("the tray needs D-Bus: pip install '.[desktop]' in the checkout") from None
        self._read, self._build_menu = read, build_menu
        self._menu = Menu()
        self.state = TrayState("idle")
        self.has_tray: bool | None = None
        """Whether a desktop shows the icon; None while that is not known."""
        self._registering = 0
        try:
            self._bus = blocking.open_dbus_connection("SESSION")
        except (KeyError, OSError) as error:
            raise UserError(f"there is no session bus here ({error}): run this in a desktop session") from None
        self._name = f"{ITEM}-{os.getpid()}-1"
        self._bus.send_and_get_reply(bus_messages.message_bus.RequestName(self._name), timeout=10)
        rule = bus_messages.MatchRule(type="signal", interface="org.freedesktop.DBus", member="NameOwnerChanged")
        rule.add_arg_condition(0, WATCHER)
        self._bus.send_and_get_reply(bus_messages.message_bus.AddMatch(rule), timeout=10)
        self._read_s = 0.0
        self.refresh()
        self._register()

    # the loop --------------------------------------------------------------------------------------------------------

    def step(self, timeout_s: float = READ_S) -> None:
        """Answer one message, or wait so long for it; look at the ledger when that is due. Raises UserError."""
        try:
            self._handle(self._bus.receive(timeout=timeout_s))
        except TimeoutError:
            pass
        except OSError as error:
            raise UserError(f"the session bus went away ({error}): run this again in a desktop session") from None
        if time.monotonic() - self._read_s >= READ_S:
            self.refresh()

    def refresh(self) -> None:
        """Read what goes on, and tell the desktop what has changed."""
        self._read_s = time.monotonic()
        before, self.state = self.state, self._read()
        if self._menu.replace(self._build_menu(self.state)):
            self._emit(MENU_PATH, MENU, "LayoutUpdated", "ui", (self._menu.revision, 0))
        if draw_icons(before.kind, before.percent) != draw_icons(self.state.kind, self.state.percent):
            self._emit(ITEM_PATH, ITEM, "NewIcon")
        if (before.kind, before.lines) != (self.state.kind, self.state.lines):
            self._emit(ITEM_PATH, ITEM, "NewToolTip")
            self._emit(ITEM_PATH, ITEM, "NewStatus", "s", (self._get_status(),))

    def close(self) -> None:
        self._bus.close()

    def _register(self) -> None:
        """Ask the desktop to show the icon; its answer comes as a message."""
        watcher = self._jeepney.DBusAddress(WATCHER_PATH, bus_name=WATCHER, interface=WATCHER)
        call = self._jeepney.new_method_call(watcher, "RegisterStatusNotifierItem", "s", (self._name,))
        self._registering = next(self._bus.outgoing_serial)
        self._bus.send(call, serial=self._registering)

    def _handle(self, message: Any) -> None:
        kinds, fields = self._jeepney.MessageType, self._jeepney.HeaderFields
        header = message.header
        if header.message_type is kinds.method_call:
            self._answer(message, header.fields)
        elif header.message_type in (kinds.method_return, kinds.error):
            if header.fields.get(fields.reply_serial) == self._registering:
                self.has_tray = header.message_type is kinds.method_return
        elif header.fields.get(fields.member) == "NameOwnerChanged" and message.body[0] == WATCHER:
            self.has_tray = False
            if message.body[2]:
                self._register()

    def _answer(self, message: Any, fields: Mapping[Any, Any]) -> None:
        names = self._jeepney.HeaderFields
        interface, member = fields.get(names.interface, ""), fields[names.member]
        answer = None
        if interface == PROPERTIES:
            answer = self._answer_properties(member, message.body)
        elif interface == MENU:
            answer = self._menu.answer(member, message.body)
        elif interface == ITEM and member in ("Activate", "SecondaryActivate", "ContextMenu", "Scroll"):
            answer = "", ()
            if member == "Activate":
                self._menu.answer("Event", (1, "clicked", ("s", ""), 0))
        if answer is None:
            error = "org.freedesktop.DBus.Error.UnknownMethod"
            self._bus.send(self._jeepney.new_error(message, error, "s", (f"there is no {member} here",)))
        else:
            self._bus.send(self._jeepney.new_method_return(message, answer[0] or None, answer[1]))

    # what the desktop sees -------------------------------------------------------------------------------------------

    def _answer_properties(self, member: str, body: Sequence[Any]) -> tuple[str, tuple[Any, ...]] | None:
        known = self._describe_item() if body and body[0] == ITEM else MENU_PROPERTIES
        if member == "GetAll":
            return "a{sv}", (known,)
        if member == "Get" and body[1] in known:
            return "v", (known[body[1]],)
        return None

    def _describe_item(self) -> dict[str, tuple[str, Any]]:
        title = f"musedrop: {speak(TITLES[self.state.kind])}"
        pixmaps = draw_icons(self.state.kind, self.state.percent)
        return {
            "Category": ("s", "ApplicationStatus"),
            "Id": ("s", "musedrop"),
            "Title": ("s", title),
            "Status": ("s", self._get_status()),
            "WindowId": ("u", 0),
            "IconName": ("s", ""),
            "IconPixmap": (PIXMAPS, pixmaps),
            "OverlayIconName": ("s", ""),
            "AttentionIconName": ("s", ""),
            "AttentionIconPixmap": (PIXMAPS, pixmaps),
            "ToolTip": ("(sa(iiay)ss)", ("", [], title, "\n".join(self.state.lines))),
            "ItemIsMenu": ("b", False),
            "Menu": ("o", MENU_PATH),
        }

    def _get_status(self) -> str:
        return "NeedsAttention" if self.state.kind in ("trouble", "away") else "Active"

    def _emit(
        self, path: str, interface: str, name: str, signature: str | None = None, body: Sequence[Any] = ()
    ) -> None:
        emitter = self._jeepney.DBusAddress(path, interface=interface)
        self._bus.send(self._jeepney.new_signal(emitter, name, signature, tuple(body)))


MENU_PROPERTIES: Mapping[str, tuple[str, Any]] = {
    "Version": ("u", 3),
    "TextDirection": ("s", "ltr"),
    "Status": ("s", "normal"),
    "IconThemePath": ("as", []),
}
