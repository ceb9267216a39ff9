"""Prompts with weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from models.motion.prompts import check_brackets
from models.musev.prompts import (
    CALM_PROMPT,
    CHUNK,
    MAX_TOKENS,
    NEGATIVE_PROMPT,
    encode_prompts,
    split_prompt,
    tokenize_prompt,
)
from tests.models.musev import tiny


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(str(tiny.DATA / "tokenizer"))


@pytest.mark.parametrize(
    ("prompt", "fragments"),
    [
        ("", [("", 1.0)]),
        ("a b", [("a b", 1.0)]),
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("[b]", [("b", 0.9091)]),
        ("((b))", [("b", 1.21)]),
        ("(a:1.8)", [("a", 1.8)]),
        ("(a (b:2):0.5)", [("a ", 0.5), ("b", 1.0)]),
        ("([a])", [("a", 1.0)]),
        (r"\(a\) \[b\] \\", [("(a) [b] \\", 1.0)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("ratio 1:2", [("ratio 1:2", 1.0)]),
        ("(a", [("a", 1.1)]),
        ("a)", [("a)", 1.0)]),
    ],
)
def test_brackets_give_weights(prompt: str, fragments: list[tuple[str, float]]) -> None:
    """Round ones more, square ones less, numbers their own; neighbours of one weight are one fragment."""
    assert [(one.text, round(one.weight, 4)) for one in split_prompt(prompt)] == fragments


def test_a_long_prompt_takes_more_chunks(tokenizer: Any) -> None:
    """Both prompts have as many chunks as the longer one needs, and the mean stays."""
    encoder = tiny.make_text_encoder()
    short, long = (tokenize_prompt(text, tokenizer) for text in ("hello", "(hello:1.5) " * 40))
    assert len(long) > CHUNK
    chunks = -(-len(long) // CHUNK)
    both = encode_prompts([short, long], tokenizer, encoder)
    assert both.shape == (2, 77 * chunks, tiny.WORDS)
    plain = encode_prompts([tokenize_prompt("hello " * 40, tokenizer)], tokenizer, encoder)
    assert both[1].mean().item() == pytest.approx(plain.mean().item(), abs=1e-4)
    assert not torch.allclose(both[1], plain[0], atol=1e-3)


def test_the_presets_can_be_said() -> None:
    """Their brackets match; they ask for closed lips and blinks of weight 1.0 to 1.2, and warn of watermarks."""
    for text in (CALM_PROMPT, NEGATIVE_PROMPT):
        check_brackets(text)
        assert len(text.split()) < MAX_TOKENS // 3
    weights = {one.text: one.weight for one in split_prompt(CALM_PROMPT)}
    assert 1.0 <= weights["eye blinks"] <= 1.2
    assert "closed lips" in weights
    assert "watermark" in NEGATIVE_PROMPT
