"""The cards of this machine, by UUID, with their free memory.

Read from the driver, never from CUDA.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pynvml

from gpu_pool.cards import Cards
from gpu_pool.types import Device
from gpu_pool.visible import VARIABLE, find_visible, hides_all

REOPEN_S = 300.0
REOPEN_TROUBLED_S = 10.0
XID_PAUSE_S = 60.0
MAX_C = 250
MAX_W = 10_000
XIDS = {
    48: "an ECC error that can't be corrected",
    64: "memory rows that can't be remapped",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    95: "an ECC error that isn't contained",
    119: "its firmware doesn't answer",
    120: "its firmware has failed",
}
"""Messages after which a card can't be used for a while; the others have other causes.
https://docs.nvidia.com/deploy/xid-errors/"""

ADVICE = {
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "reboot: the driver's library was upgraded",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "reboot, or run `sudo modprobe nvidia`: its kernel module isn't loaded",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "install the driver again, or give the container its GPUs (`--gpus all`)",
    pynvml.NVML_ERROR_NO_PERMISSION: "let the user of the daemon open /dev/nvidia*",
    pynvml.NVML_ERROR_TIMEOUT: "see `dmesg` for Xid errors, and reboot if it goes on",
}
"""What to do about the errors of the whole driver that have a known cause."""
OTHER_ADVICE = "see `dmesg` for Xid errors; a reboot may help"
ABSENT = (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
"""What a machine that never had a card answers, too."""

_OLD_DRIVER = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
)


class Driver:
    """NVML, opened again every few minutes, which is how new and returned cards are found."""

    def __init__(self) -> None:
        self._visible = os.environ.get(VARIABLE)
        self._opened_at_s: float | None = None
        self._has_trouble = False
        self._events: Any = None
        self._xids: dict[str, tuple[int, float]] = {}

    def read_cards(self) -> Cards:
        """Return a reading of all cards. Never raises; may hang if the driver does."""
        began_s = time.monotonic()
        try:
            self._open(began_s)
        except pynvml.NVMLError as error:
            return _describe_error("No NVIDIA driver answers", error, began_s)
        try:
            cards = replace(_read_all(self._visible), read_at_s=began_s)
        except pynvml.NVMLError as error:
            self.close()
            return _describe_error("The NVIDIA driver does not list its cards", error, began_s)
        cards = replace(cards, devices=tuple(self._apply_xid(device, began_s) for device in cards.devices))
        self._has_trouble = bool(cards.problems) or any(device.state == "lost" for device in cards.devices)
        return replace(cards, trouble=cards.trouble or _explain_lost(cards.devices))

    def wait_for_event(self, timeout_s: float) -> None:
        """Wait until the time is up or a card sends a critical message for the next reading."""
        if self._events is None:
            time.sleep(timeout_s)
            return
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, int(1000 * timeout_s))
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_TIMEOUT:
                self._events = None
                time.sleep(timeout_s)
            return
        self._xids[_get_uuid(event.device)] = int(event.eventData), time.monotonic()
        time.sleep(min(timeout_s, 0.1))  # there may be thousands of them

    def close(self) -> None:
        if self._opened_at_s is not None:
            _call(pynvml.nvmlShutdown)
        self._opened_at_s = self._events = None

    def _open(self, now_s: float) -> None:
        lasts_s = REOPEN_TROUBLED_S if self._has_trouble else REOPEN_S
        if self._opened_at_s is not None and now_s - self._opened_at_s >= lasts_s:
            self.close()
        if self._opened_at_s is None:
            pynvml.nvmlInit()
            self._opened_at_s = now_s
            self._events = _call(_register_events)

    def _apply_xid(self, device: Device, now_s: float) -> Device:
        xid, at_s = self._xids.get(device.id, (0, 0.0))
        if device.state == "lost" or xid not in XIDS or now_s - at_s >= XID_PAUSE_S:
            return device
        return replace(device, state="lost", reason=f"The driver reports Xid {xid}: {XIDS[xid]}.")


def read_once() -> Cards:
    """Return one reading.

    Never raises; may hang or crash if the driver does, so not for the daemon.
    """
    driver = Driver()
    try:
        return driver.read_cards()
    finally:
        driver.close()


def _register_events() -> Any:
    """Return a set of the critical events of all cards.

    None if no card has them, since a wait would not last.
    """
    events, has_some = pynvml.nvmlEventSetCreate(), False
    for index in range(pynvml.nvmlDeviceGetCount()):
        card = _call(pynvml.nvmlDeviceGetHandleByIndex, index)
        try:
            pynvml.nvmlDeviceRegisterEvents(card, pynvml.nvmlEventTypeXidCriticalError, events)
            has_some = True
        except pynvml.NVMLError:
            continue
    return events if has_some else None


@dataclass
class _Listed:
    """One card as the driver lists it: its name and those of its instances, and what they answer."""

    names: list[str]
    devices: list[Device] = field(default_factory=list)
    held: dict[str, Mapping[str, int]] = field(default_factory=dict)
    problem: str = ""


def _read_all(asked: str | None) -> Cards:
    """Read the cards that CUDA_VISIBLE_DEVICES admits."""
    listed = [_read_card(index) for index in range(pynvml.nvmlDeviceGetCount())]
    visible = find_visible(asked, [card.names for card in listed])
    devices = tuple(device for card in listed for device in card.devices if device.id in visible)
    hidden = not devices and not hides_all(asked)
    problems = [card.problem for card in listed if card.problem and (hidden or card.names[0] in visible)]
    trouble = ""
    if not listed:
        trouble = f"The NVIDIA driver lists no card: {OTHER_ADVICE}."
    elif not visible:
        problems.append(f'{VARIABLE} is "{asked}", which names no card of this machine.')
        trouble = "" if hides_all(asked) else f"{problems[-1]} Set it to a UUID that `nvidia-smi -L` lists."
    elif not devices:
        trouble = f"{' '.join(problems)} See `dmesg` for Xid errors; a reboot may help."
    version = str(_call(pynvml.nvmlSystemGetDriverVersion) or "")
    held = {name: held for card in listed for name, held in card.held.items() if name in visible}
    return Cards(devices, tuple(problems), version, held, trouble=trouble, is_absent=not listed)


def _read_card(index: int) -> _Listed:
    card = _Listed([f"#{index}"])
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        card.names = [_get_uuid(handle)]
        for part in _list_handles(handle):
            uuid = _get_uuid(part)
            card.names.append(uuid)
            card.held[uuid] = _read_held(part)  # before the free memory: what is taken in between is counted twice
            card.devices.append(_read_device(uuid, part))
        card.devices = [_add_gauges(device, handle) for device in card.devices]
    except pynvml.NVMLError as error:
        card.problem = f"Card {index} does not answer: {error}."
    card.names = list(dict.fromkeys(card.names))
    return card


def _describe_error(problem: str, error: Any, began_s: float) -> Cards:
    """Return a reading without cards, as the driver as a whole has failed."""
    advice, said = ADVICE.get(error.value, OTHER_ADVICE), str(error).rstrip(".")
    trouble = f"The NVIDIA driver doesn't work (NVML error {error.value}: {said}); {advice}."
    return Cards(problems=(f"{problem}: {said}.",), read_at_s=began_s, trouble=trouble, is_absent=error.value in ABSENT)


def _explain_lost(devices: tuple[Device, ...]) -> str:
    """Return why no card can be used, "" if one can."""
    if not devices or any(device.state != "lost" for device in devices):
        return ""
    reasons = "; ".join(f"{device.id}: {device.reason.rstrip('.')}" for device in devices)
    return f"No card works ({reasons}); {OTHER_ADVICE}."


def _list_handles(card: Any) -> list[Any]:
    """Return the card, or its MIG instances if it is divided: then it runs nothing itself."""
    mode = _call(pynvml.nvmlDeviceGetMigMode, card)
    is_divided = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    return list(_find_instances(card)) if is_divided else [card]


def _find_instances(card: Any) -> Iterator[Any]:
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        if (instance := _call(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, index)) is not None:
            yield instance


def _get_uuid(handle: Any) -> str:
    return str(pynvml.nvmlDeviceGetUUID(handle))


def _read_held(handle: Any) -> dict[str, int]:
    """Return bytes by pid; empty where the driver doesn't list them.

    Not by the call without a version, which raises something else than an NVMLError. Where the
    driver counts processes in another namespace than this one, as in a container, its numbers mean
    other processes here: a number that is no process of this namespace gives that away.
    """
    processes = _call(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if processes is None:
        processes = _call(pynvml.nvmlDeviceGetComputeRunningProcesses_v2, handle) or []
    if not all(_is_process(process.pid) for process in processes):
        return {}
    return {str(process.pid): int(process.usedGpuMemory) for process in processes if process.usedGpuMemory}


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_device(uuid: str, handle: Any) -> Device:
    device = Device(uuid, "cuda", name=str(_call(pynvml.nvmlDeviceGetName, handle) or ""), card=uuid)
    try:
        memory = _read_memory(handle)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:  # it shares the host's memory
            return device
        return replace(device, state="lost", reason=f"The card does not answer: {error}.")
    return replace(device, total_bytes=memory.total, free_bytes=memory.free)


def _add_gauges(device: Device, card: Any) -> Device:
    """Add temperature, load and power of the card, which its instances share; None for what it doesn't tell."""
    rates = _call(pynvml.nvmlDeviceGetUtilizationRates, card)
    milliwatts = _call(pynvml.nvmlDeviceGetPowerUsage, card)
    return replace(
        device,
        temperature_c=_limit(_call(pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU), MAX_C),
        load_percent=_limit(None if rates is None else rates.gpu, 100),
        power_w=_limit(None if milliwatts is None else round(milliwatts / 1000), MAX_W),
    )


def _limit(value: Any, most: int) -> int | None:
    """Return a figure, None in place of one that can't be: drivers say "not available" by the greatest number."""
    return value if value is not None and 0 <= value <= most else None


def _read_memory(handle: Any) -> Any:
    """Ask by version 2, without what the driver reserves, or by 1 before R510."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        if error.value not in _OLD_DRIVER:
            raise
        return pynvml.nvmlDeviceGetMemoryInfo(handle)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    """Return what an NVML function returns, or None where it fails."""
    try:
        return function(*args)
    except pynvml.NVMLError:
        return None
