"""One machine for all tests of the service; each finds it as if nothing had been installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.systemd.machine import Machine
from tests.e2e.systemd.service import Service


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    booted = Machine()
    yield booted
    booted.end()


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    """Installed, with workers that make no pictures, and not yet started."""
    installed = Service(machine)
    yield installed
    installed.clear()
