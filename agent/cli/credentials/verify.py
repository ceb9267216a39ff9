"""`musedrop verify`: what a result says of itself, and whether that holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from agent import __version__
from agent.cli.console import AsJson, Config, find_settings, load_settings, speak
from agent.cli.credentials.finding import Finding, Media, is_used_file, list_places, read_record
from agent.credentials.boxes import has_index_first, hash_file, list_boxes
from agent.credentials.manifest import FORMATS, list_inputs
from agent.credentials.tracks import Track, read_tracks
from agent.errors import UserError
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
    settings = load_settings(config) if config or repeat or not Path(target).exists() else None
    video, record, media = find_target(target, settings)
    models_dir = settings.models_dir if settings else None
    findings = list(examine(video, record, media, models_dir))
    if repeat and settings:
        from agent.cli.credentials.repeat import verify_repeated

        findings += verify_repeated(settings, find_settings(config), target, video, record)
    if as_json:
        typer.echo(json.dumps([{"holds": one.holds, "text": one.text} for one in findings], indent=1))
    else:
        for one in findings:
            typer.echo(f"{ {True: 'ok', False: 'NO', None: '--'}[one.holds] }  {escape(speak(one.text))}")
    raise typer.Exit(1 if any(one.holds is False for one in findings) else 0)


def find_target(target: str, settings: Settings | None) -> tuple[Path, dict[str, Any], Media]:
    """Return the video, its result.json, and for the name of a job where its media may be."""
    path = Path(target)
    if path.is_file():
        return path, read_record(path.parent), {}
    if path.is_dir() or settings is None:
        return find_video(path), read_record(path), {}
    from agent import client
    from agent.cli.jobs.choosing import require_job

    db = client.open_ledger(settings)
    row = require_job(db, target)
    if row["state"] != "done":
        raise UserError(f"{target} is {row['state']}, and has no result")
    folder = settings.folders.outbox / str(row["result"])
    return find_video(folder), read_record(folder), list_places(settings, db, str(row["uid"]))


def examine(
    video: Path, record: Mapping[str, Any], media: Media | None = None, models_dir: Path | None = None
) -> Iterator[Finding]:
    """Yield what holds of a video, and what does not.

    media        where the inputs may be, by their roles
    models_dir   where the weights are, None: they are not looked at
    """
    try:
        from agent.credentials.reading import read_credentials
    except ImportError as error:
        raise UserError("the extra `credentials` is not installed: pip install 'musedrop[credentials]'") from error
    mime = FORMATS.get(f"result{video.suffix.lower()}", "video/mp4")
    try:
        file = video.open("rb")
    except OSError as error:
        raise UserError(f"{video} can't be read: {error.strerror}") from error
    with file:
        found = read_credentials(file, mime)
        yield Finding(not found.problem, f"signed by {found.signer}" if not found.problem else found.problem)
        recorded = record.get("video_sha256")
        if recorded:
            same = hash_file(file) == recorded
            yield Finding(same, f"the bytes are {'' if same else 'not '}those that result.json names")
        else:
            yield Finding(None, "there is no result.json beside it that names its bytes")
        try:
            is_first = has_index_first(list_boxes(file))
            yield Finding(is_first, f"its index stands {'at the front' if is_first else 'behind its pictures'}")
            tracks = read_tracks(file)
        except ValueError as error:
            tracks = []
            yield Finding(False, str(error))
    if not found.problem:
        yield from examine_said(found.said, record, tracks, media or {}, models_dir)


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
        yield Finding(said.get("uid") == record.get("uid"), f"job {said.get('uid')}")
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
        there = [path for path in media.get(name, ()) if path.is_file()]
        if not there:
            continue
        holds = is_used_file(there[0], medium.get("sha256"))
        yield Finding(holds, f"{there[0].name} is {'' if holds else 'not '}the {role} that was used")


def compare_weights(said: Mapping[str, Any], models_dir: Path | None) -> Iterator[Finding]:
    """Yield whether the weights here are those that were signed; others are no fault of the result."""
    hashes = said.get("weights_sha256") or {}
    if not hashes or models_dir is None:
        return
    changed = find_changed_weights(models_dir, hashes)
    others = ", ".join(f"{name} is {state}" for name, state in changed.items())
    yield Finding(None if changed else True, f"made with other weights than those here: {others}" if changed else SAME)
