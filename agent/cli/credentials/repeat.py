"""`musedrop verify NAME --repeat`: make a result again, and compare the two videos."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import typer

from agent import client
from agent.cli.console import error_console, speak
from agent.cli.credentials.finding import Finding, Media, is_used_file, list_places, read_record
from agent.cli.credentials.programs import open_video, run_program
from agent.cli.jobs.choosing import name_for_control, require_job
from agent.cli.jobs.following import follow_jobs, print_outcome
from agent.cli.presence import describe_absence_now
from agent.credentials.boxes import hash_boxes, list_boxes
from agent.credentials.manifest import list_inputs
from agent.errors import UserError
from agent.fs import discard, make_safe_name
from agent.ledger.reader import read_spec
from agent.results.outbox import remove_result
from agent.results.video_file import find_video
from agent.settings import Settings
from agent.text import escape_markup, restore_names
from models.types import name_voice_role

NOT_ASKED = ("id", "notes", "batch", "submitter", "preview_first")
"""Keys of a job that don't change its video, and that the repeated job doesn't take over."""
COMPARED = ("engine", "kind", "encoder", "weights_sha256", "motion", "label")
COMPARE_S = 4 * 3600.0
PASSING = re.compile(r".*(_seconds|_cache|^device)")
"""Keys of one run."""
NO_WEIGHTS = "which weights were used is not recorded: run `musedrop models verify`, and later jobs say it"
NO_REASON = "nothing that the two records say of how they were made differs: run `musedrop selftest` on these devices"


def verify_repeated(
    settings: Settings, source: Path, key: str, video: Path, record: Mapping[str, Any]
) -> Iterator[Finding]:
    """Make the video of a job again, wait for it, and compare the two; remove it again if it is the same.

    key  the uid of the job, or its name

    Raises UserError where no daemon runs, an input is gone or was changed, or the new job fails.
    """
    with closing(client.open_ledger(settings)) as db:
        row = require_job(db, key)
        spec = read_spec(db, str(row["uid"]))
        inputs = find_inputs(record, list_places(settings, db, str(row["uid"])))
    first = hash_streams(video)
    if absence := describe_absence_now(settings, source):
        raise UserError(absence)
    ticket = client.send(settings, make_request(settings, row, spec, inputs))
    error_console.print(escape_markup(speak(f"it is made again as {ticket.name}")), soft_wrap=True)
    again = wait_for_result(settings, source, ticket)
    folder = settings.folders.outbox / str(again["result"])
    second = find_video(folder)
    if hash_streams(second) != first:
        yield from compare_results(video, second, (record, read_record(folder)))
        return
    yield Finding(True, f"made again as {folder.name}: picture and sound have the same bytes")
    try:
        remove_result(settings.folders.outbox, str(again["result"]), str(again["uid"]))
    except OSError as error:
        yield Finding(None, f"{folder} is not needed any more, and can't be removed: {error.strerror}")


def wait_for_result(settings: Settings, source: Path, ticket: client.JobTicket) -> dict[str, Any]:
    """Return the row of a job when it is done; cancel it where the wait is given up. Raises UserError, typer.Exit."""
    try:
        code = follow_jobs(settings, source, [ticket.id], quiet=True)
    except KeyboardInterrupt:
        withdraw(settings, ticket)
        raise
    if code > 1:
        withdraw(settings, ticket)
        raise typer.Exit(code)
    with closing(client.open_ledger(settings)) as db:
        again = require_job(db, ticket.id)
    if again["state"] != "done":
        print_outcome(settings, again)
        raise UserError(f"{ticket.name} is {again['state']}: there is nothing to compare with")
    return again


def withdraw(settings: Settings, ticket: client.JobTicket) -> None:
    """Take a job back: its file, where it was not taken in yet; else it is cancelled."""
    discard(settings.folders.inbox / f"{ticket.name}.json")
    with closing(client.open_ledger(settings)) as db:
        row = client.find_job(db, ticket.id)
    if row is not None:
        client.write_control_file(settings, name_for_control(row), "cancel")


def make_request(
    settings: Settings, row: Mapping[str, Any], spec: Mapping[str, Any], inputs: Mapping[str, Path]
) -> client.JobRequest:
    """Return a job that asks for the same with the same inputs; one of the library keeps its name."""
    tag = uuid.uuid4().hex
    job = {key: value for key, value in spec.items() if key not in NOT_ASKED}
    if job.get("engine") == "auto" and not job.get("race"):
        job["engine"] = row["engine"]
    copies = []
    for role, path in inputs.items():
        if not path.is_relative_to(settings.folders.avatars):
            name = client.name_copy(Path(restore_names(path.name)), f"{tag[:8]}.{role}")
            copies.append((path, name))
            replace_medium(job, role, name)
    name = make_safe_name(f"{row['name']}-repeat")
    return client.JobRequest(name, tag, client.format_job({**job, "id": tag}), tuple(copies))


def find_inputs(record: Mapping[str, Any], media: Media) -> dict[str, Path]:
    """Return where the inputs are, by their roles in the ledger. Raises UserError where one is gone or was changed."""
    hashes = {name_role(role): medium.get("sha256") for role, medium in list_inputs(record).items()}
    used = {role: places for role, places in media.items() if not role.startswith("text")}  # their sound is used
    return {role: find_input(role, places, hashes.get(role)) for role, places in used.items()}


def find_input(role: str, places: Sequence[Path], sha256: str | None) -> Path:
    """Return where an input is; without a hash in result.json the first file counts. Raises UserError."""
    there = [path for path in places if path.is_file()]
    if used := next((path for path in there if sha256 is None or is_used_file(path, sha256)), None):
        return used
    if any(path.is_dir() for path in places):
        raise UserError("its avatar is a folder of pictures: drop the job again, and compare the two videos")
    what = "was changed" if there else "is gone"
    raise UserError(f"it can't be made again: {places[-1].name}, its {role}, {what}; put the file back where it was")


def name_role(role: str) -> str:
    """Return the role in the ledger of an input of result.json."""
    return name_voice_role(int(role.removeprefix("voice-"))) if role.startswith("voice-") else role


def replace_medium(job: dict[str, Any], role: str, name: str) -> None:
    """Let a job name another file for one of its inputs."""
    if role in ("avatar", "soundtrack", "background") or not job.get("voices"):
        job[role] = name
        return
    number = int(role.removeprefix("audio-")) if role != "audio" else 0
    job["voices"][number]["audio"] = name


# comparing -----------------------------------------------------------------------------------------------------------


def compare_results(
    first: Path, second: Path, records: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> Iterator[Finding]:
    """Yield where two videos begin to differ, and what may be the cause."""
    found = find_difference(first, second)
    yield describe_picture(second.parent.name, found, Fraction(str(records[0].get("fps") or 25)))
    sound_s = found["sound_s"]
    if sound_s is not None:
        yield Finding(False, f"its sound differs from {sound_s:.3f} s on")
    for cause in list(list_causes(*records)) or [NO_REASON]:
        yield Finding(None, cause)


def describe_picture(name: str, found: Mapping[str, Any], fps: Fraction) -> Finding:
    """Return what is said of the pictures of two videos whose bytes differ."""
    frame, levels = found["frame"], found["levels"]
    if frame is None:
        return Finding(None, f"made again as {name}: all frames are equal, their bytes are not")
    if levels is None:
        return Finding(False, f"made again as {name}: frame {frame} is only in one of the two videos")
    at_s = float(frame / fps)
    return Finding(
        False,
        f"made again as {name}: frame {frame} at {at_s:.3f} s is the first that differs, by {levels} of 255 levels",
    )


def hash_streams(path: Path) -> str:
    """Return a hash of the bytes of picture and sound. Raises UserError where there is no such video."""
    with open_video(path) as file:
        try:
            return hash_boxes(file, list_boxes(file), "mdat")
        except (OSError, ValueError) as error:
            raise UserError(f"the two videos can't be compared: {error}") from error


def find_difference(first: Path, second: Path) -> dict[str, Any]:
    """Run the program that decodes both. Raises UserError."""
    try:
        found = run_program("models.media.comparison", [str(first), str(second)], COMPARE_S)
    except UserError as error:
        raise UserError(f"the two videos can't be compared: {error}") from error
    return dict(json.loads(found))


def list_causes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the two records say differently of how they were made."""
    if any(record.get("engine") == "musetalk" and not record.get("weights_sha256") for record in (first, second)):
        yield NO_WEIGHTS
    before, after = (dict(flatten(select_compared(record))) for record in (first, second))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key} was {before.get(key, 'not recorded')}, and is {after.get(key, 'not recorded')} now"


def select_compared(record: Mapping[str, Any]) -> dict[str, Any]:
    engine = record.get(str(record.get("engine")))
    painter = engine.get("painter") if isinstance(engine, Mapping) else None
    made_with = record.get("made_with")
    return {
        **(made_with if isinstance(made_with, Mapping) else {}),
        **{key: record.get(key) for key in COMPARED},
        "painter": painter,
    }


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the plain values of nested objects, with the names of the keys that lead to them."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if PASSING.fullmatch(key):
                continue
            yield from flatten(inner, f"{name} {key}".strip())
    elif value is not None:
        yield name, value
