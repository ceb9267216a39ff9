"""The index of the inbox's names, beside what looking at each name gives."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.intake.names import CONTROLS, FACES, SWITCHES, TEXT, TEXTS, VOICES, Names, lower_suffix
from agent.intake.paths import fold_name

NAMES = st.sampled_from(
    [
        *("a.json", "A.JSON", "a.jpg", "A.png", "a.wav", "b.wav", "b.heic", "c.jpg", "c.txt", "a.json.txt", "d"),
        *(
            "a.cancel",
            "a.retry",
            "pause",
            "resume.txt",
            "gpu.drain",
            "jobs.CSV",
            "jobs.Zip",
            "u\u0308.png",
            "\u00fc.wav",
            ".hidden",
            "e.",
        ),
    ]
)


def test_a_suffix_is_that_of_a_path() -> None:
    """In lower case, whatever dots the name has."""
    for name in ("a.json", ".json", "a.", "a", "a.b.JPG", "..json", "a..wav", "...", " .x", "a.tar.gz", "..a"):
        assert lower_suffix(name) == Path(name).suffix.lower(), name


@given(st.lists(st.tuples(st.booleans(), NAMES)))
def test_the_index_follows_the_names(steps: list[tuple[bool, str]]) -> None:
    """However names come and go, each group is what a look at all names finds."""
    names, there = Names(), set[str]()
    for comes, name in steps:
        if comes:
            names.add(name)
            there.add(name)
        else:
            names.remove(name)
            there.discard(name)
    controls = {name for name in there if lower_suffix(name) in CONTROLS or name.lower() in SWITCHES}
    assert names.job_files == {name for name in there if lower_suffix(name) == ".json"}
    assert names.controls == controls
    assert names.tables == {name for name in there if lower_suffix(name) == ".csv"}
    assert names.archives == {name for name in there if lower_suffix(name) == ".zip"}
    assert names.texts == {name for name in there if lower_suffix(name) in TEXTS} - controls
    stems = {fold_name(Path(name).stem) for name in there}
    pairs = set[str]()
    for stem in stems:
        suffixes = {lower_suffix(name) for name in there if fold_name(Path(name).stem) == stem}
        pairs |= {stem} if suffixes & FACES and suffixes & (VOICES | {TEXT}) else set()
        halves = {
            name
            for name in there
            if fold_name(Path(name).stem) == stem and lower_suffix(name) in FACES | VOICES | {TEXT}
        }
        assert set(names.list_halves(stem)) == halves - controls
        assert names.has_job_file(stem) == any(
            lower_suffix(name) == ".json" and fold_name(Path(name).stem) == stem for name in there
        )
    assert names.pair_stems == pairs
    for name in there:
        assert set(names.list_spellings(name)) == {other for other in there if fold_name(other) == fold_name(name)}
