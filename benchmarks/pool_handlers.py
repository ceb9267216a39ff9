"""Handlers for `benchmarks.pool`.

A module of its own, so that its workers import no more than they need.
"""

from __future__ import annotations

import shutil
import threading
import time
from typing import Any

from models.types import Inspection


class SleepHandler:
    """Sleeps for as long as the payload says, and returns when it began."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, payload: dict[str, Any], *_: object) -> dict[str, Any]:
        began_s = time.monotonic()  # the same clock in every process
        if payload["sleep_s"]:
            threading.Event().wait(payload["sleep_s"])
        return {"began_s": began_s}


class CopyHandler:
    """Copies a file, if the payload names a copy, and returns when it began and ended."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, payload: dict[str, Any], *_: object) -> dict[str, Any]:
        began_s = time.monotonic()
        if payload["made"]:
            shutil.copyfile(payload["given"], payload["made"])
        return {"began_s": began_s, "ended_s": time.monotonic()}


class InspectHandler:
    """Returns when it began, among the details of an inspection."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, *_: object) -> dict[str, Any]:
        began_s = time.monotonic()
        return {"outline": Inspection(1, "25", 2, 2, 0.04, {}, details={"began_s": began_s}).to_dict()}
