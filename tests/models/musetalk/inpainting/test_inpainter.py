"""From crops and audio windows to inpainted faces: the published program's numbers, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from models.musetalk.inpainting import inpainter as painting
from models.musetalk.inpainting.batching import BatchSizes, cpu_sizes
from models.musetalk.inpainting.inpainter import Inpainter, open_inpainter
from models.musetalk.inpainting.precision import has_cpu_bf16
from models.types import EngineError
from tests.models.musetalk import tiny_nets
from tests.models.musetalk.recipe import fill, golden

Floats = npt.NDArray[np.float32]


CPU = tiny_nets.CPU


def given(frames: int, width: int = 16) -> tuple[Floats, Floats]:
    """Latents and audio_windows of some frames, each unlike the others."""
    random = np.random.default_rng(3)
    latents = random.normal(size=(frames, 8, 32, 32)).astype(np.float32)
    return latents, random.normal(size=(frames, 50, width)).astype(np.float32)


def in_threads(count: int, make: Callable[..., Inpainter], **options: Any) -> Inpainter:
    """A inpainter made in a process that has so many threads for an operator."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return make(**options)
    finally:
        torch.set_num_threads(before)


def same_faces(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> bool:
    """At most one level apart, in fewer than one of a thousand values."""
    apart = np.abs(found.astype(int) - wanted)
    return bool(apart.max() <= 1 and (apart > 0).mean() < 1e-3)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("noisy", [False, True])
def test_latents(plain: bool, noisy: bool) -> None:
    """The mode of both posteriors, scaled, however wide the posterior is."""
    wanted, vae = golden("03_vae_tiny"), tiny_nets.vae()
    if noisy:
        vae.quant_conv.bias[4:] = 0
    found = Inpainter(tiny_nets.unet(), vae, CPU, plain=plain).latents(wanted["resized_lanczos4_bgr"][None])
    assert found.dtype == np.float32
    assert np.abs(found - wanted["latents8_mode"]).max() <= 1e-5


@pytest.mark.parametrize("plain", [True, False])
@torch.no_grad()
def test_unet(plain: bool) -> None:
    """Positions added, one pass at timestep 0."""
    wanted = golden("04_unet_tiny")
    predict = tiny_nets.inpainter(plain=plain)._predict
    found = predict(torch.from_numpy(wanted["latents"]), torch.from_numpy(wanted["audio"]))
    assert np.abs(found.numpy() - wanted["out"]).max() <= 1e-4


@pytest.mark.parametrize("plain", [True, False])
@torch.no_grad()
def test_decode(plain: bool) -> None:
    """The picture before it is clipped, and its grey levels; a fifth of them are clipped on purpose."""
    wanted = golden("03_vae_tiny")
    decode = tiny_nets.inpainter(plain=plain)._decode
    latents = torch.from_numpy(wanted["latents8_mode"][:, 4:])
    strip = decode.image(latents)[0, :, 120:136].numpy()
    assert np.abs(strip - wanted["decoded_float_rgb_strip"]).max() <= 1e-4
    faces, finite = decode(latents)
    assert same_faces(faces.numpy(), wanted["decoded_bgr_uint8"])
    assert finite.all()


@pytest.mark.slow
@torch.no_grad()
def test_full_size_networks() -> None:
    """The real architectures with recipe weights: encode, UNet, decode."""
    wanted = golden("10_fullsize_recipe_outputs")
    vae = fill(AutoencoderKL(**tiny_nets.VAE_FULL), gains={"decoder.conv_out": 1.6})
    with torch.device("meta"):
        unet = UNet2DConditionModel(**tiny_nets.UNET_FULL)
    plain = Inpainter(fill(unet.to_empty(device="cpu")), vae, CPU, plain=True)
    x = torch.from_numpy(np.random.RandomState(41).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32))
    random = np.random.RandomState(43)
    latents, features = (random.standard_normal(shape).astype(np.float32) for shape in ((1, 8, 32, 32), (1, 50, 384)))
    z = np.random.RandomState(42).standard_normal((1, 4, 32, 32)).astype(np.float32)
    found = {
        "vae_mean": vae.encode(x).latent_dist.mode(),
        "vae_dec_rows": plain._decode.image(torch.from_numpy(z) * vae.config["scaling_factor"])[0, :, ::16],
        "unet_out": plain._predict(torch.from_numpy(latents), torch.from_numpy(features)),
    }
    for name, tensor in found.items():
        apart = np.abs(tensor.numpy() - wanted[name]).max() / np.sqrt((wanted[name] ** 2).mean())
        assert apart <= 1e-4, name


def ways() -> list[dict[str, Any]]:
    return [{"plain": True}, {}, {"dtype": torch.bfloat16}]


@pytest.mark.parametrize("way", ways(), ids=["plain", "folded", "bf16"])
def test_spans_make_no_difference(way: dict[str, Any]) -> None:
    """Cut into any spans, each frame has the same bytes: its place in a batch comes from its number alone."""
    latents, audio_windows = given(11)
    inpainter = tiny_nets.miniature(**way)
    whole = inpainter.inpaint(latents, audio_windows)
    for cuts in ((0, 5, 11), (0, 1, 2, 8, 11), (3, 4), (7, 11)):
        for start, stop in pairwise(cuts):
            part = inpainter.inpaint(latents[start:stop], audio_windows[start:stop], first=start)
            assert np.array_equal(part, whole[start:stop])


@pytest.mark.parametrize("way", ways(), ids=["plain", "folded", "bf16"])
def test_neighbours_make_no_difference(way: dict[str, Any]) -> None:
    """A frame among others has the bytes that it has alone; in another slot too, as far as these kernels go."""
    latents, audio_windows = given(4, 64)
    inpainter = tiny_nets.inpainter(**way)
    whole = inpainter.inpaint(latents, audio_windows)
    assert np.array_equal(inpainter.inpaint(latents[2:3], audio_windows[2:3], first=2)[0], whole[2])
    assert np.array_equal(inpainter.inpaint(latents[2:3], audio_windows[2:3], first=1)[0], whole[2])


@pytest.mark.parametrize("way", ways(), ids=["plain", "folded", "bf16"])
def test_crops_are_encoded_one_by_one(way: dict[str, Any]) -> None:
    """The latents of a crop don't depend on which others are prepared with it."""
    crops = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    inpainter = tiny_nets.inpainter(**way)
    together = inpainter.latents(crops)
    assert np.array_equal(together[1:2], inpainter.latents(crops[1:2]))
    assert inpainter.latents(crops[:0]).shape == (0, 8, 32, 32)


@pytest.mark.parametrize("way", ways(), ids=["plain", "folded", "bf16"])
def test_threads_make_no_difference(way: dict[str, Any]) -> None:
    """A worker with more cores paints several batches at once, and every face has the same bytes."""
    latents, audio_windows = given(6)
    crops = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    one, three = (in_threads(count, tiny_nets.miniature, **way) for count in (1, 3))
    assert np.array_equal(one.inpaint(latents, audio_windows), three.inpaint(latents, audio_windows))
    assert np.array_equal(one.latents(crops), three.latents(crops))


def test_batches_of_another_size_make_hardly_a_difference() -> None:
    """Rounding only, where a GPU with less memory takes smaller batches."""
    latents, audio_windows = given(6)
    wanted = tiny_nets.miniature().inpaint(latents, audio_windows)
    for sizes in (BatchSizes(1, 1, 1), BatchSizes(2, 2, 1), BatchSizes(8, 4, 1)):
        assert same_faces(tiny_nets.miniature(sizes=sizes).inpaint(latents, audio_windows), wanted)


def test_frames_are_asked_for_batch_by_batch() -> None:
    """A stream holds the inputs of a few batches only, and gives the faces in order."""
    latents, audio_windows = given(10)
    asked: list[range] = []

    def look(part: range) -> Floats:
        asked.append(part)
        return latents[part.start : part.stop]

    inpainter = in_threads(1, tiny_nets.miniature)
    told = inpainter.stream(range(3, 10), look, lambda part: audio_windows[part.start : part.stop])
    faces = next(told)
    assert (asked, len(faces)) == ([range(3, 4), range(4, 8)], 1)
    faces = np.concatenate([faces, *told])
    assert asked == [range(3, 4), range(4, 8), range(8, 10)]
    assert np.array_equal(faces, inpainter.inpaint(latents, audio_windows)[3:])
    assert inpainter.inpaint(latents[:0], audio_windows[:0]).shape == (0, 256, 256, 3)


@pytest.mark.parametrize(("plain", "shapes"), [(True, {4}), (False, {2, 4})])
def test_the_reference_has_batches_of_one_shape(plain: bool, shapes: set[int]) -> None:
    """The last batch of a job is half as large in the fast way alone: another shape may round otherwise."""
    latents, audio_windows = given(6)
    inpainter, seen = tiny_nets.miniature(plain=plain), set()
    inpainter.networks[0].register_forward_pre_hook(lambda _, given: seen.add(len(given[0])))
    told = inpainter.stream(range(6), lambda p: latents[p.start : p.stop], lambda p: audio_windows[p.start : p.stop], 6)
    assert len(np.concatenate(list(told))) == 6
    assert seen == shapes


class Hungry(nn.Module):
    """Runs out of memory for batches beyond `most`."""

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, *tensors: Tensor) -> Tensor:
        if len(tensors[0]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.inner(*tensors)


@pytest.mark.parametrize(
    ("stage", "most", "left"),
    [
        ("_decode", 2, BatchSizes(8, 2, 8)),
        ("_decode", 1, BatchSizes(8, 1, 8)),
        ("_predict", 4, BatchSizes(4, 4, 8)),
        ("_predict", 1, BatchSizes(1, 1, 8)),
        ("_encode", 2, BatchSizes(8, 8, 2)),
    ],
)
def test_out_of_memory_halves_the_batch(stage: str, most: int, left: BatchSizes) -> None:
    """That stage's batch is halved until it fits, the same faces come out, and the next job begins with what fitted."""
    latents, audio_windows = given(9)
    crops = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    easy, hard = tiny_nets.miniature(), in_threads(1, tiny_nets.miniature, sizes=BatchSizes(8, 8, 8))
    table = hard._predict.table
    setattr(hard, stage, Hungry(getattr(hard, stage), most))
    hard._predict.table = table
    assert same_faces(hard.inpaint(latents, audio_windows), easy.inpaint(latents, audio_windows))
    assert np.abs(hard.latents(crops) - easy.latents(crops)).max() <= 1e-5
    assert hard.sizes == left
    hard.inpaint(latents[:1], audio_windows[:1])
    assert hard.sizes == left


@pytest.mark.parametrize("text", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory"])
def test_other_libraries_run_out_of_memory_too(text: str) -> None:
    """cuDNN, cuBLAS and pinned memory raise RuntimeError: the batch is halved as well, in every stage."""
    latents, audio_windows = given(5)
    hard, easy = (in_threads(1, tiny_nets.miniature, sizes=BatchSizes(4, 4, 4)) for _ in range(2))
    upload = hard._stream.upload

    def upload_little(*arrays: npt.NDArray[Any]) -> Any:
        if len(arrays[0]) > 2:
            raise RuntimeError(text)
        return upload(*arrays)

    hard._stream.upload = upload_little  # type: ignore[method-assign]
    assert same_faces(hard.inpaint(latents, audio_windows), easy.inpaint(latents, audio_windows))
    assert hard.latents(np.zeros((3, 256, 256, 3), np.uint8)).shape == (3, 8, 32, 32)
    assert hard.sizes == BatchSizes(2, 2, 2)


def test_other_errors_pass() -> None:
    """A fault of the card is not answered with smaller batches."""
    inpainter = tiny_nets.miniature()

    def broken(*_: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    inpainter._predict = broken  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="illegal memory access"):
        inpainter.inpaint(*given(1))
    assert inpainter.sizes == cpu_sizes()


def test_halved_batches_grow_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as so much more is free than when memory ran out as the larger batches take, and not before."""
    free = [1 * 10**9]
    monkeypatch.setattr(painting, "_free_bytes", lambda _: free[0])
    latents, audio_windows = given(4)
    inpainter = in_threads(1, tiny_nets.miniature, sizes=BatchSizes(8, 8, 8))
    decode = inpainter._decode
    inpainter._decode = Hungry(decode, 2)  # type: ignore[assignment]
    inpainter.inpaint(latents, audio_windows)
    assert inpainter.sizes == BatchSizes(8, 2, 8)
    inpainter._decode = decode
    inpainter.inpaint(latents, audio_windows)
    assert inpainter.sizes == BatchSizes(8, 2, 8)
    sizes = [inpainter.sizes]
    for more in (600_000_000, 3 * 10**9):
        free[0] = 10**9 + more
        inpainter.inpaint(latents, audio_windows)
        sizes.append(inpainter.sizes)
    assert [one.decode for one in sizes] == [2, 4, 8]
    assert inpainter.sizes == BatchSizes(8, 8, 8)


def test_compiled_code_belongs_to_its_shape(tmp_path: Path) -> None:
    """After the batches were halved, the smaller ones are compiled as well; larger ones are kept for later."""
    inpainter = in_threads(1, tiny_nets.miniature, sizes=BatchSizes(4, 2, 2))
    inpainter.compile(tmp_path, backend="eager")
    inpainter.wait_until_compiled(100)
    assert inpainter.stats()["compiled"] == {"unet": "ready", "decode": "ready"}
    inpainter.sizes = BatchSizes(2, 2, 2)
    assert inpainter.stats()["compiled"] == {"decode": "ready"}
    inpainter.inpaint(*given(2))
    inpainter.wait_until_compiled(100)
    assert inpainter.stats()["compiled"] == {"unet": "ready", "decode": "ready"}
    assert sorted(inpainter._fast) == [("decode", 2), ("unet", 2), ("unet", 4)]


def overflowing(inpainter: Inpainter, frames: set[int], latents: Floats) -> None:
    """Let the UNet overflow for the latents of some frames."""
    predict, marks = inpainter._predict, latents[sorted(frames)][:, 0, 0, 0]

    def overflow(given: Tensor, audio_windows: Tensor) -> Tensor:
        found = predict(given, audio_windows)
        for row, mark in enumerate(given[:, 0, 0, 0].tolist()):
            if any(abs(mark - other) < 1e-6 for other in marks):
                found[row] = torch.inf
        return found

    inpainter._predict = overflow  # type: ignore[assignment]


def test_faces_that_overflow_are_inpainted_in_a_wider_precision() -> None:
    """Those frames alone, whatever else is in their batch and however the job is cut; the result says how many."""
    latents, audio_windows = given(7)
    wide = tiny_nets.miniature(sizes=BatchSizes(1, 1, 1))
    opened: list[str] = []

    def widen() -> Inpainter:
        opened.append("wider")
        return wide

    narrow = tiny_nets.miniature(torch.bfloat16, widen=widen)
    wanted = narrow.inpaint(latents, audio_windows)
    assert opened == []
    overflowing(narrow, {1, 5}, latents)
    found = narrow.inpaint(latents, audio_windows)
    for frame in range(7):
        one = slice(frame, frame + 1)
        right = wide.inpaint(latents[one], audio_windows[one], first=frame) if frame in (1, 5) else wanted[one]
        assert np.array_equal(found[one], right)
    assert np.array_equal(narrow.inpaint(latents[4:], audio_windows[4:], first=4), found[4:])
    assert opened == ["wider"]
    assert narrow.stats()["overflows"] == 3


def test_an_overflow_without_a_wider_precision_fails() -> None:
    """Black blocks are never a result."""
    latents, audio_windows = given(2)
    inpainter = tiny_nets.miniature()
    overflowing(inpainter, {1}, latents)
    with pytest.raises(EngineError, match="no finite numbers for frame 1, in fp32") as told:
        inpainter.inpaint(latents, audio_windows)
    assert told.value.code == "weights_damaged"


def test_latents_that_overflow_are_encoded_in_a_wider_precision() -> None:
    """An avatar's frame that overflows in the encoder is encoded again, the others are kept."""
    crops = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    wide, narrow = tiny_nets.miniature(), tiny_nets.miniature(torch.bfloat16)
    wanted = narrow.latents(crops)
    narrow._widen, encode = lambda: wide, narrow._encode
    narrow._encode = lambda given: torch.where(  # type: ignore[assignment]
        (given == torch.from_numpy(crops[1])).all(), torch.inf, encode(given)
    )
    found = narrow.latents(crops)
    assert np.array_equal(found[[0, 2]], wanted[[0, 2]])
    assert np.array_equal(found[1:2], wide.latents(crops[1:2]))


def test_a_decoder_that_starves_takes_the_unet_with_it() -> None:
    """Where one face doesn't fit beside a UNet batch, that batch is made smaller and its frames begin again."""
    latents, audio_windows = given(5)
    hard, easy = (in_threads(1, tiny_nets.miniature, sizes=BatchSizes(size, 1, 1)) for size in (4, 1))
    decode, calls = hard._decode, []

    def starving(latent: Tensor) -> Tensor:
        calls.append(hard.sizes.unet)  # the batches are painted one by one: there is one thread
        if hard.sizes.unet > 1:
            raise torch.OutOfMemoryError
        return decode(latent)

    hard._decode = starving  # type: ignore[assignment]
    assert np.array_equal(hard.inpaint(latents, audio_windows), easy.inpaint(latents, audio_windows))
    assert calls == [4, 2, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("stage", ["_predict", "_decode", "_encode"])
def test_out_of_memory_at_one_is_told(stage: str) -> None:
    """The worker's edge makes `out_of_memory` of it, and a new worker begins afresh."""
    inpainter = tiny_nets.miniature(sizes=BatchSizes(2, 2, 2))
    table = inpainter._predict.table
    setattr(inpainter, stage, Hungry(getattr(inpainter, stage), 0))
    inpainter._predict.table = table
    with pytest.raises(torch.OutOfMemoryError):
        inpainter.latents(np.zeros((1, 256, 256, 3), np.uint8)) if stage == "_encode" else inpainter.inpaint(*given(1))


def opened(spoilt: set[torch.dtype], monkeypatch: pytest.MonkeyPatch) -> Inpainter:
    """An inpainter of weights that overflow in some precisions, on a device that would try all three."""
    tried = (torch.bfloat16, torch.float64, torch.float32)
    monkeypatch.setattr(painting, "candidate_dtypes", lambda *_, **__: tried)

    def load(dtype: torch.dtype) -> tuple[Any, Any]:
        unet, vae = tiny_nets.miniature_nets(dtype)
        decoder: Any = vae.decoder
        if dtype in spoilt:
            decoder.mid_block.resnets[0].conv1.weight[0, 0, 0, 0] = torch.inf
        return unet, vae

    return open_inpainter(load, CPU)


def test_weights_that_overflow_take_a_wider_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """One probe a load decides; the last precision is taken as it is."""
    assert opened(set(), monkeypatch).dtype == torch.bfloat16
    assert opened({torch.bfloat16}, monkeypatch).dtype == torch.float64
    assert opened({torch.bfloat16, torch.float64}, monkeypatch).dtype == torch.float32


def test_a_device_without_bf16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards before Ampere go from fp16 to fp32, at the probe and for a face."""
    monkeypatch.setattr(painting, "has_device_bf16", lambda _: False)
    assert opened(set(), monkeypatch).dtype == torch.float64
    assert opened({torch.float64}, monkeypatch).dtype == torch.float32


def test_this_cpu_takes_what_it_is_good_at() -> None:
    """bf16 where there are instructions for it, close to the float32 picture; float32 elsewhere."""
    loads: list[torch.dtype] = []

    def load(dtype: torch.dtype) -> tuple[Any, Any]:
        loads.append(dtype)
        return tiny_nets.unet(dtype), tiny_nets.vae(dtype)

    auto = open_inpainter(load, CPU)
    assert loads == [torch.bfloat16 if has_cpu_bf16() else torch.float32]
    assert auto.stats()["precision"] == ("bf16" if has_cpu_bf16() else "fp32")
    assert auto.stats()["batch"] == {"unet": 4, "decode": 1, "encode": 1}
    wanted = open_inpainter(load, CPU, "fp16", plain=True, batch_size=2)
    assert wanted.stats() == {
        "device": "cpu",
        "precision": "fp32",
        "way": "plain",
        "batch": {"unet": 2, "decode": 1, "encode": 1},
    }
    apart = auto.inpaint(*given(1, 64)).astype(int) - wanted.inpaint(*given(1, 64))
    assert np.abs(apart).mean() < 2
