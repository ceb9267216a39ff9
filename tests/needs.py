"""Programs and libraries of other people that some tests drive: without them a test is skipped, and fails under CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test, saying what it lacks. With CI set everything has to be there, so it fails."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(program: str, package: str) -> str:
    """The path of a program that comes with a Debian package."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    return path if path else missing(f"{program} is missing: Debian package {package}")
