"""The renames that users see: results into the outbox, inputs into failed/ and archive/ and back."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.fs import (
    NEW_FILE,
    atomic_copy,
    atomic_write_bytes,
    discard,
    is_folder,
    list_numbered,
    make_safe_name,
    read_regular,
    take_fingerprint,
)
from agent.fs.folders import (
    hold_folder,
    list_names,
    make_folder,
    make_folders,
    move,
    remove,
    remove_empty,
    remove_tree,
    sync,
    unlink,
)
from agent.results.records import format_json, write_json
from agent.results.video_file import CLIP_NAME, VIDEO_NAMES, find_video

EXTRAS = ("contact.jpg", CLIP_NAME)
"""Files of a result that not each one has."""
LISTING_S = 5.0
MAX_RECORD_BYTES = 1 << 20


class FolderNames:
    """Names for new folders, compared with those that exist without regard to case: Windows reads them too.

    A listing is kept for `LISTING_S`, so that a folder of ten thousand results is not read for each new one.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._listings: dict[Path, tuple[float, set[str]]] = {}

    def reserve(self, folder: Path, name: str) -> str:
        """Return `name` made safe, or `name-2`, `name-3` ..., whichever is free; from now on it counts as taken.

        Raises OSError where the folder can't be read.
        """
        base, taken = make_safe_name(name), self._list(folder)
        chosen = next(
            one for one in list_numbered(base) if one.casefold() not in taken and not os.path.lexists(folder / one)
        )
        taken.add(chosen.casefold())
        return chosen

    def forget_all(self) -> None:
        """Read the folders again next time: a reserved name was not used."""
        self._listings.clear()

    def _list(self, folder: Path) -> set[str]:
        listed_s, names = self._listings.get(folder, (-math.inf, set[str]()))
        if self._now_s() - listed_s >= LISTING_S:
            names = {name.casefold() for name in list_names(folder)} if os.path.lexists(folder) else set()
            self._listings[folder] = (self._now_s(), names)
        return names


def list_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, no links. Raises OSError."""
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def list_batches(folders: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield the folders in each of the folders; one that can't be read has none."""
    for folder in folders:
        with suppress(OSError):
            yield list_folders(folder)


def choose_folder(outbox: Path, batch: str) -> Path:
    """Return the folder for the results of a batch, which exists then: that of its name, unless it is a result itself.

    Raises OSError.
    """
    for name in list_numbered(batch):
        if not os.path.lexists(outbox / name):
            make_folder(outbox / name)
            return outbox / name
        if take_fingerprint(outbox / name / "result.json") is None and is_folder_of_ours(outbox / name):
            return outbox / name
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(outbox / batch))


def is_folder_of_ours(path: Path) -> bool:
    """Whether the path is a folder, and no link to one."""
    try:
        with hold_folder(path):
            return True
    except OSError:
        return False


def write_record(staging: Path, record: dict[str, Any]) -> None:
    """Make a verified result whole: `record` becomes its result.json, and nothing else is beside it.

    The folder is one that no other user sees; `flush_record` follows. Raises OSError.
    """
    with hold_folder(staging) as fd:
        with suppress(FileNotFoundError):
            os.unlink("result.json", dir_fd=fd)
        with os.fdopen(os.open("result.json", NEW_FILE, 0o666, dir_fd=fd), "wb") as file:
            file.write(format_json(record))
        found = set(os.listdir(fd))  # noqa: PTH208 - by descriptor
        video = next((name for name in VIDEO_NAMES if name in found), VIDEO_NAMES[0])
        files = (video, "result.json", "preview.jpg")
        missing = [file for file in files if not is_regular(fd, file)]
        if missing:
            raise FileNotFoundError(f"{staging.name} lacks {', '.join(missing)}")
        extras = [file for file in EXTRAS if is_regular(fd, file)]
        for leftover in found.difference(files, extras):  # of a worker that was killed in the same attempt
            remove_tree(fd, leftover)


def flush_record(staging: Path) -> None:
    """Flush what `write_record` has changed; a worker has flushed the rest. Raises OSError."""
    with hold_folder(staging) as fd:
        file = os.open("result.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        os.fsync(fd)


def move_result(staging: Path, target: Path) -> None:
    """Rename a flushed result into the outbox; the caller syncs that, once for all that it publishes.

    Raises OSError, and then nothing is visible.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    move(staging, target)


def is_regular(folder: int, name: str) -> bool:
    """Whether the folder has a regular file of that name."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def link_video(outbox: Path, name: str) -> None:
    """Make outbox/NAME.mp4 a hard link to the video of outbox/NAME. Raises OSError where something else is there.

    A video with transparency is outbox/NAME.mov.
    """
    folder = outbox / name
    video = find_video(folder)
    link = folder.name + video.suffix
    with hold_folder(folder) as inner, hold_folder(folder.parent) as outer:
        try:
            os.link(video.name, link, src_dir_fd=inner, dst_dir_fd=outer, follow_symlinks=False)
        except FileExistsError:
            there = os.stat(link, dir_fd=outer, follow_symlinks=False)
            if there.st_ino != os.stat(video.name, dir_fd=inner, follow_symlinks=False).st_ino:
                raise


def remove_result(outbox: Path, name: str, uid: str) -> None:
    """Remove outbox/NAME with the link beside it, if it is the result of that job. Raises OSError."""
    if is_published(outbox, name, uid):
        video = find_video(outbox / name)
        link = video.parent.with_name(video.parent.name + video.suffix)
        if (mark := take_fingerprint(link)) and mark == take_fingerprint(video):
            unlink(link)
        remove(outbox / name)


def is_published(outbox: Path, name: str, uid: str) -> bool:
    """Whether outbox/name is the result of that job."""
    try:
        record = json.loads(read_regular(outbox / name / "result.json", MAX_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("uid") == uid


def is_intact(folder: Path, uid: str, video_bytes: int) -> bool:
    """Whether the folder still holds the result of that job, with a video of that size."""
    video, preview = take_fingerprint(find_video(folder)), take_fingerprint(folder / "preview.jpg")
    is_whole = video is not None and video.size == video_bytes and preview is not None
    return is_whole and is_published(folder.parent, folder.name, uid)


def get_size(path: Path) -> int:
    """Return the bytes of a file, -1 where there is none."""
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return -1


def copy_result(source: Path, staging: Path) -> None:
    """Stage the video and the pictures of a result once more: as links, or copies where the file system has none."""
    discard(staging)
    make_folder(staging)
    extras = [file for file in EXTRAS if take_fingerprint(source / file)]
    for file in (find_video(source).name, "preview.jpg", *extras):
        with hold_folder(source) as before, hold_folder(staging) as after:
            try:
                os.link(file, file, src_dir_fd=before, dst_dir_fd=after, follow_symlinks=False)
            except OSError:
                atomic_copy(source / file, staging / file)


def move_failed_inputs(inputs: Path, target: Path, error: dict[str, Any], job_file: str) -> None:
    """Make failed/NAME (`target`) of the inputs of a job, with job.json and error.json in it."""
    make_folders([inputs])
    for name in list_names(inputs):
        if name.lower().endswith(".json") and name not in ("job.json", "error.json"):
            move(inputs / name, inputs / "job.json")
    if take_fingerprint(inputs / "job.json") is None and not is_folder(inputs / "job.json"):
        atomic_write_bytes(inputs / "job.json", job_file.encode("utf-8", "replace"))
    write_json(inputs / "error.json", error)
    move_inputs(inputs, target)


def move_inputs(inputs: Path, target: Path) -> None:
    """Rename the inputs of a finished job to their last place; the caller syncs that."""
    make_folders([target.parent])
    move(inputs, target)


def restore_inputs(inputs: Path, claimed: Path) -> None:
    """Undo `move_failed_inputs` for a job that is retried: its inputs return, its error goes.

    Users can write to the folder `inputs`, or have made it: the entries go into a new one. Raises OSError where a file
    can't be moved. An error record that can't be removed goes along; a folder that can't be moved stays.
    """
    make_folders([claimed])
    for name in list_names(inputs):
        try:
            move(inputs / name, claimed / name)
        except OSError:
            if not is_folder(inputs / name):
                raise
    discard(claimed / "error.json")
    sync(claimed)
    sync(claimed.parent)
    remove_empty(inputs)


def restore_medium(filed: Path, inbox: Path, name: str) -> None:
    """Put a medium that was filed away with another job back into the inbox, as a link, unless the name is taken.

    Raises OSError where there is none, or the file system has no links.
    """
    with hold_folder(filed.parent) as before, hold_folder(inbox) as after:
        os.link(filed.name, name, src_dir_fd=before, dst_dir_fd=after, follow_symlinks=False)
