"""The networks of one worker, each loaded when it is first needed, and kept for the next job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch

from models.arrays import F32, F64, U8
from models.musetalk.audio.whisper import WhisperEncoder
from models.musetalk.engines.engine_cache import EngineCache, choose_batches
from models.musetalk.engines.plan import EnginePlan
from models.musetalk.engines.providers import find_host
from models.musetalk.engines.qdq import Bits
from models.musetalk.inpainting.forms import USUAL_NAME
from models.musetalk.inpainting.fused_weights import channels_go_last, load_optimised, order_memory
from models.musetalk.inpainting.inpainter import Inpainter, open_inpainter
from models.musetalk.inpainting.modules import Decode, channels_last_layout, contiguous_layout
from models.musetalk.inpainting.precision import Precision
from models.musetalk.inpainting.streams import open_stream
from models.musetalk.nets.bisenet import class_maps
from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel
from models.musetalk.options import Options, Version
from models.musetalk.tracking.detection import FaceNets
from models.musetalk.tracking.regions import Region
from models.musetalk.weights.index import DRAFT_DECODER, find_part
from models.musetalk.weights.loader import Stamps, Weights, load_part, open_weights, read_stamps
from models.musetalk.weights.onnx_pose import OnnxPose
from models.types import EngineError

EngineStore = tuple[Path, int, Callable[[], None]]
"""The folder of the avatar cache, its size, and what is called while something is made for it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a job wants loaded. `batch_size` and `kernels` need no other networks: see `Networks.adapt`."""

    models_dir: str
    version: Version
    precision: Precision
    batch_size: int | None
    plain: bool
    kernels: Path | None
    form: str = USUAL_NAME

    @classmethod
    def of(
        cls,
        models_dir: str,
        options: Options,
        cache: Path,
        form: str = USUAL_NAME,
        tuned: Mapping[str, Any] = MappingProxyType({}),
        kind: str = "cuda",
    ) -> Setup:
        """Return the setup of a job on a "cpu" or "cuda" device; `tuned` is what "auto" means there.

        What runs beside 8 bits is fp16 on a card, and fp32 on a processor. See also `Request.tuned`.
        """
        tuned = {} if options.is_reference else tuned
        compiles = tuned.get("compile", False) if options.compile == "auto" else options.compile
        return cls(
            models_dir,
            options.version,
            choose_base_precision(options, kind),
            options.frames_per_batch or tuned.get("batch_size"),
            options.is_reference,
            cache if compiles and not options.is_reference else None,
            USUAL_NAME if options.is_reference else form,
        )


def choose_base_precision(options: Options, kind: str) -> Precision:
    """Return the precision that the networks are loaded in, on a "cpu" or "cuda" device."""
    if options.bits:
        return "fp32" if kind == "cpu" else "auto"
    if options.is_reference and options.precision == "auto":
        return "fp32"
    return cast("Precision", options.precision)


class Networks:
    """Opens the weights of a setup on a device. Raises EngineError weights_missing, weights_damaged, weights_unsafe."""

    def __init__(self, setup: Setup, device: torch.device, weights: Weights | None = None) -> None:
        """Take the `weights` of earlier networks where they are still those of the setup: see `has_weights_of`."""
        self.setup, self.device = setup, device
        self.load_s = 0.0
        self._draft_decoder: tuple[Stamps, Decode] | None = None
        self._stream = open_stream(device)
        self.weights = weights or open_weights(Path(setup.models_dir), setup.version, device, torch.float32)
        self._stamps = self.weights.read_stamps()
        self._plan: EnginePlan | None = None
        self.vision_fingerprint = self.weights.fingerprint_of("s3fd", "pose", "bisenet", "vae")
        """A hash of the weights that prepared avatars come from, as they were when this worker opened them."""

    def has_weights_of(self, setup: Setup) -> bool:
        """Whether the setup names the same weights, and none of their files was replaced since they were opened."""
        if (setup.models_dir, setup.version) != (self.setup.models_dir, self.setup.version):
            return False
        try:
            return self.weights.read_stamps() == self._stamps
        except (EngineError, OSError):
            return False

    def adapt(self, setup: Setup) -> bool:
        """Serve a setup that needs no other networks; return False where it does."""
        mine = replace(self.setup, batch_size=setup.batch_size, kernels=setup.kernels)
        if mine != setup or not self.has_weights_of(setup):
            return False
        if self.setup != setup and "inpainter" in self.__dict__:
            self.inpainter.adapt(setup.batch_size, setup.kernels)
        self.setup = setup
        return True

    # what preparation sees -------------------------------------------------------------------------------------------

    @property
    def frames_per_batch(self) -> int:
        """Full batches for a card; for a CPU, which gains nothing by them, so few that a second or so is a step."""
        return 16 if self.device.type == "cuda" else 2

    def detect(self, frames: Sequence[U8], *, reference: bool) -> list[F32]:
        return self._stream.run(lambda: self._faces.detect(frames, reference=reference))()

    def find_landmarks(self, frames: Sequence[U8], regions: Sequence[Region] | None = None) -> F64:
        return self._stream.run(lambda: self._faces.find_landmarks(frames, regions))()

    def parse_faces(self, squares: Sequence[U8]) -> U8:
        return self._stream.run(lambda: class_maps(self.weights.bisenet, squares))()

    def encode_faces(self, faces: U8) -> F32:
        return self.inpainter.latents(faces)

    # what is loaded --------------------------------------------------------------------------------------------------

    @cached_property
    def inpainter(self) -> Inpainter:
        started = time.monotonic()
        inpainter = open_inpainter(
            self._load_inpainter_nets,
            self.device,
            self.setup.precision,
            plain=self.setup.plain,
            batch_size=self.setup.batch_size,
            cache=self.setup.kernels,
            form=self.setup.form,
        )
        self.load_s += time.monotonic() - started
        return inpainter

    def open_draft_decoder(self) -> Decode:
        """Return what decodes drafts, opened again where its files were replaced.

        Raises EngineError weights_missing, weights_damaged.
        """
        inpainter, found = self.inpainter, find_part(DRAFT_DECODER, self.weights.root)
        if found is None:
            message = "the weights of the decoder that the draft was begun with, in taesd/, are gone"
            raise EngineError("weights_missing", message, "get them with `musedrop models fetch taesd`")
        stamps = read_stamps(found)
        if self._draft_decoder is None or self._draft_decoder[0] != stamps:
            is_last = channels_go_last(inpainter.dtype)
            net = load_part(found, self.device, inpainter.dtype)
            net = order_memory(net, torch.channels_last) if is_last else net
            self._draft_decoder = stamps, Decode(net, channels_last_layout if is_last else contiguous_layout)
        return self._draft_decoder[1]

    @property
    def engine_batches(self) -> dict[str, int]:
        """How many frames an engine paints at once, by network."""
        return choose_batches(self.device.type, self.setup.batch_size)

    def fetch_plan(self, bits: Bits, store: EngineStore, latents: F32, heard: F32) -> EnginePlan:
        """Return the plan of an avatar in 8 bits; see `EngineCache.fetch_plan`."""
        return self._open_cache(store).fetch_plan(bits, self.engine_batches, latents, heard)

    def use_engine(self, plan: EnginePlan | None, store: EngineStore) -> None:
        """Paint by a plan from now on, or as usual without one. Raises EngineError engine_unavailable."""
        if plan != self._plan:
            self.inpainter.use_engine({}, {})  # before the next one takes its memory
            self._plan = None
        if plan is not None and self._plan is None:
            networks = self._open_cache(store).open_networks(plan)
            self.inpainter.use_engine(networks, plan.describe(find_host(self.device).provider))
            self._plan = plan

    def _open_cache(self, store: EngineStore) -> EngineCache:
        weights = self.weights.fingerprint_of(f"unet-{self.setup.version}", "vae")
        root, max_bytes, tick = store
        return EngineCache(root, max_bytes, self.inpainter, find_host(self.device), weights, tick)

    @cached_property
    def whisper_encoder(self) -> WhisperEncoder:
        weights = self.weights
        return WhisperEncoder(weights.whisper, weights.feature_extractor, self.device, torch.float32)

    @cached_property
    def _faces(self) -> FaceNets:
        pose = self.weights.pose
        return FaceNets(self.weights.s3fd, OnnxPose(pose, self.device) if isinstance(pose, Path) else pose, self.device)

    def _load_inpainter_nets(self, dtype: torch.dtype) -> tuple[UNet2DConditionModel, AutoencoderKL]:
        opened: Callable[..., Any] = load_part if self.setup.plain else load_optimised
        names = (f"unet-{self.setup.version}", "vae")
        unet, vae = (opened(self.weights.find_part(name), self.device, dtype) for name in names)
        return unet, vae
