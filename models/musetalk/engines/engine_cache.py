"""Exported networks, plans and engines in the avatar cache: each is made once, by one process, and appears whole.

    exported  unet.onnx, decode.onnx and their weights, in the precision of the networks
    plan      plan.json: which stages run in 8 bits for an avatar, see `EnginePlan`
    engine    the networks of a plan with its QDQ nodes, and what TensorRT made of them for this card

Another card, driver, library, network, avatar or batch has another key. Weights are hard links to the exported ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch

from models.arrays import F32
from models.avatars import AvatarCache, link_or_copy, make_key
from models.musetalk.engines.calibration import Calibration, Networks, Sample, wrap_session
from models.musetalk.engines.onnx_export import export_networks
from models.musetalk.engines.plan import NETWORKS, EnginePlan
from models.musetalk.engines.providers import Host, find_versions, open_session
from models.musetalk.engines.qdq import Bits, quantise
from models.musetalk.inpainting.batching import cpu_sizes
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.inpainting.picture_gate import QUANTISED
from models.musetalk.inpainting.precision import precision_name
from models.types import EngineError

Result = TypeVar("Result")

FORMAT = 1
"""Of what is in the cache: another number makes older entries useless."""
PLAN = "plan.json"
CARD_BATCH = 8
"""Frames at once on a card where neither the job nor tuning says it: the memory that is free must not decide."""
TICK_S = 1.0


def choose_batches(kind: str, wanted: int | None) -> dict[str, int]:
    """Return the batch of each network, a power of two and the same on all devices of a kind."""
    if kind == "cpu":
        sizes = cpu_sizes(wanted)
        return {"unet": sizes.unet, "decode": sizes.decode}
    size = 1 << (min(wanted or CARD_BATCH, 16).bit_length() - 1)
    return dict.fromkeys(NETWORKS, size)


@dataclass(frozen=True, slots=True)
class EngineCache:
    """Makes and keeps what an inpainter needs to paint in 8 bits.

    weights   fingerprint of UNet and VAE
    tick      called each second while something is made; raises to cancel
    """

    root: Path
    max_bytes: int
    inpainter: Inpainter
    host: Host
    weights: str
    tick: Callable[[], None] = lambda: None

    def fetch_plan(self, bits: Bits, batches: dict[str, int], latents: F32, heard: F32) -> EnginePlan:
        """Return the plan for an avatar: latents (n, 8, 32, 32) of its frames, what is heard (n, tokens, d)."""
        plan = EnginePlan(bits, precision_name(self.inpainter.dtype), batches, heard.shape[1:])
        if self.inpainter.dtype == torch.bfloat16:
            return replace(plan, reason="these weights overflow in fp16")
        key = self._make_key("plan", asdict(plan), asdict(QUANTISED), _hash(latents), _hash(heard))

        def build(folder: Path) -> None:
            sample = Sample(self.inpainter, latents, heard)
            self._make_plan(folder, plan, sample).write(folder / PLAN)

        with AvatarCache(self.root, self.max_bytes) as cache:
            return run_ticking(lambda: EnginePlan.read(cache.get_or_build(key, build) / PLAN), self.tick)

    def open_networks(self, plan: EnginePlan) -> Networks:
        """Return the networks that run in 8 bits; they are built where they are not in the cache.

        Raises EngineError engine_unavailable, also where this device has the networks in another precision.
        """
        mine = precision_name(self.inpainter.dtype)
        if plan.networks and plan.wide != mine:
            message = f"this job runs in {plan.bits} beside {plan.wide}, and this device has the networks in {mine}"
            raise EngineError("engine_unavailable", message, "run such jobs on devices of one kind")
        return run_ticking(lambda: self._fetch_networks(plan), self.tick)

    def _fetch_networks(self, plan: EnginePlan) -> Networks:

        def build(folder: Path) -> None:
            with AvatarCache(self.root, self.max_bytes) as cache:
                exported = self._fetch_exported(cache, plan)
                for name in plan.networks:
                    for path in exported.glob(f"{name}.onnx.*"):
                        link_or_copy(path, folder / path.name)
                    source = exported / f"{name}.onnx"
                    quantise(source, folder / source.name, plan.nodes[name], plan.ranges[name], plan.bits)
            self._open(plan, folder)

        if not plan.networks:
            return {}
        with AvatarCache(self.root, self.max_bytes) as cache:
            return self._open(plan, cache.get_or_build(self._make_key("engine", asdict(plan)), build))

    def _make_plan(self, folder: Path, plan: EnginePlan, sample: Sample) -> EnginePlan:
        """Choose the stages, build the engine, and hold it to the gate as it will run."""
        with AvatarCache(self.root, self.max_bytes) as cache, TemporaryDirectory(dir=folder) as name:
            exported = self._fetch_exported(cache, plan)
            plan = Calibration(exported, Path(name), plan, sample, self.host).choose()
        if not plan.networks:
            return plan
        found = sample.compare(self._fetch_networks(plan))
        verdict = plan.verdict | {"engine": asdict(found)}
        if found.passes(QUANTISED):
            return replace(plan, verdict=verdict)
        wide = dict.fromkeys(plan.stages, plan.wide)
        return replace(plan, nodes={}, stages=wide, verdict=verdict, reason="the built engine changes the pictures")

    def _fetch_exported(self, cache: AvatarCache, plan: EnginePlan) -> Path:
        parts = FORMAT, plan.wide, self.weights, plan.batches, plan.windows, find_versions()

        def build(folder: Path) -> None:
            export_networks(self.inpainter.networks, plan.batches, plan.windows, folder)

        return cache.get_or_build(make_key("musetalk exported", *parts), build)

    def _open(self, plan: EnginePlan, folder: Path) -> Networks:
        providers = self.host.choose_providers(folder)
        sessions = {name: open_session(folder / f"{name}.onnx", providers) for name in plan.networks}
        return {name: wrap_session(name, one, self.inpainter.device) for name, one in sessions.items()}

    def _make_key(self, kind: str, *parts: object) -> str:
        return make_key(f"musetalk {kind}", FORMAT, self.weights, self.host.list_parts(), *parts)


def _hash(values: F32) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def run_ticking(work: Callable[[], Result], tick: Callable[[], None]) -> Result:
    """Run `work` in a thread of its own and call `tick` meanwhile: exports and builds take minutes."""
    with ThreadPoolExecutor(1, "engine") as pool:
        future = pool.submit(work)
        while True:
            try:
                return future.result(TICK_S)
            except TimeoutError:
                if future.done():
                    raise
                tick()
