"""Chinese for what people read: errors, hints, what jobs wait for, and what the commands print.

`zh.json` has each sentence once, in English as the code says it with {places} for names and numbers, and in Chinese
with the same places. A sentence is found by its form, so that the code which raises it knows of no language, and
ledgers of earlier releases are understood. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from itertools import islice

MOST_CHARS = 4000
"""A longer text is left as it is."""
FEW_CHARS = 9
"""A template with fewer characters of its own, as "{key} is {value}: {why}", fits only around a known sentence."""
PLACE = re.compile(r"\{([a-z]\w*)\}")
NUMBER = r"-?[0-9][0-9.,]*(?:e[-+]?[0-9]+)?"
JOINTS = {"; ": "；", ". ": ""}  # noqa: RUF001  Chinese
"""What stands between sentences that are said together, and what in Chinese."""
JOINT, MOST_JOINTS = re.compile("[;.] "), 8


class Template:
    """A sentence with places: {n}, {n2} ... take a number, {why} another sentence, all others any text."""

    def __init__(self, english: str, chinese: str) -> None:
        pieces = PLACE.split(english)
        self.literals, self.places, self._chinese = pieces[::2], pieces[1::2], chinese
        self.weight = sum(map(len, self.literals))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        places = (NUMBER if re.fullmatch(r"n\d?", place) else ".+?" for place in self.places)
        groups = [f"({place})" for place in places]
        return re.compile(
            "".join(re.escape(text) + group for text, group in zip(self.literals, [*groups, ""], strict=True)),
            re.DOTALL,
        )

    def translate(self, text: str) -> str | None:
        """Return the Chinese of a text of this form with the values that stand in it, None for another form."""
        if not all(literal in text for literal in self.literals) or not (found := self._pattern.fullmatch(text)):
            return None
        values = dict(zip(self.places, found.groups(), strict=True))
        for place in [place for place in self.places if place.startswith("why")]:
            known = find_chinese(values[place])
            if known is None and self.weight < FEW_CHARS:
                return None
            values[place] = known or values[place]
        return PLACE.sub(lambda place: values[place[1]], self._chinese)


@cache
def load_table() -> Mapping[str, Mapping[str, str]]:
    """Return `codes`, by the code of an error, and `sentences`, by the English template."""
    table: Mapping[str, Mapping[str, str]] = json.loads((files(__name__) / "zh.json").read_bytes())
    return table


@cache
def list_templates() -> tuple[Template, ...]:
    """Return all templates, those that say most themselves first: they are tried in this order."""
    templates = (Template(english, chinese) for english, chinese in load_table()["sentences"].items())
    return tuple(sorted(templates, key=lambda template: template.weight, reverse=True))


@lru_cache(4096)
def find_chinese(text: str) -> str | None:
    """Return the Chinese of a sentence, or of several that are joined; None where one isn't known.

    >>> find_chinese("no face was found in face.jpg")
    '在 face.jpg 中没有找到人脸'
    """
    if not text or len(text) > MOST_CHARS:
        return None
    for first, joint, rest in _split(text):
        if (one := find_chinese(first)) and (other := find_chinese(rest)):
            return one + joint + other
    return next((found for template in list_templates() if (found := template.translate(text)) is not None), None)


def _split(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield a text in two at each of its first joints, and what joins them in Chinese."""
    for found in islice(JOINT.finditer(text), MOST_JOINTS):
        yield text[: found.start()] + found[0].strip(" ;"), JOINTS[found[0]], text[found.end() :]


def translate(text: str) -> str:
    """Return the Chinese of a sentence, or the sentence where there is none."""
    return find_chinese(text) or text


def speak(text: str) -> str:
    """Return a sentence in the language of this process's environment."""
    return translate(text) if choose_language(os.environ) == "zh" else text


def explain_error(code: str, message: str) -> str:
    """Return the Chinese of an error's message; of one that isn't known, what its code means, and the message."""
    return find_chinese(message) or f"{load_table()['codes'].get(code, code)}（{message}）"  # noqa: RUF001  Chinese


def choose_language(environment: Mapping[str, str]) -> str:
    """Return "zh" or "en" as a terminal's environment asks for.

    >>> choose_language({"LANG": "zh_CN.UTF-8"}), choose_language({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"})
    ('zh', 'en')
    """
    names = (environment.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, names), "").lower().startswith("zh") else "en"
