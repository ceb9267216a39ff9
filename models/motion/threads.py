"""How many threads the operators of PyTorch use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Let operators on a processor use one thread; also a decorator of functions.

    A sum that several threads make has other last digits than the sum that one makes, and a worker has as many threads
    as its share of the cores: a clip must not depend on how many workers there are.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
