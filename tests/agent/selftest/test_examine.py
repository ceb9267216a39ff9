"""A whole examination of a device: sound ones, and each fault injected once."""

from __future__ import annotations

from typing import Any

import pytest

from agent.selftest.examine import examine_device
from agent.selftest.rows import find_fault, worst_verdict
from tests.agent.selftest.figures import CARD, CPU, EXACT, MIB, NETS, OF_CPU, CannedWorkers, change, examine, fail

NAN = {"finite": False, "error": 0.0, "largest": 0.0}
WRONG = {"finite": True, "error": 0.3, "largest": 4.0}
CHECKS = [
    *("device", "networks fp32", "networks fp16", "networks bf16", "face networks", "copies"),
    *("encoder libx264", "encoder h264_nvenc", "speed", "memory", "weights", "batch sizes", "forms", "compiled"),
    *("two workers", "kill -9"),
]


def test_a_sound_card_is_ok_in_every_row() -> None:
    """All checks run, in three precisions, and none blames the card."""
    rows = examine()
    assert list(rows) == CHECKS
    assert {name: row.found for name, row in rows.items() if row.verdict != "ok"} == {}
    assert find_fault(list(rows.values())) == ""


def test_a_processor_has_rows_of_its_own() -> None:
    """No fp16 and no NVENC there; nothing is said of an encoder that only cards have."""
    nvenc = {"state": "there is no NVIDIA card"}
    encoders = {"libx264": change("encoders")["libx264"], "h264_nvenc": nvenc}
    compiled = {"state": "cards only"}
    rows = examine({"device": OF_CPU, "encoders": encoders, "compiled": compiled}, CPU)
    assert [name for name in CHECKS if name not in rows] == ["networks fp16", "encoder h264_nvenc"]
    assert worst_verdict(list(rows.values())) == "ok"
    without = examine({"device": {**OF_CPU, "bf16": False}, "encoders": encoders, "compiled": compiled}, CPU)
    assert "networks bf16" not in without


BAD: list[tuple[str, dict[str, Any], str, str, bool]] = [
    ("networks fp16", {"networks fp16": {**NETS, "unet": WRONG}}, "wrong numbers", "update its driver", True),
    ("networks bf16", {"networks bf16": {**NETS, "decode": NAN}}, "decode gave numbers that are not", "Xid", True),
    ("networks fp32", {"networks fp32": {**NETS, "unet": {**EXACT, "error": 2e-3}}}, "wrong", "driver", True),
    ("face networks", {"face networks": {"pose": WRONG}}, "in pose", "update its driver", True),
    (
        "device",
        {"device": change("device", device="GPU-bbbb")},
        "sees 1 cards, the first of them GPU-bbbb",
        "CUDA_VISIBLE_DEVICES",
        True,
    ),
    ("device", {"device": change("device", count=4)}, "sees 4 cards", "CUDA_VISIBLE_DEVICES", True),
    ("device", {"device": change("device", count=0)}, "finds no card", "install a build of torch", True),
    ("device", {"device": change("device", count=0, cuda="")}, "built without CUDA", "pytorch.org", True),
    ("weights", {"precisions": change("precisions", finite=False)}, "not finite in fp16", "driver", True),
    ("weights", {"precisions": change("precisions", psnr_db=12.0)}, "at least 35 dB", "driver", True),
    (
        "weights",
        {"precisions": fail("weights_damaged", "unet.pth is cut", hint="run it")},
        "unet.pth is cut",
        "run it",
        False,
    ),
    ("batch sizes", {"batches": change("batches", psnr_db=19.0)}, "batch 1 against 16", "driver", True),
    ("batch sizes", {"batches": change("batches", psnr_db=30.0)}, "at least 35 dB", "driver", False),
    ("compiled", {"compiled": change("compiled", psnr_db=20.0)}, "compiled against not", "driver", False),
    (
        "two workers",
        {"faces x 2": {"networks": "tiny", "hashes": ["cd"], "seconds": 2.0}},
        "2 different ways",
        "torch",
        False,
    ),
    (
        "encoder libx264",
        {"encoders": {"libx264": {"state": "it fails"}}},
        "it fails",
        "reinstall the package av",
        False,
    ),
    (
        "encoder h264_nvenc",
        {"encoders": {**change("encoders"), "h264_nvenc": {"state": "usable", "psnr_db": 9.0, "fps": 1.0}}},
        "damaged pictures",
        "output.encoder",
        False,
    ),
    ("speed", {"speed": fail("device_error", "CUDA error", fault="worker")}, "it failed: CUDA error", "dmesg", True),
    ("kill -9", {"hold": fail("worker_died", "killed by SIGSEGV", fault="worker")}, "SIGSEGV", "log", True),
]


@pytest.mark.parametrize(("check", "others", "found", "advice", "blames_card"), BAD)
def test_each_fault_has_its_row_and_its_advice(
    check: str, others: dict[str, Any], found: str, advice: str, blames_card: bool
) -> None:
    """The row of the fault alone is bad, says what was found and what to do, and blames the card where it is it."""
    rows = examine(others)
    bad = {name: row for name, row in rows.items() if row.verdict == "bad"}
    assert list(bad) == [check]
    assert (found in bad[check].found, advice in bad[check].advice) == (True, True), bad[check]
    assert bool(find_fault(list(rows.values()))) == blames_card
    assert not blames_card or find_fault(list(rows.values())).startswith(f"{check}: ")


NOTES: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "encoder h264_nvenc",
        {"encoders": {**change("encoders"), "h264_nvenc": {"state": "it fails (x)"}}},
        "it fails (x)",
        "libx264 is used",
    ),
    (
        "encoder h264_nvenc",
        {"encoders": {**change("encoders"), "h264_nvenc": {"state": "usable", "psnr_db": 40.0, "fps": 1.0}}},
        "libx264 has 48.0 dB",
        "output.encoder",
    ),
    ("weights", {"precisions": change("precisions", precision="bf16")}, "fp16 overflows", "models verify"),
    (
        "weights",
        {"precisions": fail("out_of_memory", "CUDA out of memory", fault="worker")},
        "memory ran out",
        "free memory",
    ),
    ("batch sizes", {"batches": fail("timeout", "the time was up", fault="worker")}, "left out", "again"),
    ("compiled", {"compiled": {"state": "failed"}}, "can't be compiled", "compile"),
    ("compiled", {"compiled": {"state": "differs"}}, "other pictures", "compile"),
    ("compiled", {"compiled": {"state": "compiling"}}, "too long", "compile"),
    ("copies", {"copies": change("copies", **{"to the card": 0.4})}, "slow", "full slot"),
    ("forms", {"forms": fail("out_of_memory", "CUDA out of memory", fault="worker")}, "memory ran out", "free memory"),
    ("copies", {"copies": fail()}, "could not be checked", ""),
    (
        "memory",
        {"speed": change("speed", memory_bytes={"before": 0, "peak": 7000 * MIB, "after": 3000 * MIB})},
        "not all is given back",
        "recycle_spans",
    ),
]


@pytest.mark.parametrize(("check", "others", "found", "advice"), NOTES)
def test_what_a_card_can_work_without_is_a_note(check: str, others: dict[str, Any], found: str, advice: str) -> None:
    """A card without NVENC, without a compiler or with a slow link works; a check without memory proves nothing."""
    rows = examine(others)
    noted = {name: row for name, row in rows.items() if row.verdict != "ok"}
    assert {name: row.verdict for name, row in noted.items()} == {check: "note"}
    assert (found in noted[check].found, advice in noted[check].advice) == (True, True), noted[check]


def test_memory_that_stays_taken_after_kill_9() -> None:
    """It is the card's fault, with how much of it and what to do; a few megabytes are other programs'."""
    row = examine(kept_bytes=5000 * MIB)["kill -9"]
    assert (row.verdict, row.blames_card) == ("bad", True)
    assert row.found.startswith("5000 of 6000 MiB of the card are not free")
    assert "reboot" in row.advice
    assert examine(kept_bytes=100 * MIB)["kill -9"].verdict == "ok"


def test_the_forms_are_shown_with_the_one_that_jobs_run() -> None:
    """Its milliseconds a frame; a form that gives other pictures says so, and a processor keeps the usual one."""
    row = examine()["forms"]
    assert row.found == (
        'milliseconds a frame (installed weights): usual 10.0; norms 8.0; jobs on this type of card run "norms"'
    )
    other = {"norms": {"unet_ms": 1.0, "decode_ms": 1.0, "is_same": False}}
    assert "norms 2.0 (other pictures)" in examine({"forms": change("forms", forms=other)})["forms"].found
    encoders = {"libx264": change("encoders")["libx264"]}
    for networks, target, device in (("installed", CPU, OF_CPU), ("tiny", CARD, change("device"))):
        others = {"device": device, "encoders": encoders, "forms": change("forms", networks=networks)}
        assert examine(others, target)["forms"].found.endswith("jobs run the usual form here")


def test_a_card_without_bf16_is_not_asked_for_it() -> None:
    """Those before Ampere compute in fp16."""
    rows = examine({"device": change("device", bf16=False, capability="7.5")})
    assert ("networks fp16" in rows, "networks bf16" in rows) == (True, False)
    assert worst_verdict(list(rows.values())) == "ok"


def test_nothing_follows_a_device_that_cannot_compute() -> None:
    """A torch that sees no card runs no check on it."""
    workers = CannedWorkers({"device": change("device", count=0)})
    rows = list(examine_device(workers, CARD, {}))
    assert ([row.check for row in rows], workers.asked) == (["device", "others"], ["device"])


def test_two_workers_are_asked_at_once() -> None:
    """First one alone, then both; all are killed at the end, while they hold the networks."""
    workers = CannedWorkers()
    list(examine_device(workers, CARD, {}))
    assert workers.asked[-4:] == ["faces", "faces x 2", "hold", "kill"]


def test_a_mig_instance_is_compared_with_nothing() -> None:
    """CUDA knows an instance by another name than the driver does."""
    mig = type(CARD)("MIG-1234", "cuda", "Card", "580.1")
    assert examine(target=mig)["device"].verdict == "ok"
    unknown = examine({"device": change("device", device="")})["device"]
    assert (unknown.verdict, "unknown to torch" in unknown.found) == ("ok", True)


def test_wrong_numbers_of_a_processor_are_not_blamed_on_a_driver() -> None:
    """The advice fits the device."""
    row = examine({"device": OF_CPU, "networks fp32": {"unet": WRONG}}, CPU)["networks fp32"]
    assert (row.verdict, "torch" in row.advice, "driver" in row.advice) == ("bad", True, False)
