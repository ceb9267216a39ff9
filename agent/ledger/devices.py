"""Rows of the devices: the state of each, and which of them people have drained."""

from __future__ import annotations

from agent.ledger.sqlite import Database
from gpu_pool.types import Device

COLUMNS = (
    *("id", "card", "kind", "name", "state", "reason", "total_bytes", "free_bytes", "held_bytes"),
    *("worker_pid", "model", "load_s", "batch", "temperature_c", "load_percent", "power_w"),
)


class DeviceRows:
    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, device: Device, *, at_ms: int, until_ms: int | None = None, job: str | None = None) -> None:
        """Write the state of a device. `until_ms`: when a sick one is tried again; `job`: the uid of its job."""
        row = {key: getattr(device, key) for key in COLUMNS} | {
            "since_ms": at_ms,
            "until_ms": until_ms,
            "updated_ms": at_ms,
        }
        kept = "CASE WHEN state = excluded.state THEN since_ms ELSE excluded.since_ms END"
        changes = ", ".join(f"{key} = {kept if key == 'since_ms' else f'excluded.{key}'}" for key in (*row, "job_id"))
        self._db.execute(
            f"INSERT INTO devices ({', '.join(row)}, job_id)"
            f" VALUES ({', '.join('?' for _ in row)}, (SELECT id FROM jobs WHERE uid = ?))"
            f" ON CONFLICT (id) DO UPDATE SET {changes}",
            [*row.values(), job],
        )

    def clear(self) -> None:
        """Delete the devices of an earlier start; the pool reports those that there are now."""
        self._db.execute("DELETE FROM devices")

    def list_cards(self) -> list[Device]:
        """Return the workers on cards of this start, or, before `clear`, of the one before."""
        rows = self._db.execute("SELECT id, name, card FROM devices WHERE kind = 'cuda' AND card != '' ORDER BY id")
        return [Device(str(row[0]), "cuda", name=str(row[1]), state="lost", card=str(row[2])) for row in rows]

    def list_drained(self) -> set[str]:
        """Return the devices that people have drained, in this start or an earlier one."""
        return {str(row[0]) for row in self._db.execute("SELECT device FROM drained")}

    def drain(self, device: str, at_ms: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO drained VALUES (?, ?)", [device, at_ms])

    def resume(self, device: str) -> None:
        self._db.execute("DELETE FROM drained WHERE device = ?", [device])
