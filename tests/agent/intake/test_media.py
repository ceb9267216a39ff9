"""Where media may lie: the inbox, the library, configured roots, and nowhere else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from agent.fs import follow_links
from agent.intake import media
from agent.intake.media import MediaFinder, MissingMedia
from agent.jobs.json_text import BadJob
from tests.agent.samples import a_spec


@pytest.fixture
def finder(tmp_path: Path) -> MediaFinder:
    for folder in ("inbox", "avatars", "root", "outside", "inputs"):
        (tmp_path / folder).mkdir()
    for name in ("face.jpg", "voice.wav"):
        (tmp_path / "inbox" / name).write_bytes(b"x")
    (tmp_path / "avatars" / "anna.mp4").write_bytes(b"x")
    (tmp_path / "root" / "far.wav").write_bytes(b"x")
    (tmp_path / "outside" / "secret.wav").write_bytes(b"x")
    return MediaFinder(tmp_path / "inbox", tmp_path / "avatars", (tmp_path / "root",), lambda _: True)


def test_files_of_the_inbox_are_found(finder: MediaFinder, tmp_path: Path) -> None:
    """Both media are found by bare name, with their size and time as they are now."""
    found = finder.find(a_spec(), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)
    assert found["avatar"].path == tmp_path / "inbox" / "face.jpg"
    assert found["audio"].to_dict()["size"] == 1


def test_what_is_missing_is_named(finder: MediaFinder, tmp_path: Path) -> None:
    """The first file that isn't there is said in words."""
    found = finder.find(a_spec(audio="later.wav"), tmp_path / "inputs")
    assert found == MissingMedia('audio "later.wav" has not arrived in the inbox')


def test_what_is_still_written_is_waited_for(tmp_path: Path, finder: MediaFinder) -> None:
    """A file that has not settled counts as absent."""
    busy = MediaFinder(finder.inbox, finder.avatars, (), lambda path: path.name != "voice.wav")
    assert busy.find(a_spec(), tmp_path / "inputs") == MissingMedia(
        'audio "voice.wav" has arrived, and is taken as soon as it is known to be complete'
    )


@pytest.mark.parametrize("spec", [a_spec(avatar="anna"), a_spec(avatar=None, TemplateId="anna")])
def test_the_library_is_asked_by_name(finder: MediaFinder, tmp_path: Path, spec: object) -> None:
    """A name without a suffix, or a TemplateId, is an avatar of the library."""
    found = finder.find(spec, tmp_path / "inputs")  # type: ignore[arg-type]
    assert not isinstance(found, MissingMedia)
    assert found["avatar"].path == tmp_path / "avatars" / "anna.mp4"


def test_a_folder_of_pictures_is_an_avatar(finder: MediaFinder, tmp_path: Path) -> None:
    """In the library by its name, in whatever spelling, or by a path in a root; a file of that name comes first."""
    for folder in ("avatars/Eva", "avatars/anna", "root/film", "inbox/film"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(b"x")
    film = str(tmp_path / "root" / "film")
    for avatar, wanted in (("eva", "avatars/Eva"), ("anna", "avatars/anna.mp4"), (film, "root/film")):
        found = finder.find(a_spec(avatar=avatar), tmp_path / "inputs")
        assert not isinstance(found, MissingMedia)
        assert found["avatar"].path == tmp_path / wanted
        assert found["avatar"].fingerprint.mtime_ns == (tmp_path / wanted).stat().st_mtime_ns
    for avatar in ("inbox/film", str(tmp_path / "inbox" / "film")):
        assert isinstance(finder.find(a_spec(avatar=avatar), tmp_path / "inputs"), MissingMedia)
    assert isinstance(finder.find(a_spec(audio=str(tmp_path / "root" / "film")), tmp_path / "inputs"), MissingMedia)


def test_a_folder_of_pictures_stays_in_the_allowed_folders(finder: MediaFinder, tmp_path: Path) -> None:
    """Also by a link in the library."""
    (tmp_path / "avatars" / "eva").symlink_to(tmp_path / "outside")
    for avatar in ("eva", str(tmp_path / "outside")):
        with pytest.raises(BadJob, match="outside the folders"):
            finder.find(a_spec(avatar=avatar), tmp_path / "inputs")


def test_an_unknown_library_name_is_absent(finder: MediaFinder, tmp_path: Path) -> None:
    """The library may still get that avatar: the job waits."""
    found = finder.find(a_spec(avatar="bert"), tmp_path / "inputs")
    assert isinstance(found, MissingMedia)
    assert "library" in found.reason


def test_claimed_inputs_come_before_the_inbox(finder: MediaFinder, tmp_path: Path) -> None:
    """A pair's media lie with the job itself."""
    (tmp_path / "inputs" / "face.jpg").write_bytes(b"claimed")
    found = finder.find(a_spec(), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)
    assert found["avatar"].path == tmp_path / "inputs" / "face.jpg"


def test_configured_roots_may_be_named_absolutely(finder: MediaFinder, tmp_path: Path) -> None:
    """media_roots opens a folder for absolute paths."""
    found = finder.find(a_spec(audio=str(tmp_path / "root" / "far.wav")), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)


@pytest.mark.parametrize(
    "audio",
    [
        "../../etc/passwd",
        "../outside/secret.wav",
        "/etc/passwd",
        "sub/../../outside/secret.wav",
        "link.wav",
        "loop.wav",
        "alias.wav",
        "C:\\in\\voice.wav",
        "\\\\nas\\share\\voice.wav",
        "..\\outside\\secret.wav",
    ],
)
def test_everything_else_is_refused(finder: MediaFinder, tmp_path: Path, audio: str) -> None:
    """No path, link or drive letter leads out of the allowed folders, whether the file exists or not."""
    (finder.inbox / "link.wav").symlink_to(tmp_path / "outside" / "secret.wav")
    (finder.inbox / "loop.wav").symlink_to("../loop.wav")
    (finder.inbox / "ALIAS.WAV").symlink_to(tmp_path / "outside" / "secret.wav")
    with pytest.raises(BadJob) as refused:
        finder.find(a_spec(audio=audio), tmp_path / "inputs")
    assert refused.value.code == "outside_roots"
    assert "inbox" in refused.value.hint


def test_names_that_no_file_can_have_are_only_absent(finder: MediaFinder, tmp_path: Path) -> None:
    """A name of a thousand characters is an answer, not a crash."""
    found = finder.find(a_spec(audio="a" * 1000 + ".wav"), tmp_path / "inputs")
    assert isinstance(found, MissingMedia)


@pytest.mark.parametrize(
    ("given", "lies"),
    [
        ("Face.JPG", "face.jpg"),
        ("Zoe\u0308.wav", "Zo\u00eb.wav"),
        ("zo\u00cb.wav", "Zoe\u0308.wav"),
        ("Takes/One.WAV", "takes/one.wav"),
        ("takes\\one.wav", "takes/one.wav"),
    ],
)
def test_a_name_spelt_as_windows_or_macos_would(finder: MediaFinder, tmp_path: Path, given: str, lies: str) -> None:
    """Case and Unicode form are no difference there, and a backslash parts folders."""
    (finder.inbox / lies).parent.mkdir(exist_ok=True)
    (finder.inbox / lies).write_bytes(b"x")
    found = finder.find(a_spec(audio=given), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)
    assert found["audio"].path == finder.inbox / lies
    assert found["audio"].given == given


def test_of_case_twins_only_the_one_spelt_so(finder: MediaFinder, tmp_path: Path) -> None:
    """Where two files differ only in case, a third spelling means neither."""
    for name in ("Take.wav", "TAKE.wav"):
        (finder.inbox / name).write_bytes(b"x")
    found = finder.find(a_spec(audio="TAKE.wav"), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)
    assert found["audio"].path.name == "TAKE.wav"
    assert isinstance(finder.find(a_spec(audio="take.WAV"), tmp_path / "inputs"), MissingMedia)


@pytest.mark.parametrize(
    ("given", "lies"),
    [
        (r"\\nas\media\a\face.wav", "media/a/face.wav"),
        (r"\\NAS\Media\A\Face.WAV", "media/a/face.wav"),
        ("//nas/media/a/face.wav", "media/a/face.wav"),
        (r"D:\in\voice.wav", "in/voice.wav"),
        ("d:/in/voice.wav", "in/voice.wav"),
        (r"\\nas\media\deep\x.wav", "deep/x.wav"),
    ],
)
def test_windows_and_unc_paths_are_mapped(finder: MediaFinder, tmp_path: Path, given: str, lies: str) -> None:
    """By the longest prefix that fits, whatever its case and slashes."""
    path_map = {r"\\nas\media": tmp_path / "media", "D:\\in\\": tmp_path / "in", "//nas/media/deep": tmp_path / "deep"}
    (tmp_path / lies).parent.mkdir(parents=True)
    (tmp_path / lies).write_bytes(b"x")
    found = replace(finder, path_map=path_map).find(a_spec(audio=given), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)
    assert found["audio"].path == tmp_path / lies


@pytest.mark.parametrize(
    "given", [r"D:\in\..\outside\secret.wav", r"D:\into\voice.wav", r"\\?\D:\in\voice.wav", "D:\\in"]
)
def test_a_map_opens_its_folder_and_nothing_more(finder: MediaFinder, tmp_path: Path, given: str) -> None:
    """Neither its parents, nor a folder whose name only begins the same, nor device paths."""
    mapping = replace(finder, path_map={r"D:\in": tmp_path / "inbox"})
    with pytest.raises(BadJob) as refused:
        mapping.find(a_spec(audio=given), tmp_path / "inputs")
    assert refused.value.code == "outside_roots"


def test_a_link_of_the_library_that_leads_out_is_refused(finder: MediaFinder, tmp_path: Path) -> None:
    """As one of the inbox; a link to another allowed folder is followed once, and the real path is recorded."""
    (tmp_path / "avatars" / "spy.jpg").symlink_to(tmp_path / "outside" / "secret.wav")
    (tmp_path / "avatars" / "face.jpg").symlink_to(tmp_path / "inbox" / "face.jpg")
    with pytest.raises(BadJob, match="outside") as bad:
        finder.find(a_spec(avatar="spy"), tmp_path / "inputs")
    assert bad.value.code == "outside_roots"
    found = finder.find(a_spec(avatar="face"), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)
    assert found["avatar"].path == tmp_path / "inbox" / "face.jpg"


def test_the_path_that_was_checked_is_the_one_that_is_recorded(
    finder: MediaFinder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that is turned to another place after each look never gets a path outside into the row."""
    link, inside, outside = tmp_path / "inbox" / "turn.wav", tmp_path / "root" / "far.wav", tmp_path / "outside"
    link.symlink_to(inside)
    looks = 0

    def turn(path: Path) -> Path:
        nonlocal looks
        real = follow_links(path)
        if path.name == "turn.wav":
            looks += 1
            link.unlink()
            link.symlink_to(inside if looks % 2 == 0 else outside / "secret.wav")
        return real

    monkeypatch.setattr(media, "follow_links", turn)
    for _ in range(6):
        with suppress(BadJob):
            found = finder.find(a_spec(audio="turn.wav"), tmp_path / "inputs")
            assert isinstance(found, MissingMedia) or found["audio"].path == inside


@pytest.mark.parametrize("name", ["inbox", "avatars", "inputs", "shared"])
def test_a_folder_of_the_share_that_became_a_link_allows_nothing(
    finder: MediaFinder, tmp_path: Path, name: str
) -> None:
    """Users can replace it: what it leads to is not what jobs may read, whatever the settings name."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "outside" / "spy.jpg").write_bytes(b"x")
    (tmp_path / name).rename(tmp_path / "kept")
    (tmp_path / name).symlink_to("outside")
    within = replace(finder, roots=(tmp_path / "shared",), path_map={"D:\\in": tmp_path / "shared"})
    spec = a_spec(avatar="spy" if name == "avatars" else f"{tmp_path}/{name}/spy.jpg")
    with pytest.raises(BadJob, match="outside"):
        within.find(spec, tmp_path / "inputs")


@pytest.mark.parametrize("name", ["face.xyz", "face.JP2", "clip.ts", "face.v2", "noending"])
def test_a_file_is_found_whatever_its_ending(finder: MediaFinder, tmp_path: Path, name: str) -> None:
    """What a job names is opened where it is in the inbox, with any suffix or none."""
    (tmp_path / "inbox" / name).write_bytes(b"x")
    found = finder.find(a_spec(avatar=name, audio="voice.wav"), tmp_path / "inputs")
    assert not isinstance(found, MissingMedia)
    assert found["avatar"].path == tmp_path / "inbox" / name


@pytest.mark.parametrize("url", ["https://example.com/face.jpg", "s3://bucket/face", "data:image/png;base64,AAAA"])
@pytest.mark.parametrize("role", ["avatar", "audio"])
def test_a_url_is_refused_by_its_scheme(finder: MediaFinder, tmp_path: Path, role: str, url: str) -> None:
    """A job doesn't wait for what is never downloaded."""
    with pytest.raises(BadJob, match=url.partition(":")[0]):
        finder.find(a_spec(**{role: url}), tmp_path / "inputs")
