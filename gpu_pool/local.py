"""LocalBackend: workers as subprocesses, on the processor and the cards of this machine."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from gpu_pool.cards import SILENT, UNLISTED, CardRules, Cards, CardWatch, list_devices
from gpu_pool.process import WorkerProcess, log_path
from gpu_pool.types import Device, DeviceKind, Done, Exited, Failed, Open, WorkerCommand, WorkerMessage
from gpu_pool.walls import Walls
from gpu_pool.wire import encode

CLOSE_S = 5.0
KINDS: tuple[DeviceKind, ...] = ("cpu", "cuda")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""PyTorch reads the first one as it is imported, the second where the first is not set."""


def cpu_devices(count: int) -> list[Device]:
    """Return the devices cpu:0 to cpu:<count-1>; their memory isn't counted."""
    return [Device(f"cpu:{index}", "cpu", name="CPU") for index in range(count)]


def build_environment(device: Device, peers: int, cores: int, base: Mapping[str, str]) -> dict[str, str]:
    """Return a worker's environment: only its own card, and its share of `cores` as threads.

    `peers`: how many workers share the cores. A number of threads that `base` sets stays, and so
    do settings of PyTorch's allocator: the operator chose them. Without expandable segments,
    memory that batches of one size leave free does not serve those of another.
    """
    share = str(max(1, cores // peers))
    visible = device.card or device.id if device.kind == "cuda" else ""
    card = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    is_chosen = device.kind != "cuda" or any(name in base for name in _ALLOCATOR)
    allocator = {} if is_chosen else {_ALLOCATOR[0]: "expandable_segments:True"}
    return {**dict.fromkeys(_THREADS, share), **allocator, **base, **card}


class LocalBackend:
    """Workers as subprocesses.

    devices          those that are always present
    handler          "package.module:factory", which the workers open
    handler_options  JSON for it; `kind_options` adds to that for workers on one kind of device,
                     `unloaded_options` for those that load no model before they have a span
    log_dir          the folder for their output, worker-<device>.log
    env              is added to this process's environment
    choose_walls     returns what a worker of a kind that starts now may do; None: anything
    watch            reports the cards, of which `rules` selects; closed with the backend

    WireError if the options are no JSON.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        handler: str,
        handler_options: Mapping[str, Any],
        log_dir: Path,
        kind_options: Mapping[DeviceKind, Mapping[str, Any]] | None = None,
        unloaded_options: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        watch: CardWatch | None = None,
        rules: CardRules | None = None,
        choose_walls: Callable[[DeviceKind], Walls | None] = lambda _: None,
    ) -> None:
        self._options = {kind: {**handler_options, **(kind_options or {}).get(kind, {})} for kind in KINDS}
        self._unloaded_options = dict(unloaded_options or {})
        for options in (*self._options.values(), self._unloaded_options):
            encode(Open("", handler, options))  # raises before anything is started
        log_dir.mkdir(parents=True, exist_ok=True)
        self._devices = {device.id: device for device in devices}
        self._watch, self._rules = watch, rules or CardRules()
        self._handler, self._choose_walls = handler, choose_walls
        self._log_dir = log_dir
        self._env = {**os.environ, **(env or {})}
        self._workers: dict[str, WorkerProcess] = {}
        self._failed_spawns: list[WorkerMessage] = []
        self._selector = selectors.EpollSelector()

    def devices(self) -> Sequence[Device]:
        if self._watch:
            self._update_cards(self._watch)
        return tuple(self._devices.values())

    def _update_cards(self, watch: CardWatch) -> None:
        """Keep every card that was ever listed; one that isn't listed any more is lost."""
        cards = watch.latest
        listed = {device.id: device for device in list_devices(cards, self._rules)}
        for device_id, known in {**self._devices, **listed}.items():
            if device_id in listed:
                self._devices[device_id] = self._add_worker_figures(listed[device_id], cards, watch.is_silent)
            elif known.card:
                reason = watch.trouble or " ".join((UNLISTED, *cards.problems))
                lost = replace(known, state="lost", reason=reason, free_bytes=0, held_bytes=0)
                self._devices[device_id] = replace(lost, temperature_c=None, load_percent=None, power_w=None)

    def _add_worker_figures(self, device: Device, cards: Cards, is_silent: bool) -> Device:
        worker = self._workers.get(device.id)
        held_bytes = cards.held.get(device.card, {}).get(str(worker.pid), 0) if worker else 0
        return replace(device, held_bytes=held_bytes, reason=device.reason or (SILENT if is_silent else ""))

    def fileno(self) -> int:
        """Readable when wait() would return messages at once, or has something to do."""
        return self._selector.fileno()

    @property
    def deadline_s(self) -> float:
        """When wait() is next needed, even if `fileno` isn't readable."""
        return 0.0 if self._failed_spawns else self._watch.deadline_s if self._watch else inf

    def spawn(self, device: str, *, unloaded: bool = False) -> None:
        if device in self._workers:
            raise ValueError(f"{device} has a worker already")
        try:
            worker = WorkerProcess(
                device,
                self._build_environment(self._devices[device]),
                log_path(self._log_dir, device),
                self._choose_walls(self._devices[device].kind),
            )
        except OSError as error:
            self._failed_spawns.append((device, Exited(0, code=1, log=f"no worker could be started: {error}")))
            return
        self._workers[device] = worker
        self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        options = self._options[self._devices[device].kind] | (self._unloaded_options if unloaded else {})
        self.send(device, Open(device, self._handler, options))

    def send(self, device: str, message: WorkerCommand) -> None:
        if worker := self._workers.get(device):
            self._send(worker, encode(message))

    def kill(self, device: str) -> None:
        if worker := self._workers.get(device):
            worker.kill()

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[WorkerMessage]:
        if wakeup_fd not in self._selector.get_map():
            self._selector.register(wakeup_fd, selectors.EVENT_READ)
        messages, self._failed_spawns = self._failed_spawns, []
        self._serve_watch()
        ready = self._selector.select(0 if messages else min(timeout_s, self._get_watch_timeout_s()))
        self._serve_watch()
        for key, mask in ready:
            if key.data and key.fileobj is key.data.channel:
                messages.extend(self._serve_channel(key.data, mask))
        for key, _ in ready:
            if key.data and key.fileobj == key.data.pidfd:
                messages.extend(self._reap(key.data))
        return messages

    def _get_watch_timeout_s(self) -> float:
        return max(0.0, self._watch.deadline_s - time.monotonic()) if self._watch else inf

    def _serve_watch(self) -> None:
        """Let the watch serve its process, and select on the pipe of the present one."""
        if self._watch is None:
            return
        before = self._watch.fd
        self._watch.serve()
        if before is not None and self._watch.fd != before:
            self._selector.unregister(before)
        if self._watch.fd is not None and self._watch.fd not in self._selector.get_map():
            self._selector.register(self._watch.fd, selectors.EVENT_READ)

    def close(self) -> None:
        """Kill all workers; those that SIGKILL doesn't end within CLOSE_S aren't waited for."""
        until_s = time.monotonic() + CLOSE_S
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            if worker.wait_for_end(max(0.0, until_s - time.monotonic())):
                worker.reap()
            else:
                worker.close()
        self._workers.clear()
        self._selector.close()
        if self._watch:
            self._watch.close()

    def _build_environment(self, device: Device) -> dict[str, str]:
        peers = sum(peer.kind == device.kind for peer in self._devices.values())
        return build_environment(device, peers, len(os.sched_getaffinity(0)), self._env)

    def _send(self, worker: WorkerProcess, data: bytes) -> None:
        is_sent = worker.send(data)
        if not worker.is_mute:
            events = selectors.EVENT_READ if is_sent else selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(worker.channel, events, worker)

    def _serve_channel(self, worker: WorkerProcess, mask: int) -> list[WorkerMessage]:
        if mask & selectors.EVENT_WRITE:
            self._send(worker, b"")
        messages = worker.receive()
        if worker.is_mute:
            self._selector.unregister(worker.channel)
            worker.kill()  # it can't report any more. One that is exiting already keeps its exit status
        if messages:
            worker.rotate_log(quiet=isinstance(messages[-1], Done | Failed))
        return [(worker.device, message) for message in messages]

    def _reap(self, worker: WorkerProcess) -> list[WorkerMessage]:
        del self._workers[worker.device]
        self._selector.unregister(worker.pidfd)
        if not worker.is_mute:
            self._selector.unregister(worker.channel)
        return [(worker.device, message) for message in worker.reap()]
