"""`musedrop service ...`: the daemon as a service of systemd."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.errors import UserError

if TYPE_CHECKING:
    from agent.cli.systemd_units import File
    from agent.settings import Settings

app = typer.Typer(help="Run the daemon as a service of systemd.", no_args_is_help=True, rich_markup_mode="rich")
Mine = Annotated[bool, typer.Option("--user", help="A service of your own, without root.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
SYSTEM_SETTINGS = Path("/etc/musedrop/musedrop.toml")
SYSTEM_SHARE = Path("/srv/musedrop")


@app.command()
def install(
    user: Mine = False,
    share: Annotated[
        Path | None, typer.Option(help="The folder of users. Default: the settings', /srv/musedrop, or ~/musedrop.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Show the units, then write them; an upgrade is the same again. Nothing is started."""
    from agent.cli import systemctl
    from agent.cli.systemd_units import check_program

    if not user:
        check_program(program())
    files = planned(user, share)
    for file in files:
        typer.echo(f"----- {file.path} ({file.state})\n{file.text}")
    confirm("Write these files?", user, yes)
    systemctl.write(files)
    make_ready(user, files[0].path)
    manager = systemctl.Systemd(user=user)
    manager.reload()
    scope = "--user " if user else ""
    verb = "restart" if manager.is_active() else "enable --now"
    typer.echo(f"Written. Now: systemctl {scope}{verb} musedrop")


def make_ready(user: bool, source: Path) -> None:
    """What the units need around them: the folders of the share, and a user or leave to run without a session."""
    from agent.cli import systemctl
    from agent.settings_file import load_settings

    folders = load_settings(source).folders
    if user:
        systemctl.lay_out(folders, owner="")
        typer.echo(systemctl.linger())
    else:
        systemctl.add_user()
        systemctl.lay_out(folders, systemctl.USER)


@app.command()
def uninstall(user: Mine = False, yes: Yes = False) -> None:
    """Stop the service and remove its units; settings, state and share stay."""
    from agent.cli import systemctl

    paths = systemctl.removable(planned(user, None))
    if not paths:
        raise UserError("nothing is installed")
    for path in paths:
        typer.echo(str(path))
    confirm("Stop the service and remove these files?", user, yes)
    manager = systemctl.Systemd(user=user)
    manager.stop(*(path.name for path in paths if path.suffix == ".service"))
    systemctl.remove(paths)
    manager.reload()
    typer.echo("Removed. Settings, state and share stay where they are.")


@app.command()
def status(user: Mine = False) -> None:
    """Say how the service is, and whether its units are those of this version."""
    from agent.cli import systemctl
    from agent.cli.systemd_units import outdated

    found = systemctl.Systemd(user=user).properties()
    for name, value in found.items():
        typer.echo(f"{name:<14} {value}")
    for path in outdated(planned(user, None)):
        typer.echo(f"{path} is not this version's: `musedrop service install` brings it up to date")
    raise typer.Exit(found["ActiveState"] != "active")


def planned(user: bool, share: Path | None) -> list[File]:
    from agent.cli import systemd_units as units
    from agent.settings_file import format_settings

    if user:
        home = Path.home()
        state = home / ".local" / "state" / "musedrop"
        files = units.user_files(
            program(), home, format_settings(str((share or home / "musedrop").absolute()), str(state))
        )
        if share:
            settings_in_force(files[0].path, files[0].text, share)
        return files
    text = units.system_settings((share or SYSTEM_SHARE).absolute())
    return units.system_files(program(), settings_in_force(SYSTEM_SETTINGS, text, share), text)


def program() -> Path:
    """The program that the units run: the one that was called, else the one beside this Python."""
    called = Path(sys.argv[0])
    return (called if called.name == "musedrop" else Path(sys.prefix, "bin", "musedrop")).absolute()


def settings_in_force(source: Path, text: str, share: Path | None) -> Settings:
    """Those that are there, else those that would be written. Raises UserError where they name another share."""
    import tomllib

    from agent.settings import Settings
    from agent.settings_file import load_settings

    if not source.exists():
        return Settings.model_validate(tomllib.loads(text))
    settings = load_settings(source)
    if share and share.absolute() != settings.share:
        raise UserError(f"{source} names the share {settings.share}: change it there, then install again")
    return settings


def confirm(question: str, user: bool, yes: bool) -> None:
    if not user and os.geteuid() != 0:
        raise UserError("this needs root: use sudo, or --user for a service of your own")
    if not yes and not typer.confirm(question):
        raise UserError("nothing was changed")
