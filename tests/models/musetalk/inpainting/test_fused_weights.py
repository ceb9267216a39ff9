"""Ready files: the same network sooner, and never anything else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from models.checkpoints.states import State
from models.checkpoints.verdicts import Verdict
from models.musetalk import networks as networks_module
from models.musetalk.commands.convert import import_folder
from models.musetalk.commands.verify import verify_folder, verify_ready_files
from models.musetalk.inpainting import fused_weights
from models.musetalk.inpainting.fused_weights import load_optimised, optimise, ready_file_bytes
from models.musetalk.inpainting.fusion import FoldedUpsample, fold_time, fold_upsamplers
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.inpainting.precision import DTYPES, best_precision
from models.musetalk.networks import Networks, Setup
from models.musetalk.weights import checkpoint
from models.musetalk.weights.index import InstalledPart, find_part, get_part
from models.musetalk.weights.loader import load_part, open_weights
from models.types import EngineError
from tests.models.musetalk import tiny, tiny_nets

CPU = torch.device("cpu")
NAMES = ("unet-v15", "vae")
PRECISIONS = tuple(DTYPES)
FILES = [f"converted/{name}.{precision}.safetensors" for name in NAMES for precision in PRECISIONS]


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny weights, imported in place and ready in every precision; not to be changed."""
    root = tiny.lay_out(tmp_path_factory.mktemp("master") / "models")
    list(import_folder(root, root, replace=False, precisions=PRECISIONS))
    return root


@pytest.fixture
def root(master: Path, tmp_path: Path) -> Path:
    """The same, to be changed; copied with the times of its files."""
    return Path(shutil.copytree(master, tmp_path / "models"))


def found(root: Path, name: str) -> InstalledPart:
    part = find_part(get_part(name), root)
    assert part is not None
    return part


def unready(root: Path) -> Path:
    """Without the ready files."""
    for file in FILES:
        (root / file).unlink()
    return root


def same(one: nn.Module, other: nn.Module) -> bool:
    """The same tensors, bit for bit, lying in memory in the same order."""
    a, b = one.state_dict(), other.state_dict()
    alike = [torch.equal(a[n], b[n]) and (a[n].dtype, a[n].stride()) == (b[n].dtype, b[n].stride()) for n in a]
    return a.keys() == b.keys() and all(alike)


def inpainter(root: Path, precision: Any, *, plain: bool = False) -> Inpainter:
    """As a worker opens it."""
    return Networks(Setup(str(root), "v15", precision, None, plain, None), CPU).inpainter


def verdicts(root: Path, *, hashes: bool = False) -> dict[str, Verdict]:
    return {verdict.file: verdict for verdict in verify_folder(root, hashes=hashes)}


def of_unet(root: Path) -> Verdict:
    told = verify_ready_files(found(root, "unet-v15"), hashes=False, tick=lambda _: None)
    return next(verdict for verdict in told if verdict.file == "converted/unet-v15.bf16.safetensors")


def imported(root: Path, *precisions: str, replace: bool = False) -> list[str]:
    return list(import_folder(root, root, replace=replace, precisions=precisions))


def test_avatars_belong_to_the_weights_that_were_opened(root: Path) -> None:
    """A worker keeps its networks when the files are replaced: what it prepares isn't taken for the new ones' work."""
    setup = Setup(str(root), "v15", "fp32", None, plain=False, kernels=None)
    worker = Networks(setup, CPU)
    before, weights = worker.vision_fingerprint, root / "converted" / "vae.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, root / "other.safetensors")
    (root / "other.safetensors").replace(weights)
    assert worker.vision_fingerprint == before
    assert Networks(setup, CPU).vision_fingerprint != before


# the same, sooner ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_worker_paints_the_same_bytes(root: Path, precision: str) -> None:
    """Opened from ready files or made from the exact ones: latents and faces are equal to the last bit."""
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (1, 256, 256, 3), np.uint8)
    audio_windows = random.normal(size=(2, 50, 64)).astype(np.float32)
    inpainters = inpainter(root, precision), inpainter(unready(root), precision)
    (latents, faces), made = (painted(p, crops, audio_windows) for p in inpainters)
    assert np.array_equal(latents, made[0])
    assert np.array_equal(faces, made[1])
    assert not np.array_equal(faces[0], faces[1])
    assert [p.stats()["precision"] for p in inpainters] == [precision, precision]
    assert all(same(one, other) for one, other in zip(*(inner(p) for p in inpainters), strict=True))


def painted(inpainter: Inpainter, crops: Any, audio_windows: Any) -> tuple[Any, Any]:
    latents = inpainter.latents(crops)
    return latents, inpainter.inpaint(np.repeat(latents, len(audio_windows), 0), audio_windows)


def inner(inpainter: Inpainter) -> tuple[nn.Module, nn.Module]:
    return inpainter._predict.unet, inpainter._encode.vae


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_precision_has_the_same_tensors(master: Path, name: str, precision: str) -> None:
    """Also fp16, which only a card runs; nothing is left without memory, in training or wanting gradients."""
    dtype, exact = DTYPES[precision], found(master, name)
    net = fused_weights.open_ready_file(exact, CPU, dtype)
    assert same(net, optimise(load_part(exact, CPU, dtype)))
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert not any(p.is_meta or p.requires_grad for p in net.parameters())
    assert not any(module.training for module in net.modules())


def mapped(files: list[Path]) -> list[tuple[int, int]]:
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    names = {str(file) for file in files}
    spans = [line[0].split("-") for line in lines if line[-1] in names]
    return [(int(start, 16), int(end, 16)) for start, end in spans]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_nothing_is_computed_or_copied(root: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's tensors lie where the ready files are mapped; in 16 bits the exact ones aren't even opened."""
    files = [root / f"converted/{name}.{precision}.safetensors" for name in NAMES]
    exact = [root / f"converted/{name}.safetensors" for name in NAMES]
    read: list[Path] = []
    plain = checkpoint.read_state

    def read_state(path: Path, name: str) -> State:
        read.append(path)
        return plain(path, name)

    monkeypatch.setattr(fused_weights, "read_state", read_state)
    nets = inner(inpainter(root, precision))
    spans = mapped(files if precision == "bf16" else files + exact)
    tensors = [tensor for net in nets for tensor in net.state_dict().values()]
    assert all(any(start <= tensor.data_ptr() < end for start, end in spans) for tensor in tensors)
    assert set(read) == set(files if precision == "bf16" else files + exact)


def test_in_float32_only_what_is_folded_is_kept(master: Path) -> None:
    """The other tensors are those of the exact file, and aren't there twice."""
    kept = load_file(master / "converted" / "unet-v15.fp32.safetensors")
    net = optimise(load_part(found(master, "unet-v15"), CPU, torch.float32))
    folded = [name for name, module in net.named_modules() if isinstance(module, FoldedUpsample)]
    assert {name for name in kept if not name.endswith("conv1.bias")} == {f"{name}.conv.weight" for name in folded}
    assert len(kept) == len(folded) + 22


def test_a_finished_network_is_left_alone() -> None:
    """Neither folded twice nor copied: so the inpainter takes what a ready file gave."""
    for dtype in (torch.float32, torch.bfloat16):
        unet, vae = optimise(tiny_nets.unet(dtype)), optimise(tiny_nets.vae(dtype))
        before = [tensor.data_ptr() for net in (unet, vae) for tensor in net.parameters()]
        assert optimise(unet) is fold_time(fold_upsamplers(unet)) is unet
        assert optimise(vae) is vae
        assert before == [tensor.data_ptr() for net in (unet, vae) for tensor in net.parameters()]


def test_the_reference_way_knows_nothing_of_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs the exact weights as they are."""
    monkeypatch.setattr(networks_module, "load_optimised", None)
    unet, vae = inner(inpainter(root, "fp32", plain=True))
    assert not any(isinstance(module, FoldedUpsample) for net in (unet, vae) for module in net.modules())
    assert same(unet, load_part(found(root, "unet-v15"), CPU, torch.float32))


def test_prepared_avatars_stay_valid(root: Path) -> None:
    """The fingerprint of the weights is that of the exact files, with ready ones or without."""
    before = open_weights(root, "v15", CPU, torch.float32).fingerprint
    assert open_weights(unready(root), "v15", CPU, torch.float32).fingerprint == before


# not to be trusted ---------------------------------------------------------------------------------------------------


def cut(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def web_page(file: Path, _: Path) -> None:
    file.write_bytes(b"<!DOCTYPE html><html><body>Too many requests</body></html>")


def other_precision(file: Path, _: Path) -> None:
    shutil.copy(file.with_name("unet-v15.fp16.safetensors"), file)


def rewritten(change: Callable[[dict[str, torch.Tensor], dict[str, str]], Any]) -> Callable[[Path, Path], None]:
    def write(file: Path, _: Path) -> None:
        with safe_open(file, framework="pt") as opened:
            about = dict(opened.metadata())
        state = load_file(file)
        change(state, about)
        save_file(state, file, metadata=about)

    return write


def other_weights(_: Path, exact: Path) -> None:
    state = load_file(exact)
    save_file({name: tensor + 1 for name, tensor in state.items()}, exact)


def other_config(_: Path, exact: Path) -> None:
    config = exact.with_suffix(".json")
    config.write_text(config.read_text() + " ")


def touched(_: Path, exact: Path) -> None:
    os.utime(exact, ns=(1, 1))


BELONGS = "belongs to other weights"
SPOILT: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "cut off": (cut, "is cut off"),
    "a web page": (web_page, "web page"),
    "fp16 under the name of bf16": (other_precision, BELONGS),
    "of an older release": (rewritten(lambda _, about: about.update(ready="0")), BELONGS),
    "without a word of its origin": (rewritten(lambda _, about: about.clear()), BELONGS),
    "a shape": (rewritten(lambda state, _: state.update({"conv_in.bias": state["conv_in.bias"][:3]})), "another shape"),
    "a name": (rewritten(lambda state, _: state.update(lora=torch.zeros(1))), "lora"),
    "the weights changed": (other_weights, BELONGS),
    "the config changed": (other_config, BELONGS),
    "the weights were touched": (touched, BELONGS),
}


def spoilt(root: Path, how: str) -> tuple[InstalledPart, str]:
    """The UNet with a bad ready file in bf16, and what is said of that."""
    spoil, said = SPOILT[how]
    exact = found(root, "unet-v15")
    spoil(root / "converted" / "unet-v15.bf16.safetensors", exact.weights)
    return exact, said


@pytest.mark.parametrize("how", SPOILT)
def test_a_bad_ready_file_is_passed_over(root: Path, how: str) -> None:
    """It is never used: the network is made from the exact file as it is now."""
    exact, said = spoilt(root, how)
    with pytest.raises(EngineError, match=said) as caught:
        fused_weights.open_ready_file(exact, CPU, torch.bfloat16)
    assert caught.value.code == "weights_damaged"
    assert "converted/unet-v15.bf16.safetensors" in caught.value.message
    assert same(load_optimised(exact, CPU, torch.bfloat16), optimise(load_part(exact, CPU, torch.bfloat16)))


@pytest.mark.parametrize("how", ["cut off", "the weights changed", "the weights were touched"])
def test_a_bad_ready_file_is_mended(root: Path, how: str) -> None:
    """verify names it, with the command that makes it anew."""
    exact, said = spoilt(root, how)
    assert (of_unet(root).verdict, said in of_unet(root).found) == ("bad", True)
    assert "musedrop models import" in of_unet(root).advice
    imported(root, "bf16")
    assert of_unet(root).verdict == "ok"
    assert same(
        fused_weights.open_ready_file(exact, CPU, torch.bfloat16), optimise(load_part(exact, CPU, torch.bfloat16))
    )


def test_ready_files_of_a_folder_that_changed_its_form(root: Path) -> None:
    """Once a pickle is newer than its conversion, the pickle counts, and what was ready of the other doesn't."""
    path = root / "musetalkV15" / "unet.pth"
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, path)
    now = found(root, "unet-v15")
    assert now.variant.form == "pickle"
    assert same(load_optimised(now, CPU, torch.bfloat16), optimise(load_part(now, CPU, torch.bfloat16)))


def test_a_folder_that_nobody_imported(tmp_path: Path) -> None:
    """The published files are opened and finished, as they always were, and verify asks for nothing more."""
    root = tiny.lay_out(tmp_path / "models")
    net = load_optimised(found(root, "vae"), CPU, torch.bfloat16)
    assert same(net, optimise(load_part(found(root, "vae"), CPU, torch.bfloat16)))
    assert not any("ready" in v.found or "slower" in v.found for v in verify_folder(root, hashes=False))


# import and verify ---------------------------------------------------------------------------------------------------


def test_import_makes_ready_once(root: Path) -> None:
    """A second import leaves what is there, `--replace` makes it anew, and a new source all that comes from it."""
    times = {file: (root / file).stat().st_mtime_ns for file in FILES}
    lines = imported(root, "bf16")
    assert lines[-2:] == ["unet-v15 in bf16: already there", "vae in bf16: already there"]
    assert times == {file: (root / file).stat().st_mtime_ns for file in FILES}
    assert (
        "unet-v15 in bf16: converted/unet-v15.bf16.safetensors: 636 tensors" in imported(root, "bf16", replace=True)[-2]
    )
    path = root / "musetalkV15" / "unet.pth"
    torch.save({name: tensor + 1 for name, tensor in torch.load(path, weights_only=True).items()}, path)
    lines = imported(root, "bf16")
    assert ["already" in line for line in lines[-2:]] == [False, True]
    assert {path.stat().st_mode & 0o777 for path in (root / "converted").glob("*.safetensors")} == {0o644}


def test_space_for_them_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a ready file will take is known from the config; where only the conversions fit, nothing is begun."""
    for name in NAMES:
        for precision in PRECISIONS:
            written = (root / f"converted/{name}.{precision}.safetensors").stat().st_size
            assert (
                abs(written - ready_file_bytes(found(root, name), DTYPES[precision])) < 150_000
            )  # names, and biases in fp32
    needed = sum(ready_file_bytes(found(root, name), torch.bfloat16) for name in NAMES)
    for name in NAMES:
        (root / f"converted/{name}.bf16.safetensors").unlink()
    disk = shutil._ntuple_diskusage
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(0, 0, needed - 1))
    with pytest.raises(EngineError, match="disk_full"):
        imported(root, "bf16")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(0, 0, needed))
    assert "636 tensors" in imported(root, "bf16")[-2]


def bare(root: Path, target: Path) -> Path:
    """Only what an import wrote, copied by something that doesn't keep the times of files."""
    shutil.copytree(root / "converted", target / "converted", copy_function=shutil.copyfile)
    for number, path in enumerate((target / "converted").iterdir()):
        os.utime(path, ns=(number, number))
    return target


def test_a_copy_without_its_times_is_recognised(root: Path, tmp_path: Path) -> None:
    """Ready files aren't trusted there, until an import has read the weights again and found them the same."""
    copy = bare(root, tmp_path / "copy")
    assert BELONGS in verdicts(copy)["converted/vae.bf16.safetensors"].found
    assert "vae: converted/vae.safetensors recognised" in imported(copy, "bf16")
    assert imported(copy, "bf16")[-1] == "vae in bf16: already there"
    assert verdicts(copy, hashes=True)["converted/vae.bf16.safetensors"].verdict == "ok"


def test_a_copy_that_is_not_the_same_is_not_recognised(root: Path, tmp_path: Path) -> None:
    """An import doesn't enter a damaged conversion into the manifest as if it were the right one."""
    copy = bare(root, tmp_path / "copy")
    path = copy / "converted" / "vae.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"vae\.safetensors has changed since it was converted"):
        imported(copy, "bf16")


def test_verify_knows_ready_files(root: Path) -> None:
    """A missing one is a note with its command, a flipped bit is found by its hash, the others are well."""
    fine = verdicts(root, hashes=True)
    assert {fine[file].verdict for file in FILES} == {"ok"}
    assert fine[FILES[0]].found == "the same in fp32, ready to run; SHA-256 as recorded"
    path = root / "converted" / "vae.fp16.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    missing = f"converted/unet-v15.{best_precision()}.safetensors"
    (root / missing).unlink()
    told = verdicts(root, hashes=True)
    assert (told[missing].verdict, told[missing].found[:8]) == ("note", "not here")
    assert told[missing].advice == f"`musedrop models import --precision {best_precision()}`"
    bad = [file for file, verdict in told.items() if verdict.verdict == "bad"]
    assert bad == ["converted/vae.fp16.safetensors"]
    assert "SHA-256 is not the one recorded" in told[bad[0]].found


def test_a_disk_that_writes_something_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be read back as it was made never appears, and the old file stays."""
    file = root / "converted" / "vae.bf16.safetensors"
    before = file.read_bytes()
    plain = fused_weights.to_channels_last
    monkeypatch.setattr(fused_weights, "to_channels_last", lambda tensor, dtype: torch.zeros_like(plain(tensor, dtype)))
    with pytest.raises(EngineError, match="was not written as it should be"):
        imported(root, "bf16", replace=True)
    assert file.read_bytes() == before
    assert not list((root / "converted").glob(".*"))
