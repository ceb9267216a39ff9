"""What is wrong outside the daemon: each problem is logged once when it begins and once when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("musedrop")


class Problems:
    """The present problems by their subject, such as "inbox" or "outbox", for status.json."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._notice = ""
        self._sources: list[Callable[[], list[str]]] = []

    def add_source(self, list_texts: Callable[[], list[str]]) -> None:
        """Show the sentences of a part that keeps, and logs, problems of its own."""
        self._sources.append(list_texts)

    def set(self, subject: str, text: str) -> None:
        """Set what is wrong with the subject; "" if nothing is."""
        before = self._texts.pop(subject, "")
        if text:
            self._texts[subject] = text
        if text and text != before:
            log.error("%s; it is tried again until it works", text)
        elif before and not text:
            log.info("over: %s", before)

    def set_notice(self, text: str) -> None:
        """Set what an operator has to do, such as a restart, "" for nothing."""
        self._notice = text
        if text:
            log.warning("%s", text)

    def __getitem__(self, subject: str) -> str:
        return self._texts.get(subject, "")

    @property
    def texts(self) -> list[str]:
        others = (text for list_texts in self._sources for text in list_texts())
        return [*self._texts.values(), *others, *([self._notice] if self._notice else [])]
