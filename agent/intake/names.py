"""The names of the inbox by what their files may be: a turn looks at those that matter, not at 50,000 others."""

from __future__ import annotations

from pathlib import Path

from agent.intake.paths import fold_name
from agent.jobs.spec import AUDIO_SUFFIXES, AVATAR_SUFFIXES

TURNS = (".front", ".high", ".normal", ".low")
CONTROLS = (".cancel", ".retry", *TURNS, ".drain", ".resume", ".unload", ".avatar", ".forget")
WITH_CONTENT = (".avatar", ".retry")
"""Control files that may hold something: they are read when they are whole."""
SWITCHES = {f"{verb}{suffix}": verb for verb in ("pause", "resume", "trust-clock") for suffix in ("", ".txt")}
"""Control files of the whole queue; Windows gives every new file a suffix."""
OTHER_FACES = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".raw", ".dng", ".cr2", ".nef"} | {
    *(".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".3gp", ".ogv", ".hevc")
}
OTHER_VOICES = {".aif", ".aiff", ".caf", ".amr", ".ac3", ".mka", ".mid", ".ape", ".alac", ".oga", ".mp2"}
FOREIGN_FACES, FOREIGN_VOICES = OTHER_FACES - AVATAR_SUFFIXES, OTHER_VOICES - AUDIO_SUFFIXES
TEXT = ".txt"
"""The suffix of a text that may be spoken."""
TEXTS = {TEXT, ".text", ".md", ".json5", ".jsonc", ".bak", ".rtf"}
FACES, VOICES = AVATAR_SUFFIXES | FOREIGN_FACES, AUDIO_SUFFIXES | FOREIGN_VOICES


class Names:
    """An index of names, kept as files come and go.

    job_files   those that end in .json
    controls    control files
    texts       what may be a job file of another name
    tables      those that end in .csv
    archives    those that end in .zip
    pair_stems  folded stems that a face and a voice or a text have, foreign kinds included
    """

    def __init__(self) -> None:
        self.job_files: set[str] = set()
        self.controls: set[str] = set()
        self.texts: set[str] = set()
        self.tables: set[str] = set()
        self.archives: set[str] = set()
        self.pair_stems: set[str] = set()
        self._job_stems: dict[str, set[str]] = {}
        self._halves: dict[str, set[str]] = {}
        self._spellings: dict[str, set[str]] = {}

    def add(self, name: str) -> None:
        self._spellings.setdefault(fold_name(name), set()).add(name)
        stem, suffix = fold_name(Path(name).stem), lower_suffix(name)
        if suffix == ".json":
            self.job_files.add(name)
            self._job_stems.setdefault(stem, set()).add(name)
        elif suffix in CONTROLS or name.lower() in SWITCHES:
            self.controls.add(name)
        elif suffix in TEXTS:
            self.texts.add(name)
        elif suffix == ".csv":
            self.tables.add(name)
        elif suffix == ".zip":
            self.archives.add(name)
        if (suffix in FACES or suffix in VOICES or suffix == TEXT) and name not in self.controls:
            halves = self._halves.setdefault(stem, set())
            halves.add(name)
            if _is_pair(halves):
                self.pair_stems.add(stem)

    def remove(self, name: str) -> None:
        for names in (self.job_files, self.controls, self.texts, self.tables, self.archives):
            names.discard(name)
        stem = fold_name(Path(name).stem)
        for group, key in ((self._job_stems, stem), (self._halves, stem), (self._spellings, fold_name(name))):
            if name in (names := group.get(key, set())):
                names.discard(name)
                if not names:
                    del group[key]
        if not _is_pair(self._halves.get(stem, set())):
            self.pair_stems.discard(stem)

    def list_spellings(self, name: str) -> list[str]:
        """Return the names that differ from this one by case and Unicode form at most."""
        return sorted(self._spellings.get(fold_name(name), ()))

    def list_halves(self, stem: str) -> list[str]:
        """Return the faces, voices and texts of a folded stem."""
        return sorted(self._halves.get(stem, ()))

    def list_parts(self, stem: str) -> list[str]:
        """Return the job files, faces, voices and texts of a folded stem."""
        return [*self.list_halves(stem), *sorted(self._job_stems.get(stem, ()))]

    def has_job_file(self, stem: str) -> bool:
        """Whether a job file has that folded stem."""
        return stem in self._job_stems


def _is_pair(names: set[str]) -> bool:
    suffixes = {lower_suffix(name) for name in names}
    return not suffixes.isdisjoint(FACES) and not suffixes.isdisjoint(VOICES | {TEXT})


def lower_suffix(name: str) -> str:
    """Return the suffix of a name in lower case, as `Path.suffix` does."""
    place = name.rfind(".")
    return name[place:].lower() if 0 < place < len(name) - 1 else ""
