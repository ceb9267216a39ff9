"""`python -m gpu_pool.agent`: the agent of a node, for the daemon at the other end of its input and output."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from gpu_pool.agent.pipe import Pipe
from gpu_pool.agent.serve import Agent


def main() -> None:
    """Serve the daemon until it ends or is silent for too long."""
    argparse.ArgumentParser(prog="python -m gpu_pool.agent", description=main.__doc__).parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal that it shares with the daemon
    pipe = Pipe(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # what libraries print must not get between the messages
    print(f"gpu_pool.agent: {Agent(pipe).serve()}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
