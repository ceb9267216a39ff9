"""Which weights are there, in which form, and what is still missing: decided by names alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models.catalog import ENGINES, explain_unavailable
from models.checkpoints.manifest import (
    Entry,
    stamp_of,
    write_entry,
)
from models.musetalk.commands.verify import verify_folder
from models.musetalk.weights import index as layout
from models.musetalk.weights.index import (
    PARTS,
    SOURCES,
    find_part,
    forms_of,
    get_part,
    installed_versions,
    missing_files,
    missing_files_for,
    published_files,
    read_hashes,
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


def form_of(name: str, root: Path) -> str:
    found = find_part(get_part(name), root)
    assert found is not None
    return found.variant.form


@pytest.mark.parametrize("version", ["v15", "v1"])
def test_the_downloaded_layout_is_complete(root: Path, version: layout.Version) -> None:
    """The files of MuseTalk's own scripts for one version are enough, and that version is the one that is there."""
    put(root, *published_files(version))
    assert missing_files(root) == []
    assert installed_versions(root) == (version,)
    assert all(form_of(part.name, root) == "pickle" for part in layout.parts_of(version))


def test_a_job_without_a_version_is_of_the_one_that_is_here(root: Path) -> None:
    """v1 where it is alone, v15 beside it or in an empty folder; a version that is asked for is another question."""
    assert layout.default_version(root) == "v15"
    put(root, *published_files("v1"))
    assert layout.default_version(root) == "v1"
    assert (missing_files(root), missing_files(root, "v1"), missing_files(root, {})) == ([], [], [])
    assert missing_files(root, "v15") == ["musetalkV15/unet.pth", "musetalkV15/musetalk.json"]
    put(root, *published_files("v15"))
    assert layout.default_version(root) == "v15"


def test_an_empty_folder_lacks_what_is_published_for_v15(root: Path) -> None:
    """All of it is named, and all of it can be downloaded."""
    assert set(missing_files(root)) == set(published_files("v15"))
    assert len(missing_files(root)) == 10
    assert set(missing_files(root)) < set(SOURCES)


@pytest.mark.parametrize("gone", published_files("v15"))
def test_each_missing_file_is_named(root: Path, gone: str) -> None:
    """Without one file, that file is what is missing; without the UNet, nobody is told to get the other version."""
    put(root, *(file for file in published_files("v15") if file != gone))
    assert missing_files(root) == [gone]


def test_a_second_version_is_not_required(root: Path) -> None:
    """With v15 there, v1 is missing only for who asks for it."""
    put(root, *published_files("v15"))
    assert missing_files_for("v1", root) == ["musetalk/pytorch_model.bin", "musetalk/musetalk.json"]
    put(root, *published_files("v1"))
    assert installed_versions(root) == ("v15", "v1")


def test_safetensors_are_taken_before_pickles(root: Path) -> None:
    """A folder with both is read without a pickle; one with safetensors alone is complete."""
    put(root, *published_files("v15"), "sd-vae/diffusion_pytorch_model.safetensors", "whisper/model.safetensors")
    assert [form_of(name, root) for name in ("vae", "whisper", "pose")] == ["safetensors", "safetensors", "pickle"]
    (root / "sd-vae" / "diffusion_pytorch_model.bin").unlink()
    (root / "whisper" / "pytorch_model.bin").unlink()
    assert missing_files(root) == []


def test_converted_weights_alone_are_enough(root: Path) -> None:
    """The folder `converted` by itself is a complete installation."""
    put(root, *(file for part in layout.parts_of("v15") for file in part.variants[0].files))
    assert missing_files(root) == []
    assert all(form_of(part.name, root) == "converted" for part in layout.parts_of("v15"))


def test_dwpose_as_onnx_only(root: Path) -> None:
    """A folder with only the ONNX file of DWPose is complete; with both, the checkpoint is used."""
    put(root, *(file for file in published_files("v15") if not file.startswith("dwpose")))
    assert missing_files(root) == ["dwpose/dw-ll_ucoco_384.pth"]
    put(root, "dwpose/dw-ll_ucoco_384.onnx")
    assert missing_files(root) == []
    assert form_of("pose", root) == "onnx"
    put(root, "dwpose/dw-ll_ucoco_384.pth")
    assert form_of("pose", root) == "pickle"


def test_the_face_detector_in_torchs_own_folder_counts(root: Path, tmp_path: Path) -> None:
    """MuseTalk leaves the S3FD weights in torch's cache: an existing installation is complete as it is."""
    put(root, *(file for file in published_files("v15") if not file.startswith("s3fd")))
    assert missing_files(root) == ["s3fd/s3fd-619a316812.pth"]
    put(tmp_path / "torch" / "hub" / "checkpoints", "s3fd-619a316812.pth")
    assert missing_files(root) == []
    found = find_part(get_part("s3fd"), root)
    assert found is not None
    assert found.weights == tmp_path / "torch" / "hub" / "checkpoints" / "s3fd-619a316812.pth"


def test_the_older_name_of_the_vae_folder(root: Path) -> None:
    """MuseTalk's first scripts called the folder sd-vae-ft-mse."""
    put(root, *(file for file in published_files("v15") if not file.startswith("sd-vae")))
    put(root, "sd-vae-ft-mse/config.json", "sd-vae-ft-mse/diffusion_pytorch_model.bin")
    assert missing_files(root) == []


def test_a_lone_config_asks_only_for_its_weights(root: Path) -> None:
    """What is there already isn't asked for again, whichever form it belongs to."""
    put(root, *published_files("v15"))
    (root / "sd-vae" / "diffusion_pytorch_model.bin").unlink()
    assert missing_files(root) == ["sd-vae/diffusion_pytorch_model.bin"]


def converted(root: Path) -> Path:
    """v15 with a converted UNet whose manifest knows its source; returns that source."""
    put(root, *published_files("v15"), "converted/unet-v15.safetensors", "converted/unet-v15.json")
    source = root / "musetalkV15" / "unet.pth"
    target = root / "converted" / "unet-v15.safetensors"
    entry = Entry(stamp_of(target), source=replace(stamp_of(source), path="musetalkV15/unet.pth"))
    write_entry(root / "converted", "unet-v15.safetensors", entry)
    return source


def test_a_conversion_of_an_older_source_is_not_used(root: Path) -> None:
    """When the UNet it was made from is replaced, the new one counts, and not its old conversion."""
    source = converted(root)
    assert form_of("unet-v15", root) == "converted"
    source.write_bytes(b"trained further")
    assert form_of("unet-v15", root) == "pickle"
    source.unlink()
    assert form_of("unet-v15", root) == "converted"


def test_a_conversion_of_files_elsewhere_stays(root: Path, tmp_path: Path) -> None:
    """What was imported from another folder doesn't depend on that folder any more."""
    converted(root)
    other = tmp_path / "unet.pth"
    other.write_bytes(b"old")
    source = stamp_of(other)
    target = stamp_of(root / "converted" / "unet-v15.safetensors")
    write_entry(root / "converted", "unet-v15.safetensors", Entry(target, source=source))
    other.write_bytes(b"newer")
    assert form_of("unet-v15", root) == "converted"


def test_every_form_says_how_it_can_be_mended() -> None:
    """For each file that may lie there, some command brings a good one."""
    for part in PARTS:
        for variant in forms_of(part):
            for file in variant.files:
                assert "musedrop models" in layout.repair_hint(file), file
    assert "import --replace`" in layout.repair_hint("converted/vae.json")
    assert "import --replace --precision fp16`" in layout.repair_hint("converted/vae.fp16.safetensors")
    assert "fetch --replace musetalkV15/unet.pth" in layout.repair_hint("musetalkV15/unet.pth")
    assert "dw-ll_ucoco_384.pth" in layout.repair_hint("dwpose/dw-ll_ucoco_384.onnx")


def test_the_daemon_may_look_without_loading_anything_heavy() -> None:
    """Layout and manifest need the standard library alone."""
    code = "import sys; before = set(sys.modules); import models.musetalk.weights.index as index"
    code += "; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert loaded - {"models"} <= sys.stdlib_module_names


def test_whisper_of_old_releases_is_named(root: Path) -> None:
    """Who comes from an old installation learns why its file doesn't count."""
    put(root, *published_files("v15"), "whisper/tiny.pt")
    (root / "whisper" / "pytorch_model.bin").unlink()
    message = layout.missing_error("v15", root).message
    assert "whisper/pytorch_model.bin; whisper/tiny.pt is of MuseTalk before 1.5" in message
    assert any("tiny.pt is of MuseTalk before 1.5" in verdict.found for verdict in verify_folder(root, hashes=False))
    assert "tiny.pt is of MuseTalk before 1.5" in explain_unavailable(ENGINES["musetalk"], root, {"cuda"})
    (root / "whisper" / "tiny.pt").unlink()
    assert "tiny.pt" not in layout.missing_error("v15", root).message


def test_the_hashes_of_the_weights_in_use_are_told(root: Path) -> None:
    """As far as a manifest has noted them, and no longer when a file has changed since."""
    put(root, *published_files("v15"))
    assert read_hashes("v15", root) == {}
    unet = get_part("unet-v15").variants[-1].weights
    write_entry(root, unet, Entry(replace(stamp_of(root / unet), sha256="a" * 64)))
    assert read_hashes("v15", root) == {unet: "a" * 64}
    (root / unet).write_bytes(b"another network")
    assert read_hashes("v15", root) == {}
