"""A CSV in the inbox: each row is a job. It becomes a folder of job files, which is then taken like any other.

The folder is complete when it gets its name, by one rename; the table is in it, hidden, until all rows are taken.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from agent.fs import Fingerprint, atomic_write_bytes, discard, is_folder, list_numbered, make_safe_name, read_limited
from agent.fs.folders import list_names, make_folder, move, remove, remove_empty
from agent.intake.scanner import Inbox, to_text
from agent.jobs.json_text import UTF16
from agent.jobs.parse import JOB_NAMES, OUTPUT_NAMES

MAX_BYTES = 1 << 20
MAX_ROWS = 1000
DEEPEST = 64
"""How deep the folders without files are that are removed with a batch."""
AT_ONCE = 8
"""Tables that one scan reads."""
SOURCE = ".source.csv"
SOURCES = (SOURCE, ".source.zip")
"""What such a folder was made of."""
UNNAMED = re.compile(r"^\.(.+)\.[0-9a-f]{16}\.batch$", re.DOTALL)
"""A folder that has not got its name yet."""
TEXTS = {"avatar", "template", "audio", "id", "submitter", "engine", "strategy", "encoder", "name"}
"""Columns whose values are texts, whatever they look like."""


def read_jobs(text: bytes, stem: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the job of each row; none where the table has no columns of a job file.

    The cells are separated by commas, semicolons or tabs, whichever the first line has most of.
    """
    try:
        document = text.decode("utf-16" if text.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        return []
    first = document.partition("\n")[0]
    rows = csv.reader(io.StringIO(document, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        header = [cell.strip() for cell in next(rows, [])]
        targets = {JOB_NAMES.get(fold_key(cell), ("", ""))[1] for cell in header}
        if not (targets & {"avatar", "template"} and "audio" in targets):
            return []
        filled = [row for row in rows if any(cell.strip() for cell in row)][:MAX_ROWS]
    except csv.Error:
        return []
    return [make_job(header, row, f"{stem}-{number}") for number, row in enumerate(filled, 1)]


def make_job(header: list[str], row: list[str], name: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a row, from its column `name` or its number, and its job as a job file has it."""
    job: dict[str, Any] = {}
    for key, cell in zip(header, row, strict=False):
        if not cell.strip() or not key:
            continue
        if fold_key(key) == "name":
            name = cell.strip()
            continue
        group, dot, inner = key.partition(".")
        if dot:
            job.setdefault(group, {})[inner] = read_cell(inner, cell.strip())
        elif fold_key(key) in OUTPUT_NAMES and fold_key(key) not in JOB_NAMES:
            job.setdefault("output", {})[key] = read_cell(key, cell.strip())
        else:
            job[key] = read_cell(key, cell.strip())
    return make_safe_name(name), job


def read_cell(key: str, cell: str) -> Any:
    """Return a cell as a number, true or false where the column may hold one."""
    if JOB_NAMES.get(fold_key(key), ("", fold_key(key)))[1] in TEXTS:
        return cell
    try:
        value = json.loads(cell.lower() if cell.lower() in ("true", "false") else cell)
    except (ValueError, RecursionError):
        return cell
    return value if isinstance(value, bool | int | float) else cell


def fold_key(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


# in the inbox --------------------------------------------------------------------------------------------------------


def unfold_tables(inbox: Inbox, now_s: float, others: set[Fingerprint]) -> None:
    """Make folders of the tables that are complete. What can't be read or moved is the problem of that table.

    others   the tables of other things, which are read once
    """
    tables = sorted(inbox.names.tables)
    others &= {inbox.tracked[name].fingerprint for name in tables}
    fresh = [name for name in tables if inbox.tracked[name].fingerprint not in others]
    for name in [name for name in fresh if inbox.is_settled(name, now_s)][:AT_ONCE]:
        path = inbox.folder / name
        if inbox.entries.is_blocked(path):
            continue
        if inbox.tracked[name].fingerprint.size > MAX_BYTES:
            others.add(inbox.tracked[name].fingerprint)
            continue
        with inbox.entries.guard(path, "be unfolded"):
            jobs = read_jobs(read_limited(path, MAX_BYTES) or b"", path.stem)
            if jobs:
                unfold(inbox.folder, name, jobs)
                inbox.forget(name)
            else:
                others.add(inbox.tracked[name].fingerprint)


def unfold(inbox: Path, table: str, jobs: list[tuple[str, dict[str, Any]]]) -> None:
    """Write a job file for each row into a new folder, then the table, and give the folder its name."""
    stem = make_safe_name(to_text(Path(table).stem))
    folder = make_unnamed_folder(inbox, stem)
    taken: set[str] = set()
    with discarding_on_error(folder):
        for name, job in jobs:
            free = next(one for one in list_numbered(name) if one.casefold() not in taken)
            taken.add(free.casefold())
            text = json.dumps(job, ensure_ascii=False, indent=2)
            atomic_write_bytes(folder / f"{free}.json", text.encode("utf-8", "replace"), durable=False)
        move(inbox / table, folder / SOURCE)
    give_name(inbox, folder, stem)


@contextmanager
def discarding_on_error(folder: Path) -> Iterator[None]:
    """Delete a new folder where the block raises an OSError: it is tried again later, with another folder."""
    try:
        yield
    except OSError:
        discard(folder)
        raise


def make_unnamed_folder(inbox: Path, stem: str) -> Path:
    """Make a hidden folder that `give_name` names when it is complete."""
    folder = inbox / f".{stem}.{token_hex(8)}.batch"
    make_folder(folder)
    return folder


def give_name(inbox: Path, folder: Path, stem: str) -> None:
    move(folder, next(inbox / name for name in list_numbered(stem) if not os.path.lexists(inbox / name)))


def finish_unfolding(inbox: Path, unfinished: Path | None = None) -> None:
    """Name the folders that a crash left complete, and remove the others: what they are made of is in the inbox.

    unfinished   the folder that is being filled now
    """
    for name in list_names(inbox):
        found = UNNAMED.match(name)
        if found is None or inbox / name == unfinished or (inbox / name).is_symlink() or not is_folder(inbox / name):
            continue
        with suppress(OSError):  # one that can't be read or moved keeps no other waiting
            if not set(SOURCES).isdisjoint(list_names(inbox / name)):
                give_name(inbox, inbox / name, make_safe_name(found[1]))
            else:
                remove(inbox / name)


def remove_if_taken(folder: Path) -> None:
    """Remove the folder of a table or an archive when nothing else is left in it but folders without files."""
    names = list_names(folder)
    sources = [name for name in names if name in SOURCES]
    if sources and all(is_folder(folder / name) and remove_hollow(folder / name) for name in set(names) - {*sources}):
        remove(folder)


def remove_hollow(folder: Path, depth: int = DEEPEST) -> bool:
    """Remove a folder in which no file is, down to a depth; return whether it is gone."""
    inner = [folder / name for name in list_names(folder)] if depth else None
    if inner is None or not all(not path.is_symlink() and is_folder(path) for path in inner):
        return False
    return all(remove_hollow(path, depth - 1) for path in inner) and remove_empty(folder)
