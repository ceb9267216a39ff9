"""Every option of the engine at every kind of value, as a user would try them: a still and a video, tiny weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from models.handler import Handler
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.footage import planes_of
from models.musetalk.options import Options
from tests.models.musetalk import tiny
from tests.models.musetalk.test_engine import a_video, an_image, request_for

CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {"bbox_shift": -7},
    {"bbox_shift": 7},
    {"extra_margin": 0},
    {"extra_margin": 40},
    {"parsing_mode": "jaw", "cheek_width": 0},
    {"cheek_width": [20, 256]},
    {"parsing_mode": "neck"},
    {"parsing_mode": "raw"},
    {"smooth_box": False},
    {"no_face": "keep"},
    {"no_face": "fail"},
    {"silence": "model"},
    {"silence": "close"},
    {"face": "largest"},
    {"face": 0},
    {"cycle": "pingpong"},
    {"cycle": "loop"},
    {"cycle": "hold"},
    {"compile": True},
    {"batch_size": 1},
    {"batch_size": 64},
    {"precision": "bf16"},
    {"precision": "fp16"},
    {"precision": "auto"},
    {"version": "v1"},
    {"version": "v15", "reference": "realtime"},
    {"version": "v1", "reference": True},
)
FRAMES = 3


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both versions; the older one has the same tiny weights under its own names."""
    folder = tiny.lay_out(tmp_path_factory.mktemp("models"))
    (folder / "musetalk").mkdir()
    for new, old in (("unet.pth", "pytorch_model.bin"), ("musetalk.json", "musetalk.json")):
        shutil.copyfile(folder / "musetalkV15" / new, folder / "musetalk" / old)
    return folder


def test_no_option_is_forgotten() -> None:
    """Whoever adds an option adds its values here."""
    assert {name for given in CHOICES for name in given} == set(Options.model_fields)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_each_value_paints_a_mouth(tmp_path: Path, models_dir: Path, kind: str) -> None:
    """Whatever is chosen: as many frames as the sound wants, and a mouth that isn't the avatar's in each of them."""
    avatar = an_image(tmp_path / "face.png") if kind == "image" else a_video(tmp_path / "face.mp4", [True] * 2)
    engine = MuseTalkEngine("cpu:0")
    for number, given in enumerate(CHOICES):
        request = request_for(tmp_path, models_dir, avatar, FRAMES / 25, job=f"job{number}", **given)
        outline = Handler("cpu:0").inspect(request)
        engine.prepare(request, outline, 0, 1, lambda _: None)
        frames = list(engine.render(request, outline, 0, outline.frames))
        assert len(frames) == FRAMES, given
        with planes_of(request, outline) as video:
            own = video.read(0)
        if "reference" not in given:  # which yields BGR
            assert all(0.005 < (frame != own).mean() < 0.5 for frame in frames), given
        assert engine.report(request, outline)["musetalk"]["no_face"] == [], given
