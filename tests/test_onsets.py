"""Onsets are found where clicks and hits were put; alignment is 1 on the grid, 0 by chance."""

import numpy as np
import pytest
import torch

from stage_lite.errors import StageLiteError
from stage_lite.metronome import beat_grid, click_track
from stage_lite.onsets import (
    beat_lock,
    beat_position,
    beats_hit,
    best_subdivision,
    detect_onsets,
)

HZ = 32000


@pytest.mark.parametrize("bpm", [60, 120, 190])
@pytest.mark.parametrize("sample_rate", [22050, 32000, 48000])
def test_clicks_are_found_where_they_are(bpm, sample_rate):
    beats, downbeats = beat_grid(bpm, duration_s=4.0, start_s=0.2)
    click = click_track(beats, downbeats, duration_s=4.0, sample_rate=sample_rate)
    found = detect_onsets(click, sample_rate)
    assert len(found) == len(beats)
    assert np.abs(found - beats).max() < 0.012


def test_hits_of_noise_of_different_loudness():
    rng = np.random.default_rng(0)
    times = np.array([0.2, 0.5, 0.75, 1.2, 1.4])
    wav = np.zeros(2 * HZ)
    for time, gain in zip(times, [1.0, 0.1, 0.5, 0.05, 0.3], strict=True):
        hit = gain * rng.uniform(-1, 1, 3200) * np.exp(-np.arange(3200) / 600)
        wav[int(time * HZ) : int(time * HZ) + 3200] += hit
    wav = torch.tensor(wav, dtype=torch.float32)[None]
    found = detect_onsets(wav, HZ)
    assert len(found) == len(times) and np.abs(found - times).max() < 0.015
    louder = detect_onsets(wav * 0.25, HZ)
    np.testing.assert_allclose(louder, found, atol=0.006)  # what counts is the shape


def test_a_steady_tone_has_no_onsets_after_its_beginning():
    tone = torch.sin(2 * torch.pi * 220 * torch.arange(2 * HZ) / HZ)[None] * 0.5
    assert not (detect_onsets(tone, HZ) > 0.05).any()


def test_silence_and_a_few_samples_have_none():
    assert len(detect_onsets(torch.zeros(1, HZ), HZ)) == 0
    assert len(detect_onsets(torch.ones(1, 10), HZ)) == 0
    with pytest.raises(StageLiteError, match="sensitivity is 0; expected more than 0"):
        detect_onsets(torch.zeros(1, HZ), HZ, sensitivity=0)


def test_positions_are_in_beats_and_end_half_a_beat_outside():
    beats = np.array([1.0, 1.5, 2.5])  # the tempo changes
    position = beat_position([0.8, 1.0, 1.25, 1.4, 2.0, 2.6, 9.0], beats)
    np.testing.assert_allclose(position, [-0.4, 0, -0.5, -0.2, -0.5, 0.1], atol=1e-9)
    with pytest.raises(StageLiteError, match="got 1 beats; expected at least 2"):
        beat_position([0.0], [1.0])


def test_alignment_is_one_on_the_grid_zero_by_chance_and_minus_one_between():
    beats, _ = beat_grid(110, duration_s=60.0, start_s=0.3)
    step = beats[1] - beats[0]
    assert beat_lock(beats + step / 2, beats) == pytest.approx(1)
    assert beat_lock(beats, beats, 4) == pytest.approx(1)
    assert beat_lock(beats + step / 4, beats, 2) == pytest.approx(-1)
    chance = np.sort(np.random.default_rng(0).uniform(0, 60, 3000))
    for n in (1, 2, 3, 4):
        assert abs(beat_lock(chance, beats, n)) < 0.05
    assert beat_lock([], beats) is None
    with pytest.raises(StageLiteError, match="subdivision is 0; expected a whole number from 1"):
        beat_lock([], beats, 0)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_best_subdivision_finds_how_the_beat_is_divided(n):
    beats, _ = beat_grid(100, duration_s=20.0, start_s=0.3)
    step = beats[1] - beats[0]
    onsets = np.sort(np.concatenate([beats[:-1] + step * i / n for i in range(n)]))
    found = best_subdivision(onsets, beats)
    assert found % n == 0  # a finer grid fits beats alone just as well
    assert beat_lock(onsets, beats, found) > 0.99


def test_beats_hit():
    assert beats_hit([1.0, 2.04, 3.06], [1.0, 2.0, 3.0, 4.0]) == 0.5
    assert beats_hit([], [1.0]) == 0.0
    with pytest.raises(StageLiteError, match="got no beats"):
        beats_hit([1.0], [])


def test_hiss_begins_no_notes():
    """What a small codec leaves between the hits is not taken for more hits."""
    beats, _ = beat_grid(100, duration_s=4.0, start_s=0.2)
    click = 0.7 * click_track(beats, duration_s=4.0, sample_rate=HZ)
    hiss = torch.randn(click.shape, generator=torch.Generator().manual_seed(0))
    found = detect_onsets(click + 0.005 * hiss, HZ)
    assert len(found) == len(beats) and np.abs(found - beats).max() < 0.012
