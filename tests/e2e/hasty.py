"""`python -m tests.e2e.hasty run --config FILE`: a real daemon that soon tests cards that no job needs."""

from __future__ import annotations

from agent.cli.main import main
from agent.selftest import background

if __name__ == "__main__":
    background.CHECK_S = background.IDLE_S = 0.5
    main()
