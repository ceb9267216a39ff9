"""The published error codes: documented, known to the clients, raised somewhere, and no other code is raised."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ErrorCode, ErrorGroup
from agent.jobs.json_text import BadJob

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
HEADINGS: dict[str, ErrorGroup] = {
    "The job file": "job",
    "The media": "media",
    "The weights": "weights",
    "The work": "work",
}
COMPOSED = {"audio_unreadable", "avatar_unreadable"}
"""Codes that the source composes: f"{kind}_unreadable"."""
CODE_PLACES = {"EngineError": 0, "JobError": 0, "ExitReason": 0, "_build_failed": 1, "Failed": 3}
"""Function -> the place of the code among its arguments."""


def nodes_of(package: str) -> Iterator[ast.AST]:
    for path in (ROOT / package).rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def raised_codes(package: str) -> Iterator[str]:
    """Every code that a package raises: a string in a call of CODE_PLACES, or a member of ErrorCode."""
    for node in nodes_of(package):
        if isinstance(node, ast.Call) and (code := code_of(node)):
            yield code
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "ErrorCode":
            yield ErrorCode[node.attr]


def called_name(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def code_of(call: ast.Call) -> str | None:
    place = CODE_PLACES.get(called_name(call))
    if place is None or len(call.args) <= place:
        return None
    value = getattr(call.args[place], "value", None)
    return value if isinstance(value, str) else None


@pytest.mark.parametrize("package", ["agent", "gpu_pool", "models"])
def test_every_raised_code_is_published(package: str) -> None:
    """No package raises a code that the enum doesn't list, though the lower ones must not import it."""
    found = set(raised_codes(package))
    assert found
    assert found <= set(ErrorCode)


def test_every_place_of_a_code_is_looked_at() -> None:
    """The functions that take codes are called so: a renamed one would escape these tests."""
    nodes = (node for package in ("agent", "gpu_pool", "models") for node in nodes_of(package))
    assert set(CODE_PLACES) <= {called_name(node) for node in nodes if isinstance(node, ast.Call)}


def test_the_daemon_names_codes_by_the_enum() -> None:
    """No BadJob and no JobError of the daemon takes a string that could be misspelt."""
    calls = [node for node in nodes_of("agent") if isinstance(node, ast.Call)]
    codes = [call.args[0] for call in calls if called_name(call) in ("BadJob", "JobError") and call.args]
    assert codes
    assert not [code for code in codes if isinstance(code, ast.Constant)]


def test_every_published_code_is_raised() -> None:
    """The enum lists no code that doesn't exist."""
    found = {code for package in ("agent", "gpu_pool", "models") for code in raised_codes(package)}
    assert set(ErrorCode) == found | COMPOSED


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_docs_explain_the_codes_of_each_group(heading: str) -> None:
    """docs/errors.md has one row for each code, with the explanation of the enum."""
    section = next(text for text in re.split(r"^### ", PAGE, flags=re.MULTILINE) if text.startswith(heading))
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))
    assert rows == {code: code.explanation for code in ErrorCode if code.group == HEADINGS[heading]}


def test_the_docs_explain_no_code_outside_its_section() -> None:
    """Every row of a code is in one of the sections, and the codes of workers are named below them."""
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(code for code in ErrorCode if code.group != "worker")
    assert all(f"`{code}`" in PAGE for code in ErrorCode if code.group == "worker")


def test_the_csharp_client_knows_the_kind_of_every_code() -> None:
    """Its table has each code of a failed job; its own codes are constants and no part of the enum."""
    source = (ROOT / "clients" / "csharp" / "MusedropClient" / "Errors.cs").read_text(encoding="utf-8")
    known = re.findall(r'^ +\{ "(\w+)", ErrorKind\.', source, re.MULTILINE)
    assert sorted(known) == sorted(code for code in ErrorCode if code.group != "worker")


def test_a_code_brings_its_own_hint() -> None:
    """An error without a hint has that of its code; every hint and explanation is one line."""
    assert BadJob(ErrorCode.DUPLICATE_KEY, "twice").hint == ErrorCode.DUPLICATE_KEY.hint
    assert BadJob(ErrorCode.DUPLICATE_KEY, "twice", "once").hint == "once"
    for code in ErrorCode:
        assert code.explanation.endswith(".")
        assert f"{code.explanation}{code.hint}".isprintable()
