"""metrics/coherence.py and contrastive.py, and the training of the small model."""

import json
import os
import signal
import sys
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from toy_corpus import toy_corpus

from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.metrics import agreement
from stage_lite.metrics import coherence as coherence_file
from stage_lite.metrics.coherence import (
    chroma_agreement,
    coherence,
    interval_over_songs,
    load_cocola,
    load_coherence,
    onset_agreement,
    pulse_agreement,
    retrieval_accuracy,
    score_matrix,
)
from stage_lite.metrics.contrastive import (
    EncoderConfig,
    PairModel,
    Spectra,
    load_pair_model,
    save_pair_model,
)
from stage_lite.metronome import click_track

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import small_training
import train_coherence
from segments import read_songs

RATE = 32000
BEATS = np.arange(0.3, 7.9, 0.5)
TINY = EncoderConfig(n_bands=72, long_fft=4096, channels=(4, 8), width=16, dilations=(1, 2), dim=16)


def clicks(times, seconds=8.0, rate=RATE):
    return click_track(np.asarray(times), np.zeros(0), duration_s=seconds, sample_rate=rate)


def notes(*semitones, seconds=2.0, rate=RATE):
    """Sines above middle C, all as loud."""
    time = torch.arange(round(seconds * rate)) / rate
    return (
        0.1 * sum(torch.sin(2 * torch.pi * 261.626 * 2 ** (s / 12) * time) for s in semitones)[None]
    )


def tiny_model(seed=0, **settings):
    torch.manual_seed(seed)
    return PairModel(replace(TINY, **settings)).eval()


# --- onsets and pulse ----------------------------------------------------------------------------


def test_onsets_of_a_stem_on_those_of_the_mix():
    mix = clicks(BEATS)
    assert onset_agreement(mix, mix, RATE) == 1.0
    assert onset_agreement(mix, clicks(BEATS[::4] + 0.03), RATE) == 1.0  # where, not whether
    assert onset_agreement(mix, clicks(BEATS + 0.25), RATE) < -0.2  # in the gaps


def test_onset_agreement_is_the_share_above_chance():
    """Half of the onsets hit; the mix covers 100 ms around each of its onsets."""
    stem = clicks(np.sort(np.concatenate([BEATS[:8], BEATS[8:-1] + 0.25])))
    covered = len(BEATS) * 0.1 / 8.0
    expected = (8 / 15 - covered) / (1 - covered)
    assert onset_agreement(clicks(BEATS), stem, RATE) == pytest.approx(expected, abs=0.01)


def test_onsets_at_random_times_score_zero_on_average():
    rng = np.random.default_rng(3)
    mix = clicks(np.arange(0.3, 19.5, 0.5), 20.0)
    scores = []
    for _ in range(6):
        times = (
            np.arange(0.2, 19.5, 0.35) + rng.uniform(0, 0.25, 56)[: len(np.arange(0.2, 19.5, 0.35))]
        )
        scores.append(onset_agreement(mix, clicks(times, 20.0), RATE))
    assert abs(np.mean(scores)) < 0.06


def test_pulse_of_the_mix_counts_where_it_has_few_onsets():
    sparse = clicks(BEATS[::4])
    stem = clicks(BEATS)
    assert onset_agreement(sparse, stem, RATE) < 0.4
    assert pulse_agreement(sparse, stem, RATE, lambda wav, rate: BEATS) == 1.0
    assert pulse_agreement(clicks(BEATS), stem, RATE) > 0.9  # by librosa's tracker
    assert pulse_agreement(sparse, stem, RATE, lambda wav, rate: BEATS + 0.125) < 0


# --- chroma --------------------------------------------------------------------------------------


def test_chroma_of_known_chords():
    """One note against two: correlation of one with two classes of twelve, 5 / sqrt(55)."""
    assert chroma_agreement(notes(0), notes(0), RATE) > 0.98
    assert chroma_agreement(notes(0), notes(12), RATE) > 0.9  # an octave is no difference
    expected = (1 - 2 / 12) / np.sqrt((1 - 1 / 12) * (2 - 4 / 12))
    assert expected == pytest.approx(5 / np.sqrt(55))
    # librosa's chroma of two equal notes are not quite equal, see the next test
    assert chroma_agreement(notes(0, 7), notes(0), RATE) == pytest.approx(expected, abs=0.1)
    assert chroma_agreement(notes(0, 4), notes(6), RATE) < -0.05


def test_chroma_agreement_is_the_mean_correlation_of_half_seconds():
    """Computed again with scipy from librosa's chroma."""
    mix = notes(0, 4, seconds=2.0, rate=22050)
    stem = torch.cat([notes(0, seconds=1.0, rate=22050), notes(7, seconds=1.0, rate=22050)], 1)
    tuning = librosa.estimate_tuning(y=mix[0].numpy(), sr=22050)
    chroma = [
        librosa.feature.chroma_cqt(y=wav[0].numpy(), sr=22050, tuning=tuning, norm=None)
        for wav in (mix, stem)
    ]
    halves = [[half.mean(axis=1) for half in np.array_split(c, 4, axis=1)] for c in chroma]
    expected = np.mean([pearsonr(a, b).statistic for a, b in zip(*halves, strict=True)])
    assert chroma_agreement(mix, stem, 22050) == pytest.approx(expected, abs=1e-6)


def test_chroma_over_all_transpositions_is_zero():
    mix = notes(0, 4, 7, seconds=1.0)
    scores = [chroma_agreement(mix, notes(s, seconds=1.0), RATE) for s in range(12)]
    assert abs(np.mean(scores)) < 0.03
    assert set(np.argsort(scores)[-3:]) == {0, 4, 7}


def test_chroma_follows_time_and_leaves_silence_out():
    halves = torch.cat([notes(0, seconds=2), notes(6, seconds=2)], dim=1)
    swapped = torch.cat([notes(6, seconds=2), notes(0, seconds=2)], dim=1)
    assert chroma_agreement(halves, halves, RATE) > 0.9
    assert chroma_agreement(halves, swapped, RATE) < 0.1
    half = torch.cat([notes(0, seconds=2), torch.zeros(1, 2 * RATE)], dim=1)
    assert chroma_agreement(halves, half, RATE) > 0.9
    rest = torch.cat([torch.zeros(1, 2 * RATE), notes(0, seconds=2)], dim=1)
    assert chroma_agreement(half, rest, RATE) == 0.0  # never heard at once


# --- the model -----------------------------------------------------------------------------------


def test_spectra_hear_notes_time_and_no_level():
    spectra = Spectra(EncoderConfig())
    a = notes(9, seconds=1.28)  # A4, 45 semitones above C1
    heard = spectra(a)
    assert heard.shape == (1, 2, 96, 80)
    assert heard[0, :, :, 40].argmax(dim=1).tolist() == [45, 45]
    assert torch.allclose(spectra(0.01 * a), heard, atol=1e-3)
    assert torch.all(spectra(torch.zeros(1, RATE)) == spectra.silence_value)
    late = clicks([0.5], 1.28)
    assert int(spectra(late)[0, 0].mean(dim=0).argmax()) == pytest.approx(0.5 / 0.016, abs=1)


def test_transposed_spectra_are_those_of_transposed_notes():
    spectra = Spectra(EncoderConfig())
    low, high = spectra(notes(0, 4, seconds=1.28)), spectra(notes(3, 7, seconds=1.28))
    moved = small_training.transpose(low, 3, spectra.silence_value)
    middle = (slice(24, None), slice(20, 60))  # neither ends nor notes that are blurred
    assert (moved - high)[0, 1][middle].abs().mean() < 0.01
    assert (low - high)[0, 1][middle].abs().mean() > 0.15
    assert (moved[:, :, :3] == spectra.silence_value).all()
    back = small_training.transpose(moved, -3, spectra.silence_value)
    assert torch.equal(back[:, :, :-3], low[:, :, :-3])


def test_similarity_is_the_mean_over_time():
    """Against the sum written out, and a longer window is the mean of its parts."""
    model = tiny_model()
    model.bilinear.data.normal_(generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 6, 16, generator=draw), torch.randn(3, 6, 16, generator=draw)
    expected = sum(x[:, t] @ model.bilinear @ y[:, t].T for t in range(6)) / 6
    assert torch.allclose(model.similarities(x, y), expected, atol=1e-5)
    halves = [model.similarities(x[:, h], y[:, h]) for h in (slice(0, 3), slice(3, 6))]
    assert torch.allclose(sum(halves) / 2, expected, atol=1e-5)


def test_coherence_of_one_pair_is_that_of_a_batch():
    model = tiny_model()
    model.floor, model.ceiling = 0.5, 2.5
    mixes = torch.cat([clicks(BEATS, 2.0), notes(0, 4, seconds=2.0)])
    stems = torch.cat([notes(3, seconds=2.0), clicks([0.5, 1.0], 2.0)])
    with torch.no_grad():
        raw = model.similarities(model.embed(mixes), model.embed(stems))
    for i in range(2):
        score = coherence(mixes[i], stems[i], RATE, model)
        assert score == pytest.approx((float(raw[i, i]) - 0.5) / 2.0, abs=1e-4)
    quiet = coherence(mixes[0] * 0.1, (stems[0] * 0.5).expand(2, -1), RATE, model)
    assert quiet == pytest.approx(coherence(mixes[0], stems[0], RATE, model), abs=1e-3)
    assert np.isfinite(coherence(notes(0, seconds=5.0), notes(4, seconds=5.0), RATE, model))


def test_saved_model_is_the_model(tmp_path, monkeypatch):
    model = tiny_model()
    model.floor, model.ceiling = 0.1, 0.9
    save_pair_model(model, tmp_path, {"right mix of 16": {"value": 0.5}}, "# Card\n")
    loaded = load_coherence(tmp_path)
    assert loaded.results == {"right mix of 16": {"value": 0.5}}
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
    a, b = notes(0, 4, seconds=2.0), notes(7, seconds=2.0)
    expected = coherence(a, b, RATE, model)
    assert coherence(a, b, RATE, loaded) == pytest.approx(expected, abs=0.01)  # half precision
    monkeypatch.setattr(coherence_file, "PRETRAINED", tmp_path.parent)
    (tmp_path.parent / "coherence").symlink_to(tmp_path)
    assert coherence(a, b, RATE) == pytest.approx(expected, abs=0.01)


def test_the_shipped_size_fits():
    model = PairModel(EncoderConfig())
    n = sum(v.numel() for v in model.state_dict().values())
    assert 200_000 < n < 400_000  # below 1 MB in half precision


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors missing"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"x"), "sha256.*cut short"),
        (lambda f: (f / "config.json").write_text("{"), "no config of a coherence model"),
        (lambda f: (f / "config.json").write_text("[]"), "no config of a coherence model"),
    ],
)
def test_broken_folders(tmp_path, spoil, message):
    save_pair_model(tiny_model(), tmp_path, {}, "")
    spoil(tmp_path)
    with pytest.raises(StageLiteError, match=message):
        load_pair_model(tmp_path)


def test_a_folder_of_another_model(tmp_path):
    save_pair_model(tiny_model(), tmp_path, {}, "")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"kind": "text classifier"}))
    with pytest.raises(StageLiteError, match="holds a 'text classifier'; expected a 'coherence"):
        load_pair_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"floor": 1.0}))
    with pytest.raises(StageLiteError, match="has learnt nothing"):
        load_pair_model(tmp_path)
    config["encoder"]["n_bands"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageLiteError, match="do not belong together"):
        load_pair_model(tmp_path)
    config["encoder"]["colour"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageLiteError, match="unknown fields"):
        load_pair_model(tmp_path)


def test_without_weights_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(coherence_file, "PRETRAINED", tmp_path / "none")
    with pytest.raises(StageLiteError, match=r"no coherence model in .*train_coherence.py wrote"):
        coherence(clicks(BEATS), clicks(BEATS), RATE)


# --- the right mix among sixteen -----------------------------------------------------------------


def examples(n_songs=20, per_song=2, seconds=1.0):
    """Context and target of song i both hold the constant (i + 1) / 100."""
    made = []
    for i in range(n_songs * per_song):
        song = i // per_song
        wav = torch.full((1, round(seconds * RATE)), (song + 1) / 100)
        made.append(Example(wav, wav, "drums", np.zeros(0), np.zeros(0), f"song{song}", 0.0,
                            seconds, "backing"))  # fmt: skip
    return made


def near(mix, stem, sample_rate):
    return -abs(float(mix.mean() - stem.mean()))


def test_retrieval_of_known_scorers():
    found = retrieval_accuracy(examples(), near)
    assert found == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 40, "n_songs": 20,
                     "chance": 1 / 16, "n_left_out": 0}  # fmt: skip
    assert retrieval_accuracy(examples(), lambda *a: -near(*a))["value"] == 0.0
    assert retrieval_accuracy(examples(), lambda *a: 1.0)["value"] == pytest.approx(1 / 16)


def test_retrieval_by_chance_and_by_seed():
    rng = np.random.default_rng(0)
    found = retrieval_accuracy(examples(60, 5), lambda *a: rng.random(), n_others=3)
    assert found["low"] < 0.25 < found["high"] and 0.15 < found["value"] < 0.35
    louder = partial(retrieval_accuracy, examples(), lambda mix, *a: float(mix.mean()), 2)
    assert louder(seed=1) == louder(seed=1)
    assert len({louder(seed=s)["value"] for s in range(5)}) > 1


def test_retrieval_leaves_out_what_cannot_be_scored():
    def fussy(mix, stem, sample_rate):
        if float(stem.mean()) < 0.055:  # songs 0 to 4
            raise StageLiteError("the mix has no onsets")
        return near(mix, stem, sample_rate)

    found = retrieval_accuracy(examples(), fussy)
    assert (found["value"], found["n"], found["n_left_out"]) == (1.0, 30, 10)
    with pytest.raises(StageLiteError, match="no example could be scored: the mix has no onsets"):
        retrieval_accuracy(examples()[:10], fussy, n_others=3)


def test_retrieval_of_a_model_is_that_of_its_scores():
    """All pairs at once, or one by one through `coherence`."""
    model, rng = tiny_model(), np.random.default_rng(5)
    made = [replace(e, target=clicks(np.arange(rng.uniform(0.1, 0.3), 1.1, 0.3), 1.28),
                    context=notes(*rng.integers(0, 12, 2), seconds=1.28))
            for e in examples(6, 1)]  # fmt: skip
    one_by_one = retrieval_accuracy(made, partial(coherence, model=model), n_others=3)
    assert retrieval_accuracy(made, model, n_others=3) == one_by_one


def test_a_matrix_holds_what_pairs_score():
    model = tiny_model()
    mixes = [notes(root, root + 7, seconds=1.28) for root in (0, 2, 5)]
    stems = [clicks(np.arange(start, 1.1, 0.3), 1.28) for start in (0.1, 0.25)]
    matrix = score_matrix(mixes, stems, RATE, model)
    assert matrix.shape == (3, 2)
    for m, mix in enumerate(mixes):
        for s, stem in enumerate(stems):
            score = (matrix[m, s] - model.floor) / (model.ceiling - model.floor)
            assert score == pytest.approx(coherence(mix, stem, RATE, model), abs=1e-4)
    with pytest.raises(StageLiteError, match=r"the 2 stem wavs have lengths of .* one for all"):
        score_matrix(mixes, [stems[0], stems[1][:, :-3200]], RATE, model)


def test_interval_over_songs():
    songs = [f"song{i // 5}" for i in range(50)]
    values = np.repeat([0.0, 1.0], 25)
    found = interval_over_songs(values, songs)
    assert (found["value"], found["n"], found["n_songs"]) == (0.5, 50, 10)
    assert 0.15 < found["low"] < 0.3 and 0.7 < found["high"] < 0.85  # sqrt(.25 / 10) x 1.96


# --- empty and malformed -------------------------------------------------------------------------

MEASURES = [onset_agreement, pulse_agreement, chroma_agreement, partial(coherence, model=object())]


@pytest.mark.parametrize("measure", MEASURES, ids=["onset", "pulse", "chroma", "model"])
def test_silence(measure, unchecked_types):
    silence, mix = torch.zeros(1, 2 * RATE), clicks([0.5, 1.0, 1.5], 2.0)
    assert measure(mix, silence, RATE) == 0.0
    assert measure(mix, 1e-4 * torch.randn(1, 2 * RATE), RATE) == 0.0
    with pytest.raises(StageLiteError, match="mix_wav is silent"):
        measure(silence, mix, RATE)


@pytest.mark.parametrize("measure", MEASURES, ids=["onset", "pulse", "chroma", "model"])
def test_malformed_pairs(measure, unchecked_types):
    wav = clicks([0.5, 1.0, 1.5], 2.0)
    for mix, stem, rate, message in [
        (wav, wav[:, :RATE], RATE, "mix_wav is 2.00 s long and stem_wav 1.00 s"),
        (wav, wav * float("nan"), RATE, "stem_wav has NaN"),
        (wav[None], wav, RATE, r"mix_wav has shape \(1, 1, 64000\)"),
        (wav, wav[:, :0], RATE, "stem_wav has 0 samples"),
        (wav, wav, 5, "sample rate 5"),
    ]:
        with pytest.raises(StageLiteError, match=message):
            measure(mix, stem, rate)
    measure_short = wav[:, : RATE // 10]
    if measure in MEASURES[2:]:
        with pytest.raises(StageLiteError, match="has 3200 samples; expected at least 32000"):
            measure(measure_short, measure_short, RATE)


def test_a_codecs_frame_more_is_cut():
    mix = clicks(BEATS)
    longer = torch.nn.functional.pad(mix, (0, 640))
    assert onset_agreement(mix, longer, RATE) == onset_agreement(longer, mix, RATE) == 1.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: onset_agreement(clicks(BEATS), clicks(BEATS), RATE, 0.26),
         "9[89]% of the window lies within 0.26 s"),
        (lambda: onset_agreement(clicks(BEATS), clicks(BEATS), RATE, 0.0), "window_s is 0.0"),
        (lambda: pulse_agreement(clicks(BEATS), clicks(BEATS), RATE, lambda w, r: [1.0]),
         "1 beats were heard in the mix"),
        (lambda: retrieval_accuracy([], near), "got no examples"),
        (lambda: retrieval_accuracy(examples(4, 1), near), "3 of 4 examples are of another song"),
        (lambda: retrieval_accuracy(examples(), near, 0), "n_others is 0"),
        (lambda: retrieval_accuracy(examples(), lambda *a: float("nan")), "finite numbers"),
        (lambda: retrieval_accuracy([replace(e, context=None) for e in examples()], near),
         "example 0 has no context as audio"),
        (lambda: retrieval_accuracy([*examples(), *examples(1, 1, 2.0)], near), "one length"),
        (lambda: EncoderConfig(channels=(8,)), "at least two numbers"),
        (lambda: Spectra(replace(TINY, n_bands=120)), "120 semitones"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(unchecked_types, call, message):
    with pytest.raises(StageLiteError, match=message):
        call()


def test_a_mix_without_onsets(monkeypatch):
    monkeypatch.setattr(agreement, "find_onsets", lambda wav, sample_rate: np.zeros(0))
    with pytest.raises(StageLiteError, match="the mix has no onsets.*leave the window out"):
        onset_agreement(notes(0), clicks([1.0], 2.0), RATE)


# --- COCOLA --------------------------------------------------------------------------------------


def test_cocola_without_package_or_checkpoint(monkeypatch, tmp_path):
    with pytest.raises(StageLiteError, match="contrastive_model.*gladia-research-group/cocola"):
        load_cocola(tmp_path / "cocola.ckpt")
    fake_cocola(monkeypatch)
    with pytest.raises(StageLiteError, match="no COCOLA checkpoint at .*cocola.ckpt"):
        load_cocola(tmp_path / "cocola.ckpt")
    with pytest.raises(StageLiteError, match="mode is 'bass'"):
        load_cocola(tmp_path / "cocola.ckpt", mode="bass")


@pytest.mark.parametrize("seconds, n_windows", [(5.0, 1), (8.0, 2), (10.0, 3)])
def test_cocola_gets_windows_and_keeps_its_hands_off(monkeypatch, tmp_path, seconds, n_windows):
    """A stand-in with the published interface: batches of one lose an axis, inputs are changed."""
    calls = fake_cocola(monkeypatch)
    (tmp_path / "cocola.ckpt").write_bytes(b"weights")
    score = load_cocola(tmp_path / "cocola.ckpt", mode="harmonic", weights_only=False)
    assert calls["loaded"] == {"map_location": "cpu", "weights_only": False}
    assert calls["mode"] == "HARMONIC"
    mix = torch.full((1, round(seconds * RATE)), 0.5)
    for _ in range(2):  # the second would see what the first has changed
        assert score(mix, 0.5 * mix, RATE) == pytest.approx(0.125, abs=0.01)
    assert calls["windows"] == [(n_windows, 1, 80000)] * 4
    with pytest.raises(StageLiteError, match="expected at least 160000"):
        score(mix[:, :RATE], mix[:, :RATE], RATE)


def fake_cocola(monkeypatch):
    """Score: mean of the product of the two windows' means."""
    calls = {"windows": []}

    class CoCola:
        @classmethod
        def load_from_checkpoint(cls, path, **options):
            calls["loaded"] = options
            return cls()

        def eval(self):
            return self

        def set_embedding_mode(self, mode):
            calls["mode"] = mode

        def score(self, x, y):
            assert x.dim() == 4 and x.shape == y.shape
            found = (x * y).mean(dim=(1, 2, 3))
            x.zero_()
            return found

    class CoColaFeatureExtractor:
        def __call__(self, wav):
            calls["windows"].append(tuple(wav.shape))
            feature = wav.mean(dim=2)[..., None, None].expand(-1, 2, 3, 4).contiguous()
            return feature.squeeze(0) if len(feature) == 1 else feature

    modes = types.SimpleNamespace(BOTH="BOTH", HARMONIC="HARMONIC", PERCUSSIVE="PERCUSSIVE")
    for name, content in {
        "contrastive_model": {},
        "contrastive_model.constants": {"EmbeddingMode": modes},
        "contrastive_model.contrastive_model": {"CoCola": CoCola},
        "feature_extraction": {},
        "feature_extraction.feature_extraction": {"CoColaFeatureExtractor": CoColaFeatureExtractor},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return calls


# --- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return toy_corpus(tmp_path_factory.mktemp("corpus"), 24, 16, 16)


def settings(corpus, out, *more):
    parser = small_training.parser_for(train_coherence.__doc__, 4, 8)
    command = ["--corpus", corpus, "--out", out, "--threads", "1", "--precision", "fp32", *more]
    args = parser.parse_args([str(word) for word in command])
    small_training.begin(args)
    return args


def test_pairs_hold_what_they_say(corpus):
    songs = read_songs(corpus, ("train",))
    rows = train_coherence.Pairs(songs, 8, seed=1, window_s=1.28).batch(3)
    again = train_coherence.Pairs(songs, 8, seed=1, window_s=1.28).batch(3)
    assert torch.equal(rows.mixes, again.mixes) and torch.equal(rows.strange, again.strange)
    assert rows.mixes.shape == rows.stems.shape == rows.late.shape == rows.strange.shape
    assert len(set(rows.song_ids)) == len(rows.mixes) == 8
    for i, name in enumerate(rows.names):
        assert not torch.equal(rows.stems[i], rows.late[i]) and rows.is_late[i]
        assert bool(rows.is_strange[i]) <= (name != "drums")
        assert bool(rows.is_strange[i]) == bool(rows.strange[i].abs().max() > 0)
    assert rows.is_strange.any() and not rows.is_strange.all()


def test_late_is_out_of_step():
    rng = np.random.default_rng(0)
    beats = np.cumsum(rng.uniform(0.45, 0.55, 60))
    n_near = 0
    for _ in range(200):
        start = rng.uniform(1, 15)
        late = train_coherence.late_start(beats, start, 20.0, rng)
        first, second = np.interp([start, late], beats, np.arange(60), left=-1)
        assert 0 <= late <= 20.0
        assert 0.199 < (second - first) % 1 < 0.801 or late < beats[0]
        n_near += abs(late - start) < 0.5
    assert 80 < n_near < 130
    assert train_coherence.late_start(beats[:1], 1.0, 20.0, rng) is None
    assert train_coherence.late_start(beats, 0.0, 0.0, rng) is None


def test_strange_is_in_step_under_other_chords():
    rng = np.random.default_rng(0)
    beats = 0.2 + 0.5 * np.arange(40)
    chords = [[0.2 + 2.0 * bar, "AAFG"[bar % 4]] for bar in range(10)]
    song = {"beats": beats.tolist(), "beats_per_bar": 4, "chords": chords}
    starts = {
        round(train_coherence.strange_start(song, 2.0, 0.7, 16.0, rng), 4) for _ in range(60)
    }  # here: A throughout. One bar on: a quarter F. Two bars on: F, G. Three: G, a quarter A
    bars = {round((start - 0.7) / 2.0, 6) for start in starts}
    assert bars == {2.0, 3.0, 6.0, 7.0}
    assert train_coherence.strange_start(song | {"chords": []}, 2.0, 0.7, 16.0, rng) is None
    one = song | {"chords": [[0.2, "A"], [30.0, "B"]]}
    assert train_coherence.strange_start(one, 2.0, 0.7, 16.0, rng) is None


def test_a_masked_negative_does_not_reach_the_loss(corpus):
    args = settings(corpus, corpus / "unused")
    rows = train_coherence.Pairs(read_songs(corpus, ("train",)), 4, 1, 1.28).batch(0)
    no = torch.zeros(4, dtype=torch.bool)
    masked = replace(rows, is_late=no, is_strange=no)
    model = tiny_model()
    losses = [
        train_coherence.pair_losses(model, changed, torch.Generator().manual_seed(0), args)["stem"]
        for changed in (masked, replace(masked, late=rows.stems, strange=rows.stems), rows)
    ]
    values = [float(loss.detach()) for loss in losses]
    assert values[0] == pytest.approx(values[1], abs=1e-5) and values[2] > values[0] + 0.1
    losses[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def learn(batch, corpus, n_steps, learning_rate):
    """A tiny model after so many steps, and its losses."""
    args, model = settings(corpus, corpus / "unused"), tiny_model().train()
    optimizer, losses = torch.optim.AdamW(model.parameters(), learning_rate), []
    for step in range(n_steps):
        generator = torch.Generator().manual_seed(step)
        parts = train_coherence.pair_losses(model, batch(step), generator, args)
        optimizer.zero_grad()
        (parts["stem"] + parts["mix"]).backward()
        optimizer.step()
        losses.append(float(parts["stem"].detach()))
    return model.eval(), losses


def test_it_learns_the_timing_of_a_toy(corpus):
    """Held-out songs; before, the same network finds 1 in 8 and is in step in 7 of 10."""
    pairs = train_coherence.Pairs(read_songs(corpus, ("train",)), 10, 1, 1.28)
    held_out = train_coherence.Pairs(read_songs(corpus, ("valid",)), 16, 99, 1.28)
    model, losses = learn(pairs.batch, corpus, 24, 5e-3)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1.0
    found = train_coherence.judge(model, held_out, 2)
    assert found["found"]["value"] > 0.7  # chance 1/16
    assert found["in_step"]["value"] > 0.9
    assert found["right"]["value"] > found["wrong"]["value"] + 2


def sung(draw, n):
    """Two notes in the mix, the same an octave lower in the stem; strange stems play others."""
    roots = draw.integers(0, 12, (n, 2))
    others = (roots + draw.integers(1, 12, (n, 2))) % 12

    def sing(rows):
        return torch.cat([
            torch.cat([notes(int(note), seconds=0.512) for note in row], dim=1) for row in rows
        ])  # fmt: skip

    mixes, stems, strange = sing(roots), sing(roots - 12), sing(others - 12)
    no, names = torch.zeros(n, dtype=torch.bool), [f"song{i}" for i in range(n)]
    return train_coherence.Rows(mixes, stems, strange, strange, no, ~no, names, ["bass"] * n)


def test_it_learns_the_notes_of_a_toy(corpus):
    """Where all is in step only the notes can tell, and they are an octave apart."""
    rng = np.random.default_rng(0)
    model, losses = learn(lambda step: sung(rng, 12), corpus, 36, 1e-2)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1.0
    held_out = types.SimpleNamespace(batch=lambda step: sung(np.random.default_rng(9), 32))
    found = train_coherence.judge(model, held_out, 1)
    assert found["on_chord"]["value"] > 0.85  # chance 1/2
    assert "in_step" not in found


def run(corpus, out, steps, losses_of=None, saves=1):
    """A few steps with the tiny model."""
    args = settings(corpus, out, "--steps", steps, "--save-every", saves, "--log-every", 1)
    model = tiny_model()
    pairs = train_coherence.Pairs(read_songs(corpus, ("train",)), 4, 1, 1.28)

    def losses(rows, generator):
        if losses_of is not None:
            losses_of()
        return train_coherence.pair_losses(model, rows, generator, args)

    done = small_training.train(args, model, pairs, losses, lambda: {})
    return model, done


def test_resumed_equals_uninterrupted(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(small_training, "learning_rate", lambda args, step: 1e-3)
    whole, done = run(corpus, tmp_path / "whole", 4)
    assert done
    _, done = run(corpus, tmp_path / "parts", 2)
    # Ctrl-C in the middle of step 3: the step is finished, saved, and not taken again
    _, done = run(
        corpus, tmp_path / "parts", 4, lambda: os.kill(os.getpid(), signal.SIGINT), saves=100
    )
    assert not done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    parts, done = run(corpus, tmp_path / "parts", 4)
    printed = capsys.readouterr().out
    assert "stopped at step 3" in printed and "going on at step 3" in printed
    assert done
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    rows = [
        json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    with pytest.raises(SystemExit, match="is of a run with {'batch_size': 8}"):
        args = settings(corpus, tmp_path / "parts", "--batch-size", "5")
        small_training.train(args, tiny_model(), None, None, None)


def test_bf16_that_is_wrong_is_found(corpus, tmp_path):
    args = settings(corpus, tmp_path)
    model = tiny_model()
    pairs = train_coherence.Pairs(read_songs(corpus, ("train",)), 4, 1, 1.28)

    def losses(rows, generator):
        parts = train_coherence.pair_losses(model, rows, generator, args)
        return {"stem": parts["stem"] * (1 if args.precision == "fp32" else -1)}

    with pytest.raises(SystemExit, match="try --precision fp32"):
        small_training.check_bf16(args, model, losses, pairs.batch(0))


def test_a_whole_run_leaves_a_model_with_its_card(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_coherence, "EncoderConfig", lambda: TINY)
    monkeypatch.setattr(train_coherence, "WINDOW_S", 1.28)
    monkeypatch.setattr(train_coherence, "VALIDATION", 1)
    monkeypatch.setattr(train_coherence, "TARGETS", ("drums", "bass"))
    monkeypatch.setattr(train_coherence.Pairs.__init__, "__defaults__", (1.28,))
    monkeypatch.setattr(small_training, "learning_rate", lambda args, step: 5e-3)
    command = ["train_coherence.py", "--corpus", corpus, "--out", tmp_path, "--steps", 12,
               "--batch-size", 8, "--threads", 1, "--test-windows", 16]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    train_coherence.main()
    model = load_coherence(tmp_path / "model")
    found = model.results["right mix of 16"]
    assert found["n"] == 64 and found["n_songs"] > 12 and found["chance"] == 1 / 16
    assert {"right mix of 16, drums", "in_step", "on_chord"} <= set(model.results)
    assert model.ceiling > model.floor and found["low"] > 1 / 16
    text = (tmp_path / "model" / "README.md").read_text()
    assert f"| right mix of 16 | {found['value']:.2f} [" in text and "{" not in text
    assert "right mix of 16:" in capsys.readouterr().out
