"""metrics/beats.py: empty, malformed, perfect, chance, and known wrong answers."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import stage_lite.metrics
from stage_lite.errors import StageLiteError
from stage_lite.metrics.beats import (
    beat_divisions,
    beat_f1,
    beat_f1_of_times,
    find_onsets,
    onset_alignment,
    onset_alignment_of_times,
    onset_f1,
)
from stage_lite.metronome import beat_grid, click_track

RATE = 32000
BEATS, DOWNBEATS = beat_grid(113, 4, duration_s=8.0, start_s=0.21)
CLICK = click_track(BEATS, DOWNBEATS, duration_s=8.0, sample_rate=RATE)


def at(times):
    """A tracker that hears just these times."""
    return lambda wav, sample_rate: np.asarray(times, dtype=np.float64)


# --- perfect, wrong, chance ----------------------------------------------------------------------


def test_click_track_keeps_its_own_beat_and_no_other():
    assert beat_f1(BEATS, CLICK, RATE) > 0.9  # the tracker may miss the last beat
    others, _ = beat_grid(90, 4, duration_s=8.0, start_s=0.5)
    assert beat_f1(others, CLICK, RATE) < 0.5
    assert onset_alignment(BEATS, CLICK, RATE) == 1.0
    assert abs(onset_alignment(others, CLICK, RATE)) < 0.5


def test_rate_channels_and_arrays_make_no_difference():
    stereo = CLICK.expand(2, -1)
    slower = click_track(BEATS, DOWNBEATS, duration_s=8.0, sample_rate=22050)
    for wav, rate in [(stereo, RATE), (CLICK[0].numpy(), RATE), (slower, 22050)]:
        assert beat_f1(BEATS, wav, rate) > 0.9
        assert onset_alignment(BEATS, wav, rate) == 1.0


def test_first_seconds_count():
    """mir_eval's trimming of the first 5 s must not happen: here all mistakes are in them."""
    tracked = BEATS[BEATS > 5]
    expected = 2 * len(tracked) / (len(tracked) + len(BEATS))
    assert beat_f1(BEATS, CLICK, RATE, at(tracked)) == pytest.approx(expected)
    assert expected < 0.6


@pytest.mark.parametrize(
    "tracked, score",
    [
        (BEATS, 1.0),
        (BEATS + 0.069, 1.0),
        (BEATS + 0.071, 0.0),
        (BEATS[:-1] + np.diff(BEATS) / 2, 0.0),  # between the beats
        (BEATS[::2], 2 / 3),  # half the tempo
        (np.sort(np.concatenate([BEATS, BEATS + 30 / 113])), 2 / 3),  # double the tempo
        ([], 0.0),
    ],
)
def test_known_scores(tracked, score):
    assert beat_f1(BEATS, CLICK, RATE, at(tracked)) == pytest.approx(score, abs=0.03)
    assert beat_f1_of_times(BEATS, tracked) == pytest.approx(score, abs=0.03)


def test_tracker_gets_checked_mono():
    seen = []

    def tracker(wav, sample_rate):
        seen.append((wav.shape, wav.dtype, sample_rate))
        return BEATS

    noise = np.ones((2, 8 * 44100), dtype=np.int16) * 1000
    assert beat_f1(BEATS, noise, 44100, tracker) == 1.0
    assert seen == [((1, 8 * 44100), torch.float32, 44100)]


def test_onset_f1():
    assert onset_f1([0.1, 0.5, 1.0], [0.14, 0.46, 1.0]) == 1.0
    assert onset_f1([0.1, 0.5, 1.0], [0.16, 0.5]) == pytest.approx(2 * 1 / (2 + 3))
    assert onset_f1([0.1, 0.5], [0.16, 0.5], window_s=0.07) == 1.0
    assert onset_f1([0.1], []) == 0.0
    assert onset_f1(BEATS, find_onsets(CLICK, RATE)) == 1.0


def test_alignment_of_random_onsets_is_zero_on_average():
    draw = np.random.default_rng(0)
    onsets = np.unique(draw.uniform(0, 8, 20000))
    assert abs(onset_alignment_of_times(BEATS, onsets, 8.0)) < 0.02
    share = onset_alignment_of_times(BEATS, onsets, 8.0, above_chance=False)
    assert share == pytest.approx(0.05 * 2 / (30 / 113), abs=0.02)


def test_alignment_between_the_grid_is_below_zero():
    eighth = 30 / 113
    between = BEATS[:-1] + eighth / 2
    assert onset_alignment_of_times(BEATS, between, 8.0) < -0.3
    assert onset_alignment_of_times(BEATS, between, 8.0, above_chance=False) == 0.0
    assert onset_alignment_of_times(BEATS, between, 8.0, window_s=0.03, subdivisions=4) == 1.0
    triplets = np.sort(np.concatenate([BEATS, BEATS[:-1] + 2 * eighth * 2 / 3]))
    assert onset_alignment_of_times(BEATS, triplets, 8.0, subdivisions=3) == 1.0
    assert onset_alignment_of_times(BEATS, triplets, 8.0) < 0.5


def test_divisions_reach_over_both_ends():
    assert np.allclose(beat_divisions([0.5, 1.5], 2.0), [-0.5, 0, 0.5, 1, 1.5, 2, 2.5])
    assert np.allclose(beat_divisions([0.0, 1.0], 2.0, 1), [-1, 0, 1, 2, 3])
    curve = beat_divisions([0.0, 1.0, 3.0], 3.0)
    assert {0.5, 2.0} <= set(curve) and curve[0] <= 0 and curve[-1] >= 3


# --- empty and malformed -------------------------------------------------------------------------


def test_silence_scores_zero_without_asking_the_tracker():
    silence = torch.zeros(1, 8 * RATE)
    hiss = 1e-4 * torch.randn(1, 8 * RATE, generator=torch.Generator().manual_seed(0))
    for wav in (silence, hiss):
        assert beat_f1(BEATS, wav, RATE) == 0.0
        assert beat_f1(BEATS, wav, RATE, at(BEATS)) == 0.0
        assert onset_alignment(BEATS, wav, RATE) == 0.0
        assert len(find_onsets(wav, RATE)) == 0


def test_very_short_audio():
    assert 0.0 <= beat_f1([0.0], CLICK[:, :500], RATE) <= 1.0
    assert beat_f1([0.0], CLICK[:, :1], RATE) == 0.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: beat_f1([], CLICK, RATE), "beat_times is empty.*no score"),
        (lambda: onset_f1([], [1.0]), "reference_onsets is empty"),
        (lambda: onset_alignment([], CLICK, RATE), "beat_times is empty"),
        (lambda: onset_alignment([1.0], CLICK, RATE), "holds one beat.*at least two"),
        (lambda: beat_f1([1.0, 1.0], CLICK, RATE), "does not increase: entry 0"),
        (lambda: beat_f1([1.0, float("nan")], CLICK, RATE), "finite times"),
        (lambda: beat_f1([[1.0, 2.0]], CLICK, RATE), "expected one list"),
        (lambda: beat_f1("abc", CLICK, RATE), "expected a list of seconds"),
        (lambda: beat_f1(BEATS + 30, CLICK, RATE), "outside of the recording of 8 s.*subtract"),
        (lambda: onset_f1([2.0], [3.0, 1.0]), "estimated_onsets does not increase"),
        (lambda: beat_f1(BEATS, CLICK[None], RATE), r"shape \(1, 1, 256000\)"),
        (lambda: beat_f1(BEATS, CLICK * float("nan"), RATE), "NaN or infinite"),
        (lambda: beat_f1(BEATS, CLICK, 5), "sample rate 5"),
        (lambda: beat_f1(BEATS, CLICK, RATE, at([2.0, 1.0])), "tracked beats does not increase"),
        (lambda: beat_f1(BEATS, CLICK, RATE, window_s=0.0), "window_s is 0.0"),
        (lambda: onset_alignment(BEATS, CLICK, RATE, subdivisions=0), "subdivisions is 0"),
        (lambda: onset_alignment(BEATS, CLICK, RATE, subdivisions=8), "100% of the time"),
    ],
)
def test_errors_say_what_is_wrong(unchecked_types, call, message):
    with pytest.raises(StageLiteError, match=message):
        call()


# --- house ---------------------------------------------------------------------------------------


def test_metrics_are_imported_late():
    code = "import stage_lite.metrics, sys; print('torch' in sys.modules, 'librosa' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
    assert stage_lite.metrics.beats.beat_f1 is beat_f1
    with pytest.raises(AttributeError, match=r"no attribute 'beat'.*beats"):
        stage_lite.metrics.beat  # noqa: B018
