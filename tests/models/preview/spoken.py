"""Sentences and voices that the viseme table was not fitted to."""

from __future__ import annotations

from fractions import Fraction

FPS = Fraction(25)
SENTENCES = (
    "Mama and papa bought a big apple pie at the market. Who knew it was so good?",
    "Please keep these cheap green beans. My father parked the car far apart.",
    "You should move slowly, Joe. Bob, Pam and Mabel map the beach. See the deep blue sea.",
)
