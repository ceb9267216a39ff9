"""`python -m models.musetalk fetch|verify|import`: what `musedrop models` runs, in a process that may load torch."""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from models.musetalk.commands import fetch
from models.musetalk.weights.index import S3FD_URL, VERSIONS, Version, installed_versions
from models.types import EngineError

NEEDED = ("torch", "diffusers", "transformers", "safetensors", "onnxruntime")
MARKS = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def main() -> int:
    """0: all is well; 1: something is missing or wrong; 2: it could not be done, and why is said in two lines."""
    given = arguments()
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="musedrop models")
    parser.add_argument("--models-dir", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("fetch")
    get.add_argument("--version", choices=[*VERSIONS, "both"])
    get.add_argument("--replace", action="store_true")
    get.add_argument("--any-release", action="store_true")
    get.add_argument("--s3fd-url", default=S3FD_URL)
    get.add_argument("files", nargs="*")
    check = commands.add_parser("verify")
    check.add_argument("--version", choices=[*VERSIONS, "both"])
    check.add_argument("--quick", action="store_true")
    check.add_argument("--json", action="store_true")
    bring = commands.add_parser("import")
    bring.add_argument("--replace", action="store_true")
    bring.add_argument("--precision", choices=["auto", "fp16", "bf16", "fp32", "none"], action="append")
    bring.add_argument("folder", type=Path, nargs="?")
    return parser.parse_args()


def asked_versions(name: str | None) -> tuple[Version, ...]:
    return tuple(version for version in VERSIONS if name in (version, "both"))


def fetch_command(given: argparse.Namespace) -> int:
    """Get what is missing. Files that are there are left alone, unless --replace finds that they differ."""
    root: Path = given.models_dir
    root.mkdir(parents=True, exist_ok=True)
    asked = asked_versions(given.version) or installed_versions(root)[:1] or VERSIONS[:1]
    names = given.files or fetch.needed(root, asked, replace=given.replace)
    files = fetch.wanted(names, fetch.endpoint(dict(os.environ)), given.s3fd_url)
    if not files:
        console.print(f"all weights are in {root}; `musedrop models verify` checks them", soft_wrap=True, markup=False)
        return 0
    todo = list(offered(files, root, given))
    fetch.check_space(root, todo)
    with progress() as board:
        for file, offer in todo:
            get_one(root, file, offer, board)
    fetch.clean_up(root)
    console.print(f"{len(todo)} files downloaded into {root}", soft_wrap=True, markup=False)
    console.print("next: `musedrop models import` converts them once, so that workers start faster and need no pickle")
    return 0


def offered(
    files: list[fetch.Wanted], root: Path, given: argparse.Namespace
) -> Iterator[tuple[fetch.Wanted, fetch.Offer]]:
    """What has to be downloaded, and what the servers say of it. Raises EngineError before a file would be replaced."""
    for file in files:
        asked = replace(file, bytes=None, sha256=None) if given.any_release else file
        offer = fetch.patiently(asked)
        fetch.check_release(asked, offer)
        asked = fetch.settled(asked, offer)
        if fetch.is_there(root, asked, offer):
            fetch.note(root, asked)
            console.print(f"{file.file} is here already")
        elif (root / file.file).exists() and not given.replace:
            raise fetch.differs(root, file)
        else:
            yield asked, offer


def get_one(root: Path, file: fetch.Wanted, offer: fetch.Offer, board: Progress) -> None:
    line = board.add_task(file.file, total=file.bytes)
    fetch.download(root, file, offer, lambda done: board.update(line, completed=done))
    board.console.print(f"{file.file}: {fetch.size_of((root / file.file).stat().st_size)}")


@contextmanager
def progress() -> Iterator[Progress]:
    words, speed = TextColumn("{task.description}"), TransferSpeedColumn()
    columns = (words, BarColumn(), DownloadColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as board:
        yield board


def verify_command(given: argparse.Namespace) -> int:
    """One line for every file; 1 if any is bad."""
    require_packages()
    from models.musetalk.commands.verify import verify_folder

    verdicts = []
    with progress() as board:
        line = board.add_task("checking")
        for verdict in verify_folder(
            given.models_dir,
            asked_versions(given.version),
            hashes=not given.quick,
            tick=lambda done: board.update(line, completed=done),
        ):
            verdicts.append(verdict)
            if not given.json:
                name, what = escape(verdict.file), escape(verdict.found)
                console.print(f"{MARKS[verdict.verdict]} [bold]{name}[/]: {what}", soft_wrap=True)
                if verdict.advice:
                    console.print(f"     -> {verdict.advice}", soft_wrap=True, markup=False)
    if given.json:
        console.print_json(json.dumps([asdict(verdict) for verdict in verdicts]))
    return int(any(verdict.verdict == "bad" for verdict in verdicts))


def import_command(given: argparse.Namespace) -> int:
    """Convert the weights of a folder, by default of the models folder itself, into safetensors, and make them ready
    for the precisions in which they will run, by default the one of this machine."""
    require_packages()
    from models.musetalk.commands.convert import import_folder
    from models.musetalk.inpainting.precision import best_precision

    asked = dict.fromkeys(best_precision() if name == "auto" else name for name in given.precision or ["auto"])
    precisions = [name for name in asked if name != "none"]
    source: Path = given.folder or given.models_dir
    with console.status("converting"):
        for line in import_folder(source, given.models_dir, replace=given.replace, precisions=precisions):
            console.print(line, soft_wrap=True, markup=False)
    console.print(
        f"the converted weights and their manifest are in {given.models_dir / 'converted'}",
        soft_wrap=True,
        markup=False,
    )
    return 0


def require_packages() -> None:
    """Raise EngineError unless what MuseTalk needs is installed; keep its chatter off the terminal."""
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise EngineError(
            "engine_unavailable",
            f"this needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed",
            "install it with `pip install '.[musetalk]'` in the checkout",
        )
    logging.captureWarnings(capture=True)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


COMMANDS = {"fetch": fetch_command, "verify": verify_command, "import": import_command}

if __name__ == "__main__":
    raise SystemExit(main())
