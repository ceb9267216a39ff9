"""Prompts with weights in brackets, as `(eye blinks:1.1)`: what can be said of them before any network is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from models.types import EngineError

PAIRS = {")": "(", "]": "["}


def check_brackets(prompt: str, key: str = "motion.prompt") -> None:
    """Refuse brackets that don't match; those after a backslash are plain text. Raises EngineError bad_prompt.

    >>> check_brackets(r"(head still:1.2), [smile], a \\(note")
    """
    open_places: list[int] = []
    escaped = False
    for place, char in enumerate(prompt):
        if escaped or char == "\\":
            escaped = not escaped
        elif char in PAIRS.values():
            open_places.append(place)
        elif char in PAIRS and (not open_places or prompt[open_places.pop()] != PAIRS[char]):
            raise _refuse(prompt, place, key)
    if open_places:
        raise _refuse(prompt, open_places[-1], key)


def refuse_long(tokens: int, most: int, key: str = "motion.prompt") -> EngineError:
    """Return the error of a prompt with more tokens than the text encoder takes."""
    message = f"{key} has {tokens} tokens; the text encoder takes {most}"
    return EngineError("bad_prompt", message, "say it in fewer words: a token is a short word, or a part of a long one")


def check_tokenizer_files(folder: Path) -> None:
    """Raise ValueError for files of a tokenizer that are no such: the library raises no more than Exception for them.

    Raises OSError where they can't be read.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.name] = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path.name} is not JSON ({error})") from error
    merges = folder / "merges.txt"
    if "vocab.json" not in found or not merges.exists():
        return
    words = found["vocab.json"]
    if not isinstance(words, dict) or not all(isinstance(number, int) and number >= 0 for number in words.values()):
        raise ValueError("vocab.json is no list of words with their numbers")
    for line in merges.read_text(encoding="utf-8").split("\n"):
        if not line or line.startswith("#version"):
            continue
        parts = line.removesuffix("\r").split(" ")
        if len(parts) != 2 or any(part not in words for part in (*parts, "".join(parts))):
            raise ValueError(f'merges.txt joins "{line[:40]}", which is none of the words of vocab.json')


def _refuse(prompt: str, place: int, key: str) -> EngineError:
    message = f'the bracket "{prompt[place]}" at character {place + 1} of {key} has no partner'
    return EngineError("bad_prompt", message, r"close each ( and [; a bracket that is plain text is written \( or \[")
