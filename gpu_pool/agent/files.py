"""Files of jobs on a node that doesn't see the daemon's: what is brought by content, and what comes back."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from gpu_pool.cluster.files import (
    HASH,
    NEW_FILE,
    ContentHashes,
    Receipt,
    check_entries,
    install_folder,
    is_file_entry,
    is_name,
    read_described,
)
from gpu_pool.cluster.messages import CACHE, MAX_NODE_LINE_BYTES, Bring, Made, Piece
from gpu_pool.cluster.nofollow import list_names, open_folder
from gpu_pool.process import log_path
from gpu_pool.wire import WireError, encode_any

LEAST_FREE_BYTES = 256 << 20
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
"""Errors that are no worker's fault."""
Steps = Generator[Made | Piece | None]


class WorkerFault(Exception):
    """A worker has not made what it says, or has put something else in its folder; the others go on."""


@contextmanager
def blame_worker() -> Iterator[None]:
    """Raise WorkerFault for what a worker can have done, and OSError for a full or broken disk."""
    try:
        yield
    except (OSError, WireError) as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        raise WorkerFault(f"its folder can't be used: {error}") from error


@dataclass(slots=True)
class SpanFolder:
    """What a span reads and makes.

    before   the entries of folders in which it makes new ones
    is_out   whether its worker has it, and has not ended it
    """

    files: Mapping[str, Any]
    makes: Mapping[str, Any]
    before: dict[str, set[str]] = field(default_factory=dict)
    is_out: bool = False


class NodeFiles:
    """The files of spans in a folder of this machine.

    A worker has a folder of its own, emptied before each span, so that it sees what the daemon has now and nothing
    else. The files in it are links to what was brought before, by content; prepared avatars are in one cache for all
    workers. `roots` are the daemon's folders by their names. Raises OSError, WireError, ValueError; WorkerFault where
    it may be the fault of one worker, which can change its folder and the cache at any time.
    """

    def __init__(self, folder: Path, roots: Mapping[str, Any], content_bytes: int) -> None:
        self.folder = Path(os.path.realpath(folder.expanduser()))
        self._roots, self._content_bytes = roots, content_bytes
        self._content, self._runs = self.folder / "content", self.folder / "runs"
        for made in (self._content, self._runs, self.folder / CACHE):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._own = self._runs / token_hex(8)
        self._lock = take_lock(self._own.with_suffix(".lock"))
        self._remove_leftovers()
        found = sorted(self._content.iterdir(), key=lambda path: path.stat().st_mtime)
        self._sizes = {path.name: path.stat().st_size for path in found if not path.name.startswith(".")}
        self._spans: dict[str, SpanFolder] = {}
        self._expected: deque[tuple[str, int]] = deque()
        self._receipt: Receipt | None = None
        self._make_room({})

    @property
    def trouble(self) -> str:
        """Why no files can be kept here, "" if they can."""
        free_bytes = shutil.disk_usage(self.folder).free
        if free_bytes >= LEAST_FREE_BYTES:
            return ""
        return f"only {free_bytes >> 20} MiB are free in {self.folder}: free some space there"

    def _remove_leftovers(self) -> None:
        """Remove what agents that have ended left behind; one that lives keeps its own."""
        others = {path: take_lock(path) for path in self._runs.glob("*.lock") if path.stem != self._own.name}
        for path, lock in others.items():
            if lock is not None:
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
                os.close(lock)
        if None not in others.values():
            for half in self._content.glob(".*.tmp"):
                half.unlink(missing_ok=True)

    # paths -----------------------------------------------------------------------------------------------------------

    def localise(self, device: str, value: Any) -> Any:
        """Return JSON in which paths below the roots lead to this machine's folders."""
        if isinstance(value, dict):
            return {name: self.localise(device, inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.localise(device, inner) for inner in value]
        if isinstance(value, str):
            for name, root in self._roots.items():
                if value == root or value.startswith(f"{root}/"):
                    return str(self._find_root(device, name)) + value[len(root) :]
        return value

    def open_folder(self, device: str) -> None:
        """Make the folders of a worker, which keeps them: walls know them by more than their names."""
        for name in self._roots:
            self._find_root(device, name).mkdir(parents=True, exist_ok=True)

    def _find_root(self, device: str, name: str) -> Path:
        return self.folder / CACHE if name == CACHE else self._own / log_path(Path(), device).stem / name

    def _locate(self, device: str, name: str) -> Path:
        root, _, below = name.partition("/")
        if root not in self._roots or not is_name(below):
            raise ValueError(f"{name[:200]!r} is no path below a folder of the daemon's")
        return self._find_root(device, root) / below

    # from the daemon -------------------------------------------------------------------------------------------------

    def bring(self, bring: Bring) -> dict[str, int]:
        """Note what the next span of a worker reads and makes; return hashes and sizes of what isn't here yet."""
        for name in (*bring.files, *bring.makes):
            self._locate(bring.device, name)
        self._spans[bring.device] = SpanFolder(bring.files, bring.makes)
        if self._receipt:
            self._receipt.discard()
        needed = dict(entry for entry in bring.files.values() if is_file_entry(entry))
        self._make_room(needed)
        wanted = {digest: size for digest, size in needed.items() if digest not in self._sizes}
        self._expected, self._receipt = deque(wanted.items()), None
        self._expect_next()
        return {digest: size for digest, size in wanted.items() if size}

    def _make_room(self, needed: Mapping[str, int]) -> None:
        """Remove what was used longest ago, until all that is kept fits, and what is to come fits on the disk."""
        for digest in needed.keys() & self._sizes.keys():
            self._sizes[digest] = self._sizes.pop(digest)
            os.utime(self._content / digest)
        missing_bytes = sum(size for digest, size in needed.items() if digest not in self._sizes)
        over_bytes = sum(self._sizes.values()) + missing_bytes - self._content_bytes
        excess = max(over_bytes, missing_bytes + LEAST_FREE_BYTES - shutil.disk_usage(self.folder).free)
        for digest in [digest for digest in self._sizes if digest not in needed]:
            if excess <= 0:
                return
            excess -= self._sizes.pop(digest)
            (self._content / digest).unlink(missing_ok=True)

    def _expect_next(self) -> None:
        while self._expected and self._receipt is None:
            digest, size = self._expected.popleft()
            self._receipt = Receipt(self._content / digest, {"": [digest, size]})
            self._take_whole()

    def _take_whole(self) -> None:
        if self._receipt and self._receipt.is_whole:
            self._receipt.install()
            digest = self._receipt.target.name
            self._sizes[digest], self._receipt = (self._content / digest).stat().st_size, None

    def add(self, piece: Piece) -> None:
        """Write the next piece of what is wanted."""
        if self._receipt is None:
            raise ValueError("a piece of a file that isn't wanted")
        self._receipt.add(piece.data)
        self._take_whole()
        self._expect_next()

    def lay_out(self, device: str) -> None:
        """Put the files of the next span where its worker looks for them."""
        if self._receipt or device not in self._spans:
            raise ValueError("a span before its files")
        with blame_worker():
            self._fill(device, self._spans[device])

    def _fill(self, device: str, span: SpanFolder) -> None:
        span.is_out = True
        self.open_folder(device)
        self._empty(device)
        entries = dict[str, dict[str, Any]]()
        for name, entry in sorted(span.files.items()):
            if name.startswith(f"{CACHE}/"):
                key, _, below = name.removeprefix(f"{CACHE}/").partition("/")
                entries.setdefault(key, {})[below] = entry
            else:
                self._place(self._locate(device, name), entry)
        for key, files in entries.items():
            self._place_entry(self.folder / CACHE / key, files)
        for name in span.makes:
            path = self._locate(device, name)
            os.close(open_folder(path.parent, make=True))
            if path.name == "*":
                span.before[name] = set(list_names(path.parent))

    def _place(self, path: Path, entry: list[Any]) -> None:
        """Put a file or folder where nothing is: what is there may be a link that a worker has made."""
        folder = open_folder(path.parent if entry else path, make=True)
        try:
            if entry:
                self._link(self._content / entry[0], path.name, folder)
        finally:
            os.close(folder)

    def _link(self, content: Path, name: str, folder: int) -> None:
        try:
            os.link(content, name, dst_dir_fd=folder)
        except (FileNotFoundError, FileExistsError) as error:
            if not content.exists():
                raise ValueError(f"{content} was removed by another program") from error
            raise
        except OSError:  # another file system, or too many links
            with content.open("rb") as source, os.fdopen(os.open(name, NEW_FILE, 0o644, dir_fd=folder), "wb") as copy:
                shutil.copyfileobj(source, copy)

    def _place_entry(self, folder: Path, files: Mapping[str, Any]) -> None:
        """Add an entry to the cache, unless it is there, or a worker makes it."""
        if folder.exists():
            return
        temp = folder.with_name(f".{folder.name}.{token_hex(16)}.tmp")
        for below, entry in files.items():
            self._place(temp / below, entry)
        install_folder(temp, folder, is_locked=True)
        shutil.rmtree(temp, ignore_errors=True)

    # to the daemon ---------------------------------------------------------------------------------------------------

    def end_span(self, device: str) -> bool:
        """Note that a worker has ended its span; return whether it had one."""
        span = self._spans.get(device)
        if span is None or not span.is_out:
            return False
        span.is_out = False
        return True

    def collect(self, device: str, *, is_done: bool = True) -> Steps:
        """Yield what a span has made, piece by piece, and None where a piece was only read; then remove it here.

        A span that is done has made all that it was to make.
        """
        with blame_worker():
            for name in self._list_made(device, self._spans[device]):
                yield from self._collect_one(device, name, is_done=is_done)
            self._empty(device)

    def _collect_one(self, device: str, name: str, *, is_done: bool) -> Steps:
        path, span = self._locate(device, name), self._spans[device]
        entries = yield from self._describe(name, path)
        if is_done and not entries and span.makes.get(name) is True:
            raise WorkerFault(f"{name} was not made")
        is_as_brought = entries.get("") == span.files.get(name) != []
        if not entries or is_as_brought:
            return
        check_entries(entries)
        made = Made(device, name, entries)
        if len(encode_any(made)) > MAX_NODE_LINE_BYTES:
            raise WorkerFault(f"{name} has more files than can be told")
        yield made
        for below, entry in sorted(entries.items()):
            if entry and entry[1]:
                yield from map(Piece, read_described(path / below if below else path, entry))

    def _describe(self, name: str, path: Path) -> Generator[None, None, dict[str, list[Any]]]:
        try:
            return (yield from ContentHashes().describe(path))
        except FileNotFoundError:
            if not name.startswith(f"{CACHE}/"):
                raise
            return {}  # removed from the cache by another worker, to make room

    def _list_made(self, device: str, span: SpanFolder) -> Iterator[str]:
        for name in span.makes:
            if name not in span.before:
                yield name
                continue
            folder = self._locate(device, name).parent
            for new in sorted({*list_names(folder)} - span.before[name]):
                if HASH.fullmatch(new):
                    yield f"{name.removesuffix('*')}{new}"

    def _empty(self, device: str) -> None:
        for root in (self._find_root(device, name) for name in self._roots if name != CACHE):
            for path in root.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def close(self) -> None:
        """Remove the folders of the workers, which have ended."""
        if self._receipt:
            self._receipt.discard()
        shutil.rmtree(self._own, ignore_errors=True)
        self._own.with_suffix(".lock").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)


def take_lock(path: Path) -> int | None:
    """Return the descriptor that holds the lock until it is closed; None while another process does."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    os.close(lock)
    return None
