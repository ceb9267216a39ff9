"""Stages of a job in a worker: the engine is loaded once, and prepares in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.types import grid
from models.avatars import AvatarCache
from models.catalog import ENGINES
from models.handler import Handler, open_handler
from models.types import EngineInfo, Inspection, Output, Request
from tests import media_samples as samples
from tests.models.fake_engine import UNITS, FakeEngine

INSPECTION = Inspection(10, "25", 64, 64, 0.4, {"inspect": 1, "prepare": UNITS, "render": 10, "assemble": 1})


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ENGINES, "fake", EngineInfo("fake", "tests.models.fake_engine:FakeEngine", ("cpu",)))
    monkeypatch.setattr(FakeEngine, "said", [])
    (tmp_path / "work").mkdir()
    (tmp_path / "weights").write_text("small")


def request_in(tmp_path: Path) -> Request:
    work, out, cache = (str(tmp_path / name) for name in ("work", "out", "cache"))
    return Request("fake", "avatar", "audio", work, out, cache, models_dir=str(tmp_path))


def prepare(handler: Handler, request: Request, start: int, stop: int) -> None:
    payload = {"stage": "prepare", "request": request.to_dict(), "outline": INSPECTION.to_dict()}
    handler.run(payload, start, stop, lambda _: None)


def test_a_preparation_in_parts_is_joined_by_the_unit_after_the_last(tmp_path: Path) -> None:
    """Each span writes its part; one more span writes `prepared`."""
    handler, request = Handler("cpu:0"), request_in(tmp_path)
    for span in grid(UNITS):
        prepare(handler, request, span.start, span.stop)
    assert not request.files.prepared.exists()
    prepare(handler, request, UNITS, UNITS + 1)
    assert request.files.prepared.exists()
    assert FakeEngine.said == ["made on cpu:0", "loaded", "prepare 0-20", "prepare 20-40", "prepare 40-60", "complete"]


def test_a_worker_that_only_looks_loads_nothing(tmp_path: Path) -> None:
    """`inspect` and `assemble` run on processors and load no weights."""
    handler = Handler("cpu:0")
    handler.open_engine("fake").inspect(request_in(tmp_path), INSPECTION)
    assert FakeEngine.said == ["made on cpu:0"]
    assert handler.stats == {}


def test_an_engine_is_loaded_before_the_first_job_if_asked(tmp_path: Path) -> None:
    """The worker's stats have model, load time and the engine's stats; the first job loads nothing."""
    handler = open_handler("GPU-1", {"preload": "fake", "models_dir": str(tmp_path)})
    assert {key: handler.stats[key] for key in ("model", "held_bytes", "batch")} == {
        "model": "fake",
        "held_bytes": 7,
        "batch": 8,
    }
    assert handler.stats["load_s"] >= 0
    prepare(handler, request_in(tmp_path), 0, 20)
    assert FakeEngine.said == ["made on GPU-1", "loaded", "prepare 0-20"]


@pytest.mark.parametrize("weights", ["none", "large"])
def test_an_engine_that_cannot_be_loaded_now_is_left_to_its_job(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing weights or full memory don't stop the worker from starting; its log has the reason."""
    (tmp_path / "weights").unlink() if weights == "none" else (tmp_path / "weights").write_text("large")
    handler = open_handler("GPU-1", {"preload": "fake", "models_dir": str(tmp_path)})
    assert handler.stats == {}
    assert "fake was not loaded" in capsys.readouterr().out
    (tmp_path / "weights").write_text("small")
    prepare(handler, request_in(tmp_path), 0, 20)
    assert handler.stats["model"] == "fake"


def test_another_engine_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """One engine is loaded at a time, and the stats describe it."""
    handler = open_handler("GPU-1", {"preload": "fake", "models_dir": str(tmp_path)})
    handler.load_engine("preview", str(tmp_path))
    assert handler.stats == {"model": "preview", "load_s": handler.stats["load_s"]}


def inspect_media(tmp_path: Path, avatar: Path, **asked: Any) -> Inspection:
    """Return what is planned for this avatar and a second of speech."""
    audio = samples.speech_wav(tmp_path / "voice.wav", 1.0)
    request = replace(request_in(tmp_path), avatar=str(avatar), audio=str(audio), **asked)
    return Handler("cpu:0").inspect(request)


@pytest.mark.parametrize(("size", "fitted"), [((4032, 3024), (3072, 2304)), ((3000, 4000), (2304, 3072))])
def test_a_photo_becomes_a_video_that_players_show(
    tmp_path: Path, size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    """A photo of 12 megapixels is made smaller with a note, unless the job asks for a height."""
    photo = samples.picture(tmp_path / "photo.jpg", *size)
    planned = inspect_media(tmp_path, photo)
    assert (planned.width, planned.height) == fitted
    assert [note for note in planned.notes if f"{size[0]} x {size[1]}" in note]
    large = inspect_media(tmp_path, photo, output=Output(height=size[1]))
    assert (large.width, large.height, large.notes) == (*size, ())


def test_a_rate_that_was_not_asked_for_is_noted(tmp_path: Path) -> None:
    """A slideshow becomes a video of 25 frames a second with a note; a rate that is asked for is taken."""
    slides = samples.video(tmp_path / "slides.mp4", 4, fps=2)
    planned = inspect_media(tmp_path, slides)
    assert planned.fps == "25"
    assert planned.notes == ("slides.mp4 has 2 frames a second; the video has 25, which suits lips",)
    asked = inspect_media(tmp_path, slides, fps="2")
    assert (asked.fps, asked.notes) == ("2", ())


def test_a_cache_that_cannot_be_cleaned_fails_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that another worker removes while its size is read costs nothing but this round."""
    handler, request = Handler("cpu:0"), request_in(tmp_path)
    (tmp_path / "cache").mkdir()
    looks = list[Path]()

    def lose(cache: AvatarCache) -> None:
        looks.append(cache.root)
        raise FileNotFoundError("entry")

    monkeypatch.setattr(AvatarCache, "make_room", lose)
    monkeypatch.setattr(handler, "assemble", lambda *_: {"frames": 10})
    payload = {"stage": "assemble", "request": request.to_dict(), "outline": INSPECTION.to_dict(), "spans": []}
    assert handler.run(payload, 0, 1, lambda _: None) == {"frames": 10}
    assert looks == [tmp_path / "cache"]
