"""`musedrop cluster ...`: the commands, which import what they need when they are called."""

from __future__ import annotations

import typer

from agent.cli.console import AsJson, Config, console, load_settings, print_json
from agent.errors import UserError

app = typer.Typer(help="Other machines whose cards are used, too.", no_args_is_help=True)


@app.command()
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Look at each machine: reachable, versions, weights, cards, clock, and bandwidth both ways.

    Exit code 1 if one of them can't be used.
    """
    from agent.cli.cluster.check import build_table, examine_nodes, list_troubles

    settings = load_settings(config)
    if not settings.cluster.nodes:
        raise UserError("the settings name no other machine: see [cluster] there, and docs/cluster.md")
    findings = examine_nodes(settings)
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        console.print(build_table(findings))
        for line in list_troubles(findings):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    if any(finding.trouble for finding in findings):
        raise typer.Exit(1)
