"""Why a task waits, as a sentence. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from gpu_pool.memory import MemoryBudget
from gpu_pool.slot import MIB, WorkerSlot
from gpu_pool.types import Device, Task

OOM_BACKOFF_S = 60.0
MORE_MEMORY = 1.05


@dataclass(frozen=True, slots=True)
class OomBackoff:
    """A task ran out of memory on a device that had `available_bytes` for it.

    Until `until_s` it requires more.
    """

    device: str
    available_bytes: float
    until_s: float

    @classmethod
    def begin(cls, device: str, available_bytes: float, now_s: float) -> OomBackoff:
        """Return the backoff of a task that has just run out of memory."""
        return cls(device, available_bytes, now_s + OOM_BACKOFF_S)

    def min_bytes(self, now_s: float) -> float:
        """Return the least memory that the task accepts now; after a while any is enough."""
        return self.available_bytes * MORE_MEMORY if now_s < self.until_s and 0 < self.available_bytes < inf else -inf


def wait_reason(
    task: Task,
    devices: Sequence[Device],
    slots: Mapping[str, WorkerSlot],
    budget: MemoryBudget,
    backoff: OomBackoff | None,
    now_s: float,
) -> str:
    """Return why none of the devices of the task's kind can take a span of it, as a sentence.

    "" if one can, now or when it has finished its current span.
    """
    what = "GPU" if task.kind == "cuda" else "CPU worker"
    if not devices:
        return f"There is no {what}."
    serving = [device for device in devices if not slots[device.id].is_out_of_service]
    if not serving:
        reasons = [f"{device.id} is {slots[device.id].state} ({slots[device.id].reason})" for device in devices]
        return f"No {what} is in service: {', '.join(reasons)}."
    fitting = [device for device in serving if budget.can_fit(device.id, task.memory_bytes)]
    if not fitting:
        return _explain_size(task, serving, budget)
    min_bytes = backoff.min_bytes(now_s) if backoff else -inf
    if backoff and all(budget.available_bytes(device.id) < min_bytes for device in fitting):
        left = f"where {backoff.available_bytes / MIB:.0f} MiB were left"
        return f"It ran out of memory on {backoff.device}, {left}: it waits up to a minute for a device with more."
    return ""


def _explain_size(task: Task, serving: Sequence[Device], budget: MemoryBudget) -> str:
    best = max(serving, key=lambda device: budget.available_bytes(device.id))
    available_bytes = max(0.0, budget.available_bytes(best.id))
    most = f"the most that is free and not promised is {available_bytes / MIB:.0f} MiB, on {best.id}"
    return f"It needs {task.memory_bytes / MIB:.0f} MiB of a card; {most}."
