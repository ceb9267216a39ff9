"""The other machines that the settings name, as nodes of the pool."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from agent.fs import atomic_write_bytes, is_file
from agent.scheduler.handlers import HANDLER, UNLOADED, make_handler_options
from agent.scheduler.span_files import list_span_files
from agent.scheduler.tuning import card_rules
from agent.scheduler.worker_walls import build_walls
from agent.settings import CurrentSettings, Settings
from gpu_pool.cluster.courier import Courier
from gpu_pool.cluster.link import CommandLink, Link
from gpu_pool.cluster.messages import CACHE, Start
from gpu_pool.cluster.node import Node, NodeTimes
from gpu_pool.process import build_python_path
from models.facts import describe_installation

DESCRIBE = "models.facts:describe_installation"
RAY_RETRY_S = 5.0


def make_nodes(current: CurrentSettings, handler: str) -> list[Node]:
    """Return the nodes of the settings, none of which has been reached yet; their workers open `handler`."""
    settings = current.current
    cluster = settings.cluster
    facts = find_facts(settings) if cluster.nodes else {}
    return [
        Node(
            name,
            partial(open_link, settings, name),
            partial(make_start, settings, name, handler),
            facts=facts,
            times=NodeTimes(fence_s=cluster.fence_s, lost_s=cluster.lost_s, retry_s=choose_retry_s(leads)),
            choose_walls=partial(build_walls, current),
            courier=None if cluster.shared_state else Courier(list_roots(settings), list_span_files),
        )
        for name, leads in cluster.nodes.items()
    ]


def choose_retry_s(leads: object) -> float:
    """Return how soon a node is tried again: Ray waits for its nodes itself, and takes seconds to start."""
    return RAY_RETRY_S if isinstance(leads, str) else NodeTimes().retry_s


def list_roots(settings: Settings) -> dict[str, Path]:
    """Return the folders that spans read and make files in, by the names that messages call them by."""
    return {"work": settings.folders.work, CACHE: settings.folders.cache}


def find_facts(settings: Settings) -> dict[str, str]:
    """Return what must be equal on all machines, as it is on this one."""
    return describe_installation(make_handler_options(settings)["cpu"])


def open_link(settings: Settings, name: str) -> Link:
    """Start the program that leads to the agent of a node. OSError if it can't be started."""
    leads, log = settings.cluster.nodes[name], settings.folders.logs / name / "link.log"
    if not isinstance(leads, str):
        return CommandLink(leads, log)
    asked = ["--address", settings.cluster.address, "--node", leads]
    asked += ["--least-store-mib", str(settings.cluster.object_store_mib)]
    env = {**os.environ, "PYTHONPATH": build_python_path(os.environ)}
    return CommandLink([sys.executable, "-P", "-m", "gpu_pool.cluster.ray_bridge", *asked], log, env)


def read_shared_text(path: Path) -> str:
    """Return the content of the file by which nodes show that they see the state folder; make it if it is missing."""
    if not is_file(path):
        atomic_write_bytes(path, secrets.token_hex(16).encode(), durable=False)
    return path.read_text()


def make_start(settings: Settings, name: str, handler: str = HANDLER) -> Start:
    """Return what the agent of a node is asked for. OSError if the file that shows it the state can't be made."""
    folders, cluster = settings.folders, settings.cluster
    nonce = read_shared_text(folders.cluster_check)
    return Start(
        handler=handler,
        options=cast(Mapping[str, Any], make_handler_options(settings)),
        unloaded_options=UNLOADED,
        cpu_workers=settings.devices.cpu_workers,
        cards=asdict(card_rules(settings)),
        log_dir=str(folders.logs / name),
        describe=DESCRIBE,
        shared_file=str(folders.cluster_check),
        shared_text=nonce,
        beat_s=NodeTimes().beat_s,
        fence_s=cluster.fence_s,
        folder="" if cluster.shared_state else f"{cluster.node_folder}/{name}-{nonce[:12]}",
        roots={root: str(path) for root, path in list_roots(settings).items()},
        content_bytes=int(cluster.node_gib * 2**30),
    )
