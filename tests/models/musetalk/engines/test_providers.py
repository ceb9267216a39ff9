"""What may run engines, and the errors where it is missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.musetalk.engine import MuseTalkEngine
from models.musetalk.engines import providers
from models.musetalk.engines.providers import (
    CPU,
    CUDA,
    TENSORRT,
    Host,
    find_host,
    find_strays,
    open_session,
    read_driver,
    require_card,
)
from models.types import EngineError
from tests.models.musetalk.jobs import make_request, prepare_job, write_image

CARD = Host("RTX 4090", (8, 9), "550.54.14", (TENSORRT, CUDA, CPU))


@pytest.mark.parametrize(
    ("card", "word", "hint"),
    [
        (Host("RTX 3090", (8, 6), "", (TENSORRT, CPU)), "RTX 3090 is sm_86", "newer cards"),
        (Host("RTX 4090", (8, 9), "", (CUDA, CPU)), "this one has CUDAExecutionProvider", "onnxruntime-gpu tensorrt"),
    ],
)
def test_a_card_that_can_not_is_named(card: Host, word: str, hint: str) -> None:
    """An older card, or an ONNX Runtime without TensorRT: no other provider takes over unseen."""
    with pytest.raises(EngineError, match=word) as failed:
        require_card(card)
    assert failed.value.code == "engine_unavailable"
    assert hint in failed.value.hint
    assert "leave out" in failed.value.hint


def test_a_job_without_the_extra_fails_before_anything_is_prepared(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the packages, the hint how to get them."""
    monkeypatch.setattr(providers, "find_spec", lambda name: None if name == "onnxscript" else name)
    request = make_request(tmp_path, root, write_image(tmp_path / "face.png"), precision="int8")
    with pytest.raises(EngineError, match="onnxscript") as failed:
        prepare_job(request)
    assert failed.value.code == "engine_unavailable"
    assert "pip install '.[engines]'" in failed.value.hint
    assert not request.files.prepared.exists()


def test_a_worker_that_can_not_take_a_prepared_job_says_so(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job keeps its plan: a machine without the extra renders none of its frames in another precision."""
    from models.musetalk.engines.plan import EnginePlan

    request = make_request(tmp_path, root, write_image(tmp_path / "face.png"))
    _, inspection = prepare_job(request)
    plan = EnginePlan("int8", "fp32", {"unet": 4, "decode": 1}, (50, 64), nodes={"unet": ["node"]})
    plan.write(request.files.prepared / "engine.json")
    request.options["precision"] = "int8"
    monkeypatch.setattr(providers, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match="engine_unavailable"):
        next(MuseTalkEngine("cpu:1").render(request, inspection, 0, 1))


def test_tensorrt_runs_a_card_and_keeps_what_it_builds(tmp_path: Path) -> None:
    """In fp16 and int8, in the folder of the engine; a processor runs its own kernels."""
    first, *others = CARD.choose_providers(tmp_path)
    assert first[0] == TENSORRT
    assert (first[1]["trt_int8_enable"], first[1]["trt_engine_cache_path"]) == (True, str(tmp_path))
    assert [name for name, _ in others] == [CUDA, CPU]
    assert [name for name, _ in CARD.choose_trial_providers()] == [CUDA, CPU]
    assert Host().choose_providers(tmp_path) == [(CPU, {})] == Host().choose_trial_providers()


def test_a_card_is_asked_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its type, its capability and the driver are what an engine is kept by."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "RTX 4090")
    monkeypatch.setattr(providers, "read_driver", lambda _: "550.54.14")
    runtime = SimpleNamespace(get_available_providers=lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(providers, "import_module", lambda _: runtime)
    assert find_host(torch.device("cuda:0")) == CARD
    assert find_host(torch.device("cpu")) == Host(available=CARD.available)


class Session:
    """Says which provider runs which nodes."""

    def __init__(self, *parts: tuple[str, list[str]]) -> None:
        self._parts = parts

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(
                ep_name=name, get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=kind) for kind in kinds]
            )
            for name, kinds in self._parts
        ]


def test_convolutions_that_another_provider_runs_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime takes the next provider where TensorRT's libraries are not found, or refuse a node."""
    whole = Session((TENSORRT, ["Conv", "Add", "Conv"]), (CPU, ["Add"]))
    parts = Session((TENSORRT, ["Conv"]), (CUDA, ["Conv", "QuantizeLinear"]))
    assert (find_strays(whole, TENSORRT), find_strays(parts, TENSORRT)) == (0, 1)
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: parts)
    with pytest.raises(EngineError, match="1 convolutions are left to another") as failed:
        open_session(Path("unet.onnx"), CARD.choose_providers(Path()))
    assert failed.value.code == "engine_unavailable"


def test_a_network_that_a_provider_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    """Here one that is no network."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "unet.onnx").write_bytes(b"no network")
    with pytest.raises(EngineError, match="does not run this network in 8 bits") as failed:
        open_session(tmp_path / "unet.onnx", [(CPU, {})])
    assert failed.value.code == "engine_unavailable"


def test_the_drivers_version_is_read(tmp_path: Path) -> None:
    """From where the kernel says it."""
    path = tmp_path / "version"
    assert read_driver(path) == ""
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n")
    assert read_driver(path) == "550.54.14"
