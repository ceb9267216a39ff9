"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.needs import need
from tests.nvmlstub import PretendDriver, build_library
from tests.share import Share

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it as any test imports it: it defines functions by it

settings.register_profile("shared machine", deadline=None)  # a busy machine is no failure
settings.load_profile("shared machine")


@pytest.fixture(scope="session", autouse=True)
def unflushed_files() -> Iterator[None]:
    """Let files of this process reach the disk whenever the system likes: no test here cuts the power."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _fd: None)
        yield


@pytest.fixture
def make_share(tmp_path: Path) -> Iterator[Callable[..., Share]]:
    """Make shares whose daemons are killed when the test ends."""
    shares: list[Share] = []

    def make(**settings: Any) -> Share:
        shares.append(Share(tmp_path / f"s{len(shares)}", **settings))
        return shares[-1]

    yield make
    for share in shares:
        share.end()


@pytest.fixture
def share(make_share: Callable[..., Share]) -> Share:
    """One share with a running daemon."""
    made = make_share()
    made.start()
    return made


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a library that pretends to be the NVIDIA driver's."""
    need("cc", "gcc")
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(nvml_library: Path, tmp_path: Path) -> PretendDriver:
    """A pretended NVIDIA driver, without cards at first."""
    return PretendDriver(nvml_library, tmp_path)
