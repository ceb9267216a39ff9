"""The texts of the page, in both languages."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from agent.page.plain import LANGUAGES, choose_language, load_texts

STATIC = files("agent.page") / "static"


def test_every_text_is_there_in_both_languages() -> None:
    """No text is empty, and both have the same places for values."""
    for key, text in load_texts().items():
        assert set(text) == set(LANGUAGES), key
        assert all(text.values()), key
        places = [sorted(re.findall(r"\{\w+\}", part)) for part in text.values()]
        assert places[0] == places[1], key


def test_every_text_that_the_page_names_is_there_and_none_is_left_over() -> None:
    """Keys of the script and the document are those of the table."""
    names = ("page.js", "setup.js", "page.html")
    script, more, document = ((STATIC / name).read_text(encoding="utf-8") for name in names)
    script += more
    table = set(load_texts())
    named = set(re.findall(r'data-text="(\w+)"', document)) | set(re.findall(r'(?:say|button)\("(\w+)"', script))
    assert named <= table
    options = (STATIC / "options.json").read_text(encoding="utf-8")
    words = set(re.findall(r'"(\w+)"', script + options)) | named
    assert {key for key in table if key not in words and not key.startswith(("col_", "step_"))} == set()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("fr,de;q=0.9", "en"),
        ("fr,zh-TW;q=0.5", "zh"),
        ("zh;q=x,en;q=0.1", "en"),
        ("ZH-cn", "zh"),
    ],
)
def test_the_language_is_what_the_browser_prefers(accepted: str, language: str) -> None:
    """Chinese where it comes before English; English where neither is asked for."""
    assert choose_language(accepted) == language
