"""Fixtures: pools and backends of real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_pool.local import LocalBackend, cpu_devices
from gpu_pool.pool import Pool
from tests.gpu_pool.history import History
from tests.gpu_pool.pools import HANDLERS, Announcement, MakeBackend, MakePool


@pytest.fixture
def make_backend(tmp_path: Path) -> Iterator[MakeBackend]:
    """Make local backends, which are closed at the end."""
    made: list[LocalBackend] = []

    def make(count: int = 1, *, factory: str = "Obliging", options: dict[str, Any] | None = None) -> LocalBackend:
        handler, log_dir = f"{HANDLERS}:{factory}", tmp_path / "logs"
        made.append(LocalBackend(cpu_devices(count), handler=handler, handler_options=options or {}, log_dir=log_dir))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def make_pool(make_backend: MakeBackend) -> Iterator[MakePool]:
    """Make pools of real workers, which are closed at the end.

    `factory` and `options` are for the backend.
    """
    made: list[Pool] = []

    def make(count: int = 1, *, factory: str = "Obliging", options: dict[str, Any] | None = None, **more: Any) -> Pool:
        made.append(Pool(make_backend(count, factory=factory, options=options), **{"stall_s": 30.0, **more}))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture
def announcement(tmp_path: Path) -> Iterator[Announcement]:
    made = Announcement(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _close_pools() -> Iterator[None]:
    yield
    while History.open_pools:
        History.open_pools.pop().close()
