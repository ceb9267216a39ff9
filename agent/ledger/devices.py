"""Rows of the devices: how each one is, and which of them people have set aside."""

from __future__ import annotations

from agent.ledger.sqlite import Database
from gpu_pool.types import Device

COLUMNS = (
    *("id", "card", "kind", "name", "state", "reason", "total_bytes", "free_bytes", "held_bytes"),
    *("worker_pid", "model", "load_s", "batch"),
)


class DeviceRows:
    def __init__(self, db: Database) -> None:
        self._db = db

    def note(self, device: Device, *, at: int, until_ms: int | None = None, job: str | None = None) -> None:
        """How the device is. `until_ms`: when a sick one is tried again; `job`: the uid of what it works on."""
        row = {key: getattr(device, key) for key in COLUMNS} | {"since_ms": at, "until_ms": until_ms, "updated_ms": at}
        kept = "CASE WHEN state = excluded.state THEN since_ms ELSE excluded.since_ms END"
        news = ", ".join(f"{key} = {kept if key == 'since_ms' else f'excluded.{key}'}" for key in (*row, "job_id"))
        self._db.execute(
            f"INSERT INTO devices ({', '.join(row)}, job_id)"
            f" VALUES ({', '.join('?' for _ in row)}, (SELECT id FROM jobs WHERE uid = ?))"
            f" ON CONFLICT (id) DO UPDATE SET {news}",
            [*row.values(), job],
        )

    def forget(self) -> None:
        """Devices of an earlier start may be gone; the pool reports those that are here."""
        self._db.execute("DELETE FROM devices")

    def drained(self) -> set[str]:
        """Devices that people have set aside, in this start or an earlier one."""
        return {str(row[0]) for row in self._db.execute("SELECT device FROM drained")}

    def drain(self, device: str, at: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO drained VALUES (?, ?)", [device, at])

    def resume(self, device: str) -> None:
        self._db.execute("DELETE FROM drained WHERE device = ?", [device])
