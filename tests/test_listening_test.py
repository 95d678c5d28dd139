"""Listening test: loudness, plan, folder, answers, and statistics on simulated listeners."""

import collections
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy import signal, stats
from scipy.special import expit

from stage_lite.audio import load_audio
from stage_lite.clustered import holm, signed_rank_p
from stage_lite.errors import StageLiteError
from stage_lite.files import write_registry
from stage_lite.listening_answers import append_answer, read_answers, unanswered
from stage_lite.listening_plan import plan_pairs, plan_sheets
from stage_lite.listening_power import listeners_needed, listening_power
from stage_lite.listening_simulation import simulate_answers
from stage_lite.listening_statistics import (
    PAIR_COLUMNS,
    SHEET_COLUMNS,
    bradley_terry,
    friedman,
    leave_out,
    pair_shares,
    screen_listeners,
    sheet_differences,
    sheet_means,
)
from stage_lite.listening_test import (
    LOW_PASS,
    ListeningItem,
    load_listening_test,
    low_anchor,
    write_listening_test,
)
from stage_lite.loudness import loudness_lufs, match_loudness

RATE = 16000
SYSTEMS = ("real", "nano", "shuffled")
ITEMS = [f"song{i}" for i in range(7)]


def sine(hz, level_db, seconds, rate):
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (10 ** (level_db / 20) * torch.sin(2 * torch.pi * hz * time))[None].float()


def noise(seed, seconds=1.0, level=0.05, rate=RATE):
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(1, round(seconds * rate), generator=generator).clamp(-3, 3)


def make_items(n=4, **changes):
    """Items of noise at different levels; `changes` replaces clips of the first one."""
    items = []
    for i in range(n):
        clips = {s: (noise(10 * i + j, level=0.02 * 3**j), RATE) for j, s in enumerate(SYSTEMS)}
        items.append(ListeningItem(f"song{i}", clips, (noise(10 * i + 9), RATE)))
    if changes:
        clips = {**items[0].clips, **changes}
        items[0] = ListeningItem("song0", clips, clips.pop("context", items[0].context))
    return items


@pytest.fixture(scope="module")
def pairs_test(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "test"
    return write_listening_test(folder, make_items(), n_listeners=3, seed=1)


@pytest.fixture(scope="module")
def sheets_test(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sheets") / "test"
    return write_listening_test(folder, make_items(), "sheets", n_listeners=2, seed=1)


# --- loudness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [48000, 44100, 32000])
def test_loudness_of_known_signals(rate):
    """BS.1770: 997 Hz at full scale; EBU Tech 3341, cases 1 and 3, shorter; no ears at 20 Hz."""
    assert loudness_lufs(sine(997, 0, 3, rate), rate) == pytest.approx(-3.01, abs=0.03)
    stereo = sine(1000, -23, 5, rate).expand(2, -1)
    assert loudness_lufs(stereo, rate) == pytest.approx(-23.0, abs=0.1)
    parts = [sine(1000, level, s, rate) for level, s in [(-36, 3), (-23, 18), (-36, 3)]]
    gated = torch.cat(parts, dim=1).expand(2, -1)
    assert loudness_lufs(gated, rate) == pytest.approx(-23.0, abs=0.1)
    assert loudness_lufs(sine(20, 0, 3, rate), rate) < -12


def test_matched_clips_are_equally_loud_and_never_clip():
    bass, hiss = sine(60, -3, 1, RATE), noise(0, level=0.001)
    clicks = torch.zeros(1, RATE)
    clicks[0, ::4000] = 0.9
    for wavs, reached in [([bass, hiss], -23.0), ([bass, hiss, clicks], None)]:
        matched, loudness = match_loudness(wavs, RATE)
        assert reached is None or loudness == reached
        measured = [loudness_lufs(wav, RATE) for wav in matched]
        assert np.allclose(measured, loudness, atol=0.02)
    peaks = [20 * np.log10(float(wav.abs().max())) for wav in matched]
    assert loudness < -23.5 and max(peaks) == pytest.approx(-1.0, abs=1e-4)


def test_sums_beyond_full_scale_are_matched_too():
    loud = noise(0, level=0.5) * 8  # peaks at 12
    (matched,), loudness = match_loudness([loud], RATE)
    assert loudness_lufs(matched, RATE) == pytest.approx(loudness, abs=0.02)
    assert torch.allclose(matched / matched.abs().max(), loud / loud.abs().max())


def test_shortest_clip():
    assert np.isfinite(loudness_lufs(noise(0, 0.4), RATE))
    with pytest.raises(StageLiteError, match=r"6399 samples; expected at least 6400 \(0.4 s\)"):
        loudness_lufs(noise(0, 0.4)[:, 1:], RATE)


def test_low_anchor_is_that_of_bs1534():
    impulse = torch.zeros(1, 2 * 32000)
    impulse[0, 32000] = 1.0
    spectrum = np.abs(np.fft.rfft(low_anchor(impulse, 32000)[0].double().numpy()))
    hz = np.fft.rfftfreq(2 * 32000, 1 / 32000)
    level = 20 * np.log10(spectrum + 1e-12)
    assert np.abs(level[hz <= 3500]).max() <= 0.1
    assert level[hz >= 4000].max() <= -50


# --- who hears what ------------------------------------------------------------------------------

PAIRS = list(itertools.combinations(("a", "b", "c"), 2))


@pytest.mark.parametrize("count", [None, 6, 5])
def test_plan_of_pairs_is_balanced(count):
    trials = plan_pairs(ITEMS, PAIRS, 42, count, seed=3)
    assert len({trial.id for trial in trials}) == len(trials) == 42 * (count or 21)
    heard = collections.Counter((t.item, frozenset(t.systems)) for t in trials)
    sides = collections.Counter((t.item, t.systems) for t in trials)
    assert len(heard) == 21 and max(heard.values()) - min(heard.values()) <= 1
    for item, (a, b) in itertools.product(ITEMS, PAIRS):
        assert abs(sides[item, (a, b)] - sides[item, (b, a)]) <= 1
    for listener in range(1, 43):
        own = [t for t in trials if t.listener == listener]
        assert len({(t.item, frozenset(t.systems)) for t in own}) == len(own)
        pairs = collections.Counter(frozenset(t.systems) for t in own)
        assert max(pairs.values()) - min(pairs.values()) <= 1


def test_every_system_is_left_as_often_as_right():
    trials = plan_pairs(ITEMS, PAIRS, 10, seed=0)
    left = collections.Counter(t.systems[0] for t in trials)
    right = collections.Counter(t.systems[1] for t in trials)
    assert left == right


def test_plan_of_sheets_is_balanced():
    trials = plan_sheets(ITEMS, ["a", "b", "c", "d"], 8, seed=3)
    places = collections.Counter((t.item, t.systems.index(s), s) for t in trials for s in "abcd")
    assert len(places) == 7 * 4 * 4 and set(places.values()) == {2}
    assert all(sorted(t.systems) == ["a", "b", "c", "d"] for t in trials)


@pytest.mark.parametrize("plan, what", [(plan_pairs, PAIRS), (plan_sheets, ["a", "b", "c"])])
def test_order_hangs_on_seed_and_listener(plan, what):
    trials = plan(ITEMS, what, 4, seed=5)
    assert trials == plan(ITEMS, what, 4, seed=5)
    assert trials == plan(ITEMS, what, 9, seed=5)[: len(trials)]  # more listeners: same pages
    assert trials != plan(ITEMS, what, 4, seed=6)
    orders = [tuple(t.item for t in trials if t.listener == n) for n in range(1, 5)]
    assert len(set(orders)) == 4
    assert len({tuple(sorted(order)) for order in orders}) == 1


# --- the folder ----------------------------------------------------------------------------------


def test_pairs_folder_tells_the_listener_nothing(pairs_test):
    folder = pairs_test.folder
    told = (folder / "trials.json").read_text() + (folder / "registry.txt").read_text()
    assert not [word for word in (*SYSTEMS, "song", "seed", "context.") if word in told]
    names = sorted(file.name for file in (folder / "audio").iterdir())
    assert len(names) == 4 * (3 + 1) and len({len(name) for name in names}) == 1
    assert not [name for name in names if any(word in name for word in SYSTEMS)]
    written = sorted(names, key=lambda name: (folder / "audio" / name).stat().st_mtime_ns)
    assert written == names
    infos = [soundfile.info(folder / "audio" / name) for name in names]
    assert {(i.samplerate, i.channels, i.frames, i.subtype) for i in infos} == {
        (RATE, 1, RATE, "PCM_16")
    }
    assert [file.name for file in folder.parent.iterdir()] == ["test"]  # nothing temporary


def gains_of(item, system, file):
    """How loud stem and context are in what is heard, by least squares."""
    heard = load_audio(file)[0][0].numpy()
    stem, context = item.clips[system][0], item.context[0]
    gains, rest, *_ = np.linalg.lstsq(np.stack([stem[0], context[0]], 1), heard, rcond=None)
    assert rest < 1e-6 * len(heard)  # it is the sum of the two and of nothing else
    return [loudness_lufs(g * wav, RATE) for g, wav in zip(gains, (stem, context), strict=True)]


def test_clips_are_equally_loud_and_hold_stem_and_context(tmp_path, pairs_test):
    louder = write_listening_test(tmp_path / "t", make_items(), n_listeners=2, balance_lu=6)
    items = {item.id: item for item in make_items()}
    for test, balance_lu in [(pairs_test, 0), (louder, 6)]:
        assert test.loudness_lufs == -23.0
        for file in (test.folder / "audio").iterdir():
            assert loudness_lufs(*load_audio(file)) == pytest.approx(-23.0, abs=0.05)
        for trial in test.pages(2):
            item = items[trial.item]
            for system, file in zip(trial.systems, trial.stimuli, strict=True):
                stem, context = gains_of(item, system, file)
                assert stem - context == pytest.approx(balance_lu, abs=0.05)
            alone = load_audio(trial.context)[0]
            assert np.corrcoef(alone[0], item.context[0][0])[0, 1] > 0.9999


def test_rates_channels_and_a_frame_too_many_are_made_equal(tmp_path):
    clip = noise(1, 1.02, rate=32000).expand(2, -1)
    items = make_items(1, nano=(clip, 32000), context=(noise(9, 0.6), RATE))
    test = write_listening_test(tmp_path / "t", items, n_listeners=1, suffix=".wav")
    infos = [soundfile.info(file) for file in (tmp_path / "t" / "audio").glob("*.wav")]
    assert test.sample_rate == 32000 and len(infos) == 4
    assert {(i.samplerate, i.channels, i.frames) for i in infos} == {(32000, 1, 32000)}
    context = load_audio(test.trials[0].context)[0]
    assert context[:, :19000].abs().max() > 0.01 and not context[:, 19300:].any()


def test_sheets_hold_reference_and_anchor(sheets_test):
    for trial in sheets_test.trials:
        assert set(trial.systems) == {*SYSTEMS, LOW_PASS}
        hidden = trial.stimuli[trial.systems.index("real")]
        assert hidden != trial.reference
        reference = load_audio(trial.reference)[0]
        assert torch.equal(load_audio(hidden)[0], reference)
        anchor = load_audio(trial.stimuli[trial.systems.index(LOW_PASS)])[0]
        hz, power = signal.welch(anchor[0].numpy(), RATE, nperseg=1024)
        assert power[hz > 4100].max() < 1e-4 * power[hz < 3400].mean()
    assert (sheets_test.reference, sheets_test.anchor, sheets_test.seed) == ("real", LOW_PASS, 1)


def test_anchor_may_be_a_system_or_nothing(tmp_path):
    for name, anchor in [("a", "shuffled"), ("b", None)]:
        test = write_listening_test(
            tmp_path / name, make_items(2), "sheets", anchor=anchor, n_listeners=1
        )
        assert set(test.trials[0].systems) == set(SYSTEMS) and test.anchor == anchor


def test_same_seed_same_files(tmp_path, pairs_test):
    again = write_listening_test(tmp_path / "again", make_items(), n_listeners=3, seed=1)
    for name in ("trials.json", "key.json", "registry.txt"):
        assert (again.folder / name).read_bytes() == (pairs_test.folder / name).read_bytes()
    other = write_listening_test(tmp_path / "other", make_items(), n_listeners=3, seed=2)
    ours, theirs = ({f.name for f in t.folder.glob("audio/*")} for t in (pairs_test, other))
    assert not ours & theirs


def test_without_a_context_the_stem_is_heard_alone(tmp_path):
    items = [ListeningItem("a", {"x": (noise(0), RATE), "y": (noise(1), RATE)})]
    (trial,) = write_listening_test(tmp_path / "t", items, n_listeners=1).trials
    assert trial.context is None and trial.reference is None
    heard = load_audio(trial.stimuli[trial.systems.index("x")])[0]
    assert np.corrcoef(heard[0], noise(0)[0])[0, 1] > 0.9999


def test_blind_loading_needs_no_key_and_the_key_may_be_elsewhere(tmp_path, pairs_test):
    folder = tmp_path / "handed out"
    written = write_listening_test(folder, make_items(), n_listeners=3, seed=1)
    (folder / "key.json").rename(tmp_path / "my key.json")
    blind = load_listening_test(folder, blind=True)
    assert {(t.item, t.systems) for t in blind.trials} == {(None, ())} and blind.seed is None
    assert [t.stimuli for t in blind.trials] == [t.stimuli for t in written.trials]
    assert load_listening_test(folder, key_file=tmp_path / "my key.json") == written
    with pytest.raises(StageLiteError, match=r"key.json is missing.*blind=True"):
        load_listening_test(folder)


def test_broken_folders_are_refused(tmp_path, sheets_test):
    folder = tmp_path / "t"
    test = write_listening_test(folder, make_items(1), n_listeners=1)
    key = (folder / "key.json").read_text()
    with pytest.raises(StageLiteError, match="key of another test"):
        load_listening_test(folder, key_file=sheets_test.folder / "key.json")
    (folder / "key.json").write_text(key.replace('"1-01"', '"1-99"'))
    with pytest.raises(StageLiteError, match="what trial '1-01' was"):
        load_listening_test(folder)
    (folder / "key.json").write_text(key)
    trials = (folder / "trials.json").read_text()
    for text, message in [
        (trials.replace("plays along better", "is louder"), "trials.json is broken: its sha256"),
        (trials[:-9], "trials.json is no JSON"),
        ("[1]", "not of format 1"),
    ]:
        (folder / "trials.json").write_text(text)
        with pytest.raises(StageLiteError, match=message):
            load_listening_test(folder)
    (folder / "trials.json").write_text(trials)
    test.trials[0].stimuli[0].unlink()
    with pytest.raises(StageLiteError, match=r"flac is missing, yet registry.txt lists it"):
        load_listening_test(folder)
    with pytest.raises(StageLiteError, match=r"trials.json is missing"):
        load_listening_test(tmp_path)
    write_registry(folder)


def test_after_an_error_nothing_is_there(tmp_path, monkeypatch):
    import stage_lite.listening_test

    calls = []

    def fail(path, *rest):
        calls.append(path)
        if len(calls) > 2:
            raise OSError("disk full")

    monkeypatch.setattr(stage_lite.listening_test, "save_audio", fail)
    (tmp_path / "t").mkdir()
    with pytest.raises(OSError, match="disk full"):
        write_listening_test(tmp_path / "t", make_items(1), n_listeners=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "t"] and not list((tmp_path / "t").iterdir())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda f: write_listening_test(f, []), "got no items"),
        (lambda f: write_listening_test(f, make_items(1) * 2), "'song0' comes twice"),
        (
            lambda f: write_listening_test(f, make_items(nano=(torch.zeros(1, RATE), RATE))),
            "item 'song0', system 'nano' is silent",
        ),
        (
            lambda f: write_listening_test(f, make_items(nano=(noise(0) * float("nan"), RATE))),
            "item 'song0', system 'nano' has NaN",
        ),
        (
            lambda f: write_listening_test(
                f, [ListeningItem("a", {s: (noise(0, 0.3), RATE) for s in SYSTEMS})]
            ),
            r"item 'a', system 'real' has 4800 samples; expected at least 6400 \(0.4 s\)",
        ),
        (
            lambda f: write_listening_test(f, make_items(nano=(noise(0, 0.9), RATE))),
            "'nano' lasts 0.900 s and 'real' 1.000 s",
        ),
        (
            lambda f: write_listening_test(f, make_items(context=(noise(0, 1.2), RATE))),
            "context lasts 1.200 s, the clips 1.000 s",
        ),
        (
            lambda f: write_listening_test(f, make_items(context=(torch.zeros(1, RATE), RATE))),
            "item 'song0', context is silent",
        ),
        (
            lambda f: write_listening_test(f, make_items(loop=(noise(0), RATE))),
            "item 'song1' has the systems.*give 'loop' to all",
        ),
        (lambda f: write_listening_test(f, make_items(nano=noise(0))), r"is a Tensor.*load_audio"),
        (lambda f: write_listening_test(f, make_items(nano=(noise(0), 5))), "sample rate 5"),
        (lambda f: write_listening_test(f, make_items(), "mushra"), "form is 'mushra'"),
        (lambda f: write_listening_test(f, make_items(), suffix=".mp3"), "suffix is '.mp3'"),
        (lambda f: write_listening_test(f, make_items(), balance_lu=float("nan")), "balance_lu"),
        (lambda f: write_listening_test(f, make_items(), pairs=[]), "expected at least one pair"),
        (
            lambda f: write_listening_test(f, make_items(), pairs=[("nano", "x")]),
            "no item has the system 'x'",
        ),
        (
            lambda f: write_listening_test(f, make_items(), pairs=[("nano", "nano")]),
            "pair of two systems",
        ),
        (
            lambda f: write_listening_test(
                f, make_items(), pairs=[("nano", "real"), ("real", "nano")]
            ),
            "every pair once",
        ),
        (
            lambda f: write_listening_test(f, make_items(), "sheets", reference="x"),
            "no item has the system 'x'",
        ),
        (
            lambda f: write_listening_test(f, make_items(), "sheets", anchor="real"),
            "anchor is 'real'",
        ),
        (
            lambda f: write_listening_test(f, make_items(), "sheets", sample_rate=8000),
            "sample_rate is 8000 Hz.*3.5 kHz",
        ),
        (lambda f: write_listening_test(f, make_items(), n_listeners=0), "n_listeners is 0"),
        (lambda f: write_listening_test(f, make_items(), seed=-1), "seed is -1"),
        (
            lambda f: write_listening_test(f, make_items(), trials_per_listener=13),
            "trials_per_listener is 13; expected 1 to 12",
        ),
        (lambda f: write_listening_test(f.parent, make_items()), "exists and is not empty"),
        (lambda f: match_loudness([], RATE), "got no wavs"),
        (lambda f: loudness_lufs(noise(0).expand(6, -1), RATE), "has 6 channels.*at most 5"),
    ],
)
def test_errors_of_making_say_what_is_wrong(unchecked_types, tmp_path, call, message):
    (tmp_path / "other").touch()
    with pytest.raises(StageLiteError, match=message):
        call(tmp_path / "test")
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_unknown_listener(pairs_test):
    with pytest.raises(StageLiteError, match="expected a number from 1 to 3"):
        pairs_test.pages(4)


# --- answers -------------------------------------------------------------------------------------


def test_answers_of_pairs_come_back_with_what_was_heard(tmp_path, pairs_test):
    blind = load_listening_test(pairs_test.folder, blind=True)
    for listener in (1, 2):
        file = tmp_path / "answers" / f"{listener}.csv"
        for number, trial in enumerate(blind.pages(listener)):
            assert unanswered(blind, listener, file)[0] == trial
            append_answer(file, blind, trial.id, "left" if number % 3 else "right", 4.5 + number)
        assert unanswered(blind, listener, file) == []
    table = read_answers(tmp_path / "answers", pairs_test)
    assert list(table.columns) == [
        "listener", "trial", "item", "left", "right", "choice", "winner", "loser", "seconds"
    ]  # fmt: skip
    assert len(table) == 24 and table["seconds"].iloc[1] == 5.5
    known = {t.id: t for t in pairs_test.trials}
    for row in table.itertuples():
        left, right = known[row.trial].systems
        assert (row.left, row.right, row.item) == (left, right, known[row.trial].item)
        assert row.winner == (left if row.choice == "left" else right) != row.loser
    assert pair_shares(table)["n"].sum() == 24
    header = (tmp_path / "answers" / "1.csv").read_text().splitlines()[0]
    assert header == "listener,trial,choice,seconds"


def test_answers_of_sheets_come_back_with_what_was_heard(tmp_path, sheets_test):
    file = tmp_path / "a.csv"
    ratings = {"real": 100, "nano": 60.5, "shuffled": 30, LOW_PASS: 0}
    for trial in sheets_test.pages(1):
        append_answer(file, sheets_test, trial.id, [ratings[s] for s in trial.systems], 30)
    assert file.read_text().startswith("listener,trial,slider_1,slider_2,slider_3,slider_4,seconds")
    table = read_answers([file], sheets_test)
    assert len(table) == 16
    assert (table["rating"] == table["system"].map(ratings)).all()
    assert not screen_listeners(table, sheets_test.reference)["fails"].any()
    places = {t.id: t.systems for t in sheets_test.trials}
    assert all(places[row.trial][row.place - 1] == row.system for row in table.itertuples())


def test_answering_twice_or_wrongly_leaves_the_file_as_it_was(tmp_path, pairs_test, sheets_test):
    file = tmp_path / "a.csv"
    append_answer(file, pairs_test, "1-01", "left", 3)
    before = file.read_bytes()
    for test, trial, answer, seconds, message in [
        (
            pairs_test,
            "1-01",
            "right",
            3,
            "line 3, column trial: '1-01' was answered before.*line 2",
        ),
        (pairs_test, "1-02", "both", 3, "line 3, column choice: 'both'"),
        (pairs_test, "1-02", "left", float("nan"), "line 3, column seconds: 'nan'"),
        (pairs_test, "9-02", "left", 3, "line 3, column trial: '9-02' is no page of this test"),
        (sheets_test, "1-02", [1, 2, 3, 4], 3, "line 1: the columns are listener,trial,choice"),
    ]:
        with pytest.raises(StageLiteError, match=message):
            append_answer(file, test, trial, answer, seconds)
    with pytest.raises(StageLiteError, match=r"line 2, column slider_3: '101'; .* 0 to 100"):
        append_answer(tmp_path / "b.csv", sheets_test, "1-01", [0, 100, 101, 5], 3)
    with pytest.raises(StageLiteError, match="line 2 has 5 cells; expected 7"):
        append_answer(tmp_path / "b.csv", sheets_test, "1-01", [0, 100], 3)
    assert file.read_bytes() == before and not (tmp_path / "b.csv").exists()


HEAD = "listener,trial,choice,seconds\n"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "a.csv is empty; expected the header listener,trial,choice,seconds"),
        ("\n\n", "a.csv is empty"),
        (HEAD, "has a header and no answers"),
        ("listener,trial,seconds\n", "line 1: the columns are listener,trial,seconds; expected"),
        ("listener;trial;choice;seconds\n1;1-01;left;3\n", "semicolons: save it with commas"),
        (HEAD + "1,1-01,left\n", "line 2 has 3 cells; expected 4"),
        (HEAD + "1,1-01,left,3\n1,1-02,Left,3\n", "line 3, column choice: 'Left'"),
        (HEAD + "1,1-01,,3\n", "line 2, column choice: ''"),
        (HEAD + "1,1-01,left,-3\n", "line 2, column seconds: '-3'; expected a number from 0"),
        (HEAD + "1,1-01,left,inf\n", "line 2, column seconds: 'inf'"),
        (HEAD + "1,1-77,left,3\n", "line 2, column trial: '1-77' is no page of this test"),
        (HEAD + "2,1-01,left,3\n", "line 2, column listener: '2'; expected 1"),
        (HEAD + "1,1-01,left,3\n\n1,1-01,left,3\n", "line 4, column trial: .*before.*line 2"),
        (HEAD + '1,"1-01,left,3\n', "no CSV in UTF-8"),
        ("listener,trial,\xe9\n".encode("latin-1"), "no CSV in UTF-8"),
    ],
)
def test_malformed_answers_name_line_and_column(tmp_path, pairs_test, text, message):
    file = tmp_path / "a.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StageLiteError, match=message):
        read_answers(file, pairs_test)


def test_answers_from_excel_and_across_files(tmp_path, pairs_test):
    for name, line in [("a", "1,1-01,left,3"), ("b", "1,1-01,right,3")]:
        (tmp_path / f"{name}.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEAD}{line}\r\n".encode())
    assert len(read_answers(tmp_path / "a.csv", pairs_test)) == 1
    with pytest.raises(StageLiteError, match=r"b.csv, line 2.*answered before, in .*a.csv, line 2"):
        read_answers(tmp_path, pairs_test)
    with pytest.raises(StageLiteError, match="without its key"):
        read_answers(tmp_path / "a.csv", load_listening_test(pairs_test.folder, blind=True))
    with pytest.raises(StageLiteError, match=r"c.csv is not there"):
        read_answers(tmp_path / "c.csv", pairs_test)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageLiteError, match=r"holds no .csv"):
        read_answers(tmp_path / "empty", pairs_test)
    with pytest.raises(StageLiteError, match="got no files"):
        read_answers([], pairs_test)


# --- simulated listeners -------------------------------------------------------------------------


def answer_pairs(trials, strength, rng, listener_sd=0.0, item_sd=0.0, always_left=()):
    """Bradley-Terry listeners whose strengths differ by person and by item."""
    names = sorted(strength)
    people = rng.normal(0, listener_sd, (1 + max(t.listener for t in trials), len(names)))
    items = sorted({t.item for t in trials})
    songs = dict(zip(items, rng.normal(0, item_sd, (len(items), len(names))), strict=True))
    rows = []
    for t in trials:
        own = {
            s: strength[s] + people[t.listener, names.index(s)] + songs[t.item][names.index(s)]
            for s in t.systems
        }
        left, right = t.systems
        is_left = rng.random() < expit(own[left] - own[right]) or t.listener in always_left
        winner, loser = (left, right) if is_left else (right, left)
        rows.append((t.listener, t.item, winner, loser))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def rate_sheets(listeners, items, mean, rng, listener_sd=5.0, item_sd=5.0, noise_sd=10.0):
    names = sorted(mean)
    people = rng.normal(0, listener_sd, (listeners, len(names)))
    songs = rng.normal(0, item_sd, (items, len(names)))
    rows = [
        (i, f"song{j}", s, float(np.clip(mean[s] + people[i, k] + songs[j, k]
                                         + rng.normal(0, noise_sd), 0, 100)))
        for i in range(listeners) for j in range(items) for k, s in enumerate(names)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=SHEET_COLUMNS)


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("spread", [(0.0, 0.0), (0.6, 0.6)])
def test_interval_of_the_share_holds_the_truth(n, spread):
    """95 % nominal: fewer than 45 of 50 would come up once in 27 times."""
    trials = plan_pairs(ITEMS, [("a", "b")], n)
    rng = np.random.default_rng(n)
    noise = np.random.default_rng(0).normal(0, np.sqrt(2) * np.hypot(*spread), 100_000)
    truth = expit(1.0 + noise).mean()
    held = []
    for _ in range(50):
        (row,) = pair_shares(answer_pairs(trials, {"a": 1.0, "b": 0.0}, rng, *spread)).itertuples()
        assert (row.system, row.other, row.n) == ("a", "b", 7 * n)
        held.append(row.low <= truth <= row.high)
    assert np.mean(held) >= 45 / 50


def test_intervals_are_not_just_wide():
    """Where listeners and items don't differ, the interval is about that of independent answers."""
    table = pair_shares(
        answer_pairs(
            plan_pairs(ITEMS, [("a", "b")], 100), {"a": 0, "b": 0}, np.random.default_rng(0)
        )
    )
    plain = stats.binomtest(int(table["wins"][0]), 700).proportion_ci()
    width = (table["high"] - table["low"])[0]
    assert plain.high - plain.low < width < 2 * (plain.high - plain.low)


@pytest.mark.parametrize("n", [6, 30])
def test_without_a_preference_p_is_uniform(n):
    """No difference on the whole; listeners differ, so that answers of one are alike."""
    rng = np.random.default_rng(n)
    trials = plan_pairs(ITEMS, [("a", "b")], n)
    tables = [
        pair_shares(answer_pairs(trials, {"a": 0, "b": 0}, rng, listener_sd=0.5))
        for _ in range(120)
    ]
    p = pd.concat(tables)
    for column in ("p_listeners", "p_value"):
        assert (p[column] <= 0.05).mean() <= 0.10  # 3 standard errors above 5 %
    for bound in (0.25, 0.5, 0.75):  # discrete, so that p is never too small
        assert (p["p_listeners"] <= bound).mean() == pytest.approx(bound, abs=0.15)
    assert (p["p_holm"] == p["p_value"]).all()
    outside = (p["low"] > 0.5) | (p["high"] < 0.5)
    assert outside.mean() <= 0.10


def test_items_that_differ_are_no_evidence():
    """Listeners agree: "a" is better for some songs, "b" for others. p_listeners is small."""
    rng = np.random.default_rng(0)
    trials = plan_pairs(ITEMS, [("a", "b")], 40)
    tables = [
        pair_shares(answer_pairs(trials, {"a": 0, "b": 0}, rng, item_sd=0.8)) for _ in range(60)
    ]
    p = pd.concat(tables)
    assert (p["p_listeners"] <= 0.05).mean() > 0.3
    assert (p["p_value"] <= 0.05).mean() <= 0.12


def test_preference_is_found_and_told_apart_from_none():
    rng = np.random.default_rng(0)
    trials = plan_pairs([f"song{i}" for i in range(12)], PAIRS, 30, 18)
    table = pair_shares(answer_pairs(trials, {"a": 1.2, "b": 0, "c": 0}, rng, 0.3, 0.3))
    table = table.set_index(["system", "other"])
    for pair in [("a", "b"), ("a", "c")]:
        assert table.loc[pair, "p_holm"] < 0.05 and table.loc[pair, "low"] > 0.5
    row = table.loc[("b", "c")]
    assert row["p_value"] > 0.05 and row["low"] < 0.5 < row["high"]


def test_who_always_says_left_shifts_nothing():
    rng = np.random.default_rng(0)
    trials = plan_pairs(ITEMS, [("a", "b")], 20)
    everyone = range(1, 21)
    row = pair_shares(answer_pairs(trials, {"a": 3, "b": 0}, rng, always_left=everyone)).iloc[0]
    assert row["share"] == 0.5 and row["p_value"] > 0.5 and row["low"] < 0.5 < row["high"]
    some = answer_pairs(trials, {"a": 0, "b": 0}, rng, always_left=range(1, 11))
    biased = pair_shares(some[some["listener"] <= 10]).iloc[0]
    assert biased["share"] == 0.5
    rest = pair_shares(some[some["listener"] > 10]).iloc[0]
    assert pair_shares(some).iloc[0]["share"] == pytest.approx((rest["share"] + 0.5) / 2)


def test_five_listeners_show_little_and_say_so():
    trials = plan_pairs(ITEMS, [("a", "b")], 5)
    row = pair_shares(answer_pairs(trials, {"a": 50, "b": 0}, np.random.default_rng(0))).iloc[0]
    assert row["share"] == 1.0 and row["p_value"] == row["smallest_p"] == 0.0625
    assert row["low"] == pytest.approx(0.025 ** (1 / 5)) and row["high"] == 1.0
    mirrored = pair_shares(answer_pairs(trials, {"b": 50, "a": 0}, np.random.default_rng(0))).iloc[
        0
    ]
    assert mirrored["high"] == pytest.approx(1 - 0.025 ** (1 / 5)) and mirrored["low"] == 0.0


def test_two_way_interval_by_hand():
    """Variance of 2 listeners x 2 items worked out on paper: V = L + I - both."""
    rows = [(1, "x", "a", "b"), (1, "y", "a", "b"), (2, "x", "a", "b"), (2, "y", "b", "a")]
    row = pair_shares(pd.DataFrame(rows, columns=PAIR_COLUMNS)).iloc[0]
    # share 3/4; rests 1/4, 1/4, 1/4, -3/4; listeners' sums 1/2, -1/2: 2/1 * 1/2 = 1, items alike;
    # answers: 4/3 * (3/16 + 9/16) = 1; so 1 + 1 - 1 = 1, over 4^2
    worth = 3 / 16 / (1 / 16) * (stats.t.ppf(0.975, 3) / stats.t.ppf(0.975, 1)) ** 2
    wins = 0.75 * worth
    assert row["low"] == pytest.approx(stats.beta.ppf(0.025, wins, worth - wins + 1))
    assert row["high"] == pytest.approx(stats.beta.ppf(0.975, wins + 1, worth - wins))


def test_signed_rank_is_scipys_where_that_is_exact():
    rng = np.random.default_rng(0)
    for n in (1, 4, 9, 30, 50):
        values = rng.normal(0.3, 1, n)
        assert signed_rank_p(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
    for n in (5, 8):
        values = rng.integers(1, 4, n) * rng.choice([-1.0, 1.0], n)  # ties
        flips = np.array(list(itertools.product([-1, 1], repeat=n)))
        sums = flips @ stats.rankdata(np.abs(values))
        seen = np.sign(values) @ stats.rankdata(np.abs(values))
        assert signed_rank_p(values) == pytest.approx(np.mean(np.abs(sums) >= abs(seen) - 1e-9))
    assert signed_rank_p([0.7 - 0.5, 0.3 - 0.5]) == 1.0 == signed_rank_p([0.0, 0.0])
    assert signed_rank_p([]) == 1.0


def test_holm():
    """The example of R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm"), worked out by hand."""
    assert np.allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert np.allclose(holm([0.02, np.nan, 0.5]), [0.04, np.nan, 0.5], equal_nan=True)
    assert np.allclose(holm([0.9, 0.8]), [1.0, 1.0]) and len(holm([])) == 0


def test_bradley_terry_recovers_the_strengths():
    true = {"a": 1.0, "b": 0.3, "c": -0.3, "d": -1.0}
    trials = plan_pairs(ITEMS, list(itertools.combinations("abcd", 2)), 100)
    table = bradley_terry(answer_pairs(trials, true, np.random.default_rng(0)))
    assert list(table["system"]) == list("abcd")
    assert np.allclose(table["strength"], sorted(true.values())[::-1], atol=0.15)
    assert table["strength"].sum() == pytest.approx(0, abs=1e-6)
    assert list(table["n"]) == [2100] * 4 and (table["high"] - table["low"] < 0.6).all()


def test_bradley_terry_intervals_hold_the_truth():
    true = {"a": 0.8, "b": 0.0, "c": -0.8}
    rng = np.random.default_rng(1)
    held = []
    for n in (5, 30):
        trials = plan_pairs(ITEMS, PAIRS, n, 9)
        for _ in range(30):
            table = bradley_terry(answer_pairs(trials, true, rng, 0.3, 0.3))
            truth = table["system"].map(true) * 0.95  # of listeners who differ: a little less
            held += list((table["low"] <= truth) & (truth <= table["high"]))
    assert np.mean(held) >= 0.9


def test_bradley_terry_by_other_means():
    """Two systems: log odds with half a win added. Three: Hunter's (2004) MM iteration."""
    rows = [(i % 4, f"x{i % 3}", *("ab" if i < 14 else "ba")) for i in range(20)]
    table = bradley_terry(pd.DataFrame(rows, columns=PAIR_COLUMNS)).set_index("system")
    assert table.loc["a", "strength"] == pytest.approx(np.log(14.5 / 6.5) / 2, abs=1e-4)
    answers = answer_pairs(
        plan_pairs(ITEMS, PAIRS, 6), {"a": 1, "b": 0, "c": 0}, np.random.default_rng(0)
    )
    wins = np.full((3, 3), 0.5) - 0.5 * np.eye(3)
    for winner, loser in zip(answers["winner"], answers["loser"], strict=True):
        wins["abc".index(winner), "abc".index(loser)] += 1
    worth = np.ones(3)
    for _ in range(2000):
        worth = wins.sum(1) / ((wins + wins.T) / (worth[:, None] + worth)).sum(1)
    expected = np.log(worth) - np.log(worth).mean()
    found = bradley_terry(answers).set_index("system").loc[list("abc"), "strength"]
    assert np.allclose(found, expected, atol=1e-4)


def test_bradley_terry_of_one_who_always_wins_is_finite_and_wide():
    trials = plan_pairs(ITEMS, [("a", "b")], 5)
    answers = answer_pairs(trials, {"a": 50, "b": 0}, np.random.default_rng(0))
    table = bradley_terry(answers).set_index("system")
    assert table.loc["a", "strength"] == pytest.approx(np.log(35.5 / 0.5) / 2, abs=1e-3)
    assert 1.5 < table.loc["a", "high"] - table.loc["a", "low"] < 20


@pytest.mark.parametrize("n", [5, 25])
def test_means_of_sheets_hold_the_truth(n):
    rng = np.random.default_rng(n)
    held, differences = [], []
    for _ in range(25):
        ratings = rate_sheets(n, 8, {"a": 60, "b": 45, "c": 50}, rng)
        means = sheet_means(ratings).set_index("system")
        held += [means.loc[s, "low"] <= m <= means.loc[s, "high"] for s, m in
                 [("a", 60), ("b", 45), ("c", 50)]]  # fmt: skip
        row = sheet_differences(ratings).set_index(["system", "other"]).loc[("a", "b")]
        differences.append(row["low"] <= 15 <= row["high"])
    assert np.mean(held) >= 0.9 and np.mean(differences) >= 0.9


def test_sheets_find_what_is_there_and_only_that():
    rng = np.random.default_rng(0)
    ratings = rate_sheets(20, 8, {"a": 70, "b": 40, "c": 40}, rng)
    assert sheet_means(ratings)["system"].iloc[0] == "a"
    table = sheet_differences(ratings).set_index(["system", "other"])
    assert table.loc[("a", "b"), "p_holm"] < 0.05 and table.loc[("b", "c"), "p_holm"] > 0.05
    assert table.loc[("a", "c"), "difference"] == pytest.approx(30, abs=8)
    assert friedman(ratings)["p_value"][0] < 0.001
    none = [rate_sheets(10, 8, dict.fromkeys("abc", 50), rng, item_sd=0.0) for _ in range(40)]
    assert np.mean([friedman(r)["p_value"][0] <= 0.05 for r in none]) <= 0.15
    assert np.mean([(sheet_differences(r)["p_holm"] <= 0.05).any() for r in none]) <= 0.15


def test_sheet_tables_of_known_ratings():
    rows = [(i, f"s{j}", s, r + 10 * i) for i in range(3) for j in range(2)
            for s, r in [("a", 50), ("b", 30), ("c", 10)]]  # fmt: skip
    ratings = pd.DataFrame(rows, columns=SHEET_COLUMNS)
    means = sheet_means(ratings)
    assert list(means["mean"]) == [60, 40, 20] and list(means["n"]) == [6, 6, 6]
    # the same on both songs: three listeners at -10, 0, 10, and t of one degree of freedom
    assert means["low"][1] == pytest.approx(max(0, 40 - 12.706 * 10 / np.sqrt(3)), abs=0.01)
    differences = sheet_differences(ratings)
    assert list(differences["difference"]) == [20, 40, 20]
    assert (differences["p_listeners"] == 0.25).all() and (differences["p_value"] == 0.5).all()
    assert friedman(ratings)["statistic"][0] == pytest.approx(6.0)  # n (k - 1): all agree
    same = ratings.assign(rating=50.0)
    assert friedman(same)["p_value"][0] == 1.0 and (sheet_differences(same)["p_value"] == 1).all()


def test_screening_lists_and_leaves_out_on_request():
    too_low = {1: 0, 2: 3, 3: 4}  # of 20 songs
    rows = [
        (listener, f"s{j}", system, (89.9 if j < low else 90) if system == "real" else 95)
        for listener, low in too_low.items()
        for j in range(20)
        for system in ("nano", "real")
    ]
    ratings = pd.DataFrame(rows, columns=SHEET_COLUMNS)
    table = screen_listeners(ratings, "real")
    assert list(table["share_below"]) == [0.0, 0.15, 0.2]
    assert list(table["fails"]) == [False, False, True]  # 15 % is still allowed
    kept = leave_out(ratings, table.loc[table["fails"], "listener"])
    assert set(kept["listener"]) == {1, 2} and len(ratings) == 120
    with pytest.raises(StageLiteError, match="reference is 'x'"):
        screen_listeners(ratings, "x")
    with pytest.raises(StageLiteError, match="listener 9 gave no answers"):
        leave_out(ratings, [9])


def test_power_grows_and_five_listeners_have_none():
    table = listening_power(0.75, 10, [5, 10, 40], n_simulations=60)
    assert table["power"][0] == 0.0 and table["smallest_p"][0] == 0.0625
    assert table["power"].is_monotonic_increasing and table["power"][2] > 0.9
    assert (table["power_interval"] > 0.1).all()
    nothing = listening_power(0.5, 10, [20], n_simulations=100)
    assert nothing["power"][0] <= 0.1 and nothing["power_interval"][0] <= 0.1
    assert listening_power(0.75, 10, [5], n_simulations=20).equals(
        listening_power(0.75, 10, [5], n_simulations=20)
    )
    assert 6 <= listeners_needed(0.8, 10, n_simulations=40) <= 15
    with pytest.raises(StageLiteError, match=r"p cannot fall below 0.125 here; take more items"):
        listeners_needed(0.9, 4, n_listeners=[20, 40], n_simulations=5)


# --- malformed -----------------------------------------------------------------------------------

PAIR = pd.DataFrame([(1, "x", "a", "b"), (2, "x", "b", "a")], columns=PAIR_COLUMNS)
SHEET = pd.DataFrame([(i, "x", s, 50.0) for i in (1, 2) for s in ("a", "b")], columns=SHEET_COLUMNS)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: pair_shares(PAIR[:0]), "there are no answers"),
        (lambda: pair_shares(PAIR[:1]), "of 1 listener; expected at least 2"),
        (lambda: pair_shares(PAIR.drop(columns="item")), "no column 'item'"),
        (lambda: pair_shares(None), "no column 'listener'"),
        (
            lambda: pair_shares(PAIR.assign(winner=["a", None])),
            "row 1 of the answers has no winner",
        ),
        (lambda: bradley_terry(SHEET), "no column 'winner'"),
        (
            lambda: bradley_terry(pd.concat([PAIR, PAIR.replace({"a": "c", "b": "d"})])),
            r"compares one of \['a', 'b'\] with one of \['c', 'd'\]",
        ),
        (lambda: sheet_means(SHEET[:0]), "there are no answers"),
        (lambda: sheet_means(SHEET[:2]), "of 1 listener"),
        (
            lambda: sheet_means(SHEET[:3]),
            "listener 2 gave 1 ratings to 1 of 2 systems for item 'x'",
        ),
        (lambda: sheet_means(pd.concat([SHEET, SHEET[:1]])), "listener 1 gave 3 ratings to 2 of 2"),
        (lambda: sheet_means(SHEET.assign(rating=101.0)), "a rating is 101.0; expected 0 to 100"),
        (lambda: sheet_means(SHEET.assign(rating=np.nan)), "row 0 of the answers has no rating"),
        (lambda: friedman(SHEET), "got 2 systems; expected at least 3"),
        (lambda: listening_power(0.4, 10), "share is 0.4"),
        (lambda: listening_power(0.7, 10, [1]), "sizes from 2"),
        (lambda: listening_power(0.7, 10, listener_sd=-1), "listener_sd is -1"),
    ],
)
def test_errors_of_statistics_say_what_is_wrong(unchecked_types, call, message):
    with pytest.raises(StageLiteError, match=message):
        call()


def test_pair_of_one_listener_gets_no_interval():
    more = pd.DataFrame([(1, "x", "a", "c")], columns=PAIR_COLUMNS)
    table = pair_shares(pd.concat([PAIR, more])).set_index(["system", "other"])
    assert table.loc[("a", "c"), ["low", "high", "p_value", "p_holm"]].isna().all()
    assert table.loc[("a", "b"), ["low", "high", "p_value", "p_holm"]].notna().all()


def test_files_are_imported_without_the_heavy_ones():
    code = (
        "import stage_lite.listening_plan, stage_lite.listening_answers, sys;"
        "import stage_lite.listening_statistics, stage_lite.listening_power;"
        "print([m for m in ('torch', 'pandas', 'scipy', 'pyloudnorm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# --- simulated listeners -------------------------------------------------------------------------


def test_simulated_listeners_prefer_what_is_better(tmp_path):
    test = write_listening_test(
        tmp_path / "test", make_items(4), pairs=[("real", "nano")], n_listeners=30, seed=2
    )
    asked = {"quality": lambda item, system: 2.0 * (system == "real"), "seed": 4}
    answers = simulate_answers(test, tmp_path / "a", **asked, listener_sd=0.0)
    assert len(answers) == 120 and len(list((tmp_path / "a").glob("*.csv"))) == 30
    assert abs((answers["winner"] == "real").mean() - expit(2.0)) < 0.08
    again = simulate_answers(test, tmp_path / "b", **asked, listener_sd=0.0)
    pd.testing.assert_frame_equal(answers, again)
    row = pair_shares(answers).iloc[0]  # "nano" against "real"
    assert row["high"] < 0.5 and row["listeners"] == 30


def test_simulated_answers_say_what_is_wrong(tmp_path):
    folder = tmp_path / "test"
    test = write_listening_test(folder, make_items(2), pairs=[("real", "nano")], n_listeners=2)
    blind = load_listening_test(folder, blind=True)
    with pytest.raises(StageLiteError, match="came with no key; expected 'pairs' with its key"):
        simulate_answers(blind, tmp_path / "a", lambda item, system: 0.0)
    with pytest.raises(StageLiteError, match="is nan and nan; expected finite numbers"):
        simulate_answers(test, tmp_path / "a", lambda item, system: float("nan"))
    simulate_answers(test, tmp_path / "b", lambda item, system: 0.0)
    with pytest.raises(StageLiteError, match="holds answers already"):
        simulate_answers(test, tmp_path / "b", lambda item, system: 0.0)
