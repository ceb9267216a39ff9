"""Whose memory a card's free memory is. Pure: times are arguments, bytes are memory of one card.

NVML's free memory is no reservation: two jobs that are placed in the same instant both see it. So each placement is a
promise, and what of a promise is not yet allocated is taken off the room that others have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from gpu_pool.types import Device


@dataclass(frozen=True, slots=True)
class Stake:
    """What one worker has to do with the memory of its card.

    held      what it held when the driver was last asked
    promised  what it may come to hold for the span it runs
    lapsed    the largest promise that has ended since then: it may hold that much, and the driver hasn't told yet
    said      what the worker itself says it holds; counts for readings that began later, where the driver doesn't tell
    """

    held: int = 0
    promised: int = 0
    lapsed: int = 0
    lapsed_at: float = -inf
    said: int = 0
    said_at: float = -inf

    @property
    def open(self) -> int:
        """What it may still take of the memory that the last reading called free."""
        return max(0, max(self.promised, self.lapsed) - self.held)

    def promise(self, size: int) -> Stake:
        return replace(self, promised=size)

    def end(self, now: float) -> Stake:
        """The span is over. Only a reading that began later shows what the worker holds after it."""
        return replace(self, promised=0, lapsed=max(self.promised, self.lapsed), lapsed_at=now)

    def say(self, held: int, now: float) -> Stake:
        return replace(self, said=held, said_at=now)

    def read(self, held: int, read_at_s: float) -> Stake:
        """The driver was asked at `read_at_s`; `held` is its figure for this worker, 0 where it has none."""
        known = held or (self.said if self.said_at < read_at_s else self.held)
        lapsed = 0 if self.lapsed_at < read_at_s else self.lapsed
        return replace(self, held=known, lapsed=lapsed)


class Accounts:
    """The memory of all cards by one reading, while somebody plans with it."""

    def __init__(self, devices: Iterable[Device], stakes: Mapping[str, Stake], reserve_bytes: int) -> None:
        self._devices = {device.id: device for device in devices}
        self._stakes = dict(stakes)
        self._reserve = reserve_bytes

    def room(self, name: str) -> float:
        """How much the worker of this device may come to hold, what it holds already included.

        Infinite where there is no account: on a processor, and on a card that shares the host's memory.
        """
        device = self._devices[name]
        if not device.card or not device.total_bytes:
            return inf
        beside = [other for other, peer in self._devices.items() if peer.card == device.card and other != name]
        open_bytes = sum(self._stakes[other].open for other in beside)
        return device.free_bytes + self._stakes[name].held - open_bytes - self._reserve

    def fits(self, name: str, size: int) -> bool:
        """A size of 0 is not known, and so fits everywhere."""
        return size == 0 or size <= self.room(name)

    def promise(self, name: str, size: int) -> None:
        self._stakes[name] = self._stakes[name].promise(size)

    def offers(
        self, size: int, floor: float, idle: Iterable[str], order: Callable[[list[Device]], Sequence[Device]]
    ) -> list[Device]:
        """Those of the idle devices on which spans of `size` bytes fit, all of them at once.

        Each comes with its room as `free_bytes`. `floor`: the least room that will do, if that is more. Two workers of
        one card that fit alone, but not together, are one offer: the one that comes first in `order`.
        """
        offered: list[Device] = []
        left = list(idle)
        while left:
            best = order([self._with_room(name) for name in left])[0]
            left.remove(best.id)
            if self.fits(best.id, size) and floor <= self.room(best.id):
                offered.append(best)
                self.promise(best.id, size)
        return offered

    def _with_room(self, name: str) -> Device:
        room = self.room(name)
        return self._devices[name] if room == inf else replace(self._devices[name], free_bytes=int(room))
