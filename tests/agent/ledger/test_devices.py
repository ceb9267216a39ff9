"""The rows of the devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gpu_pool.types import Device
from tests.agent.samples import a_ledger, add_job


def test_devices_show_the_job_they_work_on(tmp_path: Path) -> None:
    """device_status joins the card, its memory in MiB and its job."""
    ledger = a_ledger(tmp_path)
    add_job(ledger, "u1", name="hello")
    card = Device("GPU-1/2", "cuda", card="GPU-1", total_bytes=4 << 20, free_bytes=3 << 20, held_bytes=1 << 20)
    ledger.devices.record(replace(card, state="busy", model="musetalk", load_s=2.5, batch=8), at_ms=1000, job="u1")
    [row] = ledger.rows("SELECT * FROM device_status")
    assert (row["device"], row["card"], row["total_mib"], row["free_mib"]) == ("GPU-1/2", "GPU-1", 4, 3)
    assert (row["held_mib"], row["model"], row["load_seconds"], row["batch"]) == (1, "musetalk", 2.5, 8)
    assert (row["job"], row["until"]) == ("hello", None)


def test_a_card_without_gauges_has_none_in_its_row(tmp_path: Path) -> None:
    """Temperature, load and power are NULL where the driver doesn't give them, and 0 where they are 0."""
    ledger = a_ledger(tmp_path)
    ledger.devices.record(Device("GPU-1", "cuda", temperature_c=61, load_percent=0), at_ms=1)
    [row] = ledger.rows("SELECT temperature_c, load_percent, power_w FROM device_status")
    assert list(row.values()) == [61, 0, None]


def test_a_device_says_since_when_it_is_as_it_is(tmp_path: Path) -> None:
    """`since` moves with the state and not with the memory; a sick device says when it is tried again."""
    ledger = a_ledger(tmp_path)
    card = Device("GPU-1", "cuda", state="idle")
    ledger.devices.record(card, at_ms=1000)
    ledger.devices.record(replace(card, free_bytes=5), at_ms=2000)
    [row] = ledger.rows("SELECT since, updated_at FROM device_status")
    assert (row["since"], row["updated_at"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.000Z")
    ledger.devices.record(replace(card, state="sick", reason="broken"), at_ms=3000, until_ms=33_000)
    [row] = ledger.rows("SELECT since, until, reason FROM device_status")
    assert list(row.values()) == ["1970-01-01T00:00:03.000Z", "1970-01-01T00:00:33.000Z", "broken"]


def test_cards_of_the_start_before_are_known(tmp_path: Path) -> None:
    """Each worker on a card, as lost, until the devices of this start are the only ones."""
    ledger = a_ledger(tmp_path)
    for device in (Device("cpu:0", "cpu"), Device("GPU-1", "cuda", name="Card", card="GPU-1", state="idle")):
        ledger.devices.record(device, at_ms=1)
    assert ledger.devices.list_cards() == [Device("GPU-1", "cuda", name="Card", card="GPU-1", state="lost")]
    ledger.devices.clear()
    assert ledger.devices.list_cards() == []


def test_what_was_drained_stays_so(tmp_path: Path) -> None:
    """The list of devices is of this start, the list of those set aside is for all."""
    ledger = a_ledger(tmp_path)
    ledger.devices.record(Device("cpu:0", "cpu"), at_ms=1)
    for device in ("cpu:0", "cpu:0", "cpu:1"):
        ledger.devices.drain(device, 1)
    ledger.devices.clear()
    ledger.close()
    again = a_ledger(tmp_path)
    assert again.rows("SELECT * FROM device_status") == []
    assert again.devices.list_drained() == {"cpu:0", "cpu:1"}
    again.devices.resume("cpu:1")
    assert again.devices.list_drained() == {"cpu:0"}
