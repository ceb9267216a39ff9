"""A session called as a module: batches, types, and the way over a card's memory, which is played through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models.musetalk.engines.runtime import EngineDecode, EngineModule
from models.musetalk.inpainting.memory_errors import is_out_of_memory

CPU = torch.device("cpu")


class Session:
    """Adds one to its input of four rows; notes each call."""

    def __init__(self, kind: str = "tensor(float)") -> None:
        self.calls: list[Any] = []
        self._kind = kind

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="given", type=self._kind, shape=[4, 3, 2, 2])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="made", type=self._kind, shape=[4, 3, 2, 2])]

    def run(self, _: None, given: dict[str, Any]) -> list[Any]:
        self.calls.append(given["given"])
        return [given["given"] + 1]

    def io_binding(self) -> Any:
        calls = self.calls
        return SimpleNamespace(
            bind_input=lambda *told: calls.append(("input", *told[:5])),
            bind_output=lambda *told: calls.append(("output", *told[:5])),
        )

    def run_with_iobinding(self, _: Any) -> None:
        self.calls.append("run")


@pytest.mark.parametrize("count", [1, 4, 6])
def test_any_number_of_rows_goes_in_batches_of_one_size(count: int) -> None:
    """A network has one shape: what is missing are zeros, which don't come back."""
    session = Session()
    given = torch.arange(count * 12.0).reshape(count, 3, 2, 2)
    assert torch.equal(EngineModule(session, CPU)(given), given + 1)
    assert {one.shape for one in session.calls} == {(4, 3, 2, 2)}


def test_values_get_the_type_of_the_network() -> None:
    """Where PyTorch's half of the way is in another precision."""
    session = Session("tensor(float16)")
    assert EngineModule(session, CPU)(torch.ones(4, 3, 2, 2)).dtype == torch.float16
    assert session.calls[0].dtype == np.float16


def test_on_a_card_pytorch_is_waited_for_and_no_byte_is_copied() -> None:
    """The addresses of the tensors are bound, and PyTorch's stream ends before the network begins."""
    session = Session("tensor(float16)")
    stream = SimpleNamespace(synchronize=lambda: session.calls.append("wait"))
    module = EngineModule(session, CPU, SimpleNamespace(current_stream=lambda _: stream))
    given = torch.ones(4, 3, 2, 2, dtype=torch.float16)
    made = module._run_bound([("given", given)])
    assert (made.shape, made.dtype) == ((4, 3, 2, 2), torch.float16)
    assert session.calls == [
        ("input", "given", "cuda", 0, np.float16, [4, 3, 2, 2]),
        ("output", "made", "cuda", 0, np.float16, [4, 3, 2, 2]),
        "wait",
        "run",
    ]


def test_memory_that_runs_out_is_known_as_such() -> None:
    """ONNX Runtime's exceptions are no RuntimeErrors."""
    states = pytest.importorskip("onnxruntime").capi.onnxruntime_pybind11_state
    session = Session()

    def fail(*_: Any) -> Any:
        raise states.RuntimeException("BFCArena: Failed to allocate memory for requested buffer of size 4")

    session.run = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError) as failed:
        EngineModule(session, CPU)(torch.ones(4, 3, 2, 2))
    assert is_out_of_memory(failed.value)


def test_a_decoder_tells_which_faces_are_finite() -> None:
    """Levels are made outside of the network, and an overflow is seen."""
    image = torch.zeros(2, 3, 2, 2)
    image[1, 0, 0, 0] = float("inf")
    faces, finite = EngineDecode(lambda _: image)(image)  # type: ignore[arg-type]
    assert (faces.shape, faces.dtype) == ((2, 2, 2, 3), torch.uint8)
    assert finite.tolist() == [True, False]
