"""The inpainter's own code without a card: on the meta device, where every operator runs and none computes.

The recorder sees each operator as a card would get it, and notes what costs there or fails there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.musetalk.inpainting.batching import BatchSizes
from models.musetalk.inpainting.inpainter import Inpainter
from tests.models.musetalk import tiny_nets

META = torch.device("meta")
READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "is_nonzero"}
"""Operators that wait for the card, because the host needs their result."""
HEAVY = {"convolution", "addmm", "mm", "native_group_norm", "native_layer_norm"}
"""Operators that have to run in the precision of the networks. Attention is one kernel on a card, several here."""


class Recorder(TorchDispatchMode):
    """Notes what the operators of a network of `dtype` would do to a card.

    syncs     operators and copies that wait for the card, how often each
    mixes     operators whose tensors are on several devices
    slips     heavy operators in another precision
    strays    convolutions that are given channels first, and so transpose
    shapes    of everything that is convolved, in order
    """

    def __init__(self, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.dtype = dtype
        self.syncs: Counter[str] = Counter()
        self.mixes: list[str] = []
        self.slips: list[str] = []
        self.strays: list[tuple[int, ...]] = []
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in ("_to_copy", "copy_"):
            return self._copy(name, func, args, kwargs)
        if name in READS and any(tensor.is_meta for tensor in tensors):
            self.syncs[name] += 1
            return torch.zeros(()).item() if name == "_local_scalar_dense" else func(*args, **kwargs)
        if len({tensor.device for tensor in tensors if tensor.dim()}) > 1:
            self.mixes.append(name)
        if name in HEAVY:
            self._check_heavy(name, tensors)
        return self._lay_out(name, tensors, func(*args, **kwargs))

    def _lay_out(self, name: str, given: list[Tensor], result: Any) -> Any:
        """Give a result the layout that it has on a card: meta operators know no card."""
        if name == "convolution" and any(is_channels_last(tensor) for tensor in given[:2]):
            return torch.empty_like(result, memory_format=torch.channels_last)
        if name == "native_group_norm":
            return (torch.empty_like(result[0], memory_format=torch.contiguous_format), *result[1:])
        return result

    def _copy(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        target, source = (args[0], args[1]) if name == "copy_" else (kwargs.get("device"), args[0])
        device = target.device if isinstance(target, Tensor) else torch.device(target or source.device)
        if device == source.device:
            return func(*args, **kwargs)
        if not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))):
            self.syncs[f"{name} to {'the host' if device.type == 'cpu' else 'the card'}"] += 1
        if device.type == "cpu":
            return target if name == "copy_" else torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        return func(*args, **kwargs)

    def _check_heavy(self, name: str, tensors: list[Tensor]) -> None:
        if any(tensor.is_floating_point() and tensor.dtype != self.dtype for tensor in tensors):
            self.slips.append(name)
        if name == "convolution":
            given = tensors[0]
            self.shapes.append(tuple(given.shape))
            if not is_channels_last(given):
                self.strays.append(tuple(given.shape))


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a convolution takes the tensor as it is; one with a single channel or pixel has both layouts."""
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


class MetaStream:
    """A way to the meta device as `CudaStream` is one to a card. `waits` counts the batches that were waited for."""

    depth = 2

    def __init__(self) -> None:
        self.waits = 0

    def run(self, work: Callable[[], Any]) -> Callable[[], Any]:
        result = work()
        return lambda: result

    def upload(self, *arrays: npt.NDArray[Any]) -> list[Tensor]:
        return [torch.from_numpy(array).to(META, non_blocking=True) for array in arrays]

    def start_copy(self, shape: tuple[int, ...], keeps: Sequence[Tensor]) -> MetaCopy:
        assert all(tensor.is_meta for tensor in keeps)
        return MetaCopy(self, shape)


class MetaCopy:
    def __init__(self, stream: MetaStream, shape: tuple[int, ...]) -> None:
        self._stream = stream
        self._rows, self._finite = torch.zeros(shape, dtype=torch.uint8), torch.ones(shape[0], dtype=torch.bool)

    def put(self, rows: slice, values: Tensor, finite: Tensor) -> None:
        self._rows[rows].copy_(values, non_blocking=True)
        self._finite[rows].copy_(finite, non_blocking=True)

    def wait(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        self._stream.waits += 1
        return self._rows.numpy(), self._finite.numpy()


@cache
def build_meta_networks(dtype: torch.dtype) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """Return networks of full size, which take a second to build; the fast way doesn't change them."""
    with META:
        unet, vae = UNet2DConditionModel(**tiny_nets.UNET_FULL), AutoencoderKL(**tiny_nets.VAE_FULL)
    return tiny_nets.cast_to(dtype, unet), tiny_nets.cast_to(dtype, vae)


def open_meta_inpainter(dtype: torch.dtype = torch.float16, size: int = 16, form: str = "usual") -> Inpainter:
    """Return the inpainter with networks of full size on the meta device; open_stream has to give a MetaStream."""
    return Inpainter(*build_meta_networks(dtype), META, sizes=BatchSizes(size, size, size), form=form)
