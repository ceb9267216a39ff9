"""The text of a job file: bytes become one JSON object, or an error that says what to do.

Standard library only.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from agent.errors import ErrorCode

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""How a text in UTF-16 begins."""


class BadJob(Exception):
    """A job that is refused.

    `message` says what is wrong and where, `hint` what to do; by default the code's own.
    """

    def __init__(self, code: ErrorCode, message: str, hint: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.hint = code, message, hint or code.hint


def format_value(value: object) -> str:
    """Return a value for a message: short, on one line, printable."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def read_object(text: bytes, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the JSON object in `text`, its keys unchecked.

    Raises BadJob if there is none, or not a whole one.
    """
    document = _decode(text, max_bytes)
    _check_depth(document)
    try:
        data = json.loads(
            document,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
            object_pairs_hook=_build_object,
        )
    except json.JSONDecodeError as error:
        raise _make_syntax_error(document, error) from None
    except _NotJsonNumber as found:
        raise _make_syntax_error(document, _locate(found, document)) from None
    if not isinstance(data, dict):
        raise BadJob(ErrorCode.NOT_AN_OBJECT, f"the file holds {format_value(data)}, not an object")
    return data


def _decode(text: bytes, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise BadJob(ErrorCode.TOO_BIG, f"the job file is larger than {max_bytes} bytes")
    if text.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise BadJob(ErrorCode.BAD_ENCODING, "the file is UTF-32", "Save it as UTF-8.")
    utf16 = text.startswith(UTF16)
    if b"\0" in text and not utf16:
        message = "there are zero bytes in the file: UTF-16 without a byte order mark, or a copy that was not finished"
        raise BadJob(ErrorCode.BAD_ENCODING, message, "Save it as UTF-8, or drop it again.")
    try:
        return text.removeprefix(codecs.BOM_UTF8).decode("utf-16" if utf16 else "utf-8")
    except UnicodeDecodeError as error:
        raise _make_decode_error(error) from None


def _make_decode_error(error: UnicodeDecodeError) -> BadJob:
    if "end of data" in error.reason or "truncated" in error.reason:
        message = "the file ends in the middle of a character"
        return BadJob(ErrorCode.BAD_ENCODING, message, "Drop it again: the copy was cut off, or it isn't UTF-8.")
    if error.encoding != "utf-8":
        return BadJob(ErrorCode.BAD_ENCODING, f"the file isn't valid UTF-16 ({error.reason})", "Save it as UTF-8.")
    before = error.object[: error.start]
    line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1
    message = f"line {line}, column {column}: byte 0x{error.object[error.start]:02X} isn't UTF-8; is it Windows-1252?"
    return BadJob(ErrorCode.BAD_ENCODING, message, "Save it as UTF-8; in C#, File.WriteAllText(path, json) does.")


class _NotJsonNumber(Exception):
    """The text holds NaN, Infinity or -Infinity."""


def _refuse_constant(name: str) -> float:
    raise _NotJsonNumber(name)


def _locate(found: _NotJsonNumber, document: str) -> json.JSONDecodeError:
    at = _blank_texts(document).find(str(found))
    return json.JSONDecodeError(f"{found} is not a number that JSON knows", document, at)


def _blank_texts(document: str) -> str:
    """Return the document with blanks for its texts.

    An unfinished text reaches to the end: linear time.
    """
    return re.sub(r'"(?:[^"\\]++|\\.)*+"?', lambda text: " " * len(text[0]), document, flags=re.DOTALL)


def _check_depth(document: str) -> None:
    """Check the nesting first, since the parser raises RecursionError for a thousand brackets."""
    depth = 0
    for bracket in re.finditer(r"[][{}]", _blank_texts(document)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise BadJob(
                ErrorCode.BAD_VALUE, f"the JSON is nested deeper than {MAX_DEPTH}", "A job needs a depth of three."
            )


def _parse_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadJob(ErrorCode.BAD_VALUE, f"the number {format_value(digits)} is too large", "Write a smaller one.")
    return value


def _parse_int(digits: str) -> int:
    if len(digits) > 16:
        raise BadJob(
            ErrorCode.BAD_VALUE, f"the number {format_value(digits)} is too long", "Write it in 15 digits or fewer."
        )
    return int(digits)


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadJob(ErrorCode.DUPLICATE_KEY, f"{format_value(key)} occurs twice")
        found[key] = value
    return found


HINTS: Mapping[str, str] = {
    "Invalid \\": 'A backslash is written twice, "C:\\\\in\\\\face.jpg"; or write /.',
    "Invalid control": "A line break or a tab inside of a text is written \\n or \\t.",
    "Expecting property": "Keys stand in double quotes, and JSON has no comments.",
    "Expecting ':'": "A colon stands between a key and its value.",
    "Expecting value": "A text stands in double quotes; true, false and null are written in small letters.",
    "Expecting ','": "A comma stands between two entries, and JSON has no comments.",
    "Unterminated": "Close the text with a quote; or drop the file again, the copy was cut off.",
    "Extra data": "One file holds one job.",
}


QUOTES: Mapping[str, str] = {
    **dict.fromkeys("\u201c\u201d\u201e\u201f\uff02\u2033", "a typographic double quote"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\uff07\u2032`\u00b4", "a typographic single quote"),
    **dict.fromkeys("\u00ab\u00bb\u2039\u203a\u300c\u300d", "an angle quote"),
}
QUOTES_HINT = 'JSON has straight double quotes, "face.jpg": replace it, and switch smart quotes off in the editor.'


def _make_syntax_error(document: str, error: json.JSONDecodeError) -> BadJob:
    if not document.strip():
        return BadJob(
            ErrorCode.NOT_JSON, "the file is empty", 'The smallest job: {"avatar": "face.jpg", "audio": "voice.wav"}'
        )
    comma = _find_trailing_comma(document, error.pos)
    if comma is not None:
        where = json.JSONDecodeError("", document, comma)
        message = f"line {where.lineno}, column {where.colno}: the comma before the closing bracket"
        return BadJob(ErrorCode.TRAILING_COMMA, message)
    if not document[error.pos :].strip():
        message = f"the text ends too early, at line {error.lineno}, column {error.colno}"
        return BadJob(ErrorCode.NOT_JSON, message, "Close what was opened; or drop it again, the copy was cut off.")
    found = document[error.pos]
    if found in QUOTES or found == "'":
        message = f"line {error.lineno}, column {error.colno}: {found} is {QUOTES.get(found, 'a single quote')}"
        return BadJob(ErrorCode.NOT_JSON, message, QUOTES_HINT)
    hint = next((hint for start, hint in HINTS.items() if error.msg.startswith(start)), "See docs/job-file.md.")
    return BadJob(ErrorCode.NOT_JSON, f"line {error.lineno}, column {error.colno}: {error.msg}", hint)


def _find_trailing_comma(document: str, at: int) -> int | None:
    """Return the place of the comma: before the parser's position or, in Python 3.13, there."""
    before, after = document[:at].rstrip(), document[at:].lstrip(", \t\r\n")
    if document[at : at + 1] == "," and after[:1] in ("}", "]"):
        return at
    return len(before) - 1 if before.endswith(",") and document[at : at + 1] in ("}", "]") else None
