"""Errors that people see: what a command line prints, and every published code.

Standard library only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

ErrorGroup = Literal["job", "media", "weights", "work", "worker"]


class UserError(Exception):
    """An error that the user can fix: the command line prints the message and exits."""

    exit_code = 2


class ErrorCode(StrEnum):
    """The code of a failed job in the ledger and error.json; docs/errors.md lists all.

    group        what failed: the job file, its media, the weights, the work; "worker" codes occur
                 only in job_events
    explanation  what happened, as Markdown for the tables of the docs
    hint         what to do, where that is always the same; "" where it depends
    """

    group: ErrorGroup
    explanation: str
    hint: str

    def __new__(cls, code: str, group: ErrorGroup, explanation: str, hint: str = "") -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.group, member.explanation, member.hint = group, explanation, hint
        return member

    TOO_BIG = (
        "too_big",
        "job",
        "The file is larger than 1 MiB (or than `inbox.max_job_bytes` of the settings).",
        "Put media files beside the job file, not into it.",
    )
    BAD_ENCODING = (
        "bad_encoding",
        "job",
        "The bytes are neither UTF-8 nor UTF-16 with a byte order mark, or some of them are zero.",
    )
    NOT_JSON = (
        "not_json",
        "job",
        "The text is not JSON; the message says where. `NaN` and `Infinity` are not JSON either.",
    )
    TRAILING_COMMA = (
        "trailing_comma",
        "job",
        "A comma stands before a closing `}` or `]`; JSON doesn't allow that.",
        "Remove that comma: JSON doesn't allow it.",
    )
    NOT_AN_OBJECT = (
        "not_an_object",
        "job",
        "The JSON is a list, a text or a number, not an object `{...}`.",
        "Put it in braces: {...}.",
    )
    BAD_VERSION = ("bad_version", "job", "`version` is not 1.", 'Write "version": 1, or leave it out.')
    UNKNOWN_KEY = ("unknown_key", "job", "A key that no version 1 job has; the hint names the nearest one.")
    DUPLICATE_KEY = (
        "duplicate_key",
        "job",
        "The same thing is said twice: by one key, or under two names.",
        "Keep one of them.",
    )
    MISSING_KEY = ("missing_key", "job", "The job doesn't say which face, or which voice.")
    BAD_VALUE = ("bad_value", "job", "A value of the wrong type or out of range.")
    OUTSIDE_ROOTS = (
        "outside_roots",
        "job",
        "A path leads out of the inbox, the avatar library and `inbox.media_roots`.",
        "copy the file into the inbox beside the job file and give its bare name, "
        "or have its folder added to media_roots or path_map in the settings",
    )
    MISSING_MEDIA = (
        "missing_media",
        "job",
        "A file that the job names didn't come within `inbox.wait_media_s`, or was taken away.",
        "put the file into the inbox beside the job file, then `musedrop retry` the job or drop it again",
    )
    MEDIA_CHANGED = (
        "media_changed",
        "job",
        "A file of the job was changed, also in place, or replaced between its acceptance and its start, or by a link.",
        "`musedrop retry` the job: it takes the file as it is then",
    )
    INPUTS_GONE = (
        "inputs_gone",
        "job",
        "The job was to be tried again, but its files in `failed` had been deleted ([retention](retention.md)).",
        "drop the job file and its media again",
    )
    ID_CONFLICT = (
        "id_conflict",
        "job",
        "An earlier job had the same `id` and asked for something else;"
        " with the same content it would have got that job's result.",
        "give this job an id of its own, or none",
    )
    ENGINE_UNAVAILABLE = (
        "engine_unavailable",
        "job",
        "The engine that was asked for can't run here; the message says what is missing.",
    )
    BAD_OPTION = ("bad_option", "job", "An engine option that doesn't exist or is out of range.")
    BAD_PROMPT = (
        "bad_prompt",
        "job",
        "A prompt of `motion` is too long for the text encoder, or its brackets don't match.",
    )
    MOTION_SIZE = (
        "motion_size",
        "job",
        "No device has memory for a clip of that size; the hint names the size that fits.",
    )

    NOT_READABLE = (
        "not_readable",
        "media",
        "The job file or one of its media is there, but the daemon's user may not read it,"
        " or the disk has bad sectors under it.",
        "give the daemon's user the right to read the file (chmod a+r), or drop it again, then "
        "`musedrop retry` the job",
    )
    UNSUPPORTED_FILE = (
        "unsupported_file",
        "job",
        "A file was surely meant as a job, or as half of one, but musedrop doesn't read files of its kind or name.",
    )
    SPEECH_FAILED = (
        "speech_failed",
        "media",
        "The text that is the voice could not be spoken by the program of `[speech]`; the message says why.",
    )
    MEDIA_TOO_LARGE = ("media_too_large", "media", "The file is larger than `limits.media_mib`.")
    AUDIO_UNREADABLE = ("audio_unreadable", "media", "The file is no sound, or is damaged.")
    AUDIO_EMPTY = ("audio_empty", "media", "The file holds no sound at all.")
    AUDIO_TOO_SHORT = ("audio_too_short", "media", "Less than 0.04 s of sound.")
    AUDIO_TOO_LONG = ("audio_too_long", "media", "More than `limits.audio_s`.")
    AVATAR_UNREADABLE = ("avatar_unreadable", "media", "The file is neither picture nor video, or is damaged.")
    AVATAR_TOO_LARGE = (
        "avatar_too_large",
        "media",
        "More pixels than `limits.megapixels`, or a side of more than 16,384 pixels.",
    )
    AVATAR_TOO_SMALL = ("avatar_too_small", "media", "A side of fewer than 16 pixels.")
    MEDIA_TOO_COSTLY = (
        "media_too_costly",
        "media",
        "To find out what the media are takes more than `limits.inspect_s`, `inspect_gigapixels`, `inspect_gib`"
        " or `inspect_memory_mib` allow.",
    )
    VIDEO_TOO_LONG = ("video_too_long", "media", "The avatar video is longer than `limits.video_s`.")
    POOR_INPUT = (
        "poor_input",
        "media",
        "The job is `strict`, and there is advice about its face or its voice ([quality.md](quality.md)).",
    )
    NO_FACE = ("no_face", "media", "No face was found in the avatar.")

    WEIGHTS_MISSING = (
        "weights_missing",
        "weights",
        "Weight files of the version that was asked for are not in `musetalk.models_dir`.",
    )
    WEIGHTS_DAMAGED = (
        "weights_damaged",
        "weights",
        "A weight file is cut off, is something else, or doesn't fit its network.",
    )
    WEIGHTS_UNSAFE = (
        "weights_unsafe",
        "weights",
        "A weight file holds code instead of tensors. None of it was run.",
    )
    DOWNLOAD_FAILED = (
        "download_failed",
        "weights",
        "`musedrop models fetch` couldn't get a file, or got another one than it should be.",
    )

    ENCODER_UNAVAILABLE = (
        "encoder_unavailable",
        "work",
        "The encoder that was asked for doesn't work here."
        " Where `auto` had chosen it, the job is rendered again with libx264.",
    )
    DISK_FULL = ("disk_full", "work", "The disk filled up while the job ran.")
    PART_DAMAGED = ("part_damaged", "work", "A part of the video was damaged on disk; its frames are rendered again.")
    RESULT_INVALID = ("result_invalid", "work", "The finished video failed its verification; it was not published.")
    OUT_OF_MEMORY = ("out_of_memory", "work", "Memory ran out.")
    TIMEOUT = (
        "timeout",
        "work",
        "The job took longer than its `timeout_s`.",
        "give it more time (timeout_s), a shorter audio, or more devices",
    )
    INTERRUPTED = (
        "interrupted",
        "work",
        "Its workers died more often than `pool.max_interruptions`.",
        "see the worker's log in the state folder; `musedrop doctor` checks the devices; then retry the job",
    )
    POISON = (
        "poison",
        "work",
        "The job crashed its worker twice, stalled it while its media were opened, or made it send nonsense;"
        " it is not tried a third time.",
        "the input makes the engine crash: convert it with another program, or choose other options",
    )
    INTERNAL = ("internal", "work", "A defect of musedrop: the traceback is in the daemon's log.")
    CANCELLED = ("cancelled", "work", "A user cancelled the job.")

    WORKER_DIED = ("worker_died", "worker", "The worker process ended.")
    WORKER_STALLED = ("worker_stalled", "worker", "The worker made no progress for `pool.stall_s`.")
    WORKER_NONSENSE = ("worker_nonsense", "worker", "The worker sent a message that breaks the protocol.")
    WORKER_OUTDATED = (
        "worker_outdated",
        "worker",
        "A folder of the share was mounted or made anew: a new worker starts.",
    )
    WORKER_MISPLACED = ("worker_misplaced", "worker", "The worker runs on another card than it was started for.")
    DEVICE_LOST = ("device_lost", "worker", "The driver reports that the card is gone.")
    DEVICE_ERROR = ("device_error", "worker", "The card reported an error.")
