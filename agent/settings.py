"""The settings: one frozen tree, read once from one TOML file. Its field descriptions are also docs and comments."""

from __future__ import annotations

import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.fields import FieldInfo

from agent.errors import UserError
from agent.fs import is_file
from models.types import Limits, Output

NAME = "musedrop.toml"
VARIABLE = "MUSEDROP_CONFIG"
DAY_S = 86400.0


class BadSettings(UserError):
    """Settings that can't be used: `where` is the file or what named it, `key` a dotted name or ""."""

    exit_code = 78

    def __init__(self, where: str, key: str, message: str, hint: str) -> None:
        super().__init__(" ".join(part for part in (f"{where}:", key, message, hint) if part))
        self.where, self.key, self.message, self.hint = where, key, message, hint


def _from_file(path: Path, info: ValidationInfo) -> Path:
    """Relative paths are relative to the settings file, wherever the daemon was started."""
    base = (info.context or {}).get("base", Path.cwd())
    if "\0" in str(path):
        raise ValueError("a path has no zero bytes")
    try:
        return Path(base, path.expanduser())
    except RuntimeError as error:
        raise ValueError("there is no home folder for that ~") from error


def _prefixes(path_map: dict[str, Path]) -> dict[str, Path]:
    if bad := [prefix for prefix in path_map if not prefix.strip("\\/ ")]:
        raise ValueError(f"{json.dumps(bad[0])} stands for no folder")
    return path_map


Folder = Annotated[Path, Field(strict=False), AfterValidator(_from_file)]
Seconds = Annotated[float, Field(ge=0, le=DAY_S)]
Period = Annotated[float, Field(ge=0.05, le=3600)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class InboxSettings(_Section):
    """When a dropped file counts as complete, and which files a job may read."""

    settle_s: Seconds = Field(
        default=1.0,
        description="Seconds a file must stay unchanged before it is taken, unless it is known to be whole.",
    )
    share_settle_s: Seconds = Field(
        default=5.0,
        description="The same where the inbox lies on a network share, which says nothing about who writes.",
    )
    scan_s: Period = Field(
        default=5.0,
        description="Seconds between two looks at the inbox when no file event comes; events only shorten the wait.",
    )
    wait_media_s: Annotated[float, Field(ge=0, le=7 * DAY_S)] = Field(
        default=300.0, description="Seconds that a job file waits for media it names before the job fails."
    )
    keep_media_s: Annotated[float, Field(ge=0, le=7 * DAY_S)] = Field(
        default=60.0,
        description="Seconds that media stay in the inbox after their job has finished, for others that name them.",
    )
    media_roots: tuple[Folder, ...] = Field(
        default=(),
        strict=False,
        description="Folders besides inbox and library from which a job may take media; none by default.",
    )
    path_map: Annotated[dict[str, Folder], AfterValidator(_prefixes)] = Field(
        default={},
        description="Folders as other machines call them, and as this one does; job files may name media there.",
    )
    max_job_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = Field(
        default=1 << 20, description="The largest job file that is read, in bytes."
    )
    watch: Literal["auto", "events", "poll"] = Field(
        default="auto", description="How new files are noticed; auto polls on file systems that send no events."
    )


CardName = Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9A-Za-z/-]{4,100}$")]


class DevicesSettings(_Section):
    """Where work runs."""

    only: tuple[CardName, ...] = Field(
        default=(),
        strict=False,
        description="Cards that are used, by UUID or the beginning of it; all where this is empty."
        " `musedrop devices` lists them.",
    )
    exclude: tuple[CardName, ...] = Field(
        default=(), strict=False, description="Cards that are left alone, by UUID or the beginning of it."
    )
    reserve_mib: Annotated[int, Field(ge=0, le=1 << 20)] = Field(
        default=256, description="Memory of each card that is never promised to a job, in MiB."
    )
    workers_per_device: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1, description="Worker processes on each card; each holds a model of its own in the card's memory."
    )
    preload: bool = Field(
        default=True,
        description="Whether workers on cards load the engine that auto means here as soon as they start.",
    )
    cpu_workers: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0, description="Worker processes without a GPU; 0 means one for each core, at most 4."
    )

    def workers(self, cores: int) -> int:
        """How many CPU workers to start on a machine of `cores` cores."""
        return self.cpu_workers or max(1, min(4, cores))


class PoolSettings(_Section):
    """How patient the daemon is with its workers."""

    stall_s: Annotated[float, Field(ge=0.1, le=DAY_S)] = Field(
        default=120.0, description="Seconds without progress after which a worker is killed and its work done again."
    )
    cancel_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=10.0, description="Seconds that a worker has to stop by itself when its job is cancelled."
    )
    max_interruptions: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="How often a job may lose its worker before it fails: it may be what kills them."
    )
    recycle_spans: Annotated[int, Field(ge=0, le=1 << 31)] = Field(
        default=10_000,
        description="Pieces of work after which a worker is replaced, between two of them; 0: never. A new one takes"
        " seconds to import what MuseTalk needs.",
    )
    recycle_mib: Annotated[int, Field(ge=0, le=1 << 24)] = Field(
        default=2048,
        description="Growth of a worker's memory since its first piece of work after which it is replaced, in MiB;"
        " 0: never.",
    )
    drain_s: Annotated[float, Field(ge=0, le=DAY_S)] = Field(
        default=600.0,
        description="Seconds that pieces of work may go on when the daemon is stopped; then they are done again after"
        " the next start.",
    )


class LimitsSettings(_Section):
    """The largest input that is opened, what is larger fails with a clear error; and the least free disk space."""

    min_free_bytes: Annotated[int, Field(ge=0, le=1 << 50)] = Field(
        default=1 << 30,
        description="Bytes that must be free in the share and in the state folder; below, no further job is started.",
    )
    media_mib: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        default=4096, description="Size of one media file, in MiB."
    )
    megapixels: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=40.0, description="Pixels of one picture, in millions; guards against image bombs."
    )
    audio_s: Annotated[float, Field(gt=0, le=7 * DAY_S)] = Field(
        default=7200.0, description="Length of the audio, in seconds."
    )
    video_s: Annotated[float, Field(gt=0, le=7 * DAY_S)] = Field(
        default=7200.0, description="Length of an avatar video, in seconds."
    )


class MusetalkSettings(_Section):
    """Where the MuseTalk engine finds its weights."""

    models_dir: Folder | None = Field(
        default=None, description="Folder of the downloaded weights; without this key, `models` in the state folder."
    )


class OutputSettings(_Section):
    """How videos are encoded where the job doesn't say."""

    crf: Annotated[int, Field(ge=0, le=51)] = Field(
        default=18, description="Quality of the picture: smaller is better and larger on disk."
    )
    encoder: Literal["auto", "libx264", "h264_nvenc"] = Field(
        default="auto", description="auto takes h264_nvenc where a card offers it, else libx264."
    )


class CacheSettings(_Section):
    """Prepared avatars, kept for the next job."""

    folder: Folder | None = Field(
        default=None, description="Folder of the prepared avatars; without this key, `cache` in the state folder."
    )
    max_gib: Annotated[float, Field(ge=0, le=1 << 20)] = Field(
        default=20.0, description="Size of the avatar cache in GiB; the least recently used goes first."
    )


class StatusSettings(_Section):
    """status.json and status.db in the share, for those who can't open the database."""

    write_s: Period = Field(default=2.0, description="Seconds between two writes of status.json.")
    snapshot_s: Seconds = Field(
        default=0.0,
        description="Seconds between two copies of the database to status.db in the share, when anything changed;"
        " 0: none.",
    )


Days = Annotated[float, Field(ge=0, le=36500)]
Gibibytes = Annotated[float, Field(ge=0, le=1 << 20)]


class RetentionSettings(_Section):
    """What is deleted when it has grown old, or too large; nothing that is unfinished, and never a result."""

    archive_days: Days = Field(
        default=30.0, description="Days that the inputs of done jobs stay in the archive; 0: for ever."
    )
    archive_gib: Gibibytes = Field(
        default=0.0, description="Size of the archive in GiB, beyond which the oldest inputs go; 0: any size."
    )
    failed_days: Days = Field(
        default=30.0, description="Days that failed and cancelled jobs stay in failed; 0: for ever."
    )
    failed_gib: Gibibytes = Field(
        default=0.0, description="Size of failed in GiB, beyond which the oldest jobs go; 0: any size."
    )
    logs_days: Days = Field(
        default=30.0, description="Days after their last line that logs of workers are kept; 0: for ever."
    )
    rows_days: Days = Field(
        default=365.0, description="Days that the ledger remembers a job after its end; 0: for ever."
    )


class LogSettings(_Section):
    """What the daemon says, and where its workers' own words go."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least serious message that is written."
    )
    format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="text for people, json (one object a line) for log collectors; auto is the journal, with its"
        " fields, where the daemon is a service of systemd, else text.",
    )
    folder: Folder | None = Field(
        default=None, description="Folder of the workers' logs; without this key, `logs` in the state folder."
    )


@dataclass(frozen=True, slots=True)
class Folders:
    """Where everything lies. `share` is for users and may be exported, `state` is the daemon's own local disk."""

    share: Path
    state: Path
    cache: Path
    logs: Path

    @property
    def inbox(self) -> Path:
        return self.share / "inbox"

    @property
    def outbox(self) -> Path:
        return self.share / "outbox"

    @property
    def failed(self) -> Path:
        return self.share / "failed"

    @property
    def archive(self) -> Path:
        return self.share / "archive"

    @property
    def avatars(self) -> Path:
        """The avatar library."""
        return self.share / "avatars"

    @property
    def status_file(self) -> Path:
        return self.share / "status.json"

    @property
    def snapshot(self) -> Path:
        """A copy of the ledger, for readers on other machines."""
        return self.share / "status.db"

    @property
    def claimed(self) -> Path:
        """Job files that were taken out of the inbox; on the share, so that taking is one rename."""
        return self.share / ".musedrop" / "claimed"

    @property
    def staging(self) -> Path:
        """Results on their way to the outbox; on the share, so that publishing is one rename."""
        return self.share / ".musedrop" / "staging"

    @property
    def trash(self) -> Path:
        """What is being deleted; on the share, so that it disappears by one rename."""
        return self.share / ".musedrop" / "trash"

    @property
    def mark(self) -> Path:
        """By this file the ledger knows its share again."""
        return self.share / ".musedrop" / "share-id"

    @property
    def ledger(self) -> Path:
        return self.state / "jobs.db"

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def nvml_log(self) -> Path:
        return self.logs / "nvml.log"

    @property
    def lock(self) -> Path:
        return self.state / "daemon.lock"

    @property
    def shared(self) -> tuple[Path, ...]:
        """The folders of the share."""
        return (self.inbox, self.outbox, self.failed, self.archive, self.avatars, self.claimed, self.staging)

    @property
    def own(self) -> tuple[Path, ...]:
        """The folders of the state."""
        return (self.work, self.cache, self.logs)


class Settings(_Section):
    """Everything that can be set."""

    share: Folder = Field(
        description="The folder of users: inbox, outbox, failed, archive, avatars; may be exported over SMB or NFS."
    )
    state: Folder = Field(
        description="The daemon's own folder: jobs.db, work, cache, logs; on a local disk, never on a network share."
    )
    inbox: InboxSettings = InboxSettings()
    devices: DevicesSettings = DevicesSettings()
    pool: PoolSettings = PoolSettings()
    limits: LimitsSettings = LimitsSettings()
    musetalk: MusetalkSettings = MusetalkSettings()
    output: OutputSettings = OutputSettings()
    cache: CacheSettings = CacheSettings()
    status: StatusSettings = StatusSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _apart(self) -> Settings:
        """A ledger in the inbox would be taken for a dropped file, one in the outbox for a result."""
        taken = [folder for folder in self.folders.shared if self.state.resolve().is_relative_to(folder.resolve())]
        if taken:
            raise ValueError(f"state lies inside {taken[0]}, which is for users' files")
        return self

    @property
    def folders(self) -> Folders:
        cache, logs = self.cache.folder or self.state / "cache", self.log.folder or self.state / "logs"
        return Folders(self.share, self.state, cache, logs)

    @property
    def models_dir(self) -> Path:
        return self.musetalk.models_dir or self.state / "models"

    @property
    def media_limits(self) -> Limits:
        """The limits as workers take them."""
        asked = self.limits
        return Limits(asked.media_mib << 20, round(asked.megapixels * 1e6), asked.audio_s, asked.video_s)

    @property
    def encoding(self) -> Output:
        """The encoding of a job that says nothing about it."""
        return Output(crf=self.output.crf, encoder=self.output.encoder)


# reading -------------------------------------------------------------------------------------------------------------


def find(explicit: Path | None, env: Mapping[str, str], cwd: Path) -> Path:
    """The settings file to use: --config, $MUSEDROP_CONFIG, or the first of the usual places. Raises BadSettings."""
    named = explicit or (Path(env[VARIABLE]) if env.get(VARIABLE) else None)
    home = [Path(env["HOME"], ".config", "musedrop", NAME)] if env.get("HOME") else []
    places = [cwd / named] if named else [cwd / NAME, *home, Path("/etc/musedrop", NAME)]
    found = next((place for place in places if is_file(place)), None)
    if found is not None:
        return found
    looked = "there is no settings file; looked for " + ", ".join(str(place) for place in places) + "."
    hint = "Make one with `musedrop init DIR`, or name one with --config or MUSEDROP_CONFIG."
    raise BadSettings("--config" if explicit else VARIABLE if named else "musedrop", "", looked, hint)


def load(path: Path) -> Settings:
    """Read and check the settings. Raises BadSettings, which names the file and the key and says what to do."""
    path = path.absolute()
    try:
        return Settings.model_validate(_toml(path), context={"base": path.parent})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
    raise _refusal(str(path), ".".join(part for part in problem["loc"] if isinstance(part, str)), problem)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise BadSettings(
            str(path), "", f"can't be read: {error.strerror}.", "`musedrop init DIR` makes one."
        ) from None
    except UnicodeDecodeError as error:
        raise BadSettings(str(path), "", f"is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise BadSettings(
            str(path), "", f"is not TOML: {error}.", "Texts stand in quotes, and each key stands there once."
        ) from None


EXPECTED = {
    "path_type": "should be a text",
    "tuple_type": "should be a list of texts, in [ ]",
    "string_pattern_mismatch": "should be the UUID of a card, or how it begins, as in GPU-5e1f or MIG-77aa",
}


def _refusal(where: str, key: str, problem: Mapping[str, Any]) -> BadSettings:
    if problem["type"] == "extra_forbidden":
        near = _nearest(key)
        hint = f"Did you mean {near}?" if near else "See docs/settings.md for those that there are."
        return BadSettings(where, key, "is not a key of the settings.", hint)
    description = dict(_fields()).get(key)
    hint = (description and description.description) or ""
    if problem["type"] == "missing":
        return BadSettings(where, key, "is missing.", hint)
    if problem["type"] == "model_type":
        return BadSettings(where, key, "is a section, not a key.", f"Write [{key}] on a line of its own.")
    said = EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return BadSettings(
        where, key, f"is {json.dumps(problem['input'], default=str)}: {said}." if key else f"{said}.", hint
    )


def _nearest(key: str) -> str:
    known = [*(name for name, _ in _sections()), *(name for name, _ in _fields())]
    leaf = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == leaf]
    return next(iter(same or difflib.get_close_matches(key, known, n=1)), "")


# describing ----------------------------------------------------------------------------------------------------------


def _sections() -> Iterator[tuple[str, type[_Section]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            yield name, field.annotation


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every key by its dotted name, in the order of the file."""
    sections = dict(_sections())
    yield from ((name, field) for name, field in Settings.model_fields.items() if name not in sections)
    for section, model in sections.items():
        yield from ((f"{section}.{name}", field) for name, field in model.model_fields.items())


def annotated(share: str, state: str, cache: str = "", logs: str = "") -> str:
    """A settings file with every key, its default and why; only the folders that are given are set."""
    lines = [f"# {line}" for line in HEAD]
    given = {"share": share, "state": state, "cache.folder": cache, "log.folder": logs}
    values = {name: folder for name, folder in given.items() if folder}
    for name, field in _fields():
        section, _, key = name.rpartition(".")
        if section and f"[{section}]" not in lines:
            lines += ["", "", f"[{section}]", f"# {dict(_sections())[section].__doc__}"]
        lines += ["", *_comment(field), _assignment(key, name, values, field)]
    return "\n".join(lines) + "\n"


HEAD = (
    "The settings of musedrop. Every key is here: a line that begins with # and no blank shows the default",
    "that is in force; take the # away to change it. An unknown key is refused. Relative paths are relative",
    "to this file. The daemon reads it when it starts, and again at SIGHUP; docs/service.md says what that changes.",
)


IN_STATE = {"musetalk.models_dir": "models", "cache.folder": "cache", "log.folder": "logs"}
"""Folders that lie in the state folder unless they are set."""


def _comment(field: FieldInfo) -> list[str]:
    allowed = _allowed(field)
    text = f"{field.description} ({allowed})" if allowed else str(field.description)
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _assignment(key: str, name: str, values: Mapping[str, str], field: FieldInfo) -> str:
    if name in values:
        return f"{key} = {_toml_value(values[name])}"
    if name in IN_STATE:
        return f"#{key} = {_toml_value(values['state'].rstrip('/') + '/' + IN_STATE[name])}"
    return f"#{key} = {_toml_value(field.default)}"


def _toml_value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _allowed(field: FieldInfo) -> str:
    """The choices or the range of a key, as words; "" if anything goes."""
    choices = [json.dumps(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return ", ".join(choices)
    bounds = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)
    }
    low = f"{bounds['ge']:.16g}" if "ge" in bounds else f"above {bounds['gt']:.16g}" if "gt" in bounds else ""
    return f"{low} to {bounds['le']:.16g}" if low else ""


def table() -> str:
    """The keys as a Markdown table: key, default, what is allowed, what for."""
    rows = ["| key | default | allowed | what for |", "| --- | --- | --- | --- |"]
    rows += [f"| `{name}` | {_default(field)} | {_allowed(field)} | {field.description} |" for name, field in _fields()]
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    return "not set" if field.default is None else f"`{_toml_value(field.default)}`"
