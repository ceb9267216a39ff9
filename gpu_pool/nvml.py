"""The cards of this machine, by UUID, with the memory that is free on them. Asked of the driver, never of CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pynvml

from gpu_pool.types import Device

_OLD_DRIVER = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
)


@dataclass(frozen=True, slots=True)
class Cards:
    """What NVML says now.

    devices   GPUs, and MIG instances instead of the GPU they divide; one that stopped answering has state "lost"
    problems  a sentence for each thing that is wrong: no driver, a card that can't even be named
    driver    its version, "" without one
    """

    devices: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()
    driver: str = ""


def read() -> Cards:
    """Ask the driver afresh, so that a card that came back is seen again. Never raises; may hang if the driver does."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Cards(problems=(f"No NVIDIA driver answers: {error}.",))
    try:
        return _cards()
    except pynvml.NVMLError as error:
        return Cards(problems=(f"The NVIDIA driver does not list its cards: {error}.",))
    finally:
        _or_none(pynvml.nvmlShutdown)


def _cards() -> Cards:
    devices: list[Device] = []
    problems: list[str] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            devices += _divided(pynvml.nvmlDeviceGetHandleByIndex(index))
        except pynvml.NVMLError as error:
            problems.append(f"Card {index} does not answer: {error}.")
    return Cards(tuple(devices), tuple(problems), str(_or_none(pynvml.nvmlSystemGetDriverVersion) or ""))


def _divided(card: Any) -> list[Device]:
    """The card, or its MIG instances if it is divided: then it runs nothing itself."""
    mode = _or_none(pynvml.nvmlDeviceGetMigMode, card)
    divided = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    return [_device(handle) for handle in (_instances(card) if divided else [card])]


def _instances(card: Any) -> Iterator[Any]:
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        if (instance := _or_none(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, index)) is not None:
            yield instance


def _device(handle: Any) -> Device:
    device = Device(
        pynvml.nvmlDeviceGetUUID(handle), "cuda", name=str(_or_none(pynvml.nvmlDeviceGetName, handle) or "")
    )
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
