"""MoisesDB, MUSDB18 (mp4 and HQ), Slakh2100 and plain folders: what is read from each, as it is."""

import json
import os
import shutil
import unicodedata
import warnings

import numpy as np
import pytest
import real_songs
import soundfile
import torch
from real_songs import HZ, PITCHES, SECONDS, moisesdb, musdb18, musdb18_hq, slakh
from songs import RATE, loudness, own_song, tone

import stage_lite.song
from stage_lite import StageLiteError, StemDataset
from stage_lite.audio import save_audio
from stage_lite.augment import AugmentedSong
from stage_lite.beat_labels import cache_folder
from stage_lite.metrics import trackers
from stage_lite.scan import scan
from stage_lite.song import label_beats, open_songs, split_of
from stage_lite.stem_file import Track, stems_of


@pytest.fixture(scope="module")
def musdb(tmp_path_factory):
    """MUSDB18 as mp4: one file, for encoding takes its time."""
    root = tmp_path_factory.mktemp("musdb")
    musdb18(root, "train", "A Band - A Song")
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STAGE_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake_tracker(monkeypatch, cache):
    """Stands in for librosa: a beat every half second; counts how often it is asked."""
    calls = []

    def track(wav, sample_rate):
        calls.append((wav.shape[-1], sample_rate))
        return np.arange(0.25, wav.shape[-1] / sample_rate, 0.5)

    monkeypatch.setattr(stage_lite.song, "track_beats", track)
    return calls


def plain(root, name, stems=("drums", "bass"), seconds=3.0, level=0.1):
    for place, stem in enumerate(stems):
        save_audio(root / name / f"{stem}.wav", tone(200 + 100 * place, seconds, RATE, level), RATE)
    return root / name


# --- MoisesDB ------------------------------------------------------------------------------------


def test_moisesdb(tmp_path):
    folder = moisesdb(tmp_path, 7)
    for at in (tmp_path, tmp_path / "moisesdb", folder):  # wherever it is pointed at
        (song,) = open_songs(at, sample_rate=RATE)
    assert song.id == "00000000-0000-0000-0000-000000000007" == folder.name
    assert set(song.stem_names) == {
        "drums", "bass", "guitar", "keys", "other", "percussion", "vocals"
    }  # fmt: skip
    heard = {"drums": (200, 250), "keys": (500, 520), "other": (1100, 1150), "bass": (300,)}
    for stem, pitches in heard.items():
        wav = song.stem(stem)
        for hz in pitches:
            assert abs(loudness(wav, hz) - 0.1) < 0.01, (stem, hz)
    assert loudness(song.stem("other"), 900.0) < 0.005  # the recorded click
    assert song.text("drums") == "drums, bossa nova" and song.files.layout == "moisesdb"
    assert song.duration_s == SECONDS and song.split is None


def test_moisesdb_with_files_that_are_missing(tmp_path):
    folder = moisesdb(tmp_path, 1)
    _, overheads = sorted((folder / "drums").iterdir())
    overheads.unlink()
    for file in (folder / "guitar").iterdir():
        file.unlink()
    with pytest.warns(UserWarning, match="1 of 1 songs lack files .* `stage-lite scan`"):
        data = StemDataset(tmp_path, "drums", window_s=1.0, sample_rate=RATE)
    (song,) = data.songs
    assert "guitar" not in song.stem_names
    assert loudness(song.stem("drums"), 200) > 0.09 and loudness(song.stem("drums"), 250) < 0.01
    shutil.rmtree(folder / "bass")
    assert "bass" not in open_songs(tmp_path)[0].stem_names
    for stem in [path for path in folder.iterdir() if path.is_dir()]:
        shutil.rmtree(stem)
    with pytest.raises(StageLiteError, match="none of the files that its labels promise"):
        open_songs(tmp_path)


@pytest.mark.parametrize(
    "stems",
    [[{"stemName": "bass", "tracks": [{}]}], [{"tracks": [{"id": 1}]}], ["bass"], [{"tracks": 3}]],
)
def test_labels_that_are_no_moisesdb(tmp_path, stems):
    (tmp_path / "data.json").write_text(json.dumps({"stems": stems}))
    with pytest.raises(StageLiteError, match=r"data.json lists a stem .* as in MoisesDB"):
        open_songs(tmp_path)


def test_labels_of_something_else(tmp_path):
    """A data.json or metadata.yaml of another tool does not hide the stems beside it."""
    plain(tmp_path, "a")
    (tmp_path / "a" / "data.json").write_text('{"made": "by hand"}')
    plain(tmp_path, "b")
    (tmp_path / "b" / "metadata.yaml").write_text("made: by hand")
    assert [song.files.layout for song in open_songs(tmp_path)] == ["plain", "plain"]


# --- MUSDB18 -------------------------------------------------------------------------------------


def test_musdb18_hq_and_its_validation_songs(tmp_path):
    musdb18_hq(tmp_path, "train", "A Band - A Song")
    musdb18_hq(tmp_path, "train", "Young Griffo - Pennies")  # one of the package's fourteen
    musdb18_hq(tmp_path, "test", "Z - Z")
    songs = {song.id: song for song in open_songs(tmp_path, sample_rate=HZ)}
    assert {name: song.split for name, song in songs.items()} == {
        "A Band - A Song": "train",
        "Young Griffo - Pennies": "valid",
        "Z - Z": "test",
    }
    song = songs["Z - Z"]
    assert set(song.stem_names) == set(PITCHES)
    for stem, hz in PITCHES.items():
        assert abs(loudness(song.stem(stem), hz, HZ) - 0.1) < 0.01


def test_musdb18_streams(musdb):
    (song,) = open_songs(musdb, sample_rate=HZ)
    assert (song.id, song.split, song.files.layout) == ("A Band - A Song", "train", "musdb18")
    assert song.stem_names == ["drums", "bass", "other", "vocals"]  # stream 0 is the mixture
    assert song.duration_s == pytest.approx(SECONDS)
    for stem, hz in PITCHES.items():
        wav = song.stem(stem)
        assert wav.shape == (1, round(SECONDS * HZ))
        expected = tone(hz, SECONDS, HZ)
        assert (wav - expected)[:, 4096:-4096].abs().max() < 0.01  # AAC, and not shifted
        for other, other_hz in PITCHES.items():
            assert other == stem or loudness(wav, other_hz, HZ) < 0.005


def test_the_first_samples_are_those_of_a_decoder_from_the_start(musdb):
    """A seek to the beginning would lose the encoder's run-in, and with it the first 20 ms."""
    import av

    (song,) = open_songs(musdb, sample_rate=HZ)
    with av.open(str(song.files.file)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(container.streams.audio[2])]
    plainly = np.concatenate(frames, axis=1).mean(axis=0)[: round(SECONDS * HZ)]
    assert np.array_equal(song.stem("bass")[0].numpy(), plainly)


@pytest.mark.parametrize("start_s", [0.0, 0.01, 0.15, 1.0, 2.123, 2.9])
def test_a_part_of_an_mp4_equals_the_whole(musdb, start_s):
    (song,) = open_songs(musdb, sample_rate=HZ)
    whole = song.stem("bass")
    start = round(start_s * HZ)
    part = song.stem("bass", start_s, 0.5)
    expected = torch.nn.functional.pad(whole, (0, HZ))[:, start : start + round(0.5 * HZ)]
    assert (part - expected).abs().max() < 1e-6
    low = open_songs(musdb, sample_rate=32000)[0]
    part = low.stem("bass", start_s, 0.5)
    expected = torch.nn.functional.pad(low.stem("bass"), (0, 32000))[:, round(start_s * 32000) :]
    assert (part - expected[:, :16000])[:, 200:-200].abs().max() < 2e-3


def test_the_package_of_musdb_reads_the_same(musdb, tmp_path):
    db = pytest.importorskip("musdb", reason="the package musdb is not installed")
    if shutil.which("ffmpeg") is None:
        pytest.skip("musdb needs ffmpeg")
    (track,) = db.DB(root=str(musdb / "musdb18"), subsets="train").tracks
    (song,) = open_songs(musdb, sample_rate=HZ)
    assert track.name == song.id and set(track.sources) == set(song.stem_names)
    for stem, source in track.sources.items():
        ours = song.stem(stem)[0].numpy()
        assert np.abs(source.audio.mean(axis=1)[: len(ours)] - ours).max() < 1e-4


def test_names_in_the_file_go_before_the_order(musdb, tmp_path):
    source = musdb / "musdb18" / "train" / "A Band - A Song.stem.mp4"
    assert stems_of(source) == [("drums", 1), ("bass", 2), ("other", 3), ("vocals", 4)]
    file = tmp_path / "Other order.stem.mp4"
    shutil.copy(source, file)
    real_songs._add_stem_box(file, ["Vocals", "Bass", "Synths", "Drums"])
    (song,) = open_songs(tmp_path, sample_rate=HZ)
    assert song.stem_names == ["vocals", "bass", "synths", "drums"]
    assert loudness(song.stem("drums"), PITCHES["vocals"], HZ) > 0.09  # stream 4
    assert loudness(song.stem("vocals"), PITCHES["drums"], HZ) > 0.09


def test_mp4_files_that_are_none(musdb, tmp_path):
    source = (musdb / "musdb18" / "train" / "A Band - A Song.stem.mp4").read_bytes()
    file = tmp_path / "a.stem.mp4"
    for content in (b"", source[: len(source) // 2], b"no mp4 at all" * 50):
        file.write_bytes(content)
        with pytest.raises(StageLiteError, match=r"a.stem.mp4 could not be read as MP4") as error:
            open_songs(tmp_path)
        assert error.value.__cause__ is None
    import av

    with av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=HZ, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(StageLiteError, match=r"1 audio streams; expected 5: mixture, drums, bass"):
        open_songs(tmp_path)


def test_an_mp4_that_ends_early(musdb, tmp_path):
    """Its index stands in front, so that it opens; what is there is read, the rest is an error."""
    import av

    whole = tmp_path / "whole.mp4"
    source = musdb / "musdb18" / "train" / "A Band - A Song.stem.mp4"
    with (
        av.open(str(source)) as old,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as new,
    ):
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams.audio}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    content = whole.read_bytes()
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "a.stem.mp4"
    file.write_bytes(content)
    (song,) = open_songs(tmp_path / "data", sample_rate=HZ)
    expected = open_songs(musdb, sample_rate=HZ)[0].stem("bass")
    assert torch.equal(song.stem("bass"), expected)
    file.write_bytes(content[: int(0.6 * len(content))])
    (song,) = open_songs(tmp_path / "data", sample_rate=HZ)
    assert torch.equal(song.stem("bass", 0.5, 0.5), expected[:, HZ // 2 : HZ])
    with pytest.raises(StageLiteError, match=r"a.stem.mp4 .*cut short"):
        song.stem("bass", 2.0, 0.5)
    table = scan(tmp_path / "data", window_s=1.0, progress=False)
    assert set(table.stem[table.problem == "truncated"]) == {"drums", "bass", "other", "vocals"}


def test_decoded_stems_beside_the_mp4_are_read_once(musdb, tmp_path):
    shutil.copytree(musdb, tmp_path / "data")
    train = tmp_path / "data" / "musdb18" / "train"
    musdb18_hq(tmp_path, "train", "A Band - A Song")
    shutil.move(tmp_path / "musdb18hq" / "train" / "A Band - A Song", train)
    (song,) = open_songs(tmp_path / "data")
    assert song.folder == train / "A Band - A Song"


def test_beats_beside_an_mp4(musdb, tmp_path, fake_tracker):
    shutil.copytree(musdb, tmp_path / "data")
    assert [file.name for file in label_beats(tmp_path / "data")] == ["A Band - A Song.beats"]
    (song,) = open_songs(tmp_path / "data")
    assert song.beats_source == "A Band - A Song.beats"
    assert np.allclose(song.beats, np.arange(0.25, SECONDS, 0.5), atol=1e-3)


# --- Slakh2100 -----------------------------------------------------------------------------------


def test_slakh(tmp_path):
    for split in ("train", "validation", "test", "omitted"):
        slakh(tmp_path, split, f"Track-{split}")
    songs = {song.id: song for song in open_songs(tmp_path, sample_rate=RATE)}
    splits = {name: song.split for name, song in songs.items()}
    assert splits == {"Track-train": "train", "Track-validation": "valid", "Track-test": "test"}
    song = songs["Track-train"]
    assert song.stem_names == ["drums", "bass", "keys", "guitar", "other"]
    for stem, hz in [("drums", 200), ("keys", 500), ("keys", 520), ("other", 1100)]:
        assert abs(loudness(song.stem(stem), hz) - 0.1) < 0.01
    assert np.allclose(song.beats, np.arange(5) * 0.6) and np.allclose(song.downbeats, [0, 1.8])
    assert song.beats_source == "all_src.mid" and song.beats_per_bar == 3


def test_slakh_with_stems_that_are_missing(tmp_path):
    folder = slakh(tmp_path)
    (folder / "stems" / "S01.flac").unlink()
    (folder / "all_src.mid").unlink()
    shutil.rmtree(folder / "MIDI")
    (song,) = open_songs(tmp_path)
    assert "bass" not in song.stem_names and song.files.midi_file is None
    assert [path.name for path in song.files.missing] == ["S01.flac"]
    with pytest.raises(StageLiteError, match=r"no song with stem 'bass' among 1 songs"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            StemDataset(tmp_path, "bass")


def test_slakh_as_wav(tmp_path):
    """As the data set's own conversion script leaves it; BabySlakh has no folder of a split."""
    folder = slakh(tmp_path)
    for file in (folder / "stems").iterdir():
        samples, rate = soundfile.read(file)
        soundfile.write(file.with_suffix(".wav"), samples, rate)
        file.unlink()
    shutil.move(folder, tmp_path / "babyslakh_16k" / "Track00001")
    (song,) = open_songs(tmp_path / "babyslakh_16k", sample_rate=RATE)
    assert song.split is None and abs(loudness(song.stem("bass"), 300) - 0.1) < 0.01


# --- plain folders and what file systems do to them ----------------------------------------------


def test_a_stem_in_two_formats_is_read_once(tmp_path):
    plain(tmp_path, "song")
    save_audio(tmp_path / "song" / "bass.flac", tone(300.0, 3.0, RATE), RATE)
    save_audio(tmp_path / "song" / "Drums.ogg", tone(200.0, 3.0, RATE), RATE)
    (song,) = open_songs(tmp_path, sample_rate=RATE)
    for stem, hz in [("drums", 200), ("bass", 300)]:
        assert [track.path.suffix for track in song.files.tracks[stem]] == [".wav"]
        assert abs(loudness(song.stem(stem), hz) - 0.1) < 0.01  # not twice as loud


def test_hidden_files_are_no_stems(tmp_path, musdb):
    folder = plain(tmp_path, "song")
    for name in ("._drums.wav", "._bass.wav", ".DS_Store", "._song.beats", "._x.stem.mp4"):
        (folder / name).write_bytes(bytes([0, 5, 22, 7]))
    (tmp_path / "__MACOSX" / "song").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "song" / "._drums.wav").write_bytes(bytes(4))
    plain(tmp_path / ".Trash", "old")
    (song,) = open_songs(tmp_path)
    assert sorted(song.stem_names) == ["bass", "drums"] and song.files.beats_file is None


def test_unicode_names(tmp_path):
    """One song, spelt as Linux writes it and as macOS does: one id, one split, and it opens."""
    ids = set()
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "Größenwahn – Ålesund 東京")
        folder = own_song(tmp_path / form).rename(tmp_path / form / name)
        labels = json.loads((folder / "song.json").read_text())
        stem = unicodedata.normalize(form, "Trömmel.flac")
        (folder / "drums.flac").rename(folder / stem)
        labels["stems"]["drums"]["file"] = unicodedata.normalize("NFC", stem)
        del labels["id"], labels["split"]
        (folder / "song.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
        (song,) = open_songs(tmp_path / form, sample_rate=RATE)
        assert loudness(song.stem("drums"), 200) > 0.09
        ids.add((song.id, split_of(song)))
    assert len(ids) == 1


def test_a_name_that_is_no_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes text only")
    for stem in ("drums", "bass"):
        save_audio(tmp_path / f"{stem}.wav", tone(200.0, 1.0, RATE), RATE)
        os.rename(tmp_path / f"{stem}.wav", folder + f"/{stem}.wav".encode())
    (song,) = open_songs(tmp_path)
    assert song.id == "caf\ufffd" and split_of(song) in ("train", "valid", "test")
    with pytest.raises(StageLiteError, match="a name that is no valid text; rename it") as error:
        song.stem("drums")
    str(error.value).encode()  # it can be printed


def test_links(tmp_path):
    real = plain(tmp_path / "real", "song")
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").symlink_to(real)  # a linked song
    (root / "b").symlink_to(real)  # once more: the same one
    (root / "circle").symlink_to(root)
    linked = root / "c"
    linked.mkdir()
    for stem in ("drums", "bass"):  # linked files
        (linked / f"{stem}.wav").symlink_to(real / f"{stem}.wav")
    (linked / "keys.wav").symlink_to(tmp_path / "gone.wav")
    songs = open_songs(root, sample_rate=RATE)
    assert [song.id for song in songs] == ["a", "c"]
    assert sorted(songs[1].stem_names) == ["bass", "drums"]
    assert list(songs[1].files.missing) == [linked / "keys.wav"]
    assert torch.equal(songs[0].stem("bass"), songs[1].stem("bass"))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_mono_and_stereo_at_any_rate(tmp_path, channels, rate):
    wav = tone(300.0, 2.0, rate).expand(channels, -1)
    for stem in ("drums", "bass"):
        save_audio(tmp_path / "song" / f"{stem}.wav", wav, rate)
    (song,) = open_songs(tmp_path)
    assert song.stem("drums").shape == (1, 64000)
    assert abs(loudness(song.stem("drums"), 300, 32000) - 0.1) < 0.003


def test_a_song_is_as_long_as_its_longest_recording(tmp_path):
    stems = [("drums", "kick drum", 200.0, False), ("drums", "toms", 250.0, False),
             ("bass", "bass guitar", 300.0, False)]  # fmt: skip
    folder = moisesdb(tmp_path, 0, stems=stems, seconds=2.0)
    toms = sorted((folder / "drums").iterdir())[1]
    save_audio(toms, tone(250.0, 5.0, RATE), RATE)
    assert open_songs(tmp_path)[0].duration_s == 5.0


# --- beats: labelled, or tracked once ------------------------------------------------------------


def test_beats_are_tracked_once_and_kept(tmp_path, fake_tracker, cache):
    folder = plain(tmp_path / "data", "song")
    before = sorted(folder.iterdir())
    with pytest.warns(UserWarning, match="every fourth one is taken for a downbeat"):
        first = open_songs(tmp_path / "data")[0].beats
    assert len(fake_tracker) == 1 and len(first) == 6
    song = open_songs(tmp_path / "data", sample_rate=RATE)[0]  # another rate, the same beats
    assert np.array_equal(song.beats, first) and np.array_equal(song.downbeats, first[::4])
    assert len(fake_tracker) == 1
    assert sorted(folder.iterdir()) == before  # nothing beside the stems: they may be read-only
    (file,) = (cache / "beats").iterdir()
    content = json.loads(file.read_text())
    assert content["tracker"].startswith("librosa 0.") and song.beats_source == content["tracker"]
    assert content["tracked"] == [str(folder / "drums.wav")]
    assert np.array_equal(content["beats"], first)


def test_kept_beats_hang_on_the_content(tmp_path, fake_tracker, cache):
    folder = plain(tmp_path / "data", "song")
    open_songs(tmp_path / "data")[0].beats  # noqa: B018
    shutil.move(folder, tmp_path / "data" / "renamed")
    open_songs(tmp_path / "data")[0].beats  # noqa: B018
    assert len(fake_tracker) == 1  # a song that moves keeps its beats
    save_audio(tmp_path / "data" / "renamed" / "drums.wav", tone(222.0, 4.0, RATE), RATE)
    assert len(open_songs(tmp_path / "data")[0].beats) == 8
    assert len(fake_tracker) == 2  # one that changes does not


def test_a_broken_cache_is_made_anew(tmp_path, fake_tracker, cache):
    plain(tmp_path / "data", "song")
    first = open_songs(tmp_path / "data")[0].beats
    (file,) = (cache / "beats").iterdir()
    whole = file.read_bytes()
    for content in (b"", whole[:40], b'{"beats": [2, 1], "downbeats": [], "tracker": "x"}', b"[]"):
        file.write_bytes(content)
        assert np.array_equal(open_songs(tmp_path / "data")[0].beats, first)
        assert file.read_bytes() == whole
    assert len(fake_tracker) == 5 and len(list((cache / "beats").iterdir())) == 1


def test_a_cache_that_cannot_be_written(tmp_path, fake_tracker, monkeypatch):
    plain(tmp_path / "data", "song")
    (tmp_path / "file").touch()
    monkeypatch.setenv("STAGE_LITE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be kept in .* STAGE_LITE_CACHE"):
        assert len(open_songs(tmp_path / "data")[0].beats) == 6


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert str(cache_folder()) == os.environ["STAGE_LITE_CACHE"]
    monkeypatch.delenv("STAGE_LITE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "stage-lite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "stage-lite"


def test_a_tracker_of_ones_own(tmp_path, fake_tracker, cache):
    def mine(wav, sample_rate):
        return np.array([0.5, 1.0, 1.5, 2.0]), np.array([1.0])

    plain(tmp_path / "data", "song")
    data = StemDataset(tmp_path / "data", "drums", window_s=3.0, sample_rate=RATE, tracker=mine)
    example = data.window(data.songs[0], 0.0, "drums", "metronome")
    assert np.array_equal(example.beat_times, [0.5, 1.0, 1.5, 2.0])
    assert np.array_equal(example.downbeat_times, [1.0])
    assert not fake_tracker and not cache.exists()  # a function may change: nothing is kept
    with pytest.raises(StageLiteError, match="unknown beat tracker 'ears'"):
        StemDataset(tmp_path / "data", tracker="ears")


def test_beat_this_tells_the_bars(tmp_path, monkeypatch, cache):
    """With its package and weights there (here: in its place), its downbeats are used and kept."""

    class Hears:
        def beats_and_downbeats(self, wav, sample_rate):
            return np.array([0.2, 0.7, 1.2, 1.7]), np.array([0.7])

    plain(tmp_path / "data", "song")
    monkeypatch.setattr(trackers, "get_tracker", lambda name: Hears())
    for _ in range(2):
        (song,) = open_songs(tmp_path / "data", tracker="beat-this")
        assert np.array_equal(song.downbeats, [0.7]) and song.beats_source.startswith("beat-this")
    (file,) = (cache / "beats").iterdir()
    assert json.loads(file.read_text())["downbeats"] == [0.7]


def test_silence_and_short_songs_have_no_beats(tmp_path, cache):
    plain(tmp_path / "data", "tiny", seconds=0.05)
    plain(tmp_path / "data", "silent", level=0.0)
    for song in open_songs(tmp_path / "data"):
        assert len(song.beats) == len(song.downbeats) == 0 and song.bpm is None


def test_beats_as_the_official_stage_keeps_them(tmp_path):
    folder = plain(tmp_path, "song")
    np.savez(folder / "beatthis.npz", beats=[0.5, 1.0, 1.5], downbeats=[1.0])
    (song,) = open_songs(tmp_path)
    assert np.array_equal(song.beats, [0.5, 1.0, 1.5]) and np.array_equal(song.downbeats, [1.0])
    assert song.beats_source == "beatthis.npz"
    np.savez(folder / "beatthis.npz", times=[1.0])
    with pytest.raises(StageLiteError, match="beatthis.npz is no beat label file"):
        open_songs(tmp_path)[0].beats  # noqa: B018


def test_beats_cannot_be_written_beside_the_stems(tmp_path, fake_tracker):
    folder = plain(tmp_path, "song")
    (folder / "beats.txt").mkdir()  # as good as a folder that may not be written, for root too
    with pytest.raises(StageLiteError, match=r"beats.txt cannot be written"):
        label_beats(tmp_path)


# --- augmentation: on both, and never skipped ----------------------------------------------------


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """Two songs of 6 s with beats at 120 bpm."""
    root = tmp_path_factory.mktemp("rich")
    for number in range(2):
        own_song(root, number)
    return root


def loudest_hz(wav):
    spectrum = np.abs(np.fft.rfft(wav[0].numpy() * np.hanning(wav.shape[1])))
    return spectrum.argmax() * RATE / wav.shape[1]


def test_what_is_drawn_is_what_is_done(rich):
    """The recorded pitch and tempo are those that are heard, in target and context alike."""
    data = StemDataset(
        rich, "drums", window_s=2.0, conditions=["self"], augment=True, n=14, sample_rate=RATE
    )
    seen = set()
    for example in data:
        expected_hz = 200.0 * 2 ** (example.semitones / 12)
        assert abs(loudest_hz(example.target) - expected_hz) < 1.5
        assert torch.equal(example.target, example.context)
        assert example.bpm == pytest.approx(120.0 * example.rate)
        assert np.allclose(np.diff(example.beat_times), 0.5 / example.rate)
        assert 0.8 <= example.rate <= 1.2 and -4 <= example.semitones <= 4
        seen.add((example.rate != 1.0, example.semitones != 0))
    assert len(seen) == 4  # neither, one, the other, both
    plain_data = StemDataset(rich, "drums", window_s=2.0, n=5, sample_rate=RATE)
    assert {(e.rate, e.semitones) for e in plain_data} == {(1.0, 0)}


def test_every_stem_of_a_mix_is_changed(rich):
    song = open_songs(rich, sample_rate=RATE)[0]
    view = AugmentedSong(song, 1.1, 3)
    names = ["bass", "keys"]
    together = view.mix(names, 0.5, 2.0)
    apart = view.stem("bass", 0.5, 2.0) + view.stem("keys", 0.5, 2.0)
    assert torch.allclose(together, apart) and view.key == "Cm"
    for hz in (300.0, 500.0):
        assert loudness(together, hz) < 0.02 < 0.05 < loudness(together, hz * 2 ** (3 / 12))
    assert view.mix().shape == (1, round(6.0 / 1.1 * RATE))


def test_songs_just_as_long_as_a_window_are_slowed_down_only(tmp_path):
    own_song(tmp_path, seconds=2.0)
    data = StemDataset(tmp_path, window_s=2.0, augment=True, n=12, sample_rate=RATE)
    rates = {example.rate for example in data}
    assert max(rates) == 1.0 and min(rates) < 0.95
    longer = StemDataset(tmp_path, window_s=2.4, augment=True, n=3, sample_rate=RATE)
    assert all(example.rate <= 2.0 / 2.4 for example in longer)  # slowed down, it is long enough
    assert all(example.target.shape == (1, 19200) for example in longer)


# --- what songs hold -----------------------------------------------------------------------------


def test_more_windows_than_songs_hold(rich, tmp_path):
    own_song(tmp_path, seconds=2.0)
    with pytest.raises(StageLiteError, match=r"n is 2: more windows of 2.0 s than the songs hold"):
        StemDataset(tmp_path, window_s=2.0, n=2)
    with pytest.raises(StageLiteError, match="n is 0; expected at least 1"):
        StemDataset(tmp_path, window_s=2.0, n=0)
    assert len(StemDataset(tmp_path, window_s=2.0, n=1)) == 1
    augmented = StemDataset(tmp_path, window_s=2.0, n=50, augment=True)
    assert len(augmented) == 50 and len(augmented.resized(70)) == 70
    one = StemDataset(tmp_path, window_s=2.0)
    assert one.holds == 1 and len(one.resized(9)) == 1
    with pytest.raises(StageLiteError, match=r"which is 402 that begin .* n=402 or less"):
        StemDataset(rich, window_s=2.0, n=403)  # 201 places in each of two songs
    assert len(StemDataset(rich, window_s=2.0, n=402)) == 402
    with pytest.raises(StageLiteError, match=r"the longest lasts 6.00 s; take shorter windows"):
        StemDataset(rich, window_s=8.0)


def test_songs_without_the_target_or_too_short_are_not_drawn(tmp_path):
    own_song(tmp_path, 0)
    own_song(tmp_path, 1, seconds=1.0)
    plain(tmp_path, "no drums", ("bass", "keys"))
    data = StemDataset(tmp_path, "drums", window_s=2.0, n=30, sample_rate=RATE)
    assert {example.song_id for example in data} == {"song0"} and len(data.songs) == 3
    assert len(StemDataset(tmp_path, "drums", window_s=2.0)) == 3  # of six seconds, not of ten


def test_one_song_is_a_data_set(tmp_path):
    folder = own_song(tmp_path)
    data = StemDataset(folder, window_s=2.0, n=4, sample_rate=RATE)
    assert {example.song_id for example in data} == {"song0"}
    with pytest.raises(StageLiteError, match="among 0 songs of split 'test'"):
        StemDataset(folder, window_s=2.0, split="test")


def test_a_window_that_is_not_found_says_why(tmp_path):
    plain(tmp_path, "song", ("drums",))
    (tmp_path / "song" / "beats.txt").write_text("0.5\n1.0\n")
    data = StemDataset(tmp_path, window_s=1.0, conditions="mixture", sample_rate=RATE)
    with pytest.raises(StageLiteError, match=r"60 times nothing to hear by 'mixture'; take"):
        data[0]


def test_every_layout_gives_windows(tmp_path, musdb, fake_tracker):
    shutil.copytree(musdb / "musdb18", tmp_path / "musdb18")
    moisesdb(tmp_path, 1)
    musdb18_hq(tmp_path, "train", "B - B")
    slakh(tmp_path)
    own_song(tmp_path)
    plain(tmp_path, "mine", ("drums", "bass", "piano"))
    with pytest.raises(StageLiteError, match=r"opened at 32000 Hz, the data set at 8000 Hz"):
        StemDataset(open_songs(tmp_path), "bass", sample_rate=RATE)
    songs = open_songs(tmp_path, sample_rate=RATE)
    assert {song.files.layout for song in songs} == {
        "moisesdb", "musdb18", "slakh", "own", "plain"
    }  # fmt: skip
    for song in songs:
        for augment in (False, True):
            data = StemDataset([song], "bass", window_s=1.5, n=2, augment=augment, sample_rate=RATE)
            for i in range(2):
                one, two = data[i], data[i]
                assert one.target.shape == one.context.shape == (1, 12000)
                assert torch.equal(one.target, two.target) and torch.equal(one.context, two.context)
                hz = 300.0 * 2 ** (one.semitones / 12)
                assert loudness(one.target, hz) > 0.07 or song.files.layout == "plain"
                assert (one.song_id, one.target_name) == (song.id, "bass")


def test_a_track_says_what_it_is(musdb):
    track = Track(musdb / "musdb18" / "train" / "A Band - A Song.stem.mp4", 2)
    assert track.info == (round(SECONDS * HZ), HZ, 2) and str(track).endswith("(stream 2)")
    assert sum(block.shape[1] for block in track.blocks()) == track.info.frames
    with pytest.raises(StageLiteError, match="has 5 audio streams; asked for number 9"):
        Track(track.path, 9).info  # noqa: B018
