"""scan.py: each fault is found, named and counted; a sound folder gives no row; nothing changes."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from real_songs import HZ, SLAKH, moisesdb, musdb18_hq, slakh
from songs import RATE, own_song, tone

import stage_lite as sl
import stage_lite.song
from stage_lite import StageLiteError, StemDataset
from stage_lite.__main__ import _broken_songs, _datasets, _parser, main
from stage_lite.audio import save_audio
from stage_lite.scan import COLUMNS
from stage_lite.stem_file import Track
from stage_lite.track_check import check_track

STEMS = ("drums", "bass", "keys")


def make(root, name, number, stems=STEMS, seconds=3.0, suffix=".wav", rate=RATE):
    """A plain song whose tones no other number has."""
    for place, stem in enumerate(stems):
        wav = tone(200 + 100 * place + 3 * number, seconds, rate)
        save_audio(root / name / f"{stem}{suffix}", wav, rate)
    return root / name


def cut(file, share=0.5):
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def found(table):
    return {(row.severity, row.problem, row.song, row.stem) for row in table.itertuples()}


def look(folder, **options):
    return sl.scan(folder, **({"window_s": 2.0, "progress": False} | options))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """One song per fault, and the rows that are expected of it."""
    root = tmp_path_factory.mktemp("faulty")
    expected = set()
    names = iter(range(100))

    def song(name, *faults, **options):
        expected.update((severity, problem, name, stem) for severity, problem, stem in faults)
        return make(root, name, next(names), **options)

    for name in ("good a", "good b", "good c"):
        song(name)
    cut(song("cut wav", ("broken", "truncated", "bass")) / "bass.wav")
    cut(song("cut flac", ("broken", "truncated", "bass"), suffix=".flac") / "bass.flac")
    (song("empty", ("broken", "unreadable", "bass")) / "bass.wav").write_bytes(b"")
    (song("words", ("broken", "unreadable", "bass")) / "bass.wav").write_text("la la la")
    none = song("no samples", ("broken", "unreadable", "bass")) / "bass.wav"
    soundfile.write(none, np.zeros(0), RATE)
    nan = song("not a number", ("broken", "not finite", "bass")) / "bass.wav"
    soundfile.write(nan, np.tile([0.1, np.nan], 12000), RATE, subtype="FLOAT")
    loud = song("integers", ("broken", "scale", "bass")) / "bass.wav"
    soundfile.write(loud, 20000 * np.sin(np.arange(24000) / 5), RATE, subtype="FLOAT")
    over = song("too hot", ("odd", "overs", "bass")) / "bass.wav"
    soundfile.write(over, 1.5 * np.sin(np.arange(24000) / 7), RATE, subtype="FLOAT")
    slow = song("slow", ("broken", "sample rate", "bass"), ("odd", "different rates", ""))
    soundfile.write(slow / "bass.wav", np.sin(np.arange(12000) / 7) / 2, 4000)
    expected.discard(("odd", "different rates", "slow", ""))  # broken files are not compared
    many = song("nine", ("broken", "channels", "bass"))
    soundfile.write(many / "bass.wav", np.tile(np.sin(np.arange(24000) / 9)[:, None] / 2, 9), RATE)
    quiet = song("silent", ("odd", "silent", "bass"))
    save_audio(quiet / "bass.wav", tone(300.0, 3.0, RATE, level=0.001), RATE)
    save_audio(song("short", ("odd", "different lengths", "")) / "bass.wav", tone(999, 1.0), RATE)
    rate = song("two rates", ("odd", "different rates", ""))
    save_audio(rate / "bass.wav", tone(311.0, 3.0, 11025), 11025)
    song("all at another rate", ("odd", "other rate", ""), rate=16000)
    song("tiny", ("odd", "too short", ""), seconds=0.5)
    song("drums only", ("odd", "one stem", ""), ("odd", "no target", "bass"),
         ("note", "missing stem", "bass"), ("note", "missing stem", "keys"),
         stems=("drums",))  # fmt: skip
    (song("not beats", ("broken", "beats", "")) / "beats.txt").write_text("0.5 1\nnever\n")
    (song("late beats", ("odd", "beats", "")) / "beats.txt").write_text("0.5 1\n30.0 2\n")
    copied = song("bass twice", ("odd", "duplicate", "keys"))
    shutil.copy(copied / "bass.wav", copied / "keys.wav")
    shutil.copytree(root / "good a", root / "good a again")
    expected.add(("odd", "duplicate", "good a again", "bass, drums, keys"))
    flac = root / "as flac"
    for stem in STEMS:  # the same samples in another file format
        wav, rate = sl.load_audio(root / "good b" / f"{stem}.wav")
        save_audio(flac / f"{stem}.flac", wav, rate)
    (root / "good b").rename(root / "x good b")  # behind its copy
    expected.add(("odd", "duplicate", "x good b", "bass, drums, keys"))
    link = song("dangling", ("broken", "missing file", "bass"), ("odd", "no target", "bass"))
    (link / "bass.wav").unlink()
    (link / "bass.wav").symlink_to(root / "gone.wav")
    extra = song("own name", ("note", "unknown stem", "kazoo"))
    save_audio(extra / "kazoo.wav", tone(1234.0, 3.0, RATE), RATE)
    two = song("two formats", ("note", "left out", ""))
    save_audio(two / "bass.flac", tone(1500.0, 3.0, RATE), RATE)
    for name, file, content in [
        ("bad json", "data.json", "{"),
        ("bad song", "song.json", "{}"),
        ("bad yaml", "metadata.yaml", "a: ["),
    ]:
        (root / name).mkdir()
        (root / name / file).write_text(content)
        expected.add(("broken", "labels", name, ""))
    (root / "cut.stem.mp4").write_bytes(b"no mp4")
    expected.add(("broken", "unreadable", "cut", ""))
    save_audio(root / "loops" / "loop 1.wav", tone(321.0, 1.0), RATE)
    expected.add(("note", "left out", "loops", ""))
    return root, expected


@pytest.fixture(scope="module")
def table(faulty):
    return look(faulty[0], target="bass")


def test_every_fault_is_found_and_nothing_else(faulty, table):
    assert found(table) == faulty[1]
    assert list(table.columns) == list(COLUMNS) and isinstance(table, pd.DataFrame)
    assert len(table) == len(faulty[1])  # each once


def test_the_worst_comes_first(table):
    order = [("broken", "odd", "note").index(severity) for severity in table.severity]
    assert order == sorted(order)


def test_broken_songs_can_be_skipped(faulty, table):
    root, expected = faulty
    broken = {song for severity, _, song, _ in expected if severity == "broken"}
    assert set(table.broken_songs) == broken == set(table.summary["broken_songs"])
    with pytest.raises(StageLiteError, match=r"\(3 more like it; `stage-lite scan` lists them\)"):
        StemDataset(root, "bass", window_s=2.0)
    options = {"window_s": 2.0, "sample_rate": RATE, "conditions": "mixture", "n": 20}
    options["tracker"] = lambda wav, sample_rate: np.arange(0.0, 3.0, 0.5)
    for skip in (table, table.broken_songs):
        data = StemDataset(root, "bass", skip=skip, **options)
        assert not broken & {song.id for song in data.songs} and len(list(data)) == 20


def test_summary(faulty, table):
    summary = table.summary
    songs = sum(folder.is_dir() for folder in faulty[0].iterdir()) - 4  # bad ..., loops
    assert summary["songs"] == songs == summary["layouts"]["plain"]
    assert summary["stems"]["drums"] == songs and summary["stems"]["kazoo"] == 1
    assert summary["sample_rates"][16000] == 3 and summary["channels"][9] == 1
    assert summary["beats"] == {"to be tracked": songs - 2, "files": 2}
    assert sum(summary["splits"].values()) == songs == summary["splits_by_hash"]
    good = {"good a", "good a again", "good c", "as flac", "x good b", "too hot", "short",
            "two rates", "all at another rate", "late beats", "bass twice", "own name",
            "two formats"}  # fmt: skip
    assert set(summary["usable_songs"]) == good
    assert summary["problems"]["broken"]["truncated"] == 2
    assert 0.01 < summary["hours"] < 0.03


def test_it_prints_as_a_report(faulty, table):
    text = repr(table)
    assert f"{faulty[0]}: {table.summary['songs']} songs" in text
    counts = {s: sum(found.values()) for s, found in table.summary["problems"].items()}
    assert f"{counts['broken']} broken, {counts['odd']} odd, {counts['note']} notes" in text
    assert "cut wav, bass [bass.wav]: 23978 of 48000 bytes of samples are there" in text
    assert "1.00 s bass; 3.00 s drums, keys" in text
    assert "16000 Hz; " in text and "the same audio as in good a" in text
    assert "a link to a file that is not there" in text
    assert table._repr_html_().startswith("<pre>") and "<script" not in table._repr_html_()
    assert max(map(len, table.problem)) < 20 and len(text.splitlines()) < 90
    silent = table[table.problem == "silent"]
    assert type(silent) is pd.DataFrame and len(silent) == 1


def test_without_a_target(faulty):
    table = look(faulty[0], deep=False)
    assert "no target" not in set(table.problem)
    assert "only heads and tails of files were read" in repr(table)
    missed = {"silent", "duplicate", "not finite", "scale", "overs"}
    assert not missed & set(table.problem)
    quick = {row[2] for row in found(table) if row[:2] == ("broken", "truncated")}
    assert quick == {"cut wav"}  # the head of a FLAC file knows nothing of its end


def test_a_sound_folder_gives_no_row(tmp_path):
    for number in range(3):
        make(tmp_path, f"song {number}", number)
    table = look(tmp_path, target="drums")
    assert len(table) == 0 and table.broken_songs == []
    assert repr(table).endswith("nothing to report")
    assert "3 songs with drums, of at least 2 s, nothing broken" in repr(table)
    assert len(StemDataset(tmp_path, window_s=2.0, skip=table).songs) == 3


def test_nothing_is_changed(faulty, table):
    root = faulty[0]

    def state():
        return {(path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*")}

    before = state()
    look(root)
    assert state() == before


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_whole_and_cut_files_of_each_format(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * HZ)
    if suffix == ".mp3":
        soundfile.write(file, noise, HZ, format="MP3")
    else:
        save_audio(file, noise[None].astype(np.float32).clip(-1, 1), HZ)
    whole = check_track(Track(file))
    assert not whole.broken and not whole.odd and abs(whole.duration_s - 3.0) < 0.1
    for share in (0.9, 0.5, 0.1):
        part = tmp_path / f"b{suffix}"
        part.write_bytes(file.read_bytes())
        cut(part, share)
        problems = [problem for problem, _ in check_track(Track(part)).broken]
        assert problems in (["truncated"], ["unreadable"]), (share, problems)


def test_a_wav_from_a_pipe_is_whole(tmp_path):
    """Its head does not know the length: that is no fault."""
    file = save_audio(tmp_path / "a.wav", tone(200.0, 1.0), RATE)
    content = bytearray(file.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    assert not check_track(Track(file)).broken


def test_silence_is_judged_by_its_loudest_second(tmp_path):
    one_hit = np.zeros(60 * RATE, dtype=np.float32)
    one_hit[30 * RATE : 30 * RATE + 800] = 0.1
    file = save_audio(tmp_path / "a.wav", one_hit[None], RATE)
    assert not check_track(Track(file)).silent
    opposite = tone(200.0, 2.0).repeat(2, 1)
    opposite[1] *= -1  # sounds in stereo; the mono mix is silent
    file = save_audio(tmp_path / "b.wav", opposite, RATE)
    check = check_track(Track(file))
    assert check.silent and check.digest is None


def test_the_three_data_sets(tmp_path):
    """MoisesDB: bleed and promised files. MUSDB18-HQ: one of four stems. Slakh: pieces twice."""
    stems = [("drums", "kick drum", 200.0, True), ("bass", "bass guitar", 300.0, False)]
    folder = moisesdb(tmp_path, 1, stems=stems)
    (next((folder / "bass").iterdir())).unlink()
    for number, name in enumerate(("A", "B", "C", "D")):
        song = musdb18_hq(tmp_path, "train", name)
        for place, file in enumerate(sorted(song.iterdir())):
            save_audio(file, tone(400 + 37 * number + 5 * place, 3.0, HZ), HZ)
    (tmp_path / "musdb18hq" / "train" / "B" / "vocals.wav").unlink()
    piece = "1a81ae092884234f3264e2f45927f00a"
    for number, split in enumerate(("train", "validation", "omitted")):
        parts = [(*stem[:3], stem[3] and stem[3] + 7 * number + 1) for stem in SLAKH]
        slakh(tmp_path, split, f"Track0000{number}", piece, stems=parts)
    table = look(tmp_path)
    moises = "00000000-0000-0000-0000-000000000001"
    assert found(table) == {
        ("broken", "missing file", moises, "bass"),
        ("odd", "one stem", moises, ""),
        ("note", "bleed", moises, ""),
        ("odd", "missing stem", "B", "vocals"),
        ("odd", "duplicate", "Track00001", ""),
        ("note", "left out", "Track00002", ""),
    }
    (detail,) = table.detail[table.song == "Track00001"]
    assert detail == (
        "the same MIDI file as Track00000, which is in split 'train', this one in 'valid'"
    )


def test_few_songs_are_compared_too(tmp_path):
    """Of three songs one at another rate, and one without a stem; a MUSDB18 song at 48 kHz."""
    make(tmp_path / "data", "a", 1)
    make(tmp_path / "data", "b", 2, rate=16000)
    make(tmp_path / "data", "c", 3, stems=("drums", "bass"))
    assert found(look(tmp_path / "data")) == {
        ("odd", "other rate", "b", ""),
        ("note", "missing stem", "c", "keys"),
    }
    folder = moisesdb(tmp_path, 1, seconds=2.0)
    for file in folder.glob("*/*.wav"):
        wav, _ = sl.load_audio(file)
        save_audio(file, wav, 48000)
    rows = found(look(tmp_path / "moisesdb", window_s=1.0))
    assert ("odd", "other rate", folder.name, "") in rows


def test_labels_of_a_wrong_kind(tmp_path, unchecked_types):
    for name, labels in [
        ("bpm", {"bpm": "fast"}),
        ("length", {"duration_s": -1}),
        ("bars", {"beats_per_bar": 0}),
        ("chords", {"chords": ["Am"]}),
        ("beats", {"beats": ["one"]}),
        ("order", {"beats": [2.0, 1.0]}),
    ]:
        own_song(tmp_path / name, **labels)
    own_song(tmp_path / "nothing said", 1, duration_s=None, bpm=None, chords=None)
    table = look(tmp_path)
    rows = [(row.problem, row.file.split("/")[-2]) for row in table.itertuples()
            if row.severity == "broken"]  # fmt: skip
    labels = [("labels", name) for name in ("bars", "bpm", "chords", "length")]
    assert sorted(rows) == [("beats", "beats"), ("beats", "order"), *labels]


def test_songs_of_one_name(tmp_path):
    make(tmp_path / "a", "Intro", 1)
    make(tmp_path / "b", "Intro", 2)
    assert found(look(tmp_path)) == {("note", "same name", "b/Intro", "")}


def test_files_are_compared_with_song_json(tmp_path):
    folder = own_song(tmp_path)
    assert len(look(tmp_path)) == 0
    save_audio(folder / "bass.flac", tone(301.0), RATE)
    assert found(look(tmp_path)) == {("broken", "changed", "song0", "bass")}
    own_song(tmp_path, silent={"bass"})
    assert len(look(tmp_path)) == 0  # silence that song.json knows of


def test_beats_can_be_tracked_ahead(tmp_path, monkeypatch):
    calls = []

    def track(wav, sample_rate):
        calls.append(sample_rate)
        return np.array([0.5, 1.0, 1.5])

    monkeypatch.setattr(stage_lite.song, "track_beats", track)
    monkeypatch.setenv("STAGE_LITE_CACHE", str(tmp_path / "cache"))
    for number in range(2):
        make(tmp_path / "data", f"song {number}", number)
    look(tmp_path / "data")
    assert not calls
    look(tmp_path / "data", track_beats=True)
    assert len(calls) == 2
    data = StemDataset(tmp_path / "data", window_s=2.0, n=8, sample_rate=RATE)
    assert [len(example.beat_times) > 0 for example in data] == [True] * 8
    assert len(calls) == 2


def test_folders_that_cannot_be_scanned(tmp_path):
    with pytest.raises(StageLiteError, match="is no folder"):
        look(tmp_path / "gone")
    with pytest.raises(StageLiteError, match=r"no songs in .*; expected folders with song.json"):
        look(tmp_path)
    with pytest.raises(StageLiteError, match="window_s is 0"):
        look(tmp_path, window_s=0)
    with pytest.raises(StageLiteError, match="workers is 0"):
        look(tmp_path, workers=0)
    with pytest.raises(StageLiteError, match="unknown beat tracker 'ears'"):
        look(tmp_path, tracker="ears")
    (tmp_path / "song").mkdir()
    (tmp_path / "song" / "song.json").write_text("{")
    assert found(look(tmp_path)) == {("broken", "labels", "song", "")}


# --- in a shell ----------------------------------------------------------------------------------


def test_command_line(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "scan.csv"
    for number in range(3):
        make(data, f"song {number}", number)
    command = ["scan", "--data", str(data), "--window", "2", "--target", "drums"]
    assert main(command) == 0
    assert "nothing to report" in capsys.readouterr().out
    cut(data / "song 1" / "bass.wav")
    assert main([*command, "--out", str(out), "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "1 broken, 0 odd, 0 notes" in said and "song 1, bass [bass.wav]: 23978 of" in said
    assert pd.read_csv(out).song.tolist() == ["song 1"] and _broken_songs(out) == ["song 1"]
    assert main([*command, "--quick"]) == 1
    assert main(["scan", "--data", str(tmp_path / "gone")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "scan.txt")]) == 2
    assert "expected a .csv file" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["data", "scan.csv"]


def test_training_leaves_broken_songs_and_other_splits_out(tmp_path, capsys):
    def datasets(*words):
        words = ["--data", str(tmp_path / "data"), "--window", "2", *words]
        return _datasets(_parser().parse_args(["train", "--checkpoint-dir", "x", *words]))

    for number, split in enumerate(("train", "train", "test")):
        make(tmp_path / "data" / split, f"song {number}", number)
    data, validation = datasets("--augment")
    assert validation is None and data.augment
    assert {song.split for song in data.songs} == {"train"}  # nothing of the test split
    assert "the songs of split 'train', none held out" in capsys.readouterr().out
    (tmp_path / "scan.csv").write_text("severity,song\nbroken,song 0\nodd,song 1\n")
    data, _ = datasets("--skip", str(tmp_path / "scan.csv"))
    assert [song.id for song in data.songs] == ["song 1"]
    (tmp_path / "scan.csv").write_text("no table")
    with pytest.raises(StageLiteError, match="is no table of a scan"):
        datasets("--skip", str(tmp_path / "scan.csv"))
