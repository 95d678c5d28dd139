"""The evidence: every row from end to end on tiny models, its resumption, its page, its layouts."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_CARD, make_tiny_model

from evidence import __main__ as command
from evidence import words
from evidence.content import NOT_SHOWN, OPPOSITE, SHOWN, UNKNOWN, finding, verdict
from evidence.desk import Desk
from evidence.small_models import Recipe, SmallModels
from evidence.ways import layout_for, prepare
from stage_lite.batch import hide_history, make_batch
from stage_lite.delay import delay, undelay
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.listening import code_losses
from stage_lite.metrics import studio, systems
from stage_lite.metrics.contrastive import EncoderConfig
from stage_lite.metrics.text import TextClassifier
from stage_lite.prefix import ALIGNED
from stage_lite.shards import ShardWriter
from stage_lite.trainer import Trainer

FAMILIES = ("rock", "bossa nova", "nova")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models, shards and a folder for everything that is computed."""
    folder = tmp_path_factory.mktemp("evidence")
    make_tiny_model(anchor_frames=ALIGNED, trained_s=2.0).save(folder / "nano")
    make_tiny_model(context_token=False, trained_s=2.0).save(folder / "nano-base")
    draw = torch.Generator().manual_seed(3)
    with ShardWriter(folder / "tokens", card=TINY_CARD) as writer:
        for number in range(8):
            beat_s = 0.3 + 0.03 * number
            meta = {
                "id": f"song{number}",
                "split": "test" if number < 5 else "train",
                "beats": [round(beat_s * i, 3) for i in range(int(6 / beat_s))],
                "bpm": 60 / beat_s,
                "family": FAMILIES[number % 3],
            }
            names = ("drums", "bass", "mix:drums", "mix:bass", "click")
            streams = {n: torch.randint(0, TINY_CARD, (4, 300), generator=draw) for n in names}
            writer.add(meta, streams)
    return folder


@pytest.fixture
def classifier(monkeypatch):
    torch.manual_seed(0)
    config = EncoderConfig(channels=(2, 2), width=4, dilations=(1,), dim=4)
    made = TextClassifier(config, ["drums", "bass"], FAMILIES).eval()
    monkeypatch.setattr(words, "load_text_classifier", lambda: made)


def options(place, *more):
    given = ["--model", place / "nano", "--base", place / "nano-base", "--tokens",
             place / "tokens", "--work", place / "work", "--docs", place / "docs", "--n", "4",
             "--steps", "2", "--seeds", "2", "--longest-s", "2", "--threads", "1",
             "--progress", "none", "--precision", "32-true", *more]  # fmt: skip
    return [str(word) for word in given]


def row_of(place, name):
    return json.loads((place / "docs" / "evidence" / f"{name}.json").read_text())


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", command.ROWS)
def test_each_row_runs_to_its_json(place, classifier, name):
    assert command.main([name, *options(place)]) == 0
    row = row_of(place, name)
    assert row["n"] <= 4 and row["n_songs"] >= 2 and row["seed"] == 0
    assert "--n 4" in row["command"] and row["findings"] and row["tables"] and row["panels"]
    for start in command.ROWS[name].ABOVE_ALL:
        assert any(found["what"].startswith(start) for found in row["findings"]), start
    for found in row["findings"]:
        assert found["verdict"] in (SHOWN, NOT_SHOWN, OPPOSITE, UNKNOWN)
        assert set(found["difference"]) == {"value", "low", "high"}
    for table in row["tables"]:
        assert all(len(line) == len(table["head"]) for line in table["rows"])


def test_a_row_again_computes_nothing_and_is_the_same(place, monkeypatch):
    names = ["listening", "border"]
    assert command.main([*names, *options(place)]) == 0
    before = [row_of(place, name) for name in names]

    def never(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(systems, "generate_codes", never)
    monkeypatch.setattr(studio, "code_losses", never)
    monkeypatch.setattr("evidence.small_models.code_losses", never)
    monkeypatch.setattr("evidence.small_models.finetune", never)
    assert command.main([*names, *options(place)]) == 0
    assert [row_of(place, name) for name in names] == before


def stop_at(patch, owner, name, number):
    """Ctrl-C at the given call of a function."""
    function, calls = getattr(owner, name), []

    def stops(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    patch.setattr(owner, name, stops)


def test_killed_and_gone_on_is_the_same(place, tmp_path, monkeypatch, capsys):
    names = ["border", "continuation"]
    assert command.main([*names, *options(place)]) == 0
    expected = [row_of(place, name) for name in names]
    again = [*names, *options(place, "--work", tmp_path / "work", "--docs", tmp_path / "docs")]
    for owner, name, number in ((Trainer, "train_step", 4), (systems, "generate_codes", 3)):
        with monkeypatch.context() as patch:
            stop_at(patch, owner, name, number)
            assert command.main(again) == 130
        assert "the same command goes on" in capsys.readouterr().out
    assert command.main(again) == 0
    assert [row_of(tmp_path, name) for name in names] == expected


def test_what_is_missing_is_said_and_the_rest_comes_out(place, monkeypatch, capsys):
    def no_model():
        raise StageLiteError("no classifier in text")

    monkeypatch.setattr(words, "load_text_classifier", no_model)
    (place / "docs" / "evidence" / "words.json").unlink(missing_ok=True)
    assert command.main(["words", "continuation", *options(place)]) == 1
    out = capsys.readouterr().out
    assert "missing: words: the text classifier: no classifier in text" in out
    assert row_of(place, "continuation")["findings"]
    page = (place / "docs" / "evidence.md").read_text()
    assert "Not computed yet: `python -m evidence words`" in page
    assert command.main(["listening", *options(place), "--base", "no-such-model"]) == 1
    assert "no-such-model is not there" in capsys.readouterr().out


def test_the_page_comes_from_the_json_alone(place, monkeypatch, capsys):
    assert command.main(["continuation", *options(place)]) == 0
    monkeypatch.setattr(command, "Desk", None)
    (place / "docs" / "evidence.md").unlink()
    assert command.main(["--page", *options(place)]) == 0
    page = (place / "docs" / "evidence.md").read_text()
    assert "# STAGE's claims in miniature" in page and "What failed or surprised" in page
    assert "fewer than the 256" in page and "n = 4 windows" in page
    assert "](evidence/continuation.png)" in page
    summary = next(line for line in page.split("\n") if line.startswith("| It continues"))
    assert "click: after its end" in summary and "<br>mix: after its end" in summary
    assert (place / "docs" / "evidence" / "continuation.png").stat().st_size > 1000
    alt = page.split("![")[1].split("](")[0]
    assert "95 % intervals" in alt and "real stem (ceiling)" in alt
    for module in command.ROWS.values():
        assert f"## {module.TITLE}" in page
    cells = {
        line.count("|") for line in page.split("| difference |")[1].split("\n\n")[0].split("\n")
    }
    assert len(cells - {1}) == 1  # every line of a table has as many cells


def test_costs_are_listed_before_anything_begins(capsys, monkeypatch):
    monkeypatch.setattr(command, "Desk", None)
    assert command.main(["--list", "--n", "512"]) == 0
    twice = capsys.readouterr().out
    assert command.main(["--list"]) == 0
    once = capsys.readouterr().out
    assert all(name in once for name in command.ROWS) and once != twice
    with pytest.raises(SystemExit):
        command.main(["no-such-row"])
    assert "unknown rows ['no-such-row']; expected some of listening" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--n", "2"])
    assert "--n is 2; expected at least 4" in capsys.readouterr().err


# --- what is said ---------------------------------------------------------------------------------


def test_a_difference_is_shown_only_by_its_whole_interval():
    def estimate(low, high):
        return {"value": (low + high) / 2, "low": low, "high": high}

    assert verdict(estimate(0.1, 0.3)) == SHOWN
    assert verdict(estimate(-0.1, 0.3)) == NOT_SHOWN
    assert verdict(estimate(0.0, 0.3)) == NOT_SHOWN
    assert verdict(estimate(-0.3, -0.1)) == OPPOSITE
    assert verdict(estimate(float("nan"), float("nan"))) == UNKNOWN
    assert finding("", estimate(0.1, 0.3), agree=False)["verdict"] == NOT_SHOWN


def test_a_model_that_listens_is_told_from_one_that_does_not(place, monkeypatch):
    """The whole of row 1 with a player that plays the real stem if the context is the right one."""
    desk = Desk(command.arguments(options(place, "--n", "8", "--work", place / "keen")))
    real = {}
    for target in ("drums", "bass"):
        for condition, examples in desk.windows(target).items():
            for e in examples:
                real[target, condition, e.context_codes.numpy().tobytes()] = e.target_codes

    def keen(lm, contexts, descriptions, n_frames, **_):
        codes = []
        for context, words_ in zip(contexts, descriptions, strict=True):
            key = None if context is None else context.numpy().tobytes()
            target = words_.split(",")[0]
            found = [v for (t, _, k), v in real.items() if t == target and k == key]
            codes.append(found[0] if found else torch.zeros(4, n_frames, dtype=torch.long))
        return SimpleNamespace(codes=torch.stack(codes))

    def scores(examples, events):
        pairs = zip(examples, events, strict=True)
        mine = [float(np.array_equal(x["codes"], e.target_codes.numpy())) for e, x in pairs]
        return {"beat_f1": np.array(mine), "onset_alignment": np.array(mine)}

    from evidence import listening
    from stage_lite.metrics import listening_gap

    monkeypatch.setattr(systems, "generate_codes", keen)
    monkeypatch.setattr(
        studio.Studio, "events",
        lambda self, name, clips, examples: [{"codes": c.codes.numpy()} for c in clips],
    )  # fmt: skip
    for where in (studio, listening, listening_gap):
        monkeypatch.setattr(where, "scores_of", scores)
    row = listening.run(desk)
    said = {f["what"]: f["verdict"] for f in row["findings"] if "beat F1" in f["what"]}
    assert said and set(said.values()) == {SHOWN}


# --- other ways in --------------------------------------------------------------------------------


def example(seed=0, frames=10, context=True):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, TINY_CARD, (2, 4, frames), generator=draw)
    return Example(
        None, None, "drums, rock", np.arange(3.0), np.zeros(1), f"song{seed}", 0.0, frames / 50,
        "click", context_codes=codes[0] if context else None, target_codes=codes[1],
    )  # fmt: skip


@pytest.fixture
def model():
    return make_tiny_model(anchor_frames=ALIGNED)


def batch_of(model, dropped=(False, True, False)):
    rows = [example(i) for i in range(len(dropped))]
    offset = torch.arange(len(dropped)) * 3
    return make_batch(
        model, rows, context_dropped=torch.tensor(dropped), position_offset=offset
    )  # fmt: skip


def labels(batch):
    """Target codes as the loss reads them."""
    prefix, out = batch.prefix, []
    for k in range(4):
        at = slice(prefix.target_start + k, prefix.target_start + k + prefix.n_target_frames)
        assert bool(prefix.loss_mask[:, k, at].all())
        out.append(prefix.sequence[:, k, at])
    assert int(prefix.loss_mask.sum()) == len(batch.examples) * 4 * prefix.n_target_frames
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("way", ["joined", "summed", "attended", "apart"])
def test_ways_ask_for_the_same_codes_at_the_same_positions(model, way):
    prepare(model.lm, way, 0)
    stage = batch_of(model)
    other = layout_for(way, model)(stage)
    assert torch.equal(labels(other), labels(stage))
    start, n = stage.prefix.target_start, stage.prefix.n_target_frames
    mine = other.prefix.target_start
    assert torch.equal(
        other.prefix.positions[:, mine : mine + n], stage.prefix.positions[:, start : start + n]
    )
    shape = other.prefix.sequence.shape[::2]
    assert other.prefix.positions.shape == other.prefix.attention_mask.shape == shape
    # A hidden past is hidden in each.
    hidden = hide_history(other, torch.ones_like(other.prefix.attention_mask), TINY_CARD)
    assert (hidden.inputs[hidden.prefix.loss_mask] == TINY_CARD).all()
    assert torch.isfinite(code_losses(model, hidden)).all()


def test_no_separator_is_one_piece_of_music(model):
    batch = layout_for("joined", model)(batch_of(model, (False, False)))
    rows = [torch.cat([e.context_codes, e.target_codes], dim=1) for e in batch.examples]
    assert torch.equal(batch.prefix.sequence, delay(torch.stack(rows), TINY_CARD))
    assert not (batch.prefix.sequence == TINY_CARD + 1).any()
    assert batch.prefix.attention_mask.all()


def test_parts_are_delayed_alone(model):
    batch = layout_for("apart", model)(batch_of(model, (False, False)))
    e, sequence = batch.examples[0], batch.prefix.sequence[:1]
    assert torch.equal(undelay(sequence[:, :, :14], TINY_CARD)[0], e.context_codes)
    assert (sequence[:, :, 14] == TINY_CARD + 1).all()  # the token in all codebooks at once
    alone = delay(e.target_codes[None], TINY_CARD)
    assert torch.equal(sequence[:, :, 15:], alone[:, :, 1:])


@pytest.mark.parametrize("way", ["prefix", "joined", "summed", "attended", "apart"])
def test_every_way_hears_the_context_and_only_that(model, way):
    """Another context changes the losses of its row, and of no other; a dropped one none."""
    prepare(model.lm, way, 0)
    lay_out = layout_for(way, model) or (lambda batch: batch)
    rows = [example(0), example(1)]
    with torch.inference_mode():
        before = code_losses(model, lay_out(make_batch(model, rows)))
        rows[0] = replace(rows[0], context_codes=example(9).context_codes)
        after = code_losses(model, lay_out(make_batch(model, rows)))
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    assert torch.allclose(before[1], after[1], atol=1e-5)
    dropped = torch.tensor([True, False])
    with torch.inference_mode():
        one = code_losses(model, lay_out(make_batch(model, rows, context_dropped=dropped)))
        rows[0] = replace(rows[0], context_codes=example(5).context_codes)
        two = code_losses(model, lay_out(make_batch(model, rows, context_dropped=dropped)))
    assert torch.allclose(one, two, atol=1e-5)


def test_a_dropped_context_leaves_musicgen(model):
    """Without its context every way but cross-attention, which reads zeros, gives the same."""
    with torch.inference_mode():
        plain = code_losses(model, make_batch(model, [example(0, context=False)]))
        for way in ("prefix", "joined", "summed", "apart"):
            prepare(model.lm, way, 0)
            lay_out = layout_for(way, model) or (lambda batch: batch)
            batch = make_batch(model, [example(0)], context_dropped=torch.tensor([True]))
            assert torch.allclose(code_losses(model, lay_out(batch)), plain, atol=1e-5), way


def test_the_sum_sees_no_future_and_attention_all_of_it(model):
    """Only the last frame of the context is changed: the first codes may know it or not."""
    for way, knows in (("summed", False), ("attended", True), ("prefix", True)):
        prepare(model.lm, way, 0)
        lay_out = layout_for(way, model) or (lambda batch: batch)
        e = example(0)
        changed = e.context_codes.clone()
        changed[:, -1] = (changed[:, -1] + 1) % TINY_CARD
        with torch.inference_mode():
            a, b = (
                code_losses(model, lay_out(make_batch(model, [replace(e, context_codes=c)])))
                for c in (e.context_codes, changed)
            )
        assert torch.allclose(a[0, :5], b[0, :5], atol=1e-6) == (not knows), way
        assert not torch.allclose(a[0, -1], b[0, -1], atol=1e-6)


def test_longer_small_trainings_go_on_from_shorter_ones(place, tmp_path):
    args = command.arguments(options(place, "--work", tmp_path))
    small = SmallModels(Desk(args))
    short, long = Recipe(steps=2), Recipe(steps=4)
    small.model(short)
    gone_on = small.model(long)
    assert small.folder(short) == small.folder(long)
    args.work = tmp_path / "anew"
    anew = SmallModels(Desk(args)).model(long)
    for (name, a), b in zip(
        gone_on.lm.state_dict().items(), anew.lm.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert small.key(short) != small.key(long) != small.key(replace(long, way="summed"))
