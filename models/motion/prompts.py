"""Prompts with weights in brackets, as `(eye blinks:1.1)`: what can be said of them before any network is loaded."""

from __future__ import annotations

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


def _refuse(prompt: str, place: int, key: str) -> EngineError:
    message = f'the bracket "{prompt[place]}" at character {place + 1} of {key} has no partner'
    return EngineError("bad_prompt", message, r"close each ( and [; a bracket that is plain text is written \( or \[")
