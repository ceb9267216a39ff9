"""The stages that need networks, on tiny weights: what is prepared, and which frames are rendered from it."""

from __future__ import annotations

import io
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models import media
from models.handler import Handler
from models.musetalk import session
from models.musetalk.avatar.frames import open_yuv
from models.musetalk.avatar.store import PreparedAvatar
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.inpainting.inpainter import Inpainter
from models.musetalk.networks import Networks
from models.types import EngineError, GivenVoice, Output
from tests.models.musetalk import tiny
from tests.models.musetalk.jobs import make_request, prepare_job, write_image, write_video
from tests.share import voice


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.lay_out(tmp_path_factory.mktemp("models"))


def test_a_frame_depends_on_its_number_alone(tmp_path: Path, models_dir: Path) -> None:
    """However the frames are cut into spans, and whichever worker renders them, each is the same to the last bit."""
    avatar = write_video(tmp_path / "face.mp4", [True] * 3 + [False] + [True] * 2)
    request = make_request(tmp_path, models_dir, avatar, 0.6)
    engine, outline = prepare_job(request)
    whole = list(engine.render(request, outline, 0, 15))
    other = MuseTalkEngine("cpu:1")
    cut = [frame for a, b in ((0, 5), (5, 6), (6, 15)) for frame in other.render(request, outline, a, b)]
    assert len(whole) == len(cut) == 15
    assert all(np.array_equal(one, another) for one, another in zip(whole, cut, strict=True))
    assert whole[0].shape == (tiny.HEIGHT * 3 // 2, tiny.WIDTH)


def test_spans_that_follow_each_other_decode_the_avatar_once(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker goes on in the open video, whose beginning it would decode again otherwise; the last span closes it."""
    request = make_request(tmp_path, models_dir, write_video(tmp_path / "face.mp4", [True] * 15), 0.6)
    engine, outline = prepare_job(request)
    videos: list[media.VideoFrames] = []

    def note(*given: Any) -> media.VideoFrames:
        videos.append(open_yuv(*given))
        return videos[-1]

    monkeypatch.setattr(session, "open_yuv", note)
    whole = list(engine.render(request, outline, 0, 15))
    cut = [frame for a, b in ((0, 5), (5, 6), (6, 15)) for frame in engine.render(request, outline, a, b)]
    assert all(np.array_equal(one, another) for one, another in zip(whole, cut, strict=True))
    assert len(videos) == 2
    kept = engine.open_session(request, outline)._video
    assert kept._video is None
    list(engine.render(request, outline, 0, 5))
    assert kept._video is videos[2]
    list(engine.render(replace(request, out="of the next attempt"), outline, 5, 6))
    assert (len(videos), kept._video) == (4, videos[3])
    list(engine.render(request, outline, 0, 5))
    broken = engine.render(request, outline, 5, 15)
    next(broken)
    broken.close()
    assert kept._video is None


def test_the_mouth_moves_and_all_else_is_the_avatar(tmp_path: Path, models_dir: Path) -> None:
    """Frames differ from the source inside the face box only, and from each other there."""
    avatar = write_video(tmp_path / "face.mp4", [True])
    request = make_request(tmp_path, models_dir, avatar)
    engine, outline = prepare_job(request)
    frames = [media.split_planes(frame)[0] for frame in engine.render(request, outline, 0, 4)]
    with media.VideoFrames(avatar, outline.rate, as_yuv=True) as video:
        source = media.split_planes(video.read(0))[0]
    x1, y1, x2, y2 = PreparedAvatar(request.files.prepared / "avatar").box(0)
    inside = np.zeros(source.shape, bool)
    inside[y1 : y2 + 1, x1 : x2 + 1] = True
    for frame in frames:
        assert np.array_equal(frame[~inside], source[~inside])
        assert (frame[inside] != source[inside]).any()
    assert any((one != frames[0]).any() for one in frames[1:])


@pytest.mark.parametrize(("border", "height", "size"), [(1, None, (160, 128)), (0, 96, (120, 96))])
def test_any_size(tmp_path: Path, models_dir: Path, border: int, height: int | None, size: tuple[int, int]) -> None:
    """An odd picture loses its last row and column, a smaller one is asked for: in both the mouth is inpainted."""
    picture = cv2.copyMakeBorder(tiny.picture(), 0, border, 0, border, cv2.BORDER_REPLICATE)
    cv2.imwrite(str(tmp_path / "face.png"), picture)
    request = replace(make_request(tmp_path, models_dir, tmp_path / "face.png"), output=Output(height=height))
    engine, outline = prepare_job(request)
    assert (outline.width, outline.height) == size
    [frame] = engine.render(request, outline, 3, 4)
    with open_yuv(request, outline) as video:
        assert 0.01 < (frame != video.read(0)).mean() < 0.25


def test_the_second_job_prepares_nothing(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another voice on the same avatar: no network looks at it again, and the result says so."""
    avatar = write_image(tmp_path / "face.png")
    first = make_request(tmp_path, models_dir, avatar)
    engine, outline = prepare_job(first)
    for look in ("detect", "find_landmarks", "parse_faces", "encode_faces"):
        monkeypatch.setattr(Networks, look, None)
    second = make_request(tmp_path, models_dir, avatar, 0.2, job="second", cycle="loop")
    again, shorter = prepare_job(second)
    assert [
        e.report(r, o)["musetalk"]["avatar_from_cache"]
        for e, r, o in ((engine, first, outline), (again, second, shorter))
    ] == [False, True]
    assert len(list(again.render(second, shorter, 0, shorter.frames))) == 5


def test_frames_without_a_face_are_kept_and_told(tmp_path: Path, models_dir: Path) -> None:
    """Such frames are the source's own, their neighbours fade, and result.json gives the ranges."""
    faces = [True] * 8 + [False] * 2 + [True] * 8
    avatar = write_video(tmp_path / "face.mp4", faces)
    request = make_request(tmp_path, models_dir, avatar, 0.72)
    engine, outline = prepare_job(request)
    frames = list(engine.render(request, outline, 0, outline.frames))
    with media.VideoFrames(avatar, outline.rate, as_yuv=True) as video:
        source = [video.read(number) for number in range(18)]
    changed = [float((a != b).mean()) for a, b in zip(frames, source, strict=True)]
    assert changed[8:10] == [0, 0]
    assert min(changed[:8] + changed[10:]) > 0
    report = engine.report(request, outline)
    assert report["musetalk"]["no_face"] == [[8, 10]]
    assert report["notes"] == ["2 of 18 frames show no face; they are left as they are"]
    strength = [float(np.abs(a.astype(int) - b).sum()) for a, b in zip(frames, source, strict=True)]
    assert strength[7] < 0.6 * strength[0]


def test_no_face_can_be_an_error(tmp_path: Path, models_dir: Path) -> None:
    """With `fail` the first frame without a face is named, and nothing is left that looks prepared."""
    avatar = write_video(tmp_path / "face.mp4", [True, True, False, True])
    request = make_request(tmp_path, models_dir, avatar, no_face="fail")
    with pytest.raises(EngineError) as refused:
        prepare_job(request)
    assert (refused.value.code, refused.value.message) == ("no_face", "frame 2 of face.mp4 (0.08 s) shows no face")
    assert not request.files.prepared.exists()


def test_an_avatar_without_any_face_is_refused(tmp_path: Path, models_dir: Path) -> None:
    """The file is named, and what to do; the cache holds nothing of it."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "wall.png", face=False))
    with pytest.raises(EngineError) as refused:
        prepare_job(request)
    assert refused.value.code == "no_face"
    assert "wall.png" in refused.value.message
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_face_that_is_not_there(tmp_path: Path, models_dir: Path) -> None:
    """Asking for the second of one face says how many there are."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), face=1)
    with pytest.raises(EngineError) as refused:
        prepare_job(request)
    assert refused.value.code == "bad_option"
    assert "shows 1" in refused.value.message


def test_silence_settles_to_the_avatars_own_mouth(tmp_path: Path, models_dir: Path) -> None:
    """With `close`, a pause of two seconds shows the source's frames, fading in and out."""
    with wave.open(io.BytesIO(voice(1.2))) as sound:
        rate, speech = sound.getframerate(), sound.readframes(sound.getnframes())
        params = sound.getparams()
    avatar = write_image(tmp_path / "face.png")
    request = make_request(tmp_path, models_dir, avatar, silence="close")
    with wave.open(request.audio, "wb") as sound:
        sound.setparams(params)
        sound.writeframes(speech + bytes(2 * rate * params.sampwidth * params.nchannels) + speech)
    engine, outline = prepare_job(request)
    silent = engine.report(request, outline)["musetalk"]["silent"]
    [[start, stop]] = [interval for interval in silent if interval[1] - interval[0] > 25]
    assert start / 25 == pytest.approx(1.2, abs=0.4)
    assert stop / 25 == pytest.approx(3.2, abs=0.4)
    frames = list(engine.render(request, outline, start - 2, start + 1))
    with media.VideoFrames(avatar, outline.rate, as_yuv=True) as video:
        source = video.read(0)
    assert np.array_equal(frames[2], source)
    strength = [np.abs(frame.astype(int) - source).sum() for frame in frames]
    assert strength[0] > strength[1] > strength[2] == 0


def test_a_cancelled_preparation_leaves_nothing(tmp_path: Path, models_dir: Path) -> None:
    """Stopped in the middle, neither the cache nor the job holds half an avatar; the next try starts over."""
    request = make_request(tmp_path, models_dir, write_video(tmp_path / "face.mp4", [True] * 5))
    outline = Handler("cpu:0").inspect(request)
    ticks = 0

    def cancelled(_: int) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 4:
            raise InterruptedError

    engine = MuseTalkEngine("cpu:0")
    with pytest.raises(InterruptedError):
        engine.prepare(request, outline, 0, 1, cancelled)
    assert not request.files.prepared.exists()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    engine.prepare(request, outline, 0, 1, lambda _: None)
    assert len(PreparedAvatar(request.files.prepared / "avatar")) == 5


def test_a_sound_shorter_than_a_frame(tmp_path: Path, models_dir: Path) -> None:
    """40 ms of sound at 5 frames a second are one frame, inpainted like any other."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"), 0.05)
    request = replace(request, fps="5")
    engine, outline = prepare_job(request)
    assert outline.frames == 1
    assert len(list(engine.render(request, outline, 0, 1))) == 1


def test_memory_that_runs_out_is_named(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even one frame at a time fits, the job learns that memory ran out and may be tried again."""
    request = make_request(tmp_path, models_dir, write_image(tmp_path / "face.png"))
    engine, outline = prepare_job(request)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Inpainter, "_launch", full)
    with pytest.raises(EngineError) as refused:
        list(engine.render(request, outline, 0, 2))
    assert (refused.value.code, refused.value.retry) == ("out_of_memory", True)


def test_only_the_scene_is_painted(tmp_path: Path, models_dir: Path) -> None:
    """All other frames are the film's own planes; only those of the scene are prepared, and any cut is the same."""
    avatar = write_video(tmp_path / "face.mp4", [True] * 12)
    request = replace(make_request(tmp_path, models_dir, avatar, 0.2), from_s=0.16, to_s=0.32)
    engine, inspection = prepare_job(request)
    assert (inspection.frames, inspection.voices[0].frames) == (12, range(4, 8))
    assert len(PreparedAvatar(request.files.prepared / "avatar")) == 4
    frames = list(engine.render(request, inspection, 0, 12))
    cut = [frame for a, b in ((0, 5), (5, 9), (9, 12)) for frame in engine.render(request, inspection, a, b)]
    assert all(np.array_equal(one, other) for one, other in zip(frames, cut, strict=True))
    with media.VideoFrames(avatar, inspection.rate, as_yuv=True) as video:
        changed = [not np.array_equal(frame, video.read(n)) for n, frame in enumerate(frames)]
    assert changed == [False] * 4 + [True] * 4 + [False] * 4
    report = engine.report(request, inspection)
    assert 4 <= report["thumbnail_frame"] < 8


def test_a_scene_is_no_reference(tmp_path: Path, models_dir: Path) -> None:
    """The original program has no scenes."""
    avatar = write_video(tmp_path / "face.mp4", [True] * 4)
    request = replace(make_request(tmp_path, models_dir, avatar, 0.1, reference=True), from_s=0.04)
    with pytest.raises(EngineError) as refused:
        prepare_job(request)
    assert (refused.value.code, "reference" in refused.value.message) == ("bad_option", True)


def test_a_face_box_is_in_pixels_of_the_avatar(tmp_path: Path, models_dir: Path) -> None:
    """A picture without a face is repainted in the box, scaled as the result is."""
    avatar = write_image(tmp_path / "cat.png", face=False)
    request = make_request(tmp_path, models_dir, avatar, face_box=[48, 24, 64, 72], extra_margin=0)
    request = replace(request, output=Output(height=64))
    engine, inspection = prepare_job(request)
    assert inspection.details["face_box"] == (24, 12, 32, 36)
    assert PreparedAvatar(request.files.prepared / "avatar").box(0) == (24, 12, 56, 48)
    first, second = engine.render(request, inspection, 0, 2)
    assert first.shape == second.shape
    with pytest.raises(EngineError) as refused:
        prepare_job(make_request(tmp_path, models_dir, avatar, job="other", face_box=[150, 0, 20, 20]))
    assert refused.value.code == "bad_option"


def test_two_faces_are_painted_in_one_render(tmp_path: Path, models_dir: Path) -> None:
    """Each in its own half, any cut is the same, and a second job has both avatars from the cache."""
    picture = np.concatenate([tiny.picture(), tiny.picture()], axis=1)
    cv2.imwrite(str(tmp_path / "two.png"), picture)
    (tmp_path / "b.wav").write_bytes(voice(0.2))
    given: dict[str, Any] = {"media": {"audio-1": str(tmp_path / "b.wav")}}
    request = make_request(tmp_path, models_dir, tmp_path / "two.png", 0.2)
    request = replace(request, voices=(GivenVoice(0), GivenVoice(1, 0.12)), **given)
    engine, inspection = prepare_job(request)
    assert (inspection.frames, inspection.faces_needed) == (8, 2)
    frames = list(engine.render(request, inspection, 0, 8))
    cut = [frame for a, b in ((0, 3), (3, 8)) for frame in engine.render(request, inspection, a, b)]
    assert all(np.array_equal(one, other) for one, other in zip(frames, cut, strict=True))
    with open_yuv(request, inspection) as video:
        changed = (frames[4] != video.read(0))[: inspection.height]
    columns = np.flatnonzero(changed.any(0))
    boxes = [PreparedAvatar(request.files.prepared / name / "avatar").box(0) for name in (".", "voice-1")]
    assert boxes[0][2] <= tiny.WIDTH <= boxes[1][0]
    assert all(any(x1 <= column <= x2 for column in columns) for x1, _, x2, _ in boxes)
