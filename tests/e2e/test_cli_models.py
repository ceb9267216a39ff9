"""`musedrop models` and `musedrop doctor` as a person types them, with tiny weights."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from models.musetalk import __main__ as models_command
from models.musetalk.weights.index import S3FD_URL, SOURCES, published_files
from models.musev.commands.fetch import list_published
from models.musev.weights.index import Selection, source_url
from tests.models.checkpoints.hub import Hub, serving
from tests.share import ROOT

Musedrop = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.musetalk import tiny

    return tiny.lay_out(tmp_path_factory.mktemp("master") / "models")


@pytest.fixture
def musedrop(tmp_path: Path) -> Musedrop:
    """Runs a command with a settings file whose models folder is tmp_path/models."""
    settings = tmp_path / "musedrop.toml"
    settings.write_text('share = "."\nstate = "./state"\n[musetalk]\nmodels_dir = "models"\n')

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent.cli.main", *words, "-c", str(settings)]
        hub = {"TORCH_HOME": str(tmp_path / "torch"), "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=100, env={**os.environ, **hub, **env}
        )

    return run


def test_fetch_lays_out_all_files_from_a_mirror(musedrop: Musedrop, tmp_path: Path) -> None:
    """HF_ENDPOINT is honoured, files arrive in MuseTalk's layout, a second fetch asks nobody."""
    hub = Hub(files={SOURCES[name].url: name.encode() * 9 for name in published_files("v15")})
    with serving(hub):
        hub.files["/s3fd.pth"] = hub.files.pop(S3FD_URL)
        words = ("models", "fetch", "--any-release", "--s3fd-url", f"{hub.url}/s3fd.pth")
        done = musedrop(*words, HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        for name in published_files("v15"):
            assert (tmp_path / "models" / name).read_bytes() == name.encode() * 9
        assert set(json.loads((tmp_path / "models" / "manifest.json").read_text())["files"]) == set(
            published_files("v15")
        )
        assert not (tmp_path / "models" / ".downloads").exists()
        hub.log.clear()
        again = musedrop(*words, HF_ENDPOINT=hub.url)
        assert "all weights are in" in again.stdout
        assert hub.log == []


def test_fetch_of_musev_asks_for_its_licence_first(musedrop: Musedrop, tmp_path: Path) -> None:
    """Without --accept-licence no server is asked; with it the files arrive in the hub's layout."""
    wanted = list_published(Selection("musev", lcm=True))
    urls = {name: SOURCES[name].url if name in SOURCES else source_url(name) for name in wanted}
    hub = Hub(files={url: name.encode() * 9 for name, url in urls.items()})
    words = ("models", "fetch", "--engine", "musev", "--variant", "musev", "--lcm", "--any-release")
    with serving(hub):
        refused = musedrop(*words, HF_ENDPOINT=hub.url)
        assert (refused.returncode, hub.log) == (2, [])
        assert "non-commercial" in refused.stderr
        done = musedrop(*words, "--accept-licence", HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
    assert "non-commercial" in done.stdout
    for name in wanted:
        assert (tmp_path / "models" / name).read_bytes() == name.encode() * 9
    wrong = musedrop("models", "verify", "--engine", "musev", "--version", "v15")
    assert wrong.returncode == 2
    assert "--version is for the weights of musetalk" in wrong.stderr


def test_fetch_replaces_only_what_differs_and_only_when_told(musedrop: Musedrop, tmp_path: Path) -> None:
    """A different file is not overwritten; --replace replaces that file and no other."""
    config, weights = "whisper/config.json", "whisper/pytorch_model.bin"
    hub = Hub(files={SOURCES[name].url: name.encode() for name in (config, weights)})
    (tmp_path / "models" / "whisper").mkdir(parents=True)
    (tmp_path / "models" / config).write_bytes(config.encode())
    (tmp_path / "models" / weights).write_bytes(b"mine")
    with serving(hub):
        words = ("models", "fetch", "--any-release", config, weights)
        refused = musedrop(*words, HF_ENDPOINT=hub.url)
        assert refused.returncode == 2
        assert f"{weights} in {tmp_path / 'models'} is not the published file" in refused.stderr
        assert (tmp_path / "models" / weights).read_bytes() == b"mine"
        replaced = musedrop(*words, "--replace", HF_ENDPOINT=hub.url)
        assert replaced.returncode == 0, replaced.stderr
        assert f"{config} is here already" in replaced.stdout
        assert (tmp_path / "models" / weights).read_bytes() == weights.encode()
        assert not [line for line in hub.log if line.startswith("GET") and "config.json" in line]


def test_fetch_refuses_another_release(musedrop: Musedrop, tmp_path: Path) -> None:
    """Without --any-release a server with other weights than the known ones is not believed."""
    name = "whisper/pytorch_model.bin"
    with serving(Hub(files={SOURCES[name].url: b"other"})) as hub:
        refused = musedrop("models", "fetch", name, HF_ENDPOINT=hub.url)
    assert refused.returncode == 2
    assert "another file than the known release" in refused.stderr
    assert "--any-release" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "models" / name).exists()


def test_verify_and_import(musedrop: Musedrop, master: Path, tmp_path: Path) -> None:
    """An existing models folder is imported into ours, and every file of ours is found well."""
    from models.musetalk.inpainting.precision import best_precision

    done = musedrop("models", "import", str(master))
    assert done.returncode == 0, done.stderr
    assert "unet-v15: converted/unet-v15.safetensors: 684 tensors" in done.stdout
    for name in ("unet-v15", "vae"):
        assert f"{name} in {best_precision()}: converted/{name}.{best_precision()}.safetensors: " in done.stdout
    fine = musedrop("models", "verify", "--json")
    assert fine.returncode == 0, fine.stderr
    verdicts = {verdict["file"]: verdict for verdict in json.loads(fine.stdout)}
    assert verdicts["converted/unet-v15.safetensors"]["found"].endswith("SHA-256 as recorded")
    assert verdicts[f"converted/vae.{best_precision()}.safetensors"]["found"].startswith("the same in")
    assert not list((tmp_path / "models").rglob("*.pth"))
    assert "Warning" not in fine.stderr + done.stderr


def test_import_for_other_machines(musedrop: Musedrop, master: Path, tmp_path: Path) -> None:
    """Precisions can be named, as many as there will be kinds of machines, or none at all."""
    converted = tmp_path / "models" / "converted"
    assert musedrop("models", "import", str(master), "--precision", "none").returncode == 0
    assert not list(converted.glob("*.*.safetensors"))
    done = musedrop("models", "import", "--precision", "fp16", "--precision", "bf16")
    assert done.returncode == 0, done.stderr
    assert {path.name.split(".")[1] for path in converted.glob("*.*.safetensors")} == {"fp16", "bf16"}
    refused = musedrop("models", "import", "--precision", "int8")
    assert refused.returncode == 2
    assert "int8" in refused.stderr


def run_inner_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """The inner command without a process of its own: exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["models", *words])
    with warnings.catch_warnings():
        code = models_command.main()
    logging.captureWarnings(capture=False)
    return code, *capsys.readouterr()


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """1 if files are missing, each with its command; 2 if the command could not run."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    code, out, _ = run_inner_command(monkeypatch, capsys, "--models-dir", str(tmp_path), "verify", "--quick")
    assert code == 1
    assert all(name in out for name in published_files("v15"))
    assert out.count("musedrop models fetch") >= len(published_files("v15"))
    code, _, err = run_inner_command(
        monkeypatch, capsys, "--models-dir", str(tmp_path), "import", str(tmp_path / "nothing")
    )
    assert code == 2
    assert "holds no weights" in err
    monkeypatch.setattr(models_command, "NEEDED", ("torch", "no_such_package"))
    code, _, err = run_inner_command(monkeypatch, capsys, "--models-dir", str(tmp_path), "verify")
    assert code == 2
    assert "no_such_package" in err
    assert "pip install '.[musetalk]'" in err


def test_doctor_names_what_an_engine_lacks(musedrop: Musedrop, master: Path, tmp_path: Path) -> None:
    """The missing file and the command; with all files there, neither."""
    musedrop("init")
    shutil.copytree(master, tmp_path / "models")
    (tmp_path / "models" / "whisper" / "config.json").unlink()
    told = " ".join(musedrop("doctor").stdout.split())
    assert f"missing in {tmp_path / 'models'}: whisper/config.json -> run `musedrop models fetch`" in told
