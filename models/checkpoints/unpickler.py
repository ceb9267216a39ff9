"""Read what a pickle describes without importing or calling anything: tensors and plain containers, nothing else.

A pickle is a program for a small stack machine. This module is that machine without its dangerous instructions: a
global is only its name, a call becomes `INERT` unless it is one of the few that rebuild a tensor or a plain container,
and what is done to `INERT` has no effect. Tensors become `TensorRecord`s. Standard library only.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

MOST_OPERATIONS = 2_000_000  # an mmengine checkpoint with its optimizer has some 100,000


class Inert:
    """Stands for every object that a pickle would make by code."""

    __slots__ = ()


INERT = Inert()


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle would import."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """A block of numbers: its key in the file, its type ("FloatStorage"), and where a view of it begins."""

    key: str
    kind: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as the file describes it; nothing is checked yet. `dtype` overrides that of the storage."""

    storage: StorageRecord
    offset: Any
    size: Any
    stride: Any
    dtype: str = ""


class PickleError(Exception):
    """The pickle is no pickle, breaks its own rules or is too long."""


PersistentLoad = Callable[[Any], Any]


def read_pickle(stream: IO[bytes], load_persistent: PersistentLoad = lambda _: INERT) -> tuple[Any, list[str]]:
    """Read one pickle and leave the stream at its end.

    Returns the object, and the names of what the pickle would have called besides tensors and containers.
    Raises PickleError.
    """
    machine = _Machine(load_persistent)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number == MOST_OPERATIONS:
                raise PickleError(f"has more than {MOST_OPERATIONS:,} operations")
            machine.execute(opcode, argument)
        return machine.pop(), machine.refused
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise PickleError(str(error)) from error


class _Machine:
    def __init__(self, load_persistent: PersistentLoad) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.refused: list[str] = []
        self.copied = 0
        self.load_persistent = load_persistent

    def execute(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        action = _ACTIONS.get(opcode.name)
        if action is not None:
            action(self, argument)
        elif opcode.name not in _IGNORED:
            self.stack.append(argument)  # all others are constants

    def pop(self) -> Any:
        if self.marks and self.marks[-1] == len(self.stack):
            raise PickleError("the stack is empty")
        return self.stack.pop()

    def pop_items(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def spend(self, count: int) -> None:
        """Count what a call copies: one long list can be named a million times. Raises PickleError."""
        self.copied += count
        if self.copied > MOST_OPERATIONS:
            raise PickleError(f"copies more than {MOST_OPERATIONS:,} values")

    def call(self, function: Any, arguments: Any) -> Any:
        """Return the record or container that a call stands for; `INERT` for any other call, whose name is kept."""
        if isinstance(function, Global):
            rebuild = _REBUILDERS.get(function.name) if function.module.startswith(_TRUSTED) else None
            if rebuild is not None and isinstance(arguments, tuple):
                self.spend(len(arguments))
                return rebuild(self, *arguments)
            if len(self.refused) < 100:
                self.refused.append(f"{function.module[:100]}.{function.name[:100]}")
        return INERT


# instructions --------------------------------------------------------------------------------------------------------


def _extend(target: Any, items: Iterable[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)


def _update(target: Any, items: list[Any]) -> None:
    """Set the items of a dict. Only texts are kept as keys: the hash of anything else may take for ever."""
    if isinstance(target, dict):
        target.update((k, v) for k, v in zip(items[::2], items[1::2], strict=True) if isinstance(k, str))


def _make_dict(items: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    _update(made, items)
    return made


def _pop_then(work: Callable[[_Machine, Any], None]) -> Callable[[_Machine, Any], None]:
    """Return an instruction that hands the topmost value to `work`."""
    return lambda machine, _: work(machine, machine.pop())


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine, Any], None]:
    """Return an instruction that pushes what `make` returns."""
    return lambda machine, _: machine.stack.append(make(machine))


def _pop_tuple(count: int) -> Callable[[_Machine], Any]:
    return lambda machine: tuple(reversed([machine.pop() for _ in range(count)]))


def _reduce(machine: _Machine) -> Any:
    arguments = machine.pop()
    return machine.call(machine.pop(), arguments)


def _new_with_keywords(machine: _Machine) -> Any:
    machine.pop()
    return _reduce(machine)


def _new_from_mark(machine: _Machine) -> Any:
    function, *arguments = machine.pop_items()
    return machine.call(function, tuple(arguments))


def _stack_global(machine: _Machine) -> Any:
    name, module = machine.pop(), machine.pop()
    return Global(module, name) if isinstance(name, str) and isinstance(module, str) else INERT


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _update(machine.stack[-1], [key, value])


def _set_items(machine: _Machine, _: Any) -> None:
    items = machine.pop_items()
    _update(machine.stack[-1], items)


def _append_items(machine: _Machine, _: Any) -> None:
    items = machine.pop_items()
    _extend(machine.stack[-1], items)


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _put(machine: _Machine, number: Any) -> None:
    machine.memo[int(number)] = machine.stack[-1]


def _pop_top(machine: _Machine, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


_Action = Callable[[_Machine, Any], None]
_IGNORED = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}
_ACTIONS: dict[str, _Action] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _pop_top,
    "POP_MARK": lambda machine, _: machine.pop_items().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),  # sets become lists: nothing is hashed
    "LIST": _push(lambda machine: machine.pop_items()),
    "TUPLE": _push(lambda machine: tuple(machine.pop_items())),
    "FROZENSET": _push(lambda machine: machine.pop_items()),
    "DICT": _push(lambda machine: _make_dict(machine.pop_items())),
    "TUPLE1": _push(_pop_tuple(1)),
    "TUPLE2": _push(_pop_tuple(2)),
    "TUPLE3": _push(_pop_tuple(3)),
    "APPEND": _pop_then(lambda machine, item: _extend(machine.stack[-1], [item])),
    "APPENDS": _append_items,
    "ADDITEMS": _append_items,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": lambda machine, number: machine.stack.append(machine.memo[int(number)]),
    "BINGET": lambda machine, number: machine.stack.append(machine.memo[number]),
    "LONG_BINGET": lambda machine, number: machine.stack.append(machine.memo[number]),
    "GLOBAL": lambda machine, name: machine.stack.append(Global(*name.split(" ", 1))),
    "STACK_GLOBAL": _push(_stack_global),
    "INST": lambda machine, name: machine.stack.append(
        machine.call(Global(*name.split(" ", 1)), tuple(machine.pop_items()))
    ),
    "OBJ": _push(_new_from_mark),
    "REDUCE": _push(_reduce),
    "NEWOBJ": _push(_reduce),
    "NEWOBJ_EX": _push(_new_with_keywords),
    "BUILD": lambda machine, _: machine.stack.pop() and None,
    "PERSID": lambda machine, text: machine.stack.append(machine.load_persistent(text)),
    "BINPERSID": _push(lambda machine: machine.load_persistent(machine.pop())),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"), _push(lambda _: INERT)),
}


# calls ---------------------------------------------------------------------------------------------------------------


def _rebuild_tensor(
    _: _Machine, storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), *__: Any
) -> Any:
    return TensorRecord(storage, offset, size, stride) if isinstance(storage, StorageRecord) else INERT


def _rebuild_tensor_v3(_: _Machine, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    dtype = rest[2] if len(rest) > 2 else None
    if not isinstance(storage, StorageRecord) or not isinstance(dtype, Global):
        return INERT
    return TensorRecord(storage, offset, size, stride, dtype.name)


def _rebuild_subclass(machine: _Machine, function: Any = None, _: Any = None, arguments: Any = (), *__: Any) -> Any:
    nested = isinstance(function, Global) and function.name == "_rebuild_from_type_v2"
    return INERT if nested else machine.call(function, arguments)


def _take_first(_: _Machine, value: Any = INERT, *__: Any) -> Any:
    return value


def _rebuild_list(_: _Machine, items: Any = (), *__: Any) -> Any:
    """Return the argument itself, without a copy; a tuple, a list and a set are the same here."""
    return items if isinstance(items, list | tuple) else []


def _rebuild_mapping(machine: _Machine, pairs: Any = (), *__: Any) -> Any:
    """Return the dict that was given, or one of the pairs that were given."""
    if isinstance(pairs, dict):
        return pairs
    pairs = pairs if isinstance(pairs, list | tuple) else ()
    machine.spend(len(pairs))
    return _make_dict([part for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2 for part in pair])


_TRUSTED = ("torch", "collections", "builtins", "__builtin__", "ordereddict")
"""Begins the modules of the names below. They are never imported: this only keeps out what they mean elsewhere."""
_REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_tensor_v3": _rebuild_tensor_v3,
    "_rebuild_from_type_v2": _rebuild_subclass,
    **dict.fromkeys(("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter", "Variable"), _take_first),
    **dict.fromkeys(("OrderedDict", "dict"), _rebuild_mapping),
    "defaultdict": lambda machine, _=None, *items: _rebuild_mapping(machine, *items),
    **dict.fromkeys(("list", "tuple", "set", "frozenset", "Size"), _rebuild_list),
}
