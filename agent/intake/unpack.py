"""`python -m agent.intake.unpack ZIP FOLDER ...`: the program that opens an archive, started by the daemon.

It stands behind the walls of a worker, and looks at the whole directory of the archive before it writes a byte.
Exit codes: 0, all is in FOLDER; NO_JOB; REFUSED, with the reason in FOLDER/.problem; NO_ROOM.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import resource
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from agent.fs import NEW_FILE, is_disk_full, open_regular
from agent.fs.folders import hold_folder
from agent.intake.names import TEXT
from agent.intake.paths import fold_name
from agent.intake.scanner import is_ignored
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES
from gpu_pool.guards import die_with_parent, raise_oom_score
from gpu_pool.walls import Walls, raise_walls

NO_JOB, REFUSED, NO_ROOM = 3, 4, 5
PROBLEM = ".problem"
MOST_FILES, MOST_DEPTH, LONGEST_NAME = 4096, 16, 255
MOST_RATIO, FREE_BYTES = 200, 64 << 20
"""How many times as large as the archive its files may be, beyond `FREE_BYTES`: silence shrinks a thousandfold."""
MEMORY_BYTES = 1 << 30
BLOCK_BYTES = 1 << 20
ARCHIVES = {".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"}
FOREIGN_CLUTTER = "__MACOSX"
UTF8_NAME, HAS_PASSWORD = 0x800, 0x1
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, LZMAError, EOFError, struct.error, RuntimeError),
    *(ValueError, IndexError, OverflowError, MemoryError),
)
"""What a damaged archive makes the readers raise; NotImplementedError, a RuntimeError, is a method they don't have."""


class BadArchive(Exception):
    """The archive is not unpacked; the message says why, `hint` what to do."""

    def __init__(self, message: str, hint: str = "unpack it, and put its files into the inbox") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Bounds:
    """The size of one file and of all files of an archive, in bytes, and what must stay free on the disk."""

    file_bytes: int
    total_bytes: int
    free_bytes: int = 0


def plan_files(archive: zipfile.ZipFile, archive_bytes: int, bounds: Bounds) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files to unpack, by their paths below the new folder. Raises BadArchive."""
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise BadArchive(f"it holds {len(entries)} files; at most {MOST_FILES} are unpacked")
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    files, folders = set[str](), set[str]()
    for info in entries:
        name = read_name(info)
        path = read_path(name)
        if name.endswith("/") or not path.parts or is_clutter(path):
            continue
        check_entry(info, path, bounds)
        own, above = fold_name(str(path)), {fold_name(str(parent)) for parent in path.parents}
        if own in files | folders or files & above:
            raise BadArchive(f'"{path}" is in it twice')
        files.add(own)
        folders |= above
        found[path] = info
    check_sizes(found.values(), archive_bytes, bounds)
    return strip_top(found)


def read_name(info: zipfile.ZipInfo) -> str:
    """Return the name of an entry, with slashes. One that isn't marked as UTF-8 often is, such as those of macOS."""
    name = info.filename
    if not info.flag_bits & UTF8_NAME:
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.filename
    return name.replace("\\", "/")


def read_path(name: str) -> PurePosixPath:
    """Return a name as a path. Raises BadArchive where it leads out of the folder, or no file can have it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        raise BadArchive(f'the name "{name[:80]}" in it leads out of the archive')
    if len(path.parts) > MOST_DEPTH or any(not is_name(part) for part in path.parts):
        raise BadArchive(f"no file can have the name {json.dumps(name[:80])}, which is in it")
    return path


def is_name(part: str) -> bool:
    return part.isprintable() and len(part.encode("utf-8", "replace")) <= LONGEST_NAME


def is_clutter(path: PurePosixPath) -> bool:
    return any(part == FOREIGN_CLUTTER or is_ignored(part) for part in path.parts)


def check_entry(info: zipfile.ZipInfo, path: PurePosixPath, bounds: Bounds) -> None:
    """Raise BadArchive for a link or a device, an archive, what has a password, and what is too large."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise BadArchive(f'"{path}" in it is a link or no regular file')
    if info.flag_bits & HAS_PASSWORD:
        raise BadArchive("it has a password", "pack it without one")
    if path.suffix.lower() in ARCHIVES:
        raise BadArchive(f'there is another archive in it, "{path}"')
    if info.file_size > bounds.file_bytes:
        raise BadArchive(f'"{path}" in it has {info.file_size >> 20} MiB; the limit is {bounds.file_bytes >> 20} MiB')


def check_sizes(entries: Iterable[zipfile.ZipInfo], archive_bytes: int, bounds: Bounds) -> None:
    """Raise BadArchive for a bomb: files that are much larger than the archive, or that share their bytes."""
    sizes = [(info.file_size, info.compress_size) for info in entries]
    total, packed = sum(size for size, _ in sizes), sum(size for _, size in sizes)
    if total > bounds.total_bytes:
        limit = f"the limit is {bounds.total_bytes / 2**30:.3g} GiB (limits.archive_gib)"
        raise BadArchive(f"its files have {total / 2**30:.3g} GiB; {limit}")
    if packed > archive_bytes or total > MOST_RATIO * archive_bytes + FREE_BYTES:
        raise BadArchive(f"its files are said to have {total >> 20} MiB, which is too much for an archive of its size")


def strip_top(files: dict[PurePosixPath, zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Leave out the folder that all files are in, as in the archive of a folder."""
    while files and len({path.parts[0] for path in files}) == 1 and all(len(path.parts) > 1 for path in files):
        files = {PurePosixPath(*path.parts[1:]): info for path, info in files.items()}
    return files


def has_jobs(paths: Iterable[PurePosixPath], voices: frozenset[str], *, is_avatar: bool) -> bool:
    """Whether a job file, a pair, or the voice for an avatar is among the files; `voices`: suffixes of voices."""
    top = [path for path in paths if len(path.parts) == 1]
    faces = {fold_name(path.stem) for path in top if path.suffix.lower() in AVATAR_SUFFIXES}
    spoken = {fold_name(path.stem) for path in top if path.suffix.lower() in voices}
    return any(path.suffix.lower() == ".json" for path in top) or bool(faces & spoken) or (is_avatar and bool(spoken))


# writing -------------------------------------------------------------------------------------------------------------


def unpack(archive: zipfile.ZipFile, files: dict[PurePosixPath, zipfile.ZipInfo], folder: int) -> None:
    """Write the files below a folder, by its descriptor. Raises BadArchive where one isn't what the archive says."""
    for path, info in files.items():
        try:
            with archive.open(info) as source, os.fdopen(create_file(folder, path), "wb") as target:
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
                target.flush()
                os.fsync(target.fileno())
        except NotImplementedError:
            raise BadArchive(f'"{path}" in it is packed by a method that is not read here') from None
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise
            raise BadArchive(f'it is damaged at "{path}"', "pack or copy it again") from error


def create_file(folder: int, path: PurePosixPath) -> int:
    """Make a new file, and the folders that it is in; no link is followed."""
    at = os.dup(folder)
    try:
        for part in path.parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=at)
            before, at = at, os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(before)
        return os.open(path.name, NEW_FILE, 0o666, dir_fd=at)
    finally:
        os.close(at)


def check_room(files: dict[PurePosixPath, zipfile.ZipInfo], folder: int, bounds: Bounds) -> None:
    """Raise OSError where the disk has no room for the files."""
    disk = os.fstatvfs(folder)
    if disk.f_bavail * disk.f_frsize < sum(info.file_size for info in files.values()) + bounds.free_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_archive(source: BinaryIO) -> zipfile.ZipFile:
    """Read the directory of the archive. Raises BadArchive."""
    try:
        return zipfile.ZipFile(source)
    except (*DAMAGED, OSError) as error:
        raise BadArchive("it is no zip archive, or damaged", "pack or copy it again") from error


def run(source: BinaryIO, folder: int, bounds: Bounds, voices: frozenset[str], *, is_avatar: bool) -> int:
    """Unpack the archive; return the exit code."""
    try:
        archive = open_archive(source)
        files = plan_files(archive, os.fstat(source.fileno()).st_size, bounds)
        if not has_jobs(files, voices, is_avatar=is_avatar):
            return NO_JOB
        check_room(files, folder, bounds)
        unpack(archive, files, folder)
    except BadArchive as bad:
        text = json.dumps({"message": str(bad), "hint": bad.hint})
        with os.fdopen(create_file(folder, PurePosixPath(PROBLEM)), "w") as problem:
            problem.write(text)
        return REFUSED
    except OSError as error:
        print(error, file=sys.stderr)
        return NO_ROOM
    return 0


def main(words: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m agent.intake.unpack", description="Started by the daemon.")
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--bounds", type=int, nargs=3, required=True)
    parser.add_argument("--text-voices", action="store_true")
    parser.add_argument("--is-avatar", action="store_true")
    parser.add_argument("--walls", action="store_true")
    args = parser.parse_args(words)
    die_with_parent(args.parent)
    raise_oom_score()
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    bounds = Bounds(*args.bounds)
    "".encode("cp437")  # loads the codec of old names while files of Python may still be opened
    with contextlib.ExitStack() as on_exit:
        folder = on_exit.enter_context(hold_folder(args.folder))
        source = on_exit.enter_context(os.fdopen(open_regular(args.archive), "rb"))
        if args.walls:
            raise_walls(Walls(write=(str(args.folder),), file_bytes=bounds.file_bytes))
        voices = AUDIO_SUFFIXES | ({TEXT} if args.text_voices else set())
        sys.exit(run(source, folder, bounds, voices, is_avatar=args.is_avatar))


if __name__ == "__main__":
    main()
