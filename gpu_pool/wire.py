"""Messages as JSON lines: an object each, its `kind` the lower-case name of the dataclass.

Anything else is refused. A report comes from a worker that has opened a stranger's file: what
passes is short, UTF-8 without surrogates, its numbers fit into 64 bits and are finite, and it is
not deep. A command comes from the daemon, and may have any length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, Literal, NoReturn, cast, get_args, get_origin, get_type_hints

from gpu_pool.types import Cancel, Done, Failed, Open, Progress, Ready, RunSpan, Stop, WorkerCommand, WorkerReport

MAX_LINE_BYTES = 1 << 20
"""The length of a report."""
MAX_DEPTH = 16
"""How deep lists and objects are nested: whatever reads or writes a report again has room for it."""
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_READABLE_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False)


class WireError(ValueError):
    """Not a message: too long, no JSON, or an unknown kind, field or type."""


def encode(message: WorkerReport | WorkerCommand) -> bytes:
    """Return the message as a line, newline included.

    WireError if it is no JSON (NaN, a Path, a loop), or a report longer than MAX_LINE_BYTES.
    """
    is_report = isinstance(message, WorkerReport)
    line = encode_any(message, is_report=is_report)
    if is_report and len(line) > MAX_LINE_BYTES:
        raise WireError(f"{_get_kind(type(message))} of {len(line)} bytes, the limit is {MAX_LINE_BYTES}")
    return line


def encode_any(message: Any, *, is_report: bool = False) -> bytes:
    """Return a message of any dataclass as a line, newline included. WireError if it is no JSON."""
    body = {spec.name: _unwrap(getattr(message, spec.name)) for spec in fields(message)}
    kind = _get_kind(type(message))
    try:
        return _write_line({"kind": kind, **body}, is_report=is_report)
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"{kind} is no JSON: {error}") from error


def _write_line(body: dict[str, Any], *, is_report: bool) -> bytes:
    """Return a line; what is no text in a report, as in a name that is no UTF-8, becomes `?`.

    A command keeps it: the worker has to open that file.
    """
    text = _READABLE_JSON.encode(body).encode("utf-8", "replace") if is_report else _JSON.encode(body).encode()
    return text + b"\n"


def decode_report(line: bytes) -> WorkerReport:
    """Parse a line from a worker; WireError if it is not one of its messages."""
    return cast(WorkerReport, decode_strange(line, _REPORTS))


def decode_strange(line: bytes, schemas: Schemas) -> object:
    """Parse a line from a process that has opened a stranger's file; WireError if it is none of these messages."""
    body = _parse_object(line, _parse_int)
    if _measure_depth(body) > MAX_DEPTH:
        raise WireError(f"JSON nested deeper than {MAX_DEPTH}")
    if b"\\" in line and not _is_text(body):
        raise WireError("a text that is no Unicode")
    return _build(body, schemas)


def decode_command(line: bytes) -> WorkerCommand:
    """Parse a line from the pool; WireError if it is not one of its messages."""
    return cast(WorkerCommand, decode_own(line, _COMMANDS))


def decode_own(line: bytes, schemas: Schemas) -> object:
    """Parse a line from the daemon; WireError if it is none of these messages."""
    return _build(_parse_object(line, int), schemas)


class LineSplitter:
    """Cuts a stream of bytes into lines without their newline.

    WireError as soon as one exceeds `max_bytes`, if that is given.
    """

    def __init__(self, max_bytes: int | None = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            yield self._complete(line)
        self._rest += rest
        self._check_length()

    def _complete(self, end: bytes) -> bytes:
        self._rest += end
        self._check_length()
        line = bytes(self._rest)
        self._rest.clear()
        return line

    def _check_length(self) -> None:
        if self._max_bytes is not None and len(self._rest) > self._max_bytes:
            raise WireError(f"a line longer than {self._max_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Schema:
    """What a message of one kind must look like."""

    make: Callable[..., object]
    checks: dict[str, Callable[[object], bool]]
    required: frozenset[str]


Schemas = Mapping[str, Schema]
"""By the kind of message."""


def _unwrap(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _get_kind(cls: type) -> str:
    return cls.__name__.lower()


def _build(body: dict[str, Any], schemas: Schemas) -> object:
    schema = schemas.get(str(body.pop("kind", "")))
    if schema is None:
        raise WireError("a message of an unknown kind")
    if wrong := (body.keys() - schema.checks.keys()) | (schema.required - body.keys()):
        raise WireError(f"unknown or missing fields: {ascii(', '.join(sorted(wrong)))[1:200]}")
    if bad := [name for name, value in body.items() if not schema.checks[name](value)]:
        raise WireError(f"fields of a wrong type: {', '.join(bad)}")
    return schema.make(**body)


def _parse_object(line: bytes, parse_int: Callable[[str], int]) -> dict[str, Any]:
    """Return the object of a line. A command has numbers of the system, such as inodes, which may need all 64 bits."""
    try:
        body = json.loads(line.decode(), parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=parse_int)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(body, dict):
        raise WireError(f"not a JSON object: {line[:80]!r}")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_float(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{digits[:20]} is out of range")
    return number


def _parse_int(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= 2**63:
        raise ValueError(f"{digits[:20]} is out of range")
    return number


def _is_text(body: dict[str, Any]) -> bool:
    """Whether no string has a surrogate, which `\\ud800` makes and no file or table takes."""
    try:
        _READABLE_JSON.encode(body).encode()
    except UnicodeEncodeError:
        return False
    return True


def _measure_depth(body: object) -> int:
    level, depth = [body], 0
    while level:
        depth += 1
        level = [inner for one in level for inner in _list_inner(one)]
    return depth


def _list_inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def build_schemas(*classes: type) -> dict[str, Schema]:
    """Return the schemas of the messages that are dataclasses of these."""
    return {_get_kind(cls): _build_schema(cls) for cls in classes}


def _build_schema(cls: type) -> Schema:
    hints = get_type_hints(cls)
    specs = fields(cls)
    required = {spec.name for spec in specs if spec.default is MISSING and spec.default_factory is MISSING}
    return Schema(cls, {spec.name: _build_check(hints[spec.name]) for spec in specs}, frozenset(required))


def _build_check(hint: Any) -> Callable[[object], bool]:
    if get_origin(hint) is Literal:
        return lambda value: value in get_args(hint)
    if get_origin(hint) is UnionType:
        checks = [_build_check(one) for one in get_args(hint)]
        return lambda value: any(check(value) for check in checks)
    if get_origin(hint) is Mapping:
        return lambda value: isinstance(value, dict)
    return _SCALARS[hint]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_SCALARS: dict[type, Callable[[object], bool]] = {
    type(None): lambda value: value is None,
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: _is_int,
    float: lambda value: _is_int(value) or isinstance(value, float),
}
_COMMANDS = build_schemas(Open, RunSpan, Cancel, Stop)
_REPORTS = build_schemas(Ready, Progress, Done, Failed)
