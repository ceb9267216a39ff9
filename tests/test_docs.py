"""What the docs say is true: every query runs, every link leads somewhere."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from agent.cli.main import app
from agent.ledger.ledger import Ledger
from agent.service.reload import LIVE
from tests.agent.samples import add_job

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / "clients").rglob("*.md"),
]
PAGE, OTHERS = (
    re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    for page in ("status-queries.md", "operations.md")
)


def test_there_are_twelve_queries() -> None:
    """The page keeps its promise."""
    assert len(PAGE) == 12


@pytest.mark.parametrize("query", [*PAGE, *OTHERS])
def test_every_query_of_the_docs_runs_read_only(tmp_path: Path, query: str) -> None:
    """Each example runs on a ledger with a job in it, read-only, while a writer has it open."""
    ledger = Ledger(tmp_path / "jobs.db")
    add_job(ledger, "u1", name="hello", id="order-4711")
    conn = sqlite3.connect(f"{(tmp_path / 'jobs.db').as_uri()}?mode=ro", uri=True)
    rows = conn.execute(query)
    assert rows.description
    rows.fetchall()
    conn.close()
    ledger.close()


def test_the_documented_columns_are_the_views_columns(tmp_path: Path) -> None:
    """The table of views lists exactly what is there, in its order."""
    text = (ROOT / "docs" / "status-queries.md").read_text()
    documented = {
        name: re.findall(r"`(\w+)`", columns)
        for name, columns in re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", text, re.M)
    }
    ledger = Ledger(tmp_path / "jobs.db")
    for view in ledger.db.view_names():
        columns = [row[1] for row in ledger.db.execute(f"PRAGMA table_info({view})")]
        assert documented[view] == columns, view
    assert set(documented) >= set(ledger.db.view_names())
    ledger.close()


def commands(group: typer.Typer, before: str = "musedrop") -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{before} {command.name or command.callback.__name__}"
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{before} {inner.name}")


@pytest.mark.parametrize("command", list(commands(app)))
def test_every_command_is_in_the_docs(command: str) -> None:
    """No command is only in the code."""
    assert any(command in page.read_text() or command.replace("musedrop", "make") in page.read_text() for page in PAGES)


def problem_subjects() -> set[str]:
    """The subjects of all calls of `Problems.set`."""
    calls = (
        node
        for path in (ROOT / "agent").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and re.search(r"\bproblems\.set$", ast.unparse(node.func))
    )
    return {str(getattr(call.args[0], "value", "")) for call in calls if isinstance(call.args[0], ast.Constant)}


def test_every_problem_of_the_status_line_is_explained() -> None:
    """docs/service.md explains each problem, and none that doesn't exist."""
    page = (ROOT / "docs" / "service.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| ", page.partition("| subject |")[2], re.M)) == problem_subjects()


def test_the_settings_that_can_change_are_listed() -> None:
    """docs/service.md names exactly those that SIGHUP takes over."""
    page = (ROOT / "docs" / "service.md").read_text()
    paragraph = page.partition("These take effect at once")[2].partition("All others")[0]
    assert [name.rstrip("*") for name in re.findall(r"`([\w.*]+)`", paragraph)] == list(LIVE)


def test_every_promise_has_its_test() -> None:
    """docs/reliability.md names tests that exist."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 30
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"


PROMISES = (ROOT / "docs" / "promises.md").read_text()
ROW = re.compile(r"^\| (?!it says|---)(.+) \| `(tests/[\w/]+\.py)::(test_\w+)` \|$", re.MULTILINE)
OF_SECTIONS = re.compile(r"the sections? \*(.+)\*")


def flatten(text: str) -> str:
    return " ".join(text.split())


def promises_of(page: Path) -> list[tuple[str, str, str]]:
    """The rows of docs/promises.md for a page: what it says, and file and name of the test."""
    found = re.search(rf"^## {page.relative_to(ROOT)}\n(.*?)(?=^## )", PROMISES, re.MULTILINE | re.DOTALL)
    return ROW.findall(found[1]) if found else []


def sections_of(page: Path) -> dict[str, str]:
    """The sections of a page by their titles."""
    parts = re.split(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(flatten, parts[2::2]), strict=True))


PROMISING = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "reliability.md", ROOT / "docs" / "promises.md"}),
    *(ROOT / "clients").rglob("*.md"),
]


@pytest.mark.parametrize("page", PROMISING, ids=lambda page: page.name)
def test_every_page_keeps_its_promises(page: Path) -> None:
    """Each sentence in docs/promises.md is on its page, and its test exists; change the list with the page."""
    rows, text = promises_of(page), flatten(page.read_text())
    assert rows, f"docs/promises.md has nothing on {page.name}"
    for said, path, test in rows:
        assert OF_SECTIONS.fullmatch(said) or flatten(said) in text, f"{page.name} doesn't say: {said}"
        assert f"def {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"


@pytest.mark.parametrize("page", PROMISING, ids=lambda page: page.name)
def test_every_section_promises_something_or_is_known_not_to(page: Path) -> None:
    """A section that comes new gets a row in docs/promises.md, or is listed at its end."""
    said = [row[0] for row in promises_of(page)]
    named = [title for one in said if (match := OF_SECTIONS.fullmatch(one)) for title in match[1].split("; ")]
    none = re.search(rf"^- {page.relative_to(ROOT)}: (.*)$", PROMISES, re.MULTILINE)
    known = {*named, *(none[1].split("; ") if none else [])}
    for title, text in sections_of(page).items():
        assert title in known or any(flatten(one) in text for one in said), f"{page.name}: {title}"
    assert known <= sections_of(page).keys()


def test_every_relative_link_leads_somewhere() -> None:
    """Links between pages and to files of the project exist."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_path_of_the_project_exists() -> None:
    """Files and folders that the pages name in code quotes are there."""
    folders = "agent|benchmarks|clients|docs|gpu_pool|models|systemd|tests"
    for page in PAGES:
        for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_path_of_the_architecture_page_exists() -> None:
    """The map of the code names no module and no folder that is gone."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"(?<![\w/.>])([a-z_]+(?:/[a-z_]+)*(?:\.py|/(?![\w<])))", page.partition("\n## Folders")[0])
    assert "agent/intake/scanner.py" in named
    roots = [ROOT / package for package in ("", "agent", "gpu_pool", "models")]
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []
