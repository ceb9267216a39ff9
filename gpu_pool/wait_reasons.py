"""Why a task waits, in words. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from gpu_pool.memory import Accounts
from gpu_pool.slot import Seat
from gpu_pool.types import Device, Task

MIB = 1 << 20
SETBACK_S = 60.0
MORE = 1.05


@dataclass(frozen=True, slots=True)
class Setback:
    """A task ran out of memory on a device where there was `room_bytes` for it. Until `until` it wants more."""

    device: str
    room_bytes: float
    until: float

    @classmethod
    def after(cls, device: str, room_bytes: float, now: float) -> Setback:
        return cls(device, room_bytes, now + SETBACK_S)

    def floor(self, now: float) -> float:
        """The least room that will do; after a while the task may try anywhere again."""
        return self.room_bytes * MORE if now < self.until and 0 < self.room_bytes < inf else -inf


def wait_reason(
    task: Task,
    devices: Sequence[Device],
    seats: Mapping[str, Seat],
    accounts: Accounts,
    setback: Setback | None,
    now: float,
) -> str:
    """`devices` are those of the task's kind. "" if one of them can take a span, now or when it has finished one."""
    what = "GPU" if task.kind == "cuda" else "CPU worker"
    if not devices:
        return f"There is no {what}."
    serving = [device for device in devices if not seats[device.id].out_of_service]
    if not serving:
        whys = [f"{device.id} is {seats[device.id].state} ({seats[device.id].reason})" for device in devices]
        return f"No {what} is in service: {', '.join(whys)}."
    roomy = [device for device in serving if accounts.fits(device.id, task.memory_bytes)]
    if not roomy:
        return _too_small(task, serving, accounts)
    floor = setback.floor(now) if setback else -inf
    if setback and all(accounts.room(device.id) < floor for device in roomy):
        left = f"where {setback.room_bytes / MIB:.0f} MiB were left"
        return f"It ran out of memory on {setback.device}, {left}: it waits up to a minute for a device with more."
    return ""


def _too_small(task: Task, serving: Sequence[Device], accounts: Accounts) -> str:
    best = max(serving, key=lambda device: accounts.room(device.id))
    room = max(0.0, accounts.room(best.id))
    most = f"the most that is free and not promised is {room / MIB:.0f} MiB, on {best.id}"
    return f"It needs {task.memory_bytes / MIB:.0f} MiB of a card; {most}."
