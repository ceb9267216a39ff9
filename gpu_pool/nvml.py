"""The cards of this machine, by UUID, with the memory that is free on them. Asked of the driver, never of CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pynvml

from gpu_pool.cards import Cards
from gpu_pool.types import Device

AFRESH_S = 300.0
AFRESH_IN_TROUBLE_S = 10.0
XID_REST_S = 60.0
XIDS = {
    48: "an ECC error that can't be corrected",
    64: "memory rows that can't be remapped",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    95: "an ECC error that isn't contained",
    119: "its firmware doesn't answer",
    120: "its firmware has failed",
}
"""Those of the driver's critical messages after which a card is of no use for a while; the others are an application's
fault. https://docs.nvidia.com/deploy/xid-errors/"""

_OLD_DRIVER = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
)


class Driver:
    """NVML, opened when it can be, and afresh now and then: that is how it learns of cards that came or came back."""

    def __init__(self) -> None:
        self._opened_at: float | None = None
        self._troubled = False
        self._events: Any = None
        self._xids: dict[str, tuple[int, float]] = {}

    def read(self) -> Cards:
        """Ask for everything. Never raises; may hang if the driver does."""
        began = time.monotonic()
        try:
            self._open(began)
        except pynvml.NVMLError as error:
            return Cards(problems=(f"No NVIDIA driver answers: {error}.",), read_at_s=began)
        try:
            cards = replace(_cards(), read_at_s=began)
        except pynvml.NVMLError as error:
            self.close()
            return Cards(problems=(f"The NVIDIA driver does not list its cards: {error}.",), read_at_s=began)
        cards = replace(cards, devices=tuple(self._with_xid(device, began) for device in cards.devices))
        self._troubled = bool(cards.problems) or any(device.state == "lost" for device in cards.devices)
        return cards

    def rest(self, seconds: float) -> None:
        """Wait, but not when a card reports something critical."""
        if self._events is None:
            time.sleep(seconds)
            return
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, int(1000 * seconds))
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_TIMEOUT:
                self._events = None
                time.sleep(seconds)
            return
        self._xids[_name(event.device)] = int(event.eventData), time.monotonic()
        time.sleep(min(seconds, 0.1))  # they may come in floods

    def close(self) -> None:
        if self._opened_at is not None:
            _or_none(pynvml.nvmlShutdown)
        self._opened_at = self._events = None

    def _open(self, now: float) -> None:
        lasts_s = AFRESH_IN_TROUBLE_S if self._troubled else AFRESH_S
        if self._opened_at is not None and now - self._opened_at >= lasts_s:
            self.close()
        if self._opened_at is None:
            pynvml.nvmlInit()
            self._opened_at = now
            self._events = _or_none(_critical_events)

    def _with_xid(self, device: Device, now: float) -> Device:
        xid, at = self._xids.get(device.id, (0, 0.0))
        if device.state == "lost" or xid not in XIDS or now - at >= XID_REST_S:
            return device
        return replace(device, state="lost", reason=f"The driver reports Xid {xid}: {XIDS[xid]}.")


def read() -> Cards:
    """One reading. Never raises; may hang or crash if the driver does, so not for the daemon."""
    driver = Driver()
    try:
        return driver.read()
    finally:
        driver.close()


def _critical_events() -> Any:
    """An event set of all cards that have such events; None if there is none, since nothing could be waited for."""
    events, some = pynvml.nvmlEventSetCreate(), False
    for index in range(pynvml.nvmlDeviceGetCount()):
        card = _or_none(pynvml.nvmlDeviceGetHandleByIndex, index)
        try:
            pynvml.nvmlDeviceRegisterEvents(card, pynvml.nvmlEventTypeXidCriticalError, events)
            some = True
        except pynvml.NVMLError:
            continue
    return events if some else None


def _cards() -> Cards:
    devices: list[Device] = []
    problems: list[str] = []
    held: dict[str, dict[str, int]] = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            for handle in _divided(pynvml.nvmlDeviceGetHandleByIndex(index)):
                name = _name(handle)
                held[name] = _held(handle)  # before the free memory: what is taken in between is then counted twice
                devices.append(_device(name, handle))
        except pynvml.NVMLError as error:
            problems.append(f"Card {index} does not answer: {error}.")
    version = str(_or_none(pynvml.nvmlSystemGetDriverVersion) or "")
    return Cards(tuple(devices), tuple(problems), version, held)


def _divided(card: Any) -> list[Any]:
    """The card, or its MIG instances if it is divided: then it runs nothing itself."""
    mode = _or_none(pynvml.nvmlDeviceGetMigMode, card)
    divided = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    return list(_instances(card)) if divided else [card]


def _instances(card: Any) -> Iterator[Any]:
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        if (instance := _or_none(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, index)) is not None:
            yield instance


def _name(handle: Any) -> str:
    return str(pynvml.nvmlDeviceGetUUID(handle))


def _held(handle: Any) -> dict[str, int]:
    """Bytes by process, where the driver tells. The calls without a version raise what is no NVMLError."""
    processes = _or_none(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if processes is None:
        processes = _or_none(pynvml.nvmlDeviceGetComputeRunningProcesses_v2, handle) or []
    return {str(process.pid): int(process.usedGpuMemory) for process in processes if process.usedGpuMemory}


def _device(name: str, handle: Any) -> Device:
    device = Device(name, "cuda", name=str(_or_none(pynvml.nvmlDeviceGetName, handle) or ""), card=name)
    try:
        memory = _memory(handle)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:  # it shares the host's memory
            return device
        return replace(device, state="lost", reason=f"The card does not answer: {error}.")
    return replace(device, total_bytes=memory.total, free_bytes=memory.free)


def _memory(handle: Any) -> Any:
    """`free` of version 2 leaves out what the driver reserves; version 1 is for drivers before R510."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        if error.value not in _OLD_DRIVER:
            raise
        return pynvml.nvmlDeviceGetMemoryInfo(handle)


def _or_none(ask: Callable[..., Any], *args: Any) -> Any:
    try:
        return ask(*args)
    except pynvml.NVMLError:
        return None
