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
from agent.cli.credentials.finding import Finding, Media, is_used_file, list_places, read_record
from agent.cli.credentials.programs import run_program
from agent.cli.jobs.choosing import require_job
from agent.cli.jobs.following import follow_jobs, print_outcome
from agent.credentials.boxes import hash_boxes, list_boxes
from agent.credentials.manifest import list_inputs
from agent.errors import UserError
from agent.fs import make_safe_name
from agent.ledger.reader import read_spec
from agent.results.video_file import find_video
from agent.settings import Settings
from agent.text import restore_names
from models.types import name_voice_role

NOT_ASKED = ("id", "notes", "batch", "submitter", "preview_first")
"""Keys of a job that don't change its video, and that the repeated job doesn't take over."""
COMPARED = ("engine", "kind", "encoder", "weights_sha256", "motion", "label")
COMPARE_S = 4 * 3600.0
PASSING = re.compile(r".*(_seconds|_cache|^device)")
"""Keys of one run."""
NO_REASON = "nothing that the two records say of how they were made differs: run `musedrop selftest` on these devices"


def verify_repeated(
    settings: Settings, source: Path, name: str, video: Path, record: Mapping[str, Any]
) -> list[Finding]:
    """Make the video of a job again, wait for it, and compare the two.

    Raises UserError where an input is gone or was changed, or the new job fails; typer.Exit without a daemon.
    """
    with closing(client.open_ledger(settings)) as db:
        row = require_job(db, str(record.get("uid") or name))
        spec = read_spec(db, str(row["uid"]))
        inputs = find_inputs(record, list_places(settings, db, str(row["uid"])))
    ticket = client.send(settings, make_request(settings, row, spec, inputs))
    code = follow_jobs(settings, source, [ticket.id], quiet=True)
    if code > 1:
        raise typer.Exit(code)
    with closing(client.open_ledger(settings)) as db:
        again = require_job(db, ticket.id)
    if again["state"] != "done":
        print_outcome(settings, again)
        raise UserError(f"{ticket.name} is {again['state']}: there is nothing to compare with")
    folder = settings.folders.outbox / str(again["result"])
    return list(compare_results(video, find_video(folder), (record, read_record(folder))))


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
    return {role: find_input(role, places, hashes.get(role)) for role, places in media.items()}


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
    """Yield whether two videos are equal, and if not, where they begin to differ and what may be the cause."""
    if hash_streams(first) == hash_streams(second):
        yield Finding(True, f"made again as {second.parent.name}: picture and sound have the same bytes")
        return
    found = find_difference(first, second)
    yield describe_picture(second.parent.name, found, Fraction(str(records[0].get("fps") or 25)))
    sound_s = found["sound_s"]
    if sound_s is not None:
        yield Finding(False, f"its sound differs from {sound_s:.3f} s on")
    causes = list(list_causes(*records))
    for cause in causes or [NO_REASON]:
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
    """Return a hash of the bytes of picture and sound."""
    with path.open("rb") as file:
        return hash_boxes(file, list_boxes(file), "mdat")


def find_difference(first: Path, second: Path) -> dict[str, Any]:
    """Run the program that decodes both. Raises UserError."""
    try:
        found = run_program("models.media.comparison", [str(first), str(second)], COMPARE_S)
    except UserError as error:
        raise UserError(f"the two videos can't be compared: {error}") from error
    return dict(json.loads(found))


def list_causes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the two records say differently of how they were made."""
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
