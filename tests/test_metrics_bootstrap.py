"""metrics/bootstrap.py: the paired test (null, power, exactness), one song, malformed columns.

Intervals and their widths: tests/test_reports.py.
"""

import itertools

import numpy as np
import pytest
from scipy.stats import ttest_rel

from stage_lite.errors import StageLiteError
from stage_lite.metrics.bootstrap import Bootstrap, paired_test

TEN_SONGS = np.repeat([f"song{i}" for i in range(10)], 4)


def two_systems(draw, n_songs, n_windows, shift=0.0):
    """Scores in which songs differ much, and the systems differ from song to song by chance."""
    song_ids = np.repeat([f"song{i}" for i in range(n_songs)], n_windows)
    ease, taste = draw.normal(0, 1, n_songs), draw.normal(0, 0.3, n_songs)
    b = np.repeat(ease, n_windows) + draw.normal(0, 0.1, len(song_ids))
    a = b + np.repeat(taste, n_windows) + draw.normal(0, 0.1, len(song_ids)) + shift
    return a, b, song_ids


# --- paired test ---------------------------------------------------------------------------------


def test_p_is_uniform_when_nothing_differs():
    """And a test over windows would not be: it takes the windows of a song for independent."""
    draw = np.random.default_rng(0)
    ours, windows = [], []
    for _ in range(600):
        a, b, song_ids = two_systems(draw, 8, 10)
        ours.append(paired_test(a, b, song_ids))
        windows.append(ttest_rel(a, b).pvalue)
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(np.array(ours) <= level) == pytest.approx(level, abs=0.05)
    assert np.mean(np.array(windows) <= 0.05) > 0.3


def test_p_is_uniform_with_random_signs_too():
    draw = np.random.default_rng(1)
    ps = [paired_test(*two_systems(draw, 20, 2), n_resamples=199, seed=i) for i in range(400)]
    for level in (0.1, 0.5):
        assert np.mean(np.array(ps) <= level) == pytest.approx(level, abs=0.06)


def test_a_shift_is_found():
    draw = np.random.default_rng(2)
    ps = [paired_test(*two_systems(draw, 20, 4, shift=0.3), n_resamples=999) for _ in range(50)]
    assert np.mean(np.array(ps) < 0.05) > 0.9
    a, b, song_ids = two_systems(draw, 40, 4, shift=1.0)
    assert paired_test(a, b, song_ids, n_resamples=999) == pytest.approx(2 / 1000)
    assert paired_test(a, b, song_ids) == paired_test(b, a, song_ids)


@pytest.mark.parametrize("n_songs", [2, 3, 7, 10])
def test_equals_all_sign_patterns_written_out(n_songs):
    a, b, song_ids = two_systems(np.random.default_rng(n_songs), n_songs, 3, shift=0.1)
    d = (a - b).reshape(n_songs, 3).mean(axis=1)
    patterns = np.array(list(itertools.product([1, -1], repeat=n_songs)))
    expected = np.mean(np.abs(patterns @ d) >= abs(d.sum()) - 1e-12)
    assert paired_test(a, b, song_ids) == pytest.approx(expected)
    order = np.random.default_rng(0).permutation(len(a))
    assert paired_test(a[order], b[order], song_ids[order]) == pytest.approx(expected)


def test_random_signs_are_seeded_and_near_the_exact():
    a, b, song_ids = two_systems(np.random.default_rng(5), 12, 3, shift=0.1)
    exact = paired_test(a, b, song_ids)
    random = [paired_test(a, b, song_ids, n_resamples=2000, seed=s) for s in (0, 0, 1)]
    assert random[0] == random[1] != random[2]
    assert random[0] == pytest.approx(exact, abs=0.04)


def test_each_song_counts_once_and_gaps_are_left_out():
    """One song with a thousand windows decides nothing."""
    song_ids = ["long"] * 1000 + [f"song{i}" for i in range(6)]
    a = np.concatenate([np.full(1000, 5.0), np.full(6, -1.0)])
    assert paired_test(a, np.zeros(1006), song_ids) > 0.5
    half = np.concatenate([np.full(1000, -0.5), np.full(6, 1.0)])
    assert paired_test(half, np.zeros(1006), song_ids) == pytest.approx(4 / 2**7)
    b = np.zeros(1006)
    b[:1000] = np.nan
    assert paired_test(a, b, song_ids) == pytest.approx(2 / 2**6)
    alike = np.ones(40)
    assert paired_test(alike, alike, TEN_SONGS) == 1.0


# --- one song, gaps ------------------------------------------------------------------------------


def test_one_song_has_a_value_but_no_interval_and_no_test():
    one = Bootstrap(["a"] * 5).mean(np.arange(5.0))
    assert one["value"] == 2 and np.isnan(one["low"]) and np.isnan(one["high"])
    with pytest.raises(StageLiteError, match=r"1 of 1 song with.*at least 2.*more songs"):
        paired_test(np.arange(5.0), np.zeros(5), ["a"] * 5)
    gaps = np.where(TEN_SONGS == "song3", 1.0, np.nan)
    assert np.isnan(Bootstrap(TEN_SONGS).mean(gaps)["low"])
    with pytest.raises(StageLiteError, match="1 of 10 songs"):
        paired_test(gaps, np.zeros(40), TEN_SONGS)


def test_all_gaps():
    nothing = Bootstrap(TEN_SONGS).mean(np.full(40, np.nan))
    assert all(np.isnan(v) for v in nothing.values())
    with pytest.raises(StageLiteError, match="0 of 10 songs"):
        paired_test(np.full(40, np.nan), np.zeros(40), TEN_SONGS)


def test_lists_and_yes_no_columns():
    share = Bootstrap(list(TEN_SONGS)).mean(np.arange(40) % 2 == 0)
    assert share["value"] == 0.5 and share == Bootstrap(TEN_SONGS).mean([1.0, 0.0] * 20)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Bootstrap([]), "got no windows"),
        (lambda: paired_test([], [], []), "got no windows"),
        (lambda: Bootstrap(TEN_SONGS).mean(np.zeros(39)), r"shape \(39,\).*each of the 40 windows"),
        (lambda: Bootstrap(TEN_SONGS).mean(np.zeros((40, 1))), r"shape \(40, 1\)"),
        (lambda: paired_test(np.zeros(40), np.zeros(3), TEN_SONGS), r"shape \(3,\)"),
        (lambda: Bootstrap(TEN_SONGS).mean(np.full(40, np.inf)), "infinite numbers"),
        (lambda: Bootstrap(TEN_SONGS).mean(["x"] * 40), "one number per window, NaN for none"),
    ],
)
def test_errors_say_what_is_wrong(unchecked_types, call, message):
    with pytest.raises(StageLiteError, match=message):
        call()
