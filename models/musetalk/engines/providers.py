"""What runs engines: ONNX Runtime's TensorRT on a card from sm_89 on, its own kernels on a processor.

Cards before sm_89 multiply 8 bits hardly faster than 16. A processor gains nothing either; there the pictures can be
seen. Everything that is missing is an error with a name: no other provider takes over unseen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from models.musetalk.weights.onnx_pose import REFUSALS
from models.types import EngineError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
LEAST_CAPABILITY = (8, 9)
DRIVER = Path("/proc/driver/nvidia/version")

Providers = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Host:
    """What an engine is made for, and runs on.

    card        type of the card, "" for a processor
    capability  of the card
    driver      version of its driver, "" where it is not known
    available   the providers that ONNX Runtime was built with
    """

    card: str = ""
    capability: tuple[int, int] = (0, 0)
    driver: str = ""
    available: tuple[str, ...] = (CPU,)

    @property
    def provider(self) -> str:
        """What runs the convolutions in 8 bits."""
        return TENSORRT if self.card else CPU

    def list_parts(self) -> list[object]:
        """Return what an engine depends on beside its network, as JSON."""
        return [self.card, [*self.capability], self.driver, self.provider, *find_versions()]

    def choose_trial_providers(self) -> Providers:
        """Return what measures ranges and tries stages: nothing is built for it."""
        cuda: Providers = [(CUDA, {})] if self.card and CUDA in self.available else []
        return [*cuda, (CPU, {})]

    def choose_providers(self, kernels: Path) -> Providers:
        """Return what runs an engine; TensorRT keeps what it builds in the folder `kernels`."""
        if not self.card:
            return [(CPU, {})]
        options = {"trt_fp16_enable": True, "trt_int8_enable": True}
        keeps = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(kernels)}
        return [(TENSORRT, {**options, **keeps}), *self.choose_trial_providers()]


def find_host(device: torch.device) -> Host:
    """Return what this process runs on. Raises EngineError engine_unavailable where it can't run engines."""
    require_packages()
    available = tuple(import_module("onnxruntime").get_available_providers())
    if device.type != "cuda":
        return Host(available=available)
    capability = torch.cuda.get_device_capability(device)
    host = Host(torch.cuda.get_device_name(device), capability, read_driver(DRIVER), available)
    require_card(host)
    return host


def require_packages() -> None:
    """Raise EngineError engine_unavailable where a package is missing that engines need."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        message = f"8 bits need packages that are not installed: {', '.join(missing)}"
        raise EngineError("engine_unavailable", message, "pip install '.[engines]', or leave out \"precision\"")


def require_card(host: Host) -> None:
    """Raise EngineError engine_unavailable where a card can't run engines."""
    if host.capability < LEAST_CAPABILITY:
        name = f"sm_{host.capability[0]}{host.capability[1]}"
        hint = 'leave out "precision", or keep such jobs to newer cards'
        raise EngineError("engine_unavailable", f"8 bits need a card from sm_89 on; {host.card} is {name}", hint)
    if TENSORRT not in host.available:
        message = f"8 bits need ONNX Runtime with TensorRT; this one has {', '.join(host.available)}"
        hint = 'pip install onnxruntime-gpu tensorrt in place of onnxruntime, or leave out "precision"'
        raise EngineError("engine_unavailable", message, hint)


def open_session(path: Path, providers: Providers) -> Any:
    """Return an ONNX Runtime session of a file.

    Raises EngineError engine_unavailable where the first provider doesn't run all convolutions.
    """
    import onnxruntime

    if providers[0][0] == TENSORRT and find_spec("tensorrt") is not None:
        import_module("tensorrt")  # its libraries are then found
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if providers[0][0] == CPU:
        options.intra_op_num_threads = 1  # a sum of several threads has other last digits
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except list_errors() as error:
        raise refuse(providers[0][0], str(error)) from error
    if stray := find_strays(session, providers[0][0]):
        raise refuse(providers[0][0], f"{stray} convolutions are left to another")
    return session


def list_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises: its exceptions have no common base."""
    states = import_module("onnxruntime").capi.onnxruntime_pybind11_state
    return tuple(getattr(states, name) for name in (*REFUSALS, "EPFail"))


def refuse(provider: str, reason: str) -> EngineError:
    message = f"ONNX Runtime's {provider} does not run this network in 8 bits: {reason.splitlines()[0]}"
    return EngineError("engine_unavailable", message, 'choose another "precision", or leave it out')


def find_strays(session: Any, provider: str) -> int:
    """Return how many convolutions another provider runs: where one can't be loaded, ONNX Runtime takes the next."""
    parts = session.get_provider_graph_assignment_info()
    return sum(node.op_type == "Conv" for part in parts if part.ep_name != provider for node in part.get_nodes())


def find_versions() -> list[str]:
    """Return the versions of what makes and runs engines; "" of what isn't installed."""
    return [_find_version(name) for name in ("torch", *PACKAGES, "onnxruntime-gpu", "tensorrt")]


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def read_driver(path: Path) -> str:
    """Return the version of NVIDIA's driver; "" where the kernel doesn't tell it."""
    try:
        found = re.search(r"\d+\.\d+(?:\.\d+)?", path.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return ""
    return found[0] if found else ""
