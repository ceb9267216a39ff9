"""The options of the page are those of the published schema of the job file."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from agent.jobs.schema import build_schema
from agent.page.actions import KEYS

OUTPUT = ("height", "crf", "encoder", "audio", "alpha")
SHOWN = ("engine", "priority", "fps", *OUTPUT, "background", "strategy", "from_s", "to_s", "max_attempts", "timeout_s")
LIMITS = {"minimum": "min", "maximum": "max"}


def build_options() -> dict[str, Any]:
    """Return what options.json is made of: values or limits of each key, and its description."""
    keys = build_schema()["properties"]
    options = {}
    for name in SHOWN:
        prop = keys["output"]["properties"][name] if name in OUTPUT else keys[name]
        made: dict[str, Any] = {"description": prop["description"]}
        for branch in prop["anyOf"]:
            if "enum" in branch:
                made["values"] = [value for value in branch["enum"] if value == value.lower()]
            elif branch.get("type") == "boolean":
                made["values"] = ["true"]
            elif branch.get("type") in ("number", "integer"):
                made |= {LIMITS[limit]: branch[limit] for limit in LIMITS if limit in branch}
        if "values" in made:
            made = {key: made[key] for key in ("description", "values")}
        options[name] = made | ({"output": True} if name in OUTPUT else {})
    options["options"] = {"description": keys["options"]["description"]}
    return options


def test_the_form_is_the_schema() -> None:
    """Each field has the values, the limits and the description of the published schema."""
    shipped = (files("agent.page") / "static" / "options.json").read_text()
    assert json.loads(shipped) == build_options(), json.dumps(build_options(), ensure_ascii=False)


def test_every_field_may_be_sent() -> None:
    """The page takes each key of its form."""
    assert {name for name in build_options() if name not in OUTPUT} | {"output"} == set(KEYS)
