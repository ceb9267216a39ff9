"""The folder contract: producers, names, repeated jobs, control files, lost shares, full disks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.oracle import check
from tests.share import Share, until

JOB = {"avatar": "face.png", "audio": "voice.wav"}
TEXT = json.dumps(JOB).encode()


@pytest.fixture
def noop(make_share: Callable[..., Share]) -> Share:
    """A share whose daemon makes no pictures; a portrait and a voice lie in its inbox."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1, keep_media_s=3600.0)
    share.start()
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    return share


# producers -----------------------------------------------------------------------------------------------------------


def write_all(inbox: Path, name: str, text: bytes) -> None:
    """`cp`, File.WriteAllText: open, write, close."""
    (inbox / name).write_bytes(text)


def write_in_pieces(inbox: Path, name: str, text: bytes) -> None:
    """A slow stream, FileShare.None: half a file is there while it takes."""
    with (inbox / name).open("wb", buffering=0) as file:
        for start in range(0, len(text), 7):
            file.write(text[start : start + 7])


def size_first(inbox: Path, name: str, text: bytes) -> None:
    """Explorer and other SMB clients: the full size at once, all zeros, then the bytes."""
    with (inbox / name).open("wb", buffering=0) as file:
        file.truncate(len(text))
        file.write(text)


def move_within(inbox: Path, name: str, text: bytes) -> None:
    """File.Move as a rename inside the inbox."""
    write_all(inbox, f"{name}.tmp", text)
    (inbox / f"{name}.tmp").rename(inbox / name)


def move_from_outside(inbox: Path, name: str, text: bytes) -> None:
    """File.Move from another folder: watchers see it appear, not move."""
    write_all(inbox.parent, name, text)
    (inbox.parent / name).rename(inbox / name)


def link_and_unlink(inbox: Path, name: str, text: bytes) -> None:
    """File.Move of mono, and of .NET without rename: a second link, then unlink the first."""
    write_all(inbox, f"{name}.tmp", text)
    os.link(inbox / f"{name}.tmp", inbox / name)
    (inbox / f"{name}.tmp").unlink()


def keep_a_link(inbox: Path, name: str, text: bytes) -> None:
    """A hard link whose other name stays where it was."""
    write_all(inbox.parent, f"kept-{name}", text)
    os.link(inbox.parent / f"kept-{name}", inbox / name)


def rsync(inbox: Path, name: str, text: bytes) -> None:
    """A hidden name with a random end, then renamed."""
    write_all(inbox, f".{name}.Xa8Kq1", text)
    (inbox / f".{name}.Xa8Kq1").rename(inbox / name)


def syncthing(inbox: Path, name: str, text: bytes) -> None:
    write_all(inbox, f"~syncthing~{name}.tmp", text)
    (inbox / f"~syncthing~{name}.tmp").rename(inbox / name)


def browser(inbox: Path, name: str, text: bytes) -> None:
    write_all(inbox, f"{name}.crdownload", text)
    (inbox / f"{name}.crdownload").rename(inbox / name)


def truncate_and_rewrite(inbox: Path, name: str, text: bytes) -> None:
    """An editor that saves in place: first empty, then whole."""
    write_all(inbox, name, b"")
    write_all(inbox, name, text)


PRODUCERS = (
    write_all,
    write_in_pieces,
    size_first,
    move_within,
    move_from_outside,
    link_and_unlink,
    keep_a_link,
    rsync,
    syncthing,
    browser,
    truncate_and_rewrite,
)


def test_every_producer_is_served(noop: Share) -> None:
    """Whichever way a job file comes, it becomes one job, read whole."""
    for producer in PRODUCERS:
        producer(noop.inbox, f"{producer.__name__}.json", TEXT)
    noop.wait_until_finished(len(PRODUCERS))
    assert {row["name"]: row["state"] for row in noop.rows()} == {one.__name__: "done" for one in PRODUCERS}


def test_every_producer_of_media_is_served(noop: Share) -> None:
    """Whichever way a pair's sound comes, the job gets every byte of it."""
    sound = bytes(range(256)) * 4096
    for producer in PRODUCERS:
        noop.put(f"{producer.__name__}.png", b"face")
        producer(noop.inbox, f"{producer.__name__}.wav", sound)
    noop.wait_until_finished(len(PRODUCERS))
    for producer in PRODUCERS:
        assert (noop.outbox / producer.__name__ / "result.mp4").read_bytes().endswith(sound)


@pytest.mark.parametrize("suffix", [".json", ".wav"])
def test_what_is_open_is_not_taken(noop: Share, suffix: str) -> None:
    """A writer may take as long as it likes: the file is read when it is closed, not before."""
    noop.put("slow.png", b"face")
    whole = TEXT if suffix == ".json" else b"voice" * 1000
    with (noop.inbox / f"slow{suffix}").open("wb", buffering=0) as file:
        file.truncate(len(whole))
        for start in range(0, len(whole), len(whole) // 4):
            file.write(whole[start : start + len(whole) // 4])
            noop.drop(f"meanwhile{start}", **JOB)
            noop.wait_for(f"meanwhile{start}", "done")
        assert [row for row in noop.rows() if row["name"] == "slow"] == []
    noop.wait_for("slow", "done")


def test_halves_may_come_far_apart(noop: Share) -> None:
    """Half a pair is neither a job nor a problem; with the other half it is a job."""
    noop.put("pair.wav", b"voice")
    noop.drop("meanwhile", **JOB)
    noop.wait_for("meanwhile", "done")
    assert [row["name"] for row in noop.rows()] == ["meanwhile"]
    assert (noop.status_file() or {})["problems"] == []
    noop.put("pair.png", b"face")
    assert noop.wait_for("pair", "done")["error_code"] is None


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_thousand_files_at_once(make_share: Callable[..., Share]) -> None:
    """More than any queue of events holds: the scan finds every one."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1, wait_media_s=0.0)
    share.start()
    share.inbox.mkdir(exist_ok=True)
    broken = b'{"avatar": 1}'
    for number in range(10_000):
        (share.inbox / f"n{number}.json").write_bytes(broken)
    share.wait_until_finished(10_000, timeout_s=350)
    assert share.rows("SELECT count(DISTINCT name) AS names FROM job_status") == [{"names": 10_000}]


# names ---------------------------------------------------------------------------------------------------------------

NAMES = (
    "Zo\u00eb",
    "Zoe\u0308",
    "\u5f20\u4f1f",
    "two words",
    'it\'s "quoted"',
    "a\nb",
    "$(touch x)",
    "`touch x`; rm -rf",
    "-rf",
    "--help",
    "A",
    "a",
    "CON",
    "nul.txt",
    "dot.",
    "per%cent",
    "%n",
    "n" * 200,
    "\u5f20" * 80,
    "..a",
)


def test_any_name_comes_back(noop: Share) -> None:
    """Each name is one job with a result folder that is valid on Windows; none is executed."""
    for name in NAMES:
        noop.put_raw(f"{name}.json", TEXT)
    served = [name for name in NAMES if not name.startswith(".")]
    noop.wait_until_finished(len(served))
    rows = {row["name"]: row for row in noop.rows()}
    assert set(rows) == set(served)
    for name, row in rows.items():
        result = json.loads((noop.outbox / row["result"] / "result.json").read_bytes())
        assert (result["name"], row["state"]) == (name, "done")
        assert not set(row["result"]) & set('<>:"/\\|?*\n')
        assert len(os.fsencode(row["result"])) <= 110
    folders = [row["result"].casefold() for row in rows.values()]
    assert len(set(folders)) == len(folders)
    assert not {"con", "nul.txt"} & set(folders)
    assert noop.stop() == 0, noop.log()  # a running daemon removes folders while they are listed
    assert not list(noop.root.rglob("x"))


def test_the_longest_name_a_file_can_have(noop: Share) -> None:
    """255 bytes: there is no room for a temporary name beside it, and none is needed."""
    name = "\u5f20" * 83 + "a"
    move_from_outside(noop.inbox, f"{name}.json", TEXT)
    row = noop.wait_for(name, "done")
    assert noop.result(row["result"])["name"] == name


def test_media_stay_for_a_job_that_waits(make_share: Callable[..., Share]) -> None:
    """A face is not filed away with the jobs that are done, while another one that names it waits for its voice."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1)
    share.start()
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    share.drop("late", avatar="face.png", audio="late.wav")
    share.drop("early", **JOB)
    share.wait_for("early", "done")
    share.put("pair.png", b"other face")
    share.put("other.wav", b"other voice")
    share.drop("other", avatar="pair.png", audio="other.wav")
    until(lambda: not (share.inbox / "pair.png").exists(), 60, share.log)
    share.put("late.wav", b"late")
    share.wait_for("late", "done", timeout_s=60)
    until(lambda: not any(share.inbox.iterdir()), 60, share.log)


# the same again ------------------------------------------------------------------------------------------------------


def test_the_same_name_again_is_another_job(noop: Share) -> None:
    """Each has a result folder of its own."""
    for place in ("again", "again-2", "again-3"):
        noop.drop("again", **JOB)
        until((noop.outbox / place / "result.json").exists, 60, noop.log)
    assert len({noop.result(place)["uid"] for place in ("again", "again-2", "again-3")}) == 3


def test_the_same_id_again_gets_the_earlier_result(noop: Share) -> None:
    """The earlier result is copied, also for another name, and result.json says so."""
    noop.drop("first", **JOB, CacheKey="k1", Priority=3)
    noop.wait_for("first", "done")
    noop.put("copy.wav", b"voice")
    noop.drop("second", avatar="face.png", audio="copy.wav", id="k1")
    row = noop.wait_for("second", "done")
    result = noop.result("second")
    assert (result["from_cache"], result["cached_from"], result["uid"]) == (True, "first", row["uid"])
    assert noop.result("first")["from_cache"] is False
    assert "render" not in result["stage_seconds"]
    videos = [(noop.outbox / name / "result.mp4").read_bytes() for name in ("first", "second")]
    assert videos[0] == videos[1]


@pytest.mark.parametrize("change", [{"audio": "other.wav"}, {"options": {"frame_s": 0}}, {"fps": 30}])
def test_the_same_id_for_something_else_is_refused(noop: Share, change: dict[str, Any]) -> None:
    """Other media, options or frame rate: the error names the job that has the id."""
    noop.put("other.wav", b"other")
    noop.drop("first", **JOB, id="k1")
    noop.wait_for("first", "done")
    noop.drop("second", **{**JOB, **change}, id="k1")
    row = noop.wait_for("second", "failed")
    assert (row["error_code"], '"first"' in row["error_message"]) == ("id_conflict", True)
    assert noop.error("second")["code"] == "id_conflict"


def test_the_same_id_while_the_first_still_runs(noop: Share) -> None:
    """The second waits for the first and says so, then has its result."""
    slow = {**JOB, "options": {"frame_s": 0.05}}
    noop.drop("first", **slow, id="k1")
    noop.wait_for("first", "running")
    noop.drop("second", **slow, id="k1")
    noop.wait_for("second", "waiting")
    until(lambda: '"first"' in str(noop.job("second")["waiting_for"]), 60, noop.log)
    noop.wait_for("second", "done")
    assert noop.result("second")["from_cache"] is True


@pytest.mark.parametrize("loss", ["taken", "changed", "failed"])
def test_the_same_id_without_an_earlier_result_is_rendered(noop: Share, loss: str) -> None:
    """A result that was taken away or changed is no result; a job that failed has none."""
    if loss == "failed":
        noop.drop("first", **JOB, id="k1", options={"fail": True})
        noop.wait_for("first", "failed")
    else:
        noop.drop("first", **JOB, id="k1")
        noop.wait_for("first", "done")
    if loss == "taken":
        (noop.outbox / "first").rename(noop.root / "taken")
    elif loss == "changed":
        (noop.outbox / "first" / "result.mp4").write_bytes(b"shorter")
    noop.drop("second", **JOB, id="k1")
    noop.wait_for("second", "done")
    assert noop.result("second")["from_cache"] is False


# control files -------------------------------------------------------------------------------------------------------


def test_pause_and_resume(noop: Share) -> None:
    """A paused queue takes jobs in and starts none, also after a restart; resume lets them go."""
    assert noop.musedrop("pause").returncode == 0
    until(lambda: bool((noop.status_file() or {}).get("paused")), 60, noop.log)
    noop.drop("held", **JOB)
    noop.wait_for("held", "queued")
    until(lambda: noop.job("held")["waiting_for"] == "the queue is paused", 60, noop.log)
    noop.kill()
    noop.start()
    until(lambda: bool((noop.status_file() or {}).get("paused")), 60, noop.log)
    assert noop.job("held")["state"] == "queued"
    noop.put("Resume.txt", b"")
    assert noop.wait_for("held", "done")["waiting_for"] is None
    noop.put("pause", b"")
    until(lambda: bool((noop.status_file() or {}).get("paused")), 60, noop.log)
    assert noop.musedrop("resume").returncode == 0
    until(lambda: (noop.status_file() or {}).get("paused") is False, 60, noop.log)
    assert not {"pause", "resume", "Resume.txt"} & {path.name for path in noop.inbox.iterdir()}


@pytest.mark.parametrize("state", ["waiting", "queued", "running"])
def test_cancel_in_every_state(noop: Share, state: str) -> None:
    """NAME.cancel ends the job within a second; failed/ has its files with code cancelled."""
    if state == "queued":
        noop.put("pause", b"")
        until(lambda: bool((noop.status_file() or {}).get("paused")), 60, noop.log)
    job = {**JOB, "audio": "never.wav"} if state == "waiting" else {**JOB, "options": {"frame_s": 0.2}}
    noop.drop("unwanted", **job)
    noop.wait_for("unwanted", state)
    began = time.monotonic()
    noop.put("unwanted.cancel", b"")
    noop.wait_for("unwanted", "cancelled")
    assert time.monotonic() - began < 1.0
    until(lambda: not noop.rows("SELECT 1 FROM device_status WHERE state = 'busy'"), 60, noop.log)
    assert noop.error("unwanted")["code"] == "cancelled"
    assert not (noop.outbox / "unwanted").exists()


# shares that tell of nothing -----------------------------------------------------------------------------------------


def test_an_inbox_that_is_polled(make_share: Callable[..., Share]) -> None:
    """Without events, as on CIFS, NFS, FUSE and 9p, polling finds jobs; the log says so."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1, keep_media_s=3600.0, watch="poll")
    share.start()
    assert "it is polled" in share.log()
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    share.drop("renamed", **JOB)
    share.put_raw("written.json", TEXT)
    share.put_raw("pair.png", b"face")
    share.put_raw("pair.wav", b"voice")
    share.wait_until_finished(3)
    assert {row["name"]: row["state"] for row in share.rows()} == dict.fromkeys(("renamed", "written", "pair"), "done")


# shares that come and go ---------------------------------------------------------------------------------------------


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@pytest.fixture
def disk() -> Iterator[Callable[[Path, int], None]]:
    """Mounts small file systems in memory, taken away when the test is over."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted: list[Path] = []

    def make(folder: Path, mebibytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder))
        mounted.append(folder)

    yield make
    for folder in mounted:
        while os.path.ismount(folder):
            unmount(folder)


def test_a_share_that_is_missing_at_the_start_is_waited_for(make_share: Callable[..., Share]) -> None:
    """The daemon says so and goes on when it appears, with its folders made."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1)
    share.folder.rmdir()
    share.launch()
    until(lambda: "does not exist" in share.log(), 60, share.log)
    share.folder.mkdir()
    until(share.inbox.is_dir, 60, share.log)
    share.put("one.png", b"face")
    share.put("one.wav", b"voice")
    share.wait_for("one", "done")
    assert "over: the share" in share.log()


def test_a_mount_that_vanishes_and_comes_back(
    make_share: Callable[..., Share], disk: Callable[[Path, int], None]
) -> None:
    """The daemon writes nothing to the empty mount point, loses no job, and continues."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1)
    below = share.root / "below"
    disk(below, 16)
    mount("--bind", str(below), str(share.folder))
    share.start()
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    share.drop("slow", **JOB, options={"frame_s": 0.02})
    share.wait_for("slow", "running")
    unmount(share.folder)
    until(lambda: "is not the one" in share.log(), 60, share.log)
    assert share.job("slow")["state"] in ("running", "queued")
    mount("--bind", str(below), str(share.folder))
    try:
        share.wait_for("slow", "done")
        assert share.stop() == 0
        assert share.result("slow")["name"] == "slow"
    finally:
        share.end()
        unmount(share.folder)
    assert not list(share.folder.iterdir())
    assert share.log().count("is not the one") == 2, "said once when it began and once when it was over"


def test_an_inbox_made_anew_is_watched_anew(noop: Share) -> None:
    """Deleted and made again while the daemon runs: said once, and jobs run as before."""
    noop.inbox.rename(noop.root / "old")
    until(lambda: any("inbox" in text for text in (noop.status_file() or {}).get("problems", [])), 60, noop.log)
    noop.inbox.mkdir()
    noop.put("one.png", b"face")
    noop.put("one.wav", b"voice")
    noop.wait_for("one", "done")
    assert noop.log().count("can't be read") == 2


def test_an_inbox_that_cannot_be_written(make_share: Callable[..., Share], disk: Callable[[Path, int], None]) -> None:
    """While the share is read-only, the pair stays in the inbox and is reported; later it runs."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1)
    disk(share.folder, 16)
    share.start()
    share.put("one.png", b"face")
    share.put("one.wav", b"voice")
    share.wait_for("one", "done")
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    mount("-o", "remount,ro", str(share.folder))
    until(lambda: "Read-only" in share.log(), 60, share.log)
    assert (share.inbox / "face.png").exists()
    mount("-o", "remount,rw", str(share.folder))
    share.drop("two", **JOB)
    share.wait_for("two", "done")
    assert {row["name"]: row["state"] for row in share.rows()} == {"one": "done", "two": "done"}


# full disks ----------------------------------------------------------------------------------------------------------


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all space of a disk but `leave` bytes; removing the file gives it back."""
    ballast = folder / ".ballast"
    free = os.statvfs(folder)
    with ballast.open("wb", buffering=0) as file:  # what a buffer still holds would raise once more when it is closed
        left = free.f_bavail * free.f_frsize - leave
        try:
            while left > 0:
                left -= file.write(b"\0" * min(left, 1 << 16))
        except OSError:
            pass
    return ballast


def test_jobs_wait_for_room(make_share: Callable[..., Share], disk: Callable[[Path, int], None]) -> None:
    """Below min_free_bytes jobs are taken in and wait, saying why; with room again they run."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1, min_free_bytes=4 << 20)
    disk(share.folder, 16)
    share.start()
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    ballast = fill(share.folder, leave=2 << 20)
    share.drop("held", **JOB)
    share.wait_for("held", "queued")
    until(lambda: "nearly full" in str(share.job("held")["waiting_for"]), 60, share.log)
    until(lambda: "nearly full" in str((share.status_file() or {}).get("problems")), 60, share.log)
    assert share.job("held")["state"] == "queued"
    ballast.unlink()
    assert share.wait_for("held", "done")["waiting_for"] is None


@pytest.mark.parametrize("full", ["share", "state"])
def test_a_disk_that_is_full_to_the_last_byte(
    make_share: Callable[..., Share], disk: Callable[[Path, int], None], full: str
) -> None:
    """No partial file is published and no job is lost; with space, every job has its result."""
    share = make_share(module="tests.e2e.noop", settle_s=0.1)
    disk(share.folder, 16)
    disk(share.state, 16)
    share.start()
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    names = [f"job{n}" for n in range(4)]
    for name in names:
        share.drop(name, **JOB, options={"frame_s": 0.01})
    share.wait_for("job0", "running", "done")
    folder = share.folder if full == "share" else share.state
    ballast = fill(folder)
    until(lambda: "No space left" in share.log() or "full" in share.log(), 60, share.log)
    for result in share.outbox.iterdir():
        assert {path.name for path in result.iterdir()} == {"result.mp4", "result.json", "preview.jpg"}
    ballast.unlink()
    share.wait_until_finished(len(names))
    until(lambda: not share.rows("SELECT 1 FROM job_status WHERE state = 'failed'"), 60, share.log)
    assert share.stop() == 0
    for path in (share.inbox / "face.png", share.inbox / "voice.wav"):
        path.unlink(missing_ok=True)
    check(share, names)
