"""Messages as JSON lines: an object each, its `kind` the lower-case name of the dataclass.

Anything else is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, NoReturn, cast, get_args, get_origin, get_type_hints

from gpu_pool.types import Cancel, Done, Failed, Open, Progress, Ready, RunSpan, Stop, WorkerCommand, WorkerReport

MAX_LINE_BYTES = 1 << 20
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class WireError(ValueError):
    """Not a message: too long, no JSON, or an unknown kind, field or type."""


def encode(message: WorkerReport | WorkerCommand) -> bytes:
    """Return the message as a line, newline included.

    WireError if it is no JSON (NaN, a Path, a loop) or longer than MAX_LINE_BYTES.
    """
    body = {spec.name: _unwrap(getattr(message, spec.name)) for spec in fields(message)}
    kind = _get_kind(type(message))
    try:
        line = _JSON.encode({"kind": kind, **body}).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"{kind} is no JSON: {error}") from error
    if len(line) > MAX_LINE_BYTES:
        raise WireError(f"{kind} of {len(line)} bytes, the limit is {MAX_LINE_BYTES}")
    return line


def decode_report(line: bytes) -> WorkerReport:
    """Parse a line from a worker; WireError if it is not one of its messages."""
    return cast(WorkerReport, _decode(line, _REPORTS))


def decode_command(line: bytes) -> WorkerCommand:
    """Parse a line from the pool; WireError if it is not one of its messages."""
    return cast(WorkerCommand, _decode(line, _COMMANDS))


class LineSplitter:
    """Cuts a stream of bytes into lines without their newline.

    WireError as soon as one exceeds MAX_LINE_BYTES.
    """

    def __init__(self) -> None:
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
        if len(self._rest) > MAX_LINE_BYTES:
            raise WireError(f"a line longer than {MAX_LINE_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class _Schema:
    """What a message of one kind must look like."""

    make: Callable[..., object]
    checks: dict[str, Callable[[object], bool]]
    required: frozenset[str]


def _unwrap(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _get_kind(cls: type) -> str:
    return cls.__name__.lower()


def _decode(line: bytes, schemas: Mapping[str, _Schema]) -> object:
    body = _parse_object(line)
    schema = schemas.get(str(body.pop("kind", "")))
    if schema is None:
        raise WireError("a message of an unknown kind")
    if wrong := (body.keys() - schema.checks.keys()) | (schema.required - body.keys()):
        raise WireError(f"unknown or missing fields: {', '.join(sorted(wrong))[:200]}")
    if bad := [name for name, value in body.items() if not schema.checks[name](value)]:
        raise WireError(f"fields of a wrong type: {', '.join(bad)}")
    return schema.make(**body)


def _parse_object(line: bytes) -> dict[str, Any]:
    try:
        body = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(body, dict):
        raise WireError(f"not a JSON object: {line[:80]!r}")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _build_schema(cls: type) -> _Schema:
    hints = get_type_hints(cls)
    specs = fields(cls)
    required = {spec.name for spec in specs if spec.default is MISSING and spec.default_factory is MISSING}
    return _Schema(cls, {spec.name: _build_check(hints[spec.name]) for spec in specs}, frozenset(required))


def _build_check(hint: Any) -> Callable[[object], bool]:
    if get_origin(hint) is Literal:
        return lambda value: value in get_args(hint)
    if get_origin(hint) is Mapping:
        return lambda value: isinstance(value, dict)
    return _SCALARS[hint]


def _is_int(value: object) -> bool:
    """Whether it is an integer that SQLite and a float can store: a worker may send any."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


_SCALARS: dict[type, Callable[[object], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: _is_int,
    float: lambda value: _is_int(value) or (isinstance(value, float) and math.isfinite(value)),
}
_COMMANDS = {_get_kind(cls): _build_schema(cls) for cls in (Open, RunSpan, Cancel, Stop)}
_REPORTS = {_get_kind(cls): _build_schema(cls) for cls in (Ready, Progress, Done, Failed)}
