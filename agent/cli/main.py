"""`musedrop ...`: each command is a few lines, and imports what it needs when it is called.

`--help` and each command therefore start fast, whatever the other commands import.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import __version__
from agent.cli import completion
from agent.cli import desktop as cli_desktop
from agent.cli import models as cli_models
from agent.cli import service as cli_service
from agent.cli.avatars import commands as cli_avatars
from agent.cli.cluster import commands as cli_cluster
from agent.cli.console import AsJson, Config, console, error_console, find_settings, load_settings, print_json, speak
from agent.cli.credentials.verify import verify_result
from agent.cli.jobs import commands as jobs
from agent.cli.setup import command as cli_setup
from agent.errors import UserError
from agent.text import escape_markup

if TYPE_CHECKING:
    from rich.console import Console

    from agent.cli.doctor import Finding
    from agent.settings import Settings

app = typer.Typer(
    help="Drop a face and a voice into a folder; a talking-head video appears in another.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (jobs.submit, jobs.wait, jobs.status, jobs.watch, jobs.logs, jobs.cancel, jobs.retry, jobs.priority):
    app.command()(command)
app.command("open")(jobs.open_result)
app.command("verify")(verify_result)
app.command("page")(cli_desktop.serve_page)
app.command()(cli_setup.setup)
app.command()(cli_desktop.tray)
app.command()(cli_desktop.notify)
app.add_typer(cli_avatars.app, name="avatar")
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_cluster.app, name="cluster")
app.add_typer(cli_desktop.app, name="desktop")

HOOKS_S = 1.0


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
    atomic_write_bytes(target, settings_file.format_settings("./share", "./state").encode())
    settings = settings_file.load_settings(target)
    lay_out(settings.folders)
    for text in (
        f"Settings: {target}",
        f"Drop jobs into {settings.folders.inbox}",
        f"Start with: musedrop run -c {target}",
    ):
        console.print(speak(text), markup=False, soft_wrap=True)


@app.command()
def run(
    config: Config = None,
    with_page: Annotated[bool, typer.Option("--page", help="Serve the page for a browser beside it.")] = False,
) -> None:
    """Run the daemon until Ctrl-C.

    A second Ctrl-C stops it immediately. SIGHUP reloads the settings.
    """
    from agent import settings_file
    from agent.daemon import serve
    from agent.page.launch import start_page
    from agent.service.log import configure_logging

    source = find_settings(config)
    settings = settings_file.load_settings(source)
    configure_logging(settings)
    if with_page:
        start_page(source)
    serve(settings, source=source)


@app.command()
def hooks(
    config: Config = None,
    once: Annotated[bool, typer.Option("--once", help="Tell what is due now, and end.")] = False,
) -> None:
    """Run commands and call web addresses when jobs end.

    Reads [hooks] of the settings, until Ctrl-C.
    """
    from agent import client
    from agent.hooks.runner import HookRunner
    from agent.service.log import configure_logging

    settings = load_settings(config)
    configure_logging(settings)
    runner = HookRunner(settings, settings.state / "hooks.json")
    while True:
        db = client.open_ledger(settings)
        try:
            runner.step(db)
        finally:
            db.close()
        if once:
            break
        time.sleep(HOOKS_S)


Measured = Annotated[
    str | None,
    typer.Option(
        "--device", help='A card, by UUID or the beginning of it, or "cpu". Default: all cards, else the CPU.'
    ),
]
Device = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A device as `musedrop devices` lists it, a card, or the beginning of either.",
        autocompletion=completion.complete_devices,
    ),
]


@app.command()
def devices(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows of the view device_status as JSON.")] = False,
) -> None:
    """List the devices and what each does.

    It also says how much memory each has, and why one is out of service. Exit code 3: no daemon is running.
    """
    from agent import client
    from agent.cli.display import views
    from agent.cli.presence import NO_DAEMON, warn_of_absence

    settings = load_settings(config)
    rows = client.list_devices(client.open_ledger(settings))
    is_alive = warn_of_absence(settings, find_settings(config))
    table = views.build_device_table(rows, datetime.now().astimezone())
    print_json(rows) if as_json else console.print(table if rows else speak("no devices: the daemon never ran"))
    raise typer.Exit(0 if is_alive else NO_DAEMON)


@app.command()
def drain(name: Device, config: Config = None) -> None:
    """Take a device out of service after its current work.

    Writes DEVICE.drain into the inbox.
    """
    console.print(speak(f"{control_device(config, name, 'drain')} gets no more work when its current work is finished"))


@app.command()
def unload(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A device or a card; all cards where there is none.",
            autocompletion=completion.complete_devices,
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Give back the memory of cards that have no work.

    The next job loads the model again. Writes DEVICE.unload into the inbox.
    """
    from agent import client

    rows = [] if name else client.list_devices(client.open_ledger(load_settings(config)))
    cards = [name] if name else [row["device"] for row in rows if row["kind"] == "cuda"]
    for card in cards:
        console.print(speak(f"{control_device(config, card, 'unload')} gives its memory back, unless it is at work"))
    if not cards:
        console.print(speak("there are no cards"))


@app.command()
def pause(config: Config = None) -> None:
    """Start no more jobs until `musedrop resume`.

    Writes the file pause into the inbox.
    """
    control_queue(config, "pause")
    console.print(speak("no more jobs are started until `musedrop resume`"))


@app.command("trust-clock")
def trust_clock(config: Config = None) -> None:
    """Let old files be deleted though the clock has jumped.

    Writes the file trust-clock into the inbox.
    """
    control_queue(config, "trust-clock")
    console.print(speak("old files are deleted by the clock as it is now"))


@app.command()
def resume(
    name: Annotated[str | None, typer.Argument(help="A device or card; default: the paused queue.")] = None,
    config: Config = None,
) -> None:
    """Put a device back into service, or let the queue go on.

    Writes DEVICE.resume or the file resume into the inbox.
    """
    if name is None:
        control_queue(config, "resume")
        console.print(speak("jobs are started again"))
    else:
        console.print(speak(f"{control_device(config, name, 'resume')} is put back into service"))


def control_queue(config: Path | None, verb: str) -> None:
    from agent import client
    from agent.cli.presence import warn_of_absence

    settings = load_settings(config)
    warn_of_absence(settings, find_settings(config))
    client.control_queue(settings, verb)


def control_device(config: Path | None, name: str, verb: str) -> str:
    from agent import client
    from agent.cli.presence import warn_of_absence
    from agent.scheduler import device_names

    settings = load_settings(config)
    device = client.find_device(client.open_ledger(settings), name)
    warn_of_absence(settings, find_settings(config))
    client.write_control_file(settings, device_names.file_safe(device), verb)
    return device


@app.command()
def snapshot(
    file: Annotated[Path | None, typer.Argument(help="The copy. Default: status.db in the share.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Copy the ledger into one plain file.

    Any SQLite can read it, also over a network.
    """
    from agent.ledger.snapshot import copy_ledger

    settings = load_settings(config)
    target = file or settings.folders.snapshot
    try:
        copy_ledger(settings.folders.ledger, target)
    except OSError as error:
        raise UserError(f"{target} can't be written: {error.strerror}") from error
    if as_json:
        print_json({"path": str(target)})
    else:
        console.print(escape_markup(target), soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the job file."""
    from agent.jobs.schema import build_schema

    print_json(build_schema())


@app.command()
def selftest(
    config: Config = None,
    device: Measured = None,
    as_json: AsJson = False,
) -> None:
    """Test what each card computes, encodes and gives back.

    It takes some minutes a card, and needs no job.
    """
    from agent.cli.selftest import build_table, check_devices

    reports = check_devices(load_settings(config), device, None if as_json else console)
    if as_json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        for report in reports:
            console.print(build_table(report))
    raise typer.Exit(any(report.verdict == "bad" for report in reports))


@app.command()
def tune(
    config: Config = None,
    device: Measured = None,
    as_json: AsJson = False,
) -> None:
    """Measure what is fastest on each card, for `auto`.

    Batch sizes, compiled code, encoders and workers a card; it takes some minutes, best without jobs.
    """
    from agent.cli.selftest import build_tuning_table
    from agent.cli.selftest import tune as measure

    tunings = measure(load_settings(config), device, None if as_json else console)
    if as_json:
        print_json([tuning.model_dump(mode="json") for tuning in tunings])
    else:
        for tuning in tunings:
            console.print(build_tuning_table(tuning))


@app.command()
def doctor(
    config: Config = None,
    as_json: AsJson = False,
    deep: Annotated[bool, typer.Option("--deep", help="Run `musedrop selftest` too, which takes minutes.")] = False,
) -> None:
    """Check this machine, and say how to repair what is wrong."""
    from agent.cli.display.findings import print_finding
    from agent.cli.doctor import examine

    settings = load_settings(config)
    worst, rows = 0, []
    deep_findings = run_deep_checks(settings, None if as_json else console) if deep else ()
    for finding in chain(examine(settings), deep_findings):
        worst = max(worst, finding.verdict == "bad")
        rows.append(finding.to_dict())
        if not as_json:
            print_finding(finding)
    if as_json:
        print_json(rows)
    raise typer.Exit(worst)


def run_deep_checks(settings: Settings, shown_on: Console | None) -> Iterator[Finding]:
    """Run the self-test of all cards, and yield what it finds."""
    from agent.cli.selftest import check_devices, list_findings

    for report in check_devices(settings, None, shown_on):
        yield from list_findings(report)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Scratch folder; created if missing.")] = Path("demo"),
    examples: Annotated[Path, typer.Option(help="The folder with the example jobs.")] = Path("inbox_example"),
) -> None:
    """Run the example jobs in a scratch folder."""
    from agent.cli.demo import run_demo

    raise typer.Exit(run_demo(folder, examples, console))


app.add_typer(cli_service.app, name="service")


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False) -> None:
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
    except (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        stop(f"{error.filename}: {error.strerror}", UserError.exit_code)
    except KeyboardInterrupt:
        stop("stopped", 130)


def stop(message: str, code: int) -> None:
    """Print a message, send it to systemd for `systemctl status`, and exit with `code`."""
    from agent.service.systemd import Notifier

    Notifier().send_status(message)
    error_console.print(f"[red]musedrop:[/] {escape_markup(speak(message))}", soft_wrap=True, highlight=False)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
