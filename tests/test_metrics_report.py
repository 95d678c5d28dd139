"""metrics/report.py: sl.evaluate on players whose scores are known, on bad input, and its files."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_CARD, make_tiny_model
from songs import RATE, tone
from toy_corpus import toy_corpus

import stage_lite as sl
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.metrics import coherence as coherence_file
from stage_lite.metrics import listen, systems, text
from stage_lite.metrics.agreement import chroma_agreements, onset_agreement_of_times
from stage_lite.metrics.beats import beat_f1, find_onsets
from stage_lite.metrics.contrastive import EncoderConfig, PairModel
from stage_lite.metrics.frechet import kad
from stage_lite.metrics.loop import Bar, find_bar, loop_bar
from stage_lite.metrics.report import COLUMNS, METRICS
from stage_lite.metrics.report_clips import evaluated_clips
from stage_lite.metrics.set_scores import set_distance
from stage_lite.metrics.systems import ANOTHER, GENERATED, LOOP, REAL, SHUFFLED, SYSTEMS
from stage_lite.metrics.windows import draw_windows
from stage_lite.model import StageModel
from stage_lite.stems import StemDataset

SECONDS, FRAMES = 4.0, 200
NARROW = torch.ones(2, 9, dtype=torch.int64)  # two codebooks
QUICK = ("beat_f1", "onset_alignment", "tempo_error", "cml_t", "aml_t", "onset_agreement")


class HitModel(StageModel):
    """Its codes can be heard: a hit in each frame whose first code is 1. No codec gets in the way.

    The noise of a hit depends on its frame only.
    """

    def decode(self, codes):
        wav = torch.zeros(codes.shape[0], 1, 640 * codes.shape[-1])
        noise = torch.randn(1600, generator=torch.Generator().manual_seed(0))
        hit = 0.3 * noise.clamp(-3, 3) / 3 * torch.exp(-torch.arange(1600) / 200)
        for b, frame in (codes[:, 0] == 1).nonzero().tolist():
            room = wav[b, 0, 640 * frame : 640 * frame + 1600]
            room += hit[: len(room)]
        return wav


@pytest.fixture
def hit_model():
    tiny = make_tiny_model(trained_s=SECONDS)
    return HitModel(tiny.lm, tiny.codec, tiny.config)


def window(song, number=0, bpm=None, **changes):
    """A song's drums hit each beat; its context is the same with another second codebook."""
    bpm = 70 + 13 * song if bpm is None else bpm
    first = 5 + 3 * song + 2 * number
    frames = np.round(np.arange(first, FRAMES - 5, 50 * 60 / bpm)).astype(int)
    target = torch.zeros(4, FRAMES, dtype=torch.int64)
    target[0, frames] = 1
    target[3] = song
    context = target.clone()
    context[1] = 2 + number
    values = {
        "target": None, "context": None, "description": "drums, rock",
        "beat_times": frames / 50, "downbeat_times": frames[::2] / 50, "song_id": f"song{song}",
        "start_s": 10.0 * number, "duration_s": SECONDS, "condition": "mix",
        "target_name": "drums", "target_codes": target, "context_codes": context,
    }  # fmt: skip
    return Example(**(values | changes))


def windows(n_songs=6, each=2, **changes):
    return [window(song, number, **changes) for song in range(n_songs) for number in range(each)]


def perfect_player(examples):
    """Plays what belongs to the context that it is given, and hits at random without one."""
    known = {e.context_codes.numpy().tobytes(): e.target_codes for e in examples}

    def generate(lm, contexts, descriptions, n_frames, *, seed, **_):
        rows = []
        for codes, own_seed in zip(contexts, seed, strict=True):
            draw = torch.Generator().manual_seed(own_seed)
            at_random = (torch.rand(4, n_frames, generator=draw) < 0.05).long()
            rows.append(at_random if codes is None else known[codes.numpy().tobytes()])
        return SimpleNamespace(codes=torch.stack(rows))

    return generate


def deaf_player(lm, contexts, descriptions, n_frames, *, seed, **_):
    """Plays by its seed alone."""
    rows = []
    for own_seed in seed:
        draw = torch.Generator().manual_seed(own_seed)
        rows.append((torch.rand(4, n_frames, generator=draw) < 0.05).long())
    return SimpleNamespace(codes=torch.stack(rows))


def never(*_, **__):
    raise AssertionError("computed again")


# --- players whose scores are known --------------------------------------------------------------


def test_perfect_player_closes_the_gap(hit_model, monkeypatch):
    examples = windows(each=3)
    monkeypatch.setattr(systems, "generate_codes", perfect_player(examples))
    table = sl.evaluate(hit_model, examples, n=12, seed=1, progress=False,
                        metrics=[*QUICK, "kad_biased", "kad_unbiased"])  # fmt: skip
    assert list(table.columns) == list(COLUMNS)
    assert list(table.index.names) == ["metric", "system"]
    assert list(table.loc["beat_f1"].index) == list(SYSTEMS)
    for metric in (*QUICK, "kad_unbiased"):
        values = table.loc[metric]["value"]
        assert values[GENERATED] == values[REAL] and values[SHUFFLED] == values[ANOTHER]
    for metric in ("beat_f1", "onset_alignment", "onset_agreement"):
        assert table.loc[metric, REAL]["value"] > table.loc[metric, SHUFFLED]["value"] + 0.3
        assert table.attrs["gap_closed"][metric] == pytest.approx(dict.fromkeys(
            ("value", "low", "high"), 1.0))  # fmt: skip
        assert table.loc[metric, GENERATED]["p"] == pytest.approx(2 / 2**6)  # six songs
        assert np.isnan(table.loc[metric, SHUFFLED]["p"])
    row = table.loc["beat_f1", GENERATED]
    assert row["low"] <= row["value"] <= row["high"] and (row["n"], row["n_songs"]) == (12, 6)
    assert table.loc["tempo_error", REAL]["better"] == "lower"
    # the loop has the tempo, and not the phase
    assert table.loc["tempo_error", LOOP]["value"] < 4
    assert table.loc["beat_f1", LOOP]["value"] < table.loc["beat_f1", REAL]["value"]
    about = table.attrs
    assert (about["n"], about["n_songs"], about["n_reference"]) == (12, 6, 6)
    assert about["seed"] == 1 and about["missing"] == {} and about["window_s"] == SECONDS
    # the same stems in another order are the same set
    kads = table.loc["kad_biased"]["value"]
    assert kads[REAL] == pytest.approx(kads[ANOTHER])


def test_deaf_player_closes_nothing(hit_model, monkeypatch):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    table = sl.evaluate(hit_model, windows(), n=12, progress=False, metrics=["onset_alignment"])
    rows = table.loc["onset_alignment"]
    assert rows["value"][GENERATED] == rows["value"][SHUFFLED] == rows["value"]["no context"]
    assert rows["p"][GENERATED] == 1
    closed = table.attrs["gap_closed"]["onset_alignment"]
    assert closed == pytest.approx({"value": 0, "low": 0, "high": 0})


def test_without_a_gap_nothing_is_closed(hit_model, monkeypatch):
    """All songs are alike: another song's stem is as good as the real one."""
    examples = [
        window(0, number, song_id=f"song{number % 4}", start_s=float(number)) for number in range(8)
    ]
    for i, e in enumerate(examples):
        e.target_codes, e.beat_times = examples[0].target_codes, examples[0].beat_times
        e.context_codes[2] = i % TINY_CARD
    monkeypatch.setattr(systems, "generate_codes", perfect_player(examples))
    table = sl.evaluate(hit_model, examples, n=8, progress=False, metrics=["onset_alignment"])
    assert np.isnan(table.attrs["gap_closed"]["onset_alignment"]["value"])


# --- a real generation on a folder of audio ------------------------------------------------------


@pytest.fixture
def songs(tmp_path):
    return toy_corpus(tmp_path / "songs", n_train=0, n_valid=0, n_test=4)


def audio_data(songs):
    return StemDataset(songs, "bass", window_s=4.0, conditions="mixture", n=40)


def test_same_seed_same_table_and_a_cache_computes_nothing(
    songs, tiny_model, tmp_path, monkeypatch
):
    names = ["beat_f1", "onset_alignment", "onset_agreement", "chroma_agreement", "kad_unbiased"]
    options = {"n": 4, "metrics": names, "batch_size": 4, "progress": False}
    data = audio_data(songs)
    once = sl.evaluate(tiny_model, data, seed=2, **options)
    kept = sl.evaluate(tiny_model, data, seed=2, cache_dir=tmp_path / "kept", **options)
    pd.testing.assert_frame_equal(once, kept)
    assert once.attrs == kept.attrs and once.attrs["real_is"] == "audio of the data set"
    assert once.attrs["missing"] == {} and once["value"].notna().all()
    assert once.loc["chroma_agreement", REAL]["n"] == 4
    for place, name in (
        (systems, "generate_codes"), (listen, "find_onsets"), (listen, "tracked_beats"),
        (listen, "chroma_agreements"), (StageModel, "encode"), (StageModel, "decode"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, never)
    again = sl.evaluate(tiny_model, data, seed=2, cache_dir=tmp_path / "kept", **options)
    pd.testing.assert_frame_equal(once, again)
    with pytest.raises(AssertionError, match="computed again"):
        sl.evaluate(tiny_model, data, seed=3, cache_dir=tmp_path / "kept", **options)


def test_stopping_loses_nothing(hit_model, tmp_path, monkeypatch):
    examples, calls = windows(), []
    play = perfect_player(examples)

    def stops(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return play(*arguments, **options)

    monkeypatch.setattr(systems, "generate_codes", stops)
    options = {"n": 6, "metrics": ["onset_alignment"], "batch_size": 3, "progress": False,
               "cache_dir": tmp_path}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        sl.evaluate(hit_model, examples, **options)
    assert len(calls) == 3
    sl.evaluate(hit_model, examples, **options)
    assert len(calls) == 3 + 4  # of 6 batches two were there


def test_small_models_are_asked_as_by_their_own_functions(songs, tiny_model, monkeypatch):
    config = EncoderConfig(channels=(2, 2), width=4, dilations=(1,), dim=4)
    torch.manual_seed(0)
    pair = PairModel(config).eval()
    words = text.TextClassifier(config, ["drums", "bass"], ["march", "slow waltz"]).eval()
    monkeypatch.setattr(coherence_file, "load_coherence", lambda: pair)
    monkeypatch.setattr(text, "load_text_classifier", lambda: words)
    data = audio_data(songs)
    names = ["coherence", "text_stem", "text_family"]
    table = sl.evaluate(tiny_model, data, n=4, metrics=names, progress=False)
    drawn = draw_windows(data, 4, 0, lambda e: False, 0).examples
    expected = {
        "coherence": [
            coherence_file.coherence(e.context, e.target, e.sample_rate, pair) for e in drawn
        ],
    }
    agreements = [text.text_agreement(e.target, e.sample_rate, e.description, words) for e in drawn]
    expected["text_stem"] = [found.stem_probability for found in agreements]
    expected["text_family"] = [found.family_probability for found in agreements]
    for metric, values in expected.items():
        assert table.loc[metric, REAL]["value"] == pytest.approx(np.mean(values), abs=1e-4)


# --- gaps ----------------------------------------------------------------------------------------


def test_what_is_missing_is_a_gap_and_the_rest_comes_out(hit_model, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)

    def no_model():
        raise StageLiteError("no coherence model in the folder")

    monkeypatch.setattr(coherence_file, "load_coherence", no_model)
    monkeypatch.setattr(text, "load_text_classifier", no_model)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # without anyone's weights
    table = sl.evaluate(hit_model, windows(), n=6, progress=False, tracker="beat-this",
                        embedding="vggish", out=tmp_path / "report")  # fmt: skip
    missing = table.attrs["missing"]
    assert set(missing) == {
        "beat_f1", "tempo_error", "cml_t", "aml_t", "chroma_agreement", "coherence", "text_stem",
        "text_family", "fad_biased", "fad_unbiased", "kad_biased", "kad_unbiased",
    }  # fmt: skip
    assert "beat-this" in missing["beat_f1"] and "vggish" in missing["fad_biased"]
    assert "pitched target" in missing["chroma_agreement"]
    assert missing["coherence"] == "no coherence model in the folder"
    assert list(dict.fromkeys(table.index.get_level_values(0))) == list(METRICS)
    for metric in missing:
        assert table.loc[metric][["value", "low", "high", "p"]].isna().all().all()
        assert (table.loc[metric]["n"] == 0).all()
    assert table.loc["onset_alignment"]["value"].notna().all()
    said = capsys.readouterr().out
    assert said.count("no coherence model in the folder") == 1
    assert "not measured: coherence, text_stem, text_family: no coherence model" in said
    assert "no coherence model in the folder" in (tmp_path / "report/report.html").read_text()


def test_functions_of_the_user(hit_model, monkeypatch):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    names = ["beat_f1", "onset_alignment", "kad_unbiased"]

    def broken(*_):
        raise KeyError("oh")

    examples = windows(each=4)
    options = {"n": 12, "metrics": names, "progress": False}
    table = sl.evaluate(hit_model, examples, tracker=broken, embedding=broken, **options)
    assert table.attrs["missing"] == {
        "beat_f1": "the beat tracker raised KeyError: 'oh'",
        "kad_unbiased": "the embedding raised KeyError: 'oh'",
    }
    assert table.loc["onset_alignment"]["value"].notna().all()

    def nothing_but_nan(wavs, sample_rate):
        return np.full((len(wavs), 2), np.nan)

    def each_half_second(wav, sample_rate):
        assert wav.shape == (1, 128000) and sample_rate == 32000
        return np.arange(0.1, 4, 0.5)

    table = sl.evaluate(
        hit_model, examples, tracker=each_half_second, embedding=nothing_but_nan, **options
    )
    assert "NaN" in table.attrs["missing"]["kad_unbiased"]
    values = table.loc["beat_f1"]["value"]
    assert len(set(values)) == 1 and 0 < values[REAL] < 1  # the same beats whatever is played
    assert table.attrs["settings"]["tracker"] == "each_half_second"


def test_clicks_are_no_mix(hit_model, monkeypatch):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    table = sl.evaluate(hit_model, windows(condition="metronome"), n=6, progress=False,
                        metrics=["onset_alignment", "onset_agreement"])  # fmt: skip
    assert "not a click" in table.attrs["missing"]["onset_agreement"]
    assert table.loc["onset_agreement"]["value"].isna().all()


def test_silence_and_windows_without_beats_are_passed_over_and_counted(hit_model, monkeypatch):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    silent = window(0, 5, target_codes=torch.zeros(4, FRAMES, dtype=torch.int64))
    beatless = window(1, 6, beat_times=np.zeros(0))
    alone = window(2, 7, context_codes=None)
    examples = [*windows(), silent, beatless, alone]
    table = sl.evaluate(hit_model, examples, n=15, progress=False, metrics=["onset_alignment"])
    assert table.attrs["left_out"] == {
        "no context": 1, "fewer than 4 beats": 1, "silent stem": 1,
    }  # fmt: skip
    assert table.attrs["n"] == 12 and (table["n"] == 12).all()


# --- windows -------------------------------------------------------------------------------------


def test_lenders_are_other_songs_and_the_reference_other_windows():
    examples = windows(each=4) + [replaced(e) for e in windows(each=4)]
    drawn = draw_windows(examples, 20, 3, lambda e: False, 20)
    assert sorted(drawn.lenders) == list(range(20))
    for e, lender in zip(drawn.examples, drawn.lenders, strict=True):
        other = drawn.examples[lender]
        assert other.song_id != e.song_id and other.target_name == e.target_name
    taken = {(e.song_id, e.target_name, e.start_s) for e in drawn.examples}
    assert len(taken) == 20 and 0 < len(drawn.reference) <= 20
    assert not taken & {(e.song_id, e.target_name, e.start_s) for e in drawn.reference}
    again = draw_windows(examples, 20, 3, lambda e: False, 20)
    assert [e.start_s for e in again.examples] == [e.start_s for e in drawn.examples]


def replaced(example):
    example.target_name = "bass"
    return example


def test_no_song_lends_to_itself_however_many_windows_it_has():
    examples = [*windows(1, 10), window(1), window(2)]
    drawn = draw_windows(examples, 6, 0, lambda e: False, 0)
    songs = drawn.song_ids
    assert all(songs.count(song) <= len(songs) / 2 for song in songs)
    assert all(drawn.examples[i].song_id != song
               for i, song in zip(drawn.lenders, songs, strict=True))  # fmt: skip


def mixed(**change):
    return [*windows(3), *windows(3, song_id="x", **change)]


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        (windows(), {"n": 1}, "n is 1; expected a whole number of windows of at least 2"),
        ([], {}, "the data set is empty"),
        (windows(), {"n": 50}, "has 12 windows; expected at least n = 50; pass n=12"),
        (windows(1, 12), {}, "are of one song, 'song0'; expected two at least"),
        (windows(context_codes=None), {}, "12 no context.*give the data set conditions="),
        (windows(beat_times=np.zeros(0)), {}, "none of .* windows can be evaluated"),
        (windows(beat_times=np.array([0.5, 9.0])), {}, "beat_times of drums of 'song.*has 9 s"),
        (windows(target_codes=None), {}, "has no target, neither audio nor codes"),
        ([1] * 8, {}, "is a int; expected a stage_lite.Example"),
        (mixed(duration_s=5.0), {"n": 12}, r"different lengths: \[4.0, 5.0\] s"),
        (windows(context_codes=torch.full((4, 9), TINY_CARD)), {}, "codes below 16"),
        (windows(target_codes=NARROW, context_codes=NARROW), {}, "have 2 codebooks"),
        (windows(), {"metrics": ["beat_f2"]}, "metrics is .'beat_f2'.; expected some of beat_f1"),
        (windows(), {"metrics": []}, "expected some of"),
        (windows(), {"tracker": "madmom"}, "unknown beat tracker 'madmom'"),
        (windows(), {"tracker": "grid"}, "'grid' came without times"),
        (windows(), {"embedding": "mfcc"}, "no embedding is called 'mfcc'"),
        (windows(), {"batch_size": 0}, "batch_size is 0"),
        (windows(), {"batch_size": None}, "batch_size is None; expected a whole number"),
        (windows(), {"n": "all"}, "n is 'all'; expected a whole number of windows"),
        (windows(), {"n": float("nan")}, "n is nan; expected a whole number of windows"),
        (windows(), {"seed": -1}, "seed is -1; expected a whole number from 0"),
        (windows(), {"embedding": ["codec"]}, r"no embedding is called \['codec'\]"),
        ("songs", {}, "the data set is 'songs'; expected a data set, such as StemDataset"),
        (Path("songs"), {}, "the data set is .*Path.'songs'.; expected a data set"),
        (None, {}, "the data set is None; expected a data set"),
        (windows(), {"out": __file__}, "is a file; expected a folder"),
        (windows(), {"out": f"{__file__}/report"}, "cannot be made .Not a directory."),
        (windows(), {"cache_dir": __file__}, "is a file; expected a folder"),
    ],
)
def test_bad_input_is_one_sentence(
    hit_model, monkeypatch, unchecked_types, examples, options, message
):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    with pytest.raises(StageLiteError, match=message):
        sl.evaluate(hit_model, examples, **({"n": 6, "progress": False} | options))


def test_audio_of_different_rates_and_bad_samples(tiny_model):
    def heard(song, rate=RATE, spoil=False):
        wav = tone(300.0, 2.0, rate)
        if spoil:
            wav[0, 7] = float("nan")
        return window(
            song, duration_s=2.0, beat_times=np.arange(0.1, 2, 0.4), target=wav, context=wav,
            sample_rate=rate, target_codes=None, context_codes=None,
        )  # fmt: skip

    options = {"n": 3, "progress": False, "metrics": ["onset_alignment"]}
    with pytest.raises(StageLiteError, match=r"different sample rates: \[8000, 16000\] Hz"):
        sl.evaluate(tiny_model, [heard(0), heard(1), heard(2, 16000)], **options)
    with pytest.raises(StageLiteError, match="drums of 'song2' at 0.00 s has NaN"):
        sl.evaluate(tiny_model, [heard(0), heard(1), heard(2, spoil=True)], **options)


def test_rows_of_different_sizes_are_a_gap(hit_model, monkeypatch):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    calls = iter(range(1000))

    def ragged(wavs, sample_rate):
        return np.ones((1, 2 + next(calls) % 2))

    names = ["onset_alignment", "kad_unbiased"]
    table = sl.evaluate(
        hit_model, windows(each=4), n=12, metrics=names, embedding=ragged, progress=False
    )
    assert "gave rows of 2 to 3 dimensions" in table.attrs["missing"]["kad_unbiased"]
    assert table.loc["onset_alignment"]["value"].notna().all()


def test_a_name_is_no_model():
    with pytest.raises(StageLiteError, match="model is 'nano'; expected a StageModel"):
        sl.evaluate("nano", windows(), n=6)


def test_a_model_that_cannot_hear_is_an_error(tiny_base):
    with pytest.raises(StageLiteError, match="no context token.*such as 'nano'"):
        sl.evaluate(tiny_base, windows(), n=6)


# --- to hear -------------------------------------------------------------------------------------


def test_clips_are_what_was_evaluated(hit_model, monkeypatch, tmp_path):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    asked = {"n": 6, "seed": 3, "cache_dir": tmp_path / "cache", "progress": False}
    sl.evaluate(hit_model, windows(), **asked, metrics=["beat_f1"], out=tmp_path / "report")
    written = json.loads((tmp_path / "report/report.json").read_text())
    monkeypatch.setattr(systems, "generate_codes", never)
    items = evaluated_clips(hit_model, windows(), **asked)
    assert [i.id for i in items] == [
        f"{w['song']} {w['target']} {w['start_s']:.2f} s" for w in written["windows"]
    ]
    known = {(e.song_id, e.start_s): e for e in windows()}
    for number, (item, w) in enumerate(zip(items, written["windows"], strict=True)):
        e = known[w["song"], w["start_s"]]
        assert list(item.clips) == list(SYSTEMS) and item.context[1] == 32000
        assert torch.equal(item.context[0], hit_model.decode(e.context_codes[None])[0])
        assert torch.equal(item.clips[REAL][0], hit_model.decode(e.target_codes[None])[0])
        for system, clip in item.clips.items():
            score = beat_f1(e.beat_times, *clip)
            assert score == pytest.approx(written["scores"]["beat_f1"][system][number])
    few = evaluated_clips(hit_model, windows(), **asked, systems=[GENERATED], most=2)
    assert [(i.id, list(i.clips)) for i in few] == [(i.id, [GENERATED]) for i in items[:2]]
    with pytest.raises(StageLiteError, match=r"systems is \['nano'\]; expected some of real"):
        evaluated_clips(hit_model, windows(), **asked, systems=["nano"])


# --- files ---------------------------------------------------------------------------------------


def test_files(hit_model, monkeypatch, tmp_path):
    monkeypatch.setattr(systems, "generate_codes", deaf_player)
    names = ["onset_alignment", "tempo_error", "fad_biased"]  # FAD: too few windows
    table = sl.evaluate(
        hit_model, windows(), n=6, metrics=names, out=tmp_path / "a" / "report", progress=False
    )
    folder = tmp_path / "a" / "report"

    def no_nan(word):
        raise AssertionError(f"{word} is no JSON")

    written = json.loads((folder / "report.json").read_text(), parse_constant=no_nan)
    assert len(written["rows"]) == 3 * len(SYSTEMS) and written["n"] == 6
    assert written["rows"][0]["value"] == table.iloc[0]["value"]
    lost = [row for row in written["rows"] if row["metric"] == "fad_biased"]
    assert all(row["value"] is None for row in lost)
    assert "n > d" in written["missing"]["fad_biased"]
    columns = written["scores"]["onset_alignment"]
    assert len(written["windows"]) == len(columns[REAL]) == 6
    assert np.mean(columns[REAL]) == pytest.approx(table.loc["onset_alignment", REAL]["value"])
    page = (folder / "report.html").read_text()
    assert "http:" not in page and "https:" not in page and 'src="data:image/png' in page
    for words in ("Not measured", "n &gt; d", "How to read this", "onset alignment", "seed 0"):
        assert words in page
    assert len(written["figure"]["alt"]) > 100 and "onset alignment: real" in page
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


# --- the parts -----------------------------------------------------------------------------------


def test_agreement_is_that_of_coherence():
    draw = np.random.default_rng(0)
    rate = 22050
    mix, good, bad = (torch.zeros(1, 3 * rate) for _ in range(3))
    time = np.arange(rate // 4) / rate
    for i, start in enumerate(np.arange(0.2, 2.6, 0.4)):
        for wav, semitone in ((mix, i), (good, i), (bad, draw.integers(12))):
            note = 0.3 * np.exp(-8 * time) * np.sin(2 * np.pi * 262 * 2 ** (semitone / 12) * time)
            place = round(start * rate)
            wav[0, place : place + len(time)] += torch.from_numpy(note).float()
    silent = torch.zeros(1, 3 * rate)
    stems = [good, bad, silent]
    expected = [coherence_file.chroma_agreement(mix, stem, rate) for stem in stems]
    assert chroma_agreements(mix, stems, rate) == pytest.approx(expected, abs=1e-6)
    assert expected[0] > 0.9 > expected[1]
    for stem in stems:
        known = onset_agreement_of_times(find_onsets(mix, rate), find_onsets(stem, rate), 3.0)
        assert known == pytest.approx(coherence_file.onset_agreement(mix, stem, rate))
    with pytest.raises(StageLiteError, match="no onsets"):
        onset_agreement_of_times([], [1.0], 3.0)
    with pytest.raises(StageLiteError, match="expected at most 95%"):
        onset_agreement_of_times(np.arange(0.02, 3, 0.05), [1.0], 3.0)


def test_loop_has_the_tempo_and_begins_with_the_window():
    rate = 32000
    beats = np.arange(0.3, 4, 0.6)  # 100 bpm
    wav = torch.zeros(1, 4 * rate)
    for i, beat in enumerate(beats):
        hz = 500.0 if i % 3 == 0 else 2000.0
        wav[0, round(beat * rate) : round(beat * rate) + 3200] = tone(hz, 0.1, rate, 0.5)[0]
    bar = find_bar(wav, rate, beats, beats[::3])
    assert bar == pytest.approx((0.3, 2.1, 3))
    looped = loop_bar(wav, rate, bar, 0.5, 4.2)  # 120 bpm
    assert looped.shape == (1, round(4.2 * rate))
    onsets = find_onsets(looped, rate)
    expected = np.arange(0.5, 4.2, 0.5)  # the very first, at 0, may go unheard
    assert np.abs(onsets[:, None] - expected).min(axis=0).max() < 0.06
    loud = looped[0, : round(0.1 * rate)].square().mean()
    assert loud > 10 * looped[0, round(0.3 * rate) : round(0.4 * rate)].square().mean()
    with pytest.raises(StageLiteError, match="one beat"):
        find_bar(wav, rate, beats, beats[:1])
    with pytest.raises(StageLiteError, match="none of 2 bars holds beats and sound"):
        find_bar(0 * wav, rate, beats, beats[::3])
    with pytest.raises(StageLiteError, match="expected 0.2 to 5"):
        loop_bar(wav, rate, Bar(0.0, 2.0, 1), 0.1, 4.0)


def test_jackknife_over_songs():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(12, 2)), draw.normal(size=(9, 2)) + 0.5
    songs = np.repeat(["a", "b", "c"], 3)
    found = set_distance("kad_unbiased", x, y, songs)
    left = np.array([kad(x, y[songs != song]) for song in "abc"])
    error = np.sqrt(2 / 3 * np.square(left - left.mean()).sum())
    assert found["value"] == pytest.approx(kad(x, y))
    assert found["high"] - found["value"] == pytest.approx(4.302653 * error)  # t, 2 degrees
    assert found["value"] - found["low"] == pytest.approx(4.302653 * error)
    assert set_distance("kad_biased", x, y, songs)["low"] >= 0
    alone = set_distance("kad_unbiased", x, y, ["a"] * 9)
    assert np.isnan(alone["low"]) and alone["value"] == found["value"]
    with pytest.raises(StageLiteError, match="n > d"):
        set_distance("fad_biased", x, y[:2], ["a", "b"])
