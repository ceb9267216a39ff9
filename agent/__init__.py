"""The daemon of musedrop: files in, rows, files out."""

__version__ = "0.1.0"
