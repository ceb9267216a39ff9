"""The menu entry, as desktops read it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from agent.desktop.entries import plan_entries, quote_argument, remove_entries, write_entries
from agent.errors import UserError


def read_words(entry: str) -> list[str]:
    """Return the words of Exec= as a desktop splits them."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(entry)
    value = parser["Desktop Entry"]["Exec"].replace("\\\\", "\\")
    words = [quoted or bare for quoted, bare in re.findall(r'"((?:\\.|[^"\\])*)"|(\S+)', value)]
    return [re.sub(r"\\(.)", r"\1", word).replace("%%", "%") for word in words]


def test_entries_are_written_and_removed(tmp_path: Path) -> None:
    """Menu entry, start of the tray and icon are in the user's folders, and go again."""
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "cfg")}
    entries = plan_entries(Path("/opt/musedrop/bin/musedrop"), Path("/srv/musedrop.toml"), env)
    write_entries(entries)
    menu = tmp_path / ".local/share/applications/musedrop.desktop"
    assert set(entries) == {
        menu,
        tmp_path / "cfg/autostart/musedrop-tray.desktop",
        tmp_path / ".local/share/icons/hicolor/scalable/apps/musedrop.svg",
    }
    words = read_words(menu.read_text())
    assert words == ["/opt/musedrop/bin/musedrop", "desktop", "open", "--config", "/srv/musedrop.toml", "%F"]
    assert len(remove_entries(entries)) == 3
    assert remove_entries(entries) == []


@pytest.mark.parametrize("name", ["plain", "two words", 'a"b', "a`b$c\\d", "100%F", "é", "a;b|c", "~#'"])
def test_any_path_is_one_word(tmp_path: Path, name: str) -> None:
    """Spaces, quotes, dollars and percents are parts of the name."""
    [menu, *_] = plan_entries(Path("/opt", name), Path("/srv", name), {"HOME": str(tmp_path)}).values()
    words = read_words(menu)
    assert words[0] == f"/opt/{name}"
    assert words[4] == f"/srv/{name}"


def test_a_name_with_line_breaks_is_refused() -> None:
    """A path can't add lines to the entry."""
    with pytest.raises(UserError, match="printable"):
        quote_argument("/opt/a\nExec=evil")
