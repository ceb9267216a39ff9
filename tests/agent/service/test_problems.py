"""Problems: logged when they begin and end, and listed while they last."""

from __future__ import annotations

import logging

import pytest

from agent.service.problems import Problems


def test_a_problem_is_logged_once_at_each_end(caplog: pytest.LogCaptureFixture) -> None:
    """The same text again is no news, another text is."""
    caplog.set_level(logging.INFO, "musedrop")
    problems = Problems()
    for text in ("it is away", "it is away", "it is full", "", ""):
        problems.set("outbox", text)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "INFO"]
    assert caplog.records[-1].message == "over: it is full"
    assert problems["outbox"] == problems["unknown"] == ""


def test_texts_end_with_what_the_operator_has_to_do() -> None:
    """Each subject has one text, and the notice comes last."""
    problems = Problems()
    problems.set_notice("a restart is needed")
    problems.set("share", "it is away")
    problems.set("disk", "it is full")
    assert problems.texts == ["it is away", "it is full", "a restart is needed"]
    problems.set_notice("")
    problems.set("share", "")
    assert problems.texts == ["it is full"]
