"""How much memory of a card each worker may take.

Pure: times are arguments, bytes are memory of one card. NVML's free memory is no reservation: two
spans that are placed in the same instant both see it. So each placement promises memory to a
worker, and the part of a promise that isn't allocated yet is not available to other workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from gpu_pool.types import Device


@dataclass(frozen=True, slots=True)
class MemoryReservation:
    """The memory of a card that one worker holds or may take. Times are the pool's clock.

    held_bytes      what it held at the last reading of the driver
    promised_bytes  what it may come to hold for the span it runs
    expired_bytes   the largest promise that ended after that reading: the worker may still hold
                    that much
    reported_bytes  what the worker itself reports to hold; used by later readings in which the
                    driver has no figure
    """

    held_bytes: int = 0
    promised_bytes: int = 0
    expired_bytes: int = 0
    expired_at_s: float = -inf
    reported_bytes: int = 0
    reported_at_s: float = -inf

    @property
    def open_bytes(self) -> int:
        """What it may still take of the memory that was free at the last reading."""
        return max(0, max(self.promised_bytes, self.expired_bytes) - self.held_bytes)

    def promise(self, size_bytes: int) -> MemoryReservation:
        """Let the worker hold so much while it runs its next span."""
        return replace(self, promised_bytes=size_bytes)

    def expire(self, now_s: float) -> MemoryReservation:
        """End the promise with its span.

        Only a reading that began later shows what the worker holds after it.
        """
        expired_bytes = max(self.promised_bytes, self.expired_bytes)
        return replace(self, promised_bytes=0, expired_bytes=expired_bytes, expired_at_s=now_s)

    def report(self, held_bytes: int, now_s: float) -> MemoryReservation:
        """Note what the worker reports to hold."""
        return replace(self, reported_bytes=held_bytes, reported_at_s=now_s)

    def update(self, held_bytes: int, read_at_s: float) -> MemoryReservation:
        """Note a reading of the driver.

        `held_bytes` is its figure for this worker, 0 where it has none.
        """
        known = held_bytes or (self.reported_bytes if self.reported_at_s < read_at_s else self.held_bytes)
        return replace(self, held_bytes=known, expired_bytes=0 if self.expired_at_s < read_at_s else self.expired_bytes)


class MemoryBudget:
    """The memory of all cards at one reading, while spans are placed by it."""

    def __init__(
        self, devices: Iterable[Device], reservations: Mapping[str, MemoryReservation], reserve_bytes: int
    ) -> None:
        self._devices = {device.id: device for device in devices}
        self._reservations = dict(reservations)
        self._reserve_bytes = reserve_bytes

    def available_bytes(self, device_id: str) -> float:
        """Return how much the worker of this device may hold, what it holds already included.

        Infinite where memory isn't counted: on a processor, and on a card that shares the host's
        memory.
        """
        device = self._devices[device_id]
        if not device.card or not device.total_bytes:
            return inf
        peers = [peer.id for peer in self._devices.values() if peer.card == device.card and peer.id != device_id]
        open_bytes = sum(self._reservations[peer].open_bytes for peer in peers)
        return device.free_bytes + self._reservations[device_id].held_bytes - open_bytes - self._reserve_bytes

    def can_fit(self, device_id: str, size_bytes: int) -> bool:
        """Whether a span fits. A size of 0 is unknown, and so fits everywhere."""
        return size_bytes == 0 or size_bytes <= self.available_bytes(device_id)

    def promise(self, device_id: str, size_bytes: int) -> None:
        """Take the memory of a span that starts on this device from the budget."""
        self._reservations[device_id] = self._reservations[device_id].promise(size_bytes)

    def find_candidates(
        self,
        size_bytes: int,
        min_bytes: float,
        idle: Iterable[str],
        rank: Callable[[list[Device]], Sequence[Device]],
    ) -> list[Device]:
        """Return those of the idle devices on which spans of `size_bytes` fit, all at once.

        Each has its available memory as `free_bytes`. `min_bytes`: the least available memory that
        is accepted, if that is more. Of two workers of one card that fit alone, but not together,
        the first one by `rank` is a candidate.
        """
        candidates: list[Device] = []
        left = list(idle)
        while left:
            best = rank([self._to_candidate(device_id) for device_id in left])[0]
            left.remove(best.id)
            if self.can_fit(best.id, size_bytes) and min_bytes <= self.available_bytes(best.id):
                candidates.append(best)
                self.promise(best.id, size_bytes)
        return candidates

    def _to_candidate(self, device_id: str) -> Device:
        device, available_bytes = self._devices[device_id], self.available_bytes(device_id)
        return device if available_bytes == inf else replace(device, free_bytes=int(available_bytes))
