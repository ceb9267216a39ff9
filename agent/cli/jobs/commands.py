"""The commands about jobs: submit, status, watch, wait, logs, open, cancel, retry."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent import __version__
from agent.cli import completion
from agent.cli.console import AsJson, Config, console, error_console, find_settings, load_settings, print_json, speak
from agent.cli.desktop import open_path
from agent.cli.options import Encoder, EngineName, EngineOptions, Face, Priority, Strategy, Wait, parse_options
from agent.errors import UserError
from agent.results.video_file import find_first_part, find_video
from agent.text import escape, escape_markup, name_submitter

if TYPE_CHECKING:
    from agent.client import JobTicket
    from agent.ledger.reader import Rows
    from agent.settings import Settings

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the job: its file's name without .json. Its id works too.",
        autocompletion=completion.complete_jobs,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Names, ids or uids of jobs.", autocompletion=completion.complete_jobs),
]
Turn = Literal["front", "high", "normal", "low"]
POLL_S = 0.25
FOLLOW_S = 0.5
LOG_LINES = 200
TAIL_BYTES = 1 << 18


def submit(
    avatar: Face,
    voices: Annotated[
        list[Path] | None, typer.Argument(metavar="VOICE", help="Sound files, or videos with sound: a job each.")
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="The voice, as an option.")] = None,
    config: Config = None,
    name: Annotated[str | None, typer.Option(help="Name of the job and its result. Default: the audio's name.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Your own id for the job; the result repeats it.")] = None,
    engine: EngineName = "auto",
    fps: Annotated[str | None, typer.Option(help='Frames per second, such as 25 or "30000/1001".')] = None,
    priority: Priority = None,
    strategy: Strategy = "auto",
    option: EngineOptions = None,
    crf: Annotated[int | None, typer.Option(help="Quality, 0 (largest file) to 51.")] = None,
    height: Annotated[int | None, typer.Option(help="Height of the video in pixels, 64 to 4320.")] = None,
    encoder: Encoder = None,
    max_attempts: Annotated[int | None, typer.Option(help="How often the job is tried, 1 to 10.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one attempt may take.")] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Submit jobs: a face, and one or more voices.

    Copies the media and a job file for each voice into the inbox.
    """
    from agent.cli.jobs.following import follow_jobs
    from agent.cli.presence import warn_of_absence

    source = find_settings(config)
    settings = load_settings(config)
    output = {"crf": crf, "height": height, "encoder": encoder}
    job: dict[str, Any] = {"id": id, "engine": engine, "fps": fps, "priority": priority, "strategy": strategy}
    job |= {"options": parse_options(option), "max_attempts": max_attempts, "timeout_s": timeout}
    job["output"] = {key: value for key, value in output.items() if value is not None} or None
    if not wait:
        warn_of_absence(settings, source)
    tickets = submit_all(settings, avatar, [*(voices or []), *([audio] if audio else [])], job, name)
    if as_json:
        print_json([{"name": ticket.name, "id": ticket.id} for ticket in tickets])
    else:
        for ticket in tickets:
            print_ticket(ticket)
    if wait:
        raise typer.Exit(follow_jobs(settings, source, [ticket.id for ticket in tickets], quiet=as_json))


def print_ticket(ticket: JobTicket) -> None:
    console.print(escape_markup(speak(f"{ticket.name} is in the inbox (id {ticket.id})")), soft_wrap=True)


def submit_all(
    settings: Settings, avatar: str, voices: list[Path], job: dict[str, Any], name: str | None
) -> list[JobTicket]:
    """Submit a job for each voice. Raises UserError, before anything is copied, where a voice can't be a job."""
    from agent import client

    if not voices:
        raise UserError("there is no voice: musedrop submit VOICE --avatar FACE")
    if len(voices) > 1 and (name or job["id"]):
        raise UserError("--name and --id are for one voice: several jobs need names of their own")
    for voice in voices:
        client.check_request(settings, avatar, voice, job, name)
    return [client.submit(settings, avatar, voice, job, name) for voice in voices]


def wait(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Jobs.", autocompletion=completion.complete_jobs)],
    config: Config = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Give up after so many seconds; exit code 4.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until jobs have ended.

    Exit code 0: all are done; 1: one failed or was cancelled; 3: no daemon is running; 4: --timeout is over.
    """
    from agent.cli.jobs.following import find_key, follow_jobs, read_rows

    source = find_settings(config)
    settings = load_settings(config)
    keys = [find_key(settings, name) for name in names]
    code = follow_jobs(settings, source, keys, timeout_s=timeout, quiet=as_json)
    if as_json:
        print_json(list(read_rows(settings, keys).values()))
    raise typer.Exit(code)


# showing -------------------------------------------------------------------------------------------------------------


def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A job's name or id; without it all recent jobs.",
            autocompletion=completion.complete_jobs,
        ),
    ] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows of the view job_status as JSON.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many jobs to list.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="With --json: all jobs of that name, as a list.")] = False,
) -> None:
    """Print the state of jobs.

    With a name: everything about the newest job of that name, and a line for each other.
    Exit code 3: no daemon is running.
    """
    from agent import client
    from agent.cli.display import views
    from agent.cli.jobs.choosing import require_job
    from agent.cli.presence import NO_DAEMON, warn_of_absence

    settings = load_settings(config)
    db = client.open_ledger(settings)
    is_alive = warn_of_absence(settings, find_settings(config))
    now = datetime.now().astimezone()
    if name is None:
        rows = client.list_jobs(db, limit)
        if as_json:
            print_json(rows)
        else:
            console.print(views.build_job_table(rows, now) if rows else speak("no jobs yet"))
            print_ignored(settings)
    else:
        newest, rows = require_job(db, name), client.list_of_name(db, name)
        if as_json:
            print_json(rows if every else newest)
        else:
            print_job(newest, client.list_events(db, newest["uid"]), now)
            if len(rows) > 1:
                console.print("", views.build_job_table(rows[1:], now))
    raise typer.Exit(0 if is_alive else NO_DAEMON)


def print_ignored(settings: Settings) -> None:
    """Print what is in the inbox and becomes no job."""
    from agent import client

    for entry in client.list_ignored(settings):
        text = f"{entry['name']} is no job: {entry['reason']}; {entry['hint']}"
        console.print(f"[yellow]![/] {escape_markup(speak(text))}", soft_wrap=True)


def print_job(row: dict[str, Any], events: list[dict[str, Any]], now: datetime) -> None:
    """Print everything that the ledger says of one job, and its events."""
    told = {key: speak(row[key]) for key in ("error_message", "error_hint", "waiting_for") if row[key]}
    shown = {**row, **told, "submitter": name_submitter(row["submitter"])}
    for key, value in shown.items():
        if value is not None:
            console.print(f"[bold]{key:<14}[/] {escape_markup(value)}", soft_wrap=True)
    for event in events:
        print_event(event, now)


def print_event(event: dict[str, Any], now: datetime, name: str = "") -> None:
    """Print one event on a line, in local time; `name` is that of its job where several are shown."""
    from agent.cli.display.times import format_since

    device = f" {escape(event['device'])}" if event["device"] else ""
    detail = escape_markup(event["detail"].partition("\n")[0])
    before = f"{escape_markup(name)}  " if name else ""
    at = format_since(event["at"], now)
    console.print(f"[dim]{at}[/]  {before}{event['kind']:<10}{escape_markup(device)} {detail}", soft_wrap=True)


def watch(config: Config = None) -> None:
    """Show jobs and devices until Ctrl-C."""
    from rich.live import Live

    from agent import client
    from agent.cli.display.views import FrameRates

    source = find_settings(config)
    settings = load_settings(config)
    db = client.open_ledger(settings)
    rates = FrameRates()
    with Live(console=console, refresh_per_second=4, screen=False) as view:
        while True:
            view.update(build_dashboard(settings, source, db, rates))
            time.sleep(POLL_S)


def build_dashboard(settings: Settings, source: Path, db: Any, rates: Any) -> Any:
    """Return the screen as it is now, with what keeps jobs from running: no daemon, a pause, problems."""
    from agent import client
    from agent.cli.display.views import Dashboard
    from agent.cli.doctor import read_status
    from agent.cli.presence import describe_absence, find_presence

    now = datetime.now().astimezone()
    presence = find_presence(settings)
    problems, paused = read_status(settings)
    alarms = [] if presence.is_alive else [describe_absence(presence, source, now)]
    alarms += ["the queue is paused: `musedrop resume` lets it go on"] if paused else []
    jobs = client.list_jobs(db, max(5, console.height // 2))
    return Dashboard(
        f"musedrop {__version__}  {escape(str(settings.share))}  {now:%H:%M:%S}",
        jobs,
        client.list_devices(db),
        counts=client.count_jobs(db),
        alarms=[*alarms, *map(escape, problems)],
        rates={row["uid"]: rates.measure(row) for row in jobs},
        now=now,
    )


def logs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A job; without it the events of all jobs and the workers' logs.",
            autocompletion=completion.complete_jobs,
        ),
    ] = None,
    config: Config = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended, or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows of the view job_events as JSON.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many events of all jobs to print.")] = 40,
) -> None:
    """Print what happened to a job, or to all and the workers."""
    from agent import client
    from agent.cli.jobs.choosing import require_job
    from agent.cli.presence import warn_of_absence

    settings = load_settings(config)
    db = client.open_ledger(settings)
    warn_of_absence(settings, find_settings(config))
    uid = require_job(db, name)["uid"] if name else None
    seen: list[dict[str, Any]] = []
    while True:
        events = client.list_events(db, uid) if uid else client.list_last_events(db, limit)
        fresh = [event for event in events if event not in seen]
        if as_json:
            print_json(fresh)
        for event in [] if as_json else fresh:
            print_event(event, datetime.now().astimezone(), "" if uid else event["name"])
        seen = events
        is_over = uid is not None and (client.find_job(db, uid) or {"finished_at": 1})["finished_at"]
        if not follow or is_over:
            break
        time.sleep(FOLLOW_S)
    if uid is None and not as_json:
        print_worker_logs(settings)


def print_worker_logs(settings: Settings) -> None:
    """Print the ends of the workers' logs, and where the daemon's own log is."""
    folder = settings.folders.logs
    for path in sorted(folder.glob("*.log")):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        if lines:
            console.print(f"[bold]{escape_markup(path)}[/]", soft_wrap=True)
            for line in lines[-LOG_LINES:]:
                console.print(f"  {escape_markup(line)}", soft_wrap=True, highlight=False)
    console.print("the daemon's own log is what it prints; as a service: journalctl -u musedrop", markup=False)


def open_result(
    name: Name,
    config: Config = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the path only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open the video of a job, and print its path.

    For a job that failed, it is the folder with its error; for one that runs, its first seconds, once they are there.
    """
    from agent import client
    from agent.cli.jobs.choosing import require_job

    settings = load_settings(config)
    db = client.open_ledger(settings)
    row = require_job(db, name)
    path = find_result(settings, db, row)
    if as_json:
        print_json({"name": row["name"], "uid": row["uid"], "state": row["state"], "path": str(path)})
    else:
        typer.echo(str(path))
    if not (only_print or as_json) and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        open_path(path)


def find_result(settings: Settings, db: Rows, row: dict[str, Any]) -> Path:
    """Return the video of a done job, the folder of a failed one, or the first part of a running one.

    Raises UserError.
    """
    from agent.ledger.reader import find_failed_folder

    if row["state"] == "done":
        path = find_video(settings.folders.outbox / str(row["result"]))
    elif row["state"] in ("failed", "cancelled"):
        path = find_failed_folder(db, settings.folders, row)
    elif row["first_part"]:
        path = find_first_part(settings.folders.outbox / str(row["first_part"]))
    else:
        raise UserError(f"{row['name']} is {row['state']}: there is nothing to open yet")
    if not path.exists():
        raise UserError(f"{path} is no longer there: it was moved or deleted")
    return path


# changing ------------------------------------------------------------------------------------------------------------


def cancel(
    names: Names = None,
    config: Config = None,
    every: Annotated[bool, typer.Option("--all", help="All jobs that are not finished.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs that are not finished.

    Writes a control file for each into the inbox.
    """
    control_jobs(config, "cancel", names or [], every=every, as_json=as_json)


def retry(
    names: Names = None,
    config: Config = None,
    failed: Annotated[bool, typer.Option("--failed", help="All jobs that have failed.")] = False,
    every: Annotated[bool, typer.Option("--all", help="All jobs that have failed or were cancelled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run failed or cancelled jobs again.

    Writes a control file for each into the inbox.
    """
    control_jobs(config, "retry", names or [], every=every, failed=failed, as_json=as_json)


def priority(
    to: Annotated[Turn, typer.Argument(metavar="front|high|normal|low", help="The new priority; front: before all.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Jobs.", autocompletion=completion.complete_jobs)],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Give jobs that have not started another priority, or move them to the front of the queue.

    Writes a control file for each into the inbox.
    """
    control_jobs(config, "priority", names, to=to, as_json=as_json)


DEEDS = {"cancel": "cancelled", "retry": "run again", "priority": "moved"}


def print_chosen(verb: str, names: list[str]) -> None:
    """Print what will happen to which jobs, or that it happens to none."""
    for name in names:
        console.print(escape_markup(speak(f"{name} will be {DEEDS[verb]}")), soft_wrap=True)
    if not names:
        console.print(speak(f"there is nothing to {verb}"))


def control_jobs(
    config: Path | None,
    verb: str,
    names: list[str],
    *,
    to: str = "",
    every: bool = False,
    failed: bool = False,
    as_json: bool = False,
) -> None:
    """Write a control file for each job that it can happen to. Exit code 2 where one of the names can't.

    `to`: the suffix of the control files, "" for the verb.
    """
    from agent import client
    from agent.cli.jobs import choosing
    from agent.cli.presence import warn_of_absence
    from agent.jobs.states import LIVE, RETRIABLE

    if not names and not every and not failed:
        more = " or --failed" if verb == "retry" else ""
        raise UserError(f"no job is named: give names, or --all{more}")
    settings = load_settings(config)
    db = client.open_ledger(settings)
    chosen, refusals = choosing.choose_for(verb, db, names)
    if every or failed:
        states = LIVE if verb == "cancel" else RETRIABLE if every else ("failed",)
        chosen += [row for row in choosing.list_in_states(db, states) if row["uid"] not in {c["uid"] for c in chosen}]
    if chosen:
        warn_of_absence(settings, find_settings(config))
    for row in chosen:
        client.write_control_file(settings, choosing.name_for_control(row), to or verb)
    if as_json:
        print_json([{"name": row["name"], "uid": row["uid"]} for row in chosen])
    elif chosen or not refusals:
        print_chosen(verb, [row["name"] for row in chosen])
    for refusal in refusals:
        error_console.print(f"[red]musedrop:[/] {escape_markup(speak(refusal))}", soft_wrap=True, highlight=False)
    raise typer.Exit(UserError.exit_code if refusals else 0)
