"""`python -m models.musetalk fetch|verify|import`: what `musedrop models` runs, in a process that may load torch."""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
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

from models.musetalk.weights.index import S3FD_URL, VERSIONS, Version, installed_versions
from models.types import EngineError

NETWORK = ("huggingface_hub",)
NEEDED = ("torch", "diffusers", "safetensors", "onnxruntime")
MARKS = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def main() -> int:
    """Run one command and return its exit code.

    0: all is well; 1: something is missing or wrong; 2: it could not be done, and two lines say why.
    """
    given = parse_arguments()
    try:
        return COMMANDS[given.command](given)
    except EngineError as error:
        errors.print(f"[red]musedrop:[/] {escape(error.message)}\n-> {escape(error.hint)}", soft_wrap=True)
    except OSError as error:
        what = escape(f"{error.filename or ''}: {error.strerror or error}")
        errors.print(f"[red]musedrop:[/] {what}", soft_wrap=True)
    except KeyboardInterrupt:
        errors.print("stopped; what was downloaded so far is kept")
        return 130
    return 2


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="musedrop models")
    parser.add_argument("--models-dir", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch")
    fetch.add_argument("--version", choices=[*VERSIONS, "both"])
    fetch.add_argument("--replace", action="store_true")
    fetch.add_argument("--any-release", action="store_true")
    fetch.add_argument("--s3fd-url", default=S3FD_URL)
    fetch.add_argument("files", nargs="*")
    verify = commands.add_parser("verify")
    verify.add_argument("--version", choices=[*VERSIONS, "both"])
    verify.add_argument("--quick", action="store_true")
    verify.add_argument("--json", action="store_true")
    convert = commands.add_parser("import")
    convert.add_argument("--replace", action="store_true")
    convert.add_argument("--precision", choices=["auto", "fp16", "bf16", "fp32", "none"], action="append")
    convert.add_argument("folder", type=Path, nargs="?")
    return parser.parse_args()


def select_versions(name: str | None) -> tuple[Version, ...]:
    return tuple(version for version in VERSIONS if name in (version, "both"))


def run_fetch(given: argparse.Namespace) -> int:
    """Get what is missing. Files that are there are left alone, unless --replace finds that they differ."""
    require_packages(NETWORK)
    from models.musetalk.commands import fetch

    root: Path = given.models_dir
    root.mkdir(parents=True, exist_ok=True)
    asked = select_versions(given.version) or installed_versions(root)[:1] or VERSIONS[:1]
    names = given.files or fetch.list_needed(root, asked, replace=given.replace)
    files = fetch.list_remote_files(names, fetch.read_endpoint(dict(os.environ)), given.s3fd_url)
    if not files:
        say(f"all weights are in {root}; `musedrop models verify` checks them")
        return 0
    offers = list(fetch.query_missing(root, files, replace=given.replace, any_release=given.any_release, say=say))
    fetch.check_space(root, offers)
    with show_progress() as board:
        for file, offer in offers:
            task = board.add_task(file.file, total=file.bytes)
            fetch.download(root, file, offer, partial(report, board, task))
            board.console.print(f"{file.file}: {fetch.format_size((root / file.file).stat().st_size)}")
    fetch.remove_empty_folder(root)
    say(f"{len(offers)} files downloaded into {root}")
    say("next: `musedrop models import` converts them once, so that workers start faster and need no pickle")
    return 0


def report(board: Progress, task: TaskID, done_bytes: int) -> None:
    board.update(task, completed=done_bytes)


def say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


@contextmanager
def show_progress() -> Iterator[Progress]:
    words, speed = TextColumn("{task.description}"), TransferSpeedColumn()
    columns = (words, BarColumn(), DownloadColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as board:
        yield board


def run_verify(given: argparse.Namespace) -> int:
    """Print one line for every file; return 1 if any is bad."""
    require_packages(NEEDED)
    from models.musetalk.commands.verify import verify_folder

    verdicts = []
    with show_progress() as board:
        line = board.add_task("checking")
        for verdict in verify_folder(
            given.models_dir,
            select_versions(given.version),
            hashes=not given.quick,
            tick=lambda done: board.update(line, completed=done),
        ):
            verdicts.append(verdict)
            if not given.json:
                name, what = escape(verdict.file), escape(verdict.found)
                console.print(f"{MARKS[verdict.verdict]} [bold]{name}[/]: {what}", soft_wrap=True)
                if verdict.advice:
                    say(f"     -> {verdict.advice}")
    if given.json:
        console.print_json(json.dumps([asdict(verdict) for verdict in verdicts]))
    return int(any(verdict.verdict == "bad" for verdict in verdicts))


def run_import(given: argparse.Namespace) -> int:
    """Convert the weights of a folder, by default of the models folder itself, into safetensors.

    It also writes ready files for the precisions in which they will run, by default the one of this machine.
    """
    require_packages(NEEDED)
    from models.musetalk.commands.convert import import_folder
    from models.musetalk.inpainting.precision import best_precision

    asked = dict.fromkeys(best_precision() if name == "auto" else name for name in given.precision or ["auto"])
    precisions = [name for name in asked if name != "none"]
    source: Path = given.folder or given.models_dir
    with console.status("converting"):
        for line in import_folder(source, given.models_dir, replace=given.replace, precisions=precisions):
            say(line)
    say(f"the converted weights and their manifest are in {given.models_dir / 'converted'}")
    return 0


def require_packages(names: tuple[str, ...]) -> None:
    """Raise EngineError engine_unavailable unless these packages are installed; silence their warnings."""
    if absent := [name for name in names if find_spec(name) is None]:
        raise EngineError(
            "engine_unavailable",
            f"this needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed",
            "install it with `pip install '.[musetalk]'` in the checkout",
        )
    logging.captureWarnings(capture=True)
    for name in ("diffusers", "huggingface_hub", "httpx2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


COMMANDS = {"fetch": run_fetch, "verify": run_verify, "import": run_import}

if __name__ == "__main__":
    raise SystemExit(main())
