"""`musedrop selftest` as people run it, on the processor, with tiny checkpoints in the published formats."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.models.musetalk import tiny
from tests.nvmlstub import PretendDriver
from tests.share import Share, until

ROWS = {"networks fp32", "face networks", "copies", "encoder libx264", "speed", "memory", "weights", "batch sizes"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_processor_proves_itself_with_installed_weights(make_share: Callable[..., Share]) -> None:
    """Each row is ok, as JSON and in selftest.json; the second worker and the killed one have theirs."""
    share = make_share()
    tiny.lay_out(share.state / "models")
    ran = share.musedrop("selftest", "--device", "cpu", "--json", timeout_s=1600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [report] = json.loads(ran.stdout)
    assert {row["check"]: row["found"] for row in report["rows"] if row["verdict"] != "ok"} == {}
    assert {row["check"] for row in report["rows"]} >= {*ROWS, "two workers", "kill -9"}
    found = {row["check"]: row["found"] for row in report["rows"]}
    assert all("installed weights" in found[check] for check in ("speed", "weights", "batch sizes", "two workers"))
    assert (report["device"], report["fault"], report["key"]["card"]) == ("cpu", "", "cpu")
    assert len(report["key"]["weights"]) == 64
    assert json.loads((share.state / "selftest.json").read_bytes())["devices"] == [report]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_doctor_goes_deep(make_share: Callable[..., Share]) -> None:
    """A damaged checkpoint is a bad row with what to do; the checks of doctor come first."""
    share = make_share()
    models = tiny.lay_out(share.state / "models")
    unet = models / "musetalkV15" / "unet.pth"
    unet.write_bytes(unet.read_bytes()[:1000])
    ran = share.musedrop("doctor", "--deep", timeout_s=1600)
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if "cpu weights" in line)
    assert lines[place].startswith("bad")
    assert "->" in lines[place + 1]
    assert any("Python" in line for line in lines[:place])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_daemon_tests_a_new_card_once(make_share: Callable[..., Share], driver: PretendDriver) -> None:
    """A card that no torch finds is sick, with what to do; the next daemon knows that without a test."""
    card = "GPU-aaaa1111"
    driver.set_devices(f"gpu {card} {24 << 30} 0 {1 << 30}")
    share = make_share(workers=1, module="tests.e2e.hasty run")
    tiny.lay_out(share.state / "models")

    def is_sick() -> bool:
        sql = "SELECT state, reason FROM device_status WHERE device = ?"
        return [row["reason"][:8] for row in share.rows(sql, card) if row["state"] == "sick"] == ["device: "]

    share.start(**driver.env)
    until(is_sick, 900, share.log)
    assert share.rows("SELECT device, kind FROM device_events") == [{"device": card, "kind": "selftest"}]
    assert "install a build of torch" in share.musedrop("devices").stdout
    before = (share.state / "selftest.json").read_bytes()
    assert (share.stop(), share.log().count("has started; jobs come first")) == (0, 1)
    share.start(**driver.env)
    until(is_sick, 300, share.log)
    assert share.log().count("has started; jobs come first") == 1
    assert (share.state / "selftest.json").read_bytes() == before


def test_an_unknown_device_is_refused(make_share: Callable[..., Share]) -> None:
    """With the names that there are."""
    ran = make_share().musedrop("selftest", "--device", "GPU-nowhere")
    assert ran.returncode == 2
    assert 'no device is called "GPU-nowhere"; there are' in ran.stderr
