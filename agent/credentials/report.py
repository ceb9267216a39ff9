"""What the program that opens a video for `musedrop verify` says of it. Standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from agent.credentials.tracks import Track


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a video says of itself.

    problem    why that can't be believed, "" if it can
    said       our own assertion
    signer     the name in the certificate
    label      of the manifest
    is_own     whether the key is that of this installation; None where that can't be told
    """

    problem: str
    said: dict[str, Any] = field(default_factory=dict)
    signer: str = ""
    label: str = ""
    is_own: bool | None = None


@dataclass(frozen=True, slots=True)
class VideoReport:
    """What a video is.

    sha256         of all its bytes
    index_first    whether its index stands before its pictures
    tracks         by its index
    index_problem  why there are none, "" if there are
    """

    credentials: Credentials
    sha256: str
    index_first: bool
    tracks: tuple[Track, ...]
    index_problem: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=_write_number)

    @classmethod
    def from_json(cls, text: str) -> VideoReport:
        """Raises ValueError, KeyError or TypeError for any other text."""
        data = json.loads(text)
        tracks = [
            Track(
                **one | {"seconds": Fraction(one["seconds"]), "durations": frozenset(map(Fraction, one["durations"]))}
            )
            for one in data["tracks"]
        ]
        return cls(**data | {"credentials": Credentials(**data["credentials"]), "tracks": tuple(tracks)})


def _write_number(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, frozenset) else str(value)
