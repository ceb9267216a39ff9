"""Inpaint faces that follow the audio: encode, UNet, decode, batch by batch, on one device.

The plain way is the reference's modules as they are; the fast way is folds, channels_last in 16 bits, and on CUDA
compiled modules once they are there. Frame n depends on its latents, its window and its number alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from models.arrays import F32, U8, Array
from models.musetalk.inpainting.batching import Batch, BatchSizes, cpu_sizes, next_batch, sizes_for
from models.musetalk.inpainting.compile import CompiledModule, make_kernel_folder
from models.musetalk.inpainting.fused_weights import channels_go_last, optimise
from models.musetalk.inpainting.modules import (
    LATENT,
    SIDE,
    Decode,
    Encode,
    MemoryLayout,
    Predict,
    channels_last_layout,
    contiguous_layout,
)
from models.musetalk.inpainting.precision import Precision, candidate_dtypes, has_cpu_bf16, precision_name
from models.musetalk.inpainting.streams import HostCopy, open_stream

Net = TypeVar("Net", bound=nn.Module)
Load = Callable[[torch.dtype], tuple[UNet2DConditionModel, AutoencoderKL]]

TOKENS = 50
"""Of a window: ten positions of five layers."""


class Inpainter:
    """UNet and VAE on a device, in the precision that they were loaded in.

    plain     the reference's way, and the oracle of the fast one; the fast one takes a finished network as it is
    sizes     frames a batch

    The fast way shares tensors with `unet` and `vae` where it can, and may change how those lie in memory.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        device: torch.device,
        *,
        plain: bool = False,
        sizes: BatchSizes | None = None,
    ) -> None:
        if device.type == "cpu" and torch.float16 in (unet.dtype, vae.dtype):
            raise ValueError("fp16 has no fast path on a CPU; load the weights in bf16 or fp32")
        self.device, self.dtype, self.plain = device, unet.dtype, plain
        self.sizes = sizes or _choose_sizes(device, unet.dtype, _free_bytes(device), None)
        self._stream = open_stream(device)
        unet, vae = _move_net(device, unet), _move_net(device, vae)
        if not plain:
            unet, vae = optimise(unet), optimise(vae)
        layout: MemoryLayout = channels_last_layout if not plain and channels_go_last(self.dtype) else contiguous_layout
        self._encode, self._decode = Encode(vae, layout), Decode(vae, layout)
        self._predict = Predict(unet, layout, TOKENS)
        self._fast: dict[str, CompiledModule] = {}

    def latents(self, crops: U8) -> F32:
        """Encode (n, 256, 256, 3) uint8 BGR crops -> (n, 8, 32, 32) float32: lower half hidden, and whole."""
        size = self.sizes.encode
        cuts = [crops[at : at + size] for at in range(0, len(crops), size)]
        encoded = [self._stream.run(partial(self._encode_batches, cut)) for cut in cuts]
        return np.concatenate([np.zeros((0, 2 * LATENT[0], *LATENT[1:]), np.float32), *(wait() for wait in encoded)])

    def inpaint(self, latents: F32, audio_windows: F32, first: int = 0) -> U8:
        """Inpaint faces: (n, 8, 32, 32) and (n, tokens, d), float32 -> (n, 256, 256, 3) uint8 BGR.

        `first` is the number of the first frame in its job: it decides the slots in the batches.
        """
        frames = range(first, first + len(latents))
        told = self.stream(
            frames, lambda part: _slice_rows(latents, part, first), lambda part: _slice_rows(audio_windows, part, first)
        )
        return np.concatenate([np.zeros((0, SIDE, SIDE, 3), np.uint8), *told])

    def stream(
        self, frames: range, latents: Callable[[range], F32], audio_windows: Callable[[range], F32]
    ) -> Iterator[U8]:
        """Yield the faces of frames of a job in order, some at a time, (k, 256, 256, 3) uint8 BGR.

        latents, audio_windows   what belongs to a range of frames, asked for batch by batch
        """
        self._set_math_flags()
        under_way: deque[Callable[[], list[HostCopy]]] = deque()
        start = frames.start
        while start < frames.stop:
            batch = next_batch(start, frames.stop, self.sizes.unet)
            part = range(batch.start, batch.stop)
            under_way.append(self._stream.run(partial(self._inpaint, part, latents(part), audio_windows(part))))
            start = batch.stop
            if len(under_way) > self._stream.depth:
                yield from (copy.wait() for copy in under_way.popleft()())
        while under_way:
            yield from (copy.wait() for copy in under_way.popleft()())

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether a probe comes through without infinities: half precision overflows with some weights."""
        audio_windows = _probe_input((1, *self._predict.table.shape), self.device)
        latent = self._predict(_probe_input((1, 8, *LATENT[1:]), self.device), audio_windows)
        return bool(self._decode.image(latent).isfinite().all())

    def stats(self) -> dict[str, Any]:
        """Return what runs how, for result.json and the benchmark."""
        compiled = {name: fast.state for name, fast in self._fast.items()}
        return {
            "device": str(self.device),
            "precision": precision_name(self.dtype),
            "way": "plain" if self.plain else "fast",
            "batch": {"unet": self.sizes.unet, "decode": self.sizes.decode, "encode": self.sizes.encode},
            **({"compiled": compiled} if compiled else {}),
        }

    def wait_until_compiled(self, timeout_s: float) -> None:
        for fast in self._fast.values():
            fast.wait(timeout_s)

    @torch.no_grad()
    def _encode_batches(self, crops: U8) -> F32:
        found = np.empty((len(crops), 2 * LATENT[0], *LATENT[1:]), np.float32)
        start = 0
        while start < len(crops):
            batch = next_batch(start, len(crops), self.sizes.encode)
            given = _pad_batch(batch, crops[batch.start : batch.stop])
            latents = self._run_or_shrink("encode", self._encode, torch.from_numpy(given).to(self.device))
            if latents is not None:
                found[batch.start : batch.stop] = latents[batch.slots].cpu().numpy()
                start = batch.stop
        return found

    @torch.no_grad()
    def _inpaint(self, frames: range, latents: F32, audio_windows: F32) -> list[HostCopy]:
        """Inpaint the frames of one batch; of several where memory runs out."""
        copies: list[HostCopy] = []
        start = frames.start
        while start < frames.stop:
            batch = next_batch(start, frames.stop, self.sizes.unet)
            part = range(batch.start, batch.stop)
            copy = self._launch(
                batch, _slice_rows(latents, part, frames.start), _slice_rows(audio_windows, part, frames.start)
            )
            if copy is not None:
                copies.append(copy)
                start = batch.stop
        return copies

    def _launch(self, batch: Batch, latents: F32, audio_windows: F32) -> HostCopy | None:
        """Launch UNet and decode of a batch; returns None where memory ran out and the sizes are smaller now."""
        given = self._stream.upload(_pad_batch(batch, latents), _pad_batch(batch, audio_windows))
        predicted = self._run_or_shrink("unet", self._fast.get("unet", self._predict), *given)
        if predicted is None:
            return None
        copy = self._stream.start_copy((batch.stop - batch.start, SIDE, SIDE, 3), [*given, predicted])
        at = 0
        while at < batch.size:
            size = min(self.sizes.decode, batch.size)
            if (places := batch.overlap(at, size)) is not None:
                faces = self._run_or_shrink("decode", self._fast.get("decode", self._decode), predicted[at : at + size])
                if faces is None and self.sizes.unet < batch.size:
                    return None
                if faces is None:
                    continue
                slots, rows = places
                copy.put(rows, faces[slots])
            at += size
        return copy

    def _run_or_shrink(self, stage: str, work: Callable[..., Tensor], *given: Tensor) -> Tensor | None:
        """Run a stage; where memory ran out, shrink the batches and return None. Raises OutOfMemoryError at one."""
        try:
            return work(*given)
        except torch.OutOfMemoryError:
            smaller = self.sizes.shrink(stage)
            if smaller is None:
                raise
        # out of the handler the error is gone, and with it the frames that held the tensors
        self.sizes = smaller
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _set_math_flags(self) -> None:
        """Set cuDNN's switches: they belong to the process, and another inpainter may have changed them."""
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.fp32_precision = "ieee" if self.plain else "tf32"
            torch.backends.cuda.matmul.fp32_precision = "ieee" if self.plain else "tf32"

    def compile(self, folder: Path, backend: Any = "inductor") -> None:
        """Compile UNet and decoder in the background; `stats` says how far it is.

        folder   from `make_kernel_folder`
        """
        latents = _probe_input((self.sizes.unet, 8, *LATENT[1:]), self.device)
        audio_windows = _probe_input((self.sizes.unet, *self._predict.table.shape), self.device)
        predicted = _probe_input((self.sizes.decode, *LATENT), self.device).to(self.dtype)
        self._set_math_flags()
        self._fast = {
            "unet": CompiledModule(self._predict, (latents, audio_windows), folder, backend),
            "decode": CompiledModule(self._decode, (predicted,), folder, backend),
        }
        for fast in self._fast.values():
            fast.start()


def open_inpainter(
    load: Load,
    device: torch.device,
    precision: Precision = "auto",
    *,
    plain: bool = False,
    batch_size: int | None = None,
    cache: Path | None = None,
) -> Inpainter:
    """Return the inpainter in the best precision in which these weights give finite numbers.

    load         UNet and VAE in a precision, fresh each time, finished or not
    precision    "auto" is fp16 on CUDA; on a CPU bf16 where it multiplies that, else fp32
    batch_size   the user's; None takes what memory allows
    cache        folder for compiled kernels, on CUDA; None compiles nothing
    """
    tried, free = candidate_dtypes(precision, device.type, cpu_bf16=has_cpu_bf16()), _free_bytes(device)

    def open_in(dtype: torch.dtype) -> Inpainter:
        return Inpainter(*load(dtype), device, plain=plain, sizes=_choose_sizes(device, dtype, free, batch_size))

    inpainter = _open_first_finite(open_in, tried)
    if cache is not None and device.type == "cuda" and not plain:
        inpainter.compile(make_kernel_folder(cache, device))
    return inpainter


def _open_first_finite(open_in: Callable[[torch.dtype], Inpainter], tried: Sequence[torch.dtype]) -> Inpainter:
    for dtype in tried[:-1]:
        inpainter = open_in(dtype)
        if inpainter.is_finite():
            return inpainter
        del inpainter  # before the next one takes its memory
    return open_in(tried[-1])


def _move_net(device: torch.device, net: Net) -> Net:
    to: Callable[..., Net] = net.to  # diffusers wraps it so that its types are lost
    return to(device).eval()


def _free_bytes(device: torch.device) -> int:
    """Return the memory that is free, and that this process could give back."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _choose_sizes(device: torch.device, dtype: torch.dtype, free_bytes: int, wanted: int | None) -> BatchSizes:
    return sizes_for(free_bytes, dtype.itemsize, wanted) if device.type == "cuda" else cpu_sizes(wanted)


def _pad_batch(batch: Batch, values: Array) -> Array:
    """Return the values in their slots, zeros in the others."""
    whole = np.zeros((batch.size, *values.shape[1:]), values.dtype)
    whole[batch.slots] = values
    return whole


def _slice_rows(values: F32, part: range, first: int) -> F32:
    return values[part.start - first : part.stop - first]


def _probe_input(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return numbers of unit variance, as latents and features have, the same ones each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
