"""Start the page in a process of its own. Standard library only."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from agent.errors import UserError


def split_address(listen: str) -> tuple[str, int]:
    """Return host and port of "127.0.0.1:8765" or "[::1]:8765". Raises UserError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UserError(f'page.listen is "{listen}": write an address and a port, such as 127.0.0.1:8765')
    return host.removeprefix("[").removesuffix("]"), int(port)


def start_page(source: Path) -> None:
    """Start the page beside this process, and let it end with it."""
    command = [sys.executable, "-m", "agent.cli.main", "page", "--config", str(source), "--parent", str(os.getpid())]
    os.posix_spawn(sys.executable, command, os.environ)


def is_served(host: str, port: int) -> bool:
    """Whether something listens at the address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
