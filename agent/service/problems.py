"""What is wrong outside, now: each trouble is said once when it begins and once when it is over."""

from __future__ import annotations

import logging

log = logging.getLogger("musedrop")


class Troubles:
    """By subject, such as "inbox" or "outbox". They are in status.json, and `doctor` reads them there."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def tell(self, subject: str, text: str) -> None:
        """What is wrong with the subject; "" if nothing is."""
        before = self._texts.pop(subject, "")
        if text:
            self._texts[subject] = text
        if text and text != before:
            log.error("%s; it is tried again until it works", text)
        elif before and not text:
            log.info("over: %s", before)

    def __getitem__(self, subject: str) -> str:
        return self._texts.get(subject, "")

    def texts(self) -> list[str]:
        return list(self._texts.values())
