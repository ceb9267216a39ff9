"""The pool that the settings ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from agent.scheduler.handlers import UNLOADED, make_handler_options
from agent.scheduler.nodes import make_nodes
from agent.scheduler.reports import explain_refusal
from agent.scheduler.tuning import card_rules
from agent.scheduler.worker_walls import build_walls
from agent.settings import CurrentSettings, Folders
from gpu_pool.cards import CardWatch, find_trouble
from gpu_pool.cluster.backend import ClusterBackend
from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from gpu_pool.process import log_path
from gpu_pool.types import Device

FIRST_READING_S = 5.0


def open_pool(current: CurrentSettings, handler: str, earlier: Sequence[Device] = ()) -> Pool:
    """Start workers on all cards that the settings admit, now and later, and on the processor.

    `earlier` are the cards of the start before: they are lost while the driver lists none.
    """
    settings = current.current
    devices, patience = settings.devices, settings.pool
    rules = card_rules(settings)
    earlier = [device for device in earlier if is_card(device.card) and rules.can_use(device.card)]
    watch = CardWatch(settings.folders.nvml_log, had_cards=bool(earlier))
    lost = earlier if not watch.wait_for_first(FIRST_READING_S).devices and watch.trouble else []
    local = LocalBackend(
        [*cpu_devices(devices.count_workers(os.cpu_count() or 1)), *lost],
        handler=handler,
        handler_options={},
        kind_options=make_handler_options(settings),
        unloaded_options=UNLOADED,
        log_dir=settings.folders.logs,
        watch=watch,
        rules=rules,
        choose_walls=partial(build_walls, current),
    )
    nodes = make_nodes(current, handler)
    return Pool(
        ClusterBackend(local, nodes) if nodes else local,
        stall_s=patience.stall_s,
        cancel_s=patience.cancel_s,
        recycle_spans=patience.recycle_spans,
        recycle_bytes=patience.recycle_mib << 20,
        unload_s=devices.idle_unload_s,
        reserve_bytes=devices.reserve_mib << 20,
        find_trouble=lambda: find_trouble(watch.latest, watch.trouble, rules),
        find_driver=lambda: watch.latest.driver,
        list_troubles=lambda: {node.name: node.trouble for node in nodes},
        refuse=explain_refusal,
    )


def is_card(name: str) -> bool:
    """Whether this is the name of a card of this machine; one of another begins with the name of that."""
    return name.startswith(("GPU-", "MIG-"))


def list_open_logs(folders: Folders, pool: Pool) -> set[Path]:
    """Return the logs that the workers and the reader of the cards have open."""
    return {folders.nvml_log, *(log_path(folders.logs, device.id) for device in pool.devices())}
