"""The commands about the library: `musedrop avatar`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import completion
from agent.cli.console import Config, console, find_settings, load_settings, print_json, speak
from agent.cli.options import EngineName, EngineOptions, parse_options
from agent.text import escape_markup

if TYPE_CHECKING:
    from agent.client import JobTicket
    from agent.settings import Settings

app = typer.Typer(
    help="The avatar library: faces that jobs refer to by name.", no_args_is_help=True, rich_markup_mode=None
)
AvatarName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the avatar in job files.", autocompletion=completion.complete_avatars),
]


@app.command("add")
def avatar_add(
    name: AvatarName,
    file: Annotated[Path, typer.Argument(help="Image or video with the face, or a folder of numbered pictures.")],
    config: Config = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an avatar of that name.")] = False,
    fps: Annotated[
        str, typer.Option("--fps", help="Frames a second of numbered pictures, as 25 or 30000/1001.")
    ] = "25",
) -> None:
    """Copy a face into the avatars."""
    from agent.cli.avatars import library

    path = library.add_avatar(load_settings(config), name, file, replace=replace, fps=fps)
    console.print(speak(f'{path} is added: use it in jobs as "avatar": "{name}"'), soft_wrap=True, markup=False)


@app.command("list")
def avatar_list(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the avatars, and what is prepared for each."""
    from agent.cli.avatars import library
    from agent.cli.display import views

    found = library.list_avatars(load_settings(config))
    if as_json:
        print_json([{"name": a.name, "kind": a.kind, "path": str(a.path), "prepared": a.prepared} for a in found])
        return
    empty = speak("the library is empty: musedrop avatar add NAME FILE")
    console.print(views.build_avatar_table(found) if found else empty)


@app.command("prepare")
def avatar_prepare(
    name: AvatarName,
    config: Config = None,
    engine: EngineName = "",
    option: EngineOptions = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end.")] = True,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the trial video, which shows the tracked face.")] = False,
) -> None:
    """Prepare a face before a job needs it.

    Runs a short silent clip, whose video does not stay in the outbox.
    """
    from agent.cli.avatars import library
    from agent.cli.jobs.following import follow_jobs, print_outcome
    from agent.cli.presence import warn_of_absence

    source = find_settings(config)
    settings = load_settings(config)
    ticket = library.submit_preparation(settings, name, parse_options(option), engine, keeps_video=keep)
    if not wait:
        warn_of_absence(settings, source)
        told = speak(f"{name} will be prepared by the job {ticket.name}")
        console.print(escape_markup(told), soft_wrap=True)
        return

    def tell(settings: Settings, row: dict[str, Any]) -> int:
        return 0 if row["state"] == "done" and not keep else print_outcome(settings, row)

    code = follow_jobs(settings, source, [ticket.id], tell=tell)
    if code == 0:
        has_some = any(avatar.prepared for avatar in library.list_avatars(settings) if avatar.name == name)
        told = "is prepared" if has_some else "can be used; the preview engine prepares nothing in advance"
        console.print(escape_markup(speak(f"{name} {told}")), soft_wrap=True)
    raise typer.Exit(code)


@app.command("animate")
def avatar_animate(
    name: AvatarName,
    config: Config = None,
    prompt: Annotated[str | None, typer.Option(help="What the person does. Default: a calm speaker.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What is not wanted. Default: the engine's list.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of the clip, 1 to 30. Default: 6.")] = None,
    seed: Annotated[str, typer.Option(help="Which of the possible clips; 1..4 or 1,5,9 to choose from.")] = "1",
    size: Annotated[int | None, typer.Option(help="Shorter side in pixels, in steps of 64. Default: 512.")] = None,
    engine: Annotated[str, typer.Option(help="auto, musev or diffusers.")] = "auto",
    variant: Annotated[str | None, typer.Option(help="Which of the engine's networks.")] = None,
    option: EngineOptions = None,
    keep: Annotated[int | None, typer.Option(help="Keep the clip of this seed without being asked.")] = None,
    to: Annotated[str | None, typer.Option("--as", help="Name of the clip. Default: NAME-moving.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an avatar of that name.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="The contact sheet. Default: NAME-seeds.jpg, here.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, and keep a clip.")] = True,
) -> None:
    """Make a clip of a photo in which the person moves, as an avatar.

    Of several seeds a contact sheet shows all, and one is kept.
    """
    from agent.cli.avatars import animating, library

    source = find_settings(config)
    settings = load_settings(config)
    asked: dict[str, Any] = {"engine": engine, "prompt": prompt, "negative_prompt": negative_prompt, "seconds": seconds}
    asked |= {"size": size, "variant": variant, "options": parse_options(option)}
    wish = animating.make_wish(settings, name, seed, keep, to or f"{name}-moving", replace=replace)
    tickets = animating.submit_clips(settings, wish, {key: one for key, one in asked.items() if one is not None})
    if not wait:
        announce_clips(settings, source, tickets)
        return
    rows, code = follow_clips(settings, source, tickets)
    clips = animating.find_clips(settings, rows)
    chosen = choose_clip(clips, sheet or Path(f"{name}-seeds.jpg")) if len(wish.seeds) > 1 else next(iter(clips), None)
    if chosen is not None:
        path = library.add_avatar(settings, wish.target, clips[chosen], replace=replace)
        told = speak(f'{path} is added: use it in jobs as "avatar": "{wish.target}"')
        console.print(told, soft_wrap=True, markup=False)
    raise typer.Exit(code)


def announce_clips(settings: Settings, source: Path, tickets: dict[int, JobTicket]) -> None:
    from agent.cli.presence import warn_of_absence

    warn_of_absence(settings, source)
    for seed, ticket in tickets.items():
        told = speak(f"the clip of seed {seed} will be made by the job {ticket.name}")
        console.print(escape_markup(told), soft_wrap=True)
    console.print(speak("the same command with --keep SEED then keeps one, and makes none again"), soft_wrap=True)


def follow_clips(
    settings: Settings, source: Path, tickets: dict[int, JobTicket]
) -> tuple[dict[int, dict[str, Any]], int]:
    """Wait for the jobs; return the rows of those that have ended, by their seeds, and the exit code."""
    from agent.cli.jobs.following import follow_jobs, print_outcome

    seeds, rows = {ticket.id: seed for seed, ticket in tickets.items()}, {}

    def tell(settings: Settings, row: dict[str, Any]) -> int:
        rows[seeds[row["id"]]] = row
        return 0 if row["state"] == "done" else print_outcome(settings, row)

    code = follow_jobs(settings, source, list(seeds), tell=tell)
    return rows, code


def can_ask() -> bool:
    return sys.stdin.isatty()


def choose_clip(clips: dict[int, Path], sheet: Path) -> int | None:
    """Draw the contact sheet, and return the seed that the user chooses from it; None for none."""
    from agent.cli.avatars.animating import draw_clips

    if not clips:
        return None
    draw_clips(clips, sheet)
    console.print(speak(f"{sheet} shows the clips side by side"), soft_wrap=True, markup=False)
    if not can_ask():
        console.print(speak("the same command with --keep SEED keeps one of them"), soft_wrap=True)
        return None

    def read(answer: str) -> int | None:
        if answer not in (known := {**{str(seed): seed for seed in clips}, "none": None}):
            raise typer.BadParameter(", ".join(known))
        return known[answer]

    chosen: int | None = typer.prompt(speak("Which seed is kept?"), default="none", value_proc=read)
    return chosen


@app.command("remove")
def avatar_remove(
    name: AvatarName,
    config: Config = None,
    force: Annotated[bool, typer.Option("--force", help="Remove it even if queued jobs need it.")] = False,
) -> None:
    """Remove a face from the library."""
    from agent.cli.avatars import library

    for path in library.remove_avatar(load_settings(config), name, force=force):
        console.print(speak(f"{path} is removed"), soft_wrap=True, markup=False)
