"""Two thousand hostile job files and names: the daemon answers each one and survives."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.jobs.parse import FIELDS
from tests.share import ROOT, Share, until

DROPS = 2000
LONGEST_NAME_BYTES = 240

NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=40),
    st.sampled_from(
        [
            "$(touch pwned)",
            "`id`",
            "; rm -rf .",
            "--help",
            "..",
            "...",
            "CON",
            "a\nb",
            "%s%n",
            "\u202egnp",
            "\ufeff",
            "'",
        ]
    ),
    st.binary(min_size=1, max_size=20).map(
        lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
    ),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["../../etc/passwd", "/dev/zero", "C:\\x", "\\\\nas\\x", "http://x/y.wav", "a" * 5000, "face.png", "voice.wav"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
JOBS = st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=10)), VALUES, max_size=6)
TEXTS = st.one_of(
    st.binary(max_size=200),
    JOBS.map(lambda job: json.dumps(job).encode()),
    JOBS.map(lambda job: json.dumps(job).encode("utf-16")),
    JOBS.map(lambda job: json.dumps(job).encode()[:-1]),
    st.sampled_from(
        [b"", b"{}", b"[" * 100_000, b'{"a":' * 5000, b"\xef\xbb\xbf{}", b"\0" * 64, b"{}" * 3, b'{"avatar": NaN}']
    ),
)


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    made = Share(tmp_path_factory.mktemp("hostile"), module="tests.e2e.noop", settle_s=0.05, wait_media_s=0.1)
    made.start()
    yield made
    made.end()


thrown: list[str] = []


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=DROPS, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(name=NAMES, text=TEXTS)
def test_throw(share: Share, name: str, text: bytes) -> None:
    """Write each file under a number of its own; the next test checks the results."""
    number = f"{len(thrown):05d}"
    file = f"{number} {name}.json"
    while len(file.encode("utf-8", "surrogateescape")) > LONGEST_NAME_BYTES:
        file = file[:20] + file[21:]
    share.put_raw(file, text)
    thrown.append(number)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_hostile_drop_is_answered(share: Share) -> None:
    """Each has one finished row, none was executed, the inbox is empty, the daemon works."""
    assert len(thrown) >= DROPS
    until(lambda: count_ended(share) >= len(thrown), 240, lambda: f"{len(thrown)} dropped\n{share.log()[-3000:]}")
    rows = share.rows("SELECT name, state, error_code FROM job_status WHERE finished_at IS NOT NULL")
    assert sorted(row["name"].split(" ")[0] for row in rows) == thrown
    assert "internal" not in {row["error_code"] for row in rows}
    share.check_alive()
    assert not [path for path in share.inbox.iterdir() if path.suffix == ".json"]
    assert not any((folder / "pwned").exists() for folder in (ROOT, share.root, share.inbox, share.state))
    share.put("face.png", b"face")
    share.put("voice.wav", b"voice")
    share.drop("well-behaved", avatar="face.png", audio="voice.wav")
    share.wait_for("well-behaved", "done")


def count_ended(share: Share) -> int:
    return int(share.rows("SELECT count(finished_at) AS ended FROM job_status")[0]["ended"])
