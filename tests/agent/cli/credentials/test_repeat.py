"""`musedrop verify NAME --repeat`: what is asked for again, and what is said of two videos."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import __version__, client
from agent.cli.credentials.finding import Finding
from agent.cli.credentials.repeat import compare_results, find_inputs, hash_streams, list_causes, make_request, withdraw
from agent.errors import UserError
from agent.fs.folders import make_folders
from agent.jobs.parse import parse_job
from agent.ledger.ledger import Ledger
from agent.settings import Settings
from tests.agent.samples import add_job
from tests.share import Share, face, until, voice


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(share=tmp_path / "share", state=tmp_path / "state")


def test_the_same_is_asked_for_with_copies_of_the_inputs(settings: Settings) -> None:
    """Each voice, the background and the face are copies; the engine is the one that ran, the id a new one."""
    spec = parse_job(
        json.dumps(
            {
                "avatar": "two.jpg",
                "voices": [{"face": 0, "audio": "a.wav"}, {"face": 1, "audio": "b.wav", "from_s": 1}],
                "background": "wall.jpg",
                "options": {"seed": 3},
                "output": {"crf": 20},
                "fps": "29.97",
                "id": "order-1",
            }
        ).encode()
    )
    names = {"avatar": "two.jpg", "audio": "a.wav", "audio-1": "b.wav", "background": "wall.jpg"}
    inputs = {role: settings.share / "archive" / name for role, name in names.items()}
    row = {"name": "hello", "engine": "preview"}
    request = make_request(settings, row, json.loads(spec.model_dump_json()), inputs)
    again = parse_job(request.text.encode())
    copies = {path.name: name for path, name in request.copies}
    assert (again.avatar, again.background) == (copies["two.jpg"], copies["wall.jpg"])
    assert [(one.face, one.audio, one.from_s) for one in again.voices or ()] == [
        (0, copies["a.wav"], None),
        (1, copies["b.wav"], 1),
    ]
    assert (again.engine, again.fps, again.options, again.output) == ("preview", spec.fps, spec.options, spec.output)
    assert (request.name, again.id) == ("hello-repeat", request.id)


def test_an_avatar_of_the_library_keeps_its_name(settings: Settings) -> None:
    """It is used from where it is; only the voice is copied."""
    spec = {"avatar": "anna", "audio": "a.wav", "engine": "auto"}
    inputs = {"avatar": settings.folders.avatars / "anna.jpg", "audio": settings.share / "a.wav"}
    request = make_request(settings, {"name": "hello", "engine": "preview"}, spec, inputs)
    assert parse_job(request.text.encode()).avatar == "anna"
    assert [path.name for path, _ in request.copies] == ["a.wav"]


def test_inputs_that_are_gone_or_changed_are_named(tmp_path: Path) -> None:
    """A file of the same name with other bytes is not the input; one of several places is enough."""
    record = {"audio": {"given": "a.wav", "sha256": hashlib.sha256(b"voice").hexdigest()}}
    here, there = tmp_path / "a.wav", tmp_path / "filed" / "a.wav"
    there.parent.mkdir()
    with pytest.raises(UserError, match=r"a\.wav, its audio, is gone"):
        find_inputs(record, {"audio": [there, here]})
    here.write_bytes(b"another")
    with pytest.raises(UserError, match=r"a\.wav, its audio, was changed"):
        find_inputs(record, {"audio": [there, here]})
    there.write_bytes(b"voice")
    assert find_inputs(record, {"audio": [here, there]}) == {"audio": there}
    assert find_inputs({}, {"audio": [tmp_path / "gone", here]}) == {"audio": here}
    with pytest.raises(UserError, match="folder of pictures"):
        find_inputs(record, {"avatar": [tmp_path]})


def test_the_first_frame_that_differs_and_what_may_be_the_cause(tmp_path: Path) -> None:
    """Other bytes of one frame are found at that frame, and what the records say differently is told."""
    first, second = tmp_path / "one" / "result.mp4", tmp_path / "two" / "result.mp4"
    for path, changed in ((first, None), (second, 7)):
        path.parent.mkdir()
        write_grey(path, changed)
    made = {"driver": "550.1", "torch": "2.11", "cards": ["NVIDIA RTX 4090"]}
    old: dict[str, Any] = {"fps": "25", "engine": "preview", "kind": "cuda", "made_with": made}
    new = {**old, "made_with": {**made, "driver": "560.2"}}
    [differs, cause] = compare_results(first, second, (old, new))
    assert (differs.holds, "frame 7 at 0.280 s is the first" in differs.text) == (False, True)
    assert "of 255 levels" in differs.text
    assert cause == Finding(None, "driver was 550.1, and is 560.2 now")
    [_, unknown] = compare_results(first, second, (old, old))
    assert "nothing that the two records say" in unknown.text
    unrecorded = {**old, "engine": "musetalk"}
    [_, weights] = compare_results(first, second, (unrecorded, unrecorded))
    assert "musedrop models verify" in weights.text
    second.write_bytes(b"damaged")
    with pytest.raises(UserError, match="can't be compared"):
        hash_streams(second)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"kind": "cpu"}, "kind was cuda, and is cpu now"),
        ({"weights_sha256": {"unet.pth": "bb"}}, "weights_sha256 unet.pth was aa, and is bb now"),
        ({"made_with": {"musedrop": "0.3"}}, "musedrop was 0.2, and is 0.3 now"),
        ({"made_with": {"cards": ["B"], "musedrop": "0.2"}}, "cards was not recorded, and is ['B'] now"),
        ({"devices": ["cuda:1"], "stage_seconds": {"render": 9}}, ""),
    ],
    ids=str,
)
def test_each_cause_is_named(change: dict[str, Any], cause: str) -> None:
    """Kind of device, weights, version and cards; on which device and how fast is none."""
    weights = {"unet.pth": "aa"}
    old = {"engine": "musetalk", "kind": "cuda", "weights_sha256": weights, "made_with": {"musedrop": "0.2"}}
    assert list(list_causes(old, {**old, **change})) == ([cause] if cause else [])


def write_grey(path: Path, changed: int | None) -> None:
    """Write ten grey frames, one of them brighter."""
    import av

    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(10):
            grey = np.full((64, 64, 3), 140 if number == changed else 120, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode())


def test_a_result_is_made_again_by_the_daemon(make_share: Callable[..., Share]) -> None:
    """The same bytes leave nothing behind; another setting is named; without daemon or voice nothing is handed in."""
    share = make_share()
    share.start()
    share.put("talk.jpg", face())
    share.put("talk.wav", voice(0.4))
    share.wait_for("talk", "done")
    shown = share.musedrop("verify", "talk", "--repeat", "--json")
    found = json.loads(shown.stdout)
    assert found[-1] == {"holds": True, "text": "made again as talk-repeat: picture and sound have the same bytes"}
    assert list_names(share.outbox) == ["talk"]
    record = share.result("talk")
    assert record["made_with"]["musedrop"] == __version__
    share.stop()
    before = list_names(share.inbox)
    alone = share.musedrop("verify", "talk", "--repeat")
    assert (alone.returncode, "no daemon is running" in alone.stderr, list_names(share.inbox)) == (2, True, before)
    with share.config.open("a") as file:
        file.write("\n[output]\ncrf = 35\n")
    share.start()
    changed = share.musedrop("verify", "talk", "--repeat")
    assert (changed.returncode, list_names(share.outbox)) == (1, ["talk", "talk-repeat"])
    assert re.search(
        r"NO  made again as talk-repeat: frame 0 at 0.000 s .*\n--  output crf was 18, and is 35 now", changed.stdout
    )
    for path in share.folder.rglob("talk.wav"):
        path.unlink()
    refused = share.musedrop("verify", "talk", "--repeat")
    assert (refused.returncode, "talk.wav, its audio, is gone" in refused.stderr) == (2, True)
    assert not (share.outbox / "talk-repeat-2").exists()


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_spoken_text_is_said_again_by_its_sound(make_share: Callable[..., Share], tmp_path: Path) -> None:
    """The sound that was made of the text is the input, wherever the text is."""
    (tmp_path / "spoken.wav").write_bytes(voice(0.4))
    share = make_share(sign="auto")
    with share.config.open("a") as file:
        file.write(f'\n[speech]\ncommand = ["cp", "{tmp_path}/spoken.wav", "{{wav}}"]\n')
    share.start()
    share.put("talk.jpg", face())
    share.put("talk.txt", b"Good morning.")
    share.wait_for("talk", "done")
    until(lambda: bool(list(share.folder.glob("archive/*/talk/spoken.wav"))), 30, share.log)
    *found, last = share.musedrop("verify", "talk", "--repeat").stdout.splitlines()
    assert "ok  spoken.wav is the audio that was used" in found
    assert last == "ok  made again as talk-repeat: picture and sound have the same bytes"


def test_a_wait_that_is_given_up_takes_the_job_back(settings: Settings) -> None:
    """Its file leaves the inbox where it was not taken in yet; else it is cancelled."""
    make_folders((settings.folders.inbox, settings.folders.state))
    ledger = Ledger(settings.folders.ledger)
    ticket = client.send(settings, client.JobRequest("hello-repeat", "tag", "{}", ()))
    withdraw(settings, ticket)
    assert list_names(settings.folders.inbox) == []
    add_job(ledger, "u1", name="hello-repeat", id="tag")
    withdraw(settings, ticket)
    assert list_names(settings.folders.inbox) == ["u1.cancel"]
