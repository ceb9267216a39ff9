"""What workers may do, by the settings: docs/security.md has the table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import gettempdir

from agent.fs import follow_links
from agent.settings import CurrentSettings, Settings
from gpu_pool.process import PACKAGES
from gpu_pool.types import DeviceKind
from gpu_pool.walls import Walls

SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/etc/localtime"),
    *("/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies", "/dev/urandom", "/dev/random"),
    *("/dev/zero", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/vmstat", "/proc/sys/vm"),
    *("/sys/devices/system", "/sys/fs/cgroup"),
)
"""What libraries read."""
DEVICES = ("/dev/null",)
DRIVER = ("/dev", "/proc", "/run", "/var/run")
SPARE_MEMORY, LARGEST_FILE = 16 << 30, 64 << 30
"""Address space beyond the memory of the machine, for code and weights that are only mapped; the largest result."""


def build_walls(current: CurrentSettings, kind: DeviceKind) -> Walls | None:
    """Return what a worker of this kind may do: those on the processor open media, those on a card what they
    made of them. None where the settings want no walls.

    A worker on a card may read and run what the driver needs, which differs from card to card.
    """
    settings = current.current
    if not settings.pool.walls:
        return None
    folders = settings.folders
    write = to_texts((folders.work, folders.staging, folders.cache, *DEVICES))
    temp = str(folders.cache / "tmp")
    file_bytes = max(LARGEST_FILE, settings.media_limits.media_bytes)
    if kind == "cuda":
        home = Path(os.environ.get("HOME", "/nonexistent"))
        driver = to_texts((*DRIVER, home / ".nv", home / ".triton", gettempdir()))
        return Walls((), write, driver, temp, hides_files=False, is_alone=False, file_bytes=file_bytes)
    read = to_texts((*list_code(), *SYSTEM, *list_media_folders(settings), *list_weights(settings.models_dir)))
    return Walls(read, write, temp=temp, memory_bytes=SPARE_MEMORY, file_bytes=file_bytes)


def list_media_folders(settings: Settings) -> Iterator[Path]:
    """Yield where media may be."""
    folders, inbox = settings.folders, settings.inbox
    yield from (folders.inbox, folders.claimed, folders.avatars, *inbox.media_roots)
    yield from map(Path, inbox.path_map.values())


def list_weights(models_dir: Path) -> Iterator[Path]:
    """Yield the folder of the weights, and the files elsewhere that links in it lead to."""
    yield models_dir
    yield from (follow_links(path) for path in models_dir.rglob("*") if path.is_symlink())


def list_code() -> Iterator[Path]:
    """Yield where Python, its packages and their libraries are."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    yield from map(Path, filter(None, (sys.prefix, sys.base_prefix, str(PACKAGES), *sys.path, *libraries)))


def to_texts(places: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, places)))
