"""The benchmarks run, compare the same work, and count it rightly. No timing is tested."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import stage_lite as sl
from benchmarks import generation, musicgen_small, steps, training
from benchmarks import metrics as metrics_benchmark
from benchmarks import precision as precision_benchmark
from benchmarks.side_by_side import Row, machine, seconds_each, table
from stage_lite.held_weights import give_up
from stage_lite.metrics import precision, systems
from stage_lite.metrics.listen import Listener
from stage_lite.metrics.precision import KINDS, REAL, SHUFFLED, compare_weights
from stage_lite.result_store import ResultStore


def test_generation_is_the_same_work(tiny_model):
    assert generation.same_codes(tiny_model, 12) == 1.0
    rows = generation.compare(tiny_model, seconds=0.2, rounds=1)
    assert len(rows) == 2 and all(row.value > 0 and row.peer > 0 for row in rows)


def test_training_rows(tiny_model):
    rows = training.compare(tiny_model, seconds=0.2, batch_size=2, rounds=1)
    assert len(rows) == 2 and all(row.value > 0 and row.peer > 0 for row in rows)
    assert not tiny_model.lm.training
    assert all(p.grad is None for p in tiny_model.lm.parameters())


def test_ways_take_turns_and_the_first_round_does_not_count():
    calls = []
    taken = seconds_each({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert "".join(calls) == "baabba" and set(taken) == {"a", "b"}


def test_table_and_machine():
    rows = [Row("speed", 30.0, "frames/s", 10.0, "ratio at least 3"), Row("import", 0.1, "s")]
    text = table(rows)
    assert "| speed | 30 frames/s | 10 frames/s | 3.00 | ratio at least 3 |" in text
    assert "| import | 0.1 s |  |  |  |" in text
    assert rows[0].as_json()["ratio"] == pytest.approx(3)
    assert machine()["cores"] >= 1


# --- MusicGen-small's size -----------------------------------------------------------------------


def test_the_short_mode_of_musicgen_small(capsys):
    """All five ways, each in a process of its own, over one model folder."""
    lines = musicgen_small.measure(musicgen_small.SHORT)
    out = capsys.readouterr().out
    assert all(f"{way}: " in out for way in musicgen_small.WAYS)
    by_name = {row.what: row for row in lines}
    name = f"{musicgen_small.SHORT.frames} frames after {musicgen_small.SHORT.context_frames}"
    for way in ("fp32", "bf16", "int8"):
        assert by_name[f"{name}, {way}"].value > 0 and by_name[f"{name}, {way}"].peer > 0
        assert by_name[f"{way}, steps alone"].unit == "steps/s"
    for way in musicgen_small.WAYS:
        assert 0.05 < by_name[f"peak memory, {way}"].value < 8
    assert len(lines) == len(by_name) == 1 + 3 * 2 + 1 + 5


def test_rows_of_musicgen_small():
    """Medians of the rounds, ours beside audiocraft, fp32 beside transformers."""

    def runs(*seconds, steps=10.0):
        return [{"seconds": s, "steps_per_s": steps, "peak_gb": 0.1 * s} for s in seconds]

    taken = {
        "audiocraft": runs(10, 30, 20),
        "transformers": runs(8, 8),
        "fp32": runs(4, 4, 5),
        "int8": runs(1, steps=60),
    }
    sizes = musicgen_small.Sizes(frames=100)
    lines = {row.what: row for row in musicgen_small.rows(taken, sizes)}
    name = "100 frames after 500"
    assert lines[f"{name}, transformers"].ratio == pytest.approx(20 / 8)
    assert lines[f"{name}, fp32"].value == 25 and lines[f"{name}, fp32"].ratio == pytest.approx(5)
    assert lines["fp32, with transformers in audiocraft's place"].ratio == pytest.approx(2)
    assert lines[f"{name}, int8"].bar == "ratio at least 12, at least 35 frames/s"
    assert lines["int8, steps alone"].value == 60
    assert lines["peak memory, audiocraft"].value == pytest.approx(3.0)
    assert f"{name}, bf16" not in lines


def test_a_way_that_fails_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="fp32 ended with exit code 1"):
        musicgen_small._run("fp32", str(tmp_path), musicgen_small.SHORT)  # no model there


def test_single_steps():
    threads = torch.get_num_threads()
    lines = steps.measure(musicgen_small.SHORT, rounds=2, steps=3)
    assert [line.what.partition(", ")[2] for line in lines] == [
        "fp32", "bf16, exact cache", "bf16", "int8, exact cache", "int8",
    ]  # fmt: skip
    assert all(line.value > 0 and line.peer == lines[0].peer > 0 for line in lines)
    assert torch.get_num_threads() == threads


# --- metrics -------------------------------------------------------------------------------------


def test_metrics_are_timed_without_the_music(tmp_path, monkeypatch):
    """The music is made once and kept; what is heard in it is not, so each run hears anew."""
    made, heard = [], []
    generate, listen = systems.generate_codes, Listener.listen
    monkeypatch.setattr(
        systems, "generate_codes", lambda *a, **k: made.append(1) or generate(*a, **k)
    )
    monkeypatch.setattr(Listener, "listen", lambda *a, **k: heard.append(1) or listen(*a, **k))
    model, kept = sl.load("nano"), tmp_path / "kept"
    row = metrics_benchmark.measure(model, 3, kept, window_s=2.0)
    assert row.value > 0 and row.unit == "s" and row.bar == "at most 2.11 s"
    files, first_made, first_heard = sorted(kept.iterdir()), len(made), len(heard)
    values = [json.loads(file.read_text()) for file in files]
    music = [value for value in values if isinstance(value, list) and isinstance(value[0], list)]
    assert len(music) == 3 * 3 and first_made  # to the right context, to another song's, to none
    metrics_benchmark.measure(model, 3, kept, window_s=2.0)
    assert len(made) == first_made and sorted(kept.iterdir()) == files
    assert len(heard) == 2 * first_heard


# --- what rounding costs -------------------------------------------------------------------------


def made_examples(model, n=4, frames=25):
    generator = torch.Generator().manual_seed(3)
    return [
        sl.Example(
            target=None, context=None, description="drums rock", song_id=f"song {i % 3}",
            beat_times=np.array([0.1, 0.3]), downbeat_times=np.array([0.1]), start_s=0.0,
            duration_s=frames / model.frame_rate, condition="metronome",
            context_codes=torch.randint(0, model.card, (model.n_q, frames), generator=generator),
            target_codes=torch.randint(0, model.card, (model.n_q, frames), generator=generator),
        )
        for i in range(n)
    ]  # fmt: skip


def test_precision_is_the_models_own_loss(tiny_model):
    examples = made_examples(tiny_model)
    table = compare_weights(tiny_model, examples, batch_size=3)
    assert list(table.index) == [*KINDS, SHUFFLED, REAL]
    with torch.no_grad():
        expected = float(np.mean([float(tiny_model.loss([e])[0]) for e in examples]))
    assert table["loss"]["fp32"] == pytest.approx(expected, abs=1e-4)
    assert table["loss - fp32"]["fp32"] == "+0.0000 [+0.0000, +0.0000]"
    assert table["MB"]["bf16"] < table["MB"]["fp32"]
    assert (table["windows"] == 4).all() and (table["songs"] == 3).all()
    assert table["beat F1"].between(0, 1).all()


def test_precision_goes_on(tiny_model, tmp_path, monkeypatch):
    """What was measured is not measured again; another model's numbers are not taken for ours."""
    examples, store = made_examples(tiny_model), ResultStore(tmp_path, progress="none")
    calls = []
    real = precision._losses
    monkeypatch.setattr(
        precision, "_losses", lambda m, jobs, kind: calls.append(len(jobs)) or real(m, jobs, kind)
    )
    first = compare_weights(tiny_model, examples[:3], ["fp32"], store=store)
    assert sum(calls) == 3
    more = compare_weights(tiny_model, examples, ["fp32"], store=store)
    assert sum(calls) == 4 and more["windows"]["fp32"] == 4
    again = compare_weights(tiny_model, examples[:3], ["fp32"], store=store)
    assert sum(calls) == 4 and first.equals(again)
    with torch.no_grad():
        tiny_model.lm.linears[0].weight.mul_(2)
    compare_weights(tiny_model, examples[:3], ["fp32"], store=store)
    assert sum(calls) == 7


def test_precision_of_words_alone_and_what_it_refuses(tiny_base, tiny_model):
    plain = [replace(e, context_codes=None) for e in made_examples(tiny_base)]
    table = compare_weights(tiny_base, plain, ["fp32", "bf16"])
    assert list(table.index) == ["fp32", "bf16", REAL]
    with pytest.raises(sl.StageLiteError, match="2 windows of 1 song; expected at least two songs"):
        compare_weights(
            tiny_model, [replace(e, song_id="one") for e in made_examples(tiny_model, 2)]
        )
    most = [
        replace(e, song_id="one" if i else "two") for i, e in enumerate(made_examples(tiny_model))
    ]
    with pytest.raises(sl.StageLiteError, match="more than half of|3 are of one song"):
        compare_weights(tiny_model, most)
    with pytest.raises(sl.StageLiteError, match="weights is 'int4'"):
        compare_weights(tiny_model, made_examples(tiny_model), ["int4"])
    give_up(tiny_model.lm)
    with pytest.raises(sl.StageLiteError, match="loaded as 'int8' and holds nothing to compare"):
        compare_weights(tiny_model, made_examples(tiny_model))


def test_windows_of_precision_are_of_the_test_split():
    examples = precision_benchmark.windows(5)
    assert len(examples) == 5 and all(e.context_codes is not None for e in examples)
    assert len({e.song_id for e in examples}) > 1
    train = sl.ShardDataset(precision_benchmark.TOKENS, "drums", split="train", n=1)
    assert not {e.song_id for e in examples} & set(train._place)
