"""What is written down of the files in a folder, and when it is believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.atomic import hash_file
from models.checkpoints.manifest import (
    Entry,
    read_manifest,
    recorded_sha256,
    sample_hash,
    stamp_of,
    write_entry,
)
from models.musetalk.weights.index import (
    missing_files,
    published_files,
)


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's torch has downloaded doesn't count."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def put(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"files": []}', '{"files": {"a": 3}}', '{"files": {"a": {"stamp": {}}}}']
)
def test_a_damaged_manifest_is_no_manifest(root: Path, text: str) -> None:
    """Its content is nothing that a worker would die of."""
    (root / "manifest.json").write_text(text)
    assert read_manifest(root) == {}
    put(root, *published_files("v15"))
    assert missing_files(root) == []


def test_a_recorded_hash_holds_for_the_same_file_only(root: Path) -> None:
    """Once the file has changed, its recorded hash is not believed."""
    put(root, "a")
    stamp = replace(stamp_of(root / "a"), path="a", sha256=hash_file(root / "a"))
    write_entry(root, "a", Entry(stamp, "https://example.org/a"))
    assert recorded_sha256(root, "a") == hash_file(root / "a")
    (root / "a").write_bytes(b"other")
    assert recorded_sha256(root, "a") == ""
    assert recorded_sha256(root, "manifest.json") == ""


def test_the_samples_of_a_large_file_tell_it_from_another(tmp_path: Path) -> None:
    """Weights that were all trained further have another identity, and so has a file that is one byte longer."""
    import random

    content = random.Random(1).randbytes(3 << 20)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(bytes(byte ^ 1 for byte in content))
    (tmp_path / "c").write_bytes(content + b"x")
    (tmp_path / "d").write_bytes(content)
    a, b, c, d = (sample_hash(tmp_path / name) for name in "abcd")
    assert a == d
    assert len({a, b, c}) == 3
