"""The files of `musedrop desktop install`: a menu entry, the start of the tray with each session, the icon.

https://specifications.freedesktop.org/desktop-entry-spec/latest/
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from agent.errors import UserError
from agent.fs import atomic_write_bytes

MIME_TYPES = (
    *("image/jpeg", "image/png", "image/webp", "image/avif"),
    *("video/mp4", "video/quicktime", "video/webm", "video/x-matroska"),
    *("audio/wav", "audio/x-wav", "audio/mpeg", "audio/mp4", "audio/flac", "audio/ogg"),
)


def plan_entries(program: Path, config: Path, env: Mapping[str, str]) -> dict[Path, str]:
    """Return the files by their paths. Raises UserError where there is no home folder."""
    if not env.get("HOME"):
        raise UserError("there is no HOME: run this as the user of the desktop")
    home = Path(env["HOME"])
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    settings = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    base, option = quote_argument(str(program)), f"--config {quote_argument(str(config))}"
    opened = f"Exec={base} desktop open {option} %F"
    return {
        data / "applications" / "musedrop.desktop": "\n".join(
            [
                *HEAD,
                "Name=musedrop",
                "Comment=Make talking-head videos of a face and a voice",
                "Comment[zh_CN]=用人脸和声音制作说话视频",
                opened,
                "Categories=AudioVideo;Video;",
                f"MimeType={';'.join(MIME_TYPES)};",
                "",
            ]
        ),
        settings / "autostart" / "musedrop-tray.desktop": "\n".join(
            [*HEAD, "Name=musedrop tray", f"Exec={base} tray {option}", "NoDisplay=true", ""]
        ),
        data / "icons" / "hicolor" / "scalable" / "apps" / "musedrop.svg": (
            (files("agent.page") / "static" / "icon.svg").read_text(encoding="utf-8")
        ),
    }


HEAD = ("[Desktop Entry]", "Type=Application", "Version=1.5", "Icon=musedrop", "Terminal=false")


def quote_argument(text: str) -> str:
    r"""Return a word of Exec=: in quotes, with what is special there and in the file escaped. Raises UserError.

    >>> print(quote_argument("/opt/my $tools/100%/musedrop"))
    "/opt/my \\$tools/100%%/musedrop"
    """
    if not text.isprintable():
        raise UserError(f"{text!r} can't stand in a desktop entry: choose a folder with a printable name")
    quoted = "".join(f"\\{char}" if char in '"`$\\' else char for char in text)
    return '"' + quoted.replace("\\", "\\\\").replace("%", "%%") + '"'


def write_entries(entries: Mapping[Path, str]) -> None:
    """Write the files. Raises OSError."""
    for path, text in entries.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path.parent.resolve() / path.name, text.encode())


def remove_entries(entries: Mapping[Path, str]) -> list[Path]:
    """Remove the files that are there; return them."""
    there = [path for path in entries if path.is_file()]
    for path in there:
        path.unlink()
    return there
