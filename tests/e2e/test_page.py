"""The page in a real browser, beside a real daemon with real media."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.page_server import PageServer, add_hostile_rows, add_results
from tests.needs import need
from tests.share import Share, face, until, voice

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=window.hit=1>"
FACES = "#videos li"
FAKE_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = need("chromium", "chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *FAKE_MICROPHONE])
        yield started
        started.close()


@pytest.fixture
def serve(share: Share) -> Iterator[PageServer]:
    """The page of a share whose daemon runs."""
    served = PageServer(share)
    served.start()
    yield served
    if served.process is not None and served.process.poll() is None:
        served.process.kill()
        served.process.wait(30)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """The page of a share with ten thousand results and no daemon."""
    share = Share(tmp_path_factory.mktemp("archive") / "s")
    share.inbox.mkdir(parents=True)
    add_results(share, 10_000)
    add_hostile_rows(share, HOSTILE)
    (share.inbox.parent / "avatars").mkdir()
    (share.inbox.parent / "avatars" / f"{HOSTILE}.jpg").write_bytes(face(64))
    served = PageServer(share)
    served.start()
    yield served
    assert served.stop() == 0


@pytest.fixture
def page(browser: Browser, serve: PageServer) -> Iterator[Page]:
    """The page in a window of its own, which fails the test where a script fails."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True, locale="en-US")
    shown, errors = context.new_page(), list[str]()
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.on("console", lambda message: errors.append(message.text) if is_violation(message) else None)
    shown.goto(serve.url)
    shown.locator("#tiles li").first.wait_for()
    yield shown
    context.close()
    assert errors == []


def is_violation(message: Any) -> bool:
    return "Content Security Policy" in message.text


def drop_files(page: Page, *files: tuple[str, str, bytes]) -> None:
    """Drop files on the page as a hand does: by an event that carries them."""
    page.evaluate(
        """(files) => {
            const carried = new DataTransfer();
            for (const [name, type, bytes] of files)
                carried.items.add(new File([new Uint8Array(bytes)], name, { type }));
            for (const kind of ["dragover", "drop"])
                document.getElementById("zone").dispatchEvent(
                    new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        [[name, kind, list(data)] for name, kind, data in files],
    )


def pause_queue(share: Share) -> None:
    share.put("pause", b"")
    until(lambda: bool((share.status_file() or {}).get("paused")), 60, share.log)


def wait_until(condition: Callable[[], object], page: Page) -> None:
    until(lambda: bool(condition()), 120, lambda: page.locator("body").inner_text())


def test_two_files_dropped_become_a_video_that_plays(page: Page, share: Share, tmp_path: Path) -> None:
    """Drop a face and a voice, see it made, play it, and save the bytes of the outbox."""
    drop_files(page, ("anna.jpg", "image/jpeg", face()), ("hello.wav", "audio/wav", voice()))
    page.get_by_role("button", name="Make 1 video").click()
    page.locator(FACES).wait_for(timeout=200_000)
    assert share.job("hello")["state"] == "done"
    page.get_by_role("button", name="Play hello").click()
    video = page.locator("#videos video")
    wait_until(lambda: video.evaluate("video => video.currentTime > 0"), page)
    assert video.evaluate("video => video.videoWidth") == share.result("hello")["width"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download hello").click()
    download.value.save_as(tmp_path / "saved.mp4")
    assert download.value.suggested_filename == "hello.mp4"
    assert (tmp_path / "saved.mp4").read_bytes() == (share.outbox / "hello" / "result.mp4").read_bytes()


def test_pairs_and_one_face_for_many_voices(page: Page, share: Share) -> None:
    """Equal names make pairs; one face speaks all voices."""
    pause_queue(share)
    files = [(f"{name}.jpg", "image/jpeg", face(64)) for name in ("a", "b")]
    sounds = [(f"{name}.wav", "audio/wav", voice(0.2)) for name in ("b", "a")]
    drop_files(page, *files, *sounds)
    page.get_by_role("button", name="Make 2 videos").click()
    page.locator("#queue li").nth(1).wait_for()
    drop_files(page, files[0], *[(f"v{n}.wav", "audio/wav", voice(0.2)) for n in range(3)])
    page.get_by_role("button", name="Make 3 videos").click()
    page.locator("#queue li").nth(4).wait_for()
    page.get_by_label("Place of v2 in the queue").select_option("front")
    wait_until(lambda: page.locator("#queue li bdi").first.inner_text() == "v2", page)
    rows = {row["name"]: row for row in share.rows() if row["submitter"] != "draft"}
    assert set(rows) == {"a", "b", "v0", "v1", "v2"}


def test_a_failed_job_says_what_to_do_and_is_tried_again(page: Page, share: Share) -> None:
    """A face that is none fails with a hint on the page; its button makes another attempt.

    With a job file that was edited on the page it becomes a video.
    """
    (share.inbox.parent / "avatars" / "eva.jpg").write_bytes(face())
    drop_files(page, ("broken.jpg", "image/jpeg", b"no picture" * 100), ("hello.wav", "audio/wav", voice(0.3)))
    page.get_by_role("button", name="Make 1 video").click()
    failure = page.locator("#failures li")
    failure.wait_for(timeout=200_000)
    first = share.job("hello")
    assert first["error_hint"] in failure.inner_text()
    failure.get_by_role("button", name="Try again", exact=True).click()
    wait_until(lambda: share.job("hello")["finished_at"] not in (None, first["finished_at"]), page)
    assert share.job("hello")["state"] == "failed"
    until(lambda: any(share.failed.glob("hello*/job.json")), 60, share.log)
    failure.get_by_role("button", name="Edit and try again").click()
    page.locator("#editor[open]").wait_for()
    editor = page.locator("#editor-text")
    asked = json.loads(editor.input_value())
    editor.fill(json.dumps({**asked, "avatar": 7}))
    page.get_by_role("button", name="Try again with this").click()
    wait_until(lambda: "avatar" in page.locator("#editor-said").inner_text(), page)
    editor.fill(json.dumps({**asked, "avatar": "eva"}))
    page.get_by_role("button", name="Try again with this").click()
    share.wait_for("hello", "done")
    page.locator(FACES).wait_for()


def test_a_face_is_seen_kept_and_speaks_again(page: Page, share: Share) -> None:
    """A still shows the face before anything is queued; the face joins the library and leaves it, and a result speaks
    again with another voice.
    """
    page.on("dialog", lambda dialog: dialog.accept("eva" if dialog.type == "prompt" else ""))
    drop_files(page, ("anna.jpg", "image/jpeg", face()))
    still = page.get_by_alt_text("The face that will speak, in anna.jpg")
    still.wait_for(timeout=200_000)
    wait_until(lambda: still.evaluate("image => image.naturalWidth"), page)
    assert page.locator("#videos li, #failures li, #running li").count() == 0
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("button", name="Keep in the library: anna.jpg").click()
    avatar = page.locator("#avatars li")
    avatar.wait_for(state="attached", timeout=60_000)
    assert (share.inbox.parent / "avatars" / "eva.jpg").read_bytes() == face()
    page.locator("#library").select_option("eva")
    page.get_by_alt_text("The face that will speak, in eva").wait_for(timeout=200_000)
    page.get_by_role("button", name="Remove eva").click()
    page.locator("#shelf summary").click()
    page.get_by_role("button", name="Take out of the library: eva").click()
    avatar.wait_for(state="detached", timeout=60_000)
    drop_files(page, ("one.wav", "audio/wav", voice(0.3)))
    page.get_by_role("button", name="Make 1 video").click()
    page.get_by_role("button", name="Another voice: one").click(timeout=200_000)
    drop_files(page, ("two.wav", "audio/wav", voice(0.4)))
    page.get_by_role("button", name="Make 1 video").click()
    page.get_by_role("button", name="Play two").wait_for(timeout=200_000)
    assert share.result("two")["avatar"]["sha256"] == share.result("one")["avatar"]["sha256"]


def test_pause_cancel_and_resume(page: Page, share: Share) -> None:
    """The queue is held and let go, and a job that waits is cancelled; a second viewer sees it, too."""
    other = page.context.new_page()
    other.goto(page.url)
    page.locator("#pause").click()
    for viewer in (page, other):
        wait_until(lambda shown=viewer: shown.locator("#state").inner_text() == "paused", viewer)  # type: ignore[misc]
    drop_files(page, ("a.jpg", "image/jpeg", face(64)), ("one.wav", "audio/wav", voice(0.3)))
    page.get_by_role("button", name="Make 1 video").click()
    page.locator("#queue li").get_by_role("button", name="Cancel").click()
    share.wait_for("one", "cancelled")
    for viewer in (page, other):
        viewer.locator("#failures li").wait_for()
    page.get_by_role("button", name="Resume").first.click()
    wait_until(lambda: page.locator("#state").inner_text() == "idle", page)


def test_the_page_goes_on_after_both_sides_were_away(page: Page, share: Share, serve: PageServer) -> None:
    """A killed daemon and a page that was started again are said, and what comes after them is shown."""
    share.kill()
    wait_until(lambda: "no daemon is running" in page.locator("#alarms").inner_text(), page)
    share.start()
    wait_until(lambda: page.locator("#state").inner_text() == "idle", page)
    assert serve.stop() == 0
    wait_until(lambda: "lost its server" in page.locator("#alarms").inner_text(), page)
    serve.start()
    wait_until(lambda: "was away from" in page.locator("#said").inner_text(), page)
    pause_queue(share)
    wait_until(lambda: page.locator("#state").inner_text() == "paused", page)


def test_hostile_names_are_text_in_every_place(browser: Browser, archive: PageServer) -> None:
    """Markup, line breaks and right-to-left marks in jobs, submitters and avatars are shown, and turn nothing."""
    page = browser.new_page(locale="en-US")
    page.goto(archive.url)
    page.locator("#failures li").wait_for()
    page.locator("#search").fill("onerror")
    wait_until(lambda: page.locator(FACES).count() == 1, page)
    page.locator("#shelf summary").click()
    for place in ("#queue", "#failures", "#videos", "#avatars", "#running"):
        assert "<img src=x" in page.locator(place).inner_text(), place
    assert page.locator("#submitter option").count() > 1
    page.locator(FACES).get_by_role("button", name="Details").click()
    page.locator("dialog[open]").wait_for()
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("window.hit") is None
    assert page.locator("#queue bdi").first.evaluate("node => getComputedStyle(node).unicodeBidi") == "isolate"
    page.locator("#job-close").click()
    page.locator("#wanted").select_option("failed")
    wait_until(lambda: "no_face" not in page.locator(FACES).first.inner_text() and page.locator(FACES).count(), page)
    assert "<img src=x" in page.locator(FACES).first.inner_text()
    page.close()


def test_names_of_others_are_text(page: Page, share: Share) -> None:
    """Markup in the names of jobs, messages and files of the inbox is shown, not run."""
    pause_queue(share)
    share.put("stray<b>&amp;.xyz", b"x")
    share.put(f"{HOSTILE}.json", b'{"avatar": "<script>window.hit=1</script>.jpg", "audio": "a.wav", "oops": 1}')
    page.locator("#failures li").wait_for(timeout=60_000)
    page.locator("#strays li").wait_for(timeout=120_000)
    text = page.locator("#failures").inner_text()
    assert HOSTILE in text
    page.locator("#failures").get_by_role("button", name="Details").click()
    page.locator("dialog[open]").wait_for()
    assert page.locator("main img[src=x], dialog img[src=x], main script, dialog script").count() == 0
    assert page.evaluate("window.hit") is None


def test_ten_thousand_results_are_searched_and_scrolled(browser: Browser, archive: PageServer) -> None:
    """The gallery shows the newest at once, more when it is scrolled, and finds one of ten thousand."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
    page = context.new_page()
    page.goto(archive.url)
    page.locator(FACES).first.wait_for()
    expect(page.locator(FACES).first.locator("bdi")).to_have_text("clip 9999")
    page.mouse.wheel(0, 20_000)
    wait_until(lambda: page.locator(FACES).count() >= 84, page)
    page.locator("#search").fill("clip 777")
    wait_until(lambda: page.locator(FACES).count() == 11, page)
    context.close()


def test_a_voice_is_recorded(browser: Browser, archive: PageServer) -> None:
    """The microphone gives a voice like a file that was dropped."""
    page = browser.new_page(locale="en-US")
    page.goto(archive.url)
    page.locator(FACES).first.wait_for()
    page.locator("#record").click()
    page.get_by_role("button", name="Stop recording").click()
    page.locator("#voices li").wait_for()
    assert re.match(r"voice-\d{4}-.*\.(weba|ogg|m4a)", page.locator("#voices bdi").inner_text())
    page.close()


def test_chinese_dark_and_small_windows(browser: Browser, archive: PageServer) -> None:
    """A Chinese browser is shown Chinese; at 360 px nothing is wider than the window; dark is dark."""
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, locale="zh-CN", color_scheme="dark", reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(archive.url)
    page.locator(FACES).first.wait_for()
    assert page.locator("#make-title").inner_text() == "制作视频"
    tiles = page.locator("#tiles li").all_inner_texts()
    assert "工作中" in tiles[0]
    assert "61 °C · 97 % · 300 W" in tiles[0]
    assert "0 W" in tiles[1]
    assert "°C" not in tiles[1]
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [section.bounding_box() for section in page.locator("main > section:visible").all()]
    assert all(box and box["x"] >= 0 and 300 < box["width"] <= 360 for box in boxes)
    edges = [(box["y"], box["y"] + box["height"]) for box in boxes if box]
    assert all(stop <= start for (_, stop), (start, _) in pairwise(edges))
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert max(red, green, blue) < 64
    page.locator("#language").click()
    assert page.locator("#make-title").inner_text() == "Make a video"
    context.close()


def test_everything_has_a_name_for_screen_readers_and_keys(page: Page) -> None:
    """Every control has a name, every field a label, and the keyboard reaches them."""
    for role in ("button", "link", "combobox", "textbox", "searchbox", "spinbutton"):
        for control in page.get_by_role(role).all():
            assert control.evaluate("node => (node.labels?.[0] ?? node).textContent.trim() || node.ariaLabel"), role
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert {"pause", "language", "pick", "record", "library"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found(browser: Browser, archive: PageServer, scheme: Literal["light", "dark"]) -> None:
    """axe-core finds nothing: contrast, names, roles, order, in light and dark, in the page and in its dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US", color_scheme=scheme)
    page = context.new_page()
    page.goto(archive.url)
    page.locator(FACES).first.wait_for()
    assert Axe().run(page).response["violations"] == []
    page.locator(FACES).first.get_by_role("button", name="Details").click()
    page.locator("dialog[open]").wait_for()
    assert Axe().run(page).response["violations"] == []
    context.close()


def test_a_connection_that_sends_slowly_is_closed_and_others_are_served(browser: Browser, archive: PageServer) -> None:
    """Half a header holds nobody up: two hundred of them wait while the page is answered."""
    slow = [socket.create_connection(("127.0.0.1", archive.port)) for _ in range(200)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    page = browser.new_page()
    page.goto(archive.url)
    page.locator(FACES).first.wait_for()
    slow[0].settimeout(60)
    assert slow[0].recv(100) == b""
    for connection in slow:
        connection.close()
    page.close()


def test_the_page_process_is_small(archive: PageServer) -> None:
    """The process maps neither the media libraries nor torch, nor what only reads settings."""
    assert archive.process is not None
    maps = Path(f"/proc/{archive.process.pid}/maps").read_text()
    assert not re.search(r"libav|cv2|torch|numpy|pydantic", maps)


def test_a_daemon_with_a_page_serves_it_until_its_end(make_share: Callable[..., Share]) -> None:
    """`musedrop run --page` starts both; the page ends with the daemon, also when that is killed."""
    share = make_share(module="agent.cli.main run --page")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    share.config.write_text(f'{share.config.read_text()}\n[page]\nlisten = "127.0.0.1:{port}"\n')

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    share.start()
    until(answers, 60, share.log)
    share.kill()
    until(lambda: not answers(), 60, share.log)


def test_the_first_run_leads_to_a_first_video(page: Page, share: Share) -> None:
    """The page shows what is set up and what to paste, takes the demo clip, and is done when its video is there."""
    page.locator("#steps li").nth(6).wait_for()
    told = page.locator("#setup").inner_text()
    for text in (str(share.inbox.parent), "which is not in the share", "[musedrop]", "The daemon runs as process"):
        assert text in told
    page.locator("#language").click()
    wait_until(lambda: "共享文件夹是" in page.locator("#setup").inner_text(), page)
    page.locator("#language").click()
    page.get_by_role("button", name="Take the demo clip").click()
    page.get_by_role("button", name="Make 1 video").click()
    page.locator(FACES).wait_for(timeout=200_000)
    page.locator("#setup").wait_for(state="hidden")
    assert share.job("hello")["state"] == "done"
