"""The settings as one frozen tree. Docs and the settings file show its descriptions."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from agent.fs import follow_links
from agent.fs.layout import Folders as Folders
from models.types import Limits, Output

DAY_S = 86400.0


def _resolve_path(path: Path, info: ValidationInfo) -> Path:
    """Make a path absolute. Relative ones are relative to the settings file."""
    base = (info.context or {}).get("base", Path.cwd())
    if "\0" in str(path):
        raise ValueError("a path has no zero bytes")
    try:
        return Path(base, path.expanduser())
    except RuntimeError as error:
        raise ValueError("there is no home folder for that ~") from error


def _check_prefixes(path_map: dict[str, Path]) -> dict[str, Path]:
    if bad := [prefix for prefix in path_map if not prefix.strip("\\/ ")]:
        raise ValueError(f"{json.dumps(bad[0])} stands for no folder")
    return path_map


Folder = Annotated[Path, Field(strict=False), AfterValidator(_resolve_path)]
Seconds = Annotated[float, Field(ge=0, le=DAY_S)]
Period = Annotated[float, Field(ge=0.05, le=3600)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class InboxSettings(Section):
    """When a dropped file counts as complete, and which files a job may read."""

    settle_s: Seconds = Field(
        default=1.0,
        description="Seconds a file must stay unchanged before it is taken, unless it is known to be whole.",
    )
    share_settle_s: Seconds = Field(
        default=5.0,
        description="The same for an inbox on a network share, where open files of other machines are not known.",
    )
    piece_settle_s: Seconds = Field(
        default=5.0,
        description="The same for a file that promises more than is there, as its header says, whose kind doesn't say"
        " where it ends, or that is empty: programs write some files in pieces."
        " A rename into place tells at once that a file is complete.",
    )
    patience_s: Seconds = Field(
        default=10.0,
        description="Seconds beyond the settle time after which the share says of a file that it is no job, and why.",
    )
    scan_s: Period = Field(
        default=5.0,
        description="Seconds between two scans of the inbox when no file event comes; events only shorten the wait.",
    )
    wait_media_s: Annotated[float, Field(ge=0, le=7 * DAY_S)] = Field(
        default=300.0, description="Seconds that a job file waits for media it names before the job fails."
    )
    keep_media_s: Annotated[float, Field(ge=0, le=7 * DAY_S)] = Field(
        default=60.0,
        description="Seconds that media stay in the inbox after their job has finished, for other jobs that name them.",
    )
    media_roots: tuple[Folder, ...] = Field(
        default=(),
        strict=False,
        description="Folders besides inbox and library from which a job may take media; none by default.",
    )
    path_map: Annotated[dict[str, Folder], AfterValidator(_check_prefixes)] = Field(
        default={},
        description="Names of folders on other machines, each with its folder here; job files may use these names.",
    )
    max_job_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = Field(
        default=1 << 20, description="The largest job file that is read, in bytes."
    )
    folders: bool = Field(
        default=True,
        description="Whether folders of the inbox are looked into: jobs and pairs in them are taken, and in one with"
        " the name of a library avatar voices alone, too.",
    )
    watch: Literal["auto", "events", "poll"] = Field(
        default="auto", description="How new files are noticed; auto polls on file systems that send no events."
    )


CardName = Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9A-Za-z/-]{4,100}$")]


class DevicesSettings(Section):
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
    workers_per_device: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = Field(
        default="auto",
        description="Worker processes on each card; each holds a model of its own in the card's memory. auto takes what"
        " `musedrop tune` found on this type of card, without it one.",
    )
    preload: bool = Field(
        default=True,
        description="Whether workers on cards load the engine that auto means here as soon as they start.",
    )
    idle_unload_s: Annotated[float, Field(ge=0, le=30 * DAY_S)] = Field(
        default=0.0,
        description="Idle seconds after which a worker on a card gives the card's memory back; its next job loads the"
        " model again. 0: never.",
    )
    cpu_workers: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0, description="Worker processes without a GPU; 0 means one for each core, at most 4."
    )

    def count_workers(self, cores: int) -> int:
        """Return how many CPU workers to start on a machine of `cores` cores."""
        return self.cpu_workers or max(1, min(4, cores))


class PoolSettings(Section):
    """How long the daemon waits for its workers."""

    stall_s: Annotated[float, Field(ge=0.1, le=DAY_S)] = Field(
        default=120.0, description="Seconds without progress after which a worker is killed and its work done again."
    )
    cancel_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=10.0, description="Seconds that a worker has to stop by itself when its job is cancelled."
    )
    max_interruptions: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="How often a job may lose its worker before it fails: the job may be the cause."
    )
    recycle_spans: Annotated[int, Field(ge=0, le=1 << 31)] = Field(
        default=10_000,
        description="Spans of work after which a worker is replaced, between two of them; 0: never. A new one takes"
        " seconds to import what MuseTalk needs.",
    )
    recycle_mib: Annotated[int, Field(ge=0, le=1 << 24)] = Field(
        default=2048,
        description="Growth of a worker's memory since its first span after which it is replaced, in MiB; 0: never.",
    )
    walls: bool = Field(
        default=True,
        description="Whether workers may open only the folders, and use only the system calls, that they need;"
        " docs/security.md says what that prevents.",
    )
    drain_s: Annotated[float, Field(ge=0, le=DAY_S)] = Field(
        default=600.0,
        description="Seconds that running spans may take when the daemon is stopped; unfinished ones are done again"
        " after the next start.",
    )
    selftest: bool = Field(
        default=True,
        description="Whether cards with MuseTalk's weights are tested once while no job needs them, and again when the"
        " card, its driver, torch or the weights are others.",
    )


class LimitsSettings(Section):
    """The largest input that is opened (a larger one fails with an error), and the least free disk space."""

    min_free_bytes: Annotated[int, Field(ge=0, le=1 << 50)] = Field(
        default=1 << 30,
        description="Bytes that must be free in the share and in the state folder; below, no further job is started.",
    )
    media_mib: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        default=4096, description="Size of one media file, in MiB."
    )
    archive_gib: Annotated[float, Field(gt=0, le=1 << 20)] = Field(
        default=8.0, description="Size of all files of a zip in the inbox, in GiB; a larger one is not unpacked."
    )
    megapixels: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=64.0, description="Pixels of one picture, in millions; guards against image bombs."
    )
    audio_s: Annotated[float, Field(gt=0, le=7 * DAY_S)] = Field(
        default=7200.0, description="Length of the audio, in seconds."
    )
    video_s: Annotated[float, Field(gt=0, le=7 * DAY_S)] = Field(
        default=7200.0, description="Length of an avatar video, in seconds."
    )
    inspect_s: Annotated[float, Field(gt=0, le=DAY_S)] = Field(
        default=120.0, description="Seconds that a worker may decode to find out what the media of a job are."
    )
    inspect_gigapixels: Annotated[float, Field(gt=0, le=1e6)] = Field(
        default=20.0,
        description="Pixels that it may decode for that, in thousands of millions; guards against long animations.",
    )
    inspect_gib: Annotated[float, Field(gt=0, le=1 << 20)] = Field(
        default=16.0, description="Sound and embedded notes that it may decode for that, in GiB."
    )
    inspect_memory_mib: Annotated[int, Field(ge=64, le=1 << 20)] = Field(
        default=1024, description="Memory that it may take for that beyond what an idle worker has, in MiB."
    )


class MusetalkSettings(Section):
    """Where the MuseTalk engine finds its weights."""

    models_dir: Folder | None = Field(
        default=None, description="Folder of the downloaded weights; without this key, `models` in the state folder."
    )


class OutputSettings(Section):
    """How videos are encoded if the job doesn't say."""

    crf: Annotated[int, Field(ge=0, le=51)] = Field(
        default=18, description="Quality of the picture: smaller is better and larger on disk."
    )
    encoder: Literal["auto", "libx264", "h264_nvenc"] = Field(
        default="auto", description="auto takes h264_nvenc where a card offers it, else libx264."
    )
    link_video: bool = Field(
        default=False,
        description="Whether each video is also outbox/NAME.mp4 (or .mov), a hard link beside the folder NAME.",
    )
    preview_first_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=20,
        description="Of longer videos the first seconds are shown in outbox/NAME.part while the others are made;"
        " 0: only of jobs that say preview_first.",
    )


class CacheSettings(Section):
    """Prepared avatars, kept for the next job."""

    folder: Folder | None = Field(
        default=None, description="Folder of the prepared avatars; without this key, `cache` in the state folder."
    )
    max_gib: Annotated[float, Field(ge=0, le=1 << 20)] = Field(
        default=20.0, description="Size of the avatar cache in GiB; the least recently used goes first."
    )


class StatusSettings(Section):
    """status.json and status.db in the share, for readers that can't open the database."""

    write_s: Period = Field(default=2.0, description="Seconds between two writes of status.json.")
    snapshot_s: Seconds = Field(
        default=0.0,
        description="Seconds between two copies of the database to status.db in the share, when anything changed;"
        " 0: none.",
    )


Days = Annotated[float, Field(ge=0, le=36500)]
Gibibytes = Annotated[float, Field(ge=0, le=1 << 20)]


class RetentionSettings(Section):
    """What is deleted when it is old, or too large; never an unfinished job, and never a result."""

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
    inbox_days: Days = Field(
        default=0.0,
        description="Days that files which belong to no job stay in the inbox; 0: for ever. Copies that a client made"
        " for a job which never came go after a day.",
    )
    logs_days: Days = Field(
        default=30.0, description="Days after their last line that logs of workers are kept; 0: for ever."
    )
    rows_days: Days = Field(
        default=365.0, description="Days that the ledger remembers a job after its end; 0: for ever."
    )


def _check_node_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,62}", name):
        raise ValueError(f"{json.dumps(name)} is no name of a machine: small letters, digits, points and hyphens")
    return name


def _check_address(address: str) -> str:
    if address and not re.fullmatch(r"[A-Za-z0-9.\[\]:-]{1,253}:[0-9]{1,5}", address):
        raise ValueError("should be an address and a port, as in 10.0.0.1:6379")
    return address


NodeName = Annotated[str, AfterValidator(_check_node_name)]
Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]


def _check_node_folder(path: str) -> str:
    if not path.startswith(("/", "~/")) or ".." in path.split("/"):
        raise ValueError("node_folder must begin with / or ~/")
    return path


class ClusterSettings(Section):
    """Other machines whose cards are used, too; they have the weights at the same path."""

    address: Annotated[str, AfterValidator(_check_address)] = Field(
        default="", description="Address and port of the head of a Ray cluster, such as 10.0.0.1:6379."
    )
    nodes: dict[NodeName, Words | Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default={},
        description="A name for each machine that is used, and which it is: its name or address in the Ray cluster;"
        " or, without Ray, the program and arguments that lead to its agent, run without a shell, such as"
        ' ["ssh", "box2", "/opt/musedrop/.venv/bin/python", "-m", "gpu_pool.agent"].',
    )
    object_store_mib: Annotated[int, Field(ge=0, le=1 << 24)] = Field(
        default=0,
        description="MiB of object store without which a machine of a Ray cluster is not used; 0: any, since files"
        " pass beside it.",
    )
    shared_state: bool = Field(
        default=False,
        description="Whether all machines mount the state folder, and the cache, at the same paths."
        " Otherwise the files of jobs are sent to them and back.",
    )
    node_folder: Annotated[str, AfterValidator(_check_node_folder)] = Field(
        default="~/.cache/musedrop",
        description="Folder on each machine for files of jobs that are sent there.",
    )
    node_gib: Annotated[float, Field(gt=0, le=1 << 20)] = Field(
        default=20.0,
        description="GiB of files of jobs that each machine keeps, and of prepared avatars as much as here.",
    )
    fence_s: Annotated[float, Field(ge=2, le=3600)] = Field(
        default=8.0,
        description="Seconds without a word from the daemon after which a machine ends its workers; less than lost_s.",
    )
    lost_s: Annotated[float, Field(ge=3, le=3600)] = Field(
        default=10.0, description="Seconds of silence after which a machine is lost and its work is done elsewhere."
    )

    @model_validator(mode="after")
    def _check_times(self) -> ClusterSettings:
        """Refuse times by which work would begin elsewhere before it has ended there."""
        if self.fence_s + 1 > self.lost_s:
            raise ValueError("fence_s must be at least a second less than lost_s")
        if not self.address and (named := [node for node, leads in self.nodes.items() if isinstance(leads, str)]):
            raise ValueError(f"{named[0]} is a machine of a Ray cluster, whose address is missing")
        return self


class HooksSettings(Section):
    """What `musedrop hooks`, a program beside the daemon, runs or calls when a job has ended."""

    done: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="A program and its arguments, run for each done job, without a shell. {path} is the folder of the"
        " result, {video} the video, {uid} the job; its row is JSON on the standard input.",
    )
    failed: tuple[str, ...] = Field(
        default=(), strict=False, description="The same for each failed job; {path} is its folder in failed."
    )
    url: str = Field(default="", description="Address that gets a signed POST for each job that is done or has failed.")
    hosts: tuple[str, ...] = Field(default=(), strict=False, description="Hosts that url may name.")
    secret_file: str = Field(
        default="",
        description="Absolute path of the file with the secret that requests are signed with, at least 16 characters.",
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=60.0, description="Seconds that one run or one request may take."
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8, description="How often a hook is tried, with pauses of 2 s, 4 s ... and at most five minutes."
    )


class PageSettings(Section):
    """The page of `musedrop page`, a program beside the daemon."""

    listen: str = Field(
        default="127.0.0.1:8765",
        description="Address and port of the page. One that other machines reach needs token_file and hosts.",
    )
    hosts: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.\[\]:-]{1,253}$")], ...] = Field(
        default=(),
        strict=False,
        description="Names and addresses, without a port, by which browsers may ask for the page, beside localhost.",
    )
    token_file: str = Field(
        default="",
        description="Absolute path of the file with the secret of login links, which the first start makes; without it"
        " the page has no login.",
    )
    idle_s: Annotated[float, Field(ge=0, le=DAY_S)] = Field(
        default=600.0,
        description="Seconds after the last viewer after which a page that systemd started for one ends; 0: never.",
    )


class SpeechSettings(Section):
    """The program that speaks texts: `NAME.txt` beside a face, or the `audio` of a job; off without a command."""

    command: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="A program and its arguments, run without a shell. The text comes on the standard input, or in the"
        " file {text}; the sound goes to the file {wav}, or without this word to the standard output.",
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=120.0, description="Seconds that speaking one text may take."
    )


Share = Annotated[float, Field(ge=0, le=1)]


class QualitySettings(Section):
    """From which figures on a result has warnings; docs/quality.md explains the figures."""

    min_sharpness: Share = Field(
        default=0.3, description="Least detail of the mouth, as a share of that of the upper face; 0: no warning."
    )
    min_drift: Share = Field(
        default=0.5, description="Least detail of the mouth in its softest second, as a share of that in the first."
    )
    max_jitter: Annotated[float, Field(ge=0, le=100)] = Field(
        default=1.0, description="Most trembling of what is painted, in percent of the width of the face."
    )
    max_seam: Annotated[float, Field(ge=0, le=255)] = Field(
        default=6.0, description="Greatest step of tone at the edge of what is painted, in levels of 0 to 255."
    )
    max_no_face: Share = Field(default=0.2, description="Largest share of frames without a face.")
    min_sync: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.3, description="Least correlation of the opening of the mouth with the voice; -1: no warning."
    )
    max_lag_ms: Annotated[float, Field(ge=0, le=1000)] = Field(
        default=100.0, description="Most milliseconds that the mouth may come before or after the voice."
    )
    max_silent_motion: Share = Field(
        default=0.3, description="Largest share of the silence in which the mouth may move."
    )


class CredentialsSettings(Section):
    """What results say of themselves, signed (C2PA); docs/credentials.md."""

    sign: Literal["auto", "off"] = Field(
        default="auto", description="auto signs each result where the extra `credentials` is installed; off signs none."
    )
    names: bool = Field(
        default=False, description="Whether the names of job and inputs are signed, too, and not only their hashes."
    )


class LogSettings(Section):
    """What the daemon logs, and where its workers' logs are."""

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


class Settings(Section):
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
    cluster: ClusterSettings = ClusterSettings()
    limits: LimitsSettings = LimitsSettings()
    musetalk: MusetalkSettings = MusetalkSettings()
    output: OutputSettings = OutputSettings()
    cache: CacheSettings = CacheSettings()
    status: StatusSettings = StatusSettings()
    retention: RetentionSettings = RetentionSettings()
    hooks: HooksSettings = HooksSettings()
    page: PageSettings = PageSettings()
    speech: SpeechSettings = SpeechSettings()
    quality: QualitySettings = QualitySettings()
    credentials: CredentialsSettings = CredentialsSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _check_state_folder(self) -> Settings:
        """Refuse a state folder inside a folder of users, such as the inbox."""
        state = follow_links(self.state)
        taken = [folder for folder in self.folders.of_share if state.is_relative_to(follow_links(folder))]
        if taken:
            raise ValueError(f"state lies inside {taken[0]}, which is for users' files")
        return self

    @property
    def folders(self) -> Folders:
        """The folders by their real paths: links above the share are followed, those inside it never."""
        cache, logs = self.cache.folder or self.state / "cache", self.log.folder or self.state / "logs"
        return Folders(*(Path(os.path.realpath(folder)) for folder in (self.share, self.state, cache, logs)))

    @property
    def models_dir(self) -> Path:
        return self.musetalk.models_dir or self.state / "models"

    @property
    def media_limits(self) -> Limits:
        """The limits in the form that workers take."""
        asked = self.limits
        return Limits(
            media_bytes=asked.media_mib << 20,
            pixels=round(asked.megapixels * 1e6),
            audio_s=asked.audio_s,
            video_s=asked.video_s,
            inspect_s=asked.inspect_s,
            inspect_pixels=round(asked.inspect_gigapixels * 1e9),
            inspect_bytes=round(asked.inspect_gib * 2**30),
            inspect_memory_bytes=asked.inspect_memory_mib << 20,
        )

    @property
    def encoding(self) -> Output:
        """The encoding of a job that doesn't ask for one."""
        return Output(crf=self.output.crf, encoder=self.output.encoder)


class CurrentSettings:
    """The settings in force: every part of the daemon reads them here, and a reload replaces them once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def current(self) -> Settings:
        return self._settings

    def replace(self, settings: Settings) -> None:
        self._settings = settings
