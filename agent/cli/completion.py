"""What the shell completes: names of jobs, avatars and devices. A completion never fails; it only finds nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agent.errors import UserError

if TYPE_CHECKING:
    from agent.settings import Settings

ASKED = "_MUSEDROP_COMPLETE"
"""The variable by which the scripts of the shells say which of them asks."""
SPECIAL = re.compile(r"[\s!\"#$&'()*;<>?\[\\\]^`{|}~]")
"""What bash does not take for a part of a word; the script for zsh can't write quotes."""
ENGINES = ("auto", "preview", "musetalk")
ENCODERS = ("auto", "libx264", "h264_nvenc")
STRATEGIES = ("auto", "queue", "race", "split")
PRIORITIES = ("low", "normal", "high")


def complete_jobs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the newest jobs that begin so."""
    from agent import client

    settings = find_settings(ctx)
    if settings is None:
        return []
    try:
        return begin_with(incomplete, client.list_names(client.open_ledger(settings)))
    except (UserError, OSError):
        return []


def complete_avatars(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the library that begin so."""
    from agent.library import list_library, name_avatar

    settings = find_settings(ctx)
    if settings is None:
        return []
    try:
        return begin_with(incomplete, map(name_avatar, list_library(settings.folders.avatars)))
    except OSError:
        return []


def complete_devices(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the devices that begin so."""
    from agent import client

    settings = find_settings(ctx)
    if settings is None:
        return []
    try:
        return begin_with(incomplete, [row["device"] for row in client.list_devices(client.open_ledger(settings))])
    except (UserError, OSError):
        return []


def complete_engines(incomplete: str) -> list[str]:
    return begin_with(incomplete, ENGINES)


def complete_encoders(incomplete: str) -> list[str]:
    return begin_with(incomplete, ENCODERS)


def complete_strategies(incomplete: str) -> list[str]:
    return begin_with(incomplete, STRATEGIES)


def complete_priorities(incomplete: str) -> list[str]:
    return begin_with(incomplete, PRIORITIES)


def begin_with(start: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin so, as the shell that asks takes them for one word."""
    found = [name for name in names if name.startswith(start) and name.isprintable()]
    match os.environ.get(ASKED, ""):
        case "complete_bash":
            return [SPECIAL.sub(r"\\\g<0>", name) for name in found]
        case "complete_zsh":
            return [name.replace(":", r"\:") for name in found if not {"'", '"', "\\"} & {*name}]
        case _:
            return found


def find_settings(ctx: typer.Context) -> Settings | None:
    """Return the settings that the command line names so far, or None."""
    from agent.cli.console import load_settings

    given = ctx.params.get("config")
    try:
        return load_settings(Path(given) if given else None)
    except (UserError, OSError):
        return None
