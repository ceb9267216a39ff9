"""LocalBackend: warm subprocesses, one or more for each device of this machine."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_pool.cards import SILENT, UNLISTED, CardRules, Cards, CardWatch, seats
from gpu_pool.process import WorkerProcess, log_path
from gpu_pool.types import Device, DeviceKind, Done, Exited, Failed, Open, WorkerCommand, WorkerMessage
from gpu_pool.wire import encode

CLOSE_S = 5.0
KINDS: tuple[DeviceKind, ...] = ("cpu", "cuda")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def cpu_devices(count: int) -> list[Device]:
    """cpu:0 to cpu:<count-1>; their memory is not accounted for."""
    return [Device(f"cpu:{index}", "cpu", name="CPU") for index in range(count)]


def environment(device: Device, peers: int, cores: int, base: Mapping[str, str]) -> dict[str, str]:
    """What a worker is started with: only its own card visible, and its fair share of `cores` among `peers` workers.

    A number of threads that `base` sets already stands: the operator chose it.
    """
    share = str(max(1, cores // peers))
    visible = device.card or device.id if device.kind == "cuda" else ""
    card = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {**dict.fromkeys(_THREADS, share), **base, **card}


class LocalBackend:
    """Workers as subprocesses.

    devices          those that are always here
    handler          "package.module:factory", what the workers open
    handler_options  JSON for it; `kind_options` adds to that for workers on one kind of device
    log_dir          their output goes to worker-<device>.log there
    env              is added to our own environment
    watch, rules     tell of cards that come, go and change; closed with the backend

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
        env: Mapping[str, str] | None = None,
        watch: CardWatch | None = None,
        rules: CardRules | None = None,
    ) -> None:
        self._options = {kind: {**handler_options, **(kind_options or {}).get(kind, {})} for kind in KINDS}
        for options in self._options.values():
            encode(Open("", handler, options))  # what can't be sent is refused before anything is started
        log_dir.mkdir(parents=True, exist_ok=True)
        self._devices = {device.id: device for device in devices}
        self._watch, self._rules = watch, rules or CardRules()
        self._handler = handler
        self._log_dir = log_dir
        self._env = {**os.environ, **(env or {})}
        self._workers: dict[str, WorkerProcess] = {}
        self._stillborn: list[WorkerMessage] = []
        self._selector = selectors.DefaultSelector()

    def devices(self) -> Sequence[Device]:
        if self._watch:
            self._take_in(self._watch)
        return tuple(self._devices.values())

    def _take_in(self, watch: CardWatch) -> None:
        """Every card that was ever listed is kept: what isn't any more is lost."""
        cards = watch.cards()
        listed = {device.id: device for device in seats(cards, self._rules)}
        for name, known in {**self._devices, **listed}.items():
            if name in listed:
                self._devices[name] = self._as_read(listed[name], cards, silent=watch.silent)
            elif known.card:
                why = " ".join((UNLISTED, *cards.problems))
                self._devices[name] = replace(known, state="lost", reason=why, free_bytes=0, held_bytes=0)

    def _as_read(self, device: Device, cards: Cards, *, silent: bool) -> Device:
        worker = self._workers.get(device.id)
        held = cards.held.get(device.card, {}).get(str(worker.pid), 0) if worker else 0
        return replace(device, held_bytes=held, reason=device.reason or (SILENT if silent else ""))

    def spawn(self, device: str) -> None:
        if device in self._workers:
            raise ValueError(f"{device} has a worker already")
        try:
            worker = WorkerProcess(device, self._environment(self._devices[device]), log_path(self._log_dir, device))
        except OSError as error:
            self._stillborn.append((device, Exited(0, code=1, log=f"no worker could be started: {error}")))
            return
        self._workers[device] = worker
        self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        self.send(device, Open(device, self._handler, self._options[self._devices[device].kind]))

    def send(self, device: str, message: WorkerCommand) -> None:
        if worker := self._workers.get(device):
            self._push(worker, encode(message))

    def kill(self, device: str) -> None:
        if worker := self._workers.get(device):
            worker.kill()

    def wait(self, timeout_s: float, wakeup_fd: int) -> list[WorkerMessage]:
        if wakeup_fd not in self._selector.get_map():
            self._selector.register(wakeup_fd, selectors.EVENT_READ)
        heard, self._stillborn = self._stillborn, []
        ready = self._selector.select(0 if heard else min(timeout_s, self._watch_due_s()))
        self._serve_watch()
        for key, mask in ready:
            if key.data and key.fileobj is key.data.channel:
                heard.extend(self._serve(key.data, mask))
        for key, _ in ready:
            if key.data and key.fileobj == key.data.pidfd:
                heard.extend(self._bury(key.data))
        return heard

    def _watch_due_s(self) -> float:
        self._serve_watch()
        return max(0.0, self._watch.deadline - time.monotonic()) if self._watch else float("inf")

    def _serve_watch(self) -> None:
        """Its process comes and goes, and its pipe with it."""
        if self._watch is None:
            return
        before = self._watch.fd
        self._watch.serve()
        if before is not None and self._watch.fd != before:
            self._selector.unregister(before)
        if self._watch.fd is not None and self._watch.fd not in self._selector.get_map():
            self._selector.register(self._watch.fd, selectors.EVENT_READ)

    def close(self) -> None:
        """Kill what still lives; what even SIGKILL can't end within CLOSE_S is left to the kernel."""
        until = time.monotonic() + CLOSE_S
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            if worker.ended(max(0.0, until - time.monotonic())):
                worker.reap()
            else:
                worker.release()
        self._workers.clear()
        self._selector.close()
        if self._watch:
            self._watch.close()

    def _environment(self, device: Device) -> dict[str, str]:
        peers = sum(peer.kind == device.kind for peer in self._devices.values())
        return environment(device, peers, len(os.sched_getaffinity(0)), self._env)

    def _push(self, worker: WorkerProcess, data: bytes) -> None:
        sent = worker.send(data)
        if not worker.silent:
            events = selectors.EVENT_READ if sent else selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(worker.channel, events, worker)

    def _serve(self, worker: WorkerProcess, mask: int) -> list[WorkerMessage]:
        if mask & selectors.EVENT_WRITE:
            self._push(worker, b"")
        said = worker.receive()
        if worker.silent:
            self._selector.unregister(worker.channel)
            worker.kill()  # it can say no more. One that is exiting already keeps the exit status it has
        if said:
            worker.rotate_log(quiet=isinstance(said[-1], Done | Failed))
        return [(worker.device, message) for message in said]

    def _bury(self, worker: WorkerProcess) -> list[WorkerMessage]:
        del self._workers[worker.device]
        self._selector.unregister(worker.pidfd)
        if not worker.silent:
            self._selector.unregister(worker.channel)
        return [(worker.device, message) for message in worker.reap()]
