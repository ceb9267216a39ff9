"""Pickles that want to run code, read elsewhere or take all the memory: nothing runs, and each ends soon."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoints.unpickler import INERT, Global, PickleError, StorageRecord, TensorRecord, read_pickle


def read(content: bytes) -> Any:
    return read_pickle(BytesIO(content))[0]


def is_read_or_refused(content: bytes) -> bool:
    """Whether nothing but the one error is raised, and that with a text."""
    try:
        read(content)
    except PickleError as error:
        return bool(str(error))
    return True


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_by_every_protocol(protocol: int) -> None:
    """Texts, numbers and containers as pickle reads them; a set is a list here, and only texts are keys."""
    value = {
        "text": "é",
        "bytes": b"x" * 300,
        "numbers": [1, -5, 2**40, 2**70, 0.5, True, None],
        "tuples": ((), (1, 2, 3, 4)),
    }
    found = read(pickle.dumps(value, protocol))
    assert {**found, "bytes": 0} == {**value, "bytes": 0}
    assert found["bytes"] == value["bytes"] or protocol < 3
    assert sorted(read(pickle.dumps({3, 4}, protocol))) == [3, 4]
    assert read(pickle.dumps(OrderedDict(a=1, b=[2]), protocol)) == {"a": 1, "b": [2]}
    assert read(pickle.dumps({1: 2, "a": 3, (4,): 5}, protocol)) == {"a": 3}
    assert isinstance(read(pickle.dumps(defaultdict(list, a=[1]), protocol)), dict)


def test_a_list_in_itself() -> None:
    """Circles are no endless loops."""
    circle: list[Any] = []
    circle.append(circle)
    found = read(pickle.dumps(circle))
    assert found[0] is found


def touch(mark: Path) -> bytes:
    command = f"touch {mark}".encode()
    return b"X" + len(command).to_bytes(4, "little") + command


SET_STATE = b"}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsb"
REBUILD = b"ctorch._tensor\n_rebuild_from_type_v2\n("
WAYS: dict[str, Callable[[Path], bytes]] = {
    "REDUCE": lambda mark: b"cposix\nsystem\n" + touch(mark) + b"\x85R.",
    "STACK_GLOBAL": lambda mark: b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + touch(mark) + b"\x85R.",
    "exec": lambda mark: b"cbuiltins\nexec\n" + touch(mark) + b"\x85R.",
    "eval": lambda mark: b"c__builtin__\neval\n" + touch(mark) + b"\x85R.",
    "INST": lambda mark: b"(" + touch(mark) + b"iposix\nsystem\n.",
    "OBJ": lambda mark: b"(cposix\nsystem\n" + touch(mark) + b"o.",
    "NEWOBJ": lambda mark: b"csubprocess\nPopen\n(" + touch(mark) + b"\x88t\x81.",
    "NEWOBJ_EX": lambda mark: b"csubprocess\nPopen\n" + touch(mark) + b"\x85}X\x05\x00\x00\x00shell\x88s\x92.",
    "getattr": lambda mark: (
        b"c__builtin__\ngetattr\n(c__builtin__\n__import__\nX\x02\x00\x00\x00os\x85R"
        b"X\x06\x00\x00\x00systemtR" + touch(mark) + b"\x85R."
    ),
    "BUILD": lambda mark: (
        b"cposix\nsystem\n)\x81}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsb" + touch(mark) + b"b."
    ),
    "BUILD of a dict": lambda mark: b"}}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsb" + touch(mark) + b"b.",
    "the memo": lambda mark: (
        b"X\x05\x00\x00\x00torchq\x000X\x05\x00\x00\x00posixq\x00X\x06\x00\x00\x00systemq\x0100"
        b"h\x00h\x01\x93" + touch(mark) + b"\x85R."
    ),
    "torch's own": lambda mark: b"ctorch.storage\n_load_from_bytes\n" + touch(mark) + b"\x85R.",
    "a rebuilder": lambda mark: REBUILD + b"cposix\nsystem\nN" + touch(mark) + b"\x85NtR.",
    "a dotted name": lambda mark: b"\x80\x04\x8c\x0bcollections\x8c\x0fabc.sys.modules\x93" + touch(mark) + b"\x85R.",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_nothing_is_called(tmp_path: Path, way: Any) -> None:
    """Whichever instruction would call, and whatever it would call: the result is inert, and its name is told."""
    mark = tmp_path / "mark"
    value, refused = read_pickle(BytesIO(way(mark)))
    assert (value is INERT and refused) or value == {}
    assert not mark.exists()


def test_nothing_is_imported() -> None:
    """Naming a module doesn't load it."""
    assert "this" not in sys.modules
    assert read(b"cthis\ns\n.") == Global("this", "s")
    assert "this" not in sys.modules


def test_tensors_are_descriptions() -> None:
    """A rebuilder of torch gives a record, also of a parameter and in an old Variable; without a storage nothing."""
    storage = StorageRecord("0", "FloatStorage")
    record = TensorRecord(storage, 0, (2,), (1,))

    def load(identity: Any) -> Any:
        return storage if identity == "s" else INERT

    content = b"ctorch._utils\n_rebuild_tensor_v2\n(X\x01\x00\x00\x00%sQK\x00K\x02\x85K\x01\x85\x89NtR"
    for wrapped in (
        b"%s.",
        b"ctorch._utils\n_rebuild_parameter\n(%s\x88NtR.",
        b"ctorch.autograd.variable\nVariable\n%s\x85R}b.",
    ):
        assert read_pickle(BytesIO(wrapped % (content % b"s")), load)[0] == record
        assert read_pickle(BytesIO(wrapped % (content % b"x")), load)[0] is INERT


LONG = b"\x80\x02%s" + b"K\x01" * 100_000
HUNGRY = {
    "a million nested tuples": b"\x80\x02)" + b"\x85" * 1_900_000 + b".",
    "a million nested lists": b"\x80\x02" + b"]" * 900_000 + b"a" * 899_999 + b".",
    "nested tuples as a key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
    "tuples that double": b"\x80\x02)" + b"2\x86" * 900_000 + b".",
    "too many operations": b"\x80\x02" + b"}" * 3_000_000 + b".",
    "a place beyond the memo": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a text longer than the file": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "a number longer than the file": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "a frame longer than the file": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "one list, copied for ever": b"\x80\x02]("
    + b"K\x01" * 100_000
    + b"eq\x010]("
    + b"ccollections\nOrderedDict\nh\x01\x85R" * 20_000
    + b"e.",
    "one call, with many arguments, for ever": b"\x80\x02("
    + b"K\x01" * 100_000
    + b"tq\x010]("
    + b"ctorch\nSize\nh\x01R" * 20_000
    + b"e.",
    "rebuilders in rebuilders": b"\x80\x02" + REBUILD * 50_000 + b"N" + b"tR" * 50_000 + b".",
}


@pytest.mark.parametrize("content", HUNGRY.values(), ids=HUNGRY)
def test_memory_and_time_have_limits(tmp_path: Path, content: bytes) -> None:
    """A gigabyte of addresses and a minute are enough for each: it is read, or refused as what it is."""
    (tmp_path / "a.pkl").write_bytes(content)
    code = (
        "import io, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from models.checkpoints.unpickler import PickleError, read_pickle\n"
        "try: read_pickle(io.BytesIO(open(sys.argv[1], 'rb').read()))\n"
        "except PickleError as error: print(str(error)[:200])\n"
    )
    root = str(Path(__file__).parents[4])
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.pkl")],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")


@given(st.binary(max_size=200))
def test_noise_is_no_pickle(content: bytes) -> None:
    """Whatever bytes come, they are read or refused; nothing else is raised."""
    assert is_read_or_refused(content)


OPCODES = [
    bytes([code]) for code in b"(.0122FNRSTUXabcdehjiloqrstup)}]\x85\x86\x87\x88\x89\x8c\x8f\x90\x91\x92\x93\x94\x81QPK"
]


@given(st.lists(st.sampled_from([*OPCODES, b"K\x01", b"h\x00", b"q\x00", b"U\x01a", b"ctorch\nSize\n"]), max_size=60))
def test_any_order_of_instructions_is_read_or_refused(parts: list[bytes]) -> None:
    """The machine holds its own rules."""
    assert is_read_or_refused(b"".join(parts) + b".")
