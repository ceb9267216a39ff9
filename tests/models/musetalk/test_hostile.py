"""Bad input and bad luck, through the whole engine: named or mended, and nothing half is left. Tiny weights."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models.handler import Handler
from models.musetalk.audio.whisper import WhisperEncoder
from models.musetalk.avatar.frames import open_yuv
from models.musetalk.avatar.store import LATENTS, AvatarWriter
from models.musetalk.networks import Networks
from models.musetalk.prepared_job import FrameSchedule
from models.types import EngineError, Limits, Output, Request
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import make_request, prepare_job, write_image


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.lay_out(tmp_path_factory.mktemp("models"))


def left_in(request: Request) -> list[str]:
    """Files of the cache and the work folder, without locks and the copies of what came in."""
    places = [*Path(request.cache).rglob("*"), *Path(request.work).glob("*")]
    return [path.name for path in places if path.suffix != ".lock" and path.name != "input"]


@pytest.mark.parametrize("options", [{}, {"reference": True}])
def test_the_shortest_sound_at_the_highest_rate(tmp_path: Path, models_dir: Path, options: dict[str, Any]) -> None:
    """40 ms at 120 frames a second are five frames; the reference would end its process, of which ours keeps four."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), 0.04, **options)
    engine, inspection = prepare_job(replace(request, fps="120"))
    assert inspection.frames == (4 if options else 5)
    assert len(list(engine.render(request, inspection, 0, inspection.frames))) == inspection.frames


def an_8k_portrait(path: Path) -> Path:
    """7680 x 4320, with the face of the tiny weights in the middle."""
    high = 4320
    face = cv2.resize(tiny.picture(), (high * tiny.WIDTH // tiny.HEIGHT, high), interpolation=cv2.INTER_NEAREST)
    side = (7680 - face.shape[1]) // 2
    cv2.imwrite(str(path), cv2.copyMakeBorder(face, 0, 0, side, side, cv2.BORDER_CONSTANT, value=(20, 20, 20)))
    return path


def test_an_8k_portrait(tmp_path: Path, models_dir: Path) -> None:
    """Within the limit it is rendered in the size of the result; beyond it, the size and the limit are named."""
    request = make_request(tmp_path, models_dir, an_8k_portrait(tmp_path / "face.jpg"), 0.04)
    request = replace(request, output=Output(height=tiny.HEIGHT), options={**request.options, "silence": "model"})
    engine, inspection = prepare_job(request)
    assert (inspection.width, inspection.height) == (228, 128)
    [frame] = engine.render(request, inspection, 0, 1)
    with open_yuv(request, inspection) as video:
        assert 0.01 < (frame != video.read(0)).mean() < 0.25
    with pytest.raises(EngineError) as refused:
        Handler("cpu:0").inspect(replace(request, limits=Limits(pixels=8_300_000)))
    assert refused.value.code == "avatar_too_large"
    assert "7680" in refused.value.message
    assert "limits" in refused.value.hint


def test_a_damaged_avatar_in_the_cache_is_prepared_again(tmp_path: Path, models_dir: Path) -> None:
    """The next job gets the frames that it would have got."""
    avatar = write_image(tmp_path / "face.png")
    requests = [make_request(tmp_path, models_dir, avatar, 0.08, job=name) for name in ("one", "two", "three")]
    made, cached = [], []
    for request in requests:
        engine, inspection = prepare_job(request)
        made.append(np.stack(list(engine.render(request, inspection, 0, 2))))
        cached.append(engine.report(request, inspection)["musetalk"]["avatar_from_cache"])
        if request is requests[0]:
            [stored] = Path(request.cache).rglob(LATENTS)
            damaged = bytearray(stored.read_bytes())
            damaged[1000:1100] = bytes(100)
            stored.unlink()  # a job's copy may be the same file
            stored.write_bytes(damaged)
    assert cached == [False, False, True]
    assert np.array_equal(made[0], made[1])


@pytest.mark.parametrize(
    ("owner", "name"), [(AvatarWriter, "add"), (WhisperEncoder, "encode_to_file"), (FrameSchedule, "write")]
)
def test_a_disk_that_fills_up(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    """While the avatar, the features or the schedule are written: tried again later, and nothing half is left."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), 0.08)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, full)
        with pytest.raises(EngineError) as refused:
            prepare_job(request)
    assert (refused.value.code, refused.value.retry) == ("disk_full", True)
    assert not request.files.prepared.exists()
    assert (left_in(request) == []) == (owner is AvatarWriter)  # once prepared, the avatar stays for the next try
    engine, inspection = prepare_job(request)
    assert len(list(engine.render(request, inspection, 0, 2))) == 2


@pytest.mark.parametrize(("look", "error"), [("detect", torch.OutOfMemoryError), ("encode_faces", MemoryError)])
def test_memory_that_runs_out_while_preparing(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, look: str, error: Callable[[str], Exception]
) -> None:
    """On the card or in the host, with a single frame: said, and may be tried again; nothing half is left."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), 0.08)

    def full(*_: Any, **__: Any) -> None:
        raise error("out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Networks, look, full)
    with pytest.raises(EngineError) as refused:
        prepare_job(request)
    assert (refused.value.code, refused.value.retry) == ("out_of_memory", True)
    assert left_in(request) == []
