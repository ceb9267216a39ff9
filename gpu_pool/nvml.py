"""GPUs by UUID with their free memory, from NVML. A machine without a driver simply has none."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml

from gpu_pool.types import Device

_V2_ABSENT = (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)


def gpu_devices() -> tuple[list[Device], str]:
    """The cards that answer, in no promised order, and why there are none or fewer ("" if all is well).

    Figures are bytes; free memory is NVML's second version, which doesn't count what the driver keeps for itself.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"no NVIDIA driver answers ({error})"
    try:
        found = list(_cards())
    except pynvml.NVMLError as error:
        return [], f"the NVIDIA driver doesn't say which cards there are ({error})"
    finally:
        pynvml.nvmlShutdown()
    devices = [card for card in found if isinstance(card, Device)]
    return devices, "; ".join(card for card in found if isinstance(card, str))


def _cards() -> Iterator[Device | str]:
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            yield _card(pynvml.nvmlDeviceGetHandleByIndex(index))
        except pynvml.NVMLError as error:  # one lost card must not hide the others
            yield f"card {index} doesn't answer ({error})"


def _card(handle: object) -> Device:
    memory = _memory(handle)
    return Device(
        id=_text(pynvml.nvmlDeviceGetUUID(handle)),
        kind="cuda",
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )


def _memory(handle: object) -> pynvml.c_nvmlMemory_t:
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        if error.value not in _V2_ABSENT:
            raise
        return pynvml.nvmlDeviceGetMemoryInfo(handle)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
