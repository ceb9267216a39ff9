"""Engines of a network: exported, calibrated on an avatar's own frames, its stages chosen, kept by card and version.

    network.onnx, .data    as it is exported, float32
    ranges.json            of the values before and behind each convolution, on the frames of the avatar
    engine.onnx, .data     with QDQ nodes about the convolutions of the stages that pass the gate
    verdict.json           what the gate said

Needs the packages onnx, onnxscript and onnxruntime. ONNX Runtime's TensorRT is used on cards from sm_89 on, whose
convolutions multiply 8 bits faster than 16 by more than the conversions cost; elsewhere the CPU runs an engine, for
tests and to measure its pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.arrays import F32
from models.avatars import AvatarCache, make_key
from models.musetalk.engines.onnx_export import export_network, list_stages
from models.musetalk.engines.stages import Verdict, choose_stages
from models.musetalk.inpainting.picture_gate import QUANTISED, PictureLimit

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TENSORRT, CPU = "TensorrtExecutionProvider", "CPUExecutionProvider"
LEAST_CAPABILITY = (8, 9)
FORMAT = "1"
"""Of the folders: another number makes older ones useless."""

Inputs = dict[str, F32]
Providers = list[tuple[str, dict[str, Any]]]


def find_missing_packages() -> list[str]:
    """Return what isn't installed of what building an engine needs."""
    return [name for name in PACKAGES if find_spec(name) is None]


def choose_providers(capability: tuple[int, int] | None, available: Sequence[str], kernels: Path) -> Providers:
    """Return what runs an engine: TensorRT on a card from sm_89 on that has it, else the CPU.

    capability  of the card; None where there is none
    kernels     folder in which TensorRT keeps what it builds
    """
    if capability is None or capability < LEAST_CAPABILITY or TENSORRT not in available:
        return [(CPU, {})]
    keeps = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(kernels), "trt_timing_cache_enable": True}
    return [(TENSORRT, {"trt_fp16_enable": True, "trt_int8_enable": True, **keeps}), (CPU, {})]


def make_engine_key(card: str, capability: tuple[int, int] | None, weights: str, avatar: str, batch: int) -> str:
    """Return the key of an engine in the cache: another card, version, network, avatar or batch has another one.

    weights, avatar   fingerprints
    """
    versions = [_find_version(name) for name in ("torch", *PACKAGES, "onnxruntime-gpu", "tensorrt")]
    return make_key("musetalk engine", FORMAT, card, capability, versions, weights, avatar, batch, asdict(QUANTISED))


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def fetch_engine(
    root: Path, max_bytes: int, key: str, build: Callable[[Path], object], waiting: Callable[[], None]
) -> Path:
    """Return the folder of an engine; it is built once, by one process, and appears whole."""
    with AvatarCache(root, max_bytes) as cache:
        return cache.get_or_build(key, lambda folder: (build(folder), None)[1], waiting)


def build_engine(
    folder: Path,
    net: nn.Module,
    frames: Sequence[Inputs],
    paint: Callable[[F32], Tensor],
    limit: PictureLimit = QUANTISED,
) -> Verdict:
    """Fill the folder of an engine.

    frames  inputs of the network, a batch each, of the avatar's own frames
    paint   makes pictures (n, h, w, 3) uint8 of what the network gives
    """
    network, engine = folder / "network.onnx", folder / "engine.onnx"
    shapes = {name: torch.from_numpy(value) for name, value in frames[0].items()}
    export_network(net, shapes, "result", network)
    stages = list_stages(network)
    write_ranges(network, frames, folder / "ranges.json")

    def run(path: Path) -> Tensor:
        session = open_session(path, [(CPU, {})])
        return torch.cat([paint(session.run(None, batch)[0]) for batch in frames])

    def paint_stages(kept: tuple[str, ...]) -> Tensor:
        with TemporaryDirectory(dir=folder) as beside:
            trial = Path(beside) / "trial.onnx"
            quantise(network, trial, [name for stage in kept for name in stages[stage]], folder / "ranges.json")
            return run(trial)

    verdict = choose_stages(stages, paint_stages, run(network), limit)
    quantise(network, engine, [name for stage in verdict.kept for name in stages[stage]], folder / "ranges.json")
    (folder / "verdict.json").write_text(json.dumps(asdict(verdict), indent=1) + "\n", encoding="utf-8")
    return verdict


def write_ranges(network: Path, frames: Sequence[Inputs], path: Path) -> None:
    """Write the calibration table: the least and the largest value of each tensor that a convolution sees or makes."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.calibrate import save_tensors_data

    with TemporaryDirectory(dir=path.parent) as beside:
        calibrator = create_calibrator(
            network,
            ["Conv"],
            str(Path(beside) / "observed.onnx"),
            CalibrationMethod.MinMax,
            use_external_data_format=True,
            extra_options={"symmetric": True},
            providers=[CPU],
        )
        calibrator.collect_data(_make_reader(frames))
        save_tensors_data(calibrator.compute_data(), path)


def quantise(network: Path, target: Path, nodes: Sequence[str], ranges: Path) -> None:
    """Write the network with these convolutions in 8 bits: kernels by filter, values symmetric, as TensorRT wants."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import load_tensors_data
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = onnx.load(str(network))
    if nodes:
        options = {"ActivationSymmetric": True, "WeightSymmetric": True}
        kinds = (QuantType.QInt8, QuantType.QInt8)
        known = load_tensors_data(ranges)
        quantizer = QDQQuantizer(model, True, False, *kinds, known, [*nodes], [], ["Conv"], options)
        quantizer.quantize_model()
        model = quantizer.model.model
    onnx.save_model(model, str(target), save_as_external_data=True, location=f"{target.name}.data")


def open_session(path: Path, providers: Providers) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def _make_reader(frames: Sequence[Inputs]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives the batches one after the other."""

        def __init__(self) -> None:
            self._left = iter(frames)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._left, None)
            return None if batch is None else {name: np.ascontiguousarray(value) for name, value in batch.items()}

    return Reader()
