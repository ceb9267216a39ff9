"""`musedrop verify`: what a result says of itself, and whether that holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from agent import __version__
from agent.cli.console import AsJson, Config, find_settings, load_settings, speak
from agent.cli.credentials.finding import Finding, Media, is_used_file, list_places, read_record
from agent.cli.credentials.programs import open_video, run_program
from agent.credentials import CHAIN, is_installed
from agent.credentials.manifest import FORMATS, list_inputs
from agent.credentials.report import Credentials, VideoReport
from agent.credentials.tracks import Track
from agent.errors import UserError
from agent.fs import is_file, is_folder
from agent.results.video_file import find_video
from agent.settings import Settings
from agent.text import escape
from models.catalog import find_changed_weights
from models.types import name_voice_role

MOST_SOUND_S = 0.25
"""The sound may end so much before or after the picture: it has packets of its own length, and begins with a lead."""
RATE = re.compile(r"[1-9][0-9]{0,19}(/[1-9][0-9]{0,19})?")
UNREADABLE = (AttributeError, TypeError, ValueError, KeyError, ArithmeticError)
"""What reading raises of a manifest that is not as ours are: anyone may have signed it."""
PROBE_S, SLOWEST_BYTES_PER_S = 120.0, 1 << 20
"""For how long a video may be read, and longer for each byte of a large one; the processor has its own limit."""
MOST_CHAIN_BYTES = 1 << 16
OWNERS = {
    True: "with the key of this installation",
    False: "with another key than this installation has now",
    None: "nothing here tells whose key that is: anyone can sign in this name",
}
SAME = "made with the weights that are here"


def verify_result(
    target: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A video, or the name of a job that is done.")],
    config: Config = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Make the job again, and compare the two videos.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a result is, how it was made, and whether its bytes are those that were signed.

    Exit code 1 where something does not hold.
    """
    settings = load_settings(config) if config or repeat or not names_file(target) else find_own_settings()
    found = find_target(target, settings)
    models_dir = settings.models_dir if settings and found.uid else None
    report = probe(found.video, read_chain(settings) if settings else "")
    findings = list(examine(report, found.record, found.media, models_dir, found.noted))
    if not as_json:
        print_findings(findings)
    if repeat and settings:
        from agent.cli.credentials.repeat import verify_repeated

        key = found.uid or str(found.record.get("uid") or target)
        for one in verify_repeated(settings, find_settings(config), key, found.video, found.record):
            findings.append(one)
            if not as_json:
                print_findings([one])
    if as_json:
        typer.echo(json.dumps([{"holds": one.holds, "text": one.text} for one in findings], indent=1))
    raise typer.Exit(1 if any(one.holds is False for one in findings) else 0)


def print_findings(findings: Iterable[Finding]) -> None:
    for one in findings:
        typer.echo(f"{ {True: 'ok', False: 'NO', None: '--'}[one.holds] }  {escape(speak(one.text))}")


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be looked at.

    record  the result.json beside the video, {} for none
    uid     of the job, where it was found by its name, and so in the ledger
    noted   what the ledger says of the result
    media   where the inputs of the job may be, by their roles
    """

    video: Path
    record: Mapping[str, Any]
    uid: str = ""
    noted: Mapping[str, Any] = field(default_factory=dict)
    media: Media = field(default_factory=dict)


def names_file(target: str) -> bool:
    """Whether it is a path and not the name of a job: there is a file or a result, or it leads somewhere."""
    path = Path(target)
    is_other_folder = is_folder(path) and not os.path.lexists(find_video(path))
    return os.sep in target or (os.path.lexists(target) and not is_other_folder)


def find_own_settings() -> Settings | None:
    """Return the settings that apply here, None where there are none that can be read: a file needs none."""
    try:
        return load_settings(None)
    except UserError:
        return None


def read_chain(settings: Settings) -> str:
    """Return the certificates of this installation, "" where this user can't read them."""
    try:
        with (settings.folders.credentials / CHAIN).open(encoding="ascii") as file:
            return file.read(MOST_CHAIN_BYTES)
    except (OSError, ValueError):
        return ""


def find_target(target: str, settings: Settings | None) -> Target:
    """Return what a word of the command line means. Raises UserError where there is no such result."""
    path = Path(target)
    if names_file(target) or settings is None:
        return (
            Target(find_video(path), read_record(path)) if is_folder(path) else Target(path, read_record(path.parent))
        )
    from agent import client
    from agent.cli.jobs.choosing import require_job
    from agent.ledger.reader import read_facts

    with closing(client.open_ledger(settings)) as db:
        row = require_job(db, target)
        if row["state"] != "done":
            raise UserError(f"{target} is {row['state']}, and has no result")
        uid = str(row["uid"])
        noted, media = read_facts(db, uid), list_places(settings, db, uid)
    folder = settings.folders.outbox / str(row["result"])
    return Target(find_video(folder), read_record(folder), uid, noted, media)


def probe(video: Path, chain: str) -> VideoReport:
    """Return what a program of its own finds in a video, which anyone may have made.

    Raises UserError where it isn't there, or the extra isn't installed.
    """
    if not is_installed():
        raise UserError("the extra `credentials` is not installed: pip install 'musedrop[credentials]'")
    mime = FORMATS.get(f"result{video.suffix.lower()}", "video/mp4")
    with open_video(video) as file:
        seconds = PROBE_S + os.fstat(file.fileno()).st_size / SLOWEST_BYTES_PER_S
        try:
            return VideoReport.from_json(run_program("agent.credentials.probe", [mime, chain], seconds, file))
        except (UserError, ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, UserError) else "the program that reads it printed something else"
            return VideoReport(Credentials(f"it has no credentials that can be read ({reason})"), "", False, (), reason)


def examine(
    report: VideoReport,
    record: Mapping[str, Any],
    media: Media | None = None,
    models_dir: Path | None = None,
    noted: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Yield what holds of a video, and what does not.

    record       its result.json, {} for none
    media        where the inputs may be, by their roles
    models_dir   where the weights are, None: they are not looked at
    noted        what the ledger says of the result, None or {} for nothing
    """
    found = report.credentials
    yield Finding(not found.problem, f"signed by {found.signer}" if not found.problem else found.problem)
    if not found.problem:
        yield Finding(found.is_own or None, OWNERS[found.is_own])
    yield from compare_bytes(report.sha256, record, noted or {})
    yield Finding(
        report.index_first, f"its index stands {'at the front' if report.index_first else 'behind its pictures'}"
    )
    if report.index_problem:
        yield Finding(False, report.index_problem)
    if not found.problem:
        yield from examine_said(found.said, record, list(report.tracks), media or {}, models_dir)


def compare_bytes(sha256: str, record: Mapping[str, Any], noted: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield whether the bytes of a video are those that were published: result.json and video may both be others."""
    if not record.get("video_sha256"):
        why = "result.json names no hash of its bytes: it was published unsigned"
        yield Finding(None, why if record else "there is no result.json beside it that names its bytes")
    else:
        same = sha256 == record["video_sha256"]
        yield Finding(same, f"the bytes are {'' if same else 'not '}those that result.json names")
    if noted.get("video_sha256"):
        same = sha256 == noted["video_sha256"]
        yield Finding(same, f"the bytes are {'' if same else 'not '}those that were published")


def examine_said(
    said: Mapping[str, Any], record: Mapping[str, Any], tracks: list[Track], media: Media, models_dir: Path | None
) -> Iterator[Finding]:
    """Yield what holds of our assertion in the manifest."""
    if not said:
        yield Finding(False if record else None, "its credentials are not those of a result of musedrop")
        return
    try:
        yield from describe(said, record)
        yield from compare_tracks(said, tracks)
        yield from compare_inputs(said, media)
        yield from compare_weights(said, models_dir)
    except UNREADABLE:
        yield Finding(False, "what its credentials say can't be read")


def describe(said: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the manifest asserts, compared with result.json where that is there."""
    yield Finding(True, f"generated by AI: {said.get('edited')}, engine {said.get('engine')}, {said.get('version')}")
    is_same = said.get("version") == __version__
    yield Finding(is_same or None, f"made by version {said.get('version')}; this is {__version__}")
    spans = f" in {said['spans']} spans" if said.get("spans") else ""
    yield Finding(True, f"{said.get('frames')} frames made{spans} on {', '.join(said.get('devices') or ())}")
    if record:
        is_same = said.get("uid") == record.get("uid")
        yield Finding(is_same or (None if record.get("from_cache") else False), f"job {said.get('uid')}")
    recorded = list_inputs(record)
    for role, medium in said.get("inputs", {}).items():
        known = recorded.get(role, {}).get("sha256")
        text = f"{role}: {medium.get('name') or ''} {str(medium.get('sha256'))[:16]}".replace("  ", " ")
        yield Finding(None if known is None else known == medium.get("sha256"), text)


def compare_tracks(said: Mapping[str, Any], tracks: list[Track]) -> Iterator[Finding]:
    """Yield whether the video has the frames, the times and the sound that were signed."""
    pictures = [one for one in tracks if one.kind == "vide"]
    sounds = [one for one in tracks if one.kind == "soun"]
    frames, fps = said.get("frames"), said.get("fps")
    if not (frames and fps):
        return
    if not RATE.fullmatch(fps):
        raise ValueError("no rate")
    count = sum(one.samples for one in pictures)
    yield Finding(count == frames, f"it has {count} frames, and was signed with {frames}")
    exact = {1 / Fraction(fps)}
    holds = all(one.durations == exact for one in pictures)
    yield Finding(holds, f"each frame is shown for {'exactly' if holds else 'another time than'} 1/{fps} s")
    lasts = abs(max((float(one.seconds) for one in sounds), default=0.0) - float(frames / Fraction(fps)))
    if not sounds:
        yield Finding(False, "it has no sound")
        return
    text = f"its sound ({', '.join(one.codec for one in sounds)}) and its picture differ in length by {lasts:.2f} s"
    yield Finding(lasts < MOST_SOUND_S or None, text)


def compare_inputs(said: Mapping[str, Any], media: Media) -> Iterator[Finding]:
    """Yield whether the inputs that are still there are those that were signed."""
    for role, medium in said.get("inputs", {}).items():
        name = role if not role.startswith("voice-") else name_voice_role(int(role.removeprefix("voice-")))
        there = [path for path in media.get(name, ()) if is_file(path)]
        if not there:
            continue
        try:
            used = next((path for path in there if is_used_file(path, medium.get("sha256"))), None)
        except OSError as error:
            yield Finding(None, f"{there[0].name}, its {role}, can't be read: {error.strerror}")
            continue
        yield Finding(bool(used), f"{(used or there[0]).name} is {'' if used else 'not '}the {role} that was used")


def compare_weights(said: Mapping[str, Any], models_dir: Path | None) -> Iterator[Finding]:
    """Yield whether the weights here are those that were signed; others are no fault of the result."""
    hashes = said.get("weights_sha256") or {}
    if not hashes or models_dir is None:
        return
    changed = find_changed_weights(models_dir, hashes)
    others = ", ".join(f"{name} is {state}" for name, state in changed.items())
    yield Finding(None if changed else True, f"made with other weights than those here: {others}" if changed else SAME)
