"""Open untrusted media files: formats, sizes, and one error code for each failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import av
import cv2
from av.container import InputContainer

from models.atomic import BLOCK_BYTES
from models.media.formats import name_format
from models.types import EngineError, Limits

Kind = Literal["audio", "avatar"]
Stream = TypeVar("Stream", av.AudioStream, av.VideoStream)

MOVIES = ("mov", "matroska", "avi", "flv", "asf", "mpegts", "mpeg", "ogg", "mxf")
SOUNDS = ("wav", "w64", "aiff", "au", "caf", "mp3", "aac", "ac3", "eac3", "flac", "amr", "wv", *MOVIES)
_NETPBM = ("ppm_pipe", "pgm_pipe", "pbm_pipe", "pam_pipe")
PICTURES = ("jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "j2k_pipe", "gif", "apng", *_NETPBM, *MOVIES)
FORMATS: dict[Kind, tuple[str, ...]] = {"audio": SOUNDS, "avatar": PICTURES}
HINTS: dict[Kind, str] = {
    "audio": "play the file to see whether it is whole, or save it again as wav, mp3 or m4a",
    "avatar": "open the file to see whether it is whole, or save it again as jpg, png or mp4",
}

USUAL = Limits()

_decoder_threads = 1


def limit_threads(count: int) -> None:
    """Let decoders and OpenCV of this process use `count` threads. The data stay the same."""
    global _decoder_threads  # noqa: PLW0603  (a property of the process, like its environment)
    _decoder_threads = max(1, count)
    cv2.setNumThreads(_decoder_threads)


def check_file(path: Path, name: str, kind: Kind, limits: Limits) -> None:
    """Check the size. Raises OSError, audio_unreadable, audio_empty, avatar_unreadable, media_too_large."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise unreadable_file(kind, f"{name} could not be opened: {error.strerror}") from error
    if size > limits.media_bytes:
        message = f"{name} has {size / 2**20:.0f} MiB; the limit is {limits.media_bytes / 2**20:.0f} MiB"
        raise EngineError("media_too_large", message, "send a smaller file, or raise limits.media_mib")
    if size == 0:
        code = "audio_empty" if kind == "audio" else "avatar_unreadable"
        raise EngineError(code, f"{name} is empty: it has no bytes at all", HINTS[kind])


def open_media(path: Path, kind: Kind, *, pixels: int = USUAL.pixels, demuxer: str | None = None) -> InputContainer:
    """Open a local file by its content, never by its name. PyAV's errors pass: use
    `translate_read_errors` around it.

    Only formats that hold their own data are allowed: a playlist called voice.wav would make
    FFmpeg read other files of this machine, or fetch them from the network. `demuxer` is FFmpeg's
    name of the format where it is known.
    """
    options = {
        "format_whitelist": ",".join(FORMATS[kind]),
        "protocol_whitelist": "file",
        "max_pixels": str(pixels),
    }
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:  # a name without a suffix, because FFmpeg trusts a suffix more than the content
        return av.open(f"file:/proc/self/fd/{file}", format=demuxer, metadata_errors="replace", options=options)
    finally:
        os.close(file)


def configure_decoder(stream: Stream, **options: str) -> Stream:
    """Set the number of threads and FFmpeg options of a stream's decoder; return the stream."""
    stream.codec_context.options = options
    stream.codec_context.thread_count = _decoder_threads
    stream.codec_context.thread_type = "AUTO" if _decoder_threads > 1 else "SLICE"
    return stream


@contextmanager
def translate_read_errors(name: str, kind: Kind, path: Path) -> Iterator[None]:
    """Turn PyAV's errors about the file `path` into EngineError audio_unreadable or avatar_unreadable.

    Raises OSError where the disk of the file can't be read.
    """
    try:
        yield
    except MemoryError:  # av.FFmpegError, too: the file is not damaged
        raise
    except av.FFmpegError as error:
        check_disk(path, error)
        raise unreadable_file(kind, f"{name} could not be read: {_describe_error(error, kind, path)}") from error
    except FileNotFoundError as error:
        raise unreadable_file(kind, f"{name} could not be opened: {error.strerror}") from error
    except ValueError as error:  # PyAV raises it for some damaged files
        raise unreadable_file(kind, f"{name} could not be read: {_describe_error(error, kind, path)}") from error


def check_disk(path: Path, error: av.FFmpegError) -> None:
    """Raise OSError where the disk is why a file can't be read: FFmpeg says EIO of damaged ones, too."""
    if has_system_number(error) and path.is_file():
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK_BYTES):
                pass


def has_system_number(error: Exception) -> bool:
    """Whether an error has a number that the system may have given."""
    number = getattr(error, "errno", None)
    return number in errno.errorcode and number not in (errno.EINVAL, errno.ENOSYS)


def _describe_error(error: Exception, kind: Kind, path: Path) -> str:
    """Return the system's words for its own errors; FFmpeg's say nothing to a user."""
    if has_system_number(error):
        return os.strerror(getattr(error, "errno", 0))
    found = name_format(path)
    if found is not None:
        return f"it begins as a file of the format {found.name}, but what follows can't be read here"
    wanted = "a sound" if kind == "audio" else "a picture or a video"
    return f"it is damaged, or not {wanted} of a kind that is read here"


def unreadable_file(kind: Kind, message: str) -> EngineError:
    return EngineError(f"{kind}_unreadable", message, HINTS[kind])
