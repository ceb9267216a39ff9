"""`musedrop page`, and the page beside `musedrop run`."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.console import Config, find_settings, load_settings


def serve_page(
    config: Config = None,
    listen: Annotated[str | None, typer.Option(help="Address and port. Default: page.listen of the settings.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Print an address that opens the page once, and end.")] = False,
    parent: Annotated[
        int | None, typer.Option(hidden=True, help="End with this process, which started this one.")
    ] = None,
) -> None:
    """Serve the page for a browser, until Ctrl-C.

    It shows the jobs live, and makes new ones of files that are dropped on it.
    """
    from agent.cli.presence import describe_absence, find_presence
    from agent.page import server
    from agent.service.log import configure_logging
    from gpu_pool.guards import die_with_parent

    if parent is not None:
        die_with_parent(parent)
    source = find_settings(config)
    settings = load_settings(config)
    address = listen or settings.page.listen
    if link:
        host, port = server.split_address(address)
        typer.echo(server.make_link(settings, host, port, server.make_logins(settings, host)))
        return
    configure_logging(settings)

    def describe() -> str:
        presence = find_presence(settings)
        return "" if presence.is_alive else describe_absence(presence, source, datetime.now().astimezone())

    server.serve(settings, address, describe)


def start_page(source: Path) -> None:
    """Start the page in a process of its own, which ends with this one."""
    command = [sys.executable, "-m", "agent.cli.main", "page", "--config", str(source), "--parent", str(os.getpid())]
    os.posix_spawn(sys.executable, command, os.environ)
