"""`musedrop models`: the weights of MuseTalk. A command becomes `python -m models.musetalk`, which may load torch."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agent.cli.console import Config, settings_of

app = typer.Typer(help="Get, check and convert the weights of MuseTalk.", no_args_is_help=True)


class Which(StrEnum):
    """Which version of MuseTalk."""

    v15 = "v15"
    v1 = "v1"
    both = "both"


class Precision(StrEnum):
    """In which number format MuseTalk's largest networks are kept ready; `auto` is what this machine runs best."""

    auto = "auto"
    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"
    none = "none"


Version = Annotated[Which | None, typer.Option("--version", help="Default: the version that is there, or v15.")]


@app.command()
def fetch(
    files: Annotated[list[str] | None, typer.Argument(help="Only these, as `verify` names them.")] = None,
    config: Config = None,
    version: Version = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace files that differ from the published ones.")
    ] = False,
    any_release: Annotated[
        bool, typer.Option("--any-release", help="Take what the server has, even if it isn't the known release.")
    ] = False,
    s3fd_url: Annotated[
        str | None, typer.Option(help="Where the face detector's file is, if not at its author's.")
    ] = None,
) -> None:
    """Download the weights that are missing; goes on where it was cut off. HF_ENDPOINT names a mirror."""
    options = ["--s3fd-url", s3fd_url] if s3fd_url else []
    run(config, "fetch", *of(version), *said(replace=replace, any_release=any_release), *options, "--", *(files or []))


@app.command()
def verify(
    config: Config = None,
    version: Version = None,
    quick: Annotated[bool, typer.Option("--quick", help="Names and shapes only, no checksums.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Say of every weight file whether it is there, of the right shapes and unchanged; else how to mend it."""
    run(config, "verify", *of(version), *said(quick=quick, json=as_json))


@app.command(name="import")
def bring(
    folder: Annotated[
        Path | None, typer.Argument(help="The `models` folder of a MuseTalk installation. Default: ours.")
    ] = None,
    config: Config = None,
    replace: Annotated[bool, typer.Option("--replace", help="Convert again what is converted already.")] = False,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(
            "--precision", help="In which they will run, if not on this machine; may be given more than once."
        ),
    ] = None,
) -> None:
    """Convert weights once into safetensors with a manifest: workers start in a second and need no pickle."""
    precisions = [word for one in precision or [] for word in ("--precision", one)]
    run(config, "import", *said(replace=replace), *precisions, "--", *([str(folder.absolute())] if folder else []))


def of(version: Which | None) -> list[str]:
    return ["--version", version] if version else []


def said(**flags: bool) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name, given in flags.items() if given]


def run(config: Path | None, *words: str) -> NoReturn:
    """Become the process that does it: its output, its Ctrl-C and its exit code are the command's own."""
    folder = str(settings_of(config).models_dir)
    command = [sys.executable, "-m", "models.musetalk", "--models-dir", folder, *words]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  (our own interpreter and module; no shell)
