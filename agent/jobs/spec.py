"""What a job asks for: `JobSpec`, its fields, and which file names are media."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from agent.jobs.media_names import AUDIO_SUFFIXES as AUDIO_SUFFIXES
from agent.jobs.media_names import AVATAR_SUFFIXES as AVATAR_SUFFIXES
from agent.jobs.media_names import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from agent.jobs.media_names import LIBRARY_NAME as LIBRARY_NAME
from agent.jobs.media_names import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from agent.jobs.media_names import is_library_name as is_library_name
from agent.jobs.media_names import media_suffix as media_suffix
from models.types import Output, name_voice_role

# values --------------------------------------------------------------------------------------------------------------

COLOURS: Mapping[str, str] = {
    **{"white": "#ffffff", "black": "#000000", "grey": "#808080", "gray": "#808080", "red": "#ff0000"},
    **{"green": "#008000", "lime": "#00ff00", "blue": "#0000ff", "yellow": "#ffff00"},
}
"""Names of colours for `background`, as in CSS."""
HEX_COLOUR = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})")
URL = re.compile(r"(?i)(?:[a-z][a-z0-9+.-]+://|data:)")
PRIORITY: Mapping[str, int] = {"low": -10, "normal": 0, "high": 10}
FRONT = 1_000_000
"""The priority of the first job that is moved to the front: nineteen years of waiting bring no other job there."""
NTSC = (24, 30, 48, 60, 120)
MAX_SECONDS = 1e6
MAX_VOICES = 16
TRIAL = "avatar prepare"
"""The submitter of jobs whose video leaves the outbox when they are done: their use is what they prepare."""
DRAFT = "draft"
"""The submitter of jobs with the option of that name: they take turns among each other, and are removed soon."""
OF_ONE_FACE = ("face", "face_box", "mouth")
"""Options that say where the one face is."""

DRIVE = re.compile(r"[A-Za-z]:")
FRACTION = re.compile(r"[0-9]{1,7}/0*[1-9][0-9]{0,6}")
INTEGER = re.compile(r"-?[0-9]{1,3}")
DECIMAL = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?")


def normalise_fps(value: object) -> str:
    """Return the exact frame rate, "25" or "30000/1001". Decimals near NTSC rates mean these."""
    rate = _parse_rate(value)
    if not 0 < rate <= 120:
        raise ValueError("a frame rate is above 0 and at most 120")
    return str(rate)


def _parse_rate(value: object) -> Fraction:
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    if isinstance(value, float) and math.isfinite(value):
        return _snap_to_ntsc(Fraction(repr(value)))
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        return _snap_to_ntsc(Fraction(value))
    if isinstance(value, str) and FRACTION.fullmatch(value):
        return Fraction(value)
    raise ValueError('a frame rate is a number, or an exact one as "30000/1001"')


def _snap_to_ntsc(rate: Fraction) -> Fraction:
    ntsc = (Fraction(n * 1000, 1001) for n in NTSC)
    return next((exact for exact in ntsc if abs(rate - exact) < Fraction(1, 200)), rate.limit_denominator(1001))


def _parse_priority(value: object) -> object:
    if not isinstance(value, str):
        return value
    if INTEGER.fullmatch(value):
        return int(value)
    if value.lower() not in PRIORITY:
        raise ValueError("a priority is low, normal, high or an integer")
    return PRIORITY[value.lower()]


def _to_lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _check_media_name(value: str) -> str:
    controls = {c for c in value if unicodedata.category(c) == "Cc"}
    if controls - {"\n"} or (controls and DRIVE.match(value)):
        raise ValueError(
            r'there is a control character in it; in JSON a backslash is written twice, "C:\\in\\face.jpg"'
        )
    return value


def parse_colour(value: str) -> str | None:
    """Return "#rrggbb" of a colour by its name or as "#rgb"; None for the name of a picture.

    Raises ValueError for what begins as a colour and is none.

    >>> parse_colour("White"), parse_colour("#0b4"), parse_colour("wall.jpg")
    ('#ffffff', '#00bb44', None)
    """
    lower = value.lower()
    if not lower.startswith("#") or media_suffix(value) in AVATAR_SUFFIXES:
        return COLOURS.get(lower)
    if not HEX_COLOUR.fullmatch(lower):
        raise ValueError('a colour is "#rrggbb" or "#rgb"')
    return lower if len(lower) == 7 else "#" + "".join(digit * 2 for digit in lower[1:])


def _check_background(value: str) -> str:
    colour = parse_colour(value)
    if colour is None and not PurePosixPath(value.replace("\\", "/")).suffix:
        raise ValueError(f"it is no picture, and none of the colours {', '.join(COLOURS)}")
    return colour or value


def _check_printable(value: str) -> str:
    if not value.isprintable() or value.isspace():
        raise ValueError("there are characters in it that can't be printed")
    return value


def _check_library_name(value: str) -> str:
    if not re.fullmatch(LIBRARY_NAME, value):
        raise ValueError("a name of the library is no path, and starts with no dot")
    return _check_printable(value)


def _check_option(value: object) -> object:
    if not all(_is_plain(item) for item in (value if isinstance(value, list) else [value])):
        raise ValueError("an option is a text, a number, true, false, or a list of these")
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return not any(unicodedata.category(c) in {"Cc", "Cs"} for c in value)
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


PLAIN = ["string", "number", "boolean"]

MediaName = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_check_media_name)]
BackgroundName = Annotated[
    MediaName,
    AfterValidator(_check_background),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(COLOURS)},
                {"type": "string", "pattern": "^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"},
                {"type": "string", "pattern": r"\.[^./\\]+$", "maxLength": 1024},
            ]
        }
    ),
]
LibraryName = Annotated[
    str, AfterValidator(_check_library_name), WithJsonSchema({"type": "string", "pattern": LIBRARY_NAME})
]
Label = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_check_printable)]
Rate = Annotated[
    str,
    BeforeValidator(normalise_fps),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 120},
                {"type": "string", "pattern": f"^({DECIMAL.pattern}|{FRACTION.pattern})$"},
            ]
        }
    ),
]
Priority = Annotated[
    int,
    Field(ge=-100, le=100),
    BeforeValidator(_parse_priority),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": -100, "maximum": 100},
                {"type": "string", "pattern": f"^{INTEGER.pattern}$"},
                {"enum": list(PRIORITY)},
            ]
        }
    ),
]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
OptionName = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
OptionValue = Annotated[Any, AfterValidator(_check_option)]
Options = Annotated[
    dict[OptionName, OptionValue],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                DRAFT: {"type": ["boolean", "null"], "description": "One frame, with the face that speaks."}
            },
            "additionalProperties": {"type": [*PLAIN, "array", "null"], "items": {"type": PLAIN}},
        }
    ),
]


MAX_SEEDS = 8
"""The most seeds of a race."""
RaceEngine = Annotated[Literal["preview", "musetalk"], BeforeValidator(_to_lower)]
VARIANT = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_PROMPT_CHARS = 2000


def _read_prompt(value: str) -> str:
    """Return a prompt in one line: its own lines are for those who write it."""
    plain = re.sub(r"[\t\r\n]+", " ", value)
    if not _is_plain(plain):
        raise ValueError("there are characters in it that can't be printed")
    return plain


Prompt = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARS), AfterValidator(_read_prompt)]


def _read_motion(value: object) -> object:
    """Return the defaults for true, and nothing for false."""
    return (MotionSpec() if value else None) if isinstance(value, bool) else value


def _make_key_error(key: str, value: object, problem: str) -> ValidationError:
    """Return the error of one key that does not fit the others."""
    error = PydanticCustomError("key", "{problem}", {"problem": problem})
    return ValidationError.from_exception_data("job", [InitErrorDetails(type=error, loc=(key,), input=value)])


# the job -------------------------------------------------------------------------------------------------------------


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class OutputSpec(_Frozen):
    """How the video is encoded, as far as the job says so."""

    crf: Annotated[int, Field(ge=0, le=51)] | None = Field(
        default=None,
        description="Quality of the picture, 0 (largest file) to 51 (smallest). Default: the settings' (18).",
    )
    encoder: Annotated[Literal["auto", "libx264", "h264_nvenc"], BeforeValidator(_to_lower)] | None = Field(
        default=None, description="auto, libx264 or h264_nvenc. Default: the settings' (auto)."
    )
    height: Annotated[int, Field(ge=64, le=4320), AfterValidator(lambda rows: rows - rows % 2)] | None = Field(
        default=None,
        description="Height of the video in pixels, 64 to 4320; an odd one loses a row."
        " Default: the avatar's own, at most 4096 x 2304 (or 2304 x 4096) pixels.",
    )
    audio: Annotated[Literal["auto", "copy"], BeforeValidator(_to_lower)] | None = Field(
        default=None,
        description='auto or copy. "copy" keeps the voice\'s own packets wherever mp4 can hold them; auto only'
        " those that all players play (AAC, mp3) and encodes others as AAC. Default: auto.",
    )
    alpha: bool | None = Field(
        default=None,
        description="Whether the avatar's transparency is kept: the video is result.mov, ProRes 4444, and crf and"
        " encoder have no effect. Default: false.",
    )


class VoiceSpec(_Frozen):
    """One of several voices, and whose it is."""

    face: Annotated[int, Field(ge=0, lt=MAX_VOICES)] = Field(
        description="Number of the face, counted from 0, from left to right in the first frame that shows all of them."
    )
    audio: MediaName = Field(description="The voice of that face.")
    from_s: Seconds | None = Field(default=None, description="Seconds of the result at which it begins. Default: 0.")


class MotionSpec(_Frozen):
    """How the person in a photo moves: a clip is made of the photo first, and its lips are moved then."""

    engine: Annotated[Literal["auto", "musev", "diffusers"], BeforeValidator(_to_lower)] = Field(
        default="auto", description="auto, musev or diffusers; auto is the first of these whose weights are installed."
    )
    prompt: Prompt | None = Field(
        default=None,
        description="What the person does, with weights as (eye blinks:1.1) for musev. Default: a calm speaker who"
        " looks into the camera, breathes and blinks, with closed lips.",
    )
    negative_prompt: Prompt | None = Field(
        default=None, description="What is not wanted, instead of the engine's own list; an empty text for none."
    )
    seconds: Annotated[float, Field(ge=1, le=30)] = Field(
        default=6.0,
        description="Length of the clip, 1 to 30; it is played forward and back for as long as the voice. Default: 6.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=1, description="Which of the possible clips, 0 to 4294967295. Default: 1."
    )
    size: Annotated[int, Field(ge=256, le=1024, multiple_of=64)] | None = Field(
        default=None,
        description="The shorter side of the clip in pixels, 256 to 1024 in steps of 64. Default: 512, or the largest"
        " that a device has memory for.",
    )
    variant: Annotated[str, StringConstraints(pattern=VARIANT)] | None = Field(
        default=None, description="Which of the engine's networks. Default: musev_referencenet, or the first pipeline."
    )
    base: Annotated[str, StringConstraints(pattern=VARIANT)] | None = Field(
        default=None, description="The folder of another base model, for musev. Default: the one that was fetched."
    )
    guidance: Annotated[float, Field(ge=1, le=20)] | None = Field(
        default=None,
        description="How closely the prompt is followed, 1 to 20. Default: 3.5 for musev, 1 with its option lcm.",
    )
    steps: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="Denoising steps, 1 to 100. Default: 10 for musev, 4 with its option lcm."
    )
    interpolation: Annotated[Literal["flow", "minterpolate", "blend", "none"], BeforeValidator(_to_lower)] = Field(
        default="flow",
        description="How a clip of fewer frames a second becomes one of 25: flow, minterpolate, blend or none."
        " Default: flow.",
    )
    clip: bool = Field(default=False, description="Whether the result has the clip, too, as clip.mkv. Default: false.")
    options: Options = Field(
        default_factory=dict, description="The engine's own options, such as motion_speed, checked by the engine."
    )

    def to_request(self, engine: str, device_bytes: int) -> dict[str, Any]:
        """Return `Request.motion` for the engine that was chosen."""
        return {**self.model_dump(exclude_none=True), "engine": engine, "device_bytes": device_bytes}


class RaceSpec(_Frozen):
    """Which videos are made of a job, to keep the best of them."""

    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = Field(
        default=1,
        description="How many seeds are tried, 1 to 8, from that of the job on: other clips with motion, other blinks"
        " and sways with the preview engine. Default: 1.",
    )
    engines: Annotated[tuple[RaceEngine, ...], Field(min_length=1, max_length=2)] | None = Field(
        default=None, description='Which engines are tried: ["musetalk", "preview"]. Default: that of the job alone.'
    )


class JobSpec(_Frozen):
    """One job as its job file asks for it.

    Exactly one of `avatar` and `template` is set, and one of `audio` and `voices`; `fps` is exact or None.
    """

    version: Literal[1] = Field(default=1, description="The version of this format: 1.")
    avatar: MediaName | None = Field(
        default=None,
        description="The face: an image or a video beside the job file, the name of an avatar of the library,"
        " or a folder of numbered pictures.",
    )
    template: LibraryName | None = Field(
        default=None, description="The face, by the name of an avatar of the library; instead of `avatar`."
    )
    audio: MediaName | None = Field(
        default=None, description="The voice: an audio file beside the job file, or a video whose sound is used."
    )
    voices: Annotated[tuple[VoiceSpec, ...], Field(min_length=1, max_length=MAX_VOICES)] | None = Field(
        default=None,
        description="Several faces, each with its own voice, instead of `audio`: a list of objects with `face`,"
        " `audio` and `from_s`.",
    )
    from_s: Seconds | None = Field(
        default=None,
        description="Seconds of the result, 0 or more, at which the voice begins and the mouth starts to follow it."
        " Before that the picture and the sound are the avatar's own. Default: 0.",
    )
    to_s: Annotated[Seconds, Field(gt=0)] | None = Field(
        default=None,
        description="Seconds of the result, above `from_s`, at which voice and mouth end."
        " After that the picture and the sound are the avatar's own. Default: the end of the voice.",
    )
    soundtrack: MediaName | None = Field(
        default=None,
        description="A second sound, such as music: heard in the result from its beginning, but no mouth follows it.",
    )
    soundtrack_db: Annotated[float, Field(ge=-60, le=12)] | None = Field(
        default=None, description="Level of the soundtrack in decibels, -60 to 12; 0 leaves it as it is. Default: 0."
    )
    background: BackgroundName | None = Field(
        default=None,
        description="What is seen where the avatar is transparent: a colour by its name (white, black, green ...) or as"
        ' "#00b140", or a picture, which fills the frame. Default: white.',
    )
    motion: Annotated[MotionSpec | None, BeforeValidator(_read_motion)] = Field(
        default=None,
        description="Whether the person in a photo moves: true, or an object with prompt, seconds, seed and so on."
        " Default: false.",
    )
    engine: Annotated[Literal["auto", "preview", "musetalk"], BeforeValidator(_to_lower)] = Field(
        default="auto", description="auto, preview or musetalk; auto is musetalk where it can run, else preview."
    )
    fps: Rate | None = Field(
        default=None,
        description='Frames a second, above 0 and at most 120: 25, 29.97 or exactly, as "30000/1001".'
        " Default: 25 for an image, the source's own for a video if it has 23.976 to 60, else one that suits lips.",
    )
    priority: Priority = Field(
        default=0, description="low (-10), normal (0), high (10) or an integer from -100 to 100; higher runs earlier."
    )
    strategy: Annotated[Literal["auto", "queue", "race", "split"], BeforeValidator(_to_lower)] = Field(
        default="auto", description="auto, queue, race or split: how the job is spread over the devices."
    )
    race: RaceSpec | None = Field(
        default=None,
        description="Of how many seeds, or of which engines, a video is made, one after the other; the best by the"
        " meter is kept. Goes with the strategy race.",
    )
    options: Options = Field(default_factory=dict, description="The engine's own options, checked by the engine.")
    output: OutputSpec = Field(
        default=OutputSpec(), description="How the video is encoded: crf, encoder, height, audio, alpha."
    )
    strict: bool = Field(
        default=False,
        description="Whether the job fails (poor_input) where there is advice about its face or its voice, instead of"
        " being made as it is.",
    )
    preview_first: bool | None = Field(
        default=None,
        description="Whether the first seconds are in outbox/NAME.part while the others are made."
        " Default: of videos longer than 20 s.",
    )
    id: Label | None = Field(
        default=None,
        description="Your own name for the job, 1 to 128 printable characters; comes back with the result.",
    )
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="How often the job is tried when it fails for a reason that may pass, 1 to 10."
    )
    timeout_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Seconds that one attempt may take before the job fails, above 0. Default: no limit."
    )
    submitter: Label | None = Field(
        default=None,
        description="Who asks, 1 to 128 printable characters; shown in the status. Default: the file's owner.",
    )
    notes: tuple[str, ...] = Field(default=(), description="What was accepted and ignored; for result.json.")
    batch: str = Field(default="", description="The folder of the inbox that the job came in, and of its result.")

    @model_validator(mode="after")
    def _check_one_face(self) -> JobSpec:
        if (self.avatar is None) == (self.template is None):
            raise ValueError("a job has either an avatar or a template")
        return self

    @model_validator(mode="after")
    def _check_additions(self) -> JobSpec:
        if self.to_s is not None and self.to_s <= (self.from_s or 0):
            raise _make_key_error("to_s", self.to_s, "should be greater than from_s")
        if self.soundtrack_db is not None and self.soundtrack is None:
            raise _make_key_error("soundtrack_db", self.soundtrack_db, "there is no soundtrack")
        if self.background is not None and self.output.alpha:
            raise _make_key_error("background", self.background, "with output.alpha, nothing is behind the avatar")
        return self

    @model_validator(mode="after")
    def _check_motion(self) -> JobSpec:
        if self.motion is None:
            return self
        if self.avatar is not None and media_suffix(self.avatar) in VIDEO_SUFFIXES:
            raise _make_key_error("motion", True, "the avatar is a video, which moves already")
        for key in ("from_s", "to_s"):
            if getattr(self, key) is not None:
                raise _make_key_error(key, getattr(self, key), "with motion, the voice begins with the result")
        if self.output.alpha:
            raise _make_key_error("output", "alpha", "with motion, the clip has no transparency to keep")
        return self

    @model_validator(mode="after")
    def _check_race(self) -> JobSpec:
        if self.race is None:
            return self
        asked = self.race.model_dump(exclude_defaults=True)
        engines = self.race.engines or ()
        if self.race.seeds * max(1, len(set(engines))) < 2:
            raise _make_key_error("race", asked, "a race is one of two or more seeds, or of two engines")
        if engines and self.engine != "auto":
            raise _make_key_error("engine", self.engine, "race.engines says which engines run")
        if self.strategy not in ("auto", "race"):
            raise _make_key_error("strategy", self.strategy, "with race, the strategy is race")
        return self

    @model_validator(mode="after")
    def _check_voices(self) -> JobSpec:
        if (self.audio is None) == (self.voices is None):
            raise _make_key_error("audio", self.audio, "a job has either an audio or voices")
        if self.voices is None:
            return self
        faces = [voice.face for voice in self.voices]
        if len(set(faces)) < len(faces):
            raise _make_key_error("voices", faces, "each face has one voice: join the sounds of a face in one file")
        for key in ("from_s", "to_s"):
            if getattr(self, key) is not None:
                raise _make_key_error(key, getattr(self, key), "with voices, each of them has its own from_s")
        for key in OF_ONE_FACE:
            if key in self.options:
                raise _make_key_error("options", {key: self.options[key]}, "with voices, each of them has its own face")
        return self

    @property
    def is_draft(self) -> bool:
        """Whether one frame is asked for, which shows the face that would speak."""
        return self.options.get(DRAFT) is True

    @property
    def library_name(self) -> str | None:
        """The avatar of the library that the job names; None where `avatar` is a file."""
        if self.avatar is None:
            return self.template
        return self.avatar if is_library_name(self.avatar) else None

    @property
    def motion_engine(self) -> str | None:
        """The motion engine that the job asks for; None where nothing moves but the lips."""
        return self.motion.engine if self.motion else None

    @property
    def background_colour(self) -> str:
        """The colour "#rrggbb" that the job gives as its background, "" where it gives none."""
        return parse_colour(self.background or "") or ""

    @property
    def media_names(self) -> dict[str, str]:
        """The names of the media beside the avatar by role: "audio", "audio-1" ..., "soundtrack", "background"."""
        names = [voice.audio for voice in self.voices] if self.voices else [self.audio or ""]
        sounds = {name_voice_role(number): name for number, name in enumerate(names)}
        others = {"soundtrack": self.soundtrack, "background": None if self.background_colour else self.background}
        return sounds | {role: name for role, name in others.items() if name}

    def resolve_output(self, default: Output) -> Output:
        """Return the encoder's settings: what the job says, else `default`."""
        asked = self.output.model_dump(exclude_none=True)
        return Output(**{"crf": default.crf, "encoder": default.encoder, "height": default.height, **asked})

    def choose_first_s(self, default_s: float) -> float | None:
        """Return the seconds above which the first part of the video is shown early; None: it is not.

        `default_s`: for jobs that don't say it; 0: not.
        """
        if self.preview_first is None:
            return default_s or None
        return 0.0 if self.preview_first else None

    def to_json_text(self) -> str:
        """Return a job file that asks for the same (`notes` and `batch` are no part of it)."""
        asked = self.model_dump(exclude_defaults=True, exclude={"notes", "batch"})
        return json.dumps(asked, ensure_ascii=False, indent=2) + "\n"
