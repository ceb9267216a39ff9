"""The program that opens archives: what it writes, and what it refuses before it writes anything."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agent.fs import open_regular
from agent.fs.folders import hold_folder
from agent.intake.unpack import (
    MOST_FILES,
    NO_JOB,
    NO_ROOM,
    PROBLEM,
    REFUSED,
    Bounds,
    run,
)
from agent.jobs.spec import AUDIO_SUFFIXES

JOB = b'{"avatar": "face.jpg", "audio": "voice.wav"}'
BOUNDS = Bounds(1 << 30, 1 << 33)


def pack(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def make_entry(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


def unpack(tmp_path: Path, data: bytes, bounds: Bounds = BOUNDS, *, is_avatar: bool = False) -> tuple[int, list[str]]:
    """Return the exit code, and the paths of what was written."""
    source, folder = tmp_path / "one.zip", tmp_path / "folder"
    source.write_bytes(data)
    folder.mkdir(exist_ok=True)
    with hold_folder(folder) as fd, os.fdopen(open_regular(source), "rb") as file:
        code = run(file, fd, bounds, AUDIO_SUFFIXES, is_avatar=is_avatar)
    return code, sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_files_are_written_as_they_were(tmp_path: Path, method: int) -> None:
    """The folder that all are in is left out; clutter of macOS and hidden files, too; deeper folders stay."""
    entries = [("my jobs/", b""), ("my jobs/one.json", JOB), ("my jobs/in/face.jpg", b"face" * 1000)]
    entries += [("__MACOSX/my jobs/._one.json", b"x"), ("my jobs/.DS_Store", b"x"), ("my jobs\\in\\voice.wav", b"v")]
    assert unpack(tmp_path, pack(*entries, method=method)) == (0, ["in/face.jpg", "in/voice.wav", "one.json"])
    assert (tmp_path / "folder" / "in" / "face.jpg").read_bytes() == b"face" * 1000


@pytest.mark.parametrize(
    ("names", "is_avatar", "code"),
    [
        (["a.jpg", "A.wav"], False, 0),
        (["a.jpg", "b.wav"], False, NO_JOB),
        (["holiday.jpg", "letter.docx"], False, NO_JOB),
        (["b.wav"], True, 0),
        (["b.jpg"], True, NO_JOB),
        ([], False, NO_JOB),
    ],
)
def test_only_jobs_and_pairs_are_unpacked(tmp_path: Path, names: list[str], is_avatar: bool, code: int) -> None:
    """Any other archive is left alone, and nothing of it is written; a voice is a job where the avatar is known."""
    found = unpack(tmp_path, pack(*((name, b"data") for name in names)), is_avatar=is_avatar)
    assert found == (code, [] if code else sorted(names))


def with_password() -> bytes:
    data = bytearray(pack(("one.json", JOB), method=zipfile.ZIP_STORED))
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(magic) + place] |= 1
    return bytes(data)


def with_shared_bytes() -> bytes:
    """An archive in which many entries of the directory are the same bytes."""
    data = pack(("one.json", JOB + bytes(90)), method=zipfile.ZIP_STORED)
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry, names = data[start:end], [f"{n:03}.json".encode() for n in range(100)]
    directory = b"".join(entry.replace(b"one.json", name) for name in names)
    tail = bytearray(data[end:])
    tail[8:12] = 2 * len(names).to_bytes(2, "little")
    tail[12:16] = len(directory).to_bytes(4, "little")
    return data[:start] + directory + bytes(tail)


SILENCE = bytes(80 << 20)
REFUSALS = {
    "way out": (pack(("../one.json", JOB)), "leads out"),
    "deep way out": (pack(("a/../../one.json", JOB)), "leads out"),
    "backslashes": (pack(("..\\one.json", JOB)), "leads out"),
    "absolute": (pack(("/etc/one.json", JOB)), "leads out"),
    "drive": (pack(("C:\\one.json", JOB)), "leads out"),
    "control character": (pack(("a\nb.json", JOB)), "no file can have"),
    "long name": (pack(("x" * 300 + ".json", JOB)), "no file can have"),
    "deep": (pack(("a/" * 40 + "x.json", JOB)), "no file can have"),
    "link": (pack(("one.json", JOB), (make_entry("face.jpg", stat.S_IFLNK), b"/etc/passwd")), "a link"),
    "device": (pack(("one.json", JOB), (make_entry("face.jpg", stat.S_IFCHR), b"")), "no regular file"),
    "nested": (pack(("one.json", JOB), ("more.zip", pack(("two.json", JOB)))), "another archive"),
    "twice": (pack(("one.json", JOB), ("ONE.json", JOB)), "twice"),
    "file and folder": (pack(("one.json", JOB), ("in", b"x"), ("in/a.jpg", b"x")), "twice"),
    "many": (pack(*((f"{n}.json", b"") for n in range(MOST_FILES + 1))), "at most"),
    "ratio": (pack(("a.jpg", SILENCE), ("a.wav", SILENCE)), "too much for an archive of its size"),
    "shared bytes": (with_shared_bytes(), "too much for an archive of its size"),
    "password": (with_password(), "password"),
    "no archive": (b"no archive at all", "no zip archive"),
    "empty file": (b"", "no zip archive"),
}


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_refused(tmp_path: Path, kind: str) -> None:
    """Bombs, ways out, links, archives in archives: one sentence says why, and not a byte is written."""
    data, told = REFUSALS[kind]
    assert unpack(tmp_path, data) == (REFUSED, [PROBLEM])
    said = json.loads((tmp_path / "folder" / PROBLEM).read_text())
    assert told in said["message"]
    assert said["hint"]


@pytest.mark.parametrize(
    ("bounds", "told"), [(Bounds(100, 1 << 30), "the limit is"), (Bounds(1 << 30, 300), "limits.archive_gib")]
)
def test_sizes_have_limits(tmp_path: Path, bounds: Bounds, told: str) -> None:
    """Of one file, and of all together."""
    assert unpack(tmp_path, pack(("one.json", JOB), ("a.bin", os.urandom(400))), bounds)[0] == REFUSED
    assert told in json.loads((tmp_path / "folder" / PROBLEM).read_text())["message"]


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    """Whichever bytes of it are wrong: it is unpacked or refused, and never anything else."""
    whole = pack(("one.json", JOB), ("face.jpg", os.urandom(300)))
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 0xFF
        changed, cut = tmp_path / f"changed-{place}", tmp_path / f"cut-{place}"
        changed.mkdir()
        cut.mkdir()
        assert unpack(changed, bytes(data))[0] in (0, REFUSED, NO_JOB), place
        assert unpack(cut, whole[:place])[0] == REFUSED, place


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path: Path) -> None:
    """It waits for room."""
    assert unpack(tmp_path, pack(("one.json", JOB)), Bounds(1 << 30, 1 << 30, 1 << 60)) == (NO_ROOM, [])


def test_the_program_stands_behind_walls(tmp_path: Path) -> None:
    """It unpacks with the walls of a worker around it, in a process of its own."""
    (tmp_path / "one.zip").write_bytes(pack(("日本/one.json", JOB), ("日本/voice.wav", b"v")))
    (tmp_path / "folder").mkdir()
    words = [str(tmp_path / "one.zip"), str(tmp_path / "folder"), "--parent", str(os.getpid()), "--walls"]
    program = [sys.executable, "-m", "agent.intake.unpack", *words, "--bounds", "1000", "1000", "0"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["one.json", "voice.wav"]
