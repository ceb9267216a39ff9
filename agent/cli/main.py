"""`musedrop ...`: each command is a few lines, and imports what it needs when it is called.

`--help` and each command therefore start fast, whatever the other commands import.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import __version__
from agent.cli import models as cli_models
from agent.cli import service as cli_service
from agent.cli.console import Config, console, error_console, find_settings, load_settings
from agent.errors import UserError
from agent.text import escape_markup

if TYPE_CHECKING:
    from agent.cli.client import JobTicket
    from agent.cli.doctor import Finding
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
EngineOptions = Annotated[list[str] | None, typer.Option(help="An engine option, NAME=VALUE; repeatable.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress and wait for the result.")]
Name = Annotated[str, typer.Argument(help="Name of the job: its file's name without .json. Its id works too.")]
POLL_S = 0.25
NOTIFY_S = 1.0


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to create the share and the state.")] = Path(),
) -> None:
    """Create the folders and an annotated settings file."""
    from agent import settings_file
    from agent.fs import atomic_write_bytes
    from agent.service.process import let_group_read
    from agent.service.share_folders import lay_out

    target = folder.resolve() / "musedrop.toml"
    if target.exists():
        raise UserError(f"{target} exists already: edit it, or choose another folder")
    let_group_read()
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(target, settings_file.format_settings(".", "./state").encode())
    settings = settings_file.load_settings(target)
    lay_out(settings.folders)
    summary = f"Settings: {target}\nDrop jobs into {settings.folders.inbox}\nStart with: musedrop run -c {target}"
    console.print(summary, markup=False, soft_wrap=True)


@app.command()
def run(config: Config = None) -> None:
    """Run the daemon until Ctrl-C (twice stops it immediately). SIGHUP reloads the settings."""
    from agent import settings_file
    from agent.daemon import serve
    from agent.service.log import configure_logging

    source = find_settings(config)
    settings = settings_file.load_settings(source)
    configure_logging(settings)
    serve(settings, source=source)


@app.command()
def submit(
    avatar: Annotated[str, typer.Option(help="Image or video with the face, or the name of a library avatar.")],
    audio: Annotated[Path, typer.Option(help="The voice: a sound file, or a video with sound.")],
    config: Config = None,
    name: Annotated[str | None, typer.Option(help="Name of the job and its result. Default: the audio's name.")] = None,
    engine: EngineName = "auto",
    fps: Annotated[str | None, typer.Option(help='Frames per second, such as 25 or "30000/1001".')] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal, high, or a whole number.")] = None,
    strategy: Annotated[str, typer.Option(help="auto, queue, race or split.")] = "auto",
    option: EngineOptions = None,
    wait: Wait = False,
) -> None:
    """Submit a job: copy the media and a job file into the inbox."""
    from agent.cli import client

    settings = load_settings(config)
    job = {"engine": engine, "fps": fps, "priority": priority, "strategy": strategy, "options": parse_options(option)}
    ticket = client.submit(settings, avatar, audio, job, name)
    console.print(f"{escape_markup(ticket.name)} is in the inbox (id {escape_markup(ticket.id)})")
    if wait:
        raise typer.Exit(follow_job(settings, ticket))


def parse_options(given: list[str] | None) -> dict[str, Any]:
    """Return the engine options of `NAME=VALUE` texts; a value that is not JSON is a string."""
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


def follow_job(settings: Settings, ticket: JobTicket) -> int:
    """Show the progress of a job until it ends. Return exit code 0 if it is done, 1 if not."""
    from agent.cli import client, progress

    with progress.JobProgress(console) as board:
        while True:
            row = client.find_job(client.open_ledger(settings), ticket.id) if settings.folders.ledger.exists() else None
            if row is not None:
                board.show([row])
                if row["finished_at"]:
                    break
            time.sleep(POLL_S)
    return print_outcome(settings, row)


def print_outcome(settings: Settings, row: dict[str, Any]) -> int:
    """Print how a job ended. Return exit code 0 if it is done, 1 if not."""
    if row["state"] == "done":
        video = settings.folders.outbox / row["result"] / "result.mp4"
        console.print(f"[green]done[/]: {escape_markup(video)}", soft_wrap=True)
        return 0
    message = escape_markup(row["error_message"] or "")
    error_console.print(f"[red]{row['state']}[/] ({row['error_code'] or ''}): {message}", soft_wrap=True)
    if row["error_hint"]:
        error_console.print(escape_markup(row["error_hint"]), soft_wrap=True)
    return 1


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A job's name or id; without it all recent jobs.")] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows of the view job_status as JSON.")] = False,
    limit: Annotated[int, typer.Option(help="How many jobs to list.")] = 20,
) -> None:
    """Print the state of one job or of all recent jobs, from the ledger."""
    from agent.cli import client, progress

    db = client.open_ledger(load_settings(config))
    if name is None:
        rows = client.list_jobs(db, limit)
        if as_json:
            print_json(rows)
            return
        console.print(progress.build_job_table(rows) if rows else "no jobs yet")
        for entry in client.list_ignored(load_settings(config)):
            text = f"{entry['name']} is no job: {entry['reason']}; {entry['hint']}"
            console.print(f"[yellow]![/] {escape_markup(text)}", soft_wrap=True)
        return
    row = client.find_job(db, name)
    if row is None:
        raise UserError(f"no job is called {name}; `musedrop status` lists them")
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        if value is not None:
            console.print(f"[bold]{key:<14}[/] {escape_markup(value)}", soft_wrap=True)
    for event in client.list_events(db, row["uid"]):
        detail = event["detail"].partition("\n")[0]
        console.print(f"[dim]{event['at']}[/]  {event['kind']:<10} {escape_markup(detail)}", soft_wrap=True)


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


@app.command()
def watch(config: Config = None) -> None:
    """Show jobs and devices until Ctrl-C, updated four times per second."""
    from agent.cli import client, progress

    settings = load_settings(config)
    db = client.open_ledger(settings)
    with progress.open_live_view(console) as view:
        while True:
            pool = client.list_devices(db)
            view.update(
                progress.build_dashboard(client.list_jobs(db), pool, f"musedrop {__version__}  {settings.share}")
            )
            time.sleep(POLL_S)


@app.command()
def notify(config: Config = None) -> None:
    """Show a desktop notification when a job finishes or fails, until Ctrl-C."""
    from agent.cli import client
    from agent.cli import notify as notifications

    settings = load_settings(config)
    service = notifications.NotificationService()
    for _ in notifications.follow_jobs(lambda: client.open_ledger(settings), service.show):
        time.sleep(NOTIFY_S)


@app.command()
def cancel(name: Name, config: Config = None) -> None:
    """Cancel a job: write NAME.cancel into the inbox."""
    control_job(config, name, "cancel")
    console.print(f"{escape_markup(name)} will be cancelled")


@app.command()
def retry(name: Name, config: Config = None) -> None:
    """Run a failed or cancelled job again: write NAME.retry into the inbox."""
    control_job(config, name, "retry")
    console.print(f"{escape_markup(name)} will be run again")


def control_job(config: Path | None, name: str, verb: str) -> None:
    from agent.cli import client

    settings = load_settings(config)
    if client.find_job(client.open_ledger(settings), name) is None:
        raise UserError(f"no job is called {name}; `musedrop status` lists them")
    client.write_control_file(settings, name, verb)


Device = Annotated[
    str, typer.Argument(help="A device as `musedrop devices` lists it, a card, or the beginning of either.")
]


@app.command()
def devices(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows of the view device_status as JSON.")] = False,
) -> None:
    """List the devices: what each does, its memory, and why one is out of service."""
    from agent.cli import client, progress

    rows = client.list_devices(client.open_ledger(load_settings(config)))
    print_json(rows) if as_json else console.print(
        progress.build_device_table(rows) if rows else "no devices: the daemon never ran"
    )


@app.command()
def drain(name: Device, config: Config = None) -> None:
    """Take a device out of service after its current work: write DEVICE.drain into the inbox."""
    console.print(f"{control_device(config, name, 'drain')} gets no more work when its current work is finished")


@app.command()
def pause(config: Config = None) -> None:
    """Start no more jobs until `musedrop resume`: write the file pause into the inbox."""
    from agent.cli import client

    client.control_queue(load_settings(config), "pause")
    console.print("no more jobs are started until `musedrop resume`")


@app.command("trust-clock")
def trust_clock(config: Config = None) -> None:
    """Let old files be deleted again after the clock has jumped: write the file trust-clock into the inbox."""
    from agent.cli import client

    client.control_queue(load_settings(config), "trust-clock")
    console.print("old files are deleted by the clock as it is now")


@app.command()
def resume(
    name: Annotated[str | None, typer.Argument(help="A device or card; default: the paused queue.")] = None,
    config: Config = None,
) -> None:
    """Put a drained or sick device back into service, or let a paused queue continue.

    Writes DEVICE.resume or the file resume into the inbox.
    """
    from agent.cli import client

    if name is None:
        client.control_queue(load_settings(config), "resume")
        console.print("jobs are started again")
    else:
        console.print(f"{control_device(config, name, 'resume')} is put back into service")


def control_device(config: Path | None, name: str, verb: str) -> str:
    from agent.cli import client
    from agent.scheduler import device_names

    settings = load_settings(config)
    device = client.find_device(client.open_ledger(settings), name)
    client.write_control_file(settings, device_names.file_safe(device), verb)
    return device


avatar_app = typer.Typer(help="The avatar library: faces that jobs refer to by name.", no_args_is_help=True)
app.add_typer(avatar_app, name="avatar")
AvatarName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the avatar in job files.")]


@avatar_app.command("add")
def avatar_add(
    name: AvatarName,
    file: Annotated[Path, typer.Argument(help="Image or video with the face.")],
    config: Config = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an avatar of that name.")] = False,
) -> None:
    """Copy a face into the avatars."""
    from agent.cli import avatars

    path = avatars.add_avatar(load_settings(config), name, file, replace=replace)
    console.print(f'{path} is added: use it in jobs as "avatar": "{name}"', soft_wrap=True, markup=False)


@avatar_app.command("list")
def avatar_list(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the avatars, and what is prepared for each."""
    from agent.cli import avatars, progress

    found = avatars.list_avatars(load_settings(config))
    if as_json:
        print_json([{"name": a.name, "kind": a.kind, "path": str(a.path), "prepared": a.prepared} for a in found])
        return
    console.print(
        progress.build_avatar_table(found) if found else "the library is empty: musedrop avatar add NAME FILE"
    )


@avatar_app.command("prepare")
def avatar_prepare(
    name: AvatarName,
    config: Config = None,
    engine: EngineName = "musetalk",
    option: EngineOptions = None,
    wait: Wait = False,
) -> None:
    """Prepare a face before a job needs it: submit a job with a short silent clip."""
    from agent.cli import avatars

    settings = load_settings(config)
    ticket = avatars.submit_preparation(settings, name, parse_options(option), engine)
    console.print(f"{escape_markup(ticket.name)} is in the inbox (id {escape_markup(ticket.id)})")
    if wait:
        raise typer.Exit(follow_job(settings, ticket))


@avatar_app.command("remove")
def avatar_remove(
    name: AvatarName,
    config: Config = None,
    force: Annotated[bool, typer.Option("--force", help="Remove it even if queued jobs need it.")] = False,
) -> None:
    """Remove a face from the library."""
    from agent.cli import avatars

    for path in avatars.remove_avatar(load_settings(config), name, force=force):
        console.print(f"{path} is removed", soft_wrap=True, markup=False)


@app.command()
def snapshot(
    file: Annotated[Path | None, typer.Argument(help="The copy. Default: status.db in the share.")] = None,
    config: Config = None,
) -> None:
    """Copy the ledger into one plain file that any SQLite can read, also over a network."""
    from agent.ledger.snapshot import copy_ledger

    settings = load_settings(config)
    target = file or settings.folders.snapshot
    try:
        copy_ledger(settings.folders.ledger, target)
    except OSError as error:
        raise UserError(f"{target} can't be written: {error.strerror}") from error
    console.print(escape_markup(target), soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the job file."""
    from agent.jobs.schema import build_schema

    print_json(build_schema())


@app.command()
def selftest(
    config: Config = None,
    device: Annotated[
        str | None,
        typer.Option(help='A card, by UUID or the beginning of it, or "cpu". Default: all cards, else the CPU.'),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Test what each card computes, encodes and gives back: some minutes a card, without a job."""
    from agent.cli.selftest import build_table, check_devices

    reports = check_devices(load_settings(config), device, None if as_json else console)
    if as_json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        for report in reports:
            console.print(build_table(report))
    raise typer.Exit(any(report.verdict == "bad" for report in reports))


@app.command()
def doctor(
    config: Config = None,
    deep: Annotated[bool, typer.Option("--deep", help="Run `musedrop selftest` too, which takes minutes.")] = False,
) -> None:
    """Check devices, encoders, weights and folders, and say how to repair what is wrong."""
    from agent.cli.doctor import examine

    settings = load_settings(config)
    mark = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
    worst = 0
    for finding in chain(examine(settings), run_deep_checks(settings) if deep else ()):
        console.print(
            f"{mark[finding.verdict]} [bold]{finding.what:<18}[/] {escape_markup(finding.found)}", soft_wrap=True
        )
        if finding.advice:
            console.print(f"{'':23} -> {escape_markup(finding.advice)}", soft_wrap=True)
        worst = max(worst, finding.verdict == "bad")
    raise typer.Exit(worst)


def run_deep_checks(settings: Settings) -> Iterator[Finding]:
    """Run the self-test of all cards, and yield what it finds."""
    from agent.cli.selftest import check_devices, list_findings

    for report in check_devices(settings, None, console):
        yield from list_findings(report)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Scratch folder; created if missing.")] = Path("demo"),
    examples: Annotated[Path, typer.Option(help="The folder with the example jobs.")] = Path("inbox_example"),
) -> None:
    """Run the example jobs in a scratch folder, and print where the videos are."""
    from agent.cli.demo import run_demo

    raise typer.Exit(run_demo(folder, examples, console))


app.add_typer(cli_service.app, name="service")


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"musedrop {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. A UserError becomes one line on stderr and exit code 2 or 78."""
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
    """Print a message, send it to systemd for `systemctl status`, and exit with `code`."""
    from agent.service.systemd import Notifier

    Notifier().send_status(message)
    error_console.print(f"[red]musedrop:[/] {escape_markup(message)}", soft_wrap=True, highlight=False)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
