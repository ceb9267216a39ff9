"""Scenes of films and several sounds, in the whole daemon."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from models.arrays import F32
from models.media.audio.sound import read_waveform
from tests.media_samples import sound, tone
from tests.models.media.heic_files import write_heic
from tests.models.preview.test_engine import draw_cut_out, write_pair
from tests.share import EXAMPLES, Share, face, until, voice

RATE = 16_000


@pytest.fixture
def share(make_share: Callable[..., Share]) -> Share:
    started = make_share(workers=2)
    started.start()
    return started


def write_film(path: Path) -> bytes:
    """Return the example's video with a tone as its sound."""
    with av.open(str(EXAMPLES / "collins.mp4")) as source, av.open(str(path), "w", format="mp4") as film:
        picture = film.add_stream_from_template(source.streams.video[0])
        track = film.add_stream("aac", rate=RATE, layout="mono")
        assert isinstance(track, av.AudioStream)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = picture
                film.mux(packet)
        frame = av.AudioFrame.from_ndarray(tone(2.0, hz=2000)[None], "fltp", "mono")
        frame.sample_rate = RATE
        film.mux([*track.encode(frame), *track.encode(None)])
    return path.read_bytes()


def has_tone(wave: F32, start_s: float, stop_s: float, hz: float) -> bool:
    """Whether most of the sound between two seconds is a tone of that frequency."""
    part = wave[round(start_s * RATE) : round(stop_s * RATE)]
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(part), 1 / RATE) - hz) < 50
    return bool(power[near].sum() > 0.8 * power.sum())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_numbered_pictures_in_the_library_are_an_avatar(share: Share) -> None:
    """A job names the folder; the result has the rate that it asks for, and the folder stays where it is."""
    folder = share.folder / "avatars" / "eva"
    folder.mkdir(parents=True)
    for number in (1, 2, 10):
        (folder / f"{number:04}.jpg").write_bytes(face())
    share.put("line.wav", voice(0.5))
    share.drop("pictures", avatar="eva", audio="line.wav", fps=20)
    assert share.wait_for("pictures", "done", "failed")["state"] == "done", share.log()
    with av.open(str(share.outbox / "pictures" / "result.mp4")) as video:
        assert video.streams.video[0].average_rate == 20
        assert video.streams.video[0].frames == 10
    assert sorted(path.name for path in folder.iterdir()) == ["0001.jpg", "0002.jpg", "0010.jpg"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_scene_of_a_film_is_dubbed(share: Share, tmp_path: Path) -> None:
    """The result is the film with its sound; the voice has the scene, and one device or two make the same bytes."""
    film, line = write_film(tmp_path / "film.mp4"), sound(tmp_path / "line.wav", tone(0.6, hz=500)).read_bytes()
    for count, strategy in enumerate(("queue", "split"), 1):
        share.put("film.mp4", film)
        share.put("line.wav", line)
        share.drop("dub", avatar="film.mp4", audio="line.wav", from_s=0.4, to_s=1.0, strategy=strategy)
        until(lambda count=count: len(share.rows()) == count, 30, share.log)  # type: ignore[misc]
        assert share.wait_for("dub", "done", "failed", timeout_s=200)["state"] == "done", share.log()
    one, two = (share.outbox / name / "result.mp4" for name in ("dub", "dub-2"))
    assert one.read_bytes() == two.read_bytes()
    result = share.result("dub")
    with av.open(str(EXAMPLES / "collins.mp4")) as source:
        assert result["frames"] == source.streams.video[0].frames
    [[start, stop]] = result["painted"]
    assert 0 < start < stop < result["frames"]
    heard = read_waveform(one, RATE)
    assert has_tone(heard, 0.05, 0.38, 2000)
    assert has_tone(heard, 0.43, 0.97, 500)
    assert has_tone(heard, 1.03, 1.3, 2000)


@pytest.mark.slow
def test_music_is_heard_beside_the_voice(share: Share, tmp_path: Path) -> None:
    """Both are in the result, and the soundtrack is archived with the job."""
    share.put("face.jpg", face())
    share.put("voice.wav", voice(1.0))
    share.drop("song", avatar="face.jpg", audio="voice.wav", soundtrack="music.wav", soundtrack_db=6)
    share.wait_for("song", "waiting")
    share.put("music.wav", sound(tmp_path / "music.wav", tone(3.0, hz=3000)).read_bytes())
    assert share.wait_for("song", "done", "failed")["state"] == "done", share.log()
    result = share.result("song")
    assert (result["frames"], result["soundtrack"]["given"], result["audio_copied"]) == (25, "music.wav", False)
    heard = read_waveform(share.outbox / "song" / "result.mp4", RATE)
    assert has_tone(heard, 0.1, 0.9, 3000)
    assert not has_tone(read_waveform(EXAMPLES / "speech.wav", RATE), 0.1, 0.9, 3000)


@pytest.mark.slow
def test_a_scene_after_the_end_of_its_film_fails(share: Share) -> None:
    """With its code, and a hint that says what the times mean."""
    share.put("film.mp4", (EXAMPLES / "collins.mp4").read_bytes())
    share.put("voice.wav", voice(1.0))
    share.drop("late", avatar="film.mp4", audio="voice.wav", from_s=3600)
    assert share.wait_for("late", "done", "failed")["state"] == "failed"
    error = share.error("late")
    assert (error["code"], "film.mp4 ends" in error["message"]) == ("bad_value", True)
    assert "from_s" in error["hint"]


@pytest.mark.slow
def test_jobs_of_duix_avatar(share: Share) -> None:
    """File names are understood as `avatar` and `audio`; a real URL is refused by name."""
    share.put("face.jpg", face())
    share.put("voice.wav", voice(0.4))
    share.drop("duix", code="c-1", video_url="face.jpg", audio_url="voice.wav", chaofen=0, watermark_switch=0, pn=1)
    share.drop("web", code="c-2", video_url="face.jpg", audio_url="https://example.org/voice.wav")
    assert share.wait_for("web", "done", "failed")["error_code"] == "bad_value"
    assert "https://" in share.error("web")["message"]
    assert share.wait_for("duix", "done", "failed")["state"] == "done", share.log()
    assert share.result("duix")["id"] == "c-1"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_faces_speak_with_two_voices(share: Share, tmp_path: Path) -> None:
    """One render has both; the sound is the mix, and all files are archived with the job."""
    share.put("two.png", write_pair(tmp_path / "two.png").read_bytes())
    share.put("a.wav", voice(0.6))
    share.put("b.wav", sound(tmp_path / "b.wav", tone(0.6, hz=500)).read_bytes())
    share.drop(
        "talk", avatar="two.png", voices=[{"face": 0, "audio": "a.wav"}, {"face": 1, "audio": "b.wav", "FromS": 1}]
    )
    assert share.wait_for("talk", "done", "failed", timeout_s=200)["state"] == "done", share.log()
    result = share.result("talk")
    assert (result["frames"], [voice["face"] for voice in result["voices"]]) == (40, [0, 1])
    assert [voice["given"] for voice in result["voices"]] == ["a.wav", "b.wav"]
    assert has_tone(read_waveform(share.outbox / "talk" / "result.mp4", RATE), 1.05, 1.55, 500)
    until(lambda: len(list((share.folder / "archive").glob("*/talk/*"))) == 4, 60, share.log)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cut_out_face_is_put_before_a_wall_or_keeps_its_transparency(share: Share, tmp_path: Path) -> None:
    """The wall is a medium of its job; the video with transparency is result.mov, as result.json says."""
    draw_cut_out(tmp_path / "cut.png")
    share.put("wall.png", (tmp_path / "face.jpg").read_bytes())
    for name, keys in (("wall", {"background": "wall.png"}), ("clear", {"output": {"alpha": True}})):
        share.put(f"{name}-cut.png", (tmp_path / "cut.png").read_bytes())
        share.put(f"{name}.wav", voice(0.6))
        share.drop(name, avatar=f"{name}-cut.png", audio=f"{name}.wav", **keys)
    for name in ("wall", "clear"):
        assert share.wait_for(name, "done", "failed", timeout_s=200)["state"] == "done", share.log()
    assert (share.result("wall")["video"], share.result("clear")["video"]) == ("result.mp4", "result.mov")
    assert share.result("wall")["background"]["given"] == "wall.png"
    assert {path.name for path in (share.outbox / "clear").iterdir()} == {
        "result.mov",
        "result.json",
        "preview.jpg",
        "contact.jpg",
    }
    with av.open(str(share.outbox / "clear" / "result.mov")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuva444p10le"


@pytest.mark.slow
def test_a_photo_of_a_phone_speaks(share: Share, tmp_path: Path) -> None:
    """The package that reads HEIC works within the walls of a worker, too."""
    picture = Image.open(io.BytesIO(face())).convert("RGB")
    share.put("IMG_1.heic", write_heic(tmp_path / "IMG_1.heic", np.asarray(picture, np.uint8)).read_bytes())
    share.put("voice.wav", voice(0.4))
    share.drop("phone", avatar="IMG_1.heic", audio="voice.wav")
    assert share.wait_for("phone", "done", "failed", timeout_s=200)["state"] == "done", share.log()
