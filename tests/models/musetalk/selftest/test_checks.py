"""The checks as a worker's handler runs them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.handler import open_handler
from models.musetalk.selftest.checks import describe_device

UUID = "aaaa1111-2222-3333-4444-555566667777"


def run(check: str, device: str = "cpu:0", **more: Any) -> dict[str, Any]:
    """Run a check in the handler of a worker; return its figures, which are JSON."""
    asked = {"stage": "selftest", "check": check, "models_dir": "/nowhere", "cache": "/nowhere", **more}
    figures = open_handler(device, {}).run(asked, 0, 1, lambda _: None)
    return dict(json.loads(json.dumps(figures, allow_nan=False)))


def test_a_processor_describes_itself() -> None:
    """Its cores and threads."""
    assert {"device": "cpu", "torch": torch.__version__}.items() <= run("device").items()


def test_the_encoders_are_compared_with_their_pictures() -> None:
    """x264 gives them back; NVENC says why it can't, or does so too."""
    found = run("encoders")
    assert found["libx264"]["psnr_db"] > 40
    assert (found["h264_nvenc"]["state"] == "usable") == ("psnr_db" in found["h264_nvenc"])


def test_copies_have_a_speed() -> None:
    """In GB/s; a processor copies in its own memory."""
    assert run("copies")["in memory"] > 0


def play_card(monkeypatch: pytest.MonkeyPatch, **about: Any) -> None:
    """Let torch see a card with these properties."""
    cuda = SimpleNamespace(
        is_available=lambda: True,
        get_device_properties=lambda _: SimpleNamespace(name="Card", major=8, minor=9, **about),
        mem_get_info=lambda _: (1, 2),
        device_count=lambda: 1,
        get_arch_list=lambda: ["sm_89"],
    )
    monkeypatch.setattr(torch, "cuda", cuda)


@pytest.mark.parametrize("uuid", [UUID, f"GPU-{UUID}"])
def test_a_card_is_known_by_its_uuid(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    """As the driver writes it, whether torch says it with or without the prefix."""
    play_card(monkeypatch, uuid=uuid)
    found = describe_device(torch.device("cuda:0"))
    assert (found["device"], found["count"], found["capability"]) == (f"GPU-{UUID}", 1, "8.9")
    assert json.dumps(found)


@pytest.mark.parametrize("uuid", ["", "<CUuuid object at 0x7f>", "GPU-1"])
def test_a_uuid_that_is_none_is_unknown(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    """Nothing is compared with it then."""
    play_card(monkeypatch, uuid=uuid)
    assert describe_device(torch.device("cuda:0"))["device"] == ""


def test_a_torch_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so instead of failing, also where it is a build for processors."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {"device": "", "count": 0}.items() <= run("device", f"GPU-{UUID}").items()
