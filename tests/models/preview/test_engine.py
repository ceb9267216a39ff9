"""The preview engine in the handler: stages on real files, and frames that depend on their number alone."""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from models import media
from models.arrays import U8
from models.handler import Handler
from models.preview.engine import PreviewEngine, cycle_frame, make_motion, measure_reference, open_faces
from models.preview.options import Options
from models.quality.measuring import measure_job
from models.types import EngineError, GivenVoice, Inspection, Output, Request
from tests.models.preview.portraits import find_face
from tests.share import EXAMPLES, face, voice


def request_for(tmp_path: Path, avatar: Path, seconds: float = 1.0, **options: Any) -> Request:
    audio = tmp_path / "voice.wav"
    audio.write_bytes(voice(seconds))
    folders: dict[str, Any] = {name: str(tmp_path / name) for name in ("work", "out", "cache", "models_dir")}
    for folder in folders.values():
        Path(folder).mkdir(exist_ok=True)
    return Request(engine="preview", avatar=str(avatar), audio=str(audio), options=options, **folders)


def portrait(tmp_path: Path) -> Path:
    path = tmp_path / "face.jpg"
    path.write_bytes(face(320))
    return path


def prepared(request: Request) -> tuple[PreviewEngine, Inspection]:
    inspection = Handler("cpu:0").inspect(request)
    engine = PreviewEngine("cpu:0")
    engine.prepare(request, inspection, 0, inspection.units["prepare"], lambda _: None)
    return engine, inspection


def test_another_seed_is_another_video(tmp_path: Path) -> None:
    """Of the same voice: other blinks and sways, and the same movement of the lips."""
    source = portrait(tmp_path)
    request = request_for(tmp_path, source)
    _, inspection = prepared(request)
    plain, same, other = (make_motion(request, inspection, Options(seed=seed)) for seed in (0, 0, 1))
    assert np.array_equal(plain["curve"], other["curve"])
    assert np.array_equal(plain["pose"], same["pose"])
    assert not np.array_equal(plain["pose"], other["pose"])


@pytest.mark.parametrize("avatar", ["image", "video"])
def test_a_frame_depends_on_its_number_alone(tmp_path: Path, avatar: str) -> None:
    """Any cut into spans gives the same frames to the last bit."""
    source = portrait(tmp_path) if avatar == "image" else EXAMPLES / "collins.mp4"
    engine, inspection = prepared(request_for(tmp_path, source))
    request = request_for(tmp_path, source)
    whole = list(engine.render(request, inspection, 0, 25))
    cut = [
        frame
        for a, b in ((0, 7), (7, 8), (8, 25))
        for frame in PreviewEngine("cpu:1").render(request, inspection, a, b)
    ]
    assert len(whole) == len(cut) == 25
    assert all(np.array_equal(one, other) for one, other in zip(whole, cut, strict=True))
    assert whole[0].shape == (inspection.height * 3 // 2, inspection.width)
    assert whole[0].dtype == np.uint8


def test_a_whole_job_by_its_stages(tmp_path: Path) -> None:
    """Inspect, prepare, render in two spans, assemble: a verified mp4 with a preview picture, and facts about it."""
    request = replace(request_for(tmp_path, portrait(tmp_path)), output=Output(height=200), fps="30000/1001")
    handler = Handler("cpu:0")
    message: dict[str, Any] = {"request": request.to_dict(), "outline": None}
    inspection = handler.run({**message, "stage": "inspect"}, 0, 1, lambda _: None)["outline"]
    assert (inspection["frames"], inspection["fps"], inspection["height"]) == (30, "30000/1001", 200)
    message["outline"] = inspection
    handler.run({**message, "stage": "prepare"}, 0, 1, lambda _: None)
    ticks: list[int] = []
    for start, stop in ((0, 20), (20, 30)):
        handler.run({**message, "stage": "render"}, start, stop, ticks.append)
    facts = handler.run({**message, "stage": "assemble", "spans": [[0, 20], [20, 30]]}, 0, 1, lambda _: None)
    assert ticks == [*range(1, 21), *range(1, 11)]
    assert facts["audio_codec"] == "aac"
    assert facts["label"] is True
    media.verify_video(tmp_path / "out" / "result.mp4", 30, Inspection.from_dict(inspection).rate)
    assert media.read_image(tmp_path / "out" / "preview.jpg", "preview").shape[0] == 200
    quality = facts["quality"]
    assert (quality["frames_measured"], quality["jitter"], quality["no_face"]) == (30, 0.0, 0.0)
    assert media.read_image(tmp_path / "out" / "contact.jpg", "contact").shape[0] > 3 * 180


def test_the_picture_is_measured_against_the_sound(tmp_path: Path) -> None:
    """The mouth of a real face follows a real voice at once, in a photo and in a video."""
    for avatar in ("collins.jpg", "collins.mp4"):
        folder = tmp_path / avatar
        folder.mkdir()
        request = replace(request_for(folder, EXAMPLES / avatar), audio=str(EXAMPLES / "hello.wav"))
        request = replace(request, output=Output(height=240))
        _, inspection = prepared(request)
        handler = Handler("cpu:0")
        handler.render(request, inspection, 0, 50, lambda _: None)
        handler.render(request, inspection, 50, inspection.frames, lambda _: None)
        figures = measure_job(handler.open_engine("preview"), request, inspection, [[0, 50], [50, inspection.frames]])
        assert figures is not None
        assert figures["frames_measured"] == inspection.frames
        assert figures["sync"] > 0.8
        assert abs(figures["lag_ms"]) < 25
        assert figures["sharpness"] > 0.4
        assert figures["seam"] < 3


def test_the_snapshot_is_what_is_used(tmp_path: Path) -> None:
    """After `inspect`, changes of the dropped files change nothing."""
    request = request_for(tmp_path, portrait(tmp_path))
    inspection = Handler("cpu:0").inspect(request)
    Path(request.avatar).write_bytes(b"gone")
    Path(request.audio).unlink()
    engine = PreviewEngine("cpu:0")
    engine.prepare(request, inspection, 0, 1, lambda _: None)
    assert len(list(engine.render(request, inspection, 0, 3))) == 3


def test_the_label_can_be_left_out(tmp_path: Path) -> None:
    """With label false the corner has the picture's own pixels."""
    source = portrait(tmp_path)
    engine, inspection = prepared(request_for(tmp_path, source, sway=False))
    with_label = next(engine.render(request_for(tmp_path, source, sway=False), inspection, 0, 1))
    without = next(engine.render(request_for(tmp_path, source, sway=False, label=False), inspection, 0, 1))
    assert not np.array_equal(with_label[:12, :60], without[:12, :60])
    own = media.PatchedPlanes(media.read_image(source, "face"), (0, 0, 0, 0), inspection.colour)
    assert np.array_equal(without[:12, :60], own.convert(media.read_image(source, "face"))[:12, :60])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lable": True}, 'did you mean "label"'),
        ({"label": "yes"}, "label"),
        ({"face": 5}, "largest"),
        ({"mouth": [1, 2]}, "mouth"),
        ({"strength": 9}, "strength"),
        ({"cycle": "random"}, "cycle"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], word: str) -> None:
    """Unknown names get the nearest known one, values out of range are refused."""
    with pytest.raises(EngineError) as refused:
        Handler("cpu:0").inspect(request_for(tmp_path, portrait(tmp_path), **options))
    assert refused.value.code == "bad_option"
    assert word in refused.value.message + refused.value.hint


def test_options_of_musetalk_are_noted_and_ignored(tmp_path: Path) -> None:
    """A job for `auto` may have options of MuseTalk; the result notes that they were ignored."""
    inspection = Handler("cpu:0").inspect(request_for(tmp_path, portrait(tmp_path), bbox_shift=5, batch_size=8))
    assert sum("musetalk" in note for note in inspection.notes) == 2


def test_no_face_is_said_with_what_to_do(tmp_path: Path) -> None:
    """A picture without a face gives an error with its name and a hint."""
    grey = tmp_path / "wall.png"
    cv2.imwrite(str(grey), np.full((200, 200, 3), 130, np.uint8))
    with pytest.raises(EngineError) as refused:
        Handler("cpu:0").inspect(request_for(tmp_path, grey))
    assert refused.value.code == "no_face"
    assert "wall.png" in refused.value.message
    assert "portrait" in refused.value.hint


def test_a_turned_picture_is_told(tmp_path: Path) -> None:
    """A portrait that lies on its side has no face, and the hint says how to turn it."""
    lying = np.ascontiguousarray(np.rot90(media.read_image(EXAMPLES / "collins.jpg", "collins.jpg")))
    path = tmp_path / "lying.png"
    cv2.imwrite(str(path), lying)
    with pytest.raises(EngineError) as raised:
        Handler("cpu:0").inspect(request_for(tmp_path, path))
    assert raised.value.code == "no_face"
    assert "turned by 90 degrees clockwise" in raised.value.hint


def test_preparation_is_kept_for_the_next_job(tmp_path: Path) -> None:
    """The same avatar with another voice uses the cached geometry, and nothing in the cache is a pickle."""
    request = request_for(tmp_path, EXAMPLES / "collins.mp4", 0.5)
    ticks: list[int] = []
    inspection = Handler("cpu:0").inspect(request)
    PreviewEngine("cpu:0").prepare(request, inspection, 0, inspection.units["prepare"], ticks.append)
    assert (max(ticks), inspection.units["prepare"]) == (1, 1)
    assert len(ticks) > 5, "a long preparation shows that it lives"
    other = replace(request, work=str(tmp_path / "work2"))
    again = Handler("cpu:0").inspect(other)
    ticks.clear()
    PreviewEngine("cpu:0").prepare(other, again, 0, again.units["prepare"], ticks.append)
    assert len(ticks) == 1
    for path in tmp_path.rglob("*.npz"):
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays.files)


def test_cycles_of_a_video() -> None:
    """Ping-pong turns round without a jump, loop starts over, hold stays at the end."""
    assert [cycle_frame(n, 3, "pingpong") for n in range(8)] == [0, 1, 2, 2, 1, 0, 0, 1]
    assert [cycle_frame(n, 3, "loop") for n in range(5)] == [0, 1, 2, 0, 1]
    assert [cycle_frame(n, 3, "hold") for n in range(5)] == [0, 1, 2, 2, 2]


def test_only_the_scene_is_painted(tmp_path: Path) -> None:
    """The encoder gets the planes of all other frames as they were decoded, and any cut gives the same frames."""
    request = replace(request_for(tmp_path, EXAMPLES / "collins.mp4", 0.6), from_s=0.4, to_s=0.8)
    engine, inspection = prepared(request)
    first, last = inspection.voices[0].start, inspection.voices[0].stop
    with media.VideoFrames(EXAMPLES / "collins.mp4", inspection.rate, as_yuv=True) as video:
        source = [video.read(n) for n in range(len(video))]
        assert inspection.colour == video.colour
    assert inspection.frames == len(source) > last > first > 0
    frames = list(engine.render(request, inspection, 0, inspection.frames))
    painted = [n for n, frame in enumerate(frames) if not np.array_equal(frame, source[n])]
    assert set(painted) == set(range(first, last)), "all of them have the label"
    cut = [
        frame
        for a, b in ((0, first + 1), (first + 1, last + 2), (last + 2, inspection.frames))
        for frame in PreviewEngine("cpu:1").render(request, inspection, a, b)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(frames, cut, strict=True))
    changed = [np.abs(frames[n].astype(int) - source[n])[100 : inspection.height] for n in range(first, last)]
    assert max(part.max() for part in changed) > 30, "a mouth has moved"
    assert all((part[:, : inspection.width // 8] == 0).all() for part in changed), "all around it is as decoded"


def test_a_still_moves_in_its_scene_alone(tmp_path: Path) -> None:
    """Before and after it the picture is as it was sent, and the movement ends where it began."""
    source = portrait(tmp_path)
    request = replace(request_for(tmp_path, source, 1.0, label=False), from_s=0.2, to_s=0.8)
    engine, inspection = prepared(request)
    assert (inspection.frames, inspection.voices[0].frames) == (20, range(5, 20))
    longer = replace(inspection, frames=30)
    frames = list(engine.render(request, inspection, 0, 20))
    with media.VideoFrames(source, longer.rate, inspection.width, inspection.height, as_yuv=True) as picture:
        own = picture.read(0)
    assert all(np.array_equal(frame, own) for frame in frames[:5])
    moved = [np.abs(frame.astype(int) - own).max() for frame in frames[5:]]
    assert moved[5] > 30


def draw_cartoon(path: Path, width: int = 320, height: int = 240) -> Path:
    """Write a face that no detector knows: two dots and a line on a disc."""
    picture = np.full((height, width, 3), (200, 220, 160), np.uint8)
    cv2.circle(picture, (160, 120), 90, (90, 200, 250), -1)
    for x in (130, 190):
        cv2.circle(picture, (x, 95), 9, (20, 20, 20), -1)
    cv2.line(picture, (130, 160), (190, 160), (40, 40, 120), 4)
    cv2.imwrite(str(path), picture)
    return path


def test_a_face_given_by_its_box_is_not_searched(tmp_path: Path) -> None:
    """A cartoon talks inside its box, in the size of the result, and nowhere else."""
    source = draw_cartoon(tmp_path / "cat.png")
    wishes: dict[str, Any] = {"face_box": [80, 40, 160, 160], "label": False, "sway": False, "blink": False}
    with pytest.raises(EngineError, match="no_face"):
        Handler("cpu:0").inspect(request_for(tmp_path, source))
    request = replace(request_for(tmp_path, source, **wishes), output=Output(height=120))
    engine, inspection = prepared(request)
    assert (inspection.width, inspection.height) == (160, 120)
    assert open_faces(request, inspection)[0].references[0].face.landmarks.is_guess, "so it does not blink"
    frames = np.stack(list(engine.render(request, inspection, 0, 25)))[:, : inspection.height]
    rows, columns = np.nonzero((frames != frames[0]).any(0))
    assert len(rows) > 50
    assert (columns.min() > 40, columns.max() < 120, rows.min() > 50, rows.max() < 115) == (True,) * 4


@pytest.mark.parametrize("box", [[0, 0, 15, 40], [300, 0, 40, 40], [0, 220, 40, 40], [0, 0, 0, 0]])
def test_a_face_box_is_inside_of_the_picture(tmp_path: Path, box: list[float]) -> None:
    """The refusal says how large the picture is."""
    source = draw_cartoon(tmp_path / "cat.png")
    with pytest.raises(EngineError) as refused:
        Handler("cpu:0").inspect(request_for(tmp_path, source, face_box=box))
    assert (refused.value.code, "320 x 240" in refused.value.message) == ("bad_option", True)


def write_pair(path: Path) -> Path:
    """Write a picture of two faces beside each other."""
    one = media.read_image(EXAMPLES / "collins.jpg")
    one = np.asarray(cv2.resize(one, (round(one.shape[1] * 240 / one.shape[0]), 240)), np.uint8)
    cv2.imwrite(str(path), np.concatenate([one, one[:, ::-1]], axis=1))
    return path


def test_each_face_speaks_with_its_own_voice(tmp_path: Path) -> None:
    """The left one from the start, the right one later; who doesn't speak keeps the mouth as it is."""
    wishes: dict[str, Any] = {"label": False, "blink": False}
    request = request_for(tmp_path, write_pair(tmp_path / "two.png"), 0.6, **wishes)
    (tmp_path / "b.wav").write_bytes(voice(0.6))
    given: dict[str, Any] = {"media": {"audio-1": str(tmp_path / "b.wav")}}
    request = replace(request, voices=(GivenVoice(0), GivenVoice(1, 0.8)), **given)
    engine, inspection = prepared(request)
    assert inspection.frames == 35
    frames = np.stack(list(engine.render(request, inspection, 0, 35)))
    middle = inspection.width // 2
    light = frames[:, : inspection.height].astype(int)
    left, right = light[:, :, :middle], light[:, :, middle:]
    motion = [np.ptp(part, axis=0).max() for part in (left[:15], left[20:], right[:18], right[20:])]
    assert min(motion[0], motion[3]) > 30, motion
    assert max(motion[1], motion[2]) < 15, motion
    cut = [frame for a, b in ((0, 11), (11, 35)) for frame in PreviewEngine("cpu:1").render(request, inspection, a, b)]
    assert np.array_equal(frames, np.stack(cut))


def test_a_face_that_is_not_there_has_no_voice(tmp_path: Path) -> None:
    """The refusal says how many faces there are."""
    request = replace(request_for(tmp_path, portrait(tmp_path), 0.2), voices=(GivenVoice(2),))
    with pytest.raises(EngineError) as refused:
        Handler("cpu:0").inspect(request)
    assert (refused.value.code, "number 2" in refused.value.message) == ("bad_option", True)


def draw_cut_out(path: Path) -> Path:
    """Write a portrait that is cut out: transparent beside the head, with a soft edge."""
    import cv2

    picture = media.read_image(portrait(path.parent))
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    reach = np.hypot((x - width / 2) / (width * 0.45), (y - height / 2) / (height * 0.48))
    opacity = np.clip((1 - reach) * 400 + 128, 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), np.dstack([picture, opacity]))
    return path


def test_a_colour_or_a_picture_is_behind_a_cut_out_face(tmp_path: Path) -> None:
    """The background is seen in the corners of every frame, the face is as over white, and the note on it is none."""
    import cv2

    source = draw_cut_out(tmp_path / "face.png")
    request = request_for(tmp_path, source, 0.4, label=False)
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((50, 90, 3), (40, 30, 20), np.uint8))
    wishes: tuple[tuple[dict[str, Any], tuple[int, int, int]], ...] = (
        ({"background": "#00b140"}, (64, 177, 0)),
        ({"media": {"background": str(tmp_path / "wall.png")}}, (40, 30, 20)),
    )
    for number, (asked, bgr) in enumerate(wishes):
        (tmp_path / f"work-{number}").mkdir()
        one = replace(request, work=str(tmp_path / f"work-{number}"), **asked)
        engine, inspection = prepared(one)
        assert not any("transparen" in note for note in inspection.notes)
        frames = np.stack(
            [media.yuv_to_bgr(frame, inspection.colour) for frame in engine.render(one, inspection, 0, 10)]
        )
        assert np.abs(frames[:, :4, :4].astype(int) - bgr).max() <= 2
        assert np.ptp(frames, axis=0).max() > 30


@pytest.mark.parametrize("still", [True, False])
def test_a_whole_job_keeps_transparency(tmp_path: Path, *, still: bool) -> None:
    """A mov with colours and opacity of the avatar, which moves with the head; preview.jpg is over white."""
    name = "face.png" if still else "face.mov"
    source = draw_cut_out(tmp_path / "face.png")
    if not still:
        image = media.read_image(source)
        with av.open(str(tmp_path / name), "w") as output:
            stream = output.add_stream("png", rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], "rgba"
            with av.open(str(source)) as stored:
                picture = next(stored.decode(video=0))
            for pts in range(5):
                picture.pts, picture.time_base = pts, Fraction(1, 25)
                output.mux(stream.encode(picture))
            output.mux(stream.encode(None))
    request = replace(request_for(tmp_path, tmp_path / name, 0.4, label=False), output=Output(alpha=True))
    handler = Handler("cpu:0")
    inspection = handler.inspect(request)
    handler.prepare(request, inspection, 0, 1, lambda _: None)
    for start, stop in ((0, 4), (4, 10)):
        handler.render(request, inspection, start, stop, lambda _: None)
    facts = handler.assemble(request, inspection, [[0, 4], [4, 10]])
    assert facts["encoder"] == "prores_ks"
    with av.open(str(tmp_path / "out" / "result.mov")) as container:
        shown = np.stack([frame.to_ndarray(format="rgba") for frame in container.decode(video=0)])
    with av.open(str(source)) as stored:
        own = next(stored.decode(video=0)).to_ndarray(format="rgba")
    height, width = shown.shape[1:3]
    assert shown.shape[0] == 10
    assert shown[:, :4, :4, 3].max() <= 1
    assert shown[:, height // 2, width // 2, 3].min() >= 253
    soft = np.abs(shown[0, ..., 3].astype(int) - own[:height, :width, 3])
    assert np.median(soft) <= 1
    top = own[:60, width // 2]
    assert np.abs(shown[0, :60, width // 2, :3].astype(int) - top[:, :3])[top[:, 3] > 200].mean() < 12
    assert media.read_image(tmp_path / "out" / "preview.jpg")[:4, :4].min() > 250


def write_film(path: Path, pictures: list[U8]) -> Path:
    """Write a video of these pictures, 25 a second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        (stream.height, stream.width), stream.pix_fmt = pictures[0].shape[:2], "yuv420p"
        for picture in pictures:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "bgr24")))
        output.mux(stream.encode(None))
    return path


def test_each_shot_keeps_its_own_chin(tmp_path: Path) -> None:
    """A person with a blue chin, a cut, and one without: nobody gets the chin of the other, in any cut into spans."""
    picture = media.read_image(EXAMPLES / "collins.jpg", "collins.jpg")
    blue, (x, y, w, h) = picture.copy(), find_face(picture).box
    chin = np.asarray(blue[round(y + 0.9 * h) : round(y + h), round(x + 0.3 * w) : round(x + 0.7 * w)])
    chin[..., 0], chin[..., 2] = 220, chin[..., 2] // 3
    other = np.asarray(cv2.copyMakeBorder(picture[:, ::-1], 0, 200, 200, 0, cv2.BORDER_REFLECT), np.uint8)
    other = np.asarray(cv2.resize(other, picture.shape[1::-1]), np.uint8)
    path = write_film(tmp_path / "cut.mp4", [blue] * 12 + [other] * 12)
    request = request_for(tmp_path, path, label=False)
    engine, inspection = prepared(request)
    frames = list(engine.render(request, inspection, 0, 24))
    blues = [int((media.split_planes(frame)[1] > 150).sum()) for frame in frames]
    assert min(blues[:12]) > 100
    assert max(blues[12:]) == 0
    moved = np.ptp(np.stack(frames)[12:, : inspection.height].astype(int), 0)
    assert moved.max() > 30, "the second one speaks as well"
    cut = [frame for a, b in ((0, 9), (9, 13), (13, 24)) for frame in engine.render(request, inspection, a, b)]
    assert np.array_equal(np.stack(frames), np.stack(cut))


def test_a_given_mouth_is_not_that_of_another_shot(tmp_path: Path) -> None:
    """A box around the mouth of the first shot counts there, and not in a shot with the face elsewhere."""
    request = request_for(tmp_path, EXAMPLES / "collins.jpg")
    inspection = Handler("cpu:0").inspect(request)
    picture = media.read_image(EXAMPLES / "collins.jpg", "collins.jpg")
    face, moved = find_face(picture), np.array([[1.0, 0, 0], [0, 1, -90]])
    higher = np.asarray(cv2.warpAffine(picture, moved, picture.shape[1::-1], borderMode=cv2.BORDER_REFLECT), np.uint8)
    x, y = np.mean(face.landmarks.points[8:10], 0) - (40, 15)
    given = Options(mouth=[round(float(x)), round(float(y)), 80, 30])
    frames = [(picture, 0, given), (picture, 1, given), (higher, 1, given), (higher, 1, Options())]
    first, same, elsewhere, found = (
        measure_reference(shown, np.array(face.eyes) - (0, 90 * (shown is higher)), shot, options, request, inspection)
        for shown, shot, options in frames
    )
    assert first.mouth == same.mouth
    assert elsewhere.mouth == found.mouth


def test_a_face_that_flashes_up_changes_no_frame(tmp_path: Path) -> None:
    """A face in one frame of a second is too short to be followed: the video stays as it is, and a note says so."""
    picture = media.read_image(EXAMPLES / "collins.jpg", "collins.jpg")[:320, 160:480]
    path = write_film(tmp_path / "flash.mp4", [picture if n == 2 else np.full_like(picture, 90) for n in range(24)])
    request = request_for(tmp_path, path, label=False)
    engine, inspection = prepared(request)
    frames = list(engine.render(request, inspection, 3, 20))
    assert all(np.ptp(plane) < 12 for frame in frames for plane in media.split_planes(frame))
    assert any("no face was seen in 24 frames" in note for note in engine.report(request, inspection)["notes"])


def read_bgr(path: Path) -> Any:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture.astype(int)


@pytest.mark.parametrize("avatar", ["image", "video"])
def test_a_draft_is_one_frame_with_the_box_of_the_face(tmp_path: Path, avatar: str) -> None:
    """However long the voice is, one frame is rendered; it differs from the picture by the box alone."""
    source = portrait(tmp_path) if avatar == "image" else EXAMPLES / "collins.mp4"
    request = request_for(tmp_path, source, seconds=3.0, draft=True)
    result = Handler("cpu:0").run({"stage": "inspect", "request": request.to_dict(), "goes_on": True}, 0, 1, print)
    assert result["outline"]["frames"] == 1
    assert result["facts"]["label"] is False
    x, y, w, h = result["outline"]["details"]["face"]
    shown = read_bgr(tmp_path / "out" / "preview.jpg")
    with media.VideoFrames(source, Fraction(25)) if avatar == "video" else nullcontext() as video:
        plain = video.read(0).astype(int) if video else read_bgr(source)
    changed = np.abs(shown - plain[: shown.shape[0], : shown.shape[1]]).max(2) > 90
    rows, columns = np.nonzero(changed)
    assert abs(columns.min() - x) < 8
    assert abs(rows.max() - (y + h)) < 8
    assert not changed[round(y + h / 3) : round(y + h / 2), round(x + w / 3) : round(x + w / 2)].any()
