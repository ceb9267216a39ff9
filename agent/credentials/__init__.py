"""Content credentials: what a result is and how it was made, signed and embedded in its video (C2PA)."""

from importlib.util import find_spec

KEY, CHAIN = "key.pem", "chain.pem"
"""The private key, and its certificate with those that vouch for it, the own one first."""

FULL = 73
"""Exit code of the program that signs where a disk is full: it is started again when there is room."""


def is_installed() -> bool:
    """Whether the extra `credentials` is."""
    return all(find_spec(name) is not None for name in ("c2pa", "cryptography"))
