"""`musedrop verify NAME --repeat`: what is asked for again, and what is said of two videos."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import __version__
from agent.cli.credentials.finding import Finding
from agent.cli.credentials.repeat import compare_results, find_inputs, make_request
from agent.errors import UserError
from agent.jobs.parse import parse_job
from agent.settings import Settings
from tests.share import Share, face, voice


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
    [same] = compare_results(first, first, (old, new))
    assert same.holds


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


def test_a_result_is_made_again_by_the_daemon(share: Share) -> None:
    """The same bytes; a voice that is gone ends the command with a sentence, and nothing is handed in."""
    share.put("talk.jpg", face())
    share.put("talk.wav", voice())
    share.wait_for("talk", "done")
    shown = share.musedrop("verify", "talk", "--repeat", "--json")
    found = json.loads(shown.stdout)
    assert found[-1] == {"holds": True, "text": "made again as talk-repeat: picture and sound have the same bytes"}
    record = share.result("talk")
    assert record["made_with"]["musedrop"] == __version__
    for path in share.folder.rglob("talk.wav"):
        path.unlink()
    refused = share.musedrop("verify", "talk", "--repeat")
    assert (refused.returncode, "talk.wav, its audio, is gone" in refused.stderr) == (2, True)
    assert not (share.outbox / "talk-repeat-2").exists()
