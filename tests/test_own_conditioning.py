"""chords.py, condition_check.py, pocket.py: what a reader makes a condition of one's own with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from songs import RATE, loudness, own_song

import stage_lite as sl
from stage_lite import conditions
from stage_lite.chords import chord_pitches, chord_track
from stage_lite.condition_check import MOST, check_condition, leak
from stage_lite.conditions import condition
from stage_lite.errors import StageLiteError
from stage_lite.examples import shuffle_contexts
from stage_lite.pocket import ShardSong, pocket_windows
from stage_lite.shards import Shard, ShardWriter, encode_song
from stage_lite.song import Window, open_songs

ROOT = Path(sl.__file__).parents[1]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(conditions, "_CONDITIONS", dict(conditions._CONDITIONS))


# --- chords --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, pitches",
    [
        ("C", (0, 4, 7)),
        ("F#m7", (6, 9, 1, 4)),
        ("Bbsus4", (10, 3, 5)),
        ("Am7/E", (4, 9, 0, 4, 7)),
        ("C6/9", (0, 4, 7, 9, 2)),
        ("Cb", (11, 3, 6)),
        ("Dmaj7", (2, 6, 9, 1)),
        ("N.C.", ()),
    ],
)
def test_pitches_of_chords(name, pitches):
    assert chord_pitches(name) == pitches


@pytest.mark.parametrize("name", ["H", "Cfoo", "c", "7", "Am7/", "A/x"])
def test_unknown_chords_are_named(name):
    with pytest.raises(StageLiteError, match="expected a root such as C, F# or Eb"):
        chord_pitches(name)


def test_all_chords_of_the_shipped_songs_are_known():
    songs = [json.loads(f.read_text()) for f in (ROOT / "data_samples/songs").glob("*/song.json")]
    names = {name for song in songs for _, name in song["chords"]}
    for file in (ROOT / "data_samples/tokens").glob("*.safetensors"):
        names |= {name for song in Shard(file).songs.values() for _, name in song["chords"]}
    assert len(names) > 100
    for name in names:
        assert 3 <= len(chord_pitches(name)) <= 5


def hertz(pitch):
    return 440.0 * 2 ** ((60 + pitch - 69) / 12)


def test_the_track_holds_the_notes_of_each_chord_while_it_lasts():
    chords = [(0.0, "Am7"), (2.0, "Bb/D"), (4.0, "N.C.")]
    track = chord_track(chords, start_s=1.0, duration_s=4.0, sample_rate=RATE)
    assert track.shape == (1, 4 * RATE) and float(track.abs().max()) <= 1
    first, second, third = (track[:, round(a * RATE) : round(b * RATE)]
                            for a, b in ((0, 1), (1, 3), (3, 4)))  # fmt: skip
    for part, name, other in ((first, "Am7", 11), (second, "Bb/D", 0)):
        for pitch in chord_pitches(name):
            assert loudness(part, hertz(pitch)) > 0.02, (name, pitch)
        assert loudness(part, hertz(other)) < 0.01
    assert not third.any()
    assert not chord_track([], duration_s=1.0, sample_rate=RATE).any()
    assert not chord_track(chords[1:], duration_s=1.0, sample_rate=RATE).any()  # not yet begun


def test_the_track_of_a_window_is_that_part_of_the_song_where_chords_begin_in_it():
    chords = [(0.5, "C"), (1.0, "G7")]
    whole = chord_track(chords, duration_s=3.0, sample_rate=RATE)
    part = chord_track(chords, start_s=1.0, duration_s=2.0, sample_rate=RATE)
    assert torch.allclose(part, whole[:, RATE:], atol=1e-6)


# --- leak and contract ---------------------------------------------------------------------------


def test_leak_is_high_for_copies_and_low_for_others():
    one, other = torch.randn(2, 1, 6000, generator=torch.Generator().manual_seed(0))
    assert leak(one, one) == pytest.approx(1)
    assert leak(-0.01 * one, one) == pytest.approx(1)
    late = torch.nn.functional.pad(one, (1500, 0))[:, :6000]
    assert 0.8 < leak(late, one) < 0.9 and leak(one, late) == pytest.approx(leak(late, one))
    assert 0.6 < leak(one + other, one) < 0.8
    assert leak(other, one) < 0.1
    assert leak(one[:, :3000], one) == pytest.approx(0.5**0.5, abs=0.02)  # a shorter context
    assert leak(one * 0, one) == leak(one, one * 0) == 0


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    for number in range(3):
        own_song(root, number)
    return open_songs(root, sample_rate=RATE)


def test_a_condition_is_accepted_with_what_was_heard(songs):
    report = check_condition("click", songs, window_s=2.0, n=4)
    assert (report.name, report.windows, report.spoke) == ("metronome", 4, 4)
    assert 0 <= report.leak < MOST and -60 < report.level_db < 0
    assert str(report).startswith("'metronome' is a condition: heard in 4 of 4 windows, -")


def whole(song, window):
    return song.stem(window.target, window.start_s, window.duration_s)


FUNCTIONS = {
    "holds the target: 1.00 of it": whole,
    r"gave 8000 samples .* expected 16000.* at 8000 Hz": lambda s, w: whole(s, w)[:, :8000],
    "no finite numbers": lambda s, w: whole(s, w) * float("nan"),
    "reaches 1[.]": lambda s, w: 15 * s.stem("keys", w.start_s, w.duration_s),
    "two different wavs": lambda s, w: 0.1 * torch.rand(1, 16000),
    "silent in all 4 windows": lambda s, w: torch.zeros(1, 16000),
    "silent in all 4 windows .*or None": lambda s, w: None,
    "the same wav for 4 different windows": lambda s, w: 0.1 * torch.ones(1, 16000),
    "raised KeyError in the window of song 'song": lambda s, w: {}["nothing"],
    "returned shape": lambda s, w: torch.zeros(16000),
}


@pytest.mark.parametrize("message", list(FUNCTIONS))
def test_what_is_no_condition_is_named(songs, message):
    condition("odd")(FUNCTIONS[message])
    with pytest.raises(StageLiteError, match=message):
        check_condition("odd", songs, window_s=2.0, n=4)


def test_the_target_itself_and_a_mix_with_it_are_leaks(songs):
    with pytest.raises(StageLiteError, match="holds the target"):
        check_condition("self", songs, window_s=2.0, n=2)

    @condition("with-the-target")
    def with_the_target(song, window):
        return song.mix(["drums", "bass"], window.start_s, window.duration_s)

    with pytest.raises(StageLiteError, match=r"holds the target: 0\.[67]\d of it stands"):
        check_condition("with-the-target", songs, window_s=2.0, n=2)
    assert check_condition("backing", songs, window_s=2.0, n=2).leak < 0.1


def test_one_window_that_sounds_alike_by_chance_is_no_leak(songs):
    @condition("once")
    def once(song, window):
        same = window.start_s < 1.5
        name = window.target if same else "keys"
        return song.stem(name, window.start_s, window.duration_s)

    report = check_condition("once", songs, window_s=2.0, n=8, seed=1)
    assert report.leak < 0.1


# --- windows of shards ---------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path, tiny_model):
    songs_folder, out = tmp_path / "songs", tmp_path / "shards"
    for number in range(4):
        own_song(songs_folder, number, "test" if number == 3 else "train", silent={"keys"})
    with ShardWriter(out, card=tiny_model.card, songs_per_shard=3) as writer:
        for song in open_songs(songs_folder, sample_rate=tiny_model.sample_rate):
            writer.add(*encode_song(tiny_model.codec, song, ["drums", "bass", "keys"]))
    return out


def test_a_song_of_a_shard_is_a_song(shards, tiny_model):
    shard = Shard(sorted(shards.glob("*.safetensors"))[0])
    song = ShardSong(shard, "song0", tiny_model)
    assert song.stem_names == ["drums", "bass"], "keys are silent, mixes and clicks are no stems"
    assert song.beats[:3].tolist() == [0.0, 0.5, 1.0] and song.chords[0] == (0.0, "Am7")
    assert (song.bpm, song.family, song.split) == (120.0, "bossa nova", "train")
    assert song.text("drums") == "drums, bossa nova" and song.duration_s == pytest.approx(6.0)
    wav = song.stem("drums", 1.0, 0.5)
    codes = shard.codes("song0", "drums", 50, 75)
    assert torch.equal(wav, tiny_model.decode(codes[None])[0])
    assert song.stem("drums", 1.013, 0.5).shape == wav.shape
    assert song.stem("drums", 5.9, 0.5).shape == wav.shape  # ends in silence
    assert song.mix(None, 0.0, 0.5).shape == wav.shape
    with pytest.raises(StageLiteError, match="has no stem 'keys' that is heard; it has"):
        song.stem("keys")
    with pytest.raises(StageLiteError, match="at least 0"):
        song.stem("drums", -1.0, 0.5)
    shard.card = 99
    with pytest.raises(StageLiteError, match="codes of the model's own codec"):
        ShardSong(shard, "song0", tiny_model)


def test_windows_hold_the_condition_of_that_place(shards, tiny_model):
    @condition("when")
    def when(song, window):
        time = torch.arange(round(window.duration_s * song.sample_rate)) / song.sample_rate
        return (0.1 * torch.sin(2 * np.pi * (200 + 50 * window.start_s) * time))[None]

    settings = {"n": 5, "window_s": 1.0, "folder": shards, "progress": False}
    windows = pocket_windows(tiny_model, "when", "bass", **settings)
    assert len(windows) == 5 and {w.song_id for w in windows} <= {"song0", "song1", "song2"}
    for window in windows:
        assert window.condition == "when" and window.target_name == "bass"
        song = ShardSong(Shard(next(f for f in shards.glob("*.safetensors")
                                    if window.song_id in Shard(f).songs)),
                         window.song_id, tiny_model)  # fmt: skip
        wav = when(song, Window(song, window.start_s, 1.0, "bass", 0))
        assert torch.equal(window.context_codes, tiny_model.encode(wav, song.sample_rate)[0])
        first = round(window.start_s * 50)
        expected = song.shard.codes(window.song_id, "bass", first, first + 50)
        assert torch.equal(window.target_codes, expected)
    again = pocket_windows(tiny_model, "when", "bass", **settings)
    assert [w.start_s for w in again] == [w.start_s for w in windows]
    other = pocket_windows(tiny_model, "when", "bass", **settings, seed=1)
    assert [w.start_s for w in other] != [w.start_s for w in windows]
    held_out = pocket_windows(tiny_model, "when", "bass", **settings | {"n": 3}, split="test")
    assert {w.song_id for w in held_out} == {"song3"}
    with pytest.raises(StageLiteError, match="another song"):
        shuffle_contexts(held_out)


def test_the_bar_ends_full(shards, tiny_model, capsys):
    pocket_windows(tiny_model, "click", "drums", n=3, window_s=0.5, folder=shards)
    assert "3/3" in capsys.readouterr().err


def test_windows_can_be_trained_on(shards, tiny_base):
    windows = pocket_windows(
        tiny_base, "click", "drums", n=4, window_s=0.5, folder=shards, progress=False
    )
    run = sl.finetune(tiny_base, windows, steps=2, batch_size=2, warmup_steps=1, progress=False)
    assert run.step == 2 and np.isfinite(run.log[-1]["loss"])


def test_windows_with_nothing_to_say_are_passed_over(shards, tiny_model):
    @condition("late-only")
    def late_only(song, window):
        if window.start_s < 2.0:
            return None
        return 0.1 * torch.ones(1, round(window.duration_s * song.sample_rate))

    settings = {"window_s": 1.0, "folder": shards, "progress": False}
    windows = pocket_windows(tiny_model, "late-only", "drums", n=3, **settings)
    assert len(windows) == 3 and min(w.start_s for w in windows) >= 2.0
    condition("never")(lambda song, window: None)
    with pytest.raises(StageLiteError, match="'never' had something to say in 0 of 12 windows"):
        pocket_windows(tiny_model, "never", "drums", n=3, **settings)
    condition("short")(lambda song, window: 0.1 * torch.ones(1, 99))
    with pytest.raises(StageLiteError, match="returned 99 samples for a window of 1.0 s; expected"):
        pocket_windows(tiny_model, "short", "drums", n=3, **settings)
