"""`musedrop service ...`: the daemon as a systemd service."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.console import AsJson, print_json, speak
from agent.errors import UserError

if TYPE_CHECKING:
    from agent.cli.systemd_units import UnitFile
    from agent.settings import Settings

app = typer.Typer(help="Run the daemon as a systemd service.", no_args_is_help=True, rich_markup_mode=None)
Mine = Annotated[bool, typer.Option("--user", help="A service of this user, without root.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
SYSTEM_SETTINGS = Path("/etc/musedrop/musedrop.toml")
SYSTEM_SHARE = Path("/srv/musedrop")


@app.command()
def install(
    user: Mine = False,
    share: Annotated[
        Path | None,
        typer.Option(help="The shared folder. Default: the one in the settings, /srv/musedrop, ~/musedrop."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Print the units, then write them; starts nothing.

    Run it again to upgrade. Where a step fails, all files are as before.
    """
    from agent.cli import systemctl
    from agent.cli.systemd_units import check_program

    if not user:
        check_program(find_program())
    systemctl.require_systemd()
    files = plan_files(user, share)
    for file in files:
        typer.echo(f"----- {file.path} ({file.state})\n{file.text}")
    confirm("Write these files?", user, yes)
    manager = systemctl.Systemd(user=user)
    with systemctl.write_or_restore(files):
        prepare_machine(user, files[0].path)
        manager.reload()
    scope = "--user " if user else ""
    verb = "restart" if manager.is_active() else "enable --now"
    typer.echo(speak(f"Written. Now: systemctl {scope}{verb} musedrop"))


def prepare_machine(user: bool, source: Path) -> None:
    """Create the folders of the share, and the user; with --user, enable lingering."""
    from agent.cli import systemctl
    from agent.settings_file import load_settings

    folders = load_settings(source).folders
    if user:
        systemctl.make_share_folders(folders, owner="")
        typer.echo(speak(systemctl.enable_linger()))
    else:
        systemctl.add_user()
        systemctl.make_share_folders(folders, systemctl.USER)


@app.command()
def uninstall(user: Mine = False, yes: Yes = False) -> None:
    """Stop the service and remove its units.

    Settings, state and share are kept.
    """
    from agent.cli import systemctl

    systemctl.require_systemd()
    paths = systemctl.find_removable(plan_files(user, None))
    if not paths:
        raise UserError("nothing is installed")
    for path in paths:
        typer.echo(str(path))
    confirm("Stop the service and remove these files?", user, yes)
    manager = systemctl.Systemd(user=user)
    manager.stop(*(path.name for path in paths if path.suffix in (".service", ".socket")))
    systemctl.remove_files(paths)
    manager.reload()
    typer.echo(speak("Removed. Settings, state and share are kept."))


@app.command()
def status(user: Mine = False, as_json: AsJson = False) -> None:
    """Print the state of the service.

    It also says which of its files are not those of this version.
    """
    from agent.cli import systemctl
    from agent.cli.systemd_units import find_outdated

    systemctl.require_systemd()
    found = systemctl.Systemd(user=user).read_properties()
    outdated = find_outdated(plan_files(user, None))
    if as_json:
        print_json({**found, "outdated": [str(path) for path in outdated]})
        raise typer.Exit(found["ActiveState"] != "active")
    for name, value in found.items():
        typer.echo(f"{name:<14} {value}")
    for path in outdated:
        typer.echo(speak(f"{path} is not of this version: run `musedrop service install` to update it"))
    raise typer.Exit(found["ActiveState"] != "active")


def plan_files(user: bool, share: Path | None) -> list[UnitFile]:
    from agent.cli import systemd_units as units
    from agent.settings_file import format_settings

    if user:
        home = Path.home()
        state = home / ".local" / "state" / "musedrop"
        files = units.plan_user_files(
            find_program(), home, format_settings(str((share or home / "musedrop").absolute()), str(state))
        )
        if share:
            resolve_settings(files[0].path, files[0].text, share)
        return files
    text = units.render_system_settings((share or SYSTEM_SHARE).absolute())
    return units.plan_system_files(find_program(), resolve_settings(SYSTEM_SETTINGS, text, share), text)


def find_program() -> Path:
    """Return the program of the units: the one that was called, or the one beside this Python."""
    called = Path(sys.argv[0])
    return (called if called.name == "musedrop" else Path(sys.prefix, "bin", "musedrop")).absolute()


def resolve_settings(source: Path, text: str, share: Path | None) -> Settings:
    """Return the settings in `source`, else `text`. Raises UserError if they name another share."""
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
        raise UserError("this needs root: use sudo, or --user for a service of this user")
    if not yes and not typer.confirm(speak(question)):
        raise UserError("nothing was changed")
