"""Engines of tiny networks, run by ONNX Runtime on the processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from models.musetalk.engines import engine_files
from models.musetalk.engines.engine_files import (
    CPU,
    TENSORRT,
    build_engine,
    choose_providers,
    fetch_engine,
    find_missing_packages,
    make_engine_key,
    open_session,
    quantise,
)
from models.musetalk.engines.onnx_export import DecodeImage, export_network, list_stages
from models.musetalk.engines.stages import Verdict
from models.musetalk.inpainting.fused_weights import optimise
from models.musetalk.inpainting.modules import Decode, Predict, contiguous_layout, to_bgr
from tests.models.musetalk import tiny_nets

BATCH = 3
STAGES = ["other", "conv_in", "mid_block", "up_blocks.0", "up_blocks.1", "conv_out"]


def make_decode() -> Decode:
    """A decoder of two levels, with weights that are the same each time."""
    torch.manual_seed(0)
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    small: Any = {"block_out_channels": (4, 8), "norm_num_groups": 4, "layers_per_block": 1}
    vae = AutoencoderKL(down_block_types=down, up_block_types=up, **small).eval().requires_grad_(False)
    return Decode(optimise(vae), contiguous_layout)


def make_frames() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [{"latents": random.standard_normal((BATCH, 4, 4, 4)).astype(np.float32)} for _ in range(2)]


def paint(result: np.ndarray) -> Tensor:
    return to_bgr(torch.from_numpy(result))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Verdict]:
    """The folder of an engine that was built once, and what the gate said."""
    if find_missing_packages():
        pytest.skip("needs the packages of the extra engines")
    folder = tmp_path_factory.mktemp("engine")
    return folder, build_engine(folder, DecodeImage(make_decode()), make_frames(), paint)


def test_an_exported_network_is_the_network(engine: tuple[Path, Verdict]) -> None:
    """In float32, for one batch; its convolutions belong to the stages of the decoder."""
    session = open_session(engine[0] / "network.onnx", [(CPU, {})])
    assert session.get_inputs()[0].shape == [BATCH, 4, 4, 4]
    batch = make_frames()[0]
    wanted = make_decode().image(torch.from_numpy(batch["latents"]))
    assert torch.allclose(torch.from_numpy(session.run(None, batch)[0]), wanted, atol=1e-4)
    assert [*list_stages(engine[0] / "network.onnx")] == STAGES


def test_an_engine_has_passed_the_gate(engine: tuple[Path, Verdict]) -> None:
    """Its pictures are those of the verdict, and only the stages that are kept have QDQ nodes."""
    folder, verdict = engine
    assert verdict.kept
    assert verdict.together is not None
    assert verdict.together.within >= 0.99
    assert json.loads((folder / "verdict.json").read_text())["kept"] == [*verdict.kept]
    session, exact = (open_session(folder / f"{name}.onnx", [(CPU, {})]) for name in ("engine", "network"))
    pairs = [(paint(session.run(None, batch)[0]), paint(exact.run(None, batch)[0])) for batch in make_frames()]
    most = max(int((found.int() - wanted.int()).abs().max()) for found, wanted in pairs)
    assert most == verdict.together.most > 0
    quantised = (folder / "engine.onnx").read_bytes().count(b"DequantizeLinear")
    assert quantised > (folder / "network.onnx").read_bytes().count(b"DequantizeLinear") == 0


def test_ranges_are_those_of_the_frames(engine: tuple[Path, Verdict]) -> None:
    """Symmetric, of what the first convolution sees: the latents over their scale."""
    ranges = json.loads((engine[0] / "ranges.json").read_text())["data"]
    largest = {name: abs(float(one["highest"]["data"][0])) for name, one in ranges.items()}
    session = open_session(engine[0] / "network.onnx", [(CPU, {})])
    results = [session.run(None, batch)[0] for batch in make_frames()]
    assert largest["result"] == pytest.approx(max(float(np.abs(one).max()) for one in results), rel=1e-5)
    assert all(float(one["lowest"]["data"][0]) == -largest[name] for name, one in ranges.items())


def test_a_unet_is_exported_with_its_windows(tmp_path: Path) -> None:
    """Both inputs have the fixed batch, and the latent is the network's."""
    if find_missing_packages():
        pytest.skip("needs the packages of the extra engines")
    predict = Predict(optimise(tiny_nets.miniature_nets(torch.float32)[0]), contiguous_layout)
    given = {"latents": torch.randn(1, 8, 4, 4), "audio_windows": torch.randn(1, 50, 16)}
    export_network(predict, given, "latent", tmp_path / "unet.onnx")
    session = open_session(tmp_path / "unet.onnx", [(CPU, {})])
    assert [one.shape[0] for one in session.get_inputs()] == [1, 1]
    found = session.run(None, {name: value.numpy() for name, value in given.items()})[0]
    assert torch.allclose(torch.from_numpy(found), predict(*given.values()), atol=1e-4)
    assert {"down_blocks.0", "mid_block", "up_blocks.1"} <= {*list_stages(tmp_path / "unet.onnx")}


def test_an_engine_without_stages_is_the_network(engine: tuple[Path, Verdict], tmp_path: Path) -> None:
    """Where every stage fails, all stay as they were, to the bit."""
    network = engine[0] / "network.onnx"
    quantise(network, tmp_path / "none.onnx", [], engine[0] / "ranges.json")
    batch = make_frames()[0]
    found, wanted = (open_session(path, [(CPU, {})]).run(None, batch)[0] for path in (tmp_path / "none.onnx", network))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("capability", "available", "first"),
    [
        ((8, 9), [TENSORRT, CPU], TENSORRT),
        ((12, 0), [TENSORRT, CPU], TENSORRT),
        ((8, 6), [TENSORRT, CPU], CPU),
        ((9, 0), [CPU], CPU),
        (None, [TENSORRT, CPU], CPU),
    ],
)
def test_tensorrt_runs_on_cards_that_multiply_8_bits_faster(
    tmp_path: Path, capability: tuple[int, int] | None, available: list[str], first: str
) -> None:
    """From sm_89 on and where it is installed; what it builds is kept in the folder that is named."""
    providers = choose_providers(capability, available, tmp_path)
    assert (providers[0][0], providers[-1][0]) == (first, CPU)
    assert providers[0][1].get("trt_engine_cache_path", str(tmp_path)) == str(tmp_path)


def test_an_engine_is_kept_by_card_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built once; another card, version, network, avatar or batch asks for another one."""
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "engine.onnx").write_bytes(b"x")

    given: list[Any] = ["RTX 4090", (8, 9), "weights", "avatar", 8]

    def make_other(at: int, other: Any) -> str:
        changed = [*given]
        changed[at] = other
        return make_engine_key(changed[0], changed[1], changed[2], changed[3], changed[4])

    keys = [make_other(0, given[0])] * 2
    keys += [make_other(at, other) for at, other in enumerate(("L4", (9, 0), "", "", 4))]
    monkeypatch.setattr(engine_files, "version", lambda _: "99")
    keys.append(make_other(0, given[0]))
    folders = [fetch_engine(tmp_path, 1 << 30, key, build, lambda: None) for key in keys]
    assert len({*folders}) == len(built) == len(keys) - 1
    assert (folders[0] / "engine.onnx").read_bytes() == b"x"
