"""What is said of every weight file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.musetalk.commands.convert import import_folder
from models.musetalk.commands.verify import verify_folder
from models.musetalk.weights import architectures as networks
from tests.models.musetalk.weight_files import (
    HTML,
)


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

    def build(*given: Any) -> nn.Module:
        built.append(plain(*given))
        return built[-1]

    monkeypatch.setattr("models.musetalk.weights.loader.build_empty", build)
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
