"""The settings file: where it is, how it is read, and the annotated text of `musedrop init`."""

from __future__ import annotations

import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from agent.errors import UserError
from agent.fs import is_file
from agent.settings import Section, Settings

NAME = "musedrop.toml"
VARIABLE = "MUSEDROP_CONFIG"


class BadSettings(UserError):
    """Settings that can't be used.

    `where`: the file or what named it, "" where there is none; `key`: a dotted name or "".
    """

    exit_code = 78

    def __init__(self, where: str, key: str, message: str, hint: str) -> None:
        super().__init__(" ".join(part for part in (f"{where}:" if where else "", key, message, hint) if part))
        self.where, self.key, self.message, self.hint = where, key, message, hint


# reading -------------------------------------------------------------------------------------------------------------


def find_settings_file(explicit: Path | None, env: Mapping[str, str], cwd: Path) -> Path:
    """Return the settings file: --config, $MUSEDROP_CONFIG, or the first of the usual places.

    Raises BadSettings where there is none.
    """
    named = explicit or (Path(env[VARIABLE]) if env.get(VARIABLE) else None)
    home = [Path(env["HOME"], ".config", "musedrop", NAME)] if env.get("HOME") else []
    places = [cwd / named] if named else [cwd / NAME, *home, Path("/etc/musedrop", NAME)]
    found = next((place for place in places if is_file(place)), None)
    if found is not None:
        return found
    looked = "there is no settings file; looked for " + ", ".join(str(place) for place in places) + "."
    hint = "Make one with `musedrop init DIR`, or name one with --config or MUSEDROP_CONFIG."
    raise BadSettings("--config" if explicit else VARIABLE if named else "", "", looked, hint)


def load_settings(path: Path) -> Settings:
    """Return the settings of a file.

    Raises BadSettings, which names the file and the key and says what to do.
    """
    path = path.absolute()
    try:
        return Settings.model_validate(_read_toml(path), context={"base": path.parent})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
    raise _make_refusal(str(path), ".".join(part for part in problem["loc"] if isinstance(part, str)), problem)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise BadSettings(
            str(path), "", f"can't be read: {error.strerror}.", "`musedrop init DIR` makes one."
        ) from None
    except UnicodeDecodeError as error:
        raise BadSettings(str(path), "", f"is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise BadSettings(
            str(path), "", f"is not TOML: {error}.", "Put texts into quotes, and each key once."
        ) from None


EXPECTED = {
    "path_type": "should be a text",
    "tuple_type": "should be a list of texts, in [ ]",
    "string_pattern_mismatch": "should be the UUID of a card, or how it begins, as in GPU-5e1f or MIG-77aa",
}


def _make_refusal(where: str, key: str, problem: Mapping[str, Any]) -> BadSettings:
    if problem["type"] == "extra_forbidden":
        near = _find_nearest(key)
        hint = f"Did you mean {near}?" if near else "See docs/settings.md for those that there are."
        return BadSettings(where, key, "is not a key of the settings.", hint)
    description = dict(_list_fields()).get(key)
    hint = (description and description.description) or ""
    if problem["type"] == "missing":
        return BadSettings(where, key, "is missing.", hint)
    if problem["type"] == "model_type":
        return BadSettings(where, key, "is a section, not a key.", f"Write [{key}] on a line of its own.")
    reason = EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return BadSettings(
        where, key, f"is {json.dumps(problem['input'], default=str)}: {reason}." if key else f"{reason}.", hint
    )


def _find_nearest(key: str) -> str:
    known = [*(name for name, _ in _list_sections()), *(name for name, _ in _list_fields())]
    leaf = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == leaf]
    return next(iter(same or difflib.get_close_matches(key, known, n=1)), "")


# describing ----------------------------------------------------------------------------------------------------------


def _list_sections() -> Iterator[tuple[str, type[Section]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield name, field.annotation


def _list_fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key by its dotted name, in the order of the file."""
    sections = dict(_list_sections())
    yield from ((name, field) for name, field in Settings.model_fields.items() if name not in sections)
    for section, model in sections.items():
        yield from ((f"{section}.{name}", field) for name, field in model.model_fields.items())


def format_settings(share: str, state: str, cache: str = "", logs: str = "") -> str:
    """Return a settings file with every key, default and description.

    It sets the given folders.
    """
    lines = [f"# {line}" for line in HEAD]
    given = {"share": share, "state": state, "cache.folder": cache, "log.folder": logs}
    values = {name: folder for name, folder in given.items() if folder}
    for name, field in _list_fields():
        section, _, key = name.rpartition(".")
        if section and f"[{section}]" not in lines:
            lines += ["", "", f"[{section}]", f"# {dict(_list_sections())[section].__doc__}"]
        lines += ["", *_format_comment(field), _format_assignment(key, name, values, field)]
    return "\n".join(lines) + "\n"


HEAD = (
    "The settings of musedrop. Every key is here: a line that begins with # and no blank shows the default",
    "that is in force; take the # away to change it. An unknown key is refused. Relative paths are relative",
    "to this file. The daemon reads it when it starts, and again at SIGHUP; docs/service.md says what that changes.",
)


IN_STATE = {"musetalk.models_dir": "models", "cache.folder": "cache", "log.folder": "logs"}
"""Folders that are inside the state folder unless they are set."""


def _format_comment(field: FieldInfo) -> list[str]:
    allowed = _format_range(field)
    text = f"{field.description} ({allowed})" if allowed else str(field.description)
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _format_assignment(key: str, name: str, values: Mapping[str, str], field: FieldInfo) -> str:
    if name in values:
        return f"{key} = {_format_value(values[name])}"
    if name in IN_STATE:
        return f"#{key} = {_format_value(values['state'].rstrip('/') + '/' + IN_STATE[name])}"
    return f"#{key} = {_format_value(field.default)}"


def _format_value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _format_range(field: FieldInfo) -> str:
    """Return the choices or the range of a key in words; "" where every value is allowed."""
    choices = [json.dumps(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return ", ".join(choices)
    bounds = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)
    }
    low = f"{bounds['ge']:.16g}" if "ge" in bounds else f"above {bounds['gt']:.16g}" if "gt" in bounds else ""
    return f"{low} to {bounds['le']:.16g}" if low else ""


def format_table() -> str:
    """Return the keys as a Markdown table: key, default, allowed values, description."""
    rows = ["| key | default | allowed | what for |", "| --- | --- | --- | --- |"]
    for name, field in _list_fields():
        rows.append(f"| `{name}` | {_format_default(field)} | {_format_range(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _format_default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    return "not set" if field.default is None else f"`{_format_value(field.default)}`"
