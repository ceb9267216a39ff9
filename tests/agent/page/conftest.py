"""Fixtures of the page's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from agent.ledger.ledger import Ledger
from agent.page.app import Page
from agent.settings import Settings

FROM_PAGE = {"origin": "http://localhost", "x-musedrop": "1"}
"""The headers that the page's own script sends with a request that changes something."""


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    made = Ledger(settings.folders.ledger)
    yield made
    made.close()


@pytest.fixture
def client(settings: Settings, ledger: Ledger) -> Iterator[TestClient]:
    """A browser's view of the page, by the name localhost."""
    assert ledger.counts()
    with TestClient(Page(settings, lambda: "").build_app(), base_url="http://localhost") as made:
        yield made
