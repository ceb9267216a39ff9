"""What only a card would show: mixed devices, slips of precision, lost layouts, changing shapes, hidden waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.musetalk.inpainting import inpainter as painting
from models.musetalk.inpainting.batching import next_batch
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.inpainting.modules import contiguous_layout
from tests.models.musetalk.inpainting.meta_device import MetaStream, Recorder, open_meta_inpainter

FRAMES, SIZE = 40, 16


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> MetaStream:
    """The way that an inpainter opens in this test."""
    meta = MetaStream()
    monkeypatch.setattr(painting, "open_stream", lambda _: meta)
    return meta


@pytest.fixture
def inpainter(stream: MetaStream) -> Inpainter:  # noqa: ARG001  opened with it
    return open_meta_inpainter()


def record(inpainter: Inpainter, frames: int = FRAMES) -> Recorder:
    """Inpaint some frames; return what a card would have seen."""
    latents, windows = np.zeros((frames, 8, 32, 32), np.float32), np.zeros((frames, 50, 384), np.float32)
    with Recorder(inpainter.dtype) as recorder:
        told = inpainter.stream(range(frames), lambda part: latents[part], lambda part: windows[part], frames)
        assert sum(len(faces) for faces in told) == frames
    return recorder


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_batch_is_waited_for_once(stream: MetaStream, dtype: torch.dtype) -> None:
    """`HostCopy.wait` is the only wait, once a batch; no device is mixed, no heavy operator leaves its precision."""
    recorder = record(open_meta_inpainter(dtype), 20)
    assert stream.waits == 2
    assert recorder.syncs == {}
    assert recorder.mixes == []
    assert recorder.slips == []


def test_the_encoder_is_waited_for_once_a_batch(inpainter: Inpainter) -> None:
    """Latents go to the host in one blocking copy a batch, and their faces to the card in none."""
    with Recorder() as recorder:
        assert inpainter.latents(np.zeros((20, 256, 256, 3), np.uint8)).shape == (20, 8, 32, 32)
    assert recorder.syncs == {"_to_copy to the host": 2}
    assert (recorder.mixes, recorder.slips) == ([], [])


def test_the_probe_of_a_new_inpainter_waits_once(inpainter: Inpainter) -> None:
    """Whether its numbers are finite is asked when it is opened, and only then."""
    with Recorder() as recorder:
        inpainter.is_finite()
    assert recorder.syncs == {"_local_scalar_dense": 1, "_to_copy to the card": 2}


def test_every_batch_has_the_same_shapes(inpainter: Inpainter) -> None:
    """But the last one of a job, which may have half the size: cuDNN plans and compiled code are for a shape."""
    recorder = record(inpainter)
    batches = {shape[0] for shape in recorder.shapes}
    assert batches == {SIZE, SIZE // 2}
    count = len(recorder.shapes) // 3
    first, second, last = (recorder.shapes[count * number :][:count] for number in range(3))
    assert first == second
    assert [(shape[0] // 2, *shape[1:]) for shape in first] == last


def test_only_group_norms_leave_channels_last(inpainter: Inpainter) -> None:
    """In 16 bits everything else keeps the layout that convolutions want; these figures must not grow."""
    recorder = record(inpainter, SIZE)
    in_decoder = [shape for shape in recorder.strays if shape[2] >= 64]
    assert (len(recorder.strays), len(in_decoder)) == STRAYS


@pytest.mark.parametrize(("form", "strays"), [("norms", (17, 0)), ("shuffled, norms", (31, 8))])
def test_a_form_ends_the_changes_of_layout(stream: MetaStream, form: str, strays: tuple[int, int]) -> None:  # noqa: ARG001
    """With its norms what is left is behind the transformers and small; shuffling pixels makes some anew."""
    recorder = record(open_meta_inpainter(form=form), SIZE)
    assert (len(recorder.strays), len([shape for shape in recorder.strays if shape[2] >= 64])) == strays
    assert (recorder.syncs, recorder.mixes, recorder.slips) == ({}, [], [])


# each mistake, made once ---------------------------------------------------------------------------------------------


def keep_table_on_host(inpainter: Inpainter, _: pytest.MonkeyPatch) -> None:
    inpainter._predict.table = torch.zeros(inpainter._predict.table.shape, dtype=inpainter.dtype)


def widen_norm(inpainter: Inpainter, monkeypatch: pytest.MonkeyPatch) -> None:
    norm: Any = inpainter._decode.decoder.conv_norm_out
    norm.float()
    inner = norm.forward
    monkeypatch.setattr(norm, "forward", lambda given: inner(given.float()).to(given.dtype))


def lose_layout(inpainter: Inpainter, _: pytest.MonkeyPatch) -> None:
    inpainter._decode.layout = contiguous_layout


def wrap_decoder(after: Callable[[Tensor], object]) -> Callable[[Inpainter, pytest.MonkeyPatch], None]:
    def wrap(inpainter: Inpainter, _: pytest.MonkeyPatch) -> None:
        decode = inpainter._decode

        def watched(latents: Tensor) -> tuple[Tensor, Tensor]:
            faces, finite = decode(latents)
            after(finite)
            return faces, finite

        inpainter._decode = watched  # type: ignore[assignment]

    return wrap


def fit_batches(_: Inpainter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*given: Any) -> Any:
        batch = next_batch(*given)
        return replace(batch, size=batch.stop - batch.base)

    monkeypatch.setattr(painting, "next_batch", fit)


def upload_blocking(inpainter: Inpainter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        inpainter._stream, "upload", lambda *arrays: [torch.from_numpy(one).to("meta") for one in arrays]
    )


@pytest.mark.parametrize(
    ("mistake", "seen"),
    [
        (keep_table_on_host, "mixes"),
        (widen_norm, "slips"),
        (lose_layout, "strays"),
        (wrap_decoder(lambda finite: finite.all().item()), "syncs"),
        (wrap_decoder(lambda finite: finite.cpu()), "syncs"),
        (wrap_decoder(lambda finite: bool(finite[0])), "syncs"),
        (upload_blocking, "syncs"),
        (fit_batches, "shapes"),
    ],
)
def test_each_mistake_is_seen(inpainter: Inpainter, mistake: Any, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once on purpose, it is in the record, though the networks may refuse to go on with it."""
    mistake(inpainter, monkeypatch)
    latents, windows = np.zeros((21, 8, 32, 32), np.float32), np.zeros((21, 50, 384), np.float32)
    recorder = Recorder()
    try:
        with recorder:
            list(inpainter.stream(range(21), lambda part: latents[part], lambda part: windows[part], 21))
    except RuntimeError:
        assert seen == "mixes"
    noted = getattr(recorder, seen)
    if seen == "shapes":
        assert {shape[0] for shape in noted} - {SIZE, SIZE // 2}
    elif seen == "strays":
        assert len(noted) > sum(STRAYS)
    else:
        assert noted


STRAYS = (107, 19)
"""Convolutions of a UNet and a decoder that get channels first, of all and of 64 pixels and more."""
