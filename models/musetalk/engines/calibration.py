"""Which stages of UNet and decoder keep their pictures in 8 bits, tried on the avatar's own frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.arrays import F32
from models.avatars import link_or_copy
from models.musetalk.engines.onnx_export import list_stages
from models.musetalk.engines.plan import NETWORKS, EnginePlan
from models.musetalk.engines.providers import Host, open_session
from models.musetalk.engines.qdq import find_ranges, quantise, watch_ranges
from models.musetalk.engines.runtime import EngineDecode, EngineModule
from models.musetalk.engines.stages import choose_stages
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.inpainting.picture_gate import QUANTISED, PictureDifference, PictureLimit, compare_pictures

Networks = dict[str, Callable[..., Any]]


class Sample:
    """Frames that stages are tried on, as the inpainter paints them without an engine.

    latents, heard   (n, 8, 32, 32) of the avatar and (n, tokens, d) of a voice, float32
    """

    def __init__(self, inpainter: Inpainter, latents: F32, heard: F32) -> None:
        self._inpainter = inpainter
        self.given = tuple(torch.from_numpy(one).to(inpainter.device) for one in (latents, heard))
        self.predicted: Tensor = inpainter.run_modules(lambda predict, _: predict(*self.given))
        self.wanted = self._decode(self.predicted)

    def _decode(self, predicted: Tensor) -> Tensor:
        faces: Tensor = self._inpainter.run_modules(lambda _, decode: decode(predicted)[0])
        return faces

    def paint(self, networks: Networks) -> Tensor:
        """Return the faces (n, 256, 256, 3) uint8 as these networks paint them; one that is missing is the usual."""
        predicted = networks["unet"](*self.given) if "unet" in networks else self.predicted
        if "decode" in networks:
            faces: Tensor = networks["decode"](predicted)[0]
            return faces
        return self.wanted if predicted is self.predicted else self._decode(predicted)

    def compare(self, networks: Networks, limit: PictureLimit = QUANTISED) -> PictureDifference:
        """Return how far the faces are from the usual ones."""
        return compare_pictures(self.paint(networks), self.wanted, limit)


class Calibration:
    """Tries the stages of exported networks in a folder of its own.

    exported   the folder of `export_networks`, with all networks that are tried
    scratch    an empty folder beside it
    """

    def __init__(self, exported: Path, scratch: Path, plan: EnginePlan, sample: Sample, host: Host) -> None:
        networks = [name for name in NETWORKS if (exported / f"{name}.onnx").exists()]
        self._folder, self._plan, self._sample = scratch, plan, sample
        self._providers = host.choose_trial_providers()
        for path in exported.iterdir():
            link_or_copy(path, scratch / path.name)
        self._stages = {
            f"{network} {stage}": (network, nodes)
            for network in networks
            for stage, nodes in list_stages(scratch / f"{network}.onnx").items()
        }
        self._ranges = {network: self._find_ranges(network) for network in networks}

    def choose(self, limit: PictureLimit = QUANTISED) -> EnginePlan:
        """Return the plan with the stages whose pictures pass the gate, alone and together."""
        verdict = choose_stages(self._stages, self._paint, self._sample.wanted, limit)
        precisions = {name: self._plan.bits if name in verdict.kept else self._plan.wide for name in self._stages}
        found = {name: asdict(one) for name, one in verdict.alone.items()}
        return replace(
            self._plan,
            nodes=self._group(verdict.kept),
            ranges=self._ranges,
            stages=precisions,
            verdict=found | ({"together": asdict(verdict.together)} if verdict.together else {}),
            reason="" if verdict.kept else "none keeps its pictures",
        )

    def _find_ranges(self, network: str) -> dict[str, float]:
        watched = self._folder / f"{network}.watched.onnx"
        values = watch_ranges(self._folder / f"{network}.onnx", watched)
        session = open_session(watched, self._providers)
        given = self._sample.given if network == "unet" else (self._sample.predicted,)
        names, size = [one.name for one in session.get_inputs()], session.get_inputs()[0].shape[0]
        whole = len(given[0]) // size * size
        batches = (
            {name: tensor[at : at + size].cpu().numpy() for name, tensor in zip(names, given, strict=True)}
            for at in range(0, whole, size)
        )
        return find_ranges(session, values, batches)

    def _group(self, kept: tuple[str, ...]) -> dict[str, list[str]]:
        """Return the convolutions of these stages by network."""
        found: dict[str, list[str]] = {}
        for name in kept:
            network, nodes = self._stages[name]
            found.setdefault(network, []).extend(nodes)
        return found

    def _paint(self, kept: tuple[str, ...]) -> Tensor:
        networks: Networks = {}
        for network, nodes in self._group(kept).items():
            trial = self._folder / f"{network}.trial.onnx"
            quantise(self._folder / f"{network}.onnx", trial, nodes, self._ranges[network], self._plan.bits)
            session = open_session(trial, self._providers)
            networks[network] = wrap_session(network, session, self._sample.given[0].device)
        return self._sample.paint(networks)


def wrap_session(network: str, session: object, device: torch.device) -> Callable[..., Any]:
    """Return a network of an engine, called as the inpainter calls its own."""
    module = EngineModule(session, device)
    return module if network == "unet" else EngineDecode(module)
