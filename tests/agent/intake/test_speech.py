"""Texts that become voices: when, of which files, and what is said where it does not work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.errors import ErrorCode
from agent.intake.speech import AT_ONCE, LONGEST_TEXT_BYTES, fill_in, read_text, start_program
from agent.jobs.json_text import BadJob
from agent.jobs.states import JobState
from agent.ledger.job import Job
from agent.settings import Settings
from tests.agent.intake.desk import Desk
from tests.share import until

REST_S = 3.0


class Program:
    """A program that runs until the test says how it ended."""

    def __init__(self, text: str, file: Path, sound: Path) -> None:
        self.text, self.file, self.sound = text, file, sound
        self.exit_code: int | None = None
        self.is_killed = False

    def kill(self) -> None:
        self.is_killed = True

    def finish(self, data: bytes = b"sound", exit_code: int = 0) -> None:
        if data:
            self.sound.write_bytes(data)
        self.exit_code = exit_code


class Speaker:
    """Starts such programs."""

    def __init__(self) -> None:
        self.programs: list[Program] = []

    def __call__(self, _: Settings, text: str, file: Path, sound: Path) -> Program:
        self.programs.append(Program(text, file, sound))
        return self.programs[-1]


def set_speech(desk: Desk, *command: str) -> None:
    speech = desk.settings.speech.model_copy(update={"command": command})
    desk.settings = desk.settings.model_copy(update={"speech": speech})
    desk.intake.settings.replace(desk.settings)
    desk.intake.apply_settings()


@pytest.fixture
def speaker(desk: Desk) -> Speaker:
    made = Speaker()
    set_speech(desk, "espeak", "-w", "{wav}")
    desk.intake.speech.start = made
    return made


def settle(desk: Desk) -> None:
    """Take two turns: new files are seen, and are complete."""
    desk.turn(wait_s=REST_S)
    desk.turn(wait_s=REST_S)


def read_voice(job: Job) -> bytes:
    return Path(job.media["audio"]["path"]).read_bytes()


def test_a_text_beside_a_face_is_spoken(desk: Desk, speaker: Speaker) -> None:
    """The job waits for its voice, and is queued with it; the row and the result know the text and the program."""
    desk.put("hello.jpg")
    desk.put("hello.txt", "Grüße, Anna.\r\n".encode("utf-8-sig"))
    settle(desk)
    job = desk.job("hello")
    assert (job.state, job.waiting_for) == (JobState.WAITING, 'the text "hello.txt" is being spoken')
    [program] = speaker.programs
    assert program.text == program.file.read_text() == "Grüße, Anna.\n"
    desk.turn(wait_s=desk.settings.speech.timeout_s - 10)
    program.finish(b"a voice")
    desk.turn(wait_s=1.0)
    job = desk.job("hello")
    assert job.state is JobState.QUEUED
    assert read_voice(job) == b"a voice"
    assert job.media["audio"]["given"] == "hello.txt"
    assert job.spec is not None
    assert "The voice was made of a text by espeak." in job.spec.notes
    assert desk.claimed_names(job) == ["hello.jpg", "hello.txt", "spoken.wav"]
    assert desk.inbox_names() == []


def test_a_voice_that_was_removed_is_spoken_again(desk: Desk, speaker: Speaker) -> None:
    """The job waits for another text of its own meanwhile, and a user removes the first voice."""
    desk.add_avatar("anna.jpg")
    voices = [{"face": 0, "audio": "a.txt"}, {"face": 1, "audio": "b.txt"}]
    desk.put("two.json", b'{"avatar": "anna", "voices": %s}' % str(voices).replace("'", '"').encode())
    desk.put("a.txt", b"one")
    desk.put("b.txt", b"two")
    settle(desk)
    speaker.programs[0].finish()
    desk.turn(wait_s=1.0)
    (desk.folders.claimed / desk.job("two").uid / "spoken.wav").unlink()
    for _ in range(6):
        desk.turn(wait_s=1.0)
        for program in speaker.programs:
            if program.exit_code is None:
                program.finish()
    assert [program.text for program in speaker.programs] == ["one", "two", "one"]
    assert desk.job("two").state is JobState.QUEUED


def test_texts_have_other_ways_in(desk: Desk, speaker: Speaker) -> None:
    """A job file may name texts, also for several faces; a text in the folder of an avatar is one of its voices."""
    desk.add_avatar("anna.jpg")
    voices = [{"face": 0, "audio": "a.txt"}, {"face": 1, "audio": "b.wav"}]
    desk.put("two.json", b'{"avatar": "anna", "voices": %s}' % str(voices).replace("'", '"').encode())
    desk.put("a.txt", b"one")
    desk.put("b.wav")
    (desk.folders.inbox / "anna").mkdir()
    (desk.folders.inbox / "anna" / "line.txt").write_bytes(b"two")
    for _ in range(4):
        desk.turn(wait_s=REST_S)
    assert [program.text for program in speaker.programs] == ["one", "two"]
    for program in speaker.programs:
        program.finish()
    desk.turn(wait_s=1.0)
    two, line = desk.job("two"), desk.job("line")
    assert (two.state, line.state) == (JobState.QUEUED, JobState.QUEUED)
    assert set(two.media) == {"avatar", "audio", "audio-1", "text"}
    assert Path(two.media["text"]["path"]) == desk.folders.inbox / "a.txt"


def test_a_sound_comes_before_a_text(desk: Desk, speaker: Speaker) -> None:
    """A transcript beside a voice is not spoken, and goes along with it in the folder of an avatar."""
    desk.add_avatar("anna.jpg")
    for name in ("hello.jpg", "hello.wav", "hello.txt"):
        desk.put(name)
    (desk.folders.inbox / "anna").mkdir()
    for name in ("line.wav", "line.txt"):
        (desk.folders.inbox / "anna" / name).write_bytes(b"x")
    for _ in range(4):
        desk.turn(wait_s=REST_S)
    assert speaker.programs == []
    assert desk.job("hello").media["audio"]["given"] == "hello.wav"
    assert desk.claimed_names(desk.job("line")) == [".batch", "line.txt", "line.wav"]
    assert sorted(desk.names()) == ["hello", "line"]


def test_without_a_program_a_text_is_no_voice(desk: Desk) -> None:
    """It stays, and the share says what is missing; what a job file calls .txt is a medium like any other."""
    desk.put("hello.jpg")
    desk.put("hello.txt", b"Hello.")
    desk.put("v.txt", b"RIFF")
    desk.drop("old", avatar="hello.jpg", audio="v.txt")
    for _ in range(4):
        desk.turn(wait_s=REST_S)
        desk.intake.refuse_others(desk.at_ms)
    assert desk.job("old").state is JobState.QUEUED
    assert desk.inbox_names() == ["hello.jpg", "hello.txt", "v.txt"]
    assert ["hello.txt" for row in desk.intake.ignored.rows if "[speech]" in row.reason] == ["hello.txt"]


def test_a_job_file_called_txt_is_not_spoken(desk: Desk, speaker: Speaker) -> None:
    """It is refused as before, with its right name."""
    desk.put("hello.jpg")
    desk.put("hello.txt", b'{"avatar": "hello.jpg", "audio": "v.wav"}')
    for _ in range(4):
        desk.turn(wait_s=REST_S)
        desk.intake.refuse_others(desk.at_ms)
    assert speaker.programs == []
    assert desk.job("hello").error_code == ErrorCode.UNSUPPORTED_FILE


def test_a_sound_called_txt_is_not_spoken(desk: Desk, speaker: Speaker) -> None:
    """The content decides, as without a program."""
    desk.put("face.jpg")
    desk.put("v.txt", b"RIFF\0\0\0\0WAVE")
    desk.drop("job", audio="v.txt")
    desk.turn(wait_s=REST_S)
    assert desk.job("job").state is JobState.QUEUED
    assert speaker.programs == []


@pytest.mark.parametrize(
    ("exit_code", "data", "told"),
    [(1, b"", "espeak ended with 1"), (127, b"", "can't be started"), (0, b"", "made no sound"), (None, b"x", "120 s")],
)
def test_a_program_that_fails(desk: Desk, speaker: Speaker, exit_code: int | None, data: bytes, told: str) -> None:
    """The job fails with a sentence and what to do; a retry speaks anew."""
    desk.put("hello.jpg")
    desk.put("hello.txt", b"Hello.")
    settle(desk)
    program = speaker.programs[0]
    program.sound.write_bytes(data)
    program.exit_code = exit_code
    desk.turn(wait_s=desk.settings.speech.timeout_s + 1)
    job = desk.job("hello")
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.SPEECH_FAILED)
    assert told in str(job.error_message)
    assert "speech.log" in str(job.error_hint)
    assert desk.claimed_names(job) == ["hello.jpg", "hello.txt"]
    desk.put("hello.retry")
    desk.turn(wait_s=1.0)
    speaker.programs[1].finish()
    desk.turn(wait_s=1.0)
    assert desk.job("hello").state is JobState.QUEUED


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"", "no text"), (b" \n\x07", "no text"), (b"Gr\xfc\xdfe", "UTF-8"), (b"x" * (LONGEST_TEXT_BYTES + 1), "32 KiB")],
)
def test_texts_that_are_not_spoken(tmp_path: Path, data: bytes, told: str) -> None:
    """Empty ones, those of other encodings, and novels."""
    path = tmp_path / "hello.txt"
    path.write_bytes(data)
    with pytest.raises(BadJob, match="was not spoken") as refused:
        read_text(path, "hello.txt")
    assert told in f"{refused.value.message} {refused.value.hint}"


def test_utf16_is_read(tmp_path: Path) -> None:
    """Windows writes it; control characters never reach the program."""
    path = tmp_path / "hello.txt"
    path.write_bytes("你好\x1b[2J, Anna\0".encode("utf-16"))
    assert read_text(path, "hello.txt") == "你好[2J, Anna"


def test_only_a_few_are_spoken_at_once(desk: Desk, speaker: Speaker) -> None:
    """The others wait, however long; a job that is cancelled ends its program, and so does the daemon."""
    for n in range(AT_ONCE + 1):
        desk.put(f"job{n}.jpg")
        desk.put(f"job{n}.txt", b"Hello.")
    settle(desk)
    assert len(speaker.programs) == AT_ONCE
    job = desk.job("job0")
    desk.ledger.transitions.cancel(job, at_ms=desk.at_ms)
    desk.turn(wait_s=1.0)
    assert speaker.programs[0].is_killed
    assert len(speaker.programs) == AT_ONCE + 1
    desk.intake.close()
    assert all(program.is_killed for program in speaker.programs)


# the program itself --------------------------------------------------------------------------------------------------

COPY = "import sys; sys.stdout.write(sys.stdin.read().upper() + ' '.join(sys.argv[1:]))"
TO_FILE = "import sys; open(sys.argv[2], 'w').write(open(sys.argv[1]).read().upper())"


@pytest.mark.parametrize("words", [("-c", COPY, "--x; rm -rf /", "$HOME"), ("-c", TO_FILE, "{text}", "{wav}")])
def test_the_program_gets_the_text(desk: Desk, words: tuple[str, ...]) -> None:
    """On its standard input, or in a file; there is no shell."""
    set_speech(desk, sys.executable, *words)
    text, sound = desk.folders.share / "text", desk.folders.share / "sound.wav"
    text.write_text("$(id) `id`")
    program = start_program(desk.settings, "$(id) `id`", text, sound)
    until(lambda: program.exit_code is not None, 60, lambda: "still running")
    log = desk.folders.logs / "speech.log"
    assert program.exit_code == 0, log.read_text()
    assert sound.read_text() == "$(ID) `ID`" + ("--x; rm -rf / $HOME" if "{wav}" not in words else "")


def test_a_program_that_is_not_there(desk: Desk) -> None:
    """Its end says so, and the log names it."""
    set_speech(desk, "no-such-speaker")
    program = start_program(desk.settings, "x", desk.folders.share / "t", desk.folders.share / "s.wav")
    until(lambda: program.exit_code is not None, 60, lambda: "still running")
    assert program.exit_code == 127
    assert "no-such-speaker can't be started" in (desk.folders.logs / "speech.log").read_text()


def test_paths_are_filled_in() -> None:
    """In any word, and nothing else is."""
    places = {"{text}": "/t", "{wav}": "/w"}
    assert [fill_in(word, places) for word in ("--in={text}", "{wav}", "{}", "{uid}")] == [
        "--in=/t",
        "/w",
        "{}",
        "{uid}",
    ]
