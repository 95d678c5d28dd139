"""The maker of songs: charts and splits, labels against sound, and the songs that are shipped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_samples.make.bassline import root_of
from data_samples.make.charts import make_chart, split_of_romans
from data_samples.make.grooves import load_grooves
from data_samples.make.instruments import STEMS
from data_samples.make.make_songs import write_song, write_stem
from data_samples.make.midi import read_midi
from data_samples.make.mma import MmaError, have_mma, run_mma
from data_samples.make.plan import Clock, make_plan, mma_text, split_of_index
from data_samples.make.songs import render_song
from data_samples.make.synth import SAMPLE_RATE, Synth, have_fluidsynth
from stage_lite.files import verify_registry

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"
needs_mma = pytest.mark.skipif(not have_mma(), reason="the program mma is not installed")
needs_tools = pytest.mark.skipif(
    not (have_mma() and have_fluidsynth()),
    reason="mma, fluidsynth or the FluidR3 soundfont is not installed",
)


# charts


def test_equal_seeds_give_equal_charts_and_other_seeds_others():
    charts = [make_chart(str(seed), "train", 16, "rock") for seed in range(20)]
    assert charts == [make_chart(str(seed), "train", 16, "rock") for seed in range(20)]
    assert len({chart.romans for chart in charts}) > 15


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_chart_belongs_to_one_split_whatever_its_key(split):
    for seed in range(30):
        assert split_of_romans(make_chart(str(seed), split, 12, "jazz").romans) == split


@pytest.mark.parametrize("style", ["pop", "jazz", "blues", "waltz", "techno", "country"])
def test_charts_have_the_wanted_bars_and_chords_that_can_be_read(style):
    keys = set()
    for seed in range(60):
        chart = make_chart(str(seed), "train", 2 + seed % 25, style)
        assert chart.n_bars == 2 + seed % 25
        keys.add(chart.key)
        for section in chart.sections:
            for bar in section.bars:
                assert 1 <= len(bar.chords) <= 3
                assert all(0 <= root_of(chord) < 12 for chord in bar.chords)
    assert len(keys) > 15


def test_unknown_split_is_one_clear_error():
    with pytest.raises(ValueError, match="expected a split of.*got 'dev'"):
        make_chart("0", "dev", 8)
    with pytest.raises(ValueError, match="expected a chord"):
        root_of("H7")


# grooves and splits


def test_grooves_are_many_and_no_style_file_is_in_two_splits():
    grooves = load_grooves()
    assert len(grooves) >= 150
    assert {"4/4", "3/4", "6/8"} <= {groove.metre for groove in grooves}
    split_of: dict[str, set[str]] = {}
    for groove in grooves:
        split_of.setdefault(groove.style_file, set()).add(groove.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    share = {s: sum(g.split == s for g in grooves) / len(grooves) for s in ("train", "test")}
    assert 0.8 < share["train"] < 0.9 and 0.06 < share["test"] < 0.14


def test_plans_repeat_and_keep_to_their_split_tempo_and_length():
    assert make_plan(5, seed=3) == make_plan(5, seed=3)
    assert make_plan(5, seed=3) != make_plan(5, seed=4)
    for index in range(40):
        plan = make_plan(index)
        assert plan.groove.split == plan.change_groove.split == split_of_index(index)
        assert 60 <= plan.bpm <= 190
        bar_s = 60 * plan.groove.beats_per_bar / plan.bpm
        assert 22 <= plan.chart.n_bars * bar_s <= 48.5


def test_splits_are_interleaved():
    splits = [split_of_index(index) for index in range(1000)]
    assert [splits.count(s) for s in ("train", "valid", "test")] == [900, 40, 60]


def test_clock_keeps_the_tempo_and_the_beats_are_its_ticks():
    plan = next(plan for plan in map(make_plan, range(100)) if plan.drift == 0)
    clock = Clock(plan)
    steps = np.diff(clock.beat_times_s)
    np.testing.assert_allclose(steps, 60 / plan.bpm)
    ticks = np.arange(clock.n_beats) * plan.groove.beat_ticks
    np.testing.assert_allclose(clock.seconds(ticks), clock.beat_times_s[: clock.n_beats])
    assert clock.beat_times_s[0] == plan.lead_in_s


# files


def test_midi_reader_on_a_file_written_by_hand(tmp_path):
    track = bytes.fromhex(
        "00ff0305" + b"Chord".hex() + "00c005"  # name; program 5
        "00903c40"  # C at 0
        "60" + "4064"  # running status: E, 96 ticks later
        "60" + "3c00"  # C ends at 192
        "8140" + "4000"  # E ends at 384
        "00ff2f00"
    )
    head = b"MThd" + (6).to_bytes(4, "big") + bytes.fromhex("0001000100c0")
    path = tmp_path / "hand.mid"
    path.write_bytes(head + b"MTrk" + len(track).to_bytes(4, "big") + track)
    midi = read_midi(path)
    assert midi.end_ticks == 384 and midi.tracks[0].name == "Chord"
    notes = [(n.start_ticks, n.end_ticks, n.pitch, n.velocity, n.program) for n in
             midi.tracks[0].notes]  # fmt: skip
    assert notes == [(0, 192, 60, 64, 5), (96, 384, 64, 100, 5)]
    path.write_bytes(b"RIFF" + bytes(20))
    with pytest.raises(ValueError, match="expected a MIDI file"):
        read_midi(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_stems_come_back_without_any_delay(tmp_path, suffix):
    """A click stays on its sample, OGG written in blocks included."""
    wav = np.zeros(3 * SAMPLE_RATE + 17, np.float32)
    clicks = [1000, 33_333, 64_000, 95_000]
    wav[clicks] = 0.8
    write_stem(tmp_path / f"x.{suffix}", wav)
    back, rate = soundfile.read(tmp_path / f"x.{suffix}")
    assert rate == SAMPLE_RATE and len(back) == len(wav)
    for click in clicks:
        assert click - 500 + np.argmax(np.abs(back[click - 500 : click + 500])) == click


# sound


def drum_onsets_s(wav: np.ndarray, rate: int) -> np.ndarray:
    """Peaks of the rise of a log spectrum, 5-ms steps."""
    hop, size = rate // 200, 1024
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wav, size // 2), size)[::hop]
    level = np.log1p(200 / size * np.abs(np.fft.rfft(frames * np.hanning(size))))
    rise = np.maximum(0, np.diff(level, axis=0)).sum(1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(rise, 3), 7).max(1)
    peaks = (rise == around) & (rise > rise.mean() + rise.std())
    return (np.flatnonzero(peaks) + 1) * hop / rate


def nearest_s(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.abs(times[:, None] - others[None, :]).min(1)


@needs_mma
def test_mma_errors_are_sentences():
    with pytest.raises(MmaError, match=r"\w"):
        run_mma("Groove NoSuchGrooveAnywhere\n1 C\n")


@needs_mma
def test_mma_text_repeats():
    plan = make_plan(8)
    assert mma_text(plan) == mma_text(plan)
    assert run_mma(mma_text(plan)) == run_mma(mma_text(plan))


@needs_tools
def test_a_song_is_repeatable_and_its_drums_sit_on_its_beats(tmp_path):
    plan = make_plan(3, seed=1, split="test", length_s=(8, 12), style_file="casio/rock2")
    other = make_plan(4, seed=1, split="train", length_s=(4, 6), style_file="stdlib/waltz")
    synth = Synth(len(STEMS))
    song = render_song(plan, synth)
    render_song(other, synth)  # what was played in between leaves no trace
    assert np.array_equal(song.stems, render_song(plan, synth).stems)
    assert song.stems.shape == (5, round(song.labels["duration_s"] * SAMPLE_RATE))
    assert 0.05 < np.abs(song.stems.sum(0)).max() <= 0.9001
    beats = np.array(song.labels["beats"])
    assert np.median(nearest_s(beats, drum_onsets_s(song.stems[0], SAMPLE_RATE))) < 0.025
    assert set(song.labels["downbeats"]) == set(beats[::4].tolist())
    write_song(tmp_path / "song", song, "flac")
    labels = json.loads((tmp_path / "song" / "song.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song"]
    assert list(labels["stems"]) == list(STEMS) and labels["split"] == "test"


@needs_tools
def test_drum_only_grooves_get_a_bass_on_the_kick():
    plan = make_plan(0, seed=2, split="test", length_s=(8, 12), style_file="zoom/trip")
    song = render_song(plan, Synth(len(STEMS)))
    assert plan.groove.drums_only and not song.labels["stems"]["bass"]["silent"]


# what is shipped


def test_shipped_songs_are_whole_varied_and_of_the_test_split():
    verify_registry(SAMPLES)
    index = json.loads((SAMPLES / "index.json").read_text())["songs"]
    assert len(index) >= 12
    assert {"4/4", "3/4", "6/8"} <= {entry["metre"] for entry in index}
    assert min(e["bpm"] for e in index) < 70 and max(e["bpm"] for e in index) > 160
    test_grooves = {groove.name for groove in load_grooves() if groove.split == "test"}
    size = 0
    for entry in index:
        folder = SAMPLES / entry["folder"]
        labels = json.loads((folder / "song.json").read_text())
        assert entry["split"] == "test" and entry["groove"] in test_grooves
        assert split_of_romans(labels["chart"]) == "test"
        assert 20 <= labels["duration_s"] <= 30.5
        assert {"drums", "bass"} <= set(entry["playing"])
        assert {"keys", "guitar"} & set(entry["playing"])
        for stem in STEMS:
            path = folder / labels["stems"][stem]["file"]
            info = soundfile.info(path)
            assert (info.samplerate, info.channels) == (SAMPLE_RATE, 1)
            assert info.frames == round(labels["duration_s"] * SAMPLE_RATE)
            size += path.stat().st_size
    assert size <= 12e6


def test_shipped_drums_sit_on_their_beats():
    distances = []
    for file in sorted((SAMPLES / "songs").glob("*/song.json")):
        labels = json.loads(file.read_text())
        wav, rate = soundfile.read(file.with_name("drums.ogg"), frames=10 * SAMPLE_RATE)
        beats = np.array(labels["beats"])
        beats = beats[beats < 9.9]
        distances.append(np.median(nearest_s(beats, drum_onsets_s(wav, rate))))
    assert max(distances) < 0.025
