"""Messages as JSON lines: all are decoded, and anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_pool.types import Cancel, Done, Failed, Open, Progress, Ready, RunSpan, Stop
from gpu_pool.wire import MAX_LINE_BYTES, LineSplitter, WireError, decode_command, decode_report, encode

INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text(), JSON, max_size=3)
SECONDS = st.floats(0, 1e9)
FAULTS = st.sampled_from(["job", "worker", "cancelled"])
SPAN = (st.text(), INTEGERS, INTEGERS)
UP = st.one_of(
    st.builds(Ready, st.text(), INTEGERS, OBJECT),
    st.builds(Progress, *SPAN, INTEGERS, INTEGERS),
    st.builds(Done, *SPAN, SECONDS, OBJECT, INTEGERS, OBJECT),
    st.builds(Failed, *SPAN, st.text(), st.text(), st.text(), st.booleans(), FAULTS, st.text()),
)
DOWN = st.one_of(
    st.builds(Open, st.text(), st.text(), OBJECT),
    st.builds(RunSpan, *SPAN, OBJECT),
    st.builds(Cancel, st.text()),
    st.builds(Stop),
)


@given(UP)
def test_reports_arrive(message: Any) -> None:
    """Each is one line and is decoded to the same message."""
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode_report(line[:-1]) == message


@given(DOWN)
def test_commands_arrive(message: Any) -> None:
    """Each is one line and is decoded to the same message."""
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode_command(line[:-1]) == message


def test_defaults_may_be_left_out() -> None:
    """A field that has a default may be missing from the line."""
    assert decode_report(b'{"kind":"ready","device":"cpu:0","pid":7}') == Ready("cpu:0", 7)


PROGRESS = {"kind": "progress", "task": "t", "start": 0, "stop": 1, "units_done": 0}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind":"progress"}',
        b'{"task":"t"}',
        b'{"kind":["run"]}',
        b'{"kind":"stop"}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":NaN}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1e999}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1,"result":{"score":NaN}}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1,"result":{"score":1e999}}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1,"result":{"score":-%s}}' % (b"9" * 4000),
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1,"result":{"score":9223372036854775808}}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1,"result":{"name":"\\ud800"}}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1,"result":{"\\udfff":1}}',
        b'{"kind":"done","task":"t","start":0,"stop":1,"seconds":1,"result":{"a":%s1%s}}' % (b"[" * 17, b"]" * 17),
        b'{"kind":"ready","device":"\xed\xa0\x80","pid":1}',
        '{"kind":"ready","device":"cpu:0","pid":1}'.encode("utf-16"),
        b'{"kind":"failed","task":"t","start":0,"stop":1,"code":"c","message":"m","fault":"yours"}',
        json.dumps({**PROGRESS, "more": 1}).encode(),
        json.dumps({**PROGRESS, "units_done": "3"}).encode(),
        json.dumps({**PROGRESS, "units_done": True}).encode(),
        json.dumps({**PROGRESS, "units_done": 1.5}).encode(),
        json.dumps({**PROGRESS, "task": None}).encode(),
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    """No JSON, no object, an unknown kind or field, a missing field, a wrong type."""
    with pytest.raises(WireError):
        decode_report(line)


@given(st.binary(max_size=200))
def test_noise_is_never_a_message(noise: bytes) -> None:
    """Any bytes are refused with a WireError and no other error."""
    with pytest.raises(WireError):
        decode_report(noise)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, Path("x"), b"x"])
def test_what_is_no_json_is_not_sent(value: object) -> None:
    """NaN, and objects that are no JSON, are refused by the sender."""
    with pytest.raises(WireError):
        encode(RunSpan("t", 0, 1, {"value": value}))


def test_a_report_has_a_limit_and_a_command_has_none() -> None:
    """What a worker says is a stranger's; what the daemon asks must arrive, whatever a job file made of it."""
    long = {"value": "\U0001f600" * (MAX_LINE_BYTES // 4)}
    with pytest.raises(WireError):
        encode(Done("t", 0, 1, 1.0, long))
    run = RunSpan("t", 0, 1, long)
    [line] = LineSplitter(max_bytes=None).feed(encode(run))
    assert decode_command(line) == run


def test_numbers_of_the_system_reach_a_worker() -> None:
    """The inode of a file on a network share may need all 64 bits."""
    run = RunSpan("t", 0, 1, {"marks": {"avatar": [2**64 - 1, 1, 1]}})
    assert decode_command(encode(run)[:-1]) == run


def test_a_name_that_is_no_text_reaches_the_worker_and_comes_back_readable() -> None:
    """A file's name may be no UTF-8: the worker opens it, and its message about it is a text."""
    name = "caf\udce9.png"
    run = decode_command(encode(RunSpan("t", 0, 1, {"avatar": name}))[:-1])
    assert isinstance(run, RunSpan)
    assert run.payload == {"avatar": name}
    failed = decode_report(encode(Failed("t", 0, 1, "no_face", f"no face in {name}"))[:-1])
    assert isinstance(failed, Failed)
    assert failed.message == "no face in caf?.png"


def test_a_loop_is_not_sent() -> None:
    """A payload that contains itself is refused."""
    payload: dict[str, object] = {}
    payload["again"] = payload
    with pytest.raises(WireError):
        encode(RunSpan("t", 0, 1, payload))


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.integers(1, 7))
def test_lines_come_out_whole_however_they_are_cut(lines: list[bytes], size: int) -> None:
    """Wherever the stream was cut."""
    stream = b"".join(line + b"\n" for line in lines)
    reader = LineSplitter()
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert [line for piece in pieces for line in reader.feed(piece)] == lines


def test_a_line_without_an_end_is_refused() -> None:
    """A sender that ends no line doesn't fill the memory."""
    reader = LineSplitter()
    assert list(reader.feed(b"x" * MAX_LINE_BYTES)) == []
    with pytest.raises(WireError):
        list(reader.feed(b"x"))
