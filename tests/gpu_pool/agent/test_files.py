"""Files of jobs on a node: where they are, how many are kept, and what is refused."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from threading import Event, Thread

import pytest

from gpu_pool.agent.files import NodeFiles, WorkerFault, take_lock
from gpu_pool.cluster.courier import SpanFiles
from gpu_pool.cluster.messages import Bring, Made, Piece
from tests.gpu_pool.cluster.pairs import Pair

HASH = "0" * 64


def test_paths_of_the_daemon_lead_to_folders_of_the_node(tmp_path: Path) -> None:
    """Those of the worker alone, but for the cache; other texts stay as they are."""
    pair = Pair(tmp_path)
    payload = {
        "request": {"work": f"{pair.work}/1", "cache": str(pair.cache), "avatar": "/share/a", "x": [f"{pair.work}s"]}
    }
    found = pair.node.localise("GPU-1/2", payload)["request"]
    assert found["cache"] == str(pair.far / "cache")
    assert found["work"].startswith(f"{pair.far}/runs/")
    assert found["work"].endswith("/worker-GPU-1-2/work/1")
    assert (found["avatar"], found["x"]) == ("/share/a", [f"{pair.work}s"])


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    """The content that a span needs stays, whatever it weighs."""
    pair = Pair(tmp_path, content_bytes=250)
    for name in ("a", "b", "a", "c"):
        (pair.work / name).write_bytes(name.encode() * 100)
        pair.deliver(SpanFiles((pair.work / name,)))
    assert pair.count_sent() == 3
    for name, sent in (("a", 0), ("c", 0), ("b", 1)):
        pair.deliver(SpanFiles((pair.work / name,)))
        assert (name, pair.count_sent()) == (name, sent)
    assert len(list((pair.far / "content").iterdir())) == 2


def test_what_is_kept_makes_room_on_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much may be kept: else a disk that this has filled would stay full."""
    pair = Pair(tmp_path)
    for name in ("a", "b"):
        (pair.work / name).write_bytes(name.encode())
    pair.deliver(SpanFiles((pair.work / "a", pair.work / "b")))
    monkeypatch.setattr("gpu_pool.agent.files.LEAST_FREE_BYTES", 1 << 60)
    pair.deliver(SpanFiles((pair.work / "b",)))
    assert pair.count_sent() == 2
    assert len(list((pair.far / "content").iterdir())) == 1
    pair.node.close()
    assert NodeFiles(pair.far, {}, 1 << 30).trouble
    assert list((pair.far / "content").iterdir()) == []


def test_content_outlives_the_agent_and_folders_of_workers_do_not(tmp_path: Path) -> None:
    """Those of an agent that was killed are removed by the next one, those of a frozen one are not."""
    pair = Pair(tmp_path)
    (pair.work / "a").write_bytes(b"x")
    pair.deliver(SpanFiles((pair.work / "a",)))
    frozen = next(pair.far.glob("runs/*.lock"))
    killed = pair.far / "runs" / "killed"
    killed.mkdir()
    killed.with_suffix(".lock").touch()
    half = pair.far / "content" / f".{HASH}.0.tmp"
    half.touch()
    again = Pair(tmp_path)
    assert frozen.with_suffix("").is_dir()
    assert not killed.exists()
    assert half.exists()  # the frozen one may be about to go on with it
    again.deliver(SpanFiles((pair.work / "a",)))
    assert again.count_sent() == 0
    again.node.close()
    pair.node.close()
    assert list((pair.far / "runs").iterdir()) == []
    Pair(tmp_path).node.close()
    assert not half.exists()


@pytest.mark.parametrize("name", ["work/../x", "work//x", "/etc/passwd", "etc/passwd", "work", "work/", "../work/x"])
def test_a_path_outside_is_refused(tmp_path: Path, name: str) -> None:
    """To read, and to make."""
    node = Pair(tmp_path).node
    for bring in (Bring("cpu:0", 1, {name: []}, {}), Bring("cpu:0", 1, {}, {name: True})):
        with pytest.raises(ValueError, match="no path below"):
            node.bring(bring)


def test_what_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    """A piece of nothing, and a span before its files."""
    node = Pair(tmp_path).node
    with pytest.raises(ValueError, match="isn't wanted"):
        node.add(Piece(b"x"))
    node.bring(Bring("cpu:0", 1, {"work/a": [HASH, 5]}, {}))
    with pytest.raises(ValueError, match="before its files"):
        node.lay_out("cpu:0")
    node.close()


def test_a_folder_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    node = NodeFiles(tmp_path / "far", {}, 1)
    assert node.trouble == ""
    monkeypatch.setattr("gpu_pool.agent.files.LEAST_FREE_BYTES", 1 << 60)
    assert "are free in" in node.trouble


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """As long as that lives."""
    assert take_lock(tmp_path / "lock") is not None
    assert take_lock(tmp_path / "lock") is None


def test_what_a_link_of_a_worker_leads_to_is_not_sent(tmp_path: Path) -> None:
    """It may lead to any file of this machine."""
    pair = Pair(tmp_path)
    part = pair.work / "1" / "parts" / "1.mp4"
    pair.deliver(SpanFiles((), (part,)))
    parts = next(pair.far.glob("runs/*/*/work/1/parts"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.mp4").write_bytes(b"x")
    parts.rmdir()
    parts.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WorkerFault, match="Not a directory"):
        list(pair.node.collect("cpu:0"))


@pytest.mark.parametrize("made", ["nothing", "pipe", "link", "many"])
def test_what_is_not_the_file_that_is_due_is_the_fault_of_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    """No machine is blocked for it, and no reader waits for the other end of a pipe."""
    monkeypatch.setattr("gpu_pool.agent.files.MAX_NODE_LINE_BYTES", 1000)
    pair = Pair(tmp_path)
    part = pair.work / "1" / "parts" / "1.mp4"
    pair.deliver(SpanFiles((), (part,)))
    there = next(pair.far.glob("runs/*/*/work/1/parts")) / "1.mp4"
    match made:
        case "pipe":
            os.mkfifo(there)
        case "link":
            there.symlink_to(__file__)
        case "many":
            there.mkdir()
            for number in range(20):
                (there / str(number)).touch()
    with pytest.raises(WorkerFault):
        list(pair.node.collect("cpu:0"))


@pytest.mark.parametrize("data", [b"other bytes", b"more bytes than before", b"few"])
def test_a_file_that_is_changed_while_it_is_sent_is_not_sent_whole(tmp_path: Path, data: bytes) -> None:
    """The daemon would take the machine for a liar."""
    pair = Pair(tmp_path)
    pair.deliver(SpanFiles((), (pair.work / "a",)))
    made = next(pair.far.glob("runs/*/*/work")) / "a"
    made.write_bytes(b"these bytes")
    steps = pair.node.collect("cpu:0")
    assert isinstance(next(step for step in steps if step), Made)
    made.write_bytes(data)
    with pytest.raises(WorkerFault, match="after its hash was told"):
        list(steps)


def test_a_worker_that_puts_links_in_place_of_folders_gets_no_other_file(tmp_path: Path) -> None:
    """As fast as it can, while its folder is read and filled."""
    pair, stop, secret = Pair(tmp_path), Event(), b"secret of another user"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(secret)
    (pair.work / "given").mkdir()
    (pair.work / "given" / "b").write_bytes(b"given")
    pair.deliver(SpanFiles((pair.work / "given",), (pair.work / "made",)))
    own = next(pair.far.glob("runs/*/*/work"))
    thread = Thread(target=put_links, args=(own, tmp_path / "elsewhere", stop))
    thread.start()
    try:
        for _ in range(100):
            with suppress(WorkerFault):
                pieces = [step for step in pair.node.collect("cpu:0") if isinstance(step, Piece)]
                assert secret not in [piece.data for piece in pieces]
            with suppress(WorkerFault):
                pair.node.lay_out("cpu:0")
    finally:
        stop.set()
        thread.join()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["a"]
    assert (tmp_path / "elsewhere" / "a").read_bytes() == secret


def put_links(folder: Path, target: Path, stop: Event) -> None:
    """Let `made` and `given` be folders and links in turn; few, so that the other thread is done with them in time."""
    for number in cycle(range(20)):
        if stop.is_set():
            return
        for name in ("made", "given"):
            with suppress(OSError):
                (folder / name).mkdir()
                (folder / name / "a").write_bytes(b"mine")
            with suppress(OSError):
                (folder / name).rename(folder / f"{name}-{number}")
                (folder / name).symlink_to(target)
            with suppress(OSError):
                (folder / name).unlink()


def test_nothing_is_written_through_what_is_there(tmp_path: Path) -> None:
    """A worker that is quick may have made a link meanwhile."""
    pair = Pair(tmp_path)
    (pair.work / "a").write_bytes(b"x")
    pair.deliver(SpanFiles((pair.work / "a",)))
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    content = next((pair.far / "content").iterdir())
    with pytest.raises(FileExistsError):
        pair.node._place(tmp_path / "link", [content.name, 1])
    content.unlink()
    with pytest.raises(ValueError, match="was removed by another program"):
        pair.node._place(tmp_path / "new", [content.name, 1])
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_span_ends_once(tmp_path: Path) -> None:
    """After its worker has got it, and not again."""
    pair = Pair(tmp_path)
    assert not pair.node.end_span("cpu:0")
    pair.node.bring(Bring("cpu:0", 1, {}, {}))
    assert not pair.node.end_span("cpu:0")
    pair.node.lay_out("cpu:0")
    assert pair.node.end_span("cpu:0")
    assert not pair.node.end_span("cpu:0")


def test_an_entry_that_another_worker_removes_meanwhile_is_left_out(tmp_path: Path) -> None:
    """To make room, as soon as its cache is too large."""
    pair = Pair(tmp_path)
    pair.deliver(SpanFiles((), (), (pair.cache / "*",)))
    entry = pair.far / "cache" / HASH
    entry.mkdir()
    for name in ("a", "b"):
        (entry / name).write_bytes(b"x")
    steps = pair.node.collect("cpu:0")
    assert next(steps) is None
    entry.rename(tmp_path / "doomed")
    assert list(steps) == []
