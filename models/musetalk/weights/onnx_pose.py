"""DWPose from its ONNX file, where that is all a user has. The net alone: the flip test is made outside of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.musetalk.nets.dwpose import BINS_A_PIXEL, HEIGHT, POINTS, WIDTH
from models.musetalk.weights.checkpoint import damaged_error
from models.types import EngineError

FOLDER = "dwpose"
_BINS = (WIDTH * BINS_A_PIXEL, HEIGHT * BINS_A_PIXEL)
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
REFUSALS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")


class OnnxPose:
    """Called like DwPose: (n, 3, 384, 288) float32 -> simcc_x (n, 133, 576), simcc_y (n, 133, 768), both on the CPU."""

    def __init__(self, path: Path, device: torch.device | None = None, *, threads: int = 0) -> None:
        """Run on `device` if ONNX Runtime can, else on the CPU. `threads` 0 leaves their number to it.

        Raises EngineError engine_unavailable without ONNX Runtime, weights_damaged.
        """
        self._session = _open_session(path, device or torch.device("cpu"), threads)
        takes, gives = self._session.get_inputs(), self._session.get_outputs()
        bins = {output.shape[-1]: output.name for output in gives}
        if len(takes) != 1 or takes[0].shape[1:] != [3, HEIGHT, WIDTH] or set(bins) != set(_BINS):
            raise damaged_error(f"{FOLDER}/{path.name}", "is another net than DWPose at 288x384")
        self._input = takes[0].name
        self._outputs = [bins[count] for count in _BINS]
        self._one_by_one = takes[0].shape[0] == 1

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        batch = np.ascontiguousarray(inputs.cpu().numpy(), np.float32)
        pieces = np.split(batch, len(batch)) if self._one_by_one else [batch]
        told = [self._session.run(self._outputs, {self._input: piece}) for piece in pieces]
        x, y = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*told, strict=True))
        return x.reshape(-1, POINTS, _BINS[0]), y.reshape(-1, POINTS, _BINS[1])


def _open_session(path: Path, device: torch.device, threads: int) -> Any:
    runtime = _import_runtime(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers: list[Any] = [_CPU]
    if device.type == "cuda" and _CUDA in runtime.get_available_providers():
        providers.insert(0, (_CUDA, {"device_id": device.index or 0}))
    states = runtime.capi.onnxruntime_pybind11_state
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except tuple(getattr(states, name) for name in REFUSALS) as error:
        raise damaged_error(f"{FOLDER}/{path.name}", "is no ONNX file, or is damaged") from error


def _import_runtime(path: Path) -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        hint = "pip install onnxruntime, or get dw-ll_ucoco_384.pth with `musedrop models fetch`"
        raise EngineError("engine_unavailable", f"{path.name} can't be run without ONNX Runtime", hint) from error
