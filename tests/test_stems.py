"""stems.py and song.py: every layout, windows, augmentation, the sample songs."""

import json
import shutil

import numpy as np
import pytest
import torch
from songs import (
    RATE,
    TONES,
    heard_stems,
    loudness,
    midi_file,
    moisesdb_song,
    musdb18_song,
    own_song,
    slakh_song,
    tone,
)

from stage_lite.audio import save_audio
from stage_lite.augment import AugmentedSong, draw_augmentation, stretch, transpose
from stage_lite.codec import CodecConfig, build_codec, encode
from stage_lite.errors import StageLiteError
from stage_lite.files import write_registry
from stage_lite.metronome import beat_grid, click_track
from stage_lite.midi_beats import midi_beats
from stage_lite.shards import ShardDataset, ShardWriter, encode_song
from stage_lite.song import label_beats, open_samples, open_songs, split_of
from stage_lite.stems import StemDataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    for number in range(3):
        own_song(root, number, split="test" if number == 2 else "train")
    return root


def dataset(folder, target="drums", **options):
    return StemDataset(folder, target, **({"window_s": 2.0, "sample_rate": RATE} | options))


# layouts


def test_own_layout(folder):
    song = open_songs(folder, sample_rate=RATE)[0]
    assert (song.id, song.split, song.duration_s, song.bpm) == ("song0", "train", 6.0, 120.0)
    assert song.stem_names == list(TONES) and song.beats_per_bar == 4
    assert (song.groove, song.family, song.key) == ("BossaNova", "bossa nova", "Am")
    assert song.chords == [(0.0, "Am7"), (2.0, "Bb/D")]
    assert np.allclose(song.beats, np.arange(12) / 2) and np.allclose(song.downbeats, [0, 2, 4])
    assert song.text("drums") == "drums, bossa nova" and song.text("bass") == "bass, bossa nova"
    for name, hz in TONES.items():
        assert abs(loudness(song.stem(name), hz) - 0.1) < 0.01
    assert heard_stems(song.mix()) == set(TONES)
    assert repr(song) == "Song('song0', drums, bass, keys, guitar, other)"


def test_moisesdb_layout(tmp_path):
    moisesdb_song(tmp_path)
    (tmp_path / "moisesdb_v0.1" / "track-0" / "beats.txt").write_text("0.5 1\n1.0 2\n1.5 3\n2.0 1")
    (song,) = open_songs(tmp_path, sample_rate=RATE)
    assert sorted(song.stem_names) == ["bass", "drums", "keys", "other", "vocals"]
    drums = song.stem("drums")  # two tracks, summed
    assert loudness(drums, 200.0) > 0.09 and loudness(drums, 250.0) > 0.09
    assert loudness(song.stem("other"), 900.0) < 0.01  # no recorded click
    assert song.text("drums") == "drums, bossa nova" and song.split is None
    assert np.allclose(song.downbeats, [0.5, 2.0]) and song.beats_per_bar == 3


def test_musdb18_layout(tmp_path):
    musdb18_song(tmp_path, "train", "A - 1")
    musdb18_song(tmp_path, "test", "B - 2")
    songs = open_songs(tmp_path, sample_rate=RATE)
    assert [(song.id, song.split) for song in songs] == [("B - 2", "test"), ("A - 1", "train")]
    song = songs[0]
    assert sorted(song.stem_names) == ["bass", "drums", "other", "vocals"]
    assert song.duration_s == 6.0 and song.text("bass") == "bass"
    assert song.stem("drums", 1.0, 2.0).shape == (1, 2 * RATE)  # stereo 11 kHz -> mono 8 kHz
    assert abs(loudness(song.stem("drums", 1.0, 2.0), 200.0) - 0.1) < 0.01


def test_slakh_layout(tmp_path):
    slakh_song(tmp_path)
    (song,) = open_songs(tmp_path, sample_rate=RATE)
    assert sorted(song.stem_names) == ["bass", "drums", "keys", "other"]
    assert song.split == "valid" and heard_stems(song.stem("keys")) == {"keys"}
    assert np.allclose(song.beats, np.arange(10) * 0.6)  # 100 bpm of the MIDI file
    assert np.allclose(song.downbeats, [0.0, 1.8, 3.6, 5.4]) and song.beats_per_bar == 3


def test_a_folder_may_be_one_song_and_layouts_may_mix(tmp_path):
    own_song(tmp_path)
    musdb18_song(tmp_path, "more")
    slakh_song(tmp_path)
    assert len(open_songs(tmp_path / "song0")) == 1
    assert len(open_songs(tmp_path)) == 3


def test_equal_song_names_are_told_apart(tmp_path):
    musdb18_song(tmp_path, "a", "Song")
    musdb18_song(tmp_path, "b", "Song")
    assert [song.id for song in open_songs(tmp_path)] == ["a/Song", "b/Song"]


def test_folders_without_songs(tmp_path):
    with pytest.raises(StageLiteError, match="is no folder"):
        StemDataset(tmp_path / "gone")
    with pytest.raises(StageLiteError, match=r"no songs in .*; expected folders with song.json"):
        StemDataset(tmp_path)
    save_audio(tmp_path / "noise" / "rain.wav", tone(300.0), RATE)
    with pytest.raises(StageLiteError, match=r"no songs in .* none named as a stem: rain.wav"):
        StemDataset(tmp_path)
    (tmp_path / "a.stem.mp4").touch()
    with pytest.raises(StageLiteError, match=r"a.stem.mp4 could not be read as MP4"):
        StemDataset(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is no JSON"),
        ("[]", "holds a list; expected a JSON object"),
        ("{}", 'has no "stems"'),
        ('{"stems": {"drums": {"file": "gone.wav"}}}', r"gone.wav is missing"),
        ('{"stems": {"drums": {"file": "../drums.wav"}}}', "is missing"),
    ],
)
def test_broken_song_json(tmp_path, content, message):
    folder = tmp_path / "song"
    folder.mkdir()
    save_audio(tmp_path / "drums.wav", tone(200.0), RATE)
    (folder / "song.json").write_text(content)
    with pytest.raises(StageLiteError, match=message):
        open_songs(folder)


# songs


def test_parts_of_a_stem(folder):
    song = open_songs(folder, sample_rate=RATE)[0]
    whole = song.stem("bass")
    assert torch.equal(song.stem("bass", 1.5, 2.0), whole[:, 12000:28000])
    after = song.stem("bass", 5.0, 3.0)  # silence after the end
    assert after.shape == (1, 3 * RATE) and not after[:, RATE:].any()
    assert not song.stem("bass", 9.0, 1.0).any()
    assert song.stem("bass", 1.0, 0.0).shape == (1, 0)
    with pytest.raises(StageLiteError, match=r"no stem 'kazoo'; it has \['bass'"):
        song.stem("kazoo")
    with pytest.raises(StageLiteError, match="expected both to be at least 0"):
        song.stem("bass", -1.0, 2.0)


def test_resampled_parts_equal_the_resampled_whole(folder):
    song = open_songs(folder, sample_rate=11025)[0]
    whole, part = song.stem("keys"), song.stem("keys", 2.0, 1.0)
    assert part.shape == (1, 11025)
    assert (whole[:, 22050:33075] - part).abs().max() < 1e-3


def test_a_changed_stem_is_named(folder, tmp_path):
    shutil.copytree(folder / "song0", tmp_path / "song0")
    save_audio(tmp_path / "song0" / "bass.flac", tone(301.0), RATE)
    (song,) = open_songs(tmp_path)
    song.stem("drums", 0.0, 1.0)
    with pytest.raises(StageLiteError, match=r"bass.flac is broken: its sha256"):
        song.stem("bass", 0.0, 1.0)
    open_songs(tmp_path, verify=False)[0].stem("bass", 0.0, 1.0)


def test_samples_are_verified(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "samples")
    write_registry(tmp_path / "samples")
    songs = open_samples(tmp_path / "samples")
    assert [song.id for song in songs] == ["song0", "song1", "song2"]
    assert songs[0].sample_rate == 32000 and songs[0].stem("drums").shape == (1, 6 * 32000)
    labels = tmp_path / "samples" / "song1" / "song.json"
    labels.write_text(labels.read_text().replace("120.0", "121.0"))
    with pytest.raises(StageLiteError, match=r"song1/song.json is broken: its sha256"):
        open_samples(tmp_path / "samples")
    labels.unlink()
    with pytest.raises(StageLiteError, match=r"song1/song.json is missing"):
        open_samples(tmp_path / "samples")
    with pytest.raises(StageLiteError, match="clone it"):
        open_samples(tmp_path / "nowhere")


def test_songs_without_labels_are_tracked_and_say_so(tmp_path, monkeypatch):
    import stage_lite.song as module

    beats, _ = beat_grid(100.0, duration_s=6.0, start_s=0.25)
    monkeypatch.setattr(module, "track_beats", lambda wav, sample_rate: beats)
    monkeypatch.setenv("STAGE_LITE_CACHE", str(tmp_path / "cache"))
    save_audio(tmp_path / "song" / "drums.wav", tone(200.0), RATE)
    (song,) = open_songs(tmp_path)
    with pytest.warns(UserWarning, match=r"every fourth one is taken for a downbeat"):
        assert np.allclose(song.beats, beats)
    assert np.allclose(song.downbeats, beats[::4])
    assert abs(song.bpm - 100) < 1e-6 and song.beats_per_bar == 4
    assert [file.name for file in label_beats(tmp_path)] == ["beats.txt"]
    again = open_songs(tmp_path)[0]
    assert np.allclose(again.beats, beats, atol=1e-3)
    assert np.allclose(again.downbeats, beats[::4], atol=1e-3)
    assert label_beats(tmp_path) == []


def test_split_by_hash_of_the_id(folder):
    songs = open_songs(folder)
    assert split_of(songs[2]) == "test"
    counts = {"train": 0, "valid": 0, "test": 0}
    for number in range(600):
        songs[0].id, songs[0].split = f"unlabelled {number}", None
        counts[split_of(songs[0])] += 1
    assert 430 < counts["train"] < 530 and counts["valid"] > 35 and counts["test"] > 35


def test_midi_beats_follow_tempo_and_metre(tmp_path):
    file = tmp_path / "a.mid"
    file.write_bytes(midi_file([(0, 120.0), (960, 60.0)], [(0, 4, 4), (1920, 6, 8)]))
    beats, downbeats = midi_beats(file, 8.0)
    # two beats at 120, two at 60, then dotted quarters of 1.5 s
    assert np.allclose(beats, [0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 7.5])
    assert np.allclose(downbeats, [0.0, 3.0, 6.0])
    file.write_bytes(midi_file([], []))
    assert len(midi_beats(file, 3.0)[0]) == 6  # 120 bpm where nothing is said
    for content in (b"", b"RIFF" + bytes(20), midi_file([], [])[:-9]):
        file.write_bytes(content)
        if content[:4] == b"MThd":
            continue
        with pytest.raises(StageLiteError, match="could not be read as MIDI"):
            midi_beats(file, 3.0)


# windows


def test_example_holds_the_window(folder):
    for i, example in enumerate(dataset(folder, n=12)):
        assert example.target.shape == example.context.shape == (1, 2 * RATE)
        assert heard_stems(example.target) == {"drums"}
        if example.condition == "mixture":
            assert heard_stems(example.context) and "drums" not in heard_stems(example.context)
        grid = example.beat_times + example.start_s
        assert np.allclose(grid * 2, np.round(grid * 2)) and len(grid) in (4, 5)
        assert np.all((example.beat_times >= 0) & (example.beat_times < 2.0))
        assert example.description == "drums, bossa nova" and example.target_name == "drums"
        assert (example.bpm, example.sample_rate, example.duration_s) == (120.0, RATE, 2.0)
        assert i < 12


def test_example_depends_on_seed_and_i_only(folder):
    one, two = dataset(folder, n=6), dataset(folder, n=6)
    for i in reversed(range(6)):
        a, b = one[i], two[5 - i] if i == -1 else two[i]
        assert torch.equal(a.target, b.target) and torch.equal(a.context, b.context)
    starts = [e.start_s for e in dataset(folder, n=6)]
    assert starts != [e.start_s for e in dataset(folder, n=6, seed=1)]
    assert len(set(starts)) == 6


def test_targets_and_conditions_have_weights(folder):
    data = dataset(
        folder,
        {"drums": 3.0, "bass": 1.0, "keys": 0.0},
        conditions={"metronome": 0.5, "none": 0.5},
        window_s=0.5,
        n=80,
    )
    examples = list(data)
    drums = sum(e.target_name == "drums" for e in examples)
    none = [e for e in examples if e.condition == "none"]
    assert 45 <= drums <= 72 and 25 <= len(none) <= 55
    assert all(e.context is None for e in none)
    assert {e.target_name for e in examples} == {"drums", "bass"}


def test_context_is_cut_as_stage_cuts_it(folder):
    data = dataset(folder, context_s=(0.5, 1.0), whole_context=0.2, n=60)
    lengths = np.array([e.context.shape[1] for e in data]) / RATE
    assert 0.05 < (lengths == 2.0).mean() < 0.4
    assert lengths.min() >= 0.5 and lengths[lengths < 2.0].max() <= 1.0


def test_splits_and_texts(folder):
    assert {e.song_id for e in dataset(folder, split="test", n=5)} == {"song2"}
    assert {song.id for song in dataset(folder, split="train").songs} == {"song0", "song1"}
    texts = {e.description for e in dataset(folder, text=["description", "description_long"], n=12)}
    assert texts == {"drums, bossa nova", "drums, bossa nova, medium tempo"}


def test_silent_targets_are_not_drawn(tmp_path):
    own_song(tmp_path, 0, silent={"drums"})
    folder = own_song(tmp_path, 1)
    half = tone(200.0) * (torch.arange(6 * RATE) >= 3 * RATE)
    save_audio(folder / "drums.flac", half, RATE)
    data = dataset(tmp_path, n=20, verify=False)
    assert all(e.song_id == "song1" and e.start_s > 1.0 for e in data)
    with pytest.raises(StageLiteError, match="no song with stem 'drums' among 1 songs"):
        dataset(tmp_path / "song0")


def test_length(folder):
    assert len(dataset(folder)) == 9 and len(dataset(folder, ["drums", "bass"])) == 18
    with pytest.raises(IndexError):
        dataset(folder, n=3)[3]


@pytest.mark.parametrize(
    "wish, message",
    [
        ({"target": "kazoo"}, r"no song with stem 'kazoo' .* they have \['bass', 'drums'"),
        ({"conditions": ["hum"]}, "unknown condition 'hum'"),
        ({"window_s": -1.0}, "expected more than 0 seconds"),
        ({"context_s": (2.0, 3.0)}, "longest <= window_s"),
        ({"split": "exam"}, "no song with stem 'drums' among 0 songs of split 'exam'"),
        ({"target": {"drums": -1.0}}, "positive weights"),
        ({"conditions": []}, "expected names"),
    ],
)
def test_wishes_that_cannot_be_met(folder, wish, message):
    with pytest.raises(StageLiteError, match=message):
        dataset(folder, **wish)


def test_windows_longer_than_every_song(folder):
    with pytest.raises(StageLiteError, match=r"no window of 60.0 s .* take shorter windows"):
        dataset(folder, window_s=60.0)


# augmentation


def test_stretch_changes_length_and_pitch():
    wav = tone(400.0, 3.0)
    for rate, semitones in [(0.8, 0), (1.2, 0), (1.0, 4), (1.0, -4), (1.1, 3), (0.9, -2)]:
        changed = stretch(wav, RATE, rate, semitones)
        assert changed.shape == (1, round(wav.shape[1] / rate))
        expected_hz = 400.0 * 2 ** (semitones / 12)
        spectrum = np.abs(np.fft.rfft(changed[0].numpy()))
        found_hz = spectrum.argmax() * RATE / changed.shape[1]
        assert abs(found_hz - expected_hz) < 2.0, (rate, semitones)
        middle = changed[:, RATE : -RATE // 2]
        assert abs(float(middle.square().mean().sqrt()) - 0.0707) < 0.01
    assert torch.equal(stretch(wav, RATE), wav)
    assert stretch(torch.zeros(1, 100), RATE, 0.5).shape == (1, 200)


def test_augmented_song_moves_everything_along(folder):
    song = open_songs(folder, sample_rate=RATE)[0]
    view = AugmentedSong(song, 1.25, 2)
    assert (view.duration_s, view.bpm, view.id) == (6.0 / 1.25, 150.0, "song0")
    assert np.allclose(view.beats, song.beats / 1.25)
    assert view.chords == [(0.0, "Bm7"), (1.6, "C/E")]
    assert view.stem("drums", 0.5, 2.0).shape == (1, 2 * RATE)
    assert view.stem("drums").shape == (1, round(4.8 * RATE))
    plain = AugmentedSong(song)
    assert torch.equal(plain.stem("bass", 1.0, 2.0), song.stem("bass", 1.0, 2.0))
    with pytest.raises(StageLiteError, match="expected a rate from 0.25 to 4"):
        AugmentedSong(song, 9.0)


def test_onsets_stay_on_the_beats_when_stretched(tmp_path):
    folder = own_song(tmp_path)
    beats = np.arange(12) / 2
    save_audio(folder / "drums.flac", click_track(beats, duration_s=6.0, sample_rate=RATE), RATE)
    (song,) = open_songs(tmp_path, sample_rate=RATE, verify=False)
    for rate in (0.8, 1.2):
        view = AugmentedSong(song, rate, 3)
        wav = view.stem("drums", 0.3, 3.0)[0].numpy()
        expected = view.beats[(view.beats >= 0.45) & (view.beats < 3.15)] - 0.3
        assert len(expected) > 3
        for beat in expected:
            around = slice(round((beat - 0.1) * RATE), round((beat + 0.1) * RATE))
            loudest = np.abs(wav[around]).argmax() / RATE - 0.1
            assert abs(loudest) < 0.02  # seconds


def test_augmented_windows(folder):
    data = dataset(folder, augment=True, conditions=["metronome"], n=16)
    tempi = set()
    for example in data:
        assert example.target.shape == example.context.shape == (1, 2 * RATE)
        assert 96.0 <= example.bpm <= 144.0
        if len(example.beat_times) > 1:
            assert np.allclose(np.diff(example.beat_times), 60 / example.bpm)
        click = click_track(
            example.beat_times, example.downbeat_times, duration_s=2.0, sample_rate=RATE
        )
        assert torch.allclose(example.context, click)  # made anew, not stretched
        tempi.add(round(example.bpm, 3))
    assert 3 <= len(tempi) < 16  # half of the windows keep their tempo


def test_augmentation_is_drawn_as_stage_draws_it():
    rng = np.random.default_rng(0)
    draws = [draw_augmentation(rng) for _ in range(2000)]
    rates = np.array([rate for rate, _ in draws])
    semitones = np.array([shift for _, shift in draws])
    assert abs((rates == 1.0).mean() - 0.5) < 0.05
    assert rates.min() >= 0.8 and rates.max() <= 1.2
    assert set(semitones) == set(range(-4, 5))
    assert abs((semitones == 0).mean() - (0.5 + 0.5 / 9)) < 0.05


@pytest.mark.parametrize(
    "chord, semitones, expected",
    [("Am7/E", 3, "Cm7/G"), ("Bb", 2, "C"), ("F#m7b5", -1, "Fm7b5"), ("N", 4, "N"), ("C", 12, "C")],
)
def test_transposed_chords(chord, semitones, expected):
    assert transpose(chord, semitones) == expected


# stems -> codes


def test_songs_become_token_shards(folder, tmp_path):
    config = CodecConfig(
        sample_rate=RATE,
        ratios=(8, 5, 4, 1),
        n_filters_encoder=2,
        n_filters_decoder=2,
        dimension=8,
        card=16,
    )
    codec = build_codec(config, seed=0)
    for layer in codec.quantizer.vq.layers:
        layer._codebook.embed.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.1)
    songs = open_songs(folder, sample_rate=RATE)
    with ShardWriter(tmp_path, card=16) as writer:
        for song in songs[:2]:
            writer.add(*encode_song(codec, song, ["drums", "bass"]))
    data = ShardDataset(tmp_path, ["drums", "bass"], window_s=2.0, n=20)
    streams = {"drums", "bass", "mix:drums", "mix:drums#1", "mix:bass", "mix:bass#1", "click"}
    assert set(data.shards[0].songs["song0"]["streams"]) == streams
    assert data.shards[0].songs["song0"]["chords"] == [[0.0, "Am7"], [2.0, "Bb/D"]]
    example = data.window("song1", 25, "drums", "click")
    whole = encode(codec, songs[1].stem("drums")[None])[0]
    assert torch.equal(example.target_codes, whole[:, 25:125])
    click = click_track(songs[1].beats, songs[1].downbeats, duration_s=6.0, sample_rate=RATE)
    assert torch.equal(example.context_codes, encode(codec, click[None])[0][:, 25:125])
    assert {e.description for e in data} == {"drums, bossa nova", "bass, bossa nova"}
    with pytest.raises(StageLiteError, match="open the songs with sample_rate=8000"):
        encode_song(codec, open_songs(folder)[0])
    conditions = {"backing": {"bass": 1}, "metronome": 1}
    _, codes, _ = encode_song(codec, songs[0], ["drums", "bass"], conditions, duration_s=2.0)
    assert set(codes) == {"drums", "bass", "click", "backing:bass"}
    assert {c.shape[1] for c in codes.values()} == {100}
    assert torch.equal(codes["drums"], encode(codec, songs[0].stem("drums", 0.0, 2.0)[None])[0])


def test_labels_are_plain_json(folder):
    json.dumps(open_songs(folder)[0].labels)
