"""UNet and VAE as the fast way runs them: folded, in their precision, in the order in memory that the kernels want.

A ready file keeps that on the disk, so that a start has nothing to compute and nothing to copy. It is never the truth:
one that is not here, is damaged or was made from other weights is passed over, and the exact file does the same slower.

    converted/NAME.PRECISION.safetensors    the tensors that are not in the exact file as they are: in 16 bits all of
                                            them, in float32 the folded ones; where channels go last, (n, h, w, c)
    its metadata                            the hashes of the weights and the config that it was made from
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.atomic import atomic_write_by_name
from models.checkpoints.manifest import Entry, hashed_stamp, recorded_sha256, stamp_of, write_entry
from models.checkpoints.states import State, find_mismatch, move_tensor
from models.musetalk.inpainting.fusion import FoldedUpsample, fold_time, fold_upsamplers
from models.musetalk.inpainting.precision import precision_name
from models.musetalk.nets.diffusion import UNet2DConditionModel
from models.musetalk.weights.architectures import build_empty
from models.musetalk.weights.checkpoint import damaged_error, read_metadata, read_state
from models.musetalk.weights.index import InstalledPart, ready_file
from models.musetalk.weights.loader import fill_network, load_part, read_part
from models.types import EngineError

Net = TypeVar("Net", bound=nn.Module)

CPU = torch.device("cpu")
FORMAT = "1"
"""Of ready files: another number, for instance after other folds, makes older ones useless."""


def optimise(net: Net) -> Net:
    """Return what the fast way runs; an optimised network is returned as it is. Tensors are shared with `net`."""
    folded: Any = fold_upsamplers(net)
    if isinstance(folded, UNet2DConditionModel):
        folded = fold_time(folded)
    if channels_go_last(next(net.parameters()).dtype):
        folded = order_memory(folded, torch.channels_last)
    return folded.eval()


def order_memory(net: Net, memory_format: torch.memory_format) -> Net:
    """Put the tensors of a network into an order in memory."""
    to: Any = nn.Module.to  # diffusers' own one imports torch's compiler; its types lack this argument
    return to(net, memory_format=memory_format)


def channels_go_last(dtype: torch.dtype) -> bool:
    """Whether channels go last: in 16 bits. In float32 it gains little, and group norms lose digits by it."""
    return dtype.itemsize == 2


# opening -------------------------------------------------------------------------------------------------------------


def load_optimised(found: InstalledPart, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a network for the fast way: from its ready file where there is a good one, else from the exact file.

    Raises EngineError weights_damaged, weights_unsafe of the exact file.
    """
    try:
        return open_ready_file(found, device, dtype)
    except (EngineError, OSError):  # what it was, `musedrop models verify` tells: a job is as well without it
        return optimise(load_part(found, device, dtype))


def open_ready_file(found: InstalledPart, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Map the network in a ready file. Raises EngineError weights_damaged if it is not that of `found`; OSError."""
    file = ready_file(found.part.name, precision_name(dtype))
    kept = read_state(found.root / file, file)
    if not is_made_from(found, dtype, read_metadata(found.root / file, file)):
        raise damaged_error(
            file, "belongs to other weights than those beside it, or they were touched since, so it is not used"
        )
    return assemble_network(found, kept, device, dtype)


def is_made_from(found: InstalledPart, dtype: torch.dtype, told: dict[str, str]) -> bool:
    wanted = provenance(found, dtype)
    return bool(wanted) and wanted.items() <= told.items()


def provenance(found: InstalledPart, dtype: torch.dtype) -> dict[str, str]:
    """Return what the metadata of a ready file says; nothing where no manifest knows its sources."""
    exact = [recorded_sha256(path.parent, path.name) for path in found.files]
    known = found.variant.form == "converted" and all(exact)
    return {"ready": FORMAT, "precision": precision_name(dtype), "made_from": " ".join(exact)} if known else {}


def assemble_network(found: InstalledPart, kept: State, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Build the network from the tensors of a ready file, and from the exact file what is missing."""
    net = optimise(build_empty(found, kept))
    state = {name: from_channels_last(move_tensor(tensor, device, dtype), dtype) for name, tensor in kept.items()}
    if rest := net.state_dict().keys() - state.keys():
        exact = read_state(found.weights, found.variant.weights)
        state |= {name: move_tensor(exact[name], device, dtype) for name in rest & exact.keys()}
    if wrong := find_mismatch(net, state, extras=False):
        raise damaged_error(ready_file(found.part.name, precision_name(dtype)), wrong)
    net.load_state_dict(state, assign=True)
    return net.requires_grad_(requires_grad=False)


def from_channels_last(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor of a ready file as the network has it, in the same memory."""
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 and channels_go_last(dtype) else tensor


# writing -------------------------------------------------------------------------------------------------------------


def has_ready_file(found: InstalledPart, dtype: torch.dtype) -> bool:
    path = found.root / ready_file(found.part.name, precision_name(dtype))
    try:
        return bool(open_ready_file(found, CPU, dtype) and recorded_sha256(path.parent, path.name))
    except (EngineError, OSError):
        return False


def write_ready_file(found: InstalledPart, dtype: torch.dtype) -> str:
    """Make the ready file of a converted part: it appears whole, once it was read again and found equal. Says what."""
    file, about = ready_file(found.part.name, precision_name(dtype)), provenance(found, dtype)
    if not about:
        raise damaged_error(found.variant.weights, "is not what was converted, or was changed meanwhile")
    exact, empty = read_part(found)
    net = optimise(fill_network(empty, exact, CPU, dtype))
    kept = select_changed(exact, net)
    path = found.root / file
    with atomic_write_by_name(path) as beside:
        save_file(
            {name: to_channels_last(t, dtype) for name, t in kept.items()}, beside, metadata={"format": "pt", **about}
        )
        beside.chmod(0o644)
        check_equal(net.state_dict(), assemble_network(found, read_state(beside, file), CPU, dtype).state_dict(), file)
    stamp = hashed_stamp(path)
    write_entry(path.parent, path.name, Entry(stamp, source=stamp_of(found.weights)))
    return f"{file}: {len(kept)} tensors, {stamp.bytes / 2**20:,.0f} MiB"


def select_changed(exact: State, net: nn.Module) -> State:
    """Return the tensors of `net` that are not in the memory of the exact ones."""
    theirs = {tensor.data_ptr() for tensor in exact.values()}
    return {name: tensor for name, tensor in net.state_dict().items() if tensor.data_ptr() not in theirs}


def to_channels_last(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor as it is in a ready file: the inverse of `from_channels_last`."""
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 and channels_go_last(dtype) else tensor).contiguous()


def check_equal(state: State, written: State, file: str) -> None:
    """Raise EngineError weights_damaged where what was read again differs."""
    if wrong := next((name for name, tensor in state.items() if not torch.equal(tensor, written[name])), ""):
        raise damaged_error(file, f"was not written as it should be ({wrong} differs): the disk may be failing")


def ready_file_bytes(found: InstalledPart, dtype: torch.dtype) -> int:
    """Return the size of a ready file, by the config alone: in 16 bits all of the network, else the folded kernels."""
    net = optimise(build_empty(found, {}))
    parts = [net] if channels_go_last(dtype) else [part for part in net.modules() if isinstance(part, FoldedUpsample)]
    return dtype.itemsize * sum(tensor.numel() for part in parts for tensor in part.parameters())
