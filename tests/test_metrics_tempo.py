"""metrics/tempo.py, continuity.py, drift.py, start.py: empty, malformed, perfect, known values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stage_lite.metrics
from stage_lite.errors import StageLiteError
from stage_lite.metrics.beats import (
    beat_drift,
    beat_drift_of_times,
    beat_f1_of_times,
    continuity,
    continuity_of_times,
    start_offset,
    start_offset_of_times,
    tempo_error,
    tempo_error_of_times,
    tracked_beats,
)
from stage_lite.metrics.reference import beat_phase, phase_time
from stage_lite.metrics.start import strong_onsets
from stage_lite.metronome import beat_grid, click_track

RATE = 32000
BEATS, DOWNBEATS = beat_grid(113, 4, duration_s=8.0, start_s=0.21)
CLICK = click_track(BEATS, DOWNBEATS, duration_s=8.0, sample_rate=RATE)
CURVE, _ = beat_grid([(0.0, 80.0), (20.0, 150.0)], 4, duration_s=20.0, start_s=0.3)
SILENCE = torch.zeros(1, 8 * RATE)


def with_half_beats(beats):
    return np.sort(np.concatenate([beats, beats[:-1] + np.diff(beats) / 2]))


def with_thirds(beats):
    steps = np.diff(beats) / 3
    return np.sort(np.concatenate([beats, beats[:-1] + steps, beats[:-1] + 2 * steps]))


# --- phase ---------------------------------------------------------------------------------------


def test_phase_counts_beats_and_goes_on_beyond_them():
    assert np.allclose(beat_phase([0.0, 1.0, 1.5, 4.0], [0.5, 1.5, 2.0]), [-0.5, 0.5, 1.0, 6.0])
    times = np.linspace(-3, 25, 200)
    assert np.allclose(phase_time(beat_phase(times, CURVE), CURVE), times)
    assert np.allclose(beat_phase(CURVE, CURVE), np.arange(len(CURVE)))


# --- tempo ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("beats", [BEATS, CURVE], ids=["steady", "curve"])
@pytest.mark.parametrize(
    "change, octave",
    [
        (lambda b: b, 1),
        (lambda b: b[::2], 1 / 2),
        (lambda b: b[1::3], 1 / 3),
        (with_half_beats, 2),
        (with_thirds, 3),
        (lambda b: np.delete(b, [3, 8]), 1),  # missed beats
        (lambda b: b[5:], 1),  # of a curve: only its faster part
        (lambda b: np.sort(np.append(b, b[4] + 0.1)), 1),  # one stray beat
    ],
)
def test_right_tempo_and_its_octaves(beats, change, octave):
    error = tempo_error_of_times(beats, change(beats))
    assert error.percent == pytest.approx(100 * (octave - 1), abs=1e-6)
    assert error.octave == octave
    assert error.octave_percent == pytest.approx(0, abs=1e-6)


def test_known_errors_and_their_sign():
    for bpm, percent, octave, rest in [
        (110, 10, 1, 10),
        (90, -10, 1, -10),
        (190, 90, 2, -5),
        (145, 45, 2, -27.5),  # nearer to 2 than to 1 in its logarithm
        (52, -48, 1 / 2, 4),
        (290, 190, 3, -10 / 3),
    ]:
        tracked, _ = beat_grid(bpm, duration_s=8.0, start_s=0.03)
        error = tempo_error_of_times(beat_grid(100, duration_s=8.0)[0], tracked)
        assert error == pytest.approx((percent, octave, rest), abs=1e-9)


def test_a_curve_is_compared_with_itself_at_the_same_moment():
    half = CURVE[-1] / 2
    assert tempo_error_of_times(CURVE, CURVE[CURVE > half]).percent == pytest.approx(0, abs=1e-9)
    medians = np.median(np.diff(CURVE[CURVE > half])) / np.median(np.diff(CURVE))
    assert abs(1 / medians - 1) > 0.1  # what bare median distances would have called an error


@given(
    bpm=st.floats(60, 190),
    scale=st.floats(0.2, 5),
    shift=st.floats(-20, 20),
    own=st.floats(0.8, 1.25),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_time_scale_and_shift(bpm, scale, shift, own, seed):
    """Both scaled: nothing changes. Tracked scaled: its own ratio. Tracked shifted: nothing."""
    beats, _ = beat_grid(bpm, duration_s=8.0, start_s=0.1)
    jitter = np.random.default_rng(seed).uniform(-0.1, 0.1, len(beats)) * 60 / bpm
    tracked = beats + jitter
    error = tempo_error_of_times(beats, tracked)
    same = dict(rel=1e-6, abs=1e-5)
    assert tempo_error_of_times(scale * beats, scale * tracked) == pytest.approx(error, **same)
    assert tempo_error_of_times(beats + shift, tracked + shift) == pytest.approx(error, **same)
    assert tempo_error_of_times(beats, tracked + shift) == pytest.approx(error, **same)
    slower = tempo_error_of_times(beats, own * tracked)
    assert 1 + slower.percent / 100 == pytest.approx((1 + error.percent / 100) / own, rel=1e-6)
    doubled = tempo_error_of_times(beats, tracked / 2)
    assert 1 + doubled.percent / 100 == pytest.approx(2 * (1 + error.percent / 100), rel=1e-6)


@pytest.mark.parametrize("bpm", [60, 75, 90, 113, 140, 160, 190])
def test_click_tracks(bpm):
    """librosa hears them within 0.5 %, up to the octave; it halves some that are fast."""
    beats, downbeats = beat_grid(bpm, 4, duration_s=8.0, start_s=0.21)
    wav = click_track(beats, downbeats, duration_s=8.0, sample_rate=RATE)
    error = tempo_error(beats, wav, RATE)
    assert error.octave in (1.0, 0.5) and abs(error.octave_percent) < 0.5
    tracked = tracked_beats(wav, RATE)
    assert continuity_of_times(beats, tracked).amlt > 0.9
    drift = beat_drift_of_times(beats, tracked)
    assert abs(drift.ms_per_s) < 5 and drift.wander_ms < 10
    wrong, _ = beat_grid(bpm * 1.2, 4, duration_s=8.0, start_s=0.21)
    assert abs(tempo_error_of_times(wrong, tracked).octave_percent) > 10
    assert abs(beat_drift_of_times(wrong, tracked).ms_per_s) > 100
    start = start_offset(beats, wav, RATE)
    assert 0 <= start.seconds < 0.015 and start.onset_s == pytest.approx(beats[0], abs=0.015)


def test_accelerando():
    """On the tracker's part only a tempo that is steady is sure: here the beats are given."""
    beats, downbeats = beat_grid([(0, 90), (8, 130)], 4, duration_s=8.0, start_s=0.21)
    wav = click_track(beats, downbeats, duration_s=8.0, sample_rate=RATE)
    onsets = strong_onsets(wav, RATE)
    assert len(onsets) == len(beats) and np.abs(onsets - beats).max() < 0.015
    assert abs(tempo_error_of_times(beats, onsets).percent) < 0.5
    assert continuity_of_times(beats, onsets) == (1.0, 1.0)
    drift = beat_drift_of_times(beats, onsets)
    assert abs(drift.ms_per_s) < 1 and drift.wander_ms < 5
    steady, _ = beat_grid(110, duration_s=8.0, start_s=0.21)
    assert beat_drift_of_times(beats, steady).wander_ms > 50
    assert continuity_of_times(beats, steady).cmlt < 0.8


# --- continuity ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tracked, cmlt, amlt",
    [
        (BEATS, 1.0, 1.0),
        (BEATS + 0.17 * 60 / 113, 1.0, 1.0),  # within 17.5 % of a beat
        (BEATS[::2], 0.0, 1.0),
        (with_half_beats(BEATS), 0.0, 1.0),
        (BEATS[:-1] + np.diff(BEATS) / 2, 0.0, 1.0),  # the off-beat
        (BEATS[:1], 0.0, 0.0),
        ([], 0.0, 0.0),
    ],
)
def test_known_continuity(tracked, cmlt, amlt):
    found = continuity_of_times(BEATS, tracked)
    assert (found.cmlt, found.amlt) == pytest.approx((cmlt, amlt), abs=0.08)
    assert continuity(BEATS, CLICK, RATE, lambda wav, rate: np.asarray(tracked)) == found


def test_continuity_by_hand():
    """Eight beats, of which the fourth is tracked 0.3 beats late: it and the next one don't count,
    the one because it is off, the other because its distance from it is wrong."""
    beats = np.arange(1.0, 9.0)
    tracked = beats.copy()
    tracked[3] += 0.3
    assert continuity_of_times(beats, tracked).cmlt == pytest.approx(6 / 8)
    assert beat_f1_of_times(beats, tracked) == pytest.approx(7 / 8)


def test_first_seconds_count_for_continuity():
    late = np.concatenate([BEATS[BEATS < 5] + 0.25, BEATS[BEATS >= 5]])
    assert 0.2 < continuity_of_times(BEATS, late).cmlt < 0.5  # 1 if the first 5 s were cut off


def test_fewest_beats():
    assert continuity_of_times([1.0, 2.0], [1.0, 2.0]) == (1.0, 1.0)
    assert tempo_error_of_times([1.0, 2.0], [5.0, 5.5]).percent == pytest.approx(100)


@pytest.mark.parametrize("seed", range(5))
def test_amlt_is_never_below_cmlt(seed):
    tracked = np.unique(np.random.default_rng(seed).uniform(0, 8, 20))
    found = continuity_of_times(BEATS, tracked)
    assert 0 <= found.cmlt <= found.amlt <= 1


# --- drift ---------------------------------------------------------------------------------------

LONG, _ = beat_grid(120, duration_s=30.0, start_s=0.2)


@pytest.mark.parametrize("ms_per_s", [0.0, 3.0, -3.0, 30.0, -30.0])
@pytest.mark.parametrize(
    "change",
    [
        lambda b: b,
        lambda b: b[::2],
        with_half_beats,
        with_thirds,
        lambda b: np.delete(b, [7, 20, 21, 22]),
        lambda b: b[10:],
    ],
)
def test_known_drift(ms_per_s, change):
    """30 ms per s are 0.9 s, nearly two beats, in 30 s: followed to the end."""
    tracked = change(LONG)
    tracked = tracked + 0.04 + ms_per_s / 1000 * tracked
    drift = beat_drift_of_times(LONG, tracked)
    assert drift.ms_per_s == pytest.approx(ms_per_s, abs=1e-6)
    assert drift.wander_ms == pytest.approx(0, abs=1e-6)
    percent = tempo_error_of_times(LONG, tracked).octave_percent
    assert 1 / (1 + percent / 100) == pytest.approx(1 + ms_per_s / 1000)


def test_drift_from_a_curve():
    drift = beat_drift_of_times(CURVE, 1.01 * CURVE)
    assert drift.ms_per_s == pytest.approx(10, abs=1e-6) and drift.wander_ms < 1e-6


def test_drift_bears_noise_and_a_few_jumps():
    draw = np.random.default_rng(0)
    tracked = 1.005 * LONG + draw.normal(0, 0.01, len(LONG))
    tracked[:6] += 0.25  # on the off-beat at first
    drift = beat_drift_of_times(LONG, np.sort(tracked))
    assert drift.ms_per_s == pytest.approx(5, abs=1)
    assert 4 < drift.wander_ms < 15
    lost = beat_drift_of_times(LONG, np.unique(draw.uniform(0, 30, 60)))
    assert lost.wander_ms > 50


def test_drift_of_a_shift_is_none():
    for shift in (-3.1, 0.2, 0.26, 7.0):
        assert beat_drift_of_times(LONG, LONG + shift).ms_per_s == pytest.approx(0, abs=1e-9)


def test_drift_of_audio():
    slow, downbeats = beat_grid(120 / 1.01, duration_s=30.0, start_s=0.2)
    wav = click_track(slow, downbeats, duration_s=30.0, sample_rate=RATE)
    assert beat_drift(LONG, wav, RATE).ms_per_s == pytest.approx(10, abs=0.5)


# --- start offset --------------------------------------------------------------------------------


@pytest.mark.parametrize("start_s", [0.0, 0.003, 0.02, 0.21, 1.0])
def test_start_is_found_even_at_the_first_sample(start_s):
    beats, downbeats = beat_grid(113, 4, duration_s=8.0, start_s=start_s)
    beats = beats[beats >= start_s]
    wav = click_track(beats, downbeats[downbeats >= start_s], duration_s=8.0, sample_rate=RATE)
    for channels, rate in [(wav, RATE), (wav.expand(2, -1), RATE), (wav[0].numpy(), RATE)]:
        found = start_offset(beats, channels, rate)
        assert 0 <= found.seconds < 0.015
        assert found.onset_s == pytest.approx(start_s, abs=0.015)
    late, _ = beat_grid(113, 4, duration_s=8.0, start_s=start_s - 0.1)
    assert start_offset(late, wav, RATE).seconds == pytest.approx(0.1, abs=0.015)
    early, _ = beat_grid(113, 4, duration_s=8.0, start_s=start_s + 0.1)
    assert start_offset(early, wav, RATE).seconds == pytest.approx(-0.1, abs=0.015)


def test_weak_onsets_are_no_start():
    draw = torch.Generator().manual_seed(0)
    time = torch.arange(RATE // 10) / RATE
    hit = torch.exp(-time * 40) * torch.sin(2 * np.pi * 200 * time)
    loud = torch.zeros(1, 4 * RATE)
    for beat in (1.0, 1.5, 2.0, 2.5):
        loud[0, round(beat * RATE) :][: len(hit)] += 0.8 * hit
    before = loud.clone()
    before[0, round(0.3 * RATE) :][: len(hit)] += 0.06 * hit
    beats = np.arange(0.5, 4.0, 0.5)
    hiss = loud + 3e-4 * torch.randn(loud.shape, generator=draw)
    for wav in (loud, before, hiss):
        assert start_offset(beats, wav, RATE).onset_s == pytest.approx(1.0, abs=0.02)
    assert strong_onsets(before, RATE, strength=0.1)[0] == pytest.approx(0.3, abs=0.025)


def test_known_starts():
    beats = [1.0, 1.5, 2.0]
    assert start_offset_of_times(beats, [1.6, 1.9]) == pytest.approx((0.1, 0.2, 1.6))
    assert start_offset_of_times(beats, [0.4]) == pytest.approx((-0.1, -0.2, 0.4))
    assert start_offset_of_times(beats, [3.0]) == pytest.approx((0.0, 0.0, 3.0))
    assert start_offset_of_times([1.0, 3.0, 4.0], [1.5]) == pytest.approx((0.5, 0.25, 1.5))


# --- empty and malformed -------------------------------------------------------------------------


@pytest.mark.parametrize("tracked", [[], [1.0]])
def test_undefined_is_nan_not_a_number(tracked):
    assert np.isnan(tempo_error_of_times(BEATS, tracked)).all()
    assert np.isnan(beat_drift_of_times(BEATS, tracked)).all()


def test_too_few_for_a_drift():
    assert np.isnan(beat_drift_of_times(BEATS, BEATS[:3])).all()
    assert not np.isnan(beat_drift_of_times(BEATS, BEATS[:4])).any()
    assert np.isnan(start_offset_of_times(BEATS, [])).all()


def test_silence_is_not_listened_to():
    def never(wav, sample_rate):
        raise AssertionError

    assert continuity(BEATS, SILENCE, RATE, never) == (0.0, 0.0)
    assert np.isnan(tempo_error(BEATS, SILENCE, RATE, never)).all()
    assert np.isnan(beat_drift(BEATS, SILENCE, RATE, never)).all()
    assert np.isnan(start_offset(BEATS, SILENCE, RATE)).all()


def test_very_short_audio():
    short = CLICK[:, round(BEATS[0] * RATE) :][:, :600]
    found = start_offset([0.0, 0.5 * 600 / RATE], short, RATE)
    assert np.isnan(found).all() or abs(found.seconds) < 0.02
    assert np.isnan(tempo_error([0.0, 0.01], short, RATE)).all()


AUDIO = (continuity, tempo_error, beat_drift, start_offset)
TIMES = (continuity_of_times, tempo_error_of_times, beat_drift_of_times)


@pytest.mark.parametrize("measure", AUDIO)
@pytest.mark.parametrize(
    "beats, wav, rate, message",
    [
        ([], CLICK, RATE, "beat_times is empty.*no score"),
        ([1.0], CLICK, RATE, "holds one beat.*at least two"),
        ([2.0, 1.0], CLICK, RATE, "beat_times does not increase"),
        (BEATS + 30, CLICK, RATE, "outside of the recording of 8 s"),
        (BEATS, CLICK * float("nan"), RATE, "NaN or infinite"),
        (BEATS, CLICK[None], RATE, r"shape \(1, 1, 256000\)"),
        (BEATS, CLICK, 5, "sample rate 5"),
    ],
)
def test_audio_errors(unchecked_types, measure, beats, wav, rate, message):
    with pytest.raises(StageLiteError, match=message):
        measure(beats, wav, rate)


@pytest.mark.parametrize("measure", TIMES)
@pytest.mark.parametrize(
    "beats, tracked, message",
    [
        ([], BEATS, "beat_times is empty"),
        ([1.0], BEATS, "holds one beat"),
        (BEATS, [1.0, float("inf")], "tracked_times has shape"),
        (BEATS, [2.0, 1.0], "tracked_times does not increase"),
        ("abc", BEATS, "expected a list of seconds"),
    ],
)
def test_times_errors(unchecked_types, measure, beats, tracked, message):
    with pytest.raises(StageLiteError, match=message):
        measure(beats, tracked)


def test_other_errors(unchecked_types):
    with pytest.raises(StageLiteError, match="strength is 0"):
        start_offset(BEATS, CLICK, RATE, strength=0)
    with pytest.raises(StageLiteError, match="onset_times does not increase"):
        start_offset_of_times(BEATS, [2.0, 1.0])
    with pytest.raises(StageLiteError, match="tracked beats does not increase"):
        tempo_error(BEATS, CLICK, RATE, lambda wav, rate: np.array([2.0, 1.0]))


def test_files_are_in_reach():
    assert stage_lite.metrics.beats.tempo_error is tempo_error
    assert stage_lite.metrics.tempo.tempo_error is tempo_error
    for name in ("continuity", "drift", "start", "tempo", "trackers", "bootstrap"):
        assert name in dir(stage_lite.metrics) and getattr(stage_lite.metrics, name).__doc__
