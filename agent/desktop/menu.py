"""The tray's menu, as `com.canonical.dbusmenu` describes it: its items, and the answers to the calls of a desktop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Answer = tuple[str, tuple[Any, ...]]
"""Signature and body of a reply."""
LAYOUT = "(ia{sv}av)"


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of the menu; one without a label is a line between others."""

    label: str = ""
    act: Callable[[], None] | None = None

    @property
    def properties(self) -> dict[str, tuple[str, Any]]:
        if not self.label:
            return {"type": ("s", "separator")}
        label = self.label.replace("_", "__")  # one underscore would mark the next letter as a shortcut
        return {"label": ("s", label), "enabled": ("b", self.act is not None)}


class Menu:
    """The items by their numbers, which begin with 1; 0 is the menu itself."""

    def __init__(self) -> None:
        self.revision = 1
        self._items: tuple[Item, ...] = ()

    def replace(self, items: Sequence[Item]) -> bool:
        """Take other items; return whether they look different from before."""
        before = [item.properties for item in self._items]
        self._items = tuple(items)
        if [item.properties for item in self._items] == before:
            return False
        self.revision += 1
        return True

    def answer(self, member: str, body: Sequence[Any]) -> Answer | None:
        """Return the answer to a call, None for one that the interface doesn't have."""
        match member:
            case "GetLayout":
                return f"u{LAYOUT}", (self.revision, self._lay_out(body[0]))
            case "GetGroupProperties":
                numbers = body[0] or range(len(self._items) + 1)
                return "a(ia{sv})", ([(number, self._describe(number)) for number in numbers],)
            case "GetProperty":
                return "v", (self._describe(body[0]).get(body[1], ("s", "")),)
            case "AboutToShow":
                return "b", (False,)
            case "AboutToShowGroup":
                return "aiai", ([], [])
            case "Event":
                self._run(body[0], body[1])
                return "", ()
            case "EventGroup":
                for number, kind, *_ in body[0]:
                    self._run(number, kind)
                return "ai", ([],)
        return None

    def _lay_out(self, parent: int) -> tuple[int, dict[str, tuple[str, Any]], list[Any]]:
        if parent != 0:
            return parent, self._describe(parent), []
        none: list[Any] = []
        children = [(LAYOUT, (number, item.properties, none)) for number, item in enumerate(self._items, 1)]
        return 0, self._describe(0), children

    def _describe(self, number: int) -> dict[str, tuple[str, Any]]:
        if number == 0:
            return {"children-display": ("s", "submenu")}
        return self._items[number - 1].properties if 0 < number <= len(self._items) else {}

    def _run(self, number: int, kind: str) -> None:
        act = self._items[number - 1].act if 0 < number <= len(self._items) else None
        if kind == "clicked" and act is not None:
            act()
