"""The three formats of torch.save: where their numbers are, and what is no such file."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.musetalk.weights.checkpoint import read_state
from models.types import EngineError
from tests.models.musetalk.weight_files import (
    NUMBERS,
    all_kinds,
    equal,
    open_tiny,
    pickle_beside,
    same_tensors,
    save_by_hand,
    save_legacy,
    save_tar,
    save_zip,
)


def test_the_oldest_format(tmp_path: Path) -> None:
    """The tar of torch 0.1, which today's torch opens only by running its pickles, is read all the same."""
    path = tmp_path / "a.pth"
    wanted = {name: tensor.detach() for name, tensor in all_kinds().items() if name not in ("brain", "flags", "empty")}
    save_tar(wanted, path)
    assert equal(read_state(path, "a.pth"), wanted)
    assert same_tensors(dict(torch.load(path, weights_only=False)), wanted)
    for kept in (0.3, 0.6, 0.8):
        path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * kept)])
        with pytest.raises(EngineError, match=r"cut off|no torch checkpoint"):
            read_state(path, "a.pth")


def test_a_storage_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    """Its bytes in the file count, not what the pickle says of them; one that isn't there is named."""
    for storages in ({"0": b"\0" * 60}, {"0": b""}, {"1": b"\0" * 64}):
        save_by_hand(pickle_beside(b"N"), tmp_path / "a.pth", storages)
        with pytest.raises(EngineError, match=r"outside of its storage|lacks the storage 0"):
            read_state(tmp_path / "a.pth", "a.pth")


def test_numbers_that_lie_askew(tmp_path: Path) -> None:
    """An archive made by another program doesn't align its entries: they are copied."""
    for length in range(8):
        path = tmp_path / "a.pth"
        save_by_hand(pickle_beside(b"N" if length == 0 else b"U" + bytes([length]) + b"x" * length), path)
        assert same_tensors(read_state(path, "a.pth"), {"weight": NUMBERS})


def test_a_compressed_zip_is_not_unpacked(tmp_path: Path) -> None:
    """A few kilobytes could become any number of gigabytes."""
    save_by_hand(pickle_beside(b"N"), tmp_path / "a.pth", {"0": bytes(64 << 20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(EngineError, match="compressed"):
        read_state(tmp_path / "a.pth", "a.pth")


def test_a_zip_of_a_million_names_is_refused(tmp_path: Path) -> None:
    """Its directory alone would take a gigabyte."""
    path = tmp_path / "a.pth"
    save_by_hand(pickle_beside(b"N"), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rfind(b"PK\x05\x06") + 12, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(EngineError, match="too many names"):
        read_state(path, "a.pth")


def test_a_big_endian_machine(tmp_path: Path) -> None:
    """Its numbers would be read as other numbers."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_beside(b"N"))
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(EngineError, match="big-endian"):
        read_state(path, "a.pth")


@pytest.mark.parametrize("kept", [0.2, 0.7, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_named(root: Path, form: str, kept: float) -> None:
    """A download that stopped anywhere is recognised before its tensors are used."""
    path = root / "musetalkV15" / ("unet.safetensors" if form == "safetensors" else "unet.pth")
    state = torch.load(root / "musetalkV15" / "unet.pth", weights_only=True)
    save: dict[str, Callable[[Any, Path], None]] = {"zip": save_zip, "legacy": save_legacy, "safetensors": save_file}
    save[form](state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(EngineError, match="is cut off") as caught:
        _ = open_tiny(root).unet
    assert caught.value.code == "weights_damaged"
    assert path.name in caught.value.message


def test_a_zip_that_is_no_checkpoint(root: Path) -> None:
    """A document is a zip too."""
    with zipfile.ZipFile(root / "musetalkV15" / "unet.pth", "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(EngineError, match="is no torch checkpoint"):
        _ = open_tiny(root).unet


def saved(save: Callable[[Any, Path], None], path: Path) -> bytes:
    """A small file in one format."""
    save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).half()}, path)
    return path.read_bytes()


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_tar], ids=["zip", "legacy", "tar"])
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    """Whichever bytes of it are others, or missing: nothing but the error of a weight file is raised."""
    path, random = tmp_path / "a.pth", Random(5)
    whole = saved(save, path)
    refused: set[str] = set()
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            content[random.randrange(len(content))] = random.choice([0, 1, 0x7F, 0xFF, random.randrange(256)])
        path.write_bytes(content[: random.choice([len(content), random.randrange(len(content))])])
        try:
            state = read_state(path, "a.pth")
        except EngineError as error:
            refused.add(error.code)
            continue
        assert all(tensor.sum() is not None for tensor in state.values())
    assert "weights_damaged" in refused <= {"weights_damaged", "weights_unsafe"}
