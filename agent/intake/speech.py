"""Texts that are spoken: the `NAME.txt` of a job becomes its voice, by the program that the operator names.

The text is data from strangers: it goes to the program by its standard input or in a file, never as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from agent.errors import ErrorCode
from agent.fs import atomic_write_bytes, discard, read_regular, take_fingerprint
from agent.fs.folders import make_folders, move
from agent.intake.archives import RunningProgram
from agent.intake.media import MediaFile, MissingMedia
from agent.intake.names import TEXT, lower_suffix
from agent.intake.speak import NOT_STARTED
from agent.jobs.json_text import UTF16, BadJob
from agent.settings import CurrentSettings, Settings
from gpu_pool.process import Program

LONGEST_TEXT_BYTES = 32 << 10
"""About half an hour of speech; in UTF-8 it fits into a pipe."""
MOST_SOUND_BYTES = 1 << 30
AT_ONCE = 2
"""Texts that are spoken at the same time; the others wait."""

Start = Callable[[Settings, str, Path, Path], RunningProgram]
"""Starts the program for a text: the text, its file in UTF-8, and the file for the sound. Raises OSError."""


def start_program(settings: Settings, text: str, file: Path, sound: Path) -> RunningProgram:
    places = {"{text}": str(file), "{wav}": str(sound)}
    command = [fill_in(word, places) for word in settings.speech.command]
    to_stdout = [] if any("{wav}" in word for word in settings.speech.command) else ["--sound", str(sound)]
    args = ["--bytes", str(MOST_SOUND_BYTES), *to_stdout, "--", *command]
    return Program("agent.intake.speak", args, text.encode(), settings.folders.logs / "speech.log")


def fill_in(word: str, places: Mapping[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(name, path)
    return word


@dataclass(frozen=True, slots=True)
class Utterance:
    """A text that is being spoken: its name, the program, and the files of the text and of the sound."""

    name: str
    program: RunningProgram
    file: Path
    sound: Path
    until_s: float

    def end(self) -> None:
        """End the program, and remove what was for it alone."""
        self.program.kill()
        discard(self.file)
        discard(self.sound)


Key = tuple[str, str]
"""The uid of a job, and the role of a voice in it."""


class Speech:
    """Has the texts of waiting jobs spoken. `start` takes the place of the real program in tests."""

    def __init__(self, settings: CurrentSettings, start: Start = start_program) -> None:
        self._settings, self.start = settings, start
        self._running: dict[Key, Utterance] = {}
        self._spoken: dict[Key, Path] = {}

    @property
    def is_on(self) -> bool:
        return bool(self._settings.current.speech.command)

    @property
    def is_running(self) -> bool:
        return bool(self._running)

    @property
    def program(self) -> str:
        """The name of the program."""
        return Path(self._settings.current.speech.command[0]).name

    def replace_texts(
        self, uid: str, media: dict[str, MediaFile], folder: Path, now_s: float
    ) -> dict[str, MediaFile] | MissingMedia:
        """Return the media with a sound in the place of each text, which gets a role of its own.

        A medium is missing while a text is being spoken. Raises BadJob, and OSError.
        """
        found = dict(media)
        for role, medium in media.items():
            if not (self.is_on and role.startswith("audio") and lower_suffix(medium.given) == TEXT):
                continue
            text = read_text(medium.path, medium.given)
            if text is None:  # a sound that is called so
                continue
            sound = self._spoken.get((uid, role)) or self._speak((uid, role), medium.given, text, folder, now_s)
            mark = take_fingerprint(sound) if sound else None
            if sound is None or mark is None:
                self._spoken.pop((uid, role), None)  # a user has removed it
                return MissingMedia(f'the text "{medium.given}" is being spoken', ErrorCode.SPEECH_FAILED)
            found[role] = MediaFile(medium.given, sound, mark)
            found[role.replace("audio", "text")] = medium
        self.forget(uid)
        return found

    def _speak(self, key: Key, name: str, text: str, folder: Path, now_s: float) -> Path | None:
        """Return the sound of a text, None while the program is running or others have to end first."""
        running = self._running.get(key)
        if running is None:
            if len(self._running) < AT_ONCE:
                self._running[key] = self._begin(key[1], name, text, folder, now_s)
            return None
        code = running.program.exit_code
        if code is None and now_s < running.until_s:
            return None
        del self._running[key]
        try:
            self._check_end(running, code)
            target = folder / f"{key[1].replace('audio', 'spoken')}.wav"
            move(running.sound, target)
        finally:
            running.end()
        self._spoken[key] = target
        return target

    def _begin(self, role: str, name: str, text: str, folder: Path, now_s: float) -> Utterance:
        settings = self._settings.current
        file, sound = folder / f".{role}.text", folder / f".{role}.wav"
        make_folders([folder])
        discard(sound)
        atomic_write_bytes(file, text.encode(), durable=False)
        program = self.start(settings, text, file, sound)
        return Utterance(name, program, file, sound, now_s + settings.speech.timeout_s)

    def _check_end(self, running: Utterance, code: int | None) -> None:
        """Raise BadJob where the program has not made a sound."""
        hint = f"see speech.log in {self._settings.current.folders.logs}, then `musedrop retry` the job"
        if code is None:
            seconds = self._settings.current.speech.timeout_s
            fail(running.name, f"{self.program} was ended after {seconds:g} s", hint)
        if code == NOT_STARTED:
            fail(running.name, f"{self.program} can't be started", hint)
        if code:
            fail(running.name, f"{self.program} ended with {code}", hint)
        mark = take_fingerprint(running.sound)
        if mark is None or mark.size == 0:
            fail(running.name, f"{self.program} made no sound", hint)

    def forget(self, uid: str) -> None:
        """Forget what was spoken for a job: its row has it."""
        self._spoken = {key: path for key, path in self._spoken.items() if key[0] != uid}

    def end_unwanted(self, is_wanted: Callable[[str], bool]) -> None:
        """End the programs of jobs that no longer wait."""
        for key in [key for key in self._running if not is_wanted(key[0])]:
            self._running.pop(key).end()
        self._spoken = {key: path for key, path in self._spoken.items() if is_wanted(key[0])}

    def close(self) -> None:
        self.end_unwanted(lambda _: False)


def read_text(path: Path, name: str) -> str | None:
    """Return the text of a file; None where it holds no text. Raises BadJob for one that can't be spoken, and OSError.

    UTF-8 and UTF-16 are read, as for job files.
    """
    data = read_regular(path, LONGEST_TEXT_BYTES)
    is_utf16 = data.startswith(UTF16)
    if b"\0" in data and not is_utf16:
        return None
    if len(data) > LONGEST_TEXT_BYTES:
        fail(name, f"it has more than {LONGEST_TEXT_BYTES >> 10} KiB", "make several jobs of it")
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        fail(name, "it is neither UTF-8 nor UTF-16", "save it as UTF-8")
    text = "".join(c for c in text if c.isprintable() or c in "\n\t ")
    if not text.strip():
        fail(name, "there is no text in it", "write the text, then `musedrop retry` the job")
    return text


def fail(name: str, why: str, hint: str) -> NoReturn:
    raise BadJob(ErrorCode.SPEECH_FAILED, f'"{name}" was not spoken: {why}', hint)
