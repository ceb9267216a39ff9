"""Programs of Debian packages that some tests need: without them a test is skipped."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test and say what is missing. With CI set, fail."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(program: str, package: str) -> str:
    """Return the path of a program of a Debian package."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    return path if path else missing(f"{program} is missing: Debian package {package}")
