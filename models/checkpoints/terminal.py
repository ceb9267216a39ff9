"""What the commands about weights have in common: their exit codes, lines, progress and table of findings."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.checkpoints.verdicts import Tick, Verdict
from models.types import EngineError

NETWORK = ("huggingface_hub",)
MARKS = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def run_command(command: Callable[[], int]) -> int:
    """Run one command and return its exit code.

    0: all is well; 1: something is missing or wrong; 2: it could not be done, and two lines say why.
    """
    try:
        return command()
    except EngineError as error:
        errors.print(f"[red]musedrop:[/] {escape(error.message)}\n-> {escape(error.hint)}", soft_wrap=True)
    except OSError as error:
        what = escape(f"{error.filename or ''}: {error.strerror or error}")
        errors.print(f"[red]musedrop:[/] {what}", soft_wrap=True)
    except KeyboardInterrupt:
        errors.print("stopped; what was downloaded so far is kept")
        return 130
    return 2


def make_parser() -> tuple[argparse.ArgumentParser, Sequence[argparse.ArgumentParser]]:
    """Return a parser, and those of its commands fetch, verify and import, with what all engines have."""
    parser = argparse.ArgumentParser(prog="musedrop models")
    parser.add_argument("--models-dir", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch, verify, convert = (commands.add_parser(name) for name in ("fetch", "verify", "import"))
    fetch.add_argument("--replace", action="store_true")
    fetch.add_argument("--any-release", action="store_true")
    fetch.add_argument("files", nargs="*")
    verify.add_argument("--quick", action="store_true")
    verify.add_argument("--json", action="store_true")
    convert.add_argument("--replace", action="store_true")
    return parser, (fetch, verify, convert)


def say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def report(board: Progress, task: TaskID, done_bytes: int) -> None:
    board.update(task, completed=done_bytes)


@contextmanager
def show_progress() -> Iterator[Progress]:
    words, speed = TextColumn("{task.description}"), TransferSpeedColumn()
    columns = (words, BarColumn(), DownloadColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as board:
        yield board


def print_verdicts(verify: Callable[[Tick], Iterable[Verdict]], *, as_json: bool) -> int:
    """Print one line for every file, as they come; return 1 if any is bad."""
    verdicts = []
    with show_progress() as board:
        line = board.add_task("checking")
        for verdict in verify(lambda done: board.update(line, completed=done)):
            verdicts.append(verdict)
            if not as_json:
                name, what = escape(verdict.file), escape(verdict.found)
                console.print(f"{MARKS[verdict.verdict]} [bold]{name}[/]: {what}", soft_wrap=True)
                if verdict.advice:
                    say(f"     -> {verdict.advice}")
    if as_json:
        console.print_json(json.dumps([asdict(verdict) for verdict in verdicts]))
    return int(any(verdict.verdict == "bad" for verdict in verdicts))


def require_packages(names: tuple[str, ...], extra: str) -> None:
    """Raise EngineError engine_unavailable unless these packages are installed; silence their warnings.

    `extra`: the one of pyproject.toml that has them.
    """
    if absent := [name for name in names if find_spec(name) is None]:
        raise EngineError(
            "engine_unavailable",
            f"this needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed",
            f"install it with `pip install '.[{extra}]'` in the checkout",
        )
    logging.captureWarnings(capture=True)
    for name in ("diffusers", "huggingface_hub", "httpx2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
