"""`musedrop ...`: each command is a few lines over a room of its own, imported when it is asked for.

So `--help` and every command answer at once, whatever the other commands need.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import __version__
from agent.cli import models as cli_models
from agent.cli import service as cli_service
from agent.cli.console import Config, console, errors, found, settings_of
from agent.errors import UserError
from agent.text import escape_markup

if TYPE_CHECKING:
    from agent.cli.client import Ticket
    from agent.settings import Settings

app = typer.Typer(
    help="Drop a face and a voice into a folder; a talking-head video appears in another.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cli_models.app, name="models")

EngineName = Annotated[str, typer.Option(help="auto, preview or musetalk.")]
EngineOptions = Annotated[list[str] | None, typer.Option(help="An option of the engine, NAME=VALUE; may be repeated.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress and wait for the result.")]
Name = Annotated[str, typer.Argument(help="Name of the job: its file's name without .json. Its id works too.")]
POLL_S = 0.25
NOTIFY_S = 1.0


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to lay out the share and the state.")] = Path(),
) -> None:
    """Lay out the folders and an annotated settings file."""
    from agent.fs import make_folders
    from agent.settings_file import format_settings, load_settings

    target = folder / "musedrop.toml"
    if target.exists():
        raise UserError(f"{target} exists already: edit it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(format_settings(".", "./state"), encoding="utf-8")
    settings = load_settings(target)
    make_folders((*settings.folders.of_share, *settings.folders.of_state))
    said = f"Settings: {target}\nDrop jobs into {settings.folders.inbox}\nStart with: musedrop run -c {target}"
    console.print(said, markup=False, soft_wrap=True)


@app.command()
def run(config: Config = None) -> None:
    """Run the daemon until it is told to stop (Ctrl-C; twice ends it at once). SIGHUP reads the settings again."""
    from agent.daemon import serve
    from agent.service.log import configure_logging
    from agent.settings_file import load_settings

    source = found(config)
    settings = load_settings(source)
    configure_logging(settings)
    serve(settings, source=source)


@app.command()
def submit(
    avatar: Annotated[str, typer.Option(help="Image or video of the face, or the name of a library avatar.")],
    audio: Annotated[Path, typer.Option(help="The voice: any sound file, or a video with sound.")],
    config: Config = None,
    name: Annotated[str | None, typer.Option(help="Name of the job and its result. Default: the audio's name.")] = None,
    engine: EngineName = "auto",
    fps: Annotated[str | None, typer.Option(help='Frames a second, such as 25 or "30000/1001".')] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal, high, or a whole number.")] = None,
    strategy: Annotated[str, typer.Option(help="auto, queue, race or split.")] = "auto",
    option: EngineOptions = None,
    wait: Wait = False,
) -> None:
    """Hand in a job: copies the media and a job file into the inbox."""
    from agent.cli import client

    settings = settings_of(config)
    job = {"engine": engine, "fps": fps, "priority": priority, "strategy": strategy, "options": options_of(option)}
    ticket = client.submit(settings, avatar, audio, job, name)
    console.print(f"{escape_markup(ticket.name)} is in the inbox (id {escape_markup(ticket.id)})")
    if wait:
        raise typer.Exit(follow(settings, ticket))


def options_of(given: list[str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f'--option takes NAME=VALUE, not "{text}"')
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def follow(settings: Settings, ticket: Ticket) -> int:
    """Show the job until it ends; 0 if its video is there, 1 if not."""
    from agent.cli import client
    from agent.cli import progress as live

    with live.Board(console) as board:
        while True:
            row = client.status_of(client.reader(settings), ticket.id) if settings.folders.ledger.exists() else None
            if row is not None:
                board.show([row])
                if row["finished_at"]:
                    break
            time.sleep(POLL_S)
    return tell_end(settings, row)


def tell_end(settings: Settings, row: dict[str, Any]) -> int:
    if row["state"] == "done":
        video = settings.folders.outbox / row["result"] / "result.mp4"
        console.print(f"[green]done[/]: {escape_markup(video)}", soft_wrap=True)
        return 0
    said = escape_markup(row["error_message"] or "")
    errors.print(f"[red]{row['state']}[/] ({row['error_code'] or ''}): {said}", soft_wrap=True)
    if row["error_hint"]:
        errors.print(escape_markup(row["error_hint"]), soft_wrap=True)
    return 1


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A job's name or id; without it all recent jobs.")] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Rows of the view job_status, as JSON.")] = False,
    limit: Annotated[int, typer.Option(help="How many jobs to list.")] = 20,
) -> None:
    """Say how jobs are doing, from the ledger."""
    from agent.cli import client
    from agent.cli import progress as live

    db = client.reader(settings_of(config))
    if name is None:
        rows = client.overview(db, limit)
        print_json(rows) if as_json else console.print(live.table(rows) if rows else "no jobs yet")
        return
    row = client.status_of(db, name)
    if row is None:
        raise UserError(f"no job is called {name}; `musedrop status` lists them")
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        if value is not None:
            console.print(f"[bold]{key:<14}[/] {escape_markup(value)}", soft_wrap=True)
    for event in client.events_of(db, row["uid"]):
        detail = event["detail"].partition("\n")[0]
        console.print(f"[dim]{event['at']}[/]  {event['kind']:<10} {escape_markup(detail)}", soft_wrap=True)


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


@app.command()
def watch(config: Config = None) -> None:
    """Show jobs and devices live until Ctrl-C."""
    from agent.cli import client
    from agent.cli import progress as live

    settings = settings_of(config)
    db = client.reader(settings)
    with live.screen(console) as view:
        while True:
            pool = client.devices_of(db)
            view.update(live.dashboard(client.overview(db), pool, f"musedrop {__version__}  {settings.share}"))
            time.sleep(POLL_S)


@app.command()
def notify(config: Config = None) -> None:
    """Show a desktop notification when a job finishes or fails, until Ctrl-C."""
    from agent.cli import client
    from agent.cli import notify as desktop

    settings = settings_of(config)
    screen = desktop.Desktop()
    for _ in desktop.follow(lambda: client.reader(settings), screen.show):
        time.sleep(NOTIFY_S)


@app.command()
def cancel(name: Name, config: Config = None) -> None:
    """Cancel a job: leaves NAME.cancel in the inbox."""
    ask(config, name, "cancel")
    console.print(f"{escape_markup(name)} will be cancelled")


@app.command()
def retry(name: Name, config: Config = None) -> None:
    """Try a failed or cancelled job again: leaves NAME.retry in the inbox."""
    ask(config, name, "retry")
    console.print(f"{escape_markup(name)} will be tried again")


def ask(config: Path | None, name: str, verb: str) -> None:
    from agent.cli import client

    settings = settings_of(config)
    if client.status_of(client.reader(settings), name) is None:
        raise UserError(f"no job is called {name}; `musedrop status` lists them")
    client.ask(settings, name, verb)


Device = Annotated[
    str, typer.Argument(help="A device as `musedrop devices` lists it, a card, or the beginning of either.")
]


@app.command()
def devices(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Rows of the view device_status, as JSON.")] = False,
) -> None:
    """List the devices: what each is doing, its memory, and why one is set aside."""
    from agent.cli import client
    from agent.cli import progress as live

    rows = client.devices_of(client.reader(settings_of(config)))
    print_json(rows) if as_json else console.print(live.devices(rows) if rows else "no devices: the daemon never ran")


@app.command()
def drain(name: Device, config: Config = None) -> None:
    """Take a device out of service when it has finished what it does: leaves DEVICE.drain in the inbox."""
    console.print(f"{ask_device(config, name, 'drain')} gets no more work once it has finished what it does")


@app.command()
def pause(config: Config = None) -> None:
    """Start no further jobs until `musedrop resume`; what runs goes on. Leaves the file pause in the inbox."""
    from agent.cli import client

    client.switch(settings_of(config), "pause")
    console.print("no further job is started until `musedrop resume`")


@app.command()
def resume(
    name: Annotated[str | None, typer.Argument(help="A device or card; without it the paused queue.")] = None,
    config: Config = None,
) -> None:
    """Take a drained or sick device back into service, or let a paused queue go on.

    Leaves DEVICE.resume or the file resume in the inbox.
    """
    from agent.cli import client

    if name is None:
        client.switch(settings_of(config), "resume")
        console.print("jobs are started again")
    else:
        console.print(f"{ask_device(config, name, 'resume')} is taken back into service")


def ask_device(config: Path | None, name: str, verb: str) -> str:
    from agent.cli import client
    from agent.scheduler import device_names

    settings = settings_of(config)
    device = client.device_called(client.reader(settings), name)
    client.ask(settings, device_names.file_safe(device), verb)
    return device


avatar_app = typer.Typer(help="The avatar library: faces that jobs call by name.", no_args_is_help=True)
app.add_typer(avatar_app, name="avatar")
AvatarName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the avatar, as jobs call it.")]


@avatar_app.command("add")
def avatar_add(
    name: AvatarName,
    file: Annotated[Path, typer.Argument(help="Image or video of the face.")],
    config: Config = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of an avatar of that name.")] = False,
) -> None:
    """Copy a face into the library."""
    from agent.cli import avatars as library

    path = library.add(settings_of(config), name, file, replace=replace)
    console.print(f'{path} is there: jobs may say "avatar": "{name}"', soft_wrap=True, markup=False)


@avatar_app.command("list")
def avatar_list(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Show the library, and what is prepared of each avatar."""
    from agent.cli import avatars as library
    from agent.cli import progress as live

    found = library.shelf(settings_of(config))
    if as_json:
        print_json([{"name": a.name, "kind": a.kind, "path": str(a.path), "prepared": a.prepared} for a in found])
        return
    console.print(live.avatar_table(found) if found else "the library is empty: musedrop avatar add NAME FILE")


@avatar_app.command("prepare")
def avatar_prepare(
    name: AvatarName,
    config: Config = None,
    engine: EngineName = "musetalk",
    option: EngineOptions = None,
    wait: Wait = False,
) -> None:
    """Have a face prepared before a job needs it: drops a job with a silent clip into the inbox."""
    from agent.cli import avatars as library

    settings = settings_of(config)
    ticket = library.prepare(settings, name, options_of(option), engine)
    console.print(f"{escape_markup(ticket.name)} is in the inbox (id {escape_markup(ticket.id)})")
    if wait:
        raise typer.Exit(follow(settings, ticket))


@avatar_app.command("remove")
def avatar_remove(
    name: AvatarName,
    config: Config = None,
    force: Annotated[bool, typer.Option("--force", help="Even if jobs want it that have not been started.")] = False,
) -> None:
    """Take a face out of the library."""
    from agent.cli import avatars as library

    for path in library.remove(settings_of(config), name, force=force):
        console.print(f"{path} is removed", soft_wrap=True, markup=False)


@app.command()
def snapshot(
    file: Annotated[Path | None, typer.Argument(help="Where the copy goes. Default: status.db in the share.")] = None,
    config: Config = None,
) -> None:
    """Copy the ledger into one plain file that any SQLite reads, also over a network share."""
    from agent.ledger.snapshot import snapshot as copy

    settings = settings_of(config)
    target = file or settings.folders.snapshot
    try:
        copy(settings.folders.ledger, target)
    except OSError as error:
        raise UserError(f"{target} can't be written: {error.strerror}") from error
    console.print(escape_markup(target), soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the job file."""
    from agent.jobs.schema import build_schema

    print_json(build_schema())


@app.command()
def doctor(config: Config = None) -> None:
    """Check this machine: devices, encoders, weights, folders; each with what to do."""
    from agent.cli.doctor import examine

    settings = settings_of(config)
    mark = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
    worst = 0
    for finding in examine(settings):
        console.print(
            f"{mark[finding.verdict]} [bold]{finding.what:<18}[/] {escape_markup(finding.found)}", soft_wrap=True
        )
        if finding.advice:
            console.print(f"{'':23} -> {escape_markup(finding.advice)}", soft_wrap=True)
        worst = max(worst, finding.verdict == "bad")
    raise typer.Exit(worst)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Scratch folder; made if it isn't there.")] = Path("demo"),
    examples: Annotated[Path, typer.Option(help="Where the example jobs lie.")] = Path("inbox_example"),
) -> None:
    """Run the example jobs end to end in a scratch folder and say where the videos are."""
    from agent.cli.demo import play

    raise typer.Exit(play(folder, examples, console))


app.add_typer(cli_service.app, name="service")


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"musedrop {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: what a person can mend becomes one line and an exit code, 2 or (for the settings) 78."""
    logging.captureWarnings(capture=True)
    try:
        app()
    except UserError as error:
        stop(str(error), error.exit_code)
    except (FileNotFoundError, PermissionError) as error:
        stop(f"{error.filename}: {error.strerror}", UserError.exit_code)
    except KeyboardInterrupt:
        stop("stopped", 130)


def stop(message: str, code: int) -> None:
    """The last words, also for `systemctl status`, where this is a service."""
    from agent.service.systemd import Notifier

    Notifier().send_status(message)
    errors.print(f"[red]musedrop:[/] {escape_markup(message)}", soft_wrap=True, highlight=False)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
