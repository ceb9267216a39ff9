"""Weights as people have them: opened in every form, refused when they are not what they should be."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.atomic import hash_file
from models.musetalk.commands.convert import import_folder, plan_import
from models.musetalk.commands.verify import verify_folder
from models.musetalk.weights import architectures as networks
from models.musetalk.weights.checkpoint import named_globals, read_state
from models.musetalk.weights.index import InstalledPart, find_part, get_part
from models.musetalk.weights.loader import Weights, file_fingerprint, load_part, open_weights
from models.musetalk.weights.manifest import Entry, hashed_stamp, sample_hash, write_entry
from models.types import EngineError
from tests.models.musetalk import tiny
from tests.models.musetalk.recipe import DATA

CPU = torch.device("cpu")
NAMES = ("unet-v15", "vae", "whisper", "pose", "bisenet", "s3fd")


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder with tiny weights; not to be changed."""
    return tiny.lay_out(tmp_path_factory.mktemp("master") / "models")


@pytest.fixture
def root(master: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(master, tmp_path / "models"))


def opened(root: Path, dtype: torch.dtype = torch.float32) -> Weights:
    return open_weights(root, "v15", CPU, dtype)


def found(root: Path, name: str) -> InstalledPart:
    part = find_part(get_part(name), root)
    assert part is not None
    return part


def state_of(net: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = net.state_dict()
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def nets(weights: Weights) -> list[nn.Module]:
    pose = weights.pose
    assert isinstance(pose, nn.Module)
    return [weights.unet, weights.vae, weights.whisper, pose, weights.bisenet, weights.s3fd]


# opening -------------------------------------------------------------------------------------------------------------


def test_every_network_is_opened_and_ready(master: Path) -> None:
    """No tensor is left without memory, none wants gradients, all are in eval mode, and each is loaded only once."""
    weights = opened(master)
    for net in nets(weights):
        assert not net.training
        assert not any(tensor.is_meta or tensor.requires_grad for tensor in [*net.parameters(), *net.buffers()])
    assert weights.unet is weights.unet
    assert weights.feature_extractor.feature_size == 80


def test_the_tensors_are_those_of_the_file(master: Path) -> None:
    """UNet and VAE by their own names, Whisper's encoder without its prefix."""
    weights = opened(master)
    raw = torch.load(master / "musetalkV15" / "unet.pth", weights_only=True)
    assert same(state_of(weights.unet), raw)
    heard = torch.load(master / "whisper" / "pytorch_model.bin", weights_only=True)
    state = state_of(weights.whisper)
    assert same(state, {name: heard[f"model.encoder.{name}"] for name in state})
    assert len(state) < len(heard)


def test_on_the_cpu_nothing_is_copied(master: Path) -> None:
    """In float32 each tensor lies where its file is mapped, instead of in memory of its own."""
    net = load_part(found(master, "vae"), CPU, torch.float32)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    name = str(master / "sd-vae" / "diffusion_pytorch_model.safetensors")
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[-1] == name]
    assert all(any(a <= tensor.data_ptr() < b for a, b in ranges) for tensor in net.state_dict().values())


def test_precision_is_asked_for(master: Path) -> None:
    """UNet, VAE and Whisper in bfloat16, the face networks stay in float32; counters stay whole numbers."""
    weights = opened(master, torch.bfloat16)
    assert {p.dtype for net in nets(weights)[:3] for p in net.parameters()} == {torch.bfloat16}
    assert {p.dtype for net in nets(weights)[3:] for p in net.parameters()} == {torch.float32}
    assert weights.bisenet.state_dict()["cp.resnet.bn1.num_batches_tracked"].dtype == torch.int64


def test_old_names_of_the_vae(master: Path, root: Path) -> None:
    """The published VAE calls its attention query, key, value, proj_attn: it gives the same network."""
    modern = state_of(opened(master).vae)
    (root / "sd-vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.copy(DATA / "sd-vae-legacy.bin", root / "sd-vae" / "diffusion_pytorch_model.bin")
    names = torch.load(DATA / "sd-vae-legacy.bin", weights_only=True).keys()
    assert any(".query." in name for name in names)
    assert same(state_of(opened(root).vae), modern)


def test_the_oldest_shapes_of_the_vae() -> None:
    """Before they were linear layers those four were 1x1 convolutions; other convolutions are left alone."""
    old = {
        "encoder.mid_block.attentions.0.query.weight": torch.rand(4, 4, 1, 1),
        "conv_in.weight": torch.rand(4, 3, 1, 1),
    }
    new = networks.rename_keys("vae", old)
    assert new["encoder.mid_block.attentions.0.to_q.weight"].shape == (4, 4)
    assert new["conv_in.weight"].shape == (4, 3, 1, 1)


def test_checkpoints_of_torch_before_1_6(root: Path) -> None:
    """The older format of torch.save can't be mapped and is read all the same."""
    path = root / "s3fd" / "s3fd-619a316812.pth"
    state = torch.load(path, weights_only=True)
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert same(state_of(opened(root).s3fd), state)


def test_counters_may_be_missing(root: Path) -> None:
    """`num_batches_tracked` came with torch 1.0 and is of no use here: without it a file is complete."""
    path = root / "face-parse-bisent" / "79999_iter.pth"
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
    assert same(state_of(opened(root).bisenet), state)


class HistoryBuffer:
    """Stands for mmengine's class of that name, which is not installed here."""

    def __init__(self) -> None:
        self._log_history = np.arange(3.0)


def test_what_a_training_run_left_beside_its_tensors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DWPose's file holds numpy arrays and objects of mmengine: they become nothing, and its tensors are read."""
    path = root / "dwpose" / "dw-ll_ucoco_384.pth"
    state = torch.load(path, weights_only=True)["state_dict"]
    monkeypatch.setattr(HistoryBuffer, "__module__", "mmengine.logging.history_buffer")
    module = type(os)("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
            patched.setitem(__import__("sys").modules, name, module)
        meta = {"sigmas": np.ones(133, np.float32), "loss": np.float64(0.5), "log": HistoryBuffer()}
        optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}}
        torch.save({"state_dict": state, "meta": meta, "optimizer": optimizer}, path)
    assert {"mmengine.logging.history_buffer.HistoryBuffer"} < set(named_globals(path))
    assert same(state_of(opened(root).pose), state)


def test_dwpose_as_onnx_is_handed_on_as_a_file(root: Path) -> None:
    """Where there is only the ONNX file, that is what one gets."""
    (root / "dwpose" / "dw-ll_ucoco_384.pth").unlink()
    (root / "dwpose" / "dw-ll_ucoco_384.onnx").write_bytes(b"onnx")
    assert opened(root).pose == root / "dwpose" / "dw-ll_ucoco_384.onnx"


def test_missing_files_are_named_with_the_command(root: Path) -> None:
    """Before anything is loaded, and also when a file disappears later."""
    with pytest.raises(EngineError, match=r"musetalk/pytorch_model\.bin") as caught:
        open_weights(root, "v1", CPU, torch.float32)
    assert caught.value.code == "weights_missing"
    assert "musedrop models fetch --version v1" in caught.value.hint
    weights = opened(root)
    (root / "whisper" / "config.json").unlink()
    with pytest.raises(EngineError, match=r"whisper/config\.json"):
        _ = weights.whisper


def test_a_recorded_hash_is_taken_from_either_manifest(root: Path) -> None:
    """What was hashed when it was downloaded or converted is not read again."""
    list(import_folder(root, root, replace=False))
    write_entry(root, "musetalkV15/unet.pth", Entry(hashed_stamp(root / "musetalkV15" / "unet.pth")))
    for name in ("musetalkV15/unet.pth", "converted/unet-v15.safetensors"):
        assert file_fingerprint(root, name) == hash_file(root / name)
    assert file_fingerprint(root, "sd-vae/config.json") == sample_hash(root / "sd-vae" / "config.json")


def test_the_fingerprint_changes_with_each_file(root: Path) -> None:
    """Other weights or another config, another fingerprint; the same files, the same one; parts can be asked alone."""
    prints = {opened(root).fingerprint}
    assert prints == {opened(root).fingerprint}
    of_faces = opened(root).fingerprint_of("pose", "s3fd")
    for file in ("musetalkV15/unet.pth", "sd-vae/config.json", "whisper/preprocessor_config.json"):
        (root / file).write_bytes((root / file).read_bytes() + b" ")
        prints.add(opened(root).fingerprint)
    assert len(prints) == 4
    assert opened(root).fingerprint_of("pose", "s3fd") == of_faces


# bad files -----------------------------------------------------------------------------------------------------------


@dataclass
class Attack:
    """Would create a file when it is unpickled."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def zipped(value: Any, path: Path) -> None:
    torch.save(value, path)


def older(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def bare(protocol: int) -> Callable[[Any, Path], None]:
    return lambda value, path: path.write_bytes(pickle.dumps(value, protocol)) and None


@pytest.mark.parametrize("save", [zipped, older, bare(2), bare(4), bare(0)], ids=["zip", "legacy", "p2", "p4", "p0"])
@pytest.mark.parametrize("inner", [False, True])
def test_a_pickle_with_code_is_refused(root: Path, tmp_path: Path, save: Any, inner: bool) -> None:
    """Whatever its format: the code doesn't run, and the file, what it wanted to run, and the cure are named."""
    mark = tmp_path / "pwned"
    value: Any = Attack(mark)
    path = root / "musetalkV15" / "unet.pth"
    save({"weight": value} if inner else value, path)
    with pytest.raises(EngineError) as caught:
        _ = opened(root).unet
    assert not mark.exists()
    assert caught.value.code == "weights_unsafe"
    assert "musetalkV15/unet.pth" in caught.value.message
    assert "system" in caught.value.message
    assert "musedrop models fetch --replace musetalkV15/unet.pth" in caught.value.hint
    pickle.loads(pickle.dumps(value))  # noqa: S301  (the attack is a real one)
    assert mark.exists()


def test_code_behind_a_familiar_name_is_refused(root: Path, tmp_path: Path) -> None:
    """An object of a training framework becomes nothing at all, also when its name is that of a dangerous function."""
    path = root / "dwpose" / "dw-ll_ucoco_384.pth"
    state = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "meta": Attack(tmp_path / "pwned")}, path)
    content = path.read_bytes()
    assert b"posix\nsystem" in content
    with pytest.raises(EngineError, match=r"posix\.system"):
        _ = opened(root).pose
    assert not (tmp_path / "pwned").exists()


HTML = b"<!DOCTYPE html><html><body>Too many requests</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:7ebf\nsize 3400074924\n"


@pytest.mark.parametrize("file", ["musetalkV15/unet.pth", "sd-vae/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (HTML, "web page"),
        (LFS, "Git LFS"),
        (bytes(5000), "is no "),
        (b"PK\x03\x04" + bytes(500), "cut off|is no "),
        (np.random.default_rng(3).bytes(5000), "is no "),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "cut off|is no "),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "is no "),
        (b"\x05\x00\x00\x00\x00\x00\x00\x00[1,2]", "is no "),
    ],
)
def test_foreign_files_are_named(root: Path, file: str, content: bytes, said: str) -> None:
    """An empty file, a web page, a pointer, zeros, noise: said to be that, with the command that mends it."""
    (root / file).write_bytes(content)
    with pytest.raises(EngineError, match=said) as caught:
        _ = opened(root).unet, opened(root).vae
    assert caught.value.code == "weights_damaged"
    assert file in caught.value.message
    assert "musedrop models fetch" in caught.value.hint


@pytest.mark.parametrize("kept", [0.2, 0.7, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_named(root: Path, form: str, kept: float) -> None:
    """A download that stopped anywhere is recognised before its tensors are used."""
    path = root / "musetalkV15" / ("unet.safetensors" if form == "safetensors" else "unet.pth")
    state = torch.load(root / "musetalkV15" / "unet.pth", weights_only=True)
    {"zip": zipped, "legacy": older, "safetensors": save_file}[form](state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(EngineError, match="is cut off") as caught:
        _ = opened(root).unet
    assert caught.value.code == "weights_damaged"
    assert path.name in caught.value.message


def test_a_zip_that_is_no_checkpoint(root: Path) -> None:
    """A document is a zip too."""
    with zipfile.ZipFile(root / "musetalkV15" / "unet.pth", "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(EngineError, match="is no torch checkpoint"):
        _ = opened(root).unet


@pytest.mark.parametrize("value", [torch.ones(3), [1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_a_checkpoint_without_named_tensors(root: Path, value: Any) -> None:
    """torch.save can store anything; here only names with tensors are of use."""
    torch.save(value, root / "s3fd" / "s3fd-619a316812.pth")
    with pytest.raises(EngineError, match="holds") as caught:
        _ = opened(root).s3fd
    assert caught.value.code == "weights_damaged"


def changed_state(root: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    path = root / "musetalkV15" / "unet.pth"
    state = dict(torch.load(path, weights_only=True))
    change(state)
    torch.save(state, path)
    with pytest.raises(EngineError) as caught:
        _ = opened(root).unet
    assert caught.value.code == "weights_damaged"
    return caught.value.message


def test_weights_of_another_network(root: Path) -> None:
    """A missing name, a wrong shape and a name too many are told by name."""
    assert "lacks 1 of 684 tensors (conv_in.bias first)" in changed_state(root, lambda state: state.pop("conv_in.bias"))
    shape = {"conv_in.bias": torch.zeros(17)}
    assert "conv_in.bias is (17,) and should be (16,)" in changed_state(root, lambda state: state.update(shape))
    right = {"conv_in.bias": torch.zeros(16), "lora.up": torch.zeros(1)}
    assert "lora.up" in changed_state(root, lambda state: state.update(right))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"block_out_channels": [16]}', '{"surprise": 1}', '{"sample_size": {}}']
)
@pytest.mark.parametrize("file", ["musetalkV15/musetalk.json", "sd-vae/config.json"])
def test_configs_that_describe_nothing(root: Path, file: str, text: str) -> None:
    """A config that isn't JSON, or of which no fitting network can be built, is named; nothing else is raised."""
    (root / file).write_text(text)
    with pytest.raises(EngineError) as caught:
        _ = opened(root).unet, opened(root).vae
    assert caught.value.code == "weights_damaged"


# verify --------------------------------------------------------------------------------------------------------------


def test_verify_of_a_good_folder(master: Path) -> None:
    """Each file that is used gets a line, none is bad, and that v1 is not here is only noted."""
    verdicts = list(verify_folder(master, hashes=True))
    assert {verdict.verdict for verdict in verdicts} == {"ok", "note"}
    assert {"musetalkV15/unet.pth", "sd-vae/config.json", "s3fd/s3fd-619a316812.pth"} < {v.file for v in verdicts}
    assert any("684 tensors of the right shapes" in verdict.found for verdict in verdicts)
    asked = list(verify_folder(master, ("v1",), hashes=False))
    assert [v.file for v in asked if v.verdict == "bad"] == ["musetalk/pytorch_model.bin", "musetalk/musetalk.json"]


def test_verify_names_every_bad_file(root: Path) -> None:
    """One run finds all that is wrong, whatever kind it is, and goes on after each."""
    unet = root / "musetalkV15" / "unet.pth"
    unet.write_bytes(unet.read_bytes()[:-1000])
    (root / "whisper" / "pytorch_model.bin").write_bytes(HTML)
    (root / "face-parse-bisent" / "79999_iter.pth").unlink()
    torch.save({"conv1_1.weight": torch.zeros(8, 3, 3, 3)}, root / "s3fd" / "s3fd-619a316812.pth")
    bad = {verdict.file: verdict for verdict in verify_folder(root, hashes=False) if verdict.verdict == "bad"}
    assert set(bad) == {
        "musetalkV15/unet.pth",
        "whisper/pytorch_model.bin",
        "face-parse-bisent/79999_iter.pth",
        "s3fd/s3fd-619a316812.pth",
    }
    assert all("musedrop models fetch" in verdict.advice for verdict in bad.values())
    assert "missing" in bad["face-parse-bisent/79999_iter.pth"].found
    assert "lacks 64 of 65" in bad["s3fd/s3fd-619a316812.pth"].found


def test_verify_builds_no_network_in_memory(master: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the names and shapes are compared with has no tensor with memory behind it."""
    built: list[nn.Module] = []
    plain = networks.build_empty
    monkeypatch.setattr(
        "models.musetalk.weights.loader.build_empty", lambda *given: built.append(plain(*given)) or built[-1]
    )
    assert list(verify_folder(master, hashes=False))
    assert len(built) == 6
    assert all(tensor.is_meta for net in built for tensor in [*net.parameters(), *net.buffers()])


def test_verify_finds_one_flipped_bit(root: Path) -> None:
    """Names and shapes are right, the recorded checksum is not."""
    list(import_folder(root, root, replace=False))
    path = root / "converted" / "vae.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    assert not [v for v in verify_folder(root, hashes=False) if v.verdict == "bad"]
    bad = [v for v in verify_folder(root, hashes=True) if v.verdict == "bad"]
    assert [v.file for v in bad] == ["converted/vae.safetensors"]
    assert "musedrop models import --replace" in bad[0].advice


def test_verify_of_an_onnx_file_that_is_none(root: Path) -> None:
    """The ONNX file is opened, not only seen."""
    (root / "dwpose" / "dw-ll_ucoco_384.onnx").write_bytes(HTML)
    bad = [verdict for verdict in verify_folder(root, hashes=False) if verdict.verdict == "bad"]
    assert [verdict.file for verdict in bad] == ["dwpose/dw-ll_ucoco_384.onnx"]
    assert "is no ONNX file" in bad[0].found


# import --------------------------------------------------------------------------------------------------------------


def test_import_makes_a_folder_without_pickles(master: Path, tmp_path: Path) -> None:
    """What arrives is complete, holds the same tensors, loads, and has the hash of each file in its manifest."""
    target = tmp_path / "new"
    lines = list(import_folder(master, target, replace=False))
    assert len(lines) == 6
    assert {path.suffix for path in target.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    assert {path.stat().st_mode & 0o777 for path in (target / "converted").glob("*.safetensors")} == {0o644}
    for before, after in zip(nets(opened(master)), nets(opened(target)), strict=True):
        assert same(state_of(before), state_of(after))
    manifest = json.loads((target / "converted" / "manifest.json").read_text())
    assert manifest["files"]["unet-v15.safetensors"]["source"]["path"] == str(master / "musetalkV15" / "unet.pth")
    assert {verdict.verdict for verdict in verify_folder(target, hashes=True)} == {"ok", "note"}
    whisper = load_file(target / "converted" / "whisper.safetensors")
    assert not any(name.startswith("model.") for name in whisper)


def test_import_in_place_and_again(root: Path) -> None:
    """The folder's own pickles are converted and kept; a second import does nothing; a changed source is done anew."""
    list(import_folder(root, root, replace=False))
    assert all(found(root, name).variant.form == "converted" for name in NAMES)
    assert (root / "musetalkV15" / "unet.pth").exists()
    assert all(step.is_done for step in plan_import(root, root, replace=False))
    assert not any(step.is_done for step in plan_import(root, root, replace=True))
    path = root / "s3fd" / "s3fd-619a316812.pth"
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, path)
    assert [step.found.part.name for step in plan_import(root, root, replace=False) if not step.is_done] == ["s3fd"]
    list(import_folder(root, root, replace=False))
    assert torch.equal(state_of(opened(root).s3fd)["conv1_1.bias"], state["conv1_1.bias"] + 1)


def test_import_refuses_bad_sources_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """A pickle with code, or an empty folder: an error that says so, and no file that looks converted."""
    zipped(Attack(tmp_path / "pwned"), root / "musetalkV15" / "unet.pth")
    with pytest.raises(EngineError, match="weights_unsafe"):
        list(import_folder(root, tmp_path / "new", replace=False))
    assert not list((tmp_path / "new").rglob("*.safetensors"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineError, match="holds no weights"):
        list(import_folder(tmp_path / "empty", tmp_path / "new", replace=False))


def test_import_takes_the_onnx_file_along(root: Path, tmp_path: Path) -> None:
    """It can't be converted, so it is copied, and the result is complete."""
    (root / "dwpose" / "dw-ll_ucoco_384.pth").unlink()
    (root / "dwpose" / "dw-ll_ucoco_384.onnx").write_bytes(b"onnx")
    list(import_folder(root, tmp_path / "new", replace=False))
    assert opened(tmp_path / "new").pose == tmp_path / "new" / "dwpose" / "dw-ll_ucoco_384.onnx"


def test_import_stops_before_a_disk_is_full(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't fit is not begun."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="disk_full"):
        list(import_folder(root, tmp_path / "new", replace=False))
    assert not list((tmp_path / "new").iterdir())


def test_tensors_that_share_memory_are_written_apart(root: Path) -> None:
    """A checkpoint may store one number for a whole tensor, or two views of one storage."""
    path = root / "s3fd" / "s3fd-619a316812.pth"
    state = torch.load(path, weights_only=True)
    state["conv1_1.bias"] = torch.zeros(()).expand(state["conv1_1.bias"].shape)
    torch.save(state, path)
    list(import_folder(root, root, replace=False))
    assert same(state_of(opened(root).s3fd), {name: tensor.contiguous() for name, tensor in state.items()})


def test_read_state_goes_by_the_known_name(tmp_path: Path) -> None:
    """A file under a temporary name is still read as what it will be."""
    save_file({"a": torch.ones(2)}, tmp_path / "x.tmp")
    assert torch.equal(read_state(tmp_path / "x.tmp", "x.safetensors")["a"], torch.ones(2))
