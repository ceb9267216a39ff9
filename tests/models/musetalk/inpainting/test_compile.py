"""Compiled modules: eager at once, swapped in when the same, and never in the way."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.musetalk.inpainting.compile import CompiledModule, are_close, is_close, make_kernel_folder
from tests.models.musetalk import tiny_nets

CPU = torch.device("cpu")
Backend = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., Any]]


class Doubled(nn.Module):
    """Small enough to be compiled in a moment."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 + x.sin()


def marked(log: list[str], change: float = 0.0) -> Backend:
    """A backend that runs the graph as it is, notes each run, and may add something to the result."""

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*given: Tensor) -> Any:
            log.append("compiled")
            return tuple(tensor + change for tensor in graph(*given))

        return run

    return backend


@pytest.fixture(autouse=True)
def fresh() -> Any:
    """Nothing compiled by one test is there in the next."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_swapped_in_when_verified(tmp_path: Path) -> None:
    """Eager before and while it compiles, compiled afterwards, with the same result."""
    log: list[str] = []
    may_go = threading.Event()
    inner = marked(log)

    def slow(graph: torch.fx.GraphModule, given: list[Tensor]) -> Callable[..., Any]:
        assert may_go.wait(60)
        return inner(graph, given)

    eager, x = Doubled(), torch.randn(4, 3)
    fast = CompiledModule(eager, (torch.randn(4, 3),), tmp_path, slow)
    states = [fast.state]
    fast.start()
    with torch.no_grad():
        assert torch.equal(fast(x), eager(x))
        states.append(fast.state)
        assert log == []
        may_go.set()
        fast.wait(60)
        assert [*states, fast.state] == ["waiting", "compiling", "ready"]
        log.clear()
        assert torch.equal(fast(x), eager(x))
    assert log == ["compiled"]


def test_other_shapes_stay_eager(tmp_path: Path) -> None:
    """A shape or type that was not compiled goes the eager way, and nothing is compiled for it in between."""
    log: list[str] = []
    fast = CompiledModule(Doubled(), (torch.randn(4, 3),), tmp_path, marked(log))
    fast.start()
    fast.wait(60)
    log.clear()
    with torch.no_grad():
        for x in (torch.randn(2, 3), torch.randn(4, 3).double()):
            assert torch.equal(fast(x), Doubled()(x))
        assert log == []
        fast(torch.randn(4, 3))
    assert log == ["compiled"]


def test_a_different_result_is_not_used(tmp_path: Path) -> None:
    """Wrong kernels are seen before anybody sees a frame of them."""
    fast = CompiledModule(Doubled(), (torch.randn(4, 3),), tmp_path, marked([], change=0.5))
    fast.start()
    fast.wait(60)
    x = torch.randn(4, 3)
    assert fast.state == "differs"
    assert torch.equal(fast(x), Doubled()(x))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failed_compilation_is_no_failure(tmp_path: Path) -> None:
    """Without a working compiler everything stays eager."""

    def broken(_: torch.fx.GraphModule, __: list[Tensor]) -> Callable[..., Any]:
        raise RuntimeError("no compiler here")

    fast = CompiledModule(Doubled(), (torch.randn(4, 3),), tmp_path, broken)
    fast.start()
    fast.wait(60)
    x = torch.randn(4, 3)
    assert fast.state == "failed"
    assert torch.equal(fast(x), Doubled()(x))


def test_one_process_compiles_at_a_time(tmp_path: Path) -> None:
    """The second waits for the lock of the first, and is eager meanwhile."""
    began, may_go, log = threading.Event(), threading.Event(), []

    def first(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        log.append("first begins")
        began.set()
        assert may_go.wait(60)
        log.append("first ends")
        return graph.forward

    def second(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        log.append("second")
        return graph.forward

    one, two = (CompiledModule(Doubled(), (torch.randn(4, 3),), tmp_path, backend) for backend in (first, second))
    one.start()
    assert began.wait(60)
    two.start()
    two.wait(0.3)
    assert (log, two.state) == (["first begins"], "compiling")
    may_go.set()
    one.wait(60)
    two.wait(60)
    assert log == ["first begins", "first ends", "second"]
    assert (one.state, two.state) == ("ready", "ready")


def test_what_counts_as_the_same() -> None:
    """Rounding does, two grey levels do; more doesn't, and neither does what is no number."""
    wanted = torch.randn(1000)
    rare = torch.zeros(1000_000)
    rare[:50] = 0.05
    assert is_close(wanted.repeat(1000) + rare, wanted.repeat(1000))
    assert not is_close(wanted.repeat(1000) + 4 * rare, wanted.repeat(1000))
    rare[:500] = 0.05
    assert not is_close(wanted.repeat(1000) + rare, wanted.repeat(1000))
    assert are_close((wanted, wanted > 0), (wanted, wanted > 0))
    assert not are_close((wanted, wanted > 0), (wanted, wanted > 1))
    assert is_close(wanted + 0.01, wanted)
    assert not is_close(wanted + 0.1, wanted)
    assert not is_close(wanted * torch.nan, wanted)
    grey = torch.arange(256, dtype=torch.uint8)
    assert is_close(grey.roll(1)[1:], grey[1:])
    assert not is_close(grey.roll(3)[3:], grey[3:])


@pytest.mark.slow
def test_a_painter_swaps_while_it_paints(tmp_path: Path) -> None:
    """The inpainter's own networks, compiled by a backend that changes nothing: the same faces before and after."""
    inpainter = tiny_nets.inpainter()
    random = np.random.default_rng(0)
    latents = random.normal(size=(5, 8, 32, 32)).astype(np.float32)
    audio_windows = random.normal(size=(5, 50, 64)).astype(np.float32)
    before = inpainter.inpaint(latents, audio_windows)
    inpainter.compile(tmp_path, backend="eager")
    inpainter.wait_until_compiled(100)
    assert inpainter.stats()["compiled"] == {"unet": "ready", "decode": "ready"}
    assert np.array_equal(inpainter.inpaint(latents, audio_windows), before)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")


@pytest.mark.usefixtures("environment")
def test_kernels_have_a_folder_of_their_versions(tmp_path: Path) -> None:
    """Named after card and libraries; Inductor and Triton are told, whatever they were told before."""
    folder = make_kernel_folder(tmp_path, CPU)
    assert folder.parent == tmp_path
    assert torch.__version__.split("+")[0] in folder.name
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
    assert make_kernel_folder(tmp_path, CPU) == folder


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler on a CPU")
def test_inductor_itself_finds_its_kernels_again(tmp_path: Path) -> None:
    """Compiled for real; the second time the graph comes from the disk."""
    from torch._dynamo.utils import counters

    folder = make_kernel_folder(tmp_path, CPU)
    for again in (False, True):
        torch._dynamo.reset()
        counters.clear()
        fast = CompiledModule(Doubled(), (torch.randn(64, 64),), folder)
        fast.start()
        fast.wait(110)
        assert fast.state == "ready"
        found = counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
        assert (found > 0) == again
        x = torch.randn(64, 64)
        with torch.no_grad():
            assert torch.allclose(fast(x), Doubled()(x), atol=1e-6)
