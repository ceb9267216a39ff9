"""`musedrop setup`: from nothing to the first video, one step after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.console import Config, console


def setup(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder for share, state and settings. Default: what is set up, or your home."),
    ] = None,
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask: take what is proposed.")] = False,
    weights: Annotated[
        bool | None,
        typer.Option("--weights/--no-weights", help="Download MuseTalk's weights if missing. With --yes: no."),
    ] = None,
    service: Annotated[
        bool | None, typer.Option("--service/--no-service", help="Install and start it as a service. With --yes: no.")
    ] = None,
    demo: Annotated[
        bool | None, typer.Option("--demo/--no-demo", help="Make the demo clip if there is no video. With --yes: yes.")
    ] = None,
) -> None:
    """Set musedrop up, step by step, and make a first video.

    What is set up already is kept. Exit code 1: `musedrop doctor` finds something bad in the end.
    """
    from agent.cli.setup.guide import Guide
    from agent.cli.setup.place import find_or_make

    guide = Guide(console, yes=yes)
    source = find_or_make(guide, folder, config, service=service)
    raise typer.Exit(guide.lead(source, weights=weights, service=service, demo=demo))
