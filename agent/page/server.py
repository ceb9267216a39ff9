"""The process of `musedrop page`: uvicorn with limits on how slowly a request may come."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.errors import UserError
from agent.page.app import Page
from agent.page.guard import LOOPBACK
from agent.page.launch import split_address
from agent.page.login import Logins, read_secret

if TYPE_CHECKING:
    from agent.settings import Settings

log = logging.getLogger("musedrop.page")

HEADER_S = 10.0
"""A connection on which no whole request header came for so long is closed."""
CONNECTIONS = 1000
SYSTEMD_FD = 3
TICK_S = 0.5


class TimedProtocol(H11Protocol):
    """HTTP/1.1 on one connection, which ends where the header of a request doesn't come in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._time_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_header()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _time_header(self) -> None:
        """Run the timer exactly while the header of a request is awaited."""
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if is_busy:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_S, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """A server that says where it is, and ends by itself some time after the last connection, where that is asked."""

    def __init__(self, config: uvicorn.Config, idle_s: float) -> None:
        super().__init__(config)
        self._idle_s, self._busy_s = idle_s, time.monotonic()

    async def main_loop(self) -> None:
        """Look for signals twice a second instead of ten times; the date is made anew at each tenth number."""
        ticks = 0
        while not await self.on_tick(ticks):
            await asyncio.sleep(TICK_S)
            ticks += 10

    async def on_tick(self, counter: int) -> bool:
        if self.server_state.connections:
            self._busy_s = time.monotonic()
        elif self._idle_s and time.monotonic() - self._busy_s > self._idle_s:
            return True
        return await super().on_tick(counter)


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or f"[{host}]" in LOOPBACK


def make_logins(settings: Settings, host: str) -> Logins | None:
    """Return what checks the viewers; None where the page is for this machine alone. Raises UserError."""
    if not is_loopback(host) and not (settings.page.token_file and settings.page.hosts):
        raise UserError(f"{host} can be reached from other machines: set page.token_file and page.hosts first")
    return Logins(read_secret(Path(settings.page.token_file))) if settings.page.token_file else None


def take_systemd_socket() -> socket.socket | None:
    """Return the socket that systemd has opened for this process, None where there is none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=SYSTEMD_FD)


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address. Raises UserError where that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"the page can't listen on {host}:{port} ({error.strerror}): choose another --listen") from None


def make_link(settings: Settings, host: str, port: int, logins: Logins | None) -> str:
    """Return the address that a person opens."""
    name = settings.page.hosts[0] if settings.page.hosts else "localhost" if is_loopback(host) else host
    return f"http://{name}:{port}/" + (f"login?ticket={logins.make_ticket()}" if logins else "")


def serve(settings: Settings, listen: str, describe_absence: Any, source: Path) -> None:
    """Serve the page until SIGTERM or Ctrl-C."""
    host, port = split_address(listen)
    logins = make_logins(settings, host)
    given = take_systemd_socket()
    listening = given or open_socket(host, port)
    page = Page(settings, describe_absence, logins, source)
    config = uvicorn.Config(
        page.build_app(),
        http=TimedProtocol,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    log.info("the page is at %s", make_link(settings, host, listening.getsockname()[1], logins))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn sends itself again, at the end, the signal that ended it
    Server(config, settings.page.idle_s if given else 0.0).run(sockets=[listening])
