"""From the features of a voice to what the UNet hears at each frame, by the published rule and at any rate."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.musetalk.audio.features import audio_windows, count_frames
from tests.models.musetalk import recipe
from tests.models.musetalk.audio.tiny_whisper import (
    RATES,
    cut_as_published,
    open_encoder,
    ramp_features,
    read_synthetic,
)


def test_other_context(tmp_path: Path) -> None:
    """One frame before and three after."""
    golden = recipe.golden("01_audio_pad_left1_right3_fps25")
    samples = read_synthetic(tmp_path, 2.5)
    features = open_encoder().encode(samples)
    cut = audio_windows(features, len(samples), Fraction(25), range(62), reference=True, context=(1, 3))
    assert np.abs(cut[golden["frames"]] - golden["windows"]).max() <= 1e-5


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", [40_000, 32_000, 16_017, 14_400])
def test_reference_at_other_rates(rate: Fraction, samples: int) -> None:
    """The rate truncated, times in floats, and the pad by the rounded length of a frame: as the published rule says."""
    features = np.random.default_rng(1).normal(size=(samples // 320, 2, 3)).astype(np.float32)
    wanted = cut_as_published(features, samples, rate)
    assert len(wanted) == count_frames(samples, rate, reference=True)
    cut = audio_windows(features, samples, rate, range(len(wanted)), reference=True)
    for n, window in enumerate(wanted):  # where the published program has too few positions, it gives up
        assert np.array_equal(cut[n, : len(window)], window)
        assert not cut[n, len(window) :].any()


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), Fraction(49)])
def test_both_ways_agree_where_the_reference_is_right(rate: Fraction) -> None:
    """At whole rates from 25 to 49 the default cuts the same windows, but where floats lose a position."""
    features = ramp_features(160_000)
    frames = range(count_frames(160_000, rate))
    ours, theirs = (audio_windows(features, 160_000, rate, frames, reference=reference) for reference in (False, True))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("rate", [*RATES, Fraction(1), Fraction(15), Fraction(50), Fraction(60), Fraction(120)])
def test_windows_are_centred_at_every_rate(rate: Fraction) -> None:
    """The middle of a window is never before its frame begins, and at most 20 ms after, over an hour and more."""
    samples = 3700 * 16000
    frames = range(math.ceil(rate * 3600), math.ceil(rate * 3600) + 90)
    middle = audio_windows(ramp_features(samples), samples, rate, frames)[:, :, 0].astype(np.float64).mean(1)
    late = middle - np.array([float(n / rate) for n in frames])
    assert late.min() > -1e-3
    assert late.max() < 0.021


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60000, 1001)])
def test_broadcast_rates_stay_in_sync_for_an_hour(rate: Fraction) -> None:
    """An hour of sound has an hour of frames; the reference's truncated rate would drift by more than 30 s."""
    samples = 3600 * 16000
    assert abs(count_frames(samples, rate) / rate - 3600) < 1 / rate
    assert abs(count_frames(samples, rate, reference=True) / rate - 3600) > 30


def test_frames_are_counted_in_integers() -> None:
    """A sound of k frames fills k frames, always."""
    for rate in RATES + [Fraction(120)]:
        for k in range(1, 300):
            assert count_frames(math.ceil(k * 16000 / rate), rate) == k


@pytest.mark.parametrize("samples", [640, 641, 1000, 1279])
@pytest.mark.parametrize("rate", [Fraction(12), Fraction(25), Fraction(60), Fraction(120)])
def test_shortest_sounds(samples: int, rate: Fraction) -> None:
    """From 40 ms up every frame has a whole window; the reference would end its process."""
    features = open_encoder().encode_chunk(np.full(samples, 0.1, np.float32))
    assert features.shape == (samples // 320, 5, 64)
    for reference in (False, True):
        frames = range(max(1, count_frames(samples, rate, reference=reference)))
        cut = audio_windows(features, samples, rate, frames, reference=reference)
        assert cut.shape == (len(frames), 50, 64)
        assert np.abs(cut[0]).max() > 0


def test_a_span_has_the_windows_of_the_whole() -> None:
    """Cut anywhere, even beyond the end of the sound, frame n has its one window."""
    features = np.random.default_rng(2).normal(size=(200, 2, 3)).astype(np.float32)
    whole = audio_windows(features, 64_000, Fraction(30), range(130))
    parts = [
        audio_windows(features, 64_000, Fraction(30), range(a, b)) for a, b in ((0, 1), (1, 50), (50, 127), (127, 130))
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    assert audio_windows(features, 64_000, Fraction(30), range(5, 5)).shape == (0, 20, 3)
    assert not audio_windows(features, 64_000, Fraction(30), range(900, 901)).any()
