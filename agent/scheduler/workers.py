"""The pool that the settings ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import gettempdir

from agent.scheduler.reports import explain_refusal
from agent.settings import Folders, Settings
from gpu_pool.cards import CardRules, CardWatch
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.process import PACKAGES, log_path
from gpu_pool.types import DeviceKind
from gpu_pool.walls import Walls
from models.catalog import choose_engine

FIRST_READING_S = 5.0
SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/proc/self", "/proc/cpuinfo"),
    *("/proc/meminfo", "/proc/stat", "/proc/vmstat", "/proc/sys/vm", "/sys/devices/system", "/sys/fs/cgroup"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
)
"""What libraries read."""
DEVICES = ("/dev/null",)
DRIVER = ("/dev", "/proc", "/run", "/var/run")
SPARE_MEMORY, LARGEST_FILE = 16 << 30, 64 << 30
"""Address space beyond the memory of the machine, for code and weights that are only mapped; the largest result."""


def open_pool(settings: Settings, handler: str) -> Pool:
    """Start workers on all cards that the settings admit, now and later, and on the processor."""
    devices, patience = settings.devices, settings.pool
    watch = CardWatch(settings.folders.nvml_log)
    watch.wait_for_first(FIRST_READING_S)
    backend = LocalBackend(
        cpu_devices(devices.count_workers(os.cpu_count() or 1)),
        handler=handler,
        handler_options={"preload": "", "models_dir": str(settings.models_dir)},
        kind_options={"cuda": {"preload": choose_preload(settings)}},
        log_dir=settings.folders.logs,
        watch=watch,
        rules=card_rules(settings),
        walls=build_walls(settings),
    )
    return Pool(
        backend,
        stall_s=patience.stall_s,
        cancel_s=patience.cancel_s,
        recycle_spans=patience.recycle_spans,
        recycle_bytes=patience.recycle_mib << 20,
        reserve_bytes=devices.reserve_mib << 20,
        refuse=explain_refusal,
    )


def card_rules(settings: Settings) -> CardRules:
    """Return which cards are used, and by how many workers each."""
    devices = settings.devices
    return CardRules(devices.only, devices.exclude, devices.workers_per_device)


def choose_preload(settings: Settings) -> str:
    """Return the engine that workers on cards load when they start, "" for none."""
    choice = choose_engine("auto", settings.models_dir, {"cpu", "cuda"})
    return choice.engine if settings.devices.preload and choice.kind == "cuda" else ""


def list_open_logs(folders: Folders, pool: Pool) -> set[Path]:
    """Return the logs that the workers and the reader of the cards have open."""
    return {folders.nvml_log, *(log_path(folders.logs, device.id) for device in pool.devices())}


def build_walls(settings: Settings) -> dict[DeviceKind, Walls]:
    """Return what the workers may do: those on the processor open media, those on a card what they made of them.

    A worker on a card may read and run what the driver needs, which differs from card to card.
    """
    folders, asked = settings.folders, settings.media_limits
    write = (folders.work, folders.staging, folders.cache)
    media = (
        folders.inbox,
        folders.claimed,
        folders.avatars,
        *settings.inbox.media_roots,
        *settings.inbox.path_map.values(),
    )
    read = (*list_code(), *SYSTEM, *media, settings.models_dir)
    file_bytes = max(LARGEST_FILE, asked.media_bytes)
    home = Path(os.environ.get("HOME", "/nonexistent"))
    of_driver = (*map(Path, DRIVER), home / ".nv", home / ".triton", Path(gettempdir()))
    return {
        "cpu": Walls(to_texts(read), to_texts((*write, *DEVICES)), memory_bytes=SPARE_MEMORY, file_bytes=file_bytes),
        "cuda": Walls((), to_texts((*write, *of_driver)), hides_files=False, is_alone=False, file_bytes=file_bytes),
    }


def list_code() -> list[Path]:
    """Return where Python and its packages are."""
    return [Path(place) for place in dict.fromkeys((sys.prefix, sys.base_prefix, str(PACKAGES), *sys.path)) if place]


def to_texts(places: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(place) for place in places))
