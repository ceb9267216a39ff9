"""Files as people have them: opened in every format, refused when they are not what they should be."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.checkpoints.torch_file import read_torch_file
from models.musetalk.commands.convert import import_folder
from models.musetalk.commands.verify import verify_folder
from models.musetalk.weights.checkpoint import read_state
from models.types import EngineError
from tests.models.musetalk.weight_files import (
    HTML,
    LFS,
    NUMBERS,
    TENSOR,
    WHOLE,
    Attack,
    all_kinds,
    equal,
    open_tiny,
    pickle_beside,
    same_tensors,
    save_bare,
    save_by_hand,
    save_legacy,
    save_tar,
    save_zip,
    state_of,
)


def test_checkpoints_of_torch_before_1_6(root: Path) -> None:
    """The older format of torch.save can't be mapped and is read all the same."""
    path = root / "s3fd" / "s3fd-619a316812.pth"
    state = torch.load(path, weights_only=True)
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert same_tensors(state_of(open_tiny(root).s3fd), state)


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle(tmp_path: Path, protocol: int) -> None:
    """In both formats, as far as torch writes them; what it writes by protocol 0 it can't read itself."""
    path, wanted = tmp_path / "a.pth", all_kinds()
    for is_zip in (True, False) if protocol >= 2 else (False,):
        torch.save(wanted, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
        assert zipfile.is_zipfile(path) == is_zip
        assert equal(read_state(path, "a.pth"), wanted)


@pytest.mark.parametrize("save", [save_zip, save_legacy], ids=["zip", "legacy"])
def test_tensors_of_every_kind(tmp_path: Path, save: Any) -> None:
    """Whatever their dtypes and strides they are those that were saved, and what shared memory still does."""
    path, wanted = tmp_path / "a.pth", all_kinds()
    for state in (wanted, OrderedDict(wanted)):
        save(state, path)
        found = read_state(path, "a.pth")
        assert equal(found, wanted)
        assert found["whole"].data_ptr() == found["again"].data_ptr() == found["turned"].data_ptr()
        assert not any(tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("save", [save_zip, save_legacy], ids=["zip", "legacy"])
def test_state_dicts_in_wrappers(tmp_path: Path, save: Any) -> None:
    """As trainings nest them, with the prefix of several cards or without; the one with most tensors is taken."""
    path, wanted = tmp_path / "a.pth", {"conv.weight": torch.rand(2, 3), "conv.bias": torch.rand(2)}
    prefixed = {f"module.{name}": tensor for name, tensor in wanted.items()}
    for value in (
        {"state_dict": wanted, "epoch": torch.tensor(3)},
        {"model": prefixed, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        {"ema": wanted, "step": 5},
        {"model": {"state_dict": prefixed}},
        {"state_dict": wanted, "ema_state_dict": {name: tensor + 1 for name, tensor in wanted.items()}},
        {"averaged": {name: tensor + 1 for name, tensor in wanted.items()}, "model": wanted},
        {"net": wanted, "optimizer": {"exp_avg": {0: torch.ones(1), 1: torch.ones(1), 2: torch.ones(1)}}},
        {"generator": {"weights": {f"_orig_mod.module.{name}": tensor for name, tensor in wanted.items()}}},
        prefixed,
    ):
        save(value, path)
        assert same_tensors(read_state(path, "a.pth"), wanted)


@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
def test_storages_by_their_old_and_new_names(tmp_path: Path, module: str) -> None:
    """Typed on the CPU or on a card, and untyped with the dtype beside it."""
    path = tmp_path / "a.pth"
    save_by_hand(pickle_beside(b"N").replace(b"ctorch\n", f"c{module}\n".encode()), path)
    assert same_tensors(read_state(path, "a.pth"), {"weight": NUMBERS})
    untyped = b"ctorch.storage\nUntypedStorage\n"
    content = pickle_beside(b"N").replace(b"ctorch\nFloatStorage\n", untyped).replace(b"tensor_v2", b"tensor_v3")
    save_by_hand(content.replace(b")RtR", b")Rctorch\nfloat32\ntR", 1), path)
    assert same_tensors(read_state(path, "a.pth"), {"weight": NUMBERS})


OLD_NUMPY = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR"


PYTHON_2 = b"c__builtin__\nset\n](U\x01aU\x01be\x85R"


@pytest.mark.parametrize(
    "other",
    [
        OLD_NUMPY + b"U\x08abcdefghtR",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1tR",
        PYTHON_2,
        b"ccollections\nOrderedDict\n](](U\x01aK\x01e](U\x01bK\x02ee\x85R",
        b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R",
        b"cargparse\nNamespace\n)\x81}U\x02lrK\x01sb",
    ],
    ids=["numpy scalar", "encode", "set", "OrderedDict of Python 2", "defaultdict", "Namespace"],
)
def test_what_old_programs_left(tmp_path: Path, other: bytes) -> None:
    """Scalars of old numpy, texts that were bytes, containers of Python 2: nothing of it is in the way."""
    save_by_hand(pickle_beside(other), tmp_path / "a.pth")
    assert same_tensors(read_state(tmp_path / "a.pth", "a.pth"), {"weight": NUMBERS})


class HistoryBuffer:
    """Stands for mmengine's class of that name: numbers of a training, and its own methods by name."""

    def __init__(self) -> None:
        self._log_history = np.arange(3.0)

    def mean(self) -> float:
        """Bound methods are pickled as calls of getattr."""
        return float(self._log_history.mean())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "statistics_methods": {"mean": self.mean}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("nothing of this is called")


@pytest.mark.parametrize("save", [save_zip, save_legacy], ids=["zip", "legacy"])
def test_what_a_training_run_left_beside_its_tensors(root: Path, monkeypatch: pytest.MonkeyPatch, save: Any) -> None:
    """DWPose's file holds a message hub of mmengine and its optimizer: they become nothing, its tensors are read."""
    path = root / "dwpose" / "dw-ll_ucoco_384.pth"
    state = torch.load(path, weights_only=True)["state_dict"]
    monkeypatch.setattr(HistoryBuffer, "__module__", "mmengine.logging.history_buffer")
    module = type(os)("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
            patched.setitem(sys.modules, name, module)
        hub = {"log_scalars": OrderedDict(loss=HistoryBuffer()), "runtime_info": {"loss": np.float64(0.5)}}
        meta = {"dataset_meta": {"sigmas": np.ones(133, np.float32)}, "epoch": 210}
        moments = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
        save({"meta": meta, "message_hub": hub, "state_dict": OrderedDict(state), "optimizer": moments}, path)
    refused = read_torch_file(path).refused
    assert {"mmengine.logging.history_buffer.HistoryBuffer", "__builtin__.getattr"} < set(refused)
    assert same_tensors(state_of(open_tiny(root).pose), state)
    assert not [verdict for verdict in verify_folder(root, hashes=True) if verdict.verdict == "bad"]
    assert "470 tensors" in next(line for line in import_folder(root, root, replace=False) if line.startswith("pose"))


@pytest.mark.parametrize("save", [save_zip, save_legacy], ids=["zip", "legacy"])
def test_the_message_hub_of_mmengine_itself(tmp_path: Path, save: Any) -> None:
    """Where mmengine is installed: it needs an OpenCV that the package's own would be replaced by."""
    logging = pytest.importorskip("mmengine.logging")
    hub, wanted = logging.MessageHub("test"), {"weight": torch.rand(3, 4)}
    hub.update_scalar("train/loss", np.float64(0.5))
    hub.update_info("iter", 3)
    save(
        {"meta": {"epoch": 210}, "message_hub": hub.state_dict(), "state_dict": OrderedDict(wanted)}, tmp_path / "a.pth"
    )
    assert same_tensors(read_state(tmp_path / "a.pth", "a.pth"), wanted)


@pytest.mark.parametrize(
    "save", [save_zip, save_legacy, save_bare(2), save_bare(4), save_bare(0)], ids=["zip", "legacy", "p2", "p4", "p0"]
)
@pytest.mark.parametrize("inner", [False, True])
def test_a_pickle_with_code_is_refused(root: Path, tmp_path: Path, save: Any, inner: bool) -> None:
    """Whatever its format: the code doesn't run, and the file, what it wanted to run, and the cure are named."""
    mark = tmp_path / "pwned"
    value: Any = Attack(mark)
    path = root / "musetalkV15" / "unet.pth"
    save({"weight": value} if inner else value, path)
    with pytest.raises(EngineError) as caught:
        _ = open_tiny(root).unet
    assert not mark.exists()
    assert caught.value.code == "weights_unsafe"
    assert "musetalkV15/unet.pth" in caught.value.message
    assert "system" in caught.value.message
    assert "musedrop models fetch --replace musetalkV15/unet.pth" in caught.value.hint
    pickle.loads(pickle.dumps(value))  # noqa: S301  (the attack is a real one)
    assert mark.exists()


def test_code_beside_tensors_is_not_run(root: Path, tmp_path: Path) -> None:
    """It becomes nothing at all, like an object of a training framework, and the tensors are read."""
    path = root / "dwpose" / "dw-ll_ucoco_384.pth"
    state = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "meta": Attack(tmp_path / "pwned")}, path)
    assert b"posix\nsystem" in path.read_bytes()
    assert same_tensors(state_of(open_tiny(root).pose), state)
    assert not (tmp_path / "pwned").exists()


def test_code_that_makes_the_tensors_is_not_run(root: Path, tmp_path: Path) -> None:
    """Where the tensors that are wanted would come from code, they are not there, and the first one is named."""
    path, mark = root / "musetalkV15" / "unet.pth", tmp_path / "pwned"
    state: dict[str, Any] = dict(torch.load(path, weights_only=True))
    torch.save(state | {"conv_in.bias": Attack(mark)}, path)
    with pytest.raises(EngineError, match=r"lacks 1 of 684 tensors \(conv_in.bias first\)"):
        _ = open_tiny(root).unet
    assert not mark.exists()


SHAPES = {
    "an offset beyond": b"K\x11K\x01\x85K\x01\x85",
    "a size beyond": b"K\x00K\x11\x85K\x01\x85",
    "a step beyond": b"K\x00K\x02\x85K\x10\x85",
    "a negative offset": b"J\xff\xff\xff\xffK\x02\x85K\x01\x85",
    "a negative step": b"K\x0fK\x02\x85J\xff\xff\xff\xff\x85",
    "a negative size": b"K\x00J\xff\xff\xff\xff\x85K\x01\x85",
    "a huge size": b"K\x00\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85K\x00\x85",
    "a product that is huge": b"K\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87K\x00K\x00K\x00\x87",
    "a flag for a size": b"K\x00\x88\x85K\x01\x85",
    "a fraction for a size": b"K\x00G?\xf0\x00\x00\x00\x00\x00\x00\x85K\x01\x85",
    "fewer steps than sizes": b"K\x00K\x01K\x01\x86K\x01\x85",
    "no sizes at all": b"K\x00NN",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tensors_stay_inside_their_storage(tmp_path: Path, shape: bytes) -> None:
    """A file can't show what lies beside its numbers in memory or on the disk."""
    save_by_hand(b"\x80\x02}X\x01\x00\x00\x00a" + TENSOR % shape + b"s.", tmp_path / "a.pth")
    with pytest.raises(EngineError, match="describes a tensor") as caught:
        read_state(tmp_path / "a.pth", "a.pth")
    assert caught.value.code == "weights_damaged"


def test_a_million_tensors_are_refused(tmp_path: Path) -> None:
    """Names are cheap in a file; the objects behind them are not."""
    names = b"".join(b"X\x05\x00\x00\x00%05dh\x01" % number for number in range(30_000))
    save_by_hand(b"\x80\x02" + WHOLE + b"q\x010}(" + names + b"u.", tmp_path / "a.pth")
    with pytest.raises(EngineError, match="more than 20,000 tensors"):
        read_state(tmp_path / "a.pth", "a.pth")


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
        _ = open_tiny(root).unet, open_tiny(root).vae
    assert caught.value.code == "weights_damaged"
    assert file in caught.value.message
    assert "musedrop models fetch" in caught.value.hint


@pytest.mark.parametrize("value", [torch.ones(3), [1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_a_checkpoint_without_named_tensors(root: Path, value: Any) -> None:
    """torch.save can store anything; here only names with tensors are of use."""
    torch.save(value, root / "s3fd" / "s3fd-619a316812.pth")
    with pytest.raises(EngineError, match="holds") as caught:
        _ = open_tiny(root).s3fd
    assert caught.value.code == "weights_damaged"


def test_read_state_goes_by_the_known_name(tmp_path: Path) -> None:
    """A file under a temporary name is still read as what it will be."""
    save_file({"a": torch.ones(2)}, tmp_path / "x.tmp")
    assert torch.equal(read_state(tmp_path / "x.tmp", "x.safetensors")["a"], torch.ones(2))


def hide(state: dict[str, Any], path: Path) -> None:
    """Save names without tensors, made by code."""
    torch.save(dict.fromkeys(state, Attack(path.with_name("pwned"))), path)


def cut(state: dict[str, Any], path: Path) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("save", "opens"),
    [(save_zip, True), (save_legacy, True), (save_tar, True), (hide, False), (cut, False)],
    ids=["zip", "legacy", "tar", "code", "cut"],
)
def test_verify_import_and_a_worker_agree(root: Path, tmp_path: Path, save: Any, opens: bool) -> None:
    """What one of them opens all of them open; what one refuses they refuse with the same words."""
    path = root / "s3fd" / "s3fd-619a316812.pth"
    save(dict(torch.load(path, weights_only=True)), path)
    (verdict,) = [verdict for verdict in verify_folder(root, hashes=False) if verdict.file.startswith("s3fd")]
    if opens:
        assert verdict.verdict == "ok"
        assert open_tiny(root).s3fd is not None
        assert any(line.startswith("s3fd: converted") for line in import_folder(root, tmp_path / "new", replace=False))
        return
    for work in (lambda: open_tiny(root).s3fd, lambda: list(import_folder(root, tmp_path / "new", replace=False))):
        with pytest.raises(EngineError) as caught:
            work()
        assert (verdict.verdict, verdict.found) == ("bad", caught.value.message)
    assert not (path.with_name("pwned")).exists()
