"""From frames and sound to frames, the reference's way: the golden chains through the whole engine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.handler import Handler
from models.musetalk.avatar.store import PreparedAvatar
from models.musetalk.engine import MuseTalkEngine
from models.types import Inspection, Request
from tests.models.musetalk import tiny
from tests.models.musetalk.chains import FRAMES, frames, golden, stub_face_networks

CHAINS: dict[str, dict[str, Any]] = {
    "08_chain_v15_jaw_shift0": {"reference": True},
    "08_chain_v1_raw_shift0": {"reference": True, "version": "v1"},
    "09_realtime_v15": {"reference": "realtime"},
}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both versions have the same network; the chains were recorded with the same weights."""
    folder = tiny.lay_out(tmp_path_factory.mktemp("models"))
    (folder / "musetalk").mkdir()
    shutil.copy(folder / "musetalkV15" / "unet.pth", folder / "musetalk" / "pytorch_model.bin")
    shutil.copy(folder / "musetalkV15" / "musetalk.json", folder / "musetalk" / "musetalk.json")
    return folder


def prepare_job(
    tmp_path: Path, models_dir: Path, options: dict[str, Any]
) -> tuple[MuseTalkEngine, Request, Inspection]:
    for name in ("work", "out", "cache"):
        (tmp_path / name).mkdir(exist_ok=True)
    request = Request(
        engine="musetalk",
        avatar=str(FRAMES),
        audio=str(tiny.DATA / "synth_0s9_16k_mono.wav"),
        work=str(tmp_path / "work"),
        out=str(tmp_path / "out"),
        cache=str(tmp_path / "cache"),
        models_dir=str(models_dir),
        options=options,
    )
    inspection = Handler("cpu:0").inspect(request)
    engine = MuseTalkEngine("cpu:0")
    engine.prepare(request, inspection, 0, 1, lambda _: None)
    return engine, request, inspection


@pytest.mark.parametrize("name", CHAINS)
def test_the_golden_chain(name: str, tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes, latents and masks are the reference's, and its frames too: one grey level off at most, and rarely that.

    The realtime program loses its last frame; ours is there.
    """
    expected, source = golden(name), frames()
    stub_face_networks(monkeypatch, golden("08_chain_inputs"))
    engine, request, inspection = prepare_job(tmp_path, models_dir, CHAINS[name])
    check_preparation(PreparedAvatar(request.files.prepared / "avatar"), expected)
    assert inspection.frames == 22
    made = list(engine.render(request, inspection, 0, 22))
    x1, y1, x2, y2 = expected["region_xyxy"]
    kept = expected["frames"]
    off = np.abs(np.stack([made[number][y1:y2, x1:x2] for number in kept]).astype(int) - expected["out_region"])
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3
    for frame, background in zip(made, np.concatenate([source, source[::-1], source[:6]]), strict=True):
        frame[y1:y2, x1:x2] = background[y1:y2, x1:x2]
        assert np.array_equal(frame, background)


def check_preparation(avatar: PreparedAvatar, expected: dict[str, Any]) -> None:
    assert np.array_equal(avatar.boxes, expected["boxes" if "boxes" in expected else "coords"][:8])
    if "latents8" in expected:
        assert np.abs(avatar.read_latents(np.arange(2)) - expected["latents8"]).max() < 1e-5
    if "masks_0_3" in expected:
        x1, y1, x2, y2 = avatar.region(0)
        left, top = expected["mask_coords"][0][:2]
        shown = expected["masks_0_3"][0][y1 - top : y2 - top, x1 - left : x2 - left]
        assert np.array_equal(avatar.read_mask(0), shown)
