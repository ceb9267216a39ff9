"""Convolutions in 8 bits, against the same rounding in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from models.musetalk.engines.providers import CPU, open_session
from models.musetalk.engines.qdq import LARGEST, Bits, find_ranges, quantise, watch_ranges

onnx: Any = pytest.importorskip("onnx")
KINDS = ("int8", "fp8")


def write_network(path: Path, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Write two convolutions of one value, added; return their kernels. The second has a filter of zeros."""
    helper, random = onnx.helper, np.random.default_rng(0)
    kernels = [random.standard_normal((4, 3, 3, 3)).astype(dtype) for _ in range(2)]
    kernels[1][2] = 0
    tensors = [onnx.numpy_helper.from_array(one, f"net.mid_block.{n}.weight") for n, one in enumerate(kernels)]
    convolutions = [
        helper.make_node("Conv", ["given", one.name], [f"made{n}"], name=f"conv{n}", pads=[1] * 4)
        for n, one in enumerate(tensors)
    ]
    nodes = [*convolutions, helper.make_node("Add", ["made0", "made1"], ["sum"], name="add")]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given, made = (
        helper.make_tensor_value_info(name, kind, [1, rows, 8, 8]) for name, rows in (("given", 3), ("sum", 4))
    )
    model = helper.make_model(
        helper.make_graph(nodes, "net", [given], [made], tensors),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return kernels[0], kernels[1]


def round_to(values: Any, most: Any, bits: Bits) -> Any:
    """Round as 8 bits do, by the scale that `most` gives."""
    scale = np.maximum(np.float32(most) / np.float32(LARGEST[bits]), np.float32(2.0**-20)).astype(values.dtype)
    inside = (values.astype(np.float32) / scale.astype(np.float32)).clip(-LARGEST[bits], LARGEST[bits])
    whole = np.rint(inside) if bits == "int8" else inside.astype(ml_dtypes.float8_e4m3fn)
    return whole.astype(np.float32) * scale.astype(np.float32)


def convolve(values: Any, kernel: Any) -> Any:
    given, weights = (torch.from_numpy(np.asarray(one, np.float32)) for one in (values, kernel))
    return torch.nn.functional.conv2d(given, weights, padding=1).numpy()


def run(path: Path, values: Any) -> Any:
    return open_session(path, [(CPU, {})]).run(None, {"given": values})[0]


@pytest.mark.parametrize("bits", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_values_and_kernels_are_rounded(tmp_path: Path, bits: Bits, dtype: Any) -> None:
    """Values by their range, kernels by filter; the processor computes what NumPy does, in both precisions."""
    first, second = write_network(tmp_path / "net.onnx", dtype)
    quantise(tmp_path / "net.onnx", tmp_path / "narrow.onnx", ["conv0", "conv1"], {"given": 2.5}, bits)
    values = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(dtype)
    rounded = round_to(values, 2.5, bits)
    kernels = [round_to(one, np.abs(one).max((1, 2, 3), keepdims=True), bits) for one in (first, second)]
    wanted = sum(convolve(rounded, kernel) for kernel in kernels)
    found = run(tmp_path / "narrow.onnx", values)
    assert found.dtype == dtype
    limit = 1e-4 if dtype is np.float32 else 0.05
    assert np.mean(np.abs(found - wanted) < limit) > 0.8  # a value between two steps may go to the other, for 36 sums
    exact = convolve(values, first) + convolve(values, second)
    assert 0.005 < np.abs(found - exact).std() / exact.std() < 0.1


def test_only_the_stages_that_are_named_are_narrow(tmp_path: Path) -> None:
    """The others keep their weights where they were; a kernel in 8 bits takes the place of the wide one."""
    write_network(tmp_path / "net.onnx")
    quantise(tmp_path / "net.onnx", tmp_path / "narrow.onnx", ["conv1"], {"given": 2.5}, "int8")
    graph = onnx.load(str(tmp_path / "narrow.onnx"), load_external_data=False).graph
    tensors = {one.name: one for one in graph.initializer}
    assert tensors["net.mid_block.0.weight"].external_data
    assert "net.mid_block.1.weight" not in tensors
    assert [node.op_type for node in graph.node].count("QuantizeLinear") == 1
    assert [node.op_type for node in graph.node].count("DequantizeLinear") == 2
    quantise(tmp_path / "net.onnx", tmp_path / "none.onnx", [], {}, "int8")
    values = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(run(tmp_path / "none.onnx", values), run(tmp_path / "net.onnx", values))


def test_ranges_are_the_largest_values_of_all_batches(tmp_path: Path) -> None:
    """Of what the convolutions see, whatever its sign."""
    write_network(tmp_path / "net.onnx")
    values = watch_ranges(tmp_path / "net.onnx", tmp_path / "watched.onnx")
    assert values == ["given"]
    batches = [{"given": np.full((1, 3, 8, 8), level, np.float32)} for level in (0.5, -3.0, 2.0)]
    assert find_ranges(open_session(tmp_path / "watched.onnx", [(CPU, {})]), values, batches) == {"given": 3.0}
