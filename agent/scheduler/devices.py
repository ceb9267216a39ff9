"""Devices as people see them: what becomes of each is in the ledger, and they can be set aside and taken back."""

from __future__ import annotations

import logging

from agent.ledger.ledger import Ledger
from agent.scheduler.device_names import file_safe, match_devices
from agent.service.log import make_extra
from gpu_pool.pool import Pool
from gpu_pool.types import Device

log = logging.getLogger("musedrop")

DRAINED = "set aside by a person"
BAD = ("sick", "lost")
IN_TURN = {"idle", "busy"}


class Devices:
    """`jobs`: device id -> uid of the job that was last started there."""

    def __init__(self, ledger: Ledger, pool: Pool) -> None:
        self.ledger, self.pool = ledger, pool
        self.jobs: dict[str, str] = {}
        self.unsaved: dict[str, tuple[Device, float, int]] = {}
        self._aside: set[str] = set()
        self._states: dict[str, str] = {}
        for device in pool.devices():
            self._keep_aside(device)

    def note(self, device: Device, now: float, at: int) -> None:
        """Write down how the device is now, or with the next `save` if it only begins or ends a span.

        `now`: the pool's clock, in which a device says when it is tried again.
        """
        self._keep_aside(device)
        self.unsaved[device.id] = device, now, at
        if not {device.state, self._states[device.id]} <= IN_TURN:
            self.save()
        if device.state in BAD and self._states.get(device.id) != device.state:
            log.warning(
                "device %s is %s: %s", device.id, device.state, device.reason, extra=make_extra(device=device.id)
            )
        self._states[device.id] = device.state

    def save(self) -> None:
        for device, now, at in self.unsaved.values():
            self._write(device, now, at)
        self.unsaved.clear()

    def _write(self, device: Device, now: float, at: int) -> None:
        job = self.jobs.get(device.id) if device.state == "busy" else None
        until_ms = at + round(1000 * (device.retry_at_s - now)) if device.retry_at_s else None
        self.ledger.devices.note(device, at=at, until_ms=until_ms, job=job)

    def working_on(self, uid: str) -> list[str]:
        """The devices that work on a job now."""
        busy = {device.id for device in self.pool.devices() if device.state == "busy"}
        return sorted(device for device, job in self.jobs.items() if job == uid and device in busy)

    def drain(self, name: str, at: int) -> bool:
        """Let a device, or all workers of a card, finish what they do and take them out of service, for later starts
        too. False where there is no such device."""
        chosen = match_devices(name, self.pool.devices())
        for device in chosen:
            self.ledger.devices.drain(device.id, at)
            self._set_aside(device.id)
        return bool(chosen)

    def resume(self, name: str, at: int) -> bool:  # noqa: ARG002 - one signature for both
        """Back into service; a sick device is tried again at once. False where there is no such device."""
        chosen = match_devices(name, self.pool.devices())
        for gone in self.ledger.devices.drained():
            if file_safe(gone) == file_safe(name):
                self.ledger.devices.resume(gone)
        for device in chosen:
            self.ledger.devices.resume(device.id)
            self._aside.discard(device.id)
            self.pool.resume(device.id)
            log.info("device %s is back in service", device.id, extra=make_extra(device=device.id))
        return bool(chosen)

    def _keep_aside(self, device: Device) -> None:
        """A device that was drained in an earlier start stays so."""
        if device.id not in self._states and device.id in self.ledger.devices.drained():
            self._set_aside(device.id)
        self._states.setdefault(device.id, "")

    def _set_aside(self, device: str) -> None:
        if device not in self._aside:
            self._aside.add(device)
            self.pool.drain(device, DRAINED)
            log.info("device %s is %s", device, DRAINED, extra=make_extra(device=device))
