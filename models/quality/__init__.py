"""How good a finished video is, measured on its frames and its sound while it is made."""
