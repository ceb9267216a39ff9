"""The stage `animate` in one worker, with an engine without networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.avatars import AvatarCache
from models.handler import Handler
from models.motion import catalog
from models.motion.catalog import MOTION_ENGINES, stamp_motion
from models.motion.stage import CLIP, stamp_request
from models.motion.types import MotionFiles
from models.types import EngineError, Inspection, Request
from tests.share import face, voice

WEIGHTS = "motion/wan/model_index.json"


@pytest.fixture(autouse=True)
def _fake_engine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        factory = "tests.models.motion.fake_engine:FakeMotionEngine"
        patch.setitem(MOTION_ENGINES, "diffusers", replace(MOTION_ENGINES["diffusers"], factory=factory, packages=()))
        yield


@pytest.fixture
def request_of_job(tmp_path: Path) -> Request:
    """A job with a portrait of 256 pixels and its voice, and a folder that counts as weights."""
    (tmp_path / "face.jpg").write_bytes(face())
    (tmp_path / "voice.wav").write_bytes(voice(0.4))
    (tmp_path / "models" / WEIGHTS).parent.mkdir(parents=True)
    (tmp_path / "models" / WEIGHTS).write_text("{}")
    (tmp_path / "work" / "input").mkdir(parents=True)
    motion: dict[str, Any] = {"engine": "diffusers", "seconds": 1, "size": 256, "steps": 1, "interpolation": "none"}
    return Request(
        "preview",
        str(tmp_path / "face.jpg"),
        str(tmp_path / "voice.wav"),
        str(tmp_path / "work"),
        str(tmp_path / "out"),
        str(tmp_path / "cache"),
        str(tmp_path / "models"),
        motion={**motion, "device_bytes": 0},
    )


def read_picture(request: Request) -> Any:
    return cv2.imread(request.avatar)


def put_picture(request: Request, picture: np.ndarray[Any, Any]) -> None:
    cv2.imwrite(request.avatar, picture)


def run_stage(handler: Handler, request: Request, stage: str, outline: Any = None, step: int = 0, unit: int = 0) -> Any:
    payload = {"stage": stage, "request": request.to_dict(), "outline": outline, "step": step}
    return handler.run(payload, unit, unit + 1, lambda _: None)


def animate(handler: Handler, request: Request, outline: Any, tasks: slice) -> Any:
    """Run some tasks of the animation, each of its units; return what the last one told."""
    animation, told = Inspection.from_dict(outline).animation, None
    assert animation is not None
    for step, count in list(enumerate(animation.tasks))[tasks]:
        for unit in range(count):
            told = run_stage(handler, request, "animate", outline, step, unit)
    return told


def test_a_face_by_hand_is_in_pixels_of_the_photo(request_of_job: Request) -> None:
    """The photo is twice as large as the clip: in it the box is half as large, before and after the cache has it."""
    picture = cv2.resize(read_picture(request_of_job), (512, 512))
    put_picture(request_of_job, picture)
    request = replace(request_of_job, options={"face_box": [160, 120, 200, 240]})
    handler = Handler("cpu:0")
    outline = run_stage(handler, request, "inspect")["outline"]
    told = animate(handler, request, outline, slice(None))["outline"]
    assert (told["width"], told["height"]) == (256, 256)
    run_stage(handler, request, "prepare", told)
    again = run_stage(handler, request, "inspect")["outline"]
    assert again["animation"] is None
    assert again["details"] == told["details"]
    outside = replace(request, options={"face_box": [300, 300, 250, 100]})
    with pytest.raises(EngineError, match=r"bad_option: .*has 512 x 512 pixels"):
        run_stage(handler, outside, "inspect")


def test_a_face_that_the_clip_would_cut_off_is_refused_first(request_of_job: Request) -> None:
    """A clip is twice as wide as high at most, and shows the middle of the photo."""
    picture = read_picture(request_of_job)
    put_picture(request_of_job, cv2.copyMakeBorder(picture, 0, 0, 0, 1000, cv2.BORDER_CONSTANT, value=(90, 90, 90)))
    with pytest.raises(EngineError, match=r"no_face: the clip would show the middle of face\.jpg") as caught:
        run_stage(Handler("cpu:0"), request_of_job, "inspect")
    assert "middle" in caught.value.hint


def test_weights_that_are_replaced_meanwhile_make_no_clip(request_of_job: Request) -> None:
    """The cache would give it to jobs with the weights of before; the next attempt plans anew."""
    handler, weights = Handler("cpu:0"), Path(request_of_job.models_dir, WEIGHTS)
    outline = run_stage(handler, request_of_job, "inspect")["outline"]
    animate(handler, request_of_job, outline, slice(-1))
    before = stamp_request(request_of_job)
    weights.write_text('{"other": 1}')
    assert stamp_request(request_of_job) != before
    with pytest.raises(EngineError, match=r"weights_damaged: .*replaced while") as caught:
        animate(handler, request_of_job, outline, slice(-1, None))
    assert caught.value.retry
    assert not request_of_job.files.animation.exists()
    assert AvatarCache(Path(request_of_job.cache), 1 << 30).total_bytes == 0


@pytest.mark.parametrize("lost", ["state-0000.safetensors", "constants.safetensors", "plan.json"])
def test_files_that_a_power_cut_took_are_made_again(request_of_job: Request, lost: str) -> None:
    """Where one is missing or cut off, the work on the clip begins anew, and ends as it would have."""
    handler = Handler("cpu:0")
    outline = run_stage(handler, request_of_job, "inspect")["outline"]
    for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:7])):
        animate(handler, request_of_job, outline, slice(1))
        damage(request_of_job.files.animation / lost)
        with pytest.raises(EngineError, match="part_damaged") as caught:
            animate(handler, request_of_job, outline, slice(1, None))
        assert caught.value.retry
        assert not request_of_job.files.animation.exists()
    assert animate(handler, request_of_job, outline, slice(None))["outline"]["frames"] > 1


def test_a_clip_without_the_face_says_so(request_of_job: Request) -> None:
    """The photo has one: another seed may keep it."""
    handler = Handler("cpu:0")
    outline = run_stage(handler, request_of_job, "inspect")["outline"]
    animate(handler, request_of_job, outline, slice(-1))
    frames = MotionFiles(request_of_job.files.animation).frames
    for path in frames.iterdir():
        cv2.imwrite(str(path), np.full((256, 256, 3), 128, np.uint8))
    with pytest.raises(EngineError, match=r"no_face: the clip that was made of face\.jpg") as caught:
        animate(handler, request_of_job, outline, slice(-1, None))
    assert "motion.seed" in caught.value.hint


@pytest.mark.parametrize("kept", [100, 0])
def test_a_damaged_clip_of_the_cache_is_made_again(request_of_job: Request, kept: int) -> None:
    """An entry that is cut off, or of other bytes, counts as none."""
    handler = Handler("cpu:0")
    outline = run_stage(handler, request_of_job, "inspect")["outline"]
    animate(handler, request_of_job, outline, slice(None))
    assert run_stage(handler, request_of_job, "inspect")["outline"]["animation"] is None
    [clip] = Path(request_of_job.cache).glob(f"*/{CLIP}")
    whole = clip.read_bytes()
    clip.unlink()  # the job's own clip is another name of the same file
    clip.write_bytes(whole[:kept] if kept else bytes(len(whole)))
    assert run_stage(handler, request_of_job, "inspect")["outline"]["animation"] is not None


def test_the_files_of_each_engine_are_stamped(tmp_path: Path) -> None:
    """Those of the variant that a job asks for; nothing where there are none."""
    assert set(catalog.USED_FILES) == set(MOTION_ENGINES)
    for name in ("one", "two"):
        (tmp_path / "motion" / name).mkdir(parents=True)
        (tmp_path / "motion" / name / "model_index.json").write_text(json.dumps({"name": name}))
    first, one, two, none = (
        stamp_motion(tmp_path, {"engine": "diffusers", "variant": variant}) for variant in ("", "one", "two", "none")
    )
    assert first == one != two
    assert none == stamp_motion(tmp_path, {"engine": "musev", "base": ".."}) == ""
