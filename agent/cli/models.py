"""`musedrop models`: each command becomes `python -m models.musetalk`, which may load torch."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agent.cli.console import Config, load_settings

app = typer.Typer(help="Get, check and convert the weights of MuseTalk.", no_args_is_help=True, rich_markup_mode=None)


class ModelVersion(StrEnum):
    """A version of MuseTalk, or both."""

    v15 = "v15"
    v1 = "v1"
    both = "both"


class Precision(StrEnum):
    """The number format of the largest networks; `auto` is what this machine runs fastest."""

    auto = "auto"
    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"
    none = "none"


Version = Annotated[ModelVersion | None, typer.Option("--version", help="Default: the installed version, or v15.")]


@app.command()
def fetch(
    files: Annotated[list[str] | None, typer.Argument(help="Only these files, as `verify` names them.")] = None,
    config: Config = None,
    version: Version = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace files that differ from the published ones.")
    ] = False,
    any_release: Annotated[
        bool, typer.Option("--any-release", help="Accept files that are not the known release.")
    ] = False,
    s3fd_url: Annotated[
        str | None, typer.Option(help="URL of the face detector's file. Default: its author's.")
    ] = None,
) -> None:
    """Download the missing weights; resumes downloads. HF_ENDPOINT names a mirror."""
    options = ["--s3fd-url", s3fd_url] if s3fd_url else []
    run_models_command(
        config,
        "fetch",
        *format_version(version),
        *format_flags(replace=replace, any_release=any_release),
        *options,
        "--",
        *(files or []),
    )


@app.command()
def verify(
    config: Config = None,
    version: Version = None,
    quick: Annotated[bool, typer.Option("--quick", help="Check names and shapes only, no checksums.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check each weight file, and say how to repair it."""
    run_models_command(config, "verify", *format_version(version), *format_flags(quick=quick, json=as_json))


@app.command(name="import")
def import_weights(
    folder: Annotated[
        Path | None, typer.Argument(help="The `models` folder of a MuseTalk installation. Default: ours.")
    ] = None,
    config: Config = None,
    replace: Annotated[bool, typer.Option("--replace", help="Convert files again that are converted.")] = False,
    precision: Annotated[
        list[Precision] | None,
        typer.Option("--precision", help="The precision of the machine that runs them, if not this one; repeatable."),
    ] = None,
) -> None:
    """Convert the weights into safetensors.

    Workers then start in one second and load no pickle.
    """
    precisions = [word for one in precision or [] for word in ("--precision", one)]
    run_models_command(
        config,
        "import",
        *format_flags(replace=replace),
        *precisions,
        "--",
        *([str(folder.absolute())] if folder else []),
    )


def format_version(version: ModelVersion | None) -> list[str]:
    return ["--version", version] if version else []


def format_flags(**flags: bool) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name, given in flags.items() if given]


def run_models_command(config: Path | None, *words: str) -> NoReturn:
    """Replace this process by `python -m models.musetalk`: same terminal, Ctrl-C and exit code."""
    folder = str(load_settings(config).models_dir)
    command = [sys.executable, "-m", "models.musetalk", "--models-dir", folder, *words]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  (our own interpreter and module; no shell)
