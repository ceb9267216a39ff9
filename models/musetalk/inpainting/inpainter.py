"""Inpaint faces that follow the audio: encode, UNet, decode, batch by batch, on one device.

The plain way is the reference's modules as they are; the fast way is folds, channels_last in 16 bits, and on CUDA
compiled modules once they are there. Frame n depends on its latents, its window, its number and the length of its job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from models.arrays import F32, U8, Array, Bool
from models.musetalk.inpainting.batching import Batch, BatchSizes, cpu_sizes, next_batch, sizes_for
from models.musetalk.inpainting.compile import CompiledModule, make_kernel_folder
from models.musetalk.inpainting.forms import USUAL_NAME, form_networks
from models.musetalk.inpainting.fused_weights import channels_go_last, optimise
from models.musetalk.inpainting.memory_errors import is_out_of_memory
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
from models.musetalk.inpainting.precision import (
    Precision,
    candidate_dtypes,
    find_wider,
    has_cpu_bf16,
    has_device_bf16,
    precision_name,
)
from models.musetalk.inpainting.streams import HostCopy, open_stream
from models.musetalk.nets.diffusion import AutoencoderKL, UNet2DConditionModel
from models.types import EngineError

Net = TypeVar("Net", bound=nn.Module)
Result = TypeVar("Result")
Load = Callable[[torch.dtype], tuple[UNet2DConditionModel, AutoencoderKL]]
ReadRows = Callable[[range], F32]
"""Returns what belongs to a range of frames of a job, one row a frame."""

TOKENS = 50
"""Of a usual window: ten positions of five layers."""
ONE_BY_ONE = BatchSizes(1, 1, 1)


class Inpainter:
    """UNet and VAE on a device, in the precision that they were loaded in.

    plain     the reference's way, and the oracle of the fast one; the fast one takes a finished network as it is
    sizes     frames a batch
    form      of UNet and decoder in 16 bits, a name in `forms.FORMS`; the encoder, whose results are kept, has one
    widen     opens the same in the next wider precision, for what overflows in this one; None where there is none

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
        form: str = USUAL_NAME,
        widen: Callable[[], Inpainter] | None = None,
    ) -> None:
        if device.type == "cpu" and torch.float16 in (unet.dtype, vae.dtype):
            raise ValueError("fp16 has no fast path on a CPU; load the weights in bf16 or fp32")
        self.device, self.dtype, self.plain = device, unet.dtype, plain
        self.sizes = sizes or _choose_sizes(device, unet.dtype, _free_bytes(device), None)
        self._full, self._free_when_shrunk, self.overflows = self.sizes, 0, 0
        self._widen = widen
        self._wider: Inpainter | None = None
        self._other_decode: nn.Module | None = None
        self._compile_options: tuple[Path, Any] | None = None
        self._stream = open_stream(device)
        unet, vae = _move_net(device, unet), _move_net(device, vae)
        if not plain:
            unet, vae = optimise(unet), optimise(vae)
        is_last = not plain and channels_go_last(self.dtype)
        layout: MemoryLayout = channels_last_layout if is_last else contiguous_layout
        self.networks, self.form = (unet, vae), form if is_last else USUAL_NAME
        self._encode = Encode(vae, layout)
        self._predict, self._decode = form_networks(unet, vae, self.form, layout)
        self._fast: dict[tuple[str, int], CompiledModule] = {}
        self._engine: Mapping[str, Callable[..., Any]] = {}
        self._engine_facts: dict[str, Any] = {}

    def latents(self, crops: U8) -> F32:
        """Encode (n, 256, 256, 3) uint8 BGR crops -> (n, 8, 32, 32) float32: lower half hidden, and whole."""
        size = self.sizes.encode
        cuts = [crops[at : at + size] for at in range(0, len(crops), size)]
        encoded = [self._stream.run(partial(self._encode_batches, cut)) for cut in cuts]
        found = np.concatenate([np.zeros((0, 2 * LATENT[0], *LATENT[1:]), np.float32), *(wait() for wait in encoded)])
        if len(rows := np.flatnonzero(~np.isfinite(found).all((1, 2, 3)))):
            found[rows] = self._open_wider(int(rows[0]), len(rows)).latents(crops[rows])
        return found

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
        self,
        frames: range,
        latents: ReadRows,
        audio_windows: ReadRows,
        end: int | None = None,
        decode: nn.Module | None = None,
    ) -> Iterator[U8]:
        """Yield the faces of frames of a job in order, some at a time, (k, 256, 256, 3) uint8 BGR.

        A face that overflows is inpainted once more in a wider precision. Raises EngineError weights_damaged where
        there is none.

        latents, audio_windows   are asked for batch by batch
        end                      the length of the job; without it, and in the reference's way, the last batch is a full
                                 one too, since other shapes round otherwise
        decode                   what decodes instead of the VAE, see `modules.Decode`
        """
        self._grow()
        self._other_decode = decode
        end = None if self.plain else end
        under_way: deque[Callable[[], Iterator[U8]]] = deque()
        start = frames.start
        while start < frames.stop:
            batch = next_batch(start, frames.stop, self.sizes.unet, end)
            part = range(batch.start, batch.stop)
            given = latents(part), audio_windows(part)
            wait = self._stream.run(partial(self._inpaint, part, *given, end))
            under_way.append(partial(self._land, wait, part.start, *given))
            start = batch.stop
            if len(under_way) > self._stream.depth:
                yield from under_way.popleft()()
        while under_way:
            yield from under_way.popleft()()

    def _land(self, wait: Callable[[], list[HostCopy]], start: int, latents: F32, audio_windows: F32) -> Iterator[U8]:
        """Wait for the faces of one batch, which begins with frame `start`."""
        first = start
        for copy in wait():
            faces, finite = copy.wait()
            rows = slice(start - first, start - first + len(faces))
            if not finite.all():
                self._inpaint_wider(faces, finite, start, latents[rows], audio_windows[rows])
            yield faces
            start += len(faces)

    def _inpaint_wider(self, faces: U8, finite: Bool, start: int, latents: F32, audio_windows: F32) -> None:
        """Replace the faces that are not finite, each alone, so that the others in its batch decide nothing."""
        rows = np.flatnonzero(~finite)
        wider = self._open_wider(start + int(rows[0]), len(rows))
        for row in rows:
            one = slice(row, row + 1)
            faces[one] = wider.inpaint(latents[one], audio_windows[one], first=start + int(row))

    def _open_wider(self, frame: int, count: int) -> Inpainter:
        """Return the inpainter of the next precision. Raises EngineError weights_damaged where there is none."""
        self.overflows += count
        if self._widen is None:
            name = precision_name(self.dtype)
            message = f"the networks give no finite numbers for frame {frame}, in {name}, the widest precision"
            raise EngineError("weights_damaged", message, "check the weights with `musedrop models verify`")
        self._wider = self._wider or self._widen()
        return self._wider

    def is_finite(self) -> bool:
        """Whether a probe comes through without infinities: half precision overflows with some weights."""
        return self._stream.run(self._probe)()

    @torch.no_grad()
    def _probe(self) -> bool:
        audio_windows = _probe_input((1, TOKENS, self._predict.table.shape[1]), self.device)
        latent = self._predict(_probe_input((1, 8, *LATENT[1:]), self.device), audio_windows)
        return bool(self._decode.image(latent).isfinite().all())

    def stats(self) -> dict[str, Any]:
        """Return what runs how, for result.json and the benchmark."""
        fast = self._fast if self._compile_options is not None else {}
        compiled = {name: one.state for (name, size), one in fast.items() if size == self._size_of(name)}
        return {
            "device": str(self.device),
            "precision": precision_name(self.dtype),
            "way": "plain" if self.plain else "fast",
            **({"form": self.form} if self.form != USUAL_NAME else {}),
            "batch": {"unet": self.sizes.unet, "decode": self.sizes.decode, "encode": self.sizes.encode},
            **({"compiled": compiled} if compiled else {}),
            **({"engine": self._engine_facts} if self._engine_facts else {}),
            **({"overflows": self.overflows} if self.overflows else {}),
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
            given = self._run_or_shrink(
                "encode", self._stream.upload, _pad_batch(batch, crops[batch.start : batch.stop])
            )
            latents = None if given is None else self._run_or_shrink("encode", self._encode, *given)
            if latents is not None:
                found[batch.start : batch.stop] = latents[batch.slots].cpu().numpy()
                start = batch.stop
        return found

    @torch.no_grad()
    def _inpaint(self, frames: range, latents: F32, audio_windows: F32, end: int | None) -> list[HostCopy]:
        """Inpaint the frames of one batch; of several where memory runs out."""
        copies: list[HostCopy] = []
        start = frames.start
        while start < frames.stop:
            batch = next_batch(start, frames.stop, self.sizes.unet, end)
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
        unet = self.sizes.unet
        given = self._run_or_shrink(
            "unet", self._stream.upload, _pad_batch(batch, latents), _pad_batch(batch, audio_windows)
        )
        predicted = None if given is None else self._run_or_shrink("unet", self.pick_module("unet"), *given)
        if given is None or predicted is None:
            return None
        room = (batch.stop - batch.start, SIDE, SIDE, 3)
        copy = self._run_or_shrink("unet", self._stream.start_copy, room, [*given, predicted])
        return None if copy is None else self._decode_batch(batch, predicted, copy, unet)

    def _decode_batch(self, batch: Batch, predicted: Tensor, copy: HostCopy, unet: int) -> HostCopy | None:
        """Launch the decoder and the copies of a batch; returns None where the UNet's size, `unet`, had to shrink."""
        at = 0
        while at < batch.size:
            size = min(self.sizes.decode, batch.size)
            if (places := batch.overlap(at, size)) is not None:
                made = self._run_or_shrink("decode", self.pick_module("decode"), predicted[at : at + size])
                if made is None and self.sizes.unet < unet:
                    return None
                if made is None:
                    continue
                slots, rows = places
                copy.put(rows, made[0][slots], made[1][slots])
            at += size
        return copy

    def _run_or_shrink(self, stage: str, work: Callable[..., Result], *given: Any) -> Result | None:
        """Run a stage; where memory ran out, shrink the batches and return None. Raises the error at one."""
        try:
            return work(*given)
        except (RuntimeError, MemoryError) as error:
            smaller = self.sizes.shrink(stage) if is_out_of_memory(error) else None
            if smaller is None:
                raise
        # out of the handler the error is gone, and with it the frames that held the tensors
        self.sizes, self._free_when_shrunk = smaller, _free_bytes(self.device)
        return None

    def _grow(self) -> None:
        """Double the batches where so much more memory is free than when they were halved; compile the new shapes."""
        if self.sizes != self._full:
            free = _free_bytes(self.device)
            while (larger := self.sizes.grow(self._full)) != self.sizes:
                more = larger.batch_bytes(self.dtype.itemsize) - self.sizes.batch_bytes(self.dtype.itemsize)
                if free - self._free_when_shrunk < more:
                    break
                self.sizes, free = larger, free - more
        if self._compile_options is not None:
            self._compile_shapes(*self._compile_options)

    def adapt(self, batch_size: int | None, cache: Path | None) -> None:
        """Take the batch size that a job asks for, and compiled code or not; see `open_inpainter`."""
        held = torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0
        self.set_sizes(_choose_sizes(self.device, self.dtype, _free_bytes(self.device) + held, batch_size))
        self._compile_options = None
        self.compile_on_card(cache)

    def set_sizes(self, sizes: BatchSizes) -> None:
        """Take these batches, to which the sizes also grow again after they were halved."""
        self.sizes = self._full = sizes

    def compile_on_card(self, cache: Path | None) -> None:
        """Compile where that is asked for and of use."""
        if cache is not None and self.device.type == "cuda" and not self.plain:
            self.compile(make_kernel_folder(cache, self.device))

    def pick_module(self, stage: str) -> Callable[..., Any]:
        """Return UNet ("unet") or decoder ("decode") for the present batches: the engine's, or compiled where ready."""
        if stage == "decode" and self._other_decode is not None:
            return self._other_decode
        if stage in self._engine:
            return self._engine[stage]
        eager: Callable[..., Any] = self._predict if stage == "unet" else self._decode
        fast = self._fast if self._compile_options is not None else {}
        return fast.get((stage, self._size_of(stage)), eager)

    def use_engine(self, networks: Mapping[str, Callable[..., Any]], facts: dict[str, Any]) -> None:
        """Take networks in the place of UNet ("unet") and decoder ("decode"), none for the usual ones.

        facts  what `stats` says about them
        """
        self._engine, self._engine_facts = networks, facts

    def run_modules(self, work: Callable[[Predict, Decode], Result]) -> Result:
        """Run work over the usual UNet and decoder, as their batches run."""
        return self._stream.run(partial(torch.no_grad()(work), self._predict, self._decode))()

    def _size_of(self, stage: str) -> int:
        return self.sizes.unet if stage == "unet" else self.sizes.decode

    def compile(self, folder: Path, backend: Any = "inductor") -> None:
        """Compile UNet and decoder in the background, for other batch sizes too once they are chosen.

        `stats` says how far it is.

        folder   from `make_kernel_folder`
        """
        self._compile_options = folder, backend
        self._compile_shapes(folder, backend)

    def _compile_shapes(self, folder: Path, backend: Any) -> None:
        """Compile for the present batch sizes what is not compiled for them: compiled code belongs to its shape."""
        latents = _probe_input((self.sizes.unet, 8, *LATENT[1:]), self.device)
        audio_windows = _probe_input((self.sizes.unet, TOKENS, self._predict.table.shape[1]), self.device)
        predicted = _probe_input((self.sizes.decode, *LATENT), self.device).to(self.dtype)
        wanted: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
            "unet": (self._predict, (latents, audio_windows)),
            "decode": (self._decode, (predicted,)),
        }
        for stage, (eager, probe) in wanted.items():
            if (key := (stage, self._size_of(stage))) not in self._fast:
                self._fast[key] = CompiledModule(eager, probe, folder, backend)
                self._fast[key].start()


def open_inpainter(
    load: Load,
    device: torch.device,
    precision: Precision = "auto",
    *,
    plain: bool = False,
    batch_size: int | None = None,
    cache: Path | None = None,
    form: str = USUAL_NAME,
) -> Inpainter:
    """Return the inpainter in the best precision in which these weights give finite numbers.

    load         UNet and VAE in a precision, fresh each time, finished or not
    precision    "auto" is fp16 on CUDA; on a CPU bf16 where it multiplies that, else fp32
    batch_size   the user's; None takes what memory allows
    cache        folder for compiled kernels, on CUDA; None compiles nothing
    form         see `Inpainter`
    """
    has_bf16, free = has_device_bf16(device), _free_bytes(device)
    wanted = candidate_dtypes(precision, device.type, cpu_bf16=has_cpu_bf16())
    tried = [dtype for dtype in wanted if has_bf16 or dtype != torch.bfloat16]

    def open_in(dtype: torch.dtype, sizes: BatchSizes | None = None) -> Inpainter:
        wider = find_wider(dtype, bf16=has_bf16)
        return Inpainter(
            *load(dtype),
            device,
            plain=plain,
            sizes=sizes or _choose_sizes(device, dtype, free, batch_size),
            form=form,
            widen=None if wider is None else partial(open_in, wider, ONE_BY_ONE),
        )

    inpainter = _open_first_finite(open_in, tried)
    inpainter.compile_on_card(cache)
    return inpainter


def _open_first_finite(open_in: Callable[[torch.dtype], Inpainter], tried: Sequence[torch.dtype]) -> Inpainter:
    for dtype in tried[:-1]:
        inpainter = open_in(dtype)
        if inpainter.is_finite():
            return inpainter
        del inpainter  # before the next one takes its memory
    return open_in(tried[-1])


def _move_net(device: torch.device, net: Net) -> Net:
    return nn.Module.to(net, device).eval()  # diffusers' own `to` imports torch's compiler


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
