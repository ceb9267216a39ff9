"""The devices in the ledger, and those that people drain and resume."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from agent import __version__
from agent.clock import Clock
from agent.ledger.ledger import Ledger
from agent.scheduler.device_names import file_safe, match_devices
from agent.scheduler.tuning import PROCESSOR, Choice
from agent.service.log import make_extra
from gpu_pool.pool import Pool
from gpu_pool.types import Device
from models.facts import describe_code
from models.types import Output

log = logging.getLogger("musedrop")

DRAINED = "set aside by a person"
OUT_OF_SERVICE = ("sick", "lost")
AT_WORK = {"idle", "busy"}


class Devices:
    """Writes the state of the pool's devices into the ledger, and drains those that people have drained.

    `jobs` holds for each device the uid of the job that was last started there, `forms` for each type of card the
    form of the networks that new jobs run there, `tuned` what `auto` takes there.
    """

    def __init__(self, ledger: Ledger, pool: Pool, clock: Clock) -> None:
        self.ledger, self.pool, self.clock = ledger, pool, clock
        self.jobs: dict[str, str] = {}
        self.forms: dict[str, str] = {}
        self.tuned: dict[str, Choice] = {}
        self._unsaved: dict[str, tuple[Device, float, int]] = {}
        self._drained: set[str] = set()
        self._faults: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._load_s: dict[str, float] = {}
        for device in pool.devices():
            self._drain_again(device)

    def describe_makers(self, ids: Collection[str], output: Output) -> dict[str, Any]:
        """Return `made_with` of result.json: what a video made again may be compared by.

        ids       of the devices that rendered it
        output    how it was encoded, with what the settings say where the job does not
        """
        cards = {device.name for device in self.pool.devices() if device.card and device.id in ids}
        card = {"driver": self.pool.driver_version, "cards": sorted(cards)} if cards else {}
        return {"musedrop": __version__, **describe_code(), **card, "output": asdict(output)}

    @property
    def prefers_x264(self) -> bool:
        """Whether every type of card that was tuned is faster with videos made on the processor."""
        encoders = {choice.encoder for card, choice in self.tuned.items() if card != PROCESSOR}
        return encoders == {"libx264"}

    @property
    def has_unsaved(self) -> bool:
        return bool(self._unsaved)

    def record(self, device: Device) -> None:
        """Write how the device is now, or leave it to the next `save` if it only begins or ends a span."""
        self._drain_again(device)
        if device.load_s:
            self._load_s[device.model] = device.load_s
        self._unsaved[device.id] = device, self.clock.now_s(), self.clock.at_ms()
        if not {device.state, self._states[device.id]} <= AT_WORK:
            self.save()
        if device.state in OUT_OF_SERVICE and self._states[device.id] != device.state:
            said = device.id, device.state, device.reason
            log.warning("device %s is %s: %s", *said, extra=make_extra(device=device.id))
        self._states[device.id] = device.state

    def save(self) -> None:
        """Write the devices that have changed."""
        for device, now_s, at_ms in self._unsaved.values():
            job = self.jobs.get(device.id) if device.state == "busy" else None
            until_ms = at_ms + round(1000 * (device.retry_at_s - now_s)) if device.retry_at_s else None
            self.ledger.devices.record(device, at_ms=at_ms, until_ms=until_ms, job=job)
        self._unsaved.clear()

    def list_working_on(self, uid: str) -> list[str]:
        """Return the ids of the devices that work on a job now."""
        busy = {device.id for device in self.pool.devices() if device.state == "busy"}
        return sorted(device for device, job in self.jobs.items() if job == uid and device in busy)

    def drain(self, name: str) -> bool:
        """Take a device, or all workers of a card, out of service when their spans end, for later starts too.

        False where no device has that name.
        """
        devices = match_devices(name, self.pool.devices())
        for device in devices:
            self.ledger.devices.drain(device.id, self.clock.at_ms())
            self._drain(device.id)
        return bool(devices)

    def resume(self, name: str) -> bool:
        """Take a device back into service; a sick one is tried again at once. False where no device has that name."""
        devices = match_devices(name, self.pool.devices())
        for absent in self.ledger.devices.list_drained():
            if file_safe(absent) == file_safe(name):
                self.ledger.devices.resume(absent)
        for device in devices:
            self.ledger.devices.resume(device.id)
            self._drained.discard(device.id)
            self._faults.pop(device.id, None)
            self.pool.resume(device.id)
            log.info("device %s is back in service", device.id, extra=make_extra(device=device.id))
        return bool(devices)

    def unload(self, name: str) -> bool:
        """Give back the memory of the workers of a device or card that have no work. False where none has a model."""
        unloaded = [device.id for device in match_devices(name, self.pool.devices()) if self.pool.unload(device.id)]
        for device in unloaded:
            log.info("device %s gives its memory back", device, extra=make_extra(device=device))
        return bool(unloaded)

    def find_load_s(self, engine: str) -> float:
        """Return how long loading an engine took last, in seconds; 0 where that isn't known."""
        return self._load_s.get(engine, 0.0)

    def set_fault(self, card: str, fault: str) -> None:
        """Take all workers of a card out of service because it can't be trusted; "" lets them work again."""
        for device in self.pool.devices():
            if device.card == card and fault != self._faults.get(device.id, ""):
                self._faults[device.id] = fault
                self.pool.condemn(device.id, fault)

    def _drain_again(self, device: Device) -> None:
        """Drain a device that was drained in an earlier start, when it is first seen."""
        if device.id not in self._states and device.id in self.ledger.devices.list_drained():
            self._drain(device.id)
        self._states.setdefault(device.id, "")

    def _drain(self, device: str) -> None:
        if device not in self._drained:
            self._drained.add(device)
            self.pool.drain(device, DRAINED)
            log.info("device %s is %s", device, DRAINED, extra=make_extra(device=device))
