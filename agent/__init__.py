"""The daemon of musedrop: files in, rows, files out."""

__version__ = "0.2.0"
