"""The whole page as a browser uses it, without a browser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from agent.jobs.states import JobState
from agent.ledger.ledger import Ledger
from agent.page.app import STATIC
from agent.settings import Settings
from tests.agent.page.conftest import FROM_PAGE
from tests.agent.samples import add_job

HOSTILE = "<img src=x onerror=alert(1)>\u202e\n\"'&"


def upload(client: TestClient, name: str, data: bytes = b"abc") -> dict[str, str]:
    answer = client.post("/uploads", params={"name": name}, content=data, headers=FROM_PAGE)
    assert answer.status_code == 200
    made: dict[str, str] = answer.json()
    return made


def submit(client: TestClient, *jobs: dict[str, Any]) -> Any:
    return client.post("/jobs", headers=FROM_PAGE, json={"jobs": list(jobs)})


def list_inbox(settings: Settings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in settings.folders.inbox.iterdir()}


def test_files_become_jobs_of_the_inbox(client: TestClient, settings: Settings) -> None:
    """A face for two voices is one file, with a job file for each voice; all are as a client writes them."""
    face, one, two = (upload(client, name, name.encode()) for name in ("anna.jpg", "one.wav", "two.mp3"))
    answer = submit(
        client,
        {"name": "one", "avatar": face, "audio": one, "priority": "high", "output": {"height": 480}},
        {"name": "two", "avatar": face, "audio": two},
    )
    assert answer.status_code == 201
    assert [job["name"] for job in answer.json()] == ["one", "two"]
    files = list_inbox(settings)
    jobs = {name: json.loads(files.pop(f"{name}.json")) for name in ("one", "two")}
    assert jobs["one"]["avatar"] == jobs["two"]["avatar"]
    assert jobs["one"]["priority"] == "high"
    assert {files[jobs["one"][role]] for role in ("avatar", "audio")} == {b"anna.jpg", b"one.wav"}
    assert len(files) == 3
    assert not any(name.startswith(".") for name in files)


def test_nothing_is_handed_in_where_one_job_is_wrong(client: TestClient, settings: Settings) -> None:
    """A job that the daemon would refuse is refused at once, with its hint, and so are those beside it."""
    face, voice = upload(client, "anna.jpg"), upload(client, "hello.wav")
    good = {"name": "good", "avatar": face, "audio": voice}
    for bad in (
        {**good, "fps": 900},
        {**good, "engine": "musetlk"},
        {**good, "output": {"height": 7}},
        {**good, "avatar": {"library": "nobody"}},
        {**good, "avatar": {"library": "../../etc/passwd"}},
    ):
        answer = submit(client, good, bad)
        assert answer.status_code == 422
        assert answer.json()["error"]
    assert all(name.startswith(".") for name in list_inbox(settings))
    assert submit(client, good).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"jobs": []}',
        b'{"jobs": [1]}',
        b'{"jobs": [{}]}',
        b"[" * 100_000,
        b'{"jobs": [{"avatar": {"upload": "x"}}]}',
    ],
)
def test_requests_that_are_none_are_refused(client: TestClient, settings: Settings, body: bytes) -> None:
    """Whatever comes, the answer is a sentence and the inbox stays empty."""
    answer = client.post("/jobs", headers=FROM_PAGE, content=body)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]
    assert list_inbox(settings) == {}


def test_a_file_can_not_be_named_by_a_path(client: TestClient, settings: Settings) -> None:
    """Names that lead elsewhere become names of files in the inbox."""
    face, voice = upload(client, "../../../face.jpg"), upload(client, "/etc/voice.wav")
    assert submit(client, {"name": "../../../x/" + HOSTILE, "avatar": face, "audio": voice}).status_code == 201
    assert len(list_inbox(settings)) == 3
    assert {path.name for path in settings.share.iterdir() if path.is_file()} <= {"musedrop.toml"}


def test_a_name_that_is_taken_gets_a_number(client: TestClient, settings: Settings) -> None:
    """A job file that still lies in the inbox is not overwritten."""
    (settings.folders.inbox / "hello.json").write_text("{}")
    job = {"avatar": upload(client, "a.jpg"), "audio": upload(client, "a.wav"), "name": "hello"}
    assert [made["name"] for made in submit(client, job).json()] == ["hello-2"]
    assert list_inbox(settings)["hello.json"] == b"{}"


def test_jobs_are_controlled_by_files(client: TestClient, settings: Settings, ledger: Ledger) -> None:
    """Cancel, retry, drain, pause and resume are what the command line writes; what can't happen is said."""
    add_job(ledger, "u1", state=JobState.RUNNING)
    add_job(ledger, "u2", state=JobState.FAILED)
    for path, status in {
        "/jobs/u1/cancel": 204,
        "/jobs/u2/retry": 204,
        "/queue/pause": 204,
        "/jobs/u1/retry": 409,
        "/jobs/u2/cancel": 409,
        "/jobs/u3/cancel": 404,
        "/jobs/u1/delete": 404,
        "/devices/cpu:9/drain": 404,
        "/queue/stop": 404,
    }.items():
        assert client.post(path, headers=FROM_PAGE).status_code == status, path
    assert set(list_inbox(settings)) == {"u1.cancel", "u2.retry", "pause"}


def test_a_job_is_described_with_its_events_and_record(client: TestClient, settings: Settings, ledger: Ledger) -> None:
    """Details have the row, what happened, and what error.json says; a record that is damaged is left out."""
    add_job(ledger, "u1", state=JobState.FAILED, name="hello")
    folder = settings.folders.failed / "hello"
    folder.mkdir()
    (folder / "error.json").write_text('{"code": "no_face"}')
    told = client.get("/jobs/u1").json()
    assert told["row"]["error_code"] == "no_face"
    assert told["record"] == {"code": "no_face"}
    assert [event["kind"] for event in told["events"]][-1] == "failed"
    (folder / "error.json").write_bytes(b"[" * 100_000)
    assert client.get("/jobs/u1").json()["record"] is None
    assert client.get("/jobs/nobody").status_code == 404


def test_the_page_without_scripts_shows_names_as_text(client: TestClient, ledger: Ledger) -> None:
    """What others called their jobs is text, in both languages."""
    add_job(ledger, "u1", state=JobState.FAILED, name=HOSTILE)
    add_job(ledger, "u2", state=JobState.DONE, name=HOSTILE)
    for language, title in (("en", "Failed"), ("zh-CN,en;q=0.5", "失败")):
        text = client.get("/plain", headers={"accept-language": language}).text
        assert title in text
        assert "<img" not in text
        assert "&lt;img" in text
        assert "/files/u2/video" in text


def test_a_ledger_that_is_gone_is_said(client: TestClient, settings: Settings, ledger: Ledger) -> None:
    """Without a ledger the page still opens, and lists say why they are empty."""
    ledger.close()
    for path in settings.state.glob("jobs.db*"):
        path.unlink()
    assert client.get("/").status_code == 200
    assert "there is no ledger" in client.get("/plain").text
    answer = client.get("/jobs")
    assert answer.status_code == 503
    assert "there is no ledger" in answer.json()["error"]


def test_the_page_is_small_and_asks_no_other_site(client: TestClient) -> None:
    """All that a browser loads is under 60 KiB, from here, without a line of script in the document."""
    document = client.get("/").text
    parts = [document, *(client.get(f"/static/{name}").text for name in STATIC)]
    assert sum(len(part.encode()) for part in parts) < 60 * 1024
    for part in parts:
        assert "https://" not in part
        assert "http://" not in part.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in parts[2]
    assert " style=" not in document
    assert " onclick" not in document


def test_an_inbox_that_takes_no_file_is_said(client: TestClient, settings: Settings) -> None:
    """A link in the place of a control file, or no inbox at all, is a sentence; nothing is written through the link."""
    (settings.folders.inbox / "pause").symlink_to(settings.state / "written")
    answer = client.post("/queue/pause", headers=FROM_PAGE)
    assert answer.status_code == 507
    assert "the inbox takes no file" in answer.json()["error"]
    assert not (settings.state / "written").exists()
    (settings.folders.inbox / "pause").unlink()
    settings.folders.inbox.rmdir()
    answer = client.post("/queue/pause", headers=FROM_PAGE)
    assert answer.status_code == 422
    assert "there is no inbox" in answer.json()["error"]


def test_jobs_are_moved_and_tried_again_with_another_job_file(
    client: TestClient, settings: Settings, ledger: Ledger
) -> None:
    """Places in the queue are empty files; an edited job file is checked, and handed in as it was written."""
    add_job(ledger, "u1")
    add_job(ledger, "u2", state=JobState.FAILED)
    edited = '{"avatar": "anna.jpg",  "audio": "hello.wav"}'
    for path, body, status in (
        ("/jobs/u1/front", "", 204),
        ("/jobs/u1/low", "", 204),
        ("/jobs/u2/front", "", 409),
        ("/jobs/u2/retry", '{"avatar": 7}', 422),
        ("/jobs/u2/retry", edited, 204),
    ):
        assert client.post(path, headers=FROM_PAGE, content=body).status_code == status, path
    assert list_inbox(settings) == {"u1.front": b"", "u1.low": b"", "u2.retry": edited.encode()}


def test_a_draft_uses_the_face_and_leaves_it_for_the_job(client: TestClient, settings: Settings) -> None:
    """A draft is an ordinary job with a silent voice; the same upload then becomes the face of a video."""
    face = upload(client, "anna.jpg", b"face")
    answer = client.post("/drafts", headers=FROM_PAGE, json={"avatar": face, "options": {"face": 1}})
    assert answer.status_code == 201
    files = list_inbox(settings)
    [job] = [json.loads(data) for name, data in files.items() if name.endswith(".json")]
    assert (job["id"], job["options"]) == (answer.json()["id"], {"face": 1, "draft": True})
    assert files[job["avatar"]] == b"face"
    assert files[job["audio"]].startswith(b"RIFF")
    assert submit(client, {"avatar": face, "audio": upload(client, "a.wav"), "name": "a"}).status_code == 201
    faces: list[Any] = [None, {"library": "nobody"}, face, {"job": "nobody"}]
    for bad in ([], *({"avatar": one} for one in faces)):
        assert 400 <= client.post("/drafts", headers=FROM_PAGE, json=bad).status_code < 500


def test_a_face_of_an_earlier_job_is_used_again(client: TestClient, settings: Settings, ledger: Ledger) -> None:
    """Its file is copied from where it is now, and the options of that job count; a library name stays a name."""
    filed = settings.folders.archive / "2026-01-01" / "one"
    filed.mkdir(parents=True)
    (filed / "anna.jpg").write_bytes(b"face")
    gone = {"avatar": {"path": str(settings.folders.inbox / "anna.jpg")}}
    add_job(ledger, "u1", state=JobState.DONE, media=gone, options={"blink": False}, priority="high")
    ledger.update("u1", inputs=str(filed))
    (settings.folders.avatars / "eva.jpg").touch()
    add_job(ledger, "u2", state=JobState.DONE, avatar="eva")
    outside = {"avatar": {"path": "/etc/hostname"}}
    add_job(ledger, "u3", state=JobState.DONE, media=outside)
    voice = upload(client, "new.wav")
    for uid in ("u1", "u2"):
        answer = submit(client, {"name": uid, "avatar": {"job": uid}, "audio": voice})
        assert answer.status_code == 201
        voice = upload(client, "new.wav")
    assert submit(client, {"name": "u3", "avatar": {"job": "u3"}, "audio": voice}).status_code == 409
    files = list_inbox(settings)
    one, two = json.loads(files["u1.json"]), json.loads(files["u2.json"])
    assert files[one["avatar"]] == b"face"
    assert (one["options"], "priority" in one) == ({"blink": False}, False)
    assert two["avatar"] == "eva"
    assert client.get("/files/u1/face").content == b"face"
    assert client.get("/files/u3/face").status_code == 404


def test_avatars_are_added_and_removed_by_files(client: TestClient, settings: Settings, ledger: Ledger) -> None:
    """What can't be is said at once; the library itself is never written."""
    (settings.folders.avatars / "eva.jpg").touch()
    (settings.folders.avatars / "bert.jpg").touch()
    add_job(ledger, "u1", avatar="bert")
    face, voice = upload(client, "anna.JPG", b"face"), upload(client, "a.wav")
    for path, body, status in (
        ("/avatars", {**face, "name": "eva"}, 409),
        ("/avatars", {**face, "name": "../eva"}, 422),
        ("/avatars", {**face, "name": ""}, 422),
        ("/avatars", {**voice, "name": "anna"}, 422),
        ("/avatars", {"upload": "x", "name": "anna"}, 409),
        ("/avatars", [], 400),
        ("/avatars", {**face, "name": "anna b"}, 204),
        ("/avatars/eva/forget", None, 204),
        ("/avatars/bert/forget", None, 409),
        ("/avatars/nobody/forget", None, 404),
    ):
        assert client.post(path, headers=FROM_PAGE, json=body).status_code == status, (path, body)
    files = {name: data for name, data in list_inbox(settings).items() if not name.startswith(".")}
    assert files == {"anna b.jpg.avatar": b"face", "eva.forget": b""}
    assert {path.name for path in settings.folders.avatars.iterdir()} == {"eva.jpg", "bert.jpg"}


def test_the_first_run_says_what_is_there_and_gives_the_demo_clip(client: TestClient, settings: Settings) -> None:
    """All steps with their Chinese, also without a ledger; of files, only the two of the clip."""
    shown = client.get("/setup").json()
    assert [step["name"] for step in shown][:2] == ["share", "access"]
    assert str(settings.folders.share) in shown[0]["told_zh"][0]
    settings.folders.ledger.unlink()
    assert len(client.get("/setup").json()) == len(shown)
    face = client.get("/setup/hello.jpg")
    assert (face.headers["content-type"], face.content[:2]) == ("image/jpeg", b"\xff\xd8")
    assert client.get("/setup/hello.wav").content[:4] == b"RIFF"
    for name in ("steps.py", "..%2fsteps.py", "hello"):
        assert client.get(f"/setup/{name}").status_code == 404
