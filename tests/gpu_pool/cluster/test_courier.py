"""What the courier of a node takes there and back, and what it refuses."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gpu_pool.cluster.courier import SpanFiles
from gpu_pool.cluster.files import PIECE_BYTES, Receipt
from gpu_pool.cluster.messages import Bring, Made, Piece, Wants
from gpu_pool.types import Done, Failed, Progress
from gpu_pool.wire import WireError
from tests.gpu_pool.cluster.pairs import RUN, Pair, rename

LONG = b"0123456789abcdef" * (PIECE_BYTES // 8)
KEY, OTHER_KEY = "a" * 64, "b" * 64


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    made = Pair(tmp_path)
    (made.work / "1" / "input").mkdir(parents=True)
    (made.work / "1" / "input" / "avatar").write_bytes(LONG)
    return made


def list_files(pair: Pair) -> SpanFiles:
    work = pair.work / "1"
    may_make = (work / "encoder", pair.cache / "*")
    return SpanFiles((work / "input", work / "encoder", pair.cache / KEY), (work / "parts" / "1.mp4",), may_make)


def find_far(pair: Pair) -> Path:
    """Return the work folder of the job at the node."""
    return next(pair.far.glob("runs/*/*/work/1"))


def make_part(pair: Pair, data: bytes = LONG) -> None:
    (find_far(pair) / "parts" / "1.mp4").write_bytes(data)


def test_files_go_there_once_and_come_back(pair: Pair) -> None:
    """Of a second span only its line goes; what it made appears where a worker of this machine puts it."""
    for number in range(2):
        assert pair.deliver(list_files(pair)) == {}
        assert pair.count_sent() == (0 if number else 2)
        assert (find_far(pair) / "input" / "avatar").read_bytes() == LONG
        make_part(pair)
        assert isinstance(pair.bring_back(), Done)
        assert (pair.work / "1" / "parts" / "1.mp4").read_bytes() == LONG
        assert list(pair.far.glob("runs/*/*/work/*")) == []
    assert sorted(path.name for path in (pair.work / "1").iterdir()) == ["input", "parts"]


def test_prepared_avatars_are_known_to_all_machines(pair: Pair) -> None:
    """What one made comes back, and goes to others; what is no entry stays."""
    pair.deliver(list_files(pair))
    make_part(pair)
    for name in (OTHER_KEY, ".half.tmp", "kernels"):
        (pair.far / "cache" / name).mkdir()
        (pair.far / "cache" / name / "latents").write_bytes(b"x")
    pair.bring_back()
    assert [path.name for path in pair.cache.iterdir() if path.is_dir()] == [OTHER_KEY]
    (pair.cache / KEY).mkdir()
    (pair.cache / KEY / "latents").write_bytes(b"y")
    pair.deliver(list_files(pair))
    assert (pair.far / "cache" / KEY / "latents").read_bytes() == b"y"


@pytest.mark.parametrize(
    "path",
    ["work/1/parts/2.mp4", "work/1/parts/../../2/x", "/etc/passwd", "cache/plain", "cache/../work", "work/1/input", ""],
)
def test_a_node_that_makes_what_it_was_not_asked_for_is_refused(pair: Pair, path: str) -> None:
    """Nothing else can be written by it."""
    pair.deliver(list_files(pair))
    make_part(pair)
    with pytest.raises(WireError, match="nothing that the span makes"):
        pair.bring_back(alter=rename(path))
    assert not (pair.work / "1" / "parts").exists()


def test_a_wrong_hash_is_refused(pair: Pair) -> None:
    """And no half of the file is seen."""
    pair.deliver(list_files(pair))
    make_part(pair)
    with pytest.raises(WireError, match="another content"):
        pair.bring_back(alter=lambda made: Made(made.device, made.path, {"": ["0" * 64, len(LONG)]}))
    pair.courier.reset()
    assert list((pair.work / "1" / "parts").iterdir()) == []


def test_a_span_that_sends_no_part_is_not_done(pair: Pair) -> None:
    """However it says so."""
    pair.deliver(list_files(pair))
    with pytest.raises(WireError, match="was not sent"):
        pair.courier.finish("cpu:0", Done("task", 0, 5, 1.0))


def test_a_file_that_ends_early_is_refused(pair: Pair) -> None:
    """By the end of its span, or by the next file."""
    pair.deliver(list_files(pair))
    made = Made("cpu:0", "work/1/parts/1.mp4", {"": ["0" * 64, 5]})
    pair.courier.on_made(made)
    with pytest.raises(WireError, match="ended early"):
        pair.courier.on_made(made)
    with pytest.raises(WireError, match="ended early"):
        pair.courier.finish("cpu:0", Done("task", 0, 5, 1.0))
    pair.courier.reset()


def test_a_node_that_wants_what_was_not_offered_is_refused(pair: Pair) -> None:
    """It reads nothing else of this machine."""
    pair.span_files = list_files(pair)
    pair.courier.send("cpu:0", RUN)
    while pair.courier.has_step:
        pair.courier.take_step()
    for wants in (Wants(1, {"0" * 64: 5}), Wants(2, {})):
        with pytest.raises(WireError):
            pair.courier.on_wants(wants)


def test_what_a_killed_worker_made_is_not_kept(pair: Pair) -> None:
    """Its pieces may be on their way."""
    pair.deliver(list_files(pair))
    make_part(pair)
    pair.courier.forget("cpu:0")
    assert isinstance(pair.bring_back(), Done)
    assert not (pair.work / "1" / "parts").exists()


def test_a_span_can_be_given_up_before_its_worker_has_it(pair: Pair) -> None:
    """Others go on, and a late answer does no harm."""
    pair.span_files = list_files(pair)
    pair.courier.send("cpu:0", RUN)
    while pair.courier.has_step:
        pair.courier.take_step()
    assert pair.courier.drop("cpu:0") == RUN
    assert pair.courier.drop("cpu:0") is None
    pair.courier.on_wants(Wants(1, {}))
    assert pair.deliver(list_files(pair), "cpu:1") == {}


def test_a_full_disk_of_this_machine_ends_the_span_as_that_of_a_worker_here(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job waits for room; the node is not to blame."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pair.deliver(list_files(pair))
    make_part(pair)
    monkeypatch.setattr(Receipt, "add", fail)
    end = pair.bring_back()
    assert isinstance(end, Failed)
    assert (end.code, end.fault, end.retry) == ("disk_full", "job", True)
    assert list((pair.work / "1" / "parts").iterdir()) == []


def test_a_file_that_cannot_be_read_fails_its_span(pair: Pair) -> None:
    """And no other one."""
    (pair.work / "1" / "input" / "avatar").unlink()
    (pair.work / "1" / "input" / "avatar").symlink_to("nowhere")
    assert pair.deliver(list_files(pair)) == {}
    files = list_files(pair)
    pair.deliver(files)
    pair.span_files = files
    (pair.work / "1" / "encoder").write_bytes(b"x")
    pair.courier.send("cpu:1", RUN)
    while pair.courier.has_step:
        pair.courier.take_step()
    (pair.work / "1" / "encoder").unlink()
    digest = next(iter(pair.courier._going[0].offered))
    pair.courier.on_wants(Wants(3, {digest: 1}))
    pair.courier.take_step()
    ((device, failed),) = pair.courier.take_reports()
    assert (device, type(failed)) == ("cpu:1", Failed)


def test_moving_files_are_progress(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second, so that a long way isn't taken for a stalled worker."""
    now_s = [0.0]
    monkeypatch.setattr(pair.courier, "_clock", lambda: now_s[0])
    pair.deliver(list_files(pair))
    pair.courier.note_units("cpu:0", Progress("task", 0, 5, 4))
    pair.courier.on_made(Made("cpu:0", "work/1/parts/1.mp4", {"": ["0" * 64, 5]}))
    assert pair.courier.take_reports() == []
    now_s[0] = 1.5
    pair.courier.on_piece(Piece(b"x"))
    assert pair.courier.take_reports() == [("cpu:0", Progress("task", 0, 5, 4))]
    assert pair.courier.take_reports() == []
    pair.courier.reset()


def test_a_node_that_sends_no_more_of_a_file_makes_no_progress(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its span would never be taken for stalled."""
    now_s = [0.0]
    monkeypatch.setattr(pair.courier, "_clock", lambda: now_s[0])
    pair.deliver(list_files(pair))
    now_s[0] = 1.0
    pair.courier.on_made(Made("cpu:0", "work/1/parts/1.mp4", {"": ["0" * 64, 5]}))
    now_s[0] = 2.5
    assert pair.courier.take_reports() == []
    pair.courier.reset()


def test_spans_that_wait_behind_files_move_with_them(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with none that the link doesn't take, or that the node doesn't ask for."""
    now_s = [0.0]
    monkeypatch.setattr(pair.courier, "_clock", lambda: now_s[0])
    pair.span_files = list_files(pair)
    for device in ("cpu:0", "cpu:1"):
        pair.courier.send(device, RUN)
    now_s[0] = 1.5
    assert pair.courier.take_reports() == []
    pair.courier.take_step()
    told = Progress("task", 0, 5, 0)
    assert pair.courier.take_reports() == [("cpu:0", told), ("cpu:1", told)]
    now_s[0] = 3.0
    assert pair.courier.take_reports() == []


def test_the_end_of_a_span_that_was_not_sent_is_refused(pair: Pair) -> None:
    """And its worker can be killed after that, or the link end."""
    pair.span_files = list_files(pair)
    pair.courier.send("cpu:0", RUN)
    with pytest.raises(WireError, match="not sent yet"):
        pair.courier.finish("cpu:0", Failed("task", 0, 5, "internal", "x"))
    pair.courier.forget("cpu:0")
    assert not pair.courier.has_step


def test_failures_end_with_the_link(pair: Pair) -> None:
    """The ends of its workers are told instead."""
    pair.courier._failed.append(("cpu:0", Failed("task", 0, 5, "internal", "x")))
    pair.courier.reset()
    assert pair.courier.take_reports() == []


def test_a_file_that_changes_while_it_is_sent_fails_its_span(pair: Pair) -> None:
    """And the machine is not taken for a liar: the next span finds what is there now."""
    pair.deliver(list_files(pair))
    avatar = pair.work / "1" / "input" / "avatar"
    avatar.write_bytes(b"new" * PIECE_BYTES)
    pair.courier.send("cpu:0", RUN)
    while not isinstance(message := pair.courier.take_step(), Bring):
        pass
    pair.courier.on_wants(Wants(message.number, pair.node.bring(message)))
    avatar.write_bytes(b"old" * PIECE_BYTES)
    while pair.courier.has_step:
        if isinstance(piece := pair.courier.take_step(), Piece):
            pair.node.add(piece)
    ((_, failed),) = pair.courier.take_reports()
    assert isinstance(failed, Failed)
    assert failed.message == "FileChanged: avatar was changed after its hash was told"
    assert failed.retry
    pair.deliver(list_files(pair))
    assert (find_far(pair) / "input" / "avatar").read_bytes() == avatar.read_bytes()
