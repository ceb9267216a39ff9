"""`musedrop page`, `tray`, `notify` and `desktop ...`: what browsers and desktops show of musedrop."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from agent.cli.console import Config, console, error_console, find_settings, load_settings, speak
from agent.errors import UserError
from agent.text import escape_markup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.desktop.menu import Item
    from agent.desktop.pauses import TimedPause
    from agent.desktop.state import TrayState
    from agent.settings import Settings

app = typer.Typer(help="The menu entry and the tray of a desktop.", no_args_is_help=True, rich_markup_mode=None)
P = ParamSpec("P")
NOTIFY_S = 1.0
PAGE_S = 10.0


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
    from agent.cli.page.launch import become_page
    from agent.page.launch import split_address
    from gpu_pool.guards import die_with_parent

    if parent is not None:
        die_with_parent(parent)
    source = find_settings(config)
    settings = load_settings(config)
    address = listen or settings.page.listen
    if link:
        from agent.page import server

        host, port = split_address(address)
        typer.echo(server.make_link(settings, host, port, server.make_logins(settings, host)))
        return
    become_page(settings, source, address)


def notify(config: Config = None) -> None:
    """Show desktop notifications when jobs end, until Ctrl-C."""
    from agent import client
    from agent.desktop import notify as notifications

    settings = load_settings(config)
    service = notifications.NotificationService()
    for _ in notifications.follow_jobs(lambda: client.open_ledger(settings), service.show):
        time.sleep(NOTIFY_S)


def tray(config: Config = None) -> None:
    """Show an icon in the tray, and notifications when jobs end, until Ctrl-C.

    Without a tray it shows notifications alone.
    """
    from agent import client
    from agent.cli.presence import describe_absence_now
    from agent.desktop import notify as notifications
    from agent.desktop.pauses import TimedPause, find_state_file
    from agent.desktop.state import read_state
    from agent.desktop.tray import Tray
    from agent.ledger.reader import Unreadable

    source = find_settings(config)
    settings = load_settings(config)
    pause = TimedPause(settings, find_state_file(os.environ))
    show = report(notifications.NotificationService().show)
    shown = Tray(
        lambda: read_state(settings, describe_absence_now(settings, source)),
        lambda state: build_menu(settings, source, pause, state),
    )
    was_there, due_s = None, 0.0
    steps = notifications.follow_jobs(lambda: client.open_ledger(settings), show)
    while True:
        shown.step()
        if shown.has_tray is False and was_there is not False:
            error_console.print(speak("no tray shows icons here: notifications alone are shown"), soft_wrap=True)
        was_there = shown.has_tray
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + NOTIFY_S
            report(pause.check)()
            try:
                next(steps)
            except (UserError, Unreadable):  # the ledger is gone, or not there yet
                steps = notifications.follow_jobs(lambda: client.open_ledger(settings), show)


def build_menu(settings: Settings, source: Path, pause: TimedPause, state: TrayState) -> Sequence[Item]:
    """Return the entries of the tray's menu; the first is also what a click on the icon does."""
    from agent.desktop.menu import Item
    from agent.desktop.pauses import HOUR_S

    items = [
        Item(speak("Open the page"), report(lambda: open_page(settings, source))),
        Item(speak("Open the outbox"), report(lambda: open_path(settings.folders.outbox))),
        Item(),
    ]
    if state.is_paused:
        items.append(Item(speak("Resume"), report(pause.resume)))
    else:
        items.append(Item(speak("Pause"), report(lambda: pause.pause(None))))
        items.append(Item(speak("Pause for an hour"), report(lambda: pause.pause(HOUR_S))))
    if state.results:
        items.append(Item())
        items += [Item(name, report(partial(open_path, path))) for name, path in state.results]
    return items


def report(act: Callable[P, None]) -> Callable[P, None]:
    """Return an action whose error is printed and ends nothing."""

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            act(*args, **kwargs)
        except (UserError, OSError) as error:
            error_console.print(escape_markup(speak(str(error))), soft_wrap=True)

    return run


def open_page(settings: Settings, source: Path) -> None:
    """Open the page in the browser; start it first where it is not served."""
    from agent.page.launch import is_served, split_address, start_page

    host, port = split_address(settings.page.listen)
    if not is_served(host, port):
        start_page(source)
        end_s = time.monotonic() + PAGE_S
        while not is_served(host, port):
            if time.monotonic() > end_s:
                raise UserError(f"the page doesn't answer at {host}:{port}: `musedrop page` says why")
            time.sleep(0.1)
    open_path(f"http://localhost:{port}/")


def open_path(target: Path | str) -> None:
    """Open a file, a folder or an address by the desktop's own program. Raises UserError."""
    try:
        os.posix_spawnp("xdg-open", ["xdg-open", str(target)], os.environ)
    except OSError as error:
        raise UserError(f"it can't be opened here: xdg-open: {error.strerror}") from None


# the menu entry ------------------------------------------------------------------------------------------------------


@app.command()
def install(config: Config = None) -> None:
    """Add musedrop to the menu and to "Open with", and the tray to the start of the session."""
    from agent.cli.service import find_program
    from agent.desktop.entries import plan_entries, write_entries

    entries = plan_entries(find_program(), find_settings(config).absolute(), os.environ)
    write_entries(entries)
    for path in entries:
        console.print(f"written: {escape_markup(path)}", soft_wrap=True)


@app.command()
def uninstall(config: Config = None) -> None:
    """Remove what `install` wrote."""
    from agent.cli.service import find_program
    from agent.desktop.entries import plan_entries, remove_entries

    for path in remove_entries(plan_entries(find_program(), find_settings(config).absolute(), os.environ)):
        console.print(f"removed: {escape_markup(path)}", soft_wrap=True)


@app.command("open")
def open_files(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Faces and voices.")] = None,
    config: Config = None,
) -> None:
    """Submit faces with voices, and open the page.

    One face speaks all voices; without a voice or a face the page opens alone.
    """
    from agent import client
    from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES

    source = find_settings(config)
    settings = load_settings(config)
    given = files or []
    faces = [path for path in given if path.suffix.lower() in AVATAR_SUFFIXES]
    voices = [path for path in given if path.suffix.lower() in AUDIO_SUFFIXES]
    for face in faces[:1]:
        for voice in voices:
            client.submit(settings, str(face), voice, {}, None)
    open_page_and_stay(settings, source)


def open_page_and_stay(settings: Settings, source: Path) -> None:
    """Open the page; where this process had to start it, go on until it is ended: the page ends with it."""
    from agent.page.launch import is_served, split_address

    stays = not is_served(*split_address(settings.page.listen))
    open_page(settings, source)
    while stays:
        time.sleep(3600)
