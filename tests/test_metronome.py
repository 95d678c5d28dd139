"""metronome.py: tempo curves, clicks, beat labels."""

import inspect

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage_lite.errors import StageLiteError
from stage_lite.metronome import (
    beat_grid,
    check_times,
    click_track,
    every_nth,
    read_beats,
    tempo_of,
    track_beats,
)


def test_click_is_stages():
    beats, downbeats = beat_grid(137.0, duration_s=4.0)
    shape = {"sr": 32000, "click_freq": 1000.0, "click_duration": 0.1, "length": 4 * 32000}
    ours = click_track(beats, downbeats, duration_s=4.0, sample_rate=32000)
    theirs = librosa.clicks(times=beats, **shape) + librosa.clicks(times=downbeats, **shape)
    assert ours.shape == (1, 4 * 32000) and ours.dtype == torch.float32
    assert np.allclose(ours[0].numpy(), theirs.clip(-1, 1), atol=1e-6)


def test_downbeats_are_louder_until_they_clip():
    track = click_track(np.array([0.0, 0.5]), np.array([0.5]), duration_s=1.0, sample_rate=32000)
    plain, accent = track[0, :3200], track[0, 16000:19200]
    assert torch.allclose(accent, (2 * plain).clamp(-1, 1), atol=1e-6)
    assert float(track.abs().max()) <= 1.0


def test_click_track_edges():
    assert click_track([], duration_s=0.0).shape == (1, 0)
    assert not click_track(np.zeros(0), None, duration_s=1.0).any()
    outside = click_track(np.array([-0.2, 1.0, 7.0]), duration_s=1.0)
    assert not outside.any() and outside.shape == (1, 32000)
    cut = click_track(np.array([0.95]), duration_s=1.0, sample_rate=8000)
    assert cut.shape == (1, 8000) and cut[0, 7601:].abs().max() > 0.5
    for beats, duration, message in [
        ([0.0, 0.5, 0.5], 1.0, "beat_times does not increase: entry 1 is 0.5 s"),
        ([0.0, float("nan")], 1.0, "expected one list of finite times"),
        ([[0.0]], 1.0, r"shape \(1, 1\)"),
        ([0.0], -1.0, "expected at least 0"),
    ]:
        with pytest.raises(StageLiteError, match=message):
            inspect.unwrap(click_track)(np.array(beats), duration_s=duration)


@pytest.mark.parametrize("beats_per_bar", [1, 3, 4, 5])
def test_steady_grid(beats_per_bar):
    beats, downbeats = beat_grid(120.0, beats_per_bar, duration_s=10.0)
    assert np.allclose(beats, np.arange(20) * 0.5)
    assert np.allclose(downbeats, beats[::beats_per_bar])


def test_start_offset_counts_both_ways():
    beats, downbeats = beat_grid(60.0, 4, duration_s=8.0, start_s=2.5)
    assert np.allclose(beats, 0.5 + np.arange(8)) and np.allclose(downbeats, [2.5, 6.5])
    beats, downbeats = beat_grid(60.0, 3, duration_s=5.0, start_s=-0.25)
    assert np.allclose(beats, 0.75 + np.arange(5)) and np.allclose(downbeats, [2.75])
    curve = [(0.0, 60.0), (9.0, 60.0)]
    for start in (-0.25, 2.5, 8.0, 11.0):
        for one, two in zip(
            beat_grid(60.0, 3, duration_s=8.0, start_s=start),
            beat_grid(curve, 3, duration_s=8.0, start_s=start),
            strict=True,
        ):
            assert np.allclose(one, two, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(st.floats(30.0, 300.0), min_size=1, max_size=5),
    start_s=st.floats(-3.0, 12.0),
    duration_s=st.floats(0.0, 20.0),
)
def test_beats_sit_where_the_integral_of_the_tempo_is_whole(points, start_s, duration_s):
    curve = [(3.0 * i, bpm) for i, bpm in enumerate(points)]
    times, tempi = zip(*curve, strict=True)
    beats, downbeats = beat_grid(curve, 4, duration_s=duration_s, start_s=start_s)
    assert set(downbeats) <= set(beats)
    assert np.all(np.diff(beats) > 0.19) and np.all((beats >= 0) & (beats < duration_s))
    for beat in beats[:: max(1, len(beats) // 4)]:
        fine = np.linspace(start_s, beat, 20001)
        tempo = np.interp(fine, times, tempi)
        phase = np.sum(np.diff(fine) * (tempo[1:] + tempo[:-1])) / 120
        assert abs(phase - round(phase)) < 1e-3
        assert (round(phase) % 4 == 0) == (beat in downbeats)


def test_tempo_as_a_function_equals_its_points():
    def ramp(t):
        return 60.0 + 6.0 * t

    one, _ = beat_grid(ramp, duration_s=10.0)
    two, _ = beat_grid([(0.0, 60.0), (10.0, 120.0)], duration_s=10.0)
    assert np.allclose(one, two, atol=1e-6)
    assert len(one) == 15  # 90 bpm on average; beat 15 falls on the end


@pytest.mark.parametrize(
    "bpm, rest, message",
    [
        (0.0, {}, "a tempo of 0 bpm; expected 10 to 1000"),
        (float("nan"), {}, "a tempo of nan bpm"),
        ([(0.0, 100.0), (1.0, -3.0)], {}, "a tempo of -3 bpm|a tempo of"),
        ([], {}, "expected a number, a list"),
        ([(1.0, 100.0), (0.0, 90.0)], {}, "tempo curve does not increase"),
        (100.0, {"duration_s": -1.0}, "duration_s = -1.0; expected at least 0"),
        (100.0, {"beats_per_bar": 0}, "whole number from 1"),
        (100.0, {"start_s": float("inf")}, "expected a time in seconds"),
    ],
)
def test_grids_that_cannot_be(bpm, rest, message):
    with pytest.raises(StageLiteError, match=message):
        inspect.unwrap(beat_grid)(bpm, **({"duration_s": 4.0} | rest))


def test_tempo_and_bars_of_beats():
    beats, _ = beat_grid(90.0, duration_s=5.0)
    assert abs(tempo_of(beats) - 90.0) < 1e-9
    assert tempo_of([0.3]) is None
    assert np.allclose(every_nth(beats, 3), beats[::3])
    assert len(check_times(None, "x")) == 0


@pytest.mark.parametrize(
    "text, downbeats",
    [
        ("0.5\n1.0\n1.5\n", None),
        ("# by hand\n0.5 1\n1.0 2\n\n1.5\t1\n", [0.5, 1.5]),
        ("0.5,4\n1.0,1\n1.5,2", [1.0]),
        ('{"beats": [0.5, 1.0, 1.5]}', None),
        ('{"beats": [0.5, 1.0, 1.5], "downbeats": [1.0]}', [1.0]),
    ],
)
def test_label_files(tmp_path, text, downbeats):
    file = tmp_path / "song.beats"
    file.write_text(text)
    beats, found = read_beats(file)
    assert np.allclose(beats, [0.5, 1.0, 1.5])
    assert found is None if downbeats is None else np.allclose(found, downbeats)


@pytest.mark.parametrize(
    "text, message",
    [
        ("0.5\nsoon\n", "line 2, is 'soon'"),
        ("1.0\n0.5\n", "does not increase"),
        ("{}", "expected JSON with"),
        ("{", "no beat label file"),
    ],
)
def test_broken_label_files(tmp_path, text, message):
    file = tmp_path / "song.beats"
    file.write_text(text)
    with pytest.raises(StageLiteError, match=message) as error:
        read_beats(file)
    assert str(file) in str(error.value)
    with pytest.raises(StageLiteError, match="could not be read"):
        read_beats(tmp_path / "none.beats")


def test_clicks_are_tracked_where_they_are():
    beats, _ = beat_grid(120.0, duration_s=10.0, start_s=0.25)
    found = track_beats(click_track(beats, duration_s=10.0, sample_rate=16000), 16000)
    assert len(found) > 12
    assert np.median([np.abs(beats - t).min() for t in found]) < 0.05
    assert len(track_beats(torch.zeros(1, 16000), 16000)) == 0
