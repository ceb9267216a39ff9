"""Whether a worker can be believed: what it says of a span is data from a stranger. Pure.

A worker decodes files that anyone may have made, so its reports count only as far as they fit what was asked:
the keys, types and ranges here, which follow from the limits in the request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ErrorCode
from gpu_pool.types import Done, Failed, RunSpan
from models.types import Inspection, Limits, Request, is_short

MAX_FPS = 120
MAX_BATCH = 64
"""Frames that an engine may compute together."""
MAX_SIDE = 16_384
"""The longest side of a picture that H.264 can hold, in pixels."""
MAX_VOICES = 16
"""The most voices that a job may have."""
MAX_S = 7 * 86_400.0
"""The longest sound that the settings allow, in seconds."""
MAX_TEXT_CHARS, MAX_DETAIL_CHARS = 1000, 16_000
MAX_RESULT_CHARS = 32_768
"""Of the JSON of a result: it goes into the ledger, and back to workers; result.json is read again up to a MiB."""
CODES_OF_WORKER = {ErrorCode.OUT_OF_MEMORY, ErrorCode.DEVICE_ERROR, ErrorCode.WORKER_OUTDATED}
"""Codes of a failure that a worker may call its own."""
CODES_OF_DAEMON = {
    *(ErrorCode.CANCELLED, ErrorCode.POISON, ErrorCode.TIMEOUT, ErrorCode.INTERRUPTED, ErrorCode.ID_CONFLICT),
    *(code for code in ErrorCode if code.group == "worker"),
}
"""Codes that the daemon alone gives."""

NS_PER_S = 1_000_000_000
NOT_ASKED = {
    *("avatar", "audio", "media", "work", "out", "cache", "cache_bytes", "models_dir", "limits", "metadata"),
    *("forms", "tuned"),
}
"""Fields of a request that say where things are and how large they may be, what the video is called, and what its
plan settles."""

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
WeightsName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,200}$")]
AdviceCode = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
Role = Annotated[str, Field(pattern=r"^[a-z]{1,20}(-[0-9]{1,2})?$")]
Encoder = Literal["auto", "libx264", "h264_nvenc", "prores_ks"]
Notes = Annotated[list[Text], Field(max_length=100)]
One = Annotated[int, Field(ge=1, le=1)]
Many = Annotated[int, Field(ge=1)]
Tag = Annotated[int, Field(ge=0, le=255)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Moment = Annotated[float, Field(ge=0, le=MAX_S)]
Side = Annotated[int, Field(ge=2, le=MAX_SIDE, multiple_of=2)]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Strict)


class Units(Strict):
    inspect: One
    prepare: Many
    render: Many
    assemble: One


class ColourTags(Strict):
    primaries: Tag = 1
    transfer: Tag = 1
    matrix: Tag = 1
    range: Annotated[int, Field(ge=0, le=2)] = 1


class VoiceFrames(Strict):
    start: Annotated[int, Field(ge=0)]
    stop: Many
    face: Annotated[int, Field(ge=0, lt=MAX_VOICES)] | None = None


class HeardLayer(Strict):
    role: Role
    start_s: Moment = 0.0
    stop_s: Annotated[float, Field(gt=0, le=MAX_S)] | None = None
    gain_db: Annotated[float, Field(ge=-60, le=12)] = 0.0
    mute_s: Annotated[list[Moment], Field(min_length=2, max_length=2)] | None = None


class ClipToMake(Strict):
    engine: Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]
    key: Sha256
    units: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1, max_length=1000)]
    memory_bytes: Annotated[int, Field(ge=0, le=1 << 50)] = 0


class Outline(Strict):
    """The fields of `models.types.Inspection` as JSON."""

    frames: Many
    fps: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,19}(/[1-9][0-9]{0,19})?$")]
    width: Side
    height: Side
    duration_s: Annotated[float, Field(gt=0)]
    units: Units
    batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] = 1
    encoder: Encoder = "libx264"
    colour: ColourTags = ColourTags()
    memory_bytes: Annotated[int, Field(ge=0, le=1 << 50)] = 0
    avatar_sha256: Sha256
    audio_sha256: Sha256
    avatar_kind: Literal["image", "video"] = "image"
    notes: Notes = []
    voices: Annotated[list[VoiceFrames], Field(max_length=MAX_VOICES)] = []
    layers: Annotated[list[HeardLayer], Field(max_length=MAX_VOICES + 2)] = []
    media_sha256: Annotated[dict[Role, Sha256], Field(max_length=MAX_VOICES + 3)] = {}
    advice: Annotated[dict[AdviceCode, Text], Field(max_length=40)] = {}
    details: dict[str, Any] = {}
    animation: ClipToMake | None = None


Ratio = Annotated[float, Field(ge=0, le=1e6)]


class Quality(Strict):
    """The figures of `models.quality.figures.Figures`."""

    frames_measured: Annotated[int, Field(ge=0)]
    sharpness: Ratio | None = None
    drift: Ratio | None = None
    jitter: Ratio | None = None
    seam: Ratio | None = None
    no_face: Annotated[float, Field(ge=0, le=1)] | None = None
    sync: Annotated[float, Field(ge=-1, le=1)] | None = None
    lag_ms: Annotated[float, Field(ge=-1000, le=1000)] | None = None
    silent_motion: Annotated[float, Field(ge=0, le=1)] | None = None


class Assembled(Strict):
    """What becomes part of result.json; an engine says the rest under its own name."""

    encoder: Encoder = "libx264"
    audio_codec: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,40}$")] = ""
    audio_copied: bool = False
    notes: Notes = []
    label: bool = True
    quality: Quality | None = None
    weights_sha256: Annotated[dict[WeightsName, Sha256], Field(max_length=40)] = {}
    musetalk: dict[str, Any] = {}
    motion: dict[str, Any] = {}


class LaterSeconds(Strict):
    """What the stages after the inspection took."""

    prepare: Seconds
    render: Seconds
    assemble: Seconds


class Inspected(Strict):
    """The inspection, and of a job of which all was done at once, what `assemble` returns."""

    outline: Outline
    facts: Assembled | None = None
    stage_seconds: LaterSeconds | None = None


class Plan(Strict):
    """What the parts of a video are made by; it is beside them, where workers may write.

    outline  the inspection, which has the encoder, the tuning and the forms of the networks in it
    asked    `hash_asked` of the request
    crf      the quality of every part
    """

    outline: dict[str, Any]
    asked: Sha256
    crf: Annotated[int, Field(ge=0, le=51)]


class Empty(Strict):
    """Nothing: the files say the rest."""


RESULTS: dict[str, type[Strict]] = {
    "inspect": Inspected,
    "animate": Empty,
    "prepare": Empty,
    "render": Empty,
    "first": Empty,
    "assemble": Assembled,
}


def explain_refusal(run: RunSpan, end: Done | Failed) -> str:
    """Return why the end of a span can't be believed, or "". A span of no job may end as it likes."""
    if "request" not in run.payload:
        return ""
    return _refuse_failure(end) if isinstance(end, Failed) else _refuse_result(run, end.result)


def is_whole_job(result: Mapping[str, Any]) -> bool:
    """Whether an inspection says that all later stages were done as well."""
    return isinstance(result.get("facts"), dict) and isinstance(result.get("stage_seconds"), dict)


def make_plan(outline: Mapping[str, Any], request: Request, makers: str) -> bytes:
    """Return the plan of a video as a file, for `read_plan`."""
    plan = {"outline": dict(outline), "asked": hash_asked(request, makers), "crf": request.output.crf}
    return json.dumps(plan).encode()


def read_plan(data: bytes, request: Request, makers: str) -> tuple[Inspection, Request] | None:
    """Return the inspection of an earlier attempt, and the request with the settings of that time.

    None where the plan can't be used, or what is asked for now is something else: parts that were made by it are of no
    use then.
    """
    try:
        plan = Plan.model_validate_json(data)
    except ValidationError:
        return None
    if plan.asked != hash_asked(request, makers) or _refuse_outline({"outline": plan.outline}, request.limits):
        return None
    return Inspection.from_dict(plan.outline), replace(request, output=replace(request.output, crf=plan.crf))


def hash_asked(request: Request, makers: str) -> str:
    """Return a hash of all that decides the bytes of a video, but for what its plan settles.

    `makers`: what makes its parts, code and weights. Of the media it has sizes, and times to the second, as a backup
    keeps them. The motion engine decides the clip, which has a key of its own.
    """
    asked = {name: value for name, value in request.to_dict().items() if name not in NOT_ASKED}
    asked["marks"] = {role: (size, mtime_ns // NS_PER_S) for role, (_, size, mtime_ns, *_) in request.marks.items()}
    asked["output"] = {name: value for name, value in asked["output"].items() if name not in ("crf", "encoder")}
    asked["motion"] = {name: value for name, value in request.motion.items() if name not in ("engine", "device_bytes")}
    return hashlib.sha256(json.dumps([asked, makers], sort_keys=True).encode()).hexdigest()


def _refuse_failure(failed: Failed) -> str:
    texts = max(len(failed.message), len(failed.hint))
    if texts > MAX_TEXT_CHARS or len(failed.detail) > MAX_DETAIL_CHARS:
        return f"a failure described in {max(texts, len(failed.detail))} characters"
    if failed.fault == "cancelled":
        return ""
    if failed.code not in (CODES_OF_WORKER if failed.fault == "worker" else set(ErrorCode) - CODES_OF_DAEMON):
        return f"a failure of the {failed.fault} with the code {failed.code[:40]!a}"
    return ""


def _refuse_result(run: RunSpan, result: Mapping[str, Any]) -> str:
    stage = run.payload.get("stage")
    if stage == "animate" and result:
        return _refuse_clip(run, result)
    if stage == "inspect":
        reason = _refuse_outline(result, Limits(**run.payload["request"]["limits"]))
        return reason or _refuse_later_stages(run, result)
    told = _read_shape(RESULTS[str(stage)], result)
    return told if isinstance(told, str) else ""


def _refuse_clip(run: RunSpan, result: Mapping[str, Any]) -> str:
    """Refuse an inspection of the clip unless the clip is what was to be made."""
    if reason := _refuse_outline(result, Limits(**run.payload["request"]["limits"])):
        return reason
    animation = Inspection.from_dict(run.payload["outline"]).animation
    is_last = animation is not None and run.payload["step"] == len(animation.tasks) - 1
    is_made = is_last and not result["outline"].get("animation")
    return "" if is_made else "the inspection of a clip that was not to be made"


def _refuse_later_stages(run: RunSpan, result: Mapping[str, Any]) -> str:
    """Refuse stages that the worker of an inspection could not do at once, or was not asked for."""
    if not result.keys() & {"facts", "stage_seconds"}:
        return ""
    asked = run.payload.get("goes_on") is True and is_short(result["outline"])
    return "" if asked and is_whole_job(result) else "an inspection that has the results of other stages"


def _read_shape(schema: type[S], result: Mapping[str, Any]) -> S | str:
    """Return the result as the schema has it, or what is wrong with it."""
    if (length := len(json.dumps(dict(result)))) > MAX_RESULT_CHARS:
        return f"a result of {length} characters"
    try:
        return schema.model_validate(dict(result))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        return f"a result whose {place[:100]!a} {problem['msg'].removeprefix('Input ')[:200]}"


def _refuse_outline(result: Mapping[str, Any], limits: Limits) -> str:
    inspected = _read_shape(Inspected, result)
    if isinstance(inspected, str):
        return inspected
    told = inspected.outline
    longest_s = max(limits.audio_s, limits.video_s)
    rate, most = Fraction(told.fps), ceil(longest_s * MAX_FPS) + 1
    problems = {
        f"has the rate {told.fps}": rate > MAX_FPS,
        f"lasts {told.duration_s:g} s": told.duration_s > longest_s + 1,
        f"has {told.frames} frames in {told.duration_s:g} s": abs(told.frames - told.duration_s * rate) > 2,
        f"has {told.width} x {told.height} pixels": told.width * told.height > max(limits.pixels, 4),
        f"has {told.units.render} frames to render": told.units.render != told.frames,
        "has voices outside of its frames": any(not v.start < v.stop <= told.frames for v in told.voices),
        f"has {told.units.prepare} units to prepare": told.units.prepare > most,
    }
    return next((f"an inspection that {problem}" for problem, is_so in problems.items() if is_so), "")
