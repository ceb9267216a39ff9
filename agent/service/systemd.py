"""Messages to systemd: the daemon is ready, reloading, stopping or alive, and its status."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from math import inf

log = logging.getLogger("musedrop")


class Notifier:
    """systemd's notification socket; without one, nothing is sent."""

    def __init__(self) -> None:
        self.address = os.environ.get("NOTIFY_SOCKET", "")
        self._status = ""

    def send_ready(self) -> None:
        self._send("READY=1")

    def send_reloading(self) -> None:
        self._send("RELOADING=1")

    def send_stopping(self) -> None:
        self._send("STOPPING=1")

    def send_alive(self) -> None:
        self._send("WATCHDOG=1")

    def send_status(self, text: str) -> None:
        """Send the line of `systemctl status`, if it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def extend_timeout(self, extra_s: float) -> None:
        """Allow starting or stopping to take `extra_s` more seconds, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(extra_s * 1e6)}")

    def _send(self, message: str) -> None:
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(1.0)
            try:
                channel.sendto(message.encode("utf-8", "replace"), address)
            except TimeoutError:
                return  # systemd is busy and gets the next message
            except OSError:
                self.address = ""


class Watchdog:
    """Sends the sign of life without which systemd restarts the service after `WatchdogSec=`."""

    def __init__(self, notifier: Notifier, env: Mapping[str, str] = os.environ) -> None:
        ours = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit_s = int(env.get("WATCHDOG_USEC", 0)) / 1e6 if ours else 0.0
        self.notifier, self.period_s = notifier, limit_s / 2 if limit_s else inf
        self.due_s = 0.0

    def feed(self, now_s: float, problem: str) -> None:
        """Send a sign of life once in a period, unless there is a problem: "" for none."""
        if now_s < self.due_s:
            return
        self.due_s = now_s + self.period_s
        if problem:
            log.error("the watchdog is not fed: %s", problem)
        else:
            self.notifier.send_alive()
