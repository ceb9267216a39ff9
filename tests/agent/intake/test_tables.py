"""A CSV in the inbox: rows become jobs of a batch; anything else of that kind stays what it was."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agent.intake import tables
from agent.intake.tables import MAX_ROWS, SOURCE, finish_unfolding, read_jobs
from agent.jobs.parse import parse_job
from agent.jobs.states import JobState
from tests.agent.intake.desk import Desk

REST_S = 3.0


def test_each_row_is_a_job(desk: Desk) -> None:
    """Its columns are the keys of a job file, in any spelling; the media are beside the table; the folder goes."""
    desk.add_avatar("anna.jpg")
    desk.put("a.wav")
    desk.put("b.wav")
    header = "Avatar;AudioPath;name;crf;options.label;MaxAttempts;id"
    table = f"{header}\r\nanna;a.wav;one;30;FALSE;2;007\r\n;;;;;;\r\nanna;b.wav\r\n"
    desk.put("monday.csv", table.encode("utf-8-sig"))
    for _ in range(3):
        desk.turn(wait_s=REST_S)
    one, two = desk.job("one"), desk.job("monday-2")
    assert (one.state, two.state) == (JobState.QUEUED, JobState.QUEUED)
    assert one.spec is not None
    assert (one.spec.batch, one.spec.output.crf, one.spec.options) == ("monday", 30, {"label": False})
    assert (one.spec.max_attempts, one.spec.id) == (2, "007")
    assert desk.inbox_names() == ["a.wav", "b.wav"]


def test_a_row_that_is_no_job_is_refused_alone(desk: Desk) -> None:
    """The others are taken; the bad one has the error of a job file."""
    desk.put("list.csv", b"avatar,audio,fps\nface.jpg,v.wav,25\nface.jpg,v.wav,many\n")
    for _ in range(3):
        desk.turn(wait_s=REST_S)
    assert desk.job("list-1").state is JobState.WAITING
    assert (desk.job("list-2").state, desk.job("list-2").error_code) == (JobState.FAILED, "bad_value")


@pytest.mark.parametrize(
    "text", [b"", b"a,b\n1,2\n", b"avatar,name\nx,y\n", b"\xff\xfe\x00", b"\x00" * 100, b'avatar,audio\n"', b"\xc3("]
)
def test_another_table_stays_where_it_is(desk: Desk, text: bytes) -> None:
    """A CSV without the columns of a job file, or that is none, is not touched."""
    desk.put("numbers.csv", text)
    for _ in range(3):
        desk.turn(wait_s=REST_S)
    assert desk.inbox_names() == ["numbers.csv"]


def test_a_table_has_only_so_many_rows() -> None:
    """The rest is not read; names that no file can have are made safe; cells are never paths of ours."""
    rows = "".join(f"a{n},v.wav,../../x\n" for n in range(MAX_ROWS + 10))
    jobs = read_jobs(f"avatar,audio,name\n{rows}".encode(), "t")
    assert len(jobs) == MAX_ROWS
    assert all("/" not in name and not name.startswith(".") for name, _ in jobs)


def refuse_move(source: Path, _target: Path) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted", str(source))


def test_a_table_that_cannot_be_moved_leaves_nothing_behind(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Immutable or a stranger's, it is tried again for ever: no try may leave its job files in the inbox."""
    desk.put("list.csv", b"avatar,audio\nface.jpg,v.wav\n")
    with monkeypatch.context() as patched:
        patched.setattr(tables, "move", refuse_move)
        desk.turn(wait_s=REST_S)
    assert desk.inbox_names() == ["list.csv"]
    assert "can't be unfolded" in desk.intake.entries.text_of(desk.folders.inbox / "list.csv")


def test_a_folder_that_cannot_be_finished_keeps_no_other_waiting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash each is finished by itself."""
    for name in ("a-bad", "b-good"):
        folder = desk.folders.inbox / f".{name}.{'0' * 16}.batch"
        folder.mkdir()
        (folder / SOURCE).write_text("")

    def give_name(inbox: Path, folder: Path, stem: str) -> None:
        if stem == "a-bad":
            refuse_move(folder, inbox / stem)
        real_give_name(inbox, folder, stem)

    real_give_name = tables.give_name
    monkeypatch.setattr(tables, "give_name", give_name)
    finish_unfolding(desk.folders.inbox)
    assert (desk.folders.inbox / "b-good").is_dir()


def test_a_deep_folder_of_a_batch_stays(desk: Desk) -> None:
    """Users may put folders in folders without end: those without files go with their batch, but not too deep ones."""
    deepest = desk.folders.inbox.joinpath("batch", *["d"] * 500)
    deepest.mkdir(parents=True)
    (desk.folders.inbox / "batch" / SOURCE).write_text("")
    desk.turn(wait_s=REST_S)
    assert deepest.is_dir()


def test_what_a_crash_left_is_finished(desk: Desk) -> None:
    """A folder with its table in it gets its name; another one goes, and its table is still in the inbox."""
    for name, has_source in (("whole", True), ("half", False)):
        folder = desk.folders.inbox / f".{name}.{'0' * 16}.batch"
        folder.mkdir()
        (folder / "one.json").write_text('{"avatar": "a.jpg", "audio": "v.wav"}')
        if has_source:
            (folder / SOURCE).write_text("")
    (desk.folders.inbox / f".link.{'0' * 16}.batch").symlink_to("/proc")
    finish_unfolding(desk.folders.inbox)
    names = {path.name for path in desk.folders.inbox.iterdir()}
    assert names == {"whole", f".link.{'0' * 16}.batch"}


def test_a_cell_is_a_number_only_where_one_is_meant() -> None:
    """An id of digits is a text, and a huge number is left to the job file's own checks."""
    [(_, job)] = read_jobs(b"template\taudio\tcache_key\ttimeout_s\tpriority\nanna\tv.wav\t12\t1.5\thigh\n", "t")
    assert job == {"template": "anna", "audio": "v.wav", "cache_key": "12", "timeout_s": 1.5, "priority": "high"}
    assert parse_job(b'{"template": "anna", "audio": "v.wav", "priority": "high"}').priority == 10
