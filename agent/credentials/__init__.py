"""Content credentials: what a result is and how it was made, signed and embedded in its video (C2PA)."""
