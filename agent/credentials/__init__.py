"""Content credentials: what a result is and how it was made, signed and embedded in its video (C2PA)."""

KEY, CHAIN = "key.pem", "chain.pem"
"""The private key, and its certificate with those that vouch for it, the own one first."""
