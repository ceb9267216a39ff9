"""Networks of an engine, called as the modules that they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.musetalk.engines.providers import list_errors
from models.musetalk.inpainting.modules import to_bgr

TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


class EngineModule:
    """Runs batches of any size in the one that the network has; other slots are zeros.

    cuda  is there so that a machine without a card can play this through
    """

    def __init__(self, session: Any, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._session, self._device, self._cuda = session, device, cuda
        self._inputs = [(one.name, TYPES[one.type]) for one in session.get_inputs()]
        self.batch: int = session.get_inputs()[0].shape[0]
        self._output = session.get_outputs()[0]

    def __call__(self, *given: Tensor) -> Tensor:
        count = len(given[0])
        starts = range(0, count, self.batch)
        made = [self._run([self._fill(tensor[at : at + self.batch]) for tensor in given]) for at in starts]
        return torch.cat(made)[:count]

    def _fill(self, rows: Tensor) -> Tensor:
        empty = rows.new_zeros((self.batch - len(rows), *rows.shape[1:]))
        return torch.cat([rows, empty]) if len(empty) else rows

    def _run(self, given: list[Tensor]) -> Tensor:
        """Run one batch. Raises RuntimeError, as PyTorch does, where memory runs out."""
        named = [
            (name, tensor.to(dtype).contiguous()) for (name, dtype), tensor in zip(self._inputs, given, strict=True)
        ]
        try:
            if self._device.type == "cuda":
                return self._run_bound(named)
            return torch.from_numpy(self._session.run(None, {name: tensor.numpy() for name, tensor in named})[0])
        except list_errors() as error:
            raise RuntimeError(str(error)) from error

    def _run_bound(self, named: list[tuple[str, Tensor]]) -> Tensor:
        """Run on the card's own memory.

        ONNX Runtime has a stream of its own: PyTorch's is waited for before, and ONNX Runtime waits for its own after.
        """
        made = torch.empty(self._output.shape, dtype=TYPES[self._output.type], device=self._device)
        binding, index = self._session.io_binding(), self._device.index or 0
        for name, tensor in named:
            binding.bind_input(name, "cuda", index, _name_type(tensor), [*tensor.shape], tensor.data_ptr())
        binding.bind_output(self._output.name, "cuda", index, _name_type(made), [*made.shape], made.data_ptr())
        self._cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        return made


def _name_type(tensor: Tensor) -> Any:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype.type


class EngineDecode:
    """A decoder as `modules.Decode`: latents -> faces (n, 256, 256, 3) uint8 BGR, and (n,) bool."""

    def __init__(self, image: EngineModule) -> None:
        self._image = image

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        image = self._image(latents)
        return to_bgr(image), image.isfinite().flatten(1).all(1)
