"""`musedrop models`: each command becomes `python -m models.ENGINE`, which may load torch."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agent.cli.console import Config, load_settings

app = typer.Typer(
    help="Get, check and convert the weights of MuseTalk and MuseV.", no_args_is_help=True, rich_markup_mode=None
)


class ModelVersion(StrEnum):
    """A version of MuseTalk, or both."""

    v15 = "v15"
    v1 = "v1"
    both = "both"


class WeightsEngine(StrEnum):
    """Whose weights a command is about."""

    musetalk = "musetalk"
    musev = "musev"


class MotionVariant(StrEnum):
    """One of the networks that MuseV published."""

    musev_referencenet = "musev_referencenet"
    musev = "musev"


class Precision(StrEnum):
    """The number format of the largest networks; `auto` is what this machine runs fastest."""

    auto = "auto"
    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"
    none = "none"


Engine = Annotated[WeightsEngine, typer.Option("--engine", help="musetalk, or musev.")]
Variant = Annotated[MotionVariant | None, typer.Option("--variant", help="Of musev. Default: musev_referencenet.")]
Base = Annotated[str | None, typer.Option("--base", help="Of musev: the folder of another base model.")]
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
    engine: Engine = WeightsEngine.musetalk,
    variant: Variant = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Of musev: confirm that your use is non-commercial research.")
    ] = False,
    lcm: Annotated[bool, typer.Option("--lcm", help="Of musev: also what the option lcm needs, 135 MB.")] = False,
) -> None:
    """Download the missing weights; resumes downloads. HF_ENDPOINT names a mirror."""
    flags = format_flags(replace=replace, any_release=any_release)
    refuse_options(engine, version=version, s3fd_url=s3fd_url, variant=variant, accept_licence=accept_licence, lcm=lcm)
    own = [*format_option("variant", variant), *format_flags(accept_licence=accept_licence, lcm=lcm)]
    options = [*format_option("version", version), *format_option("s3fd-url", s3fd_url), *own]
    run_models_command(config, engine, "fetch", *options, *flags, "--", *(files or []))


@app.command()
def verify(
    config: Config = None,
    version: Version = None,
    quick: Annotated[bool, typer.Option("--quick", help="Check names and shapes only, no checksums.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    engine: Engine = WeightsEngine.musetalk,
    variant: Variant = None,
    base: Base = None,
) -> None:
    """Check each weight file, and say how to repair it."""
    refuse_options(engine, version=version, variant=variant, base=base)
    options = [*format_option("version", version), *format_option("variant", variant), *format_option("base", base)]
    run_models_command(config, engine, "verify", *options, *format_flags(quick=quick, json=as_json))


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
    engine: Engine = WeightsEngine.musetalk,
    base: Base = None,
) -> None:
    """Convert the weights into safetensors.

    Workers then start in one second and load no pickle.
    """
    refuse_options(engine, folder=folder, precision=precision, base=base)
    precisions = [word for one in precision or [] for word in ("--precision", one)]
    options = [*format_flags(replace=replace), *precisions, *format_option("base", base)]
    folders = ["--", str(folder.absolute())] if folder else []
    run_models_command(config, engine, "import", *options, *folders)


OPTIONS_OF = {
    WeightsEngine.musetalk: ("version", "s3fd_url", "folder", "precision"),
    WeightsEngine.musev: ("variant", "accept_licence", "base", "lcm"),
}


def refuse_options(engine: WeightsEngine, **given: object) -> None:
    """Refuse what only the weights of another engine have, before anything is done."""
    for name, value in given.items():
        if value and name not in OPTIONS_OF[engine]:
            other = next(one for one, names in OPTIONS_OF.items() if name in names)
            word = "a folder" if name == "folder" else f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{word} is for the weights of {other}, not of {engine}")


def format_option(name: str, value: str | None) -> list[str]:
    return [f"--{name}", value] if value else []


def format_flags(**flags: bool) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name, given in flags.items() if given]


def run_models_command(config: Path | None, engine: WeightsEngine, *words: str) -> NoReturn:
    """Replace this process by `python -m models.ENGINE`: same terminal, Ctrl-C and exit code."""
    folder = str(load_settings(config).models_dir)
    command = [sys.executable, "-m", f"models.{engine}", "--models-dir", folder, *words]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  (our own interpreter and module; no shell)
