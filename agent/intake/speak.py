"""`python -m agent.intake.speak ... -- COMMAND`: becomes the speech program of the settings, with bounds around it.

It ends with the daemon, writes no file larger than it may, and has no more rights than the daemon has.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from gpu_pool.guards import die_with_parent, raise_oom_score
from gpu_pool.walls.privileges import drop_privileges, limit_resources

NICENESS = 5
NOT_STARTED = 127
OF_THE_DAEMON = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


def make_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as the daemon has it, without what is for the daemon itself or for modules of ours."""
    kept = {name: value for name, value in env.items() if name not in (*OF_THE_DAEMON, "PYTHONPATH")}
    _, _, others = env.get("PYTHONPATH", "").partition(os.pathsep)
    return {**kept, "PYTHONPATH": others} if others else kept


def main(words: Sequence[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m agent.intake.speak", description="Started by the daemon.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--sound", default="", help="The file that gets the standard output.")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args(words)
    die_with_parent(args.parent)
    raise_oom_score()
    os.nice(NICENESS)
    limit_resources(0, args.bytes)
    drop_privileges()
    if args.sound:
        os.dup2(os.open(args.sound, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), sys.stdout.fileno())
    try:
        os.execvpe(args.command[0], args.command, make_environment(os.environ))  # noqa: S606  no shell
    except OSError as error:
        print(f"{args.command[0]} can't be started: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
