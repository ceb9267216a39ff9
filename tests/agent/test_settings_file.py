"""The settings file: where it is found, what is refused and how, and the annotated text with every key."""

from __future__ import annotations

import itertools
import json
import re
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UserError
from agent.settings_file import BadSettings, find_settings_file, format_settings, format_table, load_settings
from tests.agent.settings_texts import ROOT, SMALLEST, keys, loaded, refused, write

# reading --------------------------------------------------------------------------------------------------------------


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the daemon is started from, and however the file was named."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "home").mkdir()
    write(tmp_path / "etc", 'share = "../data"\nstate = "~/state"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = load_settings(Path("etc/musedrop.toml"))
    assert settings.share == tmp_path / "etc" / ".." / "data"
    assert settings.state == tmp_path / "home" / "state"
    assert settings.models_dir == settings.state / "models"


@pytest.mark.parametrize("text", [SMALLEST.encode("utf-8-sig"), SMALLEST.replace("\n", "\r\n").encode()])
def test_files_that_windows_editors_write(tmp_path: Path, text: bytes) -> None:
    """A byte order mark and CRLF don't matter."""
    assert loaded(tmp_path, text).share == tmp_path / "share"


# refusing -------------------------------------------------------------------------------------------------------------

REFUSED = [
    ("", "share", "missing"),
    ('share = "a"', "state", "missing"),
    (SMALLEST + "settle_s = 1", "settle_s", "Did you mean inbox.settle_s?"),
    (SMALLEST + "[inbox]\nsettle = 1", "inbox.settle", "Did you mean inbox.settle_s?"),
    (SMALLEST + "[inbx]\nsettle_s = 1", "inbx", "Did you mean inbox?"),
    (SMALLEST + "[log]\nlvel = 'info'", "log.lvel", "Did you mean log.level?"),
    (SMALLEST + "[zzz]\nqqq = 1", "zzz", "docs/settings.md"),
    (SMALLEST + "inbox = 3", "inbox", "[inbox]"),
    (SMALLEST + "[inbox]\nsettle_s = -1", "inbox.settle_s", "greater than or equal to 0"),
    (SMALLEST + "[inbox]\nsettle_s = true", "inbox.settle_s", "true"),
    (SMALLEST + "[inbox]\nsettle_s = '1'", "inbox.settle_s", "number"),
    (SMALLEST + "[inbox]\nsettle_s = nan", "inbox.settle_s", "inbox.settle_s"),
    (SMALLEST + "[inbox]\nsettle_s = inf", "inbox.settle_s", "inbox.settle_s"),
    (SMALLEST + "[inbox]\nscan_s = 0", "inbox.scan_s", "0.05"),
    (SMALLEST + "[inbox]\nmedia_roots = 'a'", "inbox.media_roots", "a list of texts"),
    (SMALLEST + "[inbox]\nmedia_roots = [1]", "inbox.media_roots", "a text"),
    (SMALLEST + "[inbox]\nwatch = 'always'", "inbox.watch", "'poll'"),
    (SMALLEST + "[pool]\nmax_interruptions = 2.0", "pool.max_interruptions", "integer"),
    (SMALLEST + "[output]\ncrf = 52", "output.crf", "51"),
    (SMALLEST + "[musetalk]\nmodels_dir = 3", "musetalk.models_dir", "a text"),
    (SMALLEST + "[log]\nlevel = 1979-05-27", "log.level", "1979-05-27"),
    ('share = 3\nstate = "b"', "share", "a text"),
    ('share = "a\\u0000"\nstate = "b"', "share", "zero bytes"),
    ('share = "~nobody-of-this-name/x"\nstate = "b"', "share", "home folder"),
    ('share = "a"\nstate = "a/inbox"', "", "lies inside"),
    ('share = "a"\nstate = "a/../a/.musedrop/staging/b"', "", "lies inside"),
    ("share", "", "TOML"),
    ('share = "a"\nshare = "b"', "", "overwrite"),
    (SMALLEST + "a = " + "[" * 3000, "", "TOML"),
    (SMALLEST + "a = " + "1" * 5000, "", "TOML"),
    ("share = 'grün'".encode("cp1252"), "", "UTF-8"),
]


@pytest.mark.parametrize(("text", "key", "says"), REFUSED, ids=[f"{key}-{says}"[:40] for _, key, says in REFUSED])
def test_what_is_refused(tmp_path: Path, text: str | bytes, key: str, says: str) -> None:
    """Each names the file, the key by its dotted name, what is wrong and what to do."""
    bad = refused(tmp_path, text)
    assert bad.key == key
    assert says in str(bad)
    assert "\n" not in str(bad)
    assert isinstance(bad, UserError)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    """No file, or a folder of that name."""
    with pytest.raises(BadSettings, match="No such file"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(BadSettings, match="directory"):
        load_settings(tmp_path)


JSON_SAFE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.booleans() | st.integers(-10, 1 << 40) | st.floats() | JSON_SAFE | st.lists(JSON_SAFE, max_size=2)


@given(st.data())
def test_any_value_of_any_key_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No value of a key leads to another exception than BadSettings."""
    name = data.draw(st.sampled_from(keys()))
    section, _, key = name.rpartition(".")
    value = data.draw(VALUES)
    shown = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f").replace("NaN", "nan")
    assignment = f"{key} = {shown.replace('Infinity', 'inf') if isinstance(value, float) else shown}\n"
    top = "".join(f'{other} = "{other}"\n' for other in ("share", "state") if other != name)
    path = write(tmp_path_factory.getbasetemp(), (f"{top}[{section}]\n" if section else top) + assignment)
    try:
        assert load_settings(path).folders.inbox.is_absolute()
    except BadSettings as bad:
        refusal = bad
        assert str(refusal)


# finding --------------------------------------------------------------------------------------------------------------


def test_where_the_settings_are_looked_for(tmp_path: Path) -> None:
    """--config before the variable before the folder before the home: whatever is named explicitly must exist."""
    cwd, home = tmp_path / "cwd", tmp_path / "home"
    (home / ".config" / "musedrop").mkdir(parents=True)
    cwd.mkdir()
    env = {"HOME": str(home)}
    in_home = write(home / ".config" / "musedrop", SMALLEST)
    assert find_settings_file(None, env, cwd) == in_home
    in_cwd = write(cwd, SMALLEST)
    assert find_settings_file(None, env, cwd) == in_cwd
    assert find_settings_file(None, env | {"MUSEDROP_CONFIG": str(in_home)}, cwd) == in_home
    assert find_settings_file(Path("musedrop.toml"), env | {"MUSEDROP_CONFIG": str(in_home)}, cwd) == in_cwd


def test_a_file_that_is_not_found_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """All places by name, or the one that was asked for and nothing else."""
    with pytest.raises(BadSettings) as nowhere:
        find_settings_file(None, {"HOME": "/nonexistent"}, tmp_path)
    for place in (
        tmp_path / "musedrop.toml",
        "/nonexistent/.config/musedrop/musedrop.toml",
        "/etc/musedrop/musedrop.toml",
    ):
        assert str(place) in str(nowhere.value)
    write(tmp_path, SMALLEST)
    with pytest.raises(BadSettings, match=r"MUSEDROP_CONFIG: .*other\.toml") as named:
        find_settings_file(None, {"MUSEDROP_CONFIG": "other.toml"}, tmp_path)
    assert "musedrop init" in str(named.value)
    with pytest.raises(BadSettings, match=r"--config: .*mine\.toml"):
        find_settings_file(Path("mine.toml"), {}, tmp_path)


# describing -----------------------------------------------------------------------------------------------------------


def dotted(settings: dict[str, Any]) -> set[str]:
    parts = [
        [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name] for name, value in settings.items()
    ]
    return {name for part in parts for name in part}


def uncommented(text: str) -> str:
    return re.sub(r"^#(?! )", "", text, flags=re.MULTILINE)


def test_the_shipped_file_is_the_annotated_text() -> None:
    """systemd/musedrop.toml is what `musedrop init` would write; write it anew when this fails."""
    shipped = (ROOT / "systemd" / "musedrop.toml").read_text(encoding="utf-8")
    assert shipped == format_settings("/srv/musedrop", "/var/lib/musedrop", "/var/cache/musedrop", "/var/log/musedrop")


def test_the_annotated_file_shows_every_key_with_its_true_default(tmp_path: Path) -> None:
    """Taking the # away from every line changes nothing."""
    text = format_settings("share", "state")
    assert dotted(tomllib.loads(uncommented(text))) == set(keys())
    assert set(tomllib.loads(text)) == {
        "share",
        "state",
        *{key.partition(".")[0] for key in keys()} - {"share", "state"},
    }
    smallest, plain, all_set = (loaded(tmp_path, each) for each in (SMALLEST, text, uncommented(text)))
    assert plain == smallest
    assert all_set.model_copy(update={name: getattr(plain, name) for name in ("musetalk", "cache", "log")}) == plain
    assert (all_set.models_dir, all_set.folders) == (plain.models_dir, plain.folders)


def test_every_key_of_the_annotated_file_says_why() -> None:
    """A comment stands above each, and no line is too long to read."""
    lines = format_settings("/srv/musedrop", "/var/lib/musedrop").splitlines()
    for above, line in itertools.pairwise(lines):
        if re.match(r"#?[a-z_]+ = ", line):
            assert above.startswith("# ")
    assert max(map(len, lines)) <= 120


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30))
def test_any_folder_name_survives_init(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Quotes, backslashes, control characters and other scripts come back as they were."""
    path = write(tmp_path_factory.getbasetemp(), format_settings(f"/srv/{name}", f"/var/{name}"))
    settings = load_settings(path)
    assert (settings.share, settings.state) == (Path("/srv", name.lstrip("/")), Path("/var", name.lstrip("/")))


def test_the_docs_hold_the_table_of_the_code() -> None:
    """docs/settings.md lists every key with default, range and description; put `table()` there when this fails."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert format_table() in page
    assert all(f"`{key}`" in page for key in keys())


@pytest.mark.parametrize(
    "text", re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"), re.DOTALL)
)
def test_every_example_of_the_docs_is_taken(tmp_path: Path, text: str) -> None:
    """What people copy from the page works."""
    assert loaded(tmp_path, text).share == Path("/srv/musedrop")


def test_descriptions_are_sentences() -> None:
    """Each key is described in a line that ends with a full stop and fits a table."""
    for line in format_table().splitlines()[2:]:
        description = line.split("|")[4].strip()
        assert description[0] in string.ascii_letters
        assert description.endswith(".")


def test_an_error_without_a_file_has_one_prefix(tmp_path: Path) -> None:
    """The command line puts the program's name before each error; the error itself doesn't."""
    with pytest.raises(BadSettings) as refused:
        find_settings_file(None, {}, tmp_path)
    assert str(refused.value).startswith("there is no settings file; looked for ")
