"""The options of the MuseTalk engine: names, ranges, and what each version assumes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from models.musetalk.options import PREVIEW, Options, read_options
from models.preview.options import MUSETALK
from models.preview.options import Options as PreviewOptions
from models.types import EngineError

PAGE = (Path(__file__).parents[3] / "docs" / "job-file.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"bbox_shfit": 5}, 'did you mean "bbox_shift"'),
        ({"lable": True}, 'did you mean "label"'),
        ({"zzz": 1}, "there are version"),
        ({"version": "v2"}, "'v15' or 'v1'"),
        ({"bbox_shift": 1.5}, "valid integer"),
        ({"bbox_shift": 999}, "less than or equal to 100"),
        ({"extra_margin": -1}, "greater than or equal to 0"),
        ({"extra_margin": "large"}, "'auto'"),
        ({"parsing_mode": "chin"}, "parsing_mode"),
        ({"cheek_width": [90]}, "at least 2"),
        ({"cheek_width": 300}, "less than or equal to 256"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"batch_size": "8"}, "'auto'"),
        ({"precision": "int4"}, "precision"),
        ({"reference": True, "precision": "int8"}, "which is exact"),
        ({"reference": "realtime", "precision": "fp8"}, "which is exact"),
        ({"precision": "fast"}, "precision"),
        ({"smooth_box": 1}, "smooth_box"),
        ({"no_face": "skip"}, "'keep' or 'fail'"),
        ({"silence": "shut"}, "'model' or 'close'"),
        ({"face": -1}, "greater than or equal to 0"),
        ({"cycle": "random"}, "cycle"),
        ({"compile": "yes"}, "compile"),
        ({"reference": "really"}, "'realtime'"),
        ({"reference": True, "version": "v1", "parsing_mode": "jaw"}, "parsing_mode"),
        ({"reference": True, "quality": "draft"}, "no drafts"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], word: str) -> None:
    """Unknown names get the nearest known one, values out of range are refused with the range."""
    with pytest.raises(EngineError) as refused:
        read_options(given)
    assert refused.value.code == "bad_option"
    assert word in refused.value.message + refused.value.hint


def test_the_versions_assume_different_things() -> None:
    """v15 adds 10 pixels of 256 below the chin and cuts along the jaw, v1 neither; what is said wins."""
    v15, v1 = (read_options({"version": version})[0] for version in ("v15", "v1"))
    assert (v15.margin_px, v15.margin_share, v15.parsing, v15.cheek_widths) == (0, 10 / 256, "jaw", (90, 90))
    assert (v1.margin_px, v1.margin_share, v1.parsing) == (0, 0, "raw")
    said, _ = read_options({"version": "v1", "extra_margin": 4, "parsing_mode": "neck", "cheek_width": [40, 120]})
    assert (said.margin_px, said.margin_share, said.parsing, said.cheek_widths) == (4, 0, "neck", (40, 120))


def test_the_reference_has_its_own_rules() -> None:
    """No smoothing and no better picture, and no shift in v15; the result says what was ignored."""
    asked = ["bbox_shift", "smooth_box", "smooth_mask", "match_colour", "antialias"]
    options, notes = read_options({"reference": True, **dict.fromkeys(asked, True), "bbox_shift": 5})
    assert (options.way, options.shift_px, options.margin_px, options.margin_share) == ("reference", 0, 10, 0)
    assert not any((options.has_smooth_boxes, options.has_smooth_masks, options.matches_colour))
    assert not any((options.has_antialiasing, options.closes_in_pauses))
    assert [name for name in asked if any(name in note for note in notes)] == asked
    assert read_options({"reference": True})[1] == ()
    assert read_options({"reference": True, "silence": "close"})[0].closes_in_pauses
    assert read_options({"reference": "realtime"})[0].way == "realtime"
    assert read_options({"reference": True, "version": "v1", "bbox_shift": 5})[0].shift_px == 5
    assert read_options({"bbox_shift": 5})[0].shift_px == 5


def test_preparation_depends_on_what_shapes_it_alone() -> None:
    """Two jobs that differ in voice, speed or cycle share a prepared avatar; another box or mask makes another."""
    usual = read_options({})[0].preparation_inputs
    for given in (
        {"batch_size": 4},
        {"cycle": "loop"},
        {"silence": "model"},
        {"no_face": "fail"},
        {"match_colour": False},
    ):
        assert read_options(given)[0].preparation_inputs == usual
    for given in (
        {"bbox_shift": 1},
        {"extra_margin": 0},
        {"parsing_mode": "neck"},
        {"cheek_width": 80},
        {"extra_margin": 10},
        {"smooth_box": False},
        {"smooth_mask": False},
        {"antialias": False},
        {"face": 0},
        {"version": "v1"},
        {"reference": True},
    ):
        assert read_options(given)[0].preparation_inputs != usual
    assert json.loads(json.dumps(usual)) == usual
    assert read_options({"extra_margin": "auto", "parsing_mode": "jaw"})[0].preparation_inputs == usual


def test_options_of_the_preview_are_noted_and_ignored() -> None:
    """A job for `auto` may give both engines' options; neither refuses the other's."""
    options, notes = read_options({"sway": False, "strength": 1.2, "face": 1})
    assert options.face == 1
    assert len(notes) == 2
    assert all("preview" in note for note in notes)
    assert set(PREVIEW) == PreviewOptions.model_fields.keys() - Options.model_fields.keys()
    assert set(MUSETALK) == Options.model_fields.keys() - PreviewOptions.model_fields.keys()


def test_the_docs_list_every_option_with_its_default() -> None:
    """Every option, and none that there isn't."""
    section = PAGE.split("## Options of the MuseTalk engine")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", section, re.MULTILINE)
    assert [name for name, _ in rows] == list(Options.model_fields)
    for name, default in rows:
        value = Options.model_fields[name].default
        assert value is None or default == json.dumps(value), name
