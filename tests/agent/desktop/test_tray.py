"""The tray on a real message bus, with a watcher that asks as a desktop does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call, new_method_return
from jeepney.bus_messages import MatchRule, message_bus
from jeepney.io.blocking import open_dbus_connection

from agent.desktop.menu import Item
from agent.desktop.state import TrayState
from agent.desktop.tray import ITEM, ITEM_PATH, MENU, MENU_PATH, PROPERTIES, WATCHER, Tray
from agent.errors import UserError


class Desktop:
    """The watcher of a desktop, which shows one item."""

    def __init__(self, address: str) -> None:
        self.bus = open_dbus_connection(address)
        self.signals: list[str] = []
        self.item = ""
        self.bus.send_and_get_reply(message_bus.AddMatch(MatchRule(type="signal", interface=ITEM)), timeout=20)
        self.bus.send_and_get_reply(message_bus.AddMatch(MatchRule(type="signal", interface=MENU)), timeout=20)

    def appear(self) -> None:
        self.bus.send_and_get_reply(message_bus.RequestName(WATCHER), timeout=20)

    def take_item(self) -> None:
        """Wait for an item that registers itself."""
        while True:
            message = self.bus.receive(timeout=60)
            if message.header.message_type is MessageType.method_call:
                assert message.header.fields[HeaderFields.member] == "RegisterStatusNotifierItem"
                self.item = message.body[0]
                self.bus.send(new_method_return(message))
                return

    def ask(self, path: str, interface: str, member: str, signature: str | None = None, body: Any = ()) -> Any:
        """Call the item and return its answer; remember the signals that come before."""
        address = DBusAddress(path, bus_name=self.item, interface=interface)
        call, serial = new_method_call(address, member, signature, body), next(self.bus.outgoing_serial)
        self.bus.send(call, serial=serial)
        while True:
            message = self.bus.receive(timeout=60)
            if message.header.message_type is MessageType.signal:
                self.signals.append(message.header.fields[HeaderFields.member])
            elif message.header.fields.get(HeaderFields.reply_serial) == serial:
                assert message.header.message_type is MessageType.method_return, message.body
                return message.body

    def read_item(self) -> dict[str, Any]:
        [known] = self.ask(ITEM_PATH, PROPERTIES, "GetAll", "s", (ITEM,))
        return {name: value for name, (_, value) in known.items()}

    def read_labels(self) -> list[str]:
        _, (_, _, children) = self.ask(MENU_PATH, MENU, "GetLayout", "iias", (0, -1, []))
        return [child[1][1].get("label", ("s", "-"))[1] for child in children]

    def click(self, number: int) -> None:
        self.ask(MENU_PATH, MENU, "Event", "isvu", (number, "clicked", ("s", ""), 0))


@pytest.fixture
def desktop(bus: str) -> Iterator[Desktop]:
    made = Desktop(bus)
    yield made
    made.bus.close()


def run_beside(tray: Tray, act: Callable[[], None]) -> None:
    """Let the tray answer while `act` asks in a thread; what goes wrong there fails here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        tray.step(0.02)
    thread.join()
    if errors:
        raise errors[0]


def test_a_desktop_shows_the_icon_its_tooltip_and_its_menu(desktop: Desktop) -> None:
    """Title, picture, state and menu are what the specification names; a click runs its entry."""
    clicked: list[str] = []
    desktop.appear()
    states = [TrayState("working", 40.0, ("hello: 40 %",))]
    items = [Item("Open the page", lambda: clicked.append("page")), Item(), Item("take_1", lambda: clicked.append("1"))]
    tray = Tray(lambda: states[0], lambda _state: items)

    def ask() -> None:
        desktop.take_item()
        item = desktop.read_item()
        assert item["Id"] == "musedrop"
        assert item["Title"] == "musedrop: working"
        assert item["Status"] == "Active"
        assert item["Menu"] == MENU_PATH
        assert item["ToolTip"][3] == "hello: 40 %"
        for width, height, pixels in item["IconPixmap"]:
            assert len(pixels) == 4 * width * height
        assert desktop.read_labels() == ["Open the page", "-", "take__1"]
        desktop.click(3)
        desktop.click(99)
        desktop.ask(ITEM_PATH, ITEM, "Activate", "ii", (0, 0))

    run_beside(tray, ask)
    assert clicked == ["1", "page"]
    assert tray.has_tray is True

    states[0] = TrayState("trouble", 0.0, ("the share is away",))
    items.pop()
    tray.refresh()

    def look_again() -> None:
        assert desktop.read_item()["Status"] == "NeedsAttention"
        assert {"NewIcon", "NewStatus", "NewToolTip", "LayoutUpdated"} <= set(desktop.signals)
        desktop.signals.clear()

    run_beside(tray, look_again)
    tray.refresh()

    def look_for_nothing() -> None:
        desktop.read_item()
        assert desktop.signals == []

    run_beside(tray, look_for_nothing)
    tray.close()


def test_without_a_tray_it_says_so_and_registers_when_one_comes(desktop: Desktop) -> None:
    """A desktop that starts later, or again, shows the icon."""
    tray = Tray(lambda: TrayState("idle"), lambda _state: [])
    while tray.has_tray is None:
        tray.step(0.02)
    assert tray.has_tray is False

    def appear() -> None:
        desktop.appear()
        desktop.take_item()

    run_beside(tray, appear)
    while tray.has_tray is False:
        tray.step(0.02)
    desktop.bus.close()
    while tray.has_tray is True:
        tray.step(0.02)
    tray.close()


def test_calls_that_it_does_not_know_are_errors(desktop: Desktop) -> None:
    """An unknown method, property or interface is answered by an error and ends nothing."""
    desktop.appear()
    tray = Tray(lambda: TrayState("idle"), lambda _state: [])

    def ask() -> None:
        desktop.take_item()
        for path, interface, member, signature, body in (
            (ITEM_PATH, ITEM, "Explode", None, ()),
            (ITEM_PATH, PROPERTIES, "Get", "ss", (ITEM, "Nothing")),
            (MENU_PATH, MENU, "Nothing", None, ()),
            ("/", "org.example.Nothing", "Ping", None, ()),
        ):
            with pytest.raises(AssertionError, match="there is no"):
                desktop.ask(path, interface, member, signature, body)
        assert desktop.read_item()["Title"] == "musedrop: nothing to do"

    run_beside(tray, ask)
    tray.close()


def test_no_bus_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a session bus the sentence says where to run it."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(UserError, match="desktop session"):
        Tray(lambda: TrayState("idle"), lambda _state: [])
