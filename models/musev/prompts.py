"""Prompts with weights, of more words than a text encoder takes at once: fragments, tokens, embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.types import EngineError

STRONGER = 1.1
CHUNK = 75
"""Tokens between the first and the last of a text encoder's input."""
MAX_TOKENS = 3 * CHUNK
MAX_WEIGHT = 10
"""Of a word; fp16 has no numbers for the embedding of one that is a thousand times as strong."""
WORD = re.compile(r"\\[()\[\]\\]|:[+-]?[\d.]+\)|[()\[\]]|[^\\()\[\]:]+|[:\\]")

CALM_PROMPT = (
    "(a calm person who looks at the camera:1.1), (closed lips:1.2), (eye blinks:1.1), eyes open, quiet breath,"
    " natural face, sharp photo, even light, (still camera:1.1), still background"
)
NEGATIVE_PROMPT = (
    "(open mouth:1.2), (talking:1.1), teeth, (shaking head:1.1), hands before the face, (several people:1.2),"
    " (deformed face:1.3), (crossed eyes:1.2), uneven pupils, doubled chin line, melted skin, blurred, low quality,"
    " grain, (camera motion:1.2), zoom, flicker, text, watermark, logo, frame"
)


@dataclass(frozen=True, slots=True)
class Fragment:
    """Words of one weight."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """Numbers of words, and the weight of each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.ids)


def split_prompt(prompt: str) -> list[Fragment]:
    r"""Return the fragments of a prompt; neighbours have different weights.

    (a) is 1.1 times as strong, [a] so much weaker, (a:1.8) 1.8 times as strong; brackets in brackets multiply, and
    \( \) \[ \] \\ are plain. A bracket that is not closed reaches to the end.

    >>> [(f.text, round(f.weight, 2)) for f in split_prompt(r"one (two (three:2)) \(four\)")]
    [('one ', 1.0), ('two ', 1.1), ('three', 2.2), (' (four)', 1.0)]
    """
    parts: list[tuple[str, float]] = []
    rounds: list[int] = []
    squares: list[int] = []

    def scale(start: int, factor: float) -> None:
        parts[start:] = [(text, weight * factor) for text, weight in parts[start:]]

    for word in WORD.findall(prompt):
        if word == "(":
            rounds.append(len(parts))
        elif word == "[":
            squares.append(len(parts))
        elif word == ")" and rounds:
            scale(rounds.pop(), STRONGER)
        elif word == "]" and squares:
            scale(squares.pop(), 1 / STRONGER)
        elif word.startswith(":") and word.endswith(")") and rounds:
            scale(rounds.pop(), float(word[1:-1]))
        else:
            parts.append((word[1:] if word.startswith("\\") and len(word) == 2 else word, 1.0))
    for start in rounds:
        scale(start, STRONGER)
    for start in squares:
        scale(start, 1 / STRONGER)
    return merge_fragments(parts)


def check_weights(prompt: str, key: str) -> None:
    """Raise EngineError bad_prompt for a weight that is no number, or one that drowns all other words."""
    for word in WORD.findall(prompt):
        if len(word) > 1 and word.startswith(":") and not is_number(word[1:-1]):
            hint = r"write it as (smile:1.2), and a bracket that is plain text as \( or \["
            raise EngineError("bad_prompt", f'"{word[1:-1][:40]}" is no weight of a word in {key}', hint)
    strongest = max((fragment.weight for fragment in split_prompt(prompt)), key=abs)
    if not abs(strongest) <= MAX_WEIGHT:
        message = f"a word of {key} has the weight {strongest:.3g}; {MAX_WEIGHT} is the most"
        raise EngineError("bad_prompt", message, "mind that weights of brackets in brackets multiply")


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def merge_fragments(parts: Sequence[tuple[str, float]]) -> list[Fragment]:
    merged: list[Fragment] = []
    for text, weight in parts:
        if merged and merged[-1].weight == weight:
            merged[-1] = Fragment(merged[-1].text + text, weight)
        else:
            merged.append(Fragment(text, weight))
    return merged or [Fragment("", 1.0)]


def tokenize_prompt(prompt: str, tokenizer: Any) -> Tokens:
    """Return the tokens of a prompt, each fragment by itself, without first and last ones."""
    ids: list[int] = []
    weights: list[float] = []
    for fragment in split_prompt(prompt):
        own = tokenizer(fragment.text, add_special_tokens=False, verbose=False).input_ids
        ids += own
        weights += [fragment.weight] * len(own)
    return Tokens(tuple(ids), tuple(weights))


@torch.inference_mode()
def encode_prompts(prompts: Sequence[Tokens], tokenizer: Any, encoder: Any) -> Tensor:
    """Return (prompts, 77 k, width) embeddings, of as many chunks of 75 tokens as the longest prompt needs.

    Weights scale the embedding of their word; then all are scaled so that their mean is what it was.
    """
    chunks = max(1, *(-(-len(tokens) // CHUNK) for tokens in prompts))
    return torch.cat([encode_prompt(tokens, chunks, tokenizer, encoder) for tokens in prompts])


def encode_prompt(tokens: Tokens, chunks: int, tokenizer: Any, encoder: Any) -> Tensor:
    room = chunks * CHUNK - len(tokens)
    ids = torch.tensor([*tokens.ids, *[tokenizer.pad_token_id] * room]).view(chunks, CHUNK)
    first, last = (torch.full((chunks, 1), token) for token in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    states = encoder(torch.cat([first, ids, last], dim=1).to(encoder.device)).last_hidden_state
    weights = torch.tensor([*tokens.weights, *[1.0] * room]).view(chunks, CHUNK)
    weights = torch.nn.functional.pad(weights, (1, 1), value=1.0)[..., None].to(states)
    return restore_mean(states, states * weights).flatten(0, 1)[None]


def restore_mean(states: Tensor, weighted: Tensor) -> Tensor:
    """Return weighted states, scaled so that their mean is that of the states."""
    scale = states.float().mean() / weighted.float().mean()
    return weighted * scale.to(weighted)
