"""Where media may lie: the inbox, the library, configured roots, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.job import BadJob
from agent.sources import Absent, Sources
from tests.agent.samples import a_spec


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    for folder in ("inbox", "avatars", "root", "outside", "inputs"):
        (tmp_path / folder).mkdir()
    for name in ("face.jpg", "voice.wav"):
        (tmp_path / "inbox" / name).write_bytes(b"x")
    (tmp_path / "avatars" / "anna.mp4").write_bytes(b"x")
    (tmp_path / "root" / "far.wav").write_bytes(b"x")
    (tmp_path / "outside" / "secret.wav").write_bytes(b"x")
    return Sources(tmp_path / "inbox", tmp_path / "avatars", (tmp_path / "root",), lambda _: True)


def test_files_of_the_inbox_are_found(sources: Sources, tmp_path: Path) -> None:
    """Both media are found by bare name, with their size and time as they are now."""
    found = sources.find(a_spec(), tmp_path / "inputs")
    assert not isinstance(found, Absent)
    assert found["avatar"].path == tmp_path / "inbox" / "face.jpg"
    assert found["audio"].to_dict()["size"] == 1


def test_what_is_missing_is_named(sources: Sources, tmp_path: Path) -> None:
    """The first file that isn't there is said in words."""
    found = sources.find(a_spec(audio="later.wav"), tmp_path / "inputs")
    assert found == Absent('audio "later.wav" has not arrived in the inbox')


def test_what_is_still_written_is_waited_for(tmp_path: Path, sources: Sources) -> None:
    """A file that has not settled counts as absent."""
    busy = Sources(sources.inbox, sources.avatars, (), lambda path: path.name != "voice.wav")
    assert busy.find(a_spec(), tmp_path / "inputs") == Absent('audio "voice.wav" is still being written')


@pytest.mark.parametrize("spec", [a_spec(avatar="anna"), a_spec(avatar=None, TemplateId="anna")])
def test_the_library_is_asked_by_name(sources: Sources, tmp_path: Path, spec: object) -> None:
    """A name without a suffix, or a TemplateId, is an avatar of the library."""
    found = sources.find(spec, tmp_path / "inputs")  # type: ignore[arg-type]
    assert not isinstance(found, Absent)
    assert found["avatar"].path == tmp_path / "avatars" / "anna.mp4"


def test_an_unknown_library_name_is_absent(sources: Sources, tmp_path: Path) -> None:
    """The library may still get that avatar: the job waits."""
    found = sources.find(a_spec(avatar="bert"), tmp_path / "inputs")
    assert isinstance(found, Absent)
    assert "library" in found.what


def test_claimed_inputs_come_before_the_inbox(sources: Sources, tmp_path: Path) -> None:
    """A pair's media lie with the job itself."""
    (tmp_path / "inputs" / "face.jpg").write_bytes(b"claimed")
    found = sources.find(a_spec(), tmp_path / "inputs")
    assert not isinstance(found, Absent)
    assert found["avatar"].path == tmp_path / "inputs" / "face.jpg"


def test_configured_roots_may_be_named_absolutely(sources: Sources, tmp_path: Path) -> None:
    """media_roots opens a folder for absolute paths."""
    found = sources.find(a_spec(audio=str(tmp_path / "root" / "far.wav")), tmp_path / "inputs")
    assert not isinstance(found, Absent)


@pytest.mark.parametrize(
    "audio",
    [
        "../../etc/passwd",
        "../outside/secret.wav",
        "/etc/passwd",
        "sub/../../outside/secret.wav",
        "link.wav",
        "loop.wav",
        "C:\\in\\voice.wav",
        "\\\\nas\\share\\voice.wav",
        "..\\outside\\secret.wav",
    ],
)
def test_everything_else_is_refused(sources: Sources, tmp_path: Path, audio: str) -> None:
    """No path, link or drive letter leads out of the allowed folders, whether the file exists or not."""
    (sources.inbox / "link.wav").symlink_to(tmp_path / "outside" / "secret.wav")
    (sources.inbox / "loop.wav").symlink_to("../loop.wav")
    with pytest.raises(BadJob) as refused:
        sources.find(a_spec(audio=audio), tmp_path / "inputs")
    assert refused.value.code == "outside_roots"
    assert "inbox" in refused.value.hint


def test_names_that_no_file_can_have_are_only_absent(sources: Sources, tmp_path: Path) -> None:
    """A name of a thousand characters is an answer, not a crash."""
    found = sources.find(a_spec(audio="a" * 1000 + ".wav"), tmp_path / "inputs")
    assert isinstance(found, Absent)
