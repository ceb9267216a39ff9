"""The inbox: what is complete, what is ignored, and claims that survive a crash at any point."""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path
from typing import Any

import pytest

from agent import clock
from agent.fs import Fingerprint, is_open_for_writing, take_fingerprint
from agent.intake.admission import INCOMPLETE
from agent.intake.scanner import SLICE, Candidate, Inbox
from agent.jobs.json_text import BadJob
from agent.jobs.parse import parse_job

JOB = b'{"avatar": "face.jpg", "audio": "voice.wav"}'
LATER = 100.0


def is_job_file(text: bytes) -> bool:
    try:
        parse_job(text)
    except BadJob as bad:
        return bad.code not in INCOMPLETE
    return True


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "claimed").mkdir()
    return Inbox(tmp_path / "inbox", tmp_path / "claimed", 1.0, 1 << 20, is_job_file)


def put(inbox: Inbox, name: str, data: bytes = b"media") -> Path:
    path = inbox.folder / name
    path.write_bytes(data)
    return path


def found(inbox: Inbox, now: float, in_use: set[Fingerprint] | None = None) -> dict[str, tuple[str, ...]]:
    assert inbox.scan(now)
    return {item.name: item.files for item in inbox.find_candidates(now, lambda: in_use or set())}


def test_a_whole_job_file_is_taken_at_once(inbox: Inbox) -> None:
    """A job file that parses and that nobody has open needs no waiting."""
    put(inbox, "hello.json", JOB)
    assert found(inbox, 0.0) == {"hello": ("hello.json",)}


def test_a_job_file_that_is_still_open_waits(inbox: Inbox) -> None:
    """However complete it looks, a file that somebody is writing is not taken."""
    path = put(inbox, "hello.json", JOB)
    with path.open("ab"):
        assert is_open_for_writing(path) is True
        assert found(inbox, 0.0) == {}
        assert found(inbox, LATER) == {}
    assert found(inbox, LATER) == {"hello": ("hello.json",)}


def test_half_a_job_file_waits_for_the_other_half(inbox: Inbox) -> None:
    """Text that is no whole object yet is given the settle time, counted from its last change."""
    path = put(inbox, "hello.json", JOB[:20])
    assert found(inbox, 0.0) == {}
    path.write_bytes(JOB[:30])
    assert found(inbox, 0.9) == {}
    assert found(inbox, 1.8) == {}
    path.write_bytes(JOB)
    assert found(inbox, 1.9) == {"hello": ("hello.json",)}


def test_a_broken_job_file_is_taken_in_the_end(inbox: Inbox) -> None:
    """What never becomes a job is claimed after the settle time, so that it can be answered."""
    put(inbox, "broken.json", b"{ not json")
    assert found(inbox, 0.0) == {}
    assert found(inbox, 1.0) == {"broken": ("broken.json",)}


def test_a_pair_is_a_job_when_both_halves_have_settled(inbox: Inbox) -> None:
    """The halves may come minutes apart."""
    put(inbox, "hello.jpg")
    assert found(inbox, 0.0) == {}
    assert found(inbox, 60.0) == {}
    put(inbox, "hello.wav")
    assert found(inbox, 120.0) == {}
    assert found(inbox, 121.0) == {"hello": ("hello.jpg", "hello.wav")}


def test_media_with_a_job_file_of_their_name_are_no_pair(inbox: Inbox) -> None:
    """The job file says what its media are for; media that other jobs name are no pair either."""
    face, voice = put(inbox, "hello.jpg"), put(inbox, "hello.wav")
    put(inbox, "hello.json", b'{"avatar": "hello.jpg", ')
    found(inbox, 0.0)
    assert found(inbox, 0.9) == {}
    (inbox.folder / "hello.json").unlink()
    marks = {mark for path in (face, voice) if (mark := take_fingerprint(path))}
    assert found(inbox, 5.0, marks) == {}
    assert found(inbox, 5.0) == {"hello": ("hello.jpg", "hello.wav")}


@pytest.mark.parametrize(
    "name",
    [".hidden.json", "a.json.tmp", "a.json.part", "b.crdownload", "~$a.json", "a.json~", "Thumbs.db", "desktop.ini"],
)
def test_unfinished_and_foreign_names_are_ignored(inbox: Inbox, name: str) -> None:
    """Names that programs use while they write, and clutter of desktops, are no jobs."""
    put(inbox, name, JOB)
    assert found(inbox, 0.0) == {}
    assert found(inbox, LATER) == {}


def test_only_regular_files_count(inbox: Inbox, tmp_path: Path) -> None:
    """A link, a pipe and a folder are left alone, and none of them stops the scan."""
    (tmp_path / "real.json").write_bytes(JOB)
    (inbox.folder / "link.json").symlink_to(tmp_path / "real.json")
    os.mkfifo(inbox.folder / "pipe.json")
    (inbox.folder / "folder.json").mkdir()
    put(inbox, "good.json", JOB)
    assert found(inbox, LATER) == {"good": ("good.json",)}


def test_a_claim_moves_the_files_and_keeps_their_names(inbox: Inbox) -> None:
    """After a claim the inbox is empty, and the drop holds the bytes that were read."""
    put(inbox, "grüße.json", JOB)
    inbox.scan(0.0)
    [item] = inbox.find_candidates(0.0, set)
    drop = inbox.claim(item, "u1")
    assert drop is not None
    assert (drop.name, drop.text) == ("grüße", JOB)
    assert not list(inbox.folder.iterdir())
    assert [path.name for path in (inbox.claimed / "u1").iterdir()] == ["grüße.json"]


def test_a_file_that_is_taken_back_is_not_claimed(inbox: Inbox) -> None:
    """When one half of a pair vanishes before the claim, the other one stays in the inbox."""
    put(inbox, "hello.jpg")
    put(inbox, "hello.wav")
    assert inbox.claim(Candidate("hello", ("hello.jpg", "gone.wav")), "u1") is None
    assert sorted(path.name for path in inbox.folder.iterdir()) == ["hello.jpg", "hello.wav"]
    assert not list(inbox.claimed.iterdir())


def test_claims_without_a_row_are_taken_up_or_given_back(inbox: Inbox) -> None:
    """A crash between claim and row loses nothing: a job file becomes a drop, half a pair returns."""
    for uid, names in (("u1", ["a.json"]), ("u2", ["b.jpg", "b.wav"]), ("u3", ["c.jpg"]), ("u4", ["d.json"])):
        (inbox.claimed / uid).mkdir()
        for name in names:
            (inbox.claimed / uid / name).write_bytes(JOB if name.endswith("json") else b"media")
    drops = list(inbox.recover_claims(lambda uid: uid == "u4"))
    assert [(drop.uid, drop.name, drop.media) for drop in drops] == [("u1", "a", ()), ("u2", "b", ("b.jpg", "b.wav"))]
    assert [path.name for path in inbox.folder.iterdir()] == ["c.jpg"]


def test_an_inbox_that_cannot_be_read_is_no_news(inbox: Inbox) -> None:
    """While the folder is away nothing is forgotten, and the problem is said; it ends by itself."""
    put(inbox, "hello.jpg")
    assert inbox.scan(0.0)
    inbox.folder.rename(inbox.folder.with_name("away"))
    assert not inbox.scan(1.0)
    assert "can't be read" in inbox.problem
    assert "hello.jpg" in inbox.tracked
    inbox.folder.with_name("away").rename(inbox.folder)
    assert inbox.scan(2.0)
    assert inbox.problem == ""


def test_media_renamed_into_place_are_complete(inbox: Inbox) -> None:
    """A rename says that the writer is done; an empty file never is until it settles."""
    put(inbox, "voice.wav")
    put(inbox, "empty.wav", b"")
    inbox.scan(0.0)
    inbox.renamed |= {"voice.wav", "empty.wav"}
    assert inbox.is_settled("voice.wav", 0.0)
    assert not inbox.is_settled("empty.wav", 0.5)
    assert inbox.is_settled("empty.wav", 1.0)
    assert not inbox.is_settled("unknown.wav", LATER)
    with (inbox.folder / "voice.wav").open("ab"):
        assert not inbox.is_settled("voice.wav", LATER)


def test_control_files_are_seen_with_their_job_names(inbox: Inbox) -> None:
    """NAME.cancel and NAME.retry name a job, dots in it included."""
    put(inbox, "talk.v2.cancel", b"")
    put(inbox, "other.retry", b"")
    inbox.scan(0.0)
    assert [(control.name, control.verb) for control in inbox.find_controls(0.0)] == [
        ("other", "retry"),
        ("talk.v2", "cancel"),
    ]


def test_names_that_are_no_text_are_shown_readably(inbox: Inbox) -> None:
    """A file name of any bytes is claimed; as text its odd bytes are question marks."""
    path = os.fsencode(inbox.folder) + b"/caf\xe9.json"
    Path(os.fsdecode(path)).write_bytes(JOB)
    inbox.scan(0.0)
    [item] = inbox.find_candidates(0.0, set)
    drop = inbox.claim(item, "u1")
    assert drop is not None
    assert drop.name == "caf\ufffd"


# files that are written in pieces ------------------------------------------------------------------------------------

PICTURE = b"\xff\xd8\xff\xd9"


def wav(seconds: float, promised_s: float | None = None) -> bytes:
    """Return a WAV file whose header may promise another length."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(round(16_000 * (promised_s or seconds))))
    return made.getvalue()[: 44 + round(16_000 * seconds)]


def test_a_file_that_promises_more_waits_for_it(inbox: Inbox) -> None:
    """Closed between its pieces, it is taken when it is whole, or has not changed for the longer time."""
    inbox.piece_settle_s = 5.0
    put(inbox, "hello.jpg", PICTURE)
    put(inbox, "hello.wav", wav(1.0, promised_s=3.0))
    assert found(inbox, 0.0) == {}
    assert found(inbox, 4.0) == {}
    put(inbox, "hello.wav", wav(2.0, promised_s=3.0))
    assert found(inbox, 5.0) == {}
    assert found(inbox, 9.0) == {}
    put(inbox, "hello.wav", wav(3.0))
    assert found(inbox, 9.5) == {}
    assert found(inbox, 10.5) == {"hello": ("hello.jpg", "hello.wav")}
    put(inbox, "hello.wav", wav(2.0, promised_s=3.0))
    found(inbox, 20.0)
    assert found(inbox, 24.9) == {}
    assert found(inbox, 25.0) == {"hello": ("hello.jpg", "hello.wav")}


def test_a_sound_that_does_not_say_where_it_ends_waits_longer(inbox: Inbox) -> None:
    """Raw AAC and the like may go on; each piece starts the time anew."""
    inbox.piece_settle_s = 5.0
    put(inbox, "hello.jpg", PICTURE)
    put(inbox, "hello.aac", b"one piece")
    assert found(inbox, 0.0) == {}
    assert found(inbox, 4.0) == {}
    put(inbox, "hello.aac", b"one piece and another")
    assert found(inbox, 4.5) == {}
    assert found(inbox, 9.0) == {}
    assert found(inbox, 9.5) == {"hello": ("hello.jpg", "hello.aac")}


def test_a_cut_file_that_was_renamed_into_place_is_final(inbox: Inbox) -> None:
    """Its writer has finished, whatever the header says."""
    inbox.piece_settle_s = 5.0
    put(inbox, "hello.wav", wav(1.0, promised_s=3.0))
    inbox.scan(0.0)
    inbox.renamed.add("hello.wav")
    assert inbox.is_settled("hello.wav", 0.0)


@pytest.mark.parametrize("text", [b"", b'{"avatar": "face.jpg", "au'])
def test_a_job_file_without_its_end_waits_for_it(inbox: Inbox, text: bytes) -> None:
    """A text that has its closing brace and is wrong is final sooner."""
    inbox.piece_settle_s = 5.0
    put(inbox, "hello.json", text)
    put(inbox, "wrong.json", b"{nonsense}")
    assert found(inbox, 0.0) == {}
    assert found(inbox, 1.0) == {"wrong": ("wrong.json",)}
    assert set(found(inbox, 4.9)) == {"wrong"}
    assert set(found(inbox, 5.0)) == {"hello", "wrong"}


def test_a_placeholder_of_a_download_waits(inbox: Inbox) -> None:
    """Browsers make an empty file, write beside it, and rename in the end."""
    inbox.piece_settle_s = 5.0
    put(inbox, "hello.jpg", PICTURE)
    put(inbox, "hello.wav", b"")
    put(inbox, "hello.wav.part", wav(1.0))
    found(inbox, 0.0)
    assert found(inbox, LATER) == {}
    (inbox.folder / "hello.wav.part").rename(inbox.folder / "hello.wav")
    inbox.scan(LATER)
    assert found(inbox, LATER + 1.0) == {"hello": ("hello.jpg", "hello.wav")}


def test_the_next_look_is_when_a_piece_has_settled(inbox: Inbox) -> None:
    """Nothing else would wake the daemon."""
    inbox.piece_settle_s = 5.0
    put(inbox, "hello.wav", b"")
    inbox.scan(0.0)
    assert inbox.next_settle_s(0.0) == 1.0
    assert inbox.next_settle_s(1.0) == 4.0
    assert inbox.next_settle_s(5.0) is None


# large inboxes -------------------------------------------------------------------------------------------------------


class Looks:
    """Counts what a scan asks the file system for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stats, self.lists = list[str](), 0
        real_stat, real_list = os.stat, os.listdir

        def look(name: str, **keys: Any) -> os.stat_result:
            self.stats.append(name)
            return real_stat(name, **keys)

        def count(fd: int) -> list[str]:
            self.lists += 1
            return real_list(fd)

        monkeypatch.setattr("agent.intake.scanner.os.stat", look)
        monkeypatch.setattr("agent.intake.scanner.os.listdir", count)

    def clear(self) -> None:
        self.stats.clear()
        self.lists = 0


@pytest.fixture
def crowd(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> tuple[Inbox, Looks]:
    """An inbox with more files than one scan looks at, which have been there for a while."""
    for number in range(2 * SLICE):
        put(inbox, f"other{number:04}.dat")
    monkeypatch.setattr(clock, "FEW", 1_000_000)
    assert inbox.scan(0.0)
    assert inbox.scan(10.0)
    return inbox, Looks(monkeypatch)


def test_events_of_a_large_inbox_are_all_that_is_looked_at(crowd: tuple[Inbox, Looks]) -> None:
    """A scan for an event asks for the files that it names, and takes them."""
    inbox, looks = crowd
    put(inbox, "hello.json", JOB)
    assert inbox.scan(11.0, {"hello.json", ".hello.tmp", "gone.json"})
    assert sorted(looks.stats) == ["gone.json", "hello.json"]
    assert looks.lists == 0
    assert [item.name for item in inbox.find_candidates(11.0, set)] == ["hello"]


def test_a_period_without_change_reads_no_folder(crowd: tuple[Inbox, Looks]) -> None:
    """The folder's time says that no name has come or gone; a part of the files is looked at."""
    inbox, looks = crowd
    assert inbox.scan(20.0)
    assert looks.lists == 0
    assert 0 < len(looks.stats) <= SLICE


def test_lost_events_are_found_in_the_next_period(crowd: tuple[Inbox, Looks]) -> None:
    """Names that have come and gone without an event are seen by the folder's time, and later by nothing else."""
    inbox, looks = crowd
    put(inbox, "hello.json", JOB)
    (inbox.folder / "other0001.dat").unlink()
    assert inbox.scan(20.0)
    assert looks.lists == 1
    assert "hello.json" in inbox.tracked
    assert "other0001.dat" not in inbox.tracked


def test_all_files_of_a_large_inbox_have_their_turn(crowd: tuple[Inbox, Looks]) -> None:
    """What is written in place without an event is seen after some periods."""
    inbox, looks = crowd
    put(inbox, "other0007.dat", b"rewritten")
    for period in range(5):
        assert inbox.scan(20.0 + 5 * period)
    assert set(looks.stats) >= {f"other{number:04}.dat" for number in range(2 * SLICE)}
    assert inbox.tracked["other0007.dat"].fingerprint.size == len(b"rewritten")


def test_a_medium_is_looked_at_again_before_it_is_used(crowd: tuple[Inbox, Looks]) -> None:
    """One that was settled and is rewritten without an event is not complete, whatever the last scan knew."""
    inbox, _ = crowd
    assert inbox.is_settled("other0003.dat", 20.0)
    put(inbox, "other0003.dat", b"once more")
    assert not inbox.is_settled("other0003.dat", 20.5)
    assert inbox.is_settled("other0003.dat", 21.5)
    (inbox.folder / "other0003.dat").unlink()
    assert not inbox.is_settled("other0003.dat", 22.0)


def test_a_link_takes_the_place_of_a_file(crowd: tuple[Inbox, Looks]) -> None:
    """And the other way round: each name is in one of both lists, and in the index."""
    inbox, _ = crowd
    path = inbox.folder / "other0005.dat"
    path.unlink()
    path.symlink_to("other0006.dat")
    assert inbox.scan(20.0, {path.name})
    assert (path.name in inbox.tracked, inbox.others[path.name][0]) == (False, "link")
    assert inbox.find_names("OTHER0005.dat") == [path.name]
    assert not inbox.is_file(path.name)
    path.unlink()
    put(inbox, path.name)
    assert inbox.scan(21.0, {path.name})
    assert (inbox.is_file(path.name), path.name in inbox.others) == (True, False)
    assert inbox.find_names("OTHER0005.dat") == [path.name]


def test_a_job_file_that_changes_before_it_is_claimed_counts_as_it_is_then(inbox: Inbox) -> None:
    """What was read before is used only while the file is the same."""
    put(inbox, "hello.json", JOB)
    put(inbox, "same.json", JOB)
    assert inbox.scan(0.0)
    changed, same = inbox.find_candidates(0.0, set)
    put(inbox, "hello.json", JOB.replace(b"face", b"other face"))
    first, second = inbox.claim(changed, "u1"), inbox.claim(same, "u2")
    assert first is not None
    assert second is not None
    assert first.text == JOB.replace(b"face", b"other face")
    assert second.text == JOB
    assert (first.name, second.name, second.owner) == ("hello", "same", f"uid:{os.getuid()}")


@pytest.mark.parametrize(("is_ordered", "flushed"), [(True, {"claimed"}), (False, {"claimed", "u1", "u2"})])
def test_claims_are_flushed_as_their_file_system_requires(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, is_ordered: bool, flushed: set[str]
) -> None:
    """Where renames reach the disk in their order, the last folder is enough for all claims of a turn."""
    synced: set[str] = set()
    monkeypatch.setattr("agent.intake.scanner.sync", lambda folder: synced.add(folder.name))
    inbox.is_ordered = is_ordered
    for uid in ("u1", "u2"):
        put(inbox, f"{uid}.json", JOB)
    assert inbox.scan(0.0)
    claims = [inbox.claim(Candidate(uid, (f"{uid}.json",), JOB), uid) for uid in ("u1", "u2")]
    inbox.sync_claims([claim for claim in claims if claim is not None])
    assert synced == flushed
    assert inbox.unsettled
