"""The interface of daemon, workers and engines. Pure data, because the daemon imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from models.arrays import U8
    from models.quality.trace import FaceTrace

Stage = Literal["inspect", "animate", "prepare", "render", "assemble"]
STAGES: tuple[Stage, ...] = ("inspect", "animate", "prepare", "render", "assemble")
DeviceKind = Literal["cpu", "cuda"]
SHORT_FRAMES = 24
"""The longest video that the grid cuts into one span: more devices would not make it sooner."""
SHORT_PIXELS = 24 * 1920 * 1080
"""Of all frames; more takes longer than about a second."""

AVATAR_INDEX = ".avatars"

ProgressCallback = Callable[[int], None]
"""Called with the number of finished units of the span; raises to stop a cancelled span."""


class EngineError(Exception):
    """A failure that a person can act on.

    `code` is stable and documented in docs/errors.md, `message` says what happened to which file,
    `hint` says what to do, `retry` whether the same input may succeed another time.
    """

    def __init__(self, code: str, message: str, hint: str, *, retry: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.hint, self.retry = code, message, hint, retry


@dataclass(frozen=True, slots=True)
class Output:
    """How the video is encoded.

    height    in pixels, None keeps the avatar's own
    audio     "copy" keeps packets of sound that some players are mute with
    alpha     whether transparency is kept: ProRes 4444 in a mov instead of H.264 in an mp4
    """

    crf: int = 18
    encoder: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    height: int | None = None
    audio: Literal["auto", "copy"] = "auto"
    alpha: bool = False

    @property
    def file_name(self) -> str:
        """The name of the video."""
        return "result.mov" if self.alpha else "result.mp4"

    @property
    def first_name(self) -> str:
        """The name of the video's first part, while the others are made."""
        return "first.mov" if self.alpha else "first.mp4"


@dataclass(frozen=True, slots=True)
class Colour:
    """The colour tags of a video. The default is BT.709 in the limited range.

    primaries, transfer, matrix     by their numbers in ITU-T H.273; 2 is unspecified
    range                           0 unspecified, 1 limited, 2 full
    """

    primaries: int = 1
    transfer: int = 1
    matrix: int = 1
    range: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest input that a worker opens, and what it may take to inspect it; from the settings."""

    media_bytes: int = 4 << 30
    pixels: int = 64_000_000
    audio_s: float = 2 * 3600.0
    video_s: float = 2 * 3600.0
    inspect_s: float = 120.0
    inspect_pixels: int = 20_000_000_000
    inspect_bytes: int = 16 << 30
    inspect_memory_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The paths of a job inside its work folder, which is on a local disk and has opaque names."""

    work: Path

    @property
    def avatar(self) -> Path:
        """The copy of the avatar that `inspect` makes; every later stage reads it."""
        return self.medium_path("avatar")

    @property
    def audio(self) -> Path:
        """The copy of the audio."""
        return self.medium_path("audio")

    @property
    def photo(self) -> Path:
        """The avatar of a job with `motion` as a plain picture, which a motion engine reads."""
        return self.work / "input" / "photo.png"

    @property
    def animation(self) -> Path:
        """The folder of the clip that a motion engine is making; see `models.motion.types.MotionFiles`."""
        return self.work / "animation"

    @property
    def clip_facts(self) -> Path:
        """What result.json says of the clip that has taken the place of the avatar, JSON."""
        return self.work / "input" / "clip.json"

    @property
    def prepared(self) -> Path:
        """The folder that `prepare` writes for `render`; complete when it exists."""
        return self.work / "prepared"

    def medium_path(self, role: str) -> Path:
        """Return the copy of a medium of the job, such as its "soundtrack"."""
        return self.work / "input" / role

    def voice_path(self, number: int) -> Path:
        """Return the sound that the mouth of a voice follows, from the first of its frames on."""
        part = self.voice_part_path(number)
        return part if part.exists() else self.audio

    def voice_part_path(self, number: int) -> Path:
        """Return where `inspect` writes that sound, if it is not all of the audio."""
        return self.medium_path(f"voice-{number}.wav")

    def prepared_part_path(self, start: int, stop: int) -> Path:
        """Return the folder for units [start, stop) of a preparation; it appears by rename."""
        return self.prepared_parts / f"{start:07d}-{stop:07d}"

    @property
    def prepared_parts(self) -> Path:
        """The folder of the parts of a preparation."""
        return self.work / "preparing"

    @property
    def inpainter_stats(self) -> Path:
        """How an inpainter worked, JSON."""
        return self.work / "painted.json"

    @property
    def encoder(self) -> Path:
        """The encoder's name, where the rendering device chooses it; written before `prepared`."""
        return self.work / "encoder"

    @property
    def parts(self) -> Path:
        """The folder of the encoded parts."""
        return self.work / "parts"

    def part_path(self, start: int, stop: int) -> Path:
        """Return the file of the encoded frames [start, stop); it appears by rename."""
        return self.parts / f"{start:07d}-{stop:07d}.mp4"

    def samples_path(self, start: int, stop: int) -> Path:
        """Return the file of what the meter saw in the frames [start, stop)."""
        return self.work / "samples" / f"{start:07d}-{stop:07d}.npz"


def to_shallow_dict(one: Request | Inspection | Output | Limits | Colour) -> dict[str, Any]:
    """Return the fields by name without copies: `asdict` takes 0.1 ms for each message."""
    return {name: getattr(one, name) for name in one.__slots__}


@dataclass(frozen=True, slots=True)
class GivenVoice:
    """One of several voices as the job gives it: the number of its face, and when it begins in the result."""

    face: int
    from_s: float = 0.0


def name_voice_role(number: int) -> str:
    """Return the role of the audio of a voice of the job: "audio", "audio-1" and so on."""
    return f"audio-{number}" if number else "audio"


@dataclass(frozen=True, slots=True)
class Voice:
    """One voice of a job, and the frames [start, stop) of the result whose mouth follows it.

    face    the number of its face where the job has several; None: the face that the options say
    """

    start: int
    stop: int
    face: int | None = None

    @property
    def frames(self) -> range:
        return range(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Layer:
    """One sound of those that are heard together in a result. All times are seconds of the result.

    role     which medium of the job
    start_s  when it begins; it is heard to its end, or to `stop_s`
    gain_db  its level
    mute_s   from when to when it is silent, None: never
    """

    role: str
    start_s: float = 0.0
    stop_s: float | None = None
    gain_db: float = 0.0
    mute_s: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One job, as a worker receives it. Paths are absolute and checked by the daemon.

    media          paths of further media by their role: "audio-1" ..., "soundtrack", "background"
    from_s, to_s   when the voice begins and ends in the result; None: at its start, with the sound
    soundtrack_db  level of the soundtrack in decibels
    background     the colour "#rrggbb" that transparent pixels of the avatar show; "": the picture, else white
    voices         several voices, the first of which is `audio`; none: one voice
    marks          inode, size, mtime (nanoseconds) and `inputs.take_sample` of the media by their role when the job
                   was accepted
    strict         whether the job fails where there is advice about its input
    forms          the form of the networks that the self-test found fastest, by the type of a card
    tuned          `batch_size` and `compile` that `musedrop tune` found fastest, by the type of a card, or "cpu"
    motion         how the photo is made to move first: the engine and the fields of `MotionRequest`; none: not at all
    """

    engine: str
    avatar: str
    audio: str
    work: str
    out: str
    cache: str
    models_dir: str
    cache_bytes: int = 1 << 30
    fps: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    output: Output = Output()
    limits: Limits = Limits()
    metadata: dict[str, str] = field(default_factory=dict)
    marks: dict[str, list[int]] = field(default_factory=dict)
    media: dict[str, str] = field(default_factory=dict)
    from_s: float | None = None
    to_s: float | None = None
    soundtrack_db: float = 0.0
    background: str = ""
    voices: tuple[GivenVoice, ...] = ()
    strict: bool = False
    forms: dict[str, str] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)
    motion: dict[str, Any] = field(default_factory=dict)

    @property
    def is_scene(self) -> bool:
        """Whether only a part of the result follows the voice, and the rest is the avatar's own."""
        return self.from_s is not None or self.to_s is not None

    @property
    def is_draft(self) -> bool:
        """Whether the result is one frame, which shows the face that would speak."""
        return self.options.get("draft") is True

    @property
    def files(self) -> JobFiles:
        return JobFiles(Path(self.work))

    def avatar_index_path(self, avatar_sha256: str) -> Path:
        """Return the folder in the cache that names the entries which were made of an avatar."""
        return Path(self.cache) / AVATAR_INDEX / avatar_sha256

    @property
    def first_out(self) -> str:
        """The folder for the first part of the video, beside that of the result."""
        return f"{self.out}.first"

    def to_dict(self) -> dict[str, Any]:
        voices = [asdict(voice) for voice in self.voices]
        return {
            **to_shallow_dict(self),
            "output": to_shallow_dict(self.output),
            "limits": to_shallow_dict(self.limits),
            "voices": voices,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Request:
        voices = tuple(GivenVoice(**voice) for voice in data.get("voices", ()))
        return cls(**{**data, "output": Output(**data["output"]), "limits": Limits(**data["limits"]), "voices": voices})


@dataclass(frozen=True, slots=True)
class Animation:
    """The clip that a motion engine makes of the photo before lips are moved, as a series of tasks.

    engine        its name
    key           of the clip in the cache
    units         number of units in each step of the engine
    memory_bytes  device memory that a worker needs for a unit; 0: unknown
    """

    engine: str
    key: str
    units: tuple[int, ...]
    memory_bytes: int = 0

    @property
    def tasks(self) -> tuple[int, ...]:
        """The number of spans of each task: encode, then the units of each step and what adds them, decode, encode."""
        return (1, *(units + 1 for units in self.units), 1, 1)


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result of `inspect`: all that later stages and the daemon need to plan a job.

    frames    frames of the result, round(duration_s * fps)
    fps       exact, as "25" or "30000/1001"
    width, height   of the result in pixels, both even
    duration_s      of the decoded audio
    units     work of each stage in units of that stage (frames, or 1); `render` and `prepare` are cut on the grid
    batch     units of `render` that a worker computes together: spans begin at its multiples
    encoder   of every part of this job; "auto" where the rendering device chooses it
    colour    of every frame of the result
    memory_bytes    device memory that a worker needs for a span, the loaded model included; 0: unknown
    notes     sentences for result.json: what was ignored, replaced or assumed
    voices    each voice of the job with its frames; none: one voice for all frames
    layers    what is heard together; none: the audio alone
    media_sha256    of the further media, by their role
    advice    what to do about the input, by codes
    details   the engine's own results, JSON
    animation the clip that has to be made of the photo first; None: there is none, or it has taken the photo's place
    """

    frames: int
    fps: str
    width: int
    height: int
    duration_s: float
    units: dict[str, int]
    batch: int = 1
    encoder: str = "libx264"
    colour: Colour = Colour()
    memory_bytes: int = 0
    avatar_sha256: str = ""
    audio_sha256: str = ""
    avatar_kind: Literal["image", "video"] = "image"
    notes: tuple[str, ...] = ()
    voices: tuple[Voice, ...] = ()
    layers: tuple[Layer, ...] = ()
    media_sha256: dict[str, str] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    animation: Animation | None = None

    @property
    def scene(self) -> Voice:
        """The first voice of the job, with the frames that follow it."""
        return self.all_voices[0]

    @property
    def all_voices(self) -> tuple[Voice, ...]:
        """The voices of the job, also where it has one for all frames."""
        return self.voices or (Voice(0, self.frames),)

    @property
    def faces_needed(self) -> int:
        """How many faces a frame must show so that those of the voices can be told apart; 0: the options say which."""
        return max((voice.face + 1 for voice in self.voices if voice.face is not None), default=0)

    @property
    def rate(self) -> Fraction:
        return Fraction(self.fps)

    def to_dict(self) -> dict[str, Any]:
        parts = {name: [asdict(part) for part in getattr(self, name)] for name in ("voices", "layers")}
        animation = self.animation and asdict(self.animation)
        return {**to_shallow_dict(self), "colour": to_shallow_dict(self.colour), **parts, "animation": animation}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Inspection:
        colour = Colour(**data.get("colour", {}))  # written by versions without a choice of colour
        parts: dict[str, Any] = {"voices": tuple(Voice(**voice) for voice in data.get("voices", ()))}
        layers = tuple(Layer(**{**layer, "mute_s": _to_pair(layer.get("mute_s"))}) for layer in data.get("layers", ()))
        animation = data.get("animation")
        parts |= {"animation": animation and Animation(**{**animation, "units": tuple(animation["units"])})}
        return cls(**{**data, "notes": tuple(data.get("notes", ())), "colour": colour, **parts, "layers": layers})


def _to_pair(times: list[float] | None) -> tuple[float, float] | None:
    """Return a pair that JSON made a list of."""
    return None if times is None else (times[0], times[1])


def is_short(outline: Mapping[str, Any]) -> bool:
    """Whether all stages after the inspection take about a second, and have one span each."""
    frames, units = outline["frames"], outline["units"]
    is_one_span = frames <= SHORT_FRAMES and units["render"] == frames and units["prepare"] == 1
    return bool(is_one_span and frames * outline["width"] * outline["height"] <= SHORT_PIXELS)


class Engine(Protocol):
    """A way to move the lips of an avatar. A worker keeps one instance for all jobs."""

    def inspect(self, request: Request, inspection: Inspection) -> Inspection:
        """Check the options and the avatar.

        Return the inspection with `units`, `memory_bytes`, `notes` and `details` filled in.
        """
        ...

    def prepare(
        self, request: Request, inspection: Inspection, start: int, stop: int, progress: ProgressCallback
    ) -> None:
        """Do units [start, stop) of the preparation.

        Where `inspection.units["prepare"]` is 1, write `request.files.prepared`. Where it is more,
        several devices may each do some units: write `request.files.prepared_part_path(start,
        stop)`. Another worker may have written the same in the meantime.
        """
        ...

    def complete(self, request: Request, inspection: Inspection, progress: ProgressCallback) -> None:
        """Make `request.files.prepared` of its parts. Only called where there are several."""
        ...

    def render(self, request: Request, inspection: Inspection, start: int, stop: int) -> Iterator[U8]:
        """Yield frames start..stop-1, uint8. Frame n depends on the job and on n alone.

        Each is BGR, (height, width, 3), or 4:2:0 planes below each other, (height * 3 / 2, width),
        in the colour of the inspection: those are encoded as they are. Where the output keeps
        transparency, each is BGRA, (height, width, 4). The caller closes the generator.
        """
        ...

    def report(self, request: Request, inspection: Inspection) -> dict[str, Any]:
        """Return figures for result.json once all is rendered.

        `thumbnail_frame` is the frame for preview.jpg, `notes` are sentences, the rest is the
        engine's own.
        """
        ...


@runtime_checkable
class SupportsLoad(Protocol):
    """An engine with weights, loaded once: when the worker starts, or before its first span."""

    def load(self, models_dir: str) -> dict[str, Any]:
        """Load the weights. Return stats for the ledger: "held_bytes", "batch" in frames."""
        ...


@runtime_checkable
class SupportsTrace(Protocol):
    """An engine whose results can be measured, because it knows where their faces are."""

    def trace_faces(self, request: Request, inspection: Inspection) -> list[FaceTrace]:
        """Return where the face of each voice is in all frames of a prepared job."""
        ...


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the daemon knows of an engine without importing it.

    factory   "module:class", called with the device
    kinds     of devices that it runs on, the preferred one first
    weights   its published files, below the models folder
    packages  modules that it imports, which `pip install '.[EXTRA]'` installs
    has_seed  whether its option `seed` makes another video
    """

    name: str
    factory: str
    kinds: tuple[DeviceKind, ...]
    weights: tuple[str, ...] = ()
    summary: str = ""
    packages: tuple[str, ...] = ()
    extra: str = ""
    has_seed: bool = False
