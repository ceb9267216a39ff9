"""Tokens of a picture, which the UNet attends to beside those of the words."""

from __future__ import annotations

from torch import Tensor, nn

TOKENS = 4


class PictureTokens(nn.Module):
    """Four tokens of the embedding that CLIP makes of a picture."""

    def __init__(self, embedding: int, words: int) -> None:
        super().__init__()
        self.proj = nn.Linear(embedding, TOKENS * words)
        self.norm = nn.LayerNorm(words)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return (items, 4, words) of (items, embedding)."""
        tokens: Tensor = self.norm(self.proj(embedding).unflatten(-1, (TOKENS, -1)))
        return tokens
