"""Convolutions in 8 bits in an ONNX file, by QDQ nodes before their values and kernels. Needs the package onnx.

Values are scaled by tensor and kernels by filter, both symmetric, as TensorRT wants it. What a convolution gives stays
as it is: its sums are wide, and the group norm that follows needs them. ONNX Runtime's own quantiser rounds results,
too, and takes the scale of an FP8 tensor from its deviation, so that large values are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.arrays import F32

Bits = Literal["int8", "fp8"]
LARGEST: dict[Bits, float] = {"int8": 127.0, "fp8": 448.0}
"""The largest value of each kind; FP8 is E4M3 without infinities."""
LEAST_SCALE = 2.0**-20
"""Of a filter of zeros; half precision has it."""

Inputs = dict[str, F32]


def quantise(network: Path, target: Path, nodes: Sequence[str], ranges: dict[str, float], bits: Bits) -> None:
    """Write a network with these convolutions in 8 bits, into the same folder: the other weights stay in its .data.

    ranges  the largest absolute value of what each convolution sees, see `find_ranges`
    """
    import onnx

    model = onnx.load(str(network), load_external_data=False)
    graph, known = model.graph, {one.name: one for one in model.graph.initializer}
    add_ranged = _RangedGraph(graph, bits)
    ordered: list[Any] = []
    for node in graph.node:
        if node.name in nodes:
            value, kernel = node.input[:2]
            weights = _read_weights(known[kernel], network.parent)
            ordered += add_ranged.add_value(value, ranges[value], weights.dtype)
            ordered += add_ranged.add_kernel(kernel, weights)
            node.input[0], node.input[1] = _name(value), _name(kernel)
        ordered.append(node)
    del graph.node[:]
    graph.node.extend(ordered)
    read = {name for node in graph.node for name in node.input}
    for name in known.keys() - read:
        graph.initializer.remove(known[name])
    onnx.save_model(model, str(target))


def _read_weights(tensor: Any, folder: Path) -> Any:
    """Return a tensor that may be in the file beside the network, which onnx refuses to read by a hard link."""
    from onnx import helper, numpy_helper

    if not tensor.external_data:
        return numpy_helper.to_array(tensor)
    told = {one.key: one.value for one in tensor.external_data}
    kind, size = helper.tensor_dtype_to_np_dtype(tensor.data_type), int(np.prod(tensor.dims))
    return np.fromfile(folder / told["location"], kind, size, offset=int(told.get("offset", 0))).reshape(tensor.dims)


def _name(tensor: str) -> str:
    return f"{tensor}.in_8_bits"


class _RangedGraph:
    """Adds tensors in 8 bits to a graph, and returns the nodes that make wide ones of them."""

    def __init__(self, graph: Any, bits: Bits) -> None:
        from onnx import TensorProto

        self._graph, self._bits = graph, bits
        self._kind = TensorProto.INT8 if bits == "int8" else TensorProto.FLOAT8E4M3FN
        self._ready: set[str] = set()

    def add_value(self, name: str, most: float, dtype: Any) -> list[Any]:
        """Return the nodes that round a tensor; none where they are there for another convolution."""
        from onnx import helper

        if name in self._ready:
            return []
        self._ready.add(name)
        given = self._add_scale(name, np.array(most, np.float32), dtype)
        narrow = f"{name}.narrow"
        return [
            helper.make_node("QuantizeLinear", [name, *given], [narrow], name=f"{name}.quantize"),
            helper.make_node("DequantizeLinear", [narrow, *given], [_name(name)], name=f"{name}.dequantize"),
        ]

    def add_kernel(self, name: str, weights: Any) -> list[Any]:
        """Return the node that widens a kernel, which is stored in 8 bits."""
        from onnx import helper

        if name in self._ready:
            return []
        self._ready.add(name)
        most = np.abs(weights.astype(np.float32)).max(tuple(range(1, weights.ndim)))
        given = self._add_scale(name, most, weights.dtype)
        scale = (most / LARGEST[self._bits]).clip(LEAST_SCALE).astype(weights.dtype).astype(np.float32)
        self._store(f"{name}.narrow", weights.astype(np.float32) / scale.reshape(-1, *[1] * (weights.ndim - 1)))
        narrow = [f"{name}.narrow", *given]
        return [helper.make_node("DequantizeLinear", narrow, [_name(name)], name=f"{name}.dequantize", axis=0)]

    def _add_scale(self, name: str, most: F32, dtype: Any) -> tuple[str, str]:
        from onnx import numpy_helper

        scale = (most / LARGEST[self._bits]).clip(LEAST_SCALE).astype(dtype)
        self._graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        self._store(f"{name}.zero", np.zeros(scale.shape, np.float32))
        return f"{name}.scale", f"{name}.zero"

    def _store(self, name: str, values: F32) -> None:
        """Add a tensor of whole multiples of its scale."""
        import ml_dtypes
        from onnx import TensorProto

        most = LARGEST[self._bits]
        inside = values.clip(-most, most)
        narrow: Any = (
            np.rint(inside).astype(np.int8) if self._bits == "int8" else inside.astype(ml_dtypes.float8_e4m3fn)
        )
        self._graph.initializer.append(
            TensorProto(name=name, data_type=self._kind, dims=values.shape, raw_data=narrow.tobytes())
        )


def watch_ranges(network: Path, target: Path) -> list[str]:
    """Write a network that also gives the largest absolute value that each convolution sees; return which, in order."""
    import onnx
    from onnx import helper

    model = onnx.load(str(network), load_external_data=False)
    graph = model.graph
    values = list(dict.fromkeys(node.input[0] for node in graph.node if node.op_type == "Conv"))
    kind = graph.output[0].type.tensor_type.elem_type
    del graph.output[:]
    for value in values:
        size, most = f"{value}.size", f"{value}.most"
        graph.node.append(helper.make_node("Abs", [value], [size]))
        graph.node.append(helper.make_node("ReduceMax", [size], [most], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(most, kind, []))
    onnx.save_model(model, str(target))
    return values


def find_ranges(session: Any, values: Sequence[str], batches: Iterable[Inputs]) -> dict[str, float]:
    """Return the largest absolute value of each of these tensors over all batches; `session` runs what is watched."""
    found = [session.run(None, batch) for batch in batches]
    return {value: max(float(one[number]) for one in found) for number, value in enumerate(values)}
