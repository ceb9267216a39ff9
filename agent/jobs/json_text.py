"""The text of a job file: bytes -> one JSON object, with an error a person can act on. Standard library only."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 16

CODES: Mapping[str, str] = {
    "too_big": "The file is larger than 1 MiB (or than `inbox.max_job_bytes` of the settings).",
    "bad_encoding": "The bytes are neither UTF-8 nor UTF-16 with a byte order mark, or some of them are zero.",
    "not_json": "The text is not JSON; the message says where. `NaN` and `Infinity` are not JSON either.",
    "trailing_comma": "A comma stands before a closing `}` or `]`; JSON doesn't allow that.",
    "not_an_object": "The JSON is a list, a text or a number, not an object `{...}`.",
    "bad_version": "`version` is not 1.",
    "unknown_key": "A key that no version 1 job has; the hint names the nearest one.",
    "duplicate_key": "The same thing is said twice: by one key, or under two names.",
    "missing_key": "The job doesn't say which face, or which voice.",
    "bad_value": "A value of the wrong type or out of range.",
}
"""Every code of a `BadJob`, with what it means."""


class BadJob(Exception):
    """A job file that is refused. `code` is one of CODES, `message` says what is wrong and where, `hint` what to do."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.hint = code, message, hint


def shown(value: object) -> str:
    """A value for a message: short, on one line, printable."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def read_object(text: bytes, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in `text`, its keys not yet looked at. Raises BadJob if there is none, or not a whole one."""
    document = _decoded(text, max_bytes)
    _check_depth(document)
    try:
        data = json.loads(
            document,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_integer,
            object_pairs_hook=_without_twins,
        )
    except json.JSONDecodeError as error:
        raise _broken(document, error) from None
    except _Constant as found:
        raise _broken(document, _located(found, document)) from None
    if not isinstance(data, dict):
        raise BadJob("not_an_object", f"the file holds {shown(data)}, not an object", "Put it in braces: {...}.")
    return data


def _decoded(text: bytes, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise BadJob("too_big", f"the job file is larger than {max_bytes} bytes", "Media lie beside it, not in it.")
    if text.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise BadJob("bad_encoding", "the file is UTF-32", "Save it as UTF-8.")
    utf16 = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in text and not utf16:
        message = "there are zero bytes in the file: UTF-16 without a byte order mark, or a copy that was not finished"
        raise BadJob("bad_encoding", message, "Save it as UTF-8, or drop it again.")
    try:
        return text.removeprefix(codecs.BOM_UTF8).decode("utf-16" if utf16 else "utf-8")
    except UnicodeDecodeError as error:
        raise _undecodable(error) from None


def _undecodable(error: UnicodeDecodeError) -> BadJob:
    if "end of data" in error.reason or "truncated" in error.reason:
        message = "the file ends in the middle of a character"
        return BadJob("bad_encoding", message, "Drop it again: the copy was cut off, or it isn't UTF-8.")
    if error.encoding != "utf-8":
        return BadJob("bad_encoding", f"the file isn't valid UTF-16 ({error.reason})", "Save it as UTF-8.")
    before = error.object[: error.start]
    line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1
    message = f"line {line}, column {column}: byte 0x{error.object[error.start]:02X} isn't UTF-8; is it Windows-1252?"
    return BadJob("bad_encoding", message, "Save it as UTF-8; in C#, File.WriteAllText(path, json) does.")


class _Constant(Exception):
    """NaN, Infinity or -Infinity was met."""


def _refuse_constant(name: str) -> float:
    raise _Constant(name)


def _located(found: _Constant, document: str) -> json.JSONDecodeError:
    at = _outside_texts(document).find(str(found))
    return json.JSONDecodeError(f"{found} is not a number that JSON knows", document, at)


def _outside_texts(document: str) -> str:
    """The document with blanks in place of its texts; an unfinished one goes to the end, which keeps this linear."""
    return re.sub(r'"(?:[^"\\]++|\\.)*+"?', lambda text: " " * len(text[0]), document, flags=re.DOTALL)


def _check_depth(document: str) -> None:
    """Before the parser, which answers a thousand brackets with RecursionError."""
    depth = 0
    for bracket in re.finditer(r"[][{}]", _outside_texts(document)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise BadJob("bad_value", f"the JSON is nested deeper than {MAX_DEPTH}", "A job needs a depth of three.")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadJob("bad_value", f"the number {shown(digits)} is too large", "Write a smaller one.")
    return value


def _short_integer(digits: str) -> int:
    if len(digits) > 16:
        raise BadJob("bad_value", f"the number {shown(digits)} is too long", "Write it in 15 digits or fewer.")
    return int(digits)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadJob("duplicate_key", f"{shown(key)} stands there twice", "Keep one of them.")
        found[key] = value
    return found


HINTS: Mapping[str, str] = {
    "Invalid \\": 'A backslash is written twice, "C:\\\\in\\\\face.jpg"; or write /.',
    "Invalid control": "A line break or a tab inside of a text is written \\n or \\t.",
    "Expecting property": "Keys stand in double quotes, and JSON has no comments.",
    "Expecting ','": "A comma stands between two entries, and JSON has no comments.",
    "Unterminated": "Close the text with a quote; or drop the file again, the copy was cut off.",
    "Extra data": "One file holds one job.",
}


def _broken(document: str, error: json.JSONDecodeError) -> BadJob:
    if not document.strip():
        return BadJob("not_json", "the file is empty", 'The smallest job: {"avatar": "face.jpg", "audio": "voice.wav"}')
    comma = _trailing_comma(document, error.pos)
    if comma is not None:
        where = json.JSONDecodeError("", document, comma)
        message = f"line {where.lineno}, column {where.colno}: the comma before the closing bracket"
        return BadJob("trailing_comma", message, "Remove that comma: JSON doesn't allow it.")
    if not document[error.pos :].strip():
        message = f"the text ends too early, at line {error.lineno}, column {error.colno}"
        return BadJob("not_json", message, "Close what was opened; or drop it again, the copy was cut off.")
    hint = next((hint for start, hint in HINTS.items() if error.msg.startswith(start)), "See docs/job-file.md.")
    return BadJob("not_json", f"line {error.lineno}, column {error.colno}: {error.msg}", hint)


def _trailing_comma(document: str, at: int) -> int | None:
    """Where the comma is: before the bracket that surprised the parser, or (Python 3.13) where the parser stopped."""
    before, after = document[:at].rstrip(), document[at:].lstrip(", \t\r\n")
    if document[at : at + 1] == "," and after[:1] in ("}", "]"):
        return at
    return len(before) - 1 if before.endswith(",") and document[at : at + 1] in ("}", "]") else None
