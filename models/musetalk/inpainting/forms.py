"""Forms of the same networks, of which only a card can tell the fastest: layout, upsamplers, group norms.

The self-test measures them on a card and chooses one, which jobs then run on all cards of that type.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, silu

from models.musetalk.inpainting.compile import is_close
from models.musetalk.inpainting.fused_weights import channels_go_last, order_memory
from models.musetalk.inpainting.fusion import (
    FoldedUpsample,
    TimelessResnet,
    clone_structure,
    find_submodules,
    fold_values,
)
from models.musetalk.inpainting.modules import (
    LATENT,
    Decode,
    MemoryLayout,
    Predict,
    channels_last_layout,
    contiguous_layout,
    to_bgr,
)
from models.musetalk.inpainting.picture_gate import FREE, compare_pictures
from models.musetalk.nets.diffusion import AutoencoderKL, ResnetBlock2D, UNet2DConditionModel, Upsample2D

Module = TypeVar("Module", bound=nn.Module)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Form:
    """A form of UNet and decoder.

    layout      of the tensors between operators
    upsampler   "transposed": one transposed convolution; "shuffled": a 2 x 2 convolution and pixel shuffle;
                "kernel": our own kernel, folded where the network is, else with the rounding of the two modules
    norm        "library": PyTorch's, which leaves channels_last on a card; "layout": one that keeps it;
                "kernel": that, and our own kernel where SiLU follows
    values      of an attention with one head: "separate", or "folded" into the projection of its result
    """

    layout: Literal["channels_last", "contiguous"] = "channels_last"
    upsampler: Literal["transposed", "shuffled", "kernel"] = "transposed"
    norm: Literal["library", "layout", "kernel"] = "library"
    values: Literal["separate", "folded"] = "separate"

    @property
    def has_kernels(self) -> bool:
        """Whether it runs kernels of ours, which need Triton."""
        return "kernel" in (self.upsampler, self.norm)


HAS_TRITON = find_spec("triton") is not None
USUAL = Form()
USUAL_NAME = "usual"
FORMS: dict[str, Form] = {
    USUAL_NAME: USUAL,
    "contiguous": Form(layout="contiguous"),
    "shuffled": Form(upsampler="shuffled"),
    "norms": Form(norm="layout"),
    "shuffled, norms": Form(upsampler="shuffled", norm="layout"),
    "kernels": Form(norm="kernel"),
    "shuffled, kernels": Form(upsampler="shuffled", norm="kernel"),
    "contiguous, shuffled": Form(layout="contiguous", upsampler="shuffled"),
    "values": Form(values="folded"),
    "upsampling kernels": Form(upsampler="kernel", norm="layout"),
    "all kernels": Form(upsampler="kernel", norm="kernel"),
    "all kernels, values": Form(upsampler="kernel", norm="kernel", values="folded"),
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """Milliseconds of a frame in UNet and decoder, and whether the result is the usual form's but for rounding."""

    unet_ms: float
    decode_ms: float
    is_same: bool


def arrange(net: Module, form: Form) -> Module:
    """Return an optimised network in another form; the form that it has already is returned as it is."""
    if form == USUAL:
        return net
    formed = clone_structure(fold_values(net) if form.values == "folded" else net)
    if form.upsampler == "shuffled":
        _replace(formed, FoldedUpsample, ShuffledUpsample)
    if form.upsampler == "kernel":
        for kind in (FoldedUpsample, Upsample2D):
            _replace(formed, kind, FusedUpsample)
    if form.norm == "kernel":
        join_norms(formed)
    if form.norm != "library":
        _replace(formed, nn.GroupNorm, LayoutGroupNorm)
    memory_format = torch.channels_last if form.layout == "channels_last" else torch.contiguous_format
    return order_memory(formed, memory_format)


def form_networks(
    unet: UNet2DConditionModel, vae: AutoencoderKL, form: str, layout: MemoryLayout
) -> tuple[Predict, Decode]:
    """Return what inpaints, over optimised networks whose usual order in memory is `layout`.

    A form that this version doesn't know is the usual one.
    """
    chosen = FORMS.get(form, USUAL)
    layout = contiguous_layout if chosen.layout == "contiguous" else layout
    return Predict(arrange(unet, chosen), layout), Decode(arrange(vae, chosen), layout)


def list_forms(device: torch.device) -> list[str]:
    """Return the forms that differ on a device: our kernels are for cards with Triton."""
    has_kernels = device.type == "cuda" and HAS_TRITON
    return [name for name, form in FORMS.items() if has_kernels or not form.has_kernels]


def measure_forms(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    device: torch.device,
    batch: int,
    rounds: int = 3,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Measurement]:
    """Time the forms of optimised networks on their device, in batches of one size; the best round counts."""
    found: dict[str, Measurement] = {}
    wanted: list[Tensor] = []
    latents = _make_noise((batch, 2 * LATENT[0], *LATENT[1:]), device)
    predicted = _make_noise((batch, *LATENT), device).to(unet.dtype)
    layout: MemoryLayout = channels_last_layout if channels_go_last(unet.dtype) else contiguous_layout
    for name in list_forms(device):
        tick()
        predict, decode = form_networks(unet, vae, name, layout)
        windows = _make_noise((batch, 50, predict.table.shape[1]), device)
        with torch.no_grad():
            (unet_s, first), (decode_s, second) = (
                measure_best(partial(predict, latents, windows), device, rounds),
                measure_best(partial(decode.image, predicted), device, rounds),
            )
        wanted = wanted or [first, second]
        is_same = is_close(first, wanted[0]) and is_close(second, wanted[1]) and _passes_gate(second, wanted[1])
        found[name] = Measurement(_per_frame_ms(unet_s, batch), _per_frame_ms(decode_s, batch), is_same)
    return found


def _passes_gate(image: Tensor, wanted: Tensor) -> bool:
    """Whether the decoder's images are the same pictures, within a grey level in 99.9 % of the values."""
    return compare_pictures(to_bgr(image), to_bgr(wanted), FREE).passes(FREE)


def _per_frame_ms(seconds: float, batch: int) -> float:
    return round(1000 * seconds / batch, 3)


def choose_form(found: dict[str, Measurement], gain: float = 0.03) -> str:
    """Return the fastest form that gives the same; the usual one unless another gains more than `gain`."""
    times = {name: one.unet_ms + one.decode_ms for name, one in found.items() if one.is_same or name == USUAL_NAME}
    best = min(times, key=times.__getitem__)
    return best if times[best] < (1 - gain) * times[USUAL_NAME] else USUAL_NAME


def measure_best(work: Callable[[], Result], device: torch.device, rounds: int) -> tuple[float, Result]:
    """Return the seconds of the best of some rounds, and what the last gave; the one before them counts if alone."""
    best_s = float("inf")
    for turn in range(rounds + 1):
        _finish(device)
        began_s = time.perf_counter()
        result = work()
        _finish(device)
        if turn or not rounds:
            best_s = min(best_s, time.perf_counter() - began_s)
    return best_s, result


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _make_noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def join_norms(net: nn.Module) -> None:
    """Join each group norm of a network with the SiLU that follows it."""
    for module in [*net.modules()]:
        if isinstance(module, ResnetBlock2D | TimelessResnet):
            name = "act" if isinstance(module, TimelessResnet) else "nonlinearity"
            _join(module, ("norm1", "norm2"), name)
        elif isinstance(getattr(module, "conv_act", None), nn.SiLU):
            _join(module, ("conv_norm_out",), "conv_act")


def _join(module: nn.Module, norms: tuple[str, ...], act: str) -> None:
    parts = [getattr(module, norm) for norm in norms]
    if isinstance(getattr(module, act), nn.SiLU) and all(isinstance(part, nn.GroupNorm) for part in parts):
        for norm, part in zip(norms, parts, strict=True):
            setattr(module, norm, NormSilu(part))
        setattr(module, act, nn.Identity())


def _replace(module: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    for parent, name, child in find_submodules(module, kind):
        setattr(parent, name, make(child))


class ShuffledUpsample(nn.Module):
    """A FoldedUpsample as one 2 x 2 convolution whose results are dealt out to the four pixels of each doubled one."""

    def __init__(self, folded: FoldedUpsample) -> None:
        super().__init__()
        kernel = folded.conv.weight.detach()  # (in, out, 4, 4)
        pairs = torch.stack([kernel[:, :, [3, 1]], kernel[:, :, [2, 0]]])  # of rows, for the upper and the lower half
        both = torch.stack([pairs[..., [3, 1]], pairs[..., [2, 0]]], 1)  # (2, 2, in, out, 2, 2)
        weight = both.permute(3, 0, 1, 2, 4, 5).flatten(0, 2).contiguous()
        self.weight = nn.Parameter(weight, requires_grad=False)
        bias = folded.conv.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat_interleave(4), requires_grad=False)

    def forward(self, hidden_states: Tensor, _output_size: Any = None) -> Tensor:
        """(n, c, h, w) -> (n, c', 2h, 2w)."""
        count, _, height, width = hidden_states.shape
        dealt = nn.functional.conv2d(hidden_states, self.weight, self.bias, padding=1)
        parts = dealt.unflatten(1, (-1, 2, 2))
        rows = [
            torch.stack([parts[:, :, row, column, row:, column:][..., :height, :width] for column in range(2)], -1)
            for row in range(2)
        ]
        return torch.stack(rows, -3).reshape(count, -1, 2 * height, 2 * width)


class FusedUpsample(nn.Module):
    """Nearest 2x and the convolution after it by our kernel on a card that has Triton, else as it was.

    A FoldedUpsample is computed from its folded kernel; an Upsample2D from its own, with the rounding of its modules.
    """

    def __init__(self, plain: FoldedUpsample | Upsample2D) -> None:
        super().__init__()
        self.plain = plain
        self.packed: Tensor | None = None  # lies as the kernel reads it, from the first call on

    def forward(self, hidden_states: Tensor, output_size: Any = None) -> Tensor:
        """(n, c, h, w) -> (n, c', 2h, 2w); another size, which the UNet asks for where a side was odd, as it was."""
        height, width = hidden_states.shape[2:]
        if not _runs_kernels(hidden_states) or (output_size and tuple(output_size)[-2:] != (2 * height, 2 * width)):
            return self.plain(hidden_states, output_size)
        conv: Any = self.plain.conv
        kernels = _import_upsampling()
        if self.packed is None:
            pack = kernels.pack_folded if isinstance(self.plain, FoldedUpsample) else kernels.pack_plain
            self.packed = pack(conv.weight.detach())
        bias = self.packed.new_zeros(self.packed.shape[2]) if conv.bias is None else conv.bias
        return kernels.double_and_convolve(hidden_states, self.packed, bias)


class NormSilu(nn.Module):
    """A GroupNorm and the SiLU after it: our kernel on a card that has Triton, else the two."""

    def __init__(self, plain: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = plain.num_groups, plain.eps
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, given: Tensor) -> Tensor:
        if _runs_kernels(given):
            return _import_kernels().norm_and_silu(given, self.groups, self.weight, self.bias, self.eps)
        return silu(group_norm(given, self.groups, self.weight, self.bias, self.eps))


def _runs_kernels(given: Tensor) -> bool:
    return given.is_cuda and HAS_TRITON


@cache
def _import_kernels() -> Any:
    return import_module("models.musetalk.inpainting.norm_kernels")


@cache
def _import_upsampling() -> Any:
    return import_module("models.musetalk.inpainting.upsample_kernels")


class LayoutGroupNorm(nn.Module):
    """A GroupNorm that keeps channels_last: sums in float32, then one multiplication and addition a value."""

    def __init__(self, plain: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = plain.num_groups, plain.eps
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, given: Tensor) -> Tensor:
        if given.dim() != 4:
            return group_norm(given, self.groups, self.weight, self.bias, self.eps)
        count, channels, height, width = given.shape
        values = given.permute(0, 2, 3, 1).reshape(count, height * width, self.groups, channels // self.groups)
        size = height * width * channels // self.groups
        mean = values.sum((1, 3), dtype=torch.float32) / size
        square = torch.linalg.vector_norm(values, dim=(1, 3), dtype=torch.float32).square() / size
        scale = (square - mean.square()).clamp(min=0).add(self.eps).rsqrt()
        factor = scale[..., None] * self.weight.float().view(self.groups, -1)
        offset = self.bias.float().view(self.groups, -1) - mean[..., None] * factor
        factor, offset = (one.reshape(count, channels, 1, 1).to(given.dtype) for one in (factor, offset))
        return torch.addcmul(offset, given, factor)
