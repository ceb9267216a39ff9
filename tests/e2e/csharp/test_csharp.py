"""The C# client, compiled by Mono with every warning an error, against the real daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from agent.fs import make_safe_name
from agent.jobs.parse import parse_job
from agent.jobs.spec import MotionSpec
from tests.needs import need
from tests.share import ROOT, Share, face, voice

CLIENT = ROOT / "clients" / "csharp"
GOLDEN = ROOT / "tests" / "data" / "csharp_job.json"
UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Line:
    """A line of the driver's output: its kind and its key=value pairs."""

    kind: str
    values: dict[str, str]

    def __getitem__(self, key: str) -> str:
        return self.values[key]


@dataclass(frozen=True)
class Mono:
    """The compiled client, its sample and the driver of these tests."""

    build: Path

    def run(self, program: str, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["mono", self.build / program, *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8", env={**UTF8, **env}, timeout=100)

    def drive(self, verb: str, share: Path, *words: str | Path, **env: str) -> list[Line]:
        done = self.run("Driver.exe", verb, share, *words, **env)
        assert done.returncode == 0, done.stderr
        return [parse_line(text) for text in done.stdout.splitlines()]

    def answers(self, verb: str, share: Path, *words: str | Path, **env: str) -> list[Line]:
        return [line for line in self.drive(verb, share, *words, **env) if line.kind == "answer"]


def parse_line(text: str) -> Line:
    kind, *pairs = text.split("\t")
    return Line(kind, {key: value for key, _, value in (pair.partition("=") for pair in pairs)})


def compile_program(folder: Path, *sources: Path, target: str = "exe") -> None:
    out = folder / f"{sources[0].stem}.{'exe' if target == 'exe' else 'dll'}"
    command = ["mcs", "-langversion:6", "-warn:4", "-warnaserror", f"-target:{target}", f"-out:{out}"]
    references = [f"-r:{folder / name}" for name in ("MusedropClient.dll", "MuseTalkService.dll")]
    done = subprocess.run([*command, *references, *sources], capture_output=True, text=True, env=UTF8)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Mono:
    need("mcs", "mono-mcs")
    need("mono", "mono-runtime")
    build = tmp_path_factory.mktemp("build")
    done = subprocess.run([CLIENT / "build.sh", build], capture_output=True, text=True, env=UTF8)
    assert done.returncode == 0, done.stdout + done.stderr
    compile_program(build, Path(__file__).with_name("Driver.cs"))
    return Mono(build)


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    """One daemon for all tests of this file; each finds its own jobs."""
    made = Share(tmp_path_factory.mktemp("csharp") / "s")
    made.start()
    yield made
    made.end()


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A client's folder: a face, a voice, and a voice with a Chinese name."""
    (tmp_path / "face.jpg").write_bytes(face(160))
    (tmp_path / "voice.wav").write_bytes(voice(0.4))
    (tmp_path / "你好 世界.wav").write_bytes(voice(0.8))
    return tmp_path


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A share without a daemon, with media that are never decoded."""
    for name in ("inbox", "outbox", "failed"):
        (tmp_path / "still" / name).mkdir(parents=True)
    (tmp_path / "still" / "face.JPG").write_bytes(b"a face")
    (tmp_path / "still" / "voice.wav").write_bytes(b"a voice")
    return tmp_path / "still"


def request(folder: Path, audio: str = "voice.wav", avatar: str = "face.jpg", **more: object) -> list[str]:
    wishes = [f"{key}={value}" for key, value in more.items()]
    return [f"AvatarImagePath={folder / avatar}", f"AudioPath={folder / audio}", *wishes]


# the files that it writes ---------------------------------------------------------------------------------------------


def test_the_job_file_to_the_byte(mono: Mono, still: Path) -> None:
    """The same request makes the same bytes: UTF-8 without a byte order mark, \\n as line end."""
    wishes: dict[str, Any] = {
        "Quality": "High",
        "Fps": 29.97,
        "BatchSize": 8,
        "BboxShift": -7,
        "Priority": "Low",
        "TimeoutSeconds": 9,
    }
    words = request(still, avatar="face.JPG", Name="你好", CacheKey='order-4711 "a"', Engine="preview", **wishes)
    [ticket] = mono.drive("submit", still, *words)
    text = (still / "inbox" / "你好.json").read_bytes()
    assert text == GOLDEN.read_bytes()
    assert not text.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in text
    spec = parse_job(text)
    assert (spec.id, spec.fps, spec.priority, spec.output.crf) == (ticket["Id"], "30000/1001", -10, 18)
    assert spec.options == {"batch_size": 8, "bbox_shift": -7}
    avatar, audio = str(spec.avatar), str(spec.audio)
    assert (still / "inbox" / avatar).read_bytes() == b"a face"
    assert (still / "inbox" / audio).read_bytes() == b"a voice"
    assert {path.name for path in (still / "inbox").iterdir()} == {"你好.json", avatar[2:], audio[2:]}


def test_a_scene_with_music_and_several_voices(mono: Mono, still: Path) -> None:
    """The daemon reads the scene, the soundtrack and the voices that the client writes; all media are in the inbox."""
    wishes: dict[str, Any] = {
        "FromSeconds": 1.5,
        "ToSeconds": 4,
        "SoundtrackPath": still / "voice.wav",
        "SoundtrackDb": -12,
    }
    mono.drive("submit", still, *request(still, avatar="face.JPG", Name="scene", **wishes))
    scene = parse_job((still / "inbox" / "scene.json").read_bytes())
    assert (scene.from_s, scene.to_s, scene.soundtrack_db) == (1.5, 4.0, -12.0)
    (still / "other.wav").write_bytes(b"another voice")
    voices = f"Voices=1,{still / 'voice.wav'}|0,{still / 'other.wav'},2.5"
    mono.drive("submit", still, f"AvatarImagePath={still / 'face.JPG'}", voices, "Name=two")
    two = parse_job((still / "inbox" / "two.json").read_bytes())
    assert two.voices is not None
    assert [(each.face, each.from_s) for each in two.voices] == [(1, None), (0, 2.5)]
    named = [str(path) for path in (scene.soundtrack, *(each.audio for each in two.voices))]
    assert [(still / "inbox" / path).read_bytes() for path in named] == [b"a voice", b"a voice", b"another voice"]


def test_options_backgrounds_and_transparency(mono: Mono, still: Path) -> None:
    """The daemon reads the options with their types; a picture behind the avatar is copied, a colour is not."""
    wishes: dict[str, Any] = {"FaceBox": "1,2.5,30,40", "AudioTrack": "2", "Options": "loop"}
    mono.drive("submit", still, *request(still, avatar="face.JPG", Name="one", Background=still / "face.JPG", **wishes))
    one = parse_job((still / "inbox" / "one.json").read_bytes())
    assert one.options == {
        "label": False,
        "strength": 0.5,
        "cycle": "loop",
        "cheek_width": [10, 20],
        "face_box": [1, 2.5, 30, 40],
        "audio_track": 2,
    }
    assert (still / "inbox" / one.media_names["background"]).read_bytes() == b"a face"
    mono.drive("submit", still, *request(still, avatar="face.JPG", Name="two", Background="#00b140", AudioTrack="de"))
    two = parse_job((still / "inbox" / "two.json").read_bytes())
    assert (two.background_colour, two.options, two.output.alpha) == ("#00b140", {"audio_track": "de"}, None)
    mono.drive("submit", still, *request(still, avatar="face.JPG", Name="three", KeepAlpha=True))
    assert parse_job((still / "inbox" / "three.json").read_bytes()).output.alpha is True


def test_a_photo_that_moves(mono: Mono, still: Path) -> None:
    """The daemon reads each field of a motion as it was set, and one without any as the defaults."""
    words = request(still, avatar="face.JPG", Name="one", Motion="(eye blinks:1.1), 你好")
    mono.drive("submit", still, *words, "--", *request(still, avatar="face.JPG", Name="two", Motion=""))
    one, two = (parse_job((still / "inbox" / f"{name}.json").read_bytes()).motion for name in ("one", "two"))
    assert one is not None
    assert one.model_dump() == {
        "engine": "musev",
        "prompt": "(eye blinks:1.1), 你好",
        "negative_prompt": "",
        "seconds": 2.5,
        "seed": 2**32 - 1,
        "size": 384,
        "variant": "musev",
        "base": "mine",
        "guidance": 1.5,
        "steps": 4,
        "interpolation": "blend",
        "clip": True,
        "options": {"motion_speed": 6.5, "window": 8, "crop": "reference"},
    }
    assert two == MotionSpec()


def test_the_same_key_with_other_content_makes_another_file(mono: Mono, still: Path) -> None:
    """Media are named by key and content: a second request can't replace the first one's."""
    words = request(still, avatar="face.JPG", CacheKey="order-1")
    mono.drive("submit", still, *words)
    mono.drive("submit", still, *words)
    assert len(list((still / "inbox").glob("*.wav"))) == 1
    one, two = sorted((still / "inbox").glob("*.json"))
    assert one.read_bytes() == two.read_bytes()
    (still / "voice.wav").write_bytes(b"another voice")
    mono.drive("submit", still, *words)
    assert sorted(path.read_bytes() for path in (still / "inbox").glob("*.wav")) == [b"a voice", b"another voice"]


def test_every_way_of_writing_text_in_csharp_is_read(mono: Mono, tmp_path: Path) -> None:
    """WriteAllText, byte order marks, UTF-16, CRLF and a closed FileStream are all parsed."""
    job = '{\n"AvatarImagePath": "脸.jpg",\n"AudioPath": "voice.wav"\n}'
    mono.drive("write", tmp_path, job)
    written = {path.stem: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert written == {
        "plain": job.encode(),
        "exclusive": job.encode(),
        "bom": b"\xef\xbb\xbf" + job.encode(),
        "crlf": b"\xef\xbb\xbf" + job.replace("\n", "\r\n").encode() + b"\r\n",
        "utf16": b"\xff\xfe" + job.encode("utf-16-le"),
        "utf16be": b"\xfe\xff" + job.encode("utf-16-be"),
    }
    assert {(spec.avatar, spec.audio) for spec in map(parse_job, written.values())} == {("脸.jpg", "voice.wav")}


def test_two_calls_with_one_key_at_the_same_moment(mono: Mono, still: Path) -> None:
    """Both are submitted: they share the copies of the media, which have the same content."""
    (still / "voice.wav").write_bytes(b"a voice" * 100_000)
    words = request(still, avatar="face.JPG", CacheKey="one-key")
    for _ in range(8):
        lines = mono.drive("together", still, *words, "--", *words, "--", *words)
        assert [line.kind for line in lines] == ["ticket"] * 3, lines
        for path in (still / "inbox").iterdir():
            assert path.suffix in (".json", ".jpg", ".wav")
            path.unlink()


def test_the_package_is_complete() -> None:
    """The project names both frameworks, its licence and its page, and treats warnings as errors."""
    text = (CLIENT / "MusedropClient" / "MusedropClient.csproj").read_text()
    for part in ("netstandard2.0;net8.0", "<PackageId>MusedropClient<", "Apache-2.0", "README.md", "TreatWarnings"):
        assert part in text
    assert f"<Version>{__version__}</Version>" in text


NAMES = [
    *(
        "hello",
        "你好 世界",
        "cafe\u0301",
        "a/b\\c:d*e?f",
        "..",
        ".hidden",
        "-rf",
        "CON",
        "com1.txt",
        "x" * 300,
        "é" * 200,
    ),
    *("trailing. ", " a", "tab\there", "new\nline", "zero\u200bwidth", "😀 smile", "👩\u200d👧 family"),
    *("$(touch x)", "`id`", "a'b\"c"),
]


def test_the_daemon_keeps_the_names_that_the_client_makes(mono: Mono, still: Path) -> None:
    """For any file name, the result folder has the name that the client expects."""
    made = [line["Name"] for line in mono.drive("names", still, *NAMES)]
    assert len(made) == len(NAMES)
    assert made == [make_safe_name(name) for name in made]
    assert made[:3] == ["hello", "你好 世界", "café"]
    assert not list((still / "inbox").iterdir())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["AudioPath=voice.wav"], "missing_key"),
        (["TemplateId=anna"], "missing_key"),
        (["TemplateId=anna", "AvatarImagePath=face.jpg", "AudioPath=voice.wav"], "duplicate_key"),
        (["TemplateId=anna", "AudioPath=nowhere.wav"], "missing_media"),
    ],
)
def test_a_request_that_can_be_no_job_is_refused_at_once(mono: Mono, still: Path, words: list[str], code: str) -> None:
    """Errors that the client detects never reach the share."""
    [refused] = mono.drive("submit", still, *words)
    assert (refused.kind, refused["Code"]) == ("refused", code)
    assert not list((still / "inbox").iterdir())


# without a daemon -----------------------------------------------------------------------------------------------------


def test_a_job_that_nobody_took_is_taken_back(mono: Mono, still: Path) -> None:
    """A job that is cancelled before it is claimed leaves no file in the inbox."""
    [answer] = mono.answers("takeback", still, *request(still, avatar="face.JPG"))
    assert (answer["Success"], answer["Error"], answer["Kind"]) == ("False", "cancelled", "Cancelled")
    assert not list((still / "inbox").iterdir())


def test_an_absent_daemon_is_said(mono: Mono, still: Path) -> None:
    """A job file that is not claimed in time is removed, and the response says why."""
    [answer] = mono.answers("absent", still, *request(still, avatar="face.JPG"))
    assert (answer["Error"], answer["Kind"]) == ("not_taken", "NoService")
    assert "status.json" in answer["Message"]
    (still / "status.json").write_text(json.dumps({"daemon": {"running": False}, "problems": []}))
    [answer] = mono.answers("absent", still, *request(still, avatar="face.JPG"))
    assert "it was stopped" in answer["Message"]
    assert not list((still / "inbox").iterdir())


def test_an_absent_share_is_said(mono: Mono, still: Path) -> None:
    """A path without an inbox is a response that says what to check."""
    [answer] = mono.answers("generate", still / "nowhere", *request(still, avatar="face.JPG"))
    assert (answer["Error"], answer["Kind"]) == ("share_unavailable", "NoService")
    assert "nowhere" in answer["Message"]


def status(**keys: object) -> str:
    return json.dumps({"version": 1, "daemon": {"running": True}, "counts": {"running": 1}, **keys})


ROW = {"id": "mine", "uid": "u1", "name": "hello"}
RUNNING = {"state": "running", "stage": "render", "percent": 41.5, "units_done": 5, "units_total": 12}
FAILED = {"state": "failed", "error_code": "no_face", "error_message": "no face", "error_hint": "another picture"}
QUEUED = {"name": "hello", "state": "queued", "position": 3}
OTHER = {**ROW, **RUNNING, "id": "somebody else's"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (status(running=[OTHER, {**ROW, **RUNNING}]), {"State": "Running", "Stage": "render", "Percent": "41.5"}),
        (status(running=[OTHER], queue=[QUEUED]), {"State": "Queued", "Position": "3"}),
        (status(queue=[{**QUEUED, "id": "somebody else's"}]), {"State": "Accepted"}),
        (status(running=[{**ROW, **RUNNING}], recent=[{**ROW, **FAILED}]), {"State": "Running"}),
        (status(daemon=[], running=5, queue={"a": 1}, recent=[None, 3, {"id": 7}]), {"State": "Accepted"}),
        (status(running=[{**ROW, "state": "dancing", "percent": "x"}]), {"State": "Accepted"}),
        (status(running=[{**ROW, **RUNNING}])[:-3], {"State": "Accepted"}),
        ("[" * 100_000, {"State": "Accepted"}),
        ("", {"State": "Accepted"}),
    ],
)
def test_what_status_json_says_is_shown(mono: Mono, still: Path, said: str, expected: dict[str, str]) -> None:
    """The job's own row is found by its id; a torn or strange status.json is ignored."""
    (still / "status.json").write_text(said)
    *news, answer = mono.drive("glance", still, "hello", "mine")
    assert answer["Error"] == "wait_timeout"
    assert [{key: line[key] for key in expected} for line in news] == [expected]


def test_rows_answer_where_files_are_late(mono: Mono, still: Path) -> None:
    """A failed row is enough before failed/NAME appears; a done row names the result folder."""
    (still / "status.json").write_text(status(recent=[{**ROW, **FAILED}]))
    [answer] = mono.answers("glance", still, "hello", "mine")
    assert (answer["Error"], answer["Kind"], answer["Hint"]) == ("no_face", "BadMedia", "another picture")
    (still / "status.json").write_text(status(recent=[{**ROW, "state": "done", "result": "elsewhere"}]))
    [answer] = mono.answers("glance", still, "hello", "mine")
    assert answer["Error"] == "wait_timeout"
    folder = still / "outbox" / "elsewhere"
    folder.mkdir()
    record, video = folder / "result.json", folder / "result.mp4"
    for whose, there in (("another's", True), ("mine", False), ("mine", True)):
        record.write_text(json.dumps({"id": whose, "video": "result.mp4", "duration_s": 1e300}))
        video.write_bytes(b"a video")
        if not there:
            video.unlink()
        [answer] = mono.answers("glance", still, "hello", "mine")
        assert answer["Success"] == str(whose == "mine" and there)
    assert (answer["Success"], answer["VideoPath"]) == ("True", str(video))


@pytest.mark.parametrize("ended", ["done", "failed"])
def test_an_earlier_job_that_status_json_shows_late_is_no_answer(mono: Mono, still: Path, ended: str) -> None:
    """A job of the same key that has ended before is told by the record in its folder, not by its row alone."""
    parent, record = ("outbox", "result.json") if ended == "done" else ("failed", "error.json")
    folder = still / parent / "hello"
    folder.mkdir()
    fields = {"id": "one-key", "uid": "u1", "video": "result.mp4", "code": "no_face", "message": "no face"}
    (folder / record).write_text(json.dumps(fields))
    (folder / "result.mp4").write_bytes(b"the older video")
    row = {"id": "one-key", "uid": "u1", "name": "hello", "state": ended, "result": "hello", "error_code": "no_face"}
    words = request(still, avatar="face.JPG", CacheKey="one-key", Name="hello")
    [answer] = mono.answers("late", still, status(recent=[row]), *words)
    assert (answer["Success"], answer["Error"]) == ("False", "wait_timeout")


def test_a_share_that_goes_away_is_waited_for_only_so_long(mono: Mono, still: Path) -> None:
    """While the inbox is gone the client waits until its timeout; later it can wait again."""
    (still / "inbox").rename(still / "away")
    [*_, answer] = mono.drive("glance", still, "hello", "mine")
    assert (answer["Error"], answer["Kind"]) == ("share_unavailable", "NoService")
    (still / "away").rename(still / "inbox")
    [*_, answer] = mono.drive("glance", still, "hello", "mine")
    assert answer["Error"] == "wait_timeout"


# with the daemon ------------------------------------------------------------------------------------------------------


def test_four_requests_at_once(mono: Mono, share: Share, media: Path) -> None:
    """Four jobs, two of one name, one with a Chinese name, each get their own video."""
    four = [
        [*request(media, Name="twin"), "--"],
        [*request(media, "你好 世界.wav", Name="Twin"), "--"],
        [*request(media, "你好 世界.wav"), "--"],
        request(media, Quality="Low", Fps=12.5),
    ]
    lines = mono.drive("generate", share.folder, *(word for words in four for word in words))
    answers = [line for line in lines if line.kind == "answer"]
    assert [answer["Success"] for answer in answers] == ["True"] * 4, lines
    videos = {Path(answer["VideoPath"]): answer for answer in answers}
    assert sorted(float(answer["Duration"]) for answer in answers) == [0.4, 0.4, 0.8, 0.8]
    for video, answer in videos.items():
        record = json.loads((video.parent / "result.json").read_bytes())
        assert float(answer["Duration"]) == record["duration_s"]
        assert float(answer["Seconds"]) > 0
        assert (answer["Engine"], answer["FromCache"], answer["Kind"]) == ("preview", "False", "None")
        assert answer["CompletedAt"][:19] == record["finished_at"][:19]
    folders = sorted(video.parent.name for video in videos)
    assert {folder.casefold() for folder in folders if folder.casefold().startswith("twin")} == {"twin", "twin-2"}
    assert any(re.fullmatch("你好 世界-[0-9a-f]{8}", folder) for folder in folders)
    states = {line["State"] for line in lines if line.kind == "progress"}
    assert "Running" in states
    assert all(line["DaemonRunning"] == "True" for line in lines if line.kind == "progress")


def test_an_app_whose_service_was_replaced(mono: Mono, share: Share, media: Path) -> None:
    """The calls of such an app compile and make a video; what has no effect is said in the notes."""
    lines = mono.drive("service", share.folder, *request(media, EnableEmotion=True, Name="app"))
    [answer] = [line for line in lines if line.kind == "answer"]
    assert answer["Success"] == "True", (lines, answer["Error"], answer["Message"])
    notes = [line["Text"] for line in lines if line.kind == "note"]
    assert any("gpuId 1 was ignored" in note for note in notes)
    assert any("EnableEmotion was ignored" in note for note in notes)
    assert not any("still being written" in line["Line"] for line in lines if line.kind == "log")


def test_cancelling_the_token_cancels_the_running_job(mono: Mono, share: Share, media: Path) -> None:
    """The caller gets OperationCanceledException, and the daemon stops the job."""
    (media / "long.wav").write_bytes(voice(9.9))
    words = request(media, "long.wav", Name="stopped", CacheKey="stop-me-1", Fps="120")
    lines = mono.drive("cancel", share.folder, *words)
    assert lines[-1].kind == "cancelled", lines
    assert share.wait_for("stopped", "cancelled", "done", "failed")["state"] == "cancelled"
    [answer] = mono.answers("wait", share.folder, "stopped", "stop-me-1")
    assert (answer["Success"], answer["Error"], answer["Kind"]) == ("False", "cancelled", "Cancelled")


def test_a_failing_job_is_an_answer(mono: Mono, share: Share, media: Path) -> None:
    """Code, message and hint are those of the daemon; no exception is thrown."""
    (media / "text.wav").write_bytes(b"no sound at all " * 99)
    [answer] = mono.answers("generate", share.folder, *request(media, "text.wav", Name="no-sound"))
    error = share.error("no-sound")
    assert (answer["Success"], answer["VideoPath"]) == ("False", "")
    assert (answer["Error"], answer["Kind"]) == ("audio_unreadable", "BadMedia")
    assert (answer["Message"], answer["Hint"]) == (error["message"], error["hint"])


def test_an_impatient_client_cancels(mono: Mono, share: Share, media: Path) -> None:
    """After its own timeout the client reports it and cancels the job."""
    words = [f"AudioPath={media / 'voice.wav'}", "TemplateId=nobody", "Name=waits"]
    lines = mono.drive("impatient", share.folder, *words)
    assert (lines[-1]["Error"], lines[-1]["Kind"]) == ("wait_timeout", "Timeout")
    assert any("nobody" in line["WaitingFor"] for line in lines if line.kind == "progress"), lines
    assert share.wait_for("waits", "cancelled")["state"] == "cancelled"


def test_a_result_is_found_again_by_its_id(mono: Mono, share: Share, media: Path) -> None:
    """After a restart of the app, name and id find the result in a folder of any name."""
    (share.outbox / "again").mkdir()
    (share.outbox / "again" / "result.json").write_text(json.dumps({"id": "somebody else's", "video": "result.mp4"}))
    [ticket] = mono.drive("submit", share.folder, *request(media, Name="again"))
    share.wait_for("again", "done", "failed")
    [answer] = mono.answers("wait", share.folder, "again", ticket["Id"])
    assert answer["VideoPath"] == str(share.outbox / "again-2" / "result.mp4")


def test_a_key_used_before_never_brings_the_old_video(mono: Mono, share: Share, media: Path) -> None:
    """The same CacheKey with another voice is another video or a refusal, not the old result."""
    [first] = mono.answers("generate", share.folder, *request(media, CacheKey="one-key", Name="key"))
    [second] = mono.answers("generate", share.folder, *request(media, "你好 世界.wav", CacheKey="one-key", Name="key"))
    assert float(first["Duration"]) == 0.4
    assert second["VideoPath"] != first["VideoPath"]
    assert second["Success"] == "False" or float(second["Duration"]) == 0.8


# what is promised -----------------------------------------------------------------------------------------------------


def test_the_sample_makes_a_video(mono: Mono, share: Share, media: Path) -> None:
    """The console sample prints progress and the path of the video, and errors on stderr."""
    done = mono.run("MusedropSample.exe", share.folder, media / "face.jpg", media / "voice.wav", "low")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1].rpartition("  ")[0])
    assert path.is_file()
    failed = mono.run("MusedropSample.exe", share.folder, media / "face.jpg", media / "nowhere.wav")
    assert (failed.returncode, failed.stderr.split(":")[0]) == (1, "missing_media")
    assert mono.run("MusedropSample.exe").returncode == 2


def test_every_code_of_the_daemon_has_a_kind() -> None:
    """Each code that docs/errors.md explains has a kind in the C# client."""
    source = (CLIENT / "MusedropClient" / "Errors.cs").read_text()
    known = set(re.findall(r'^ +\{ "(\w+)", ErrorKind\.', source, re.M))
    explained = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.M))
    assert known == explained


def test_the_code_in_the_readme_compiles(mono: Mono) -> None:
    """Every C# block of the README is compiled as the body of an async method."""
    blocks = re.findall(r"```csharp\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    assert blocks
    usings = "using System; using System.Threading; using System.Threading.Tasks; using Musedrop;\n"
    head = "static class Page { static async Task Block(MusedropClient client, CancellationToken token) {\n"
    for n, block in enumerate(blocks):
        source = mono.build / f"readme{n}.cs"
        given = block.replace("var client = ", "client = ")
        source.write_text(f"{usings}{head}await Task.Yield();\n{given}}} }}")
        compile_program(mono.build, source, target="library")


def test_the_client_depends_on_nothing() -> None:
    """No package is referenced, and every source file is one that Mono compiles too."""
    projects = [path.read_text() for path in CLIENT.glob("*/*.csproj")]
    assert len(projects) == 2
    assert not any("PackageReference" in text for text in projects)
    assert {path.parent.name for path in CLIENT.rglob("*.cs")} == {"MusedropClient", "Sample", "MuseTalkService"}


def test_where_mono_is_missing_the_tests_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler a test is skipped and names the package; with CI set it fails."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-compiler is missing: Debian package mono-mcs"):
        need("no-such-compiler", "mono-mcs")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="mono-mcs"):
        need("no-such-compiler", "mono-mcs")


def test_answers_come_without_events(mono: Mono, share: Share, media: Path) -> None:
    """Without file events, polling finds the result."""
    [answer] = mono.answers("generate", share.folder, *request(media), MONO_MANAGED_WATCHER="disabled")
    assert Path(answer["VideoPath"]).is_file()


def test_a_refused_job_is_told_at_once(mono: Mono, share: Share, media: Path) -> None:
    """The row and the error of a job that the daemon refuses have its id, which the client waits for."""
    words = request(media, Engine="no-such-engine", CacheKey="refused-1")
    [answer] = mono.answers("generate", share.folder, *words)
    assert (answer["Error"], answer["Kind"]) == ("bad_value", "BadRequest")
    assert "no-such-engine" in answer["Message"]
    [row] = share.rows("SELECT * FROM job_status WHERE id = 'refused-1'")
    assert row["state"] == "failed"
