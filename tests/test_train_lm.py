"""pretraining/train_lm.py: a run on tiny shards, blended data sets, words that are added later."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_CARD, make_tiny_model

from stage_lite.batch import make_batch
from stage_lite.context_encoder import ContextEncoder
from stage_lite.examples import Example
from stage_lite.model import load
from stage_lite.shards import ShardWriter
from stage_lite.text import encode_text
from stage_lite.weights import save_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import attach_encoder
import train_lm
from beat_head import N_PHASES, UNKNOWN, BeatHead, beat_labels
from train_context_encoder import WIDTH, lay_out, right, root_labels
from train_lm import Blend, Stage
from vocabulary import add_words


def shards(folder: Path, n_songs: int = 12) -> Path:
    """Songs of 4 s of random codes with every stream that the recipe asks for."""
    draw = torch.Generator().manual_seed(0)
    names = ["drums", "bass", "keys", "guitar", "click", "backing:drums", "backing:bass"]
    names += [f"mix:{stem}" for stem in names[:4]]
    with ShardWriter(folder, card=TINY_CARD) as writer:
        for i in range(n_songs):
            streams = {
                name: torch.randint(0, TINY_CARD, (4, 200), generator=draw) for name in names
            }
            split = ("train", "train", "valid", "test")[i % 4]
            meta = {"id": f"song{i}", "split": split, "family": "rock", "bpm": 120.0}
            beats = {"beats": list(np.arange(0, 4, 0.5)), "downbeats": [0.0, 2.0]}
            writer.add(meta | beats, streams)
    return folder


@pytest.mark.parametrize("what", ["nano", "follow", "hear", "stage"])
def test_a_run_of_a_recipe_resumes_and_leaves_a_model(what, tmp_path, monkeypatch, capsys):
    tokens = shards(tmp_path / "tokens")
    settings = {"learning_rate": 1e-3}
    stages = [Stage(2, 1.0, 4, train_lm.MUSIC, settings, clicks=0.5),
              Stage(3, 2.0, 2, train_lm.MUSIC, settings, context_s=(1.0, 2.0))]  # fmt: skip
    monkeypatch.setitem(train_lm.STAGES, what, stages)
    make_tiny_model(context_token=what == "hear").save(tmp_path / "base")
    command = ["train_lm.py", what, "--tokens", tokens, "--start", tmp_path / "base"]
    if what == "hear":
        encoder = ContextEncoder(4, TINY_CARD, load(tmp_path / "base").config.lm.dim, WIDTH)
        save_weights(encoder, tmp_path / "encoder.safetensors")
        monkeypatch.setattr(attach_encoder, "WINDOW_S", 2.0)
        command += ["--encoder", tmp_path / "encoder.safetensors"]
    for _ in range(2):  # the second finds all steps done
        out = tmp_path / "nano"
        monkeypatch.setattr(sys, "argv", [str(x) for x in [*command, "--out", out]])
        train_lm.main()
    model = load(out / "model")
    assert model.config.anchor_frames == (400 if what == "stage" else -1)
    assert "click" in model.config.lm.vocabulary
    if what == "hear":  # its way into the model is trained, the rest stays
        trained = model.lm.context_encoder
        assert model.config.lm.context_encoder == WIDTH
        assert torch.equal(trained.blocks[0].taps.weight, encoder.blocks[0].taps.weight)
        assert trained.of_features.weight.abs().sum() > 0
    assert model.lm.emb[0].weight.shape[0] == TINY_CARD + 2
    assert len((out / "log.jsonl").read_text().splitlines()) == 2  # the end of each stage


@pytest.mark.parametrize("what", train_lm.STAGES)
def test_stages_follow_one_another_to_the_shipped_length(what):
    stages = train_lm.STAGES[what]
    ends = [stage.until for stage in stages]
    assert sorted(set(ends)) == ends
    assert stages[-1].window_s == (16.0 if what == "base" else train_lm.SHIPPED_S)


def test_roots_of_chords():
    chords = [[1.0, "Eb7"], [2.0, "F#m"], [3.0, "C"], [3.5, "Cb"]]
    found = root_labels(chords, np.array([0.5, 1.0, 1.9, 2.5, 3.2, 9.0]))
    assert found.tolist() == [UNKNOWN, 3, 3, 6, 0, 11]
    assert (root_labels([], np.arange(3)) == UNKNOWN).all()


def test_contexts_are_laid_out_with_beats_and_roots():
    model = make_tiny_model()
    codes = torch.randint(0, TINY_CARD, (4, 60))
    one = replace(window(np.arange(0.1, 2, 0.5), [0.1]), start_s=1.0, target_codes=codes)
    rows = [replace(one, context_codes=codes), replace(one, context_codes=codes[:, :20]),
            replace(one, context_codes=codes, condition="click")]  # fmt: skip
    sequence, context, labels = lay_out(model, rows, {"a": [[0.0, "D"], [1.5, "A"]]})
    assert context.sum(1).tolist() == [62, 22, 62]
    for b, first in enumerate((1, 41, 1)):
        at = labels[b, 0, first + 5]  # 0.1 s: a beat
        assert at == 0 and torch.equal(sequence[b, 0, first : first + 20], codes[0, :20])
    assert labels[0, 1, 1] == 2 and labels[0, 1, 40] == 9 and (labels[2, 1] == UNKNOWN).all()
    logits = torch.nn.functional.one_hot((labels[:, 0].clamp(min=0) + 1) % N_PHASES, N_PHASES)
    assert torch.equal(right(logits, labels[:, 0], 1), torch.ones(3))
    assert torch.equal(right(logits, labels[:, 0], 0), torch.zeros(3))


def window(beats, downbeats) -> Example:
    return Example(None, None, "drums", np.array(beats), np.array(downbeats), "a", 0.0, 4.0, "mix")


def test_beat_labels_are_phase_and_number():
    labels = beat_labels(window([0.32, 0.64, 0.96, 1.28, 1.6], [0.64, 1.6]), 80, 50.0)
    frame = round(0.32 * 50)
    assert labels[0, [0, frame, frame + 8, 2 * frame]].tolist() == [0, 0, 8, 0]
    assert labels[1, [4, 20, 36, 52, 68]].tolist() == [1, 2, 0, 1, 2]  # three beats a bar
    assert set(labels[0]) == set(range(N_PHASES))
    assert (beat_labels(window([0.5], [0.5]), 40, 50.0) == UNKNOWN).all()
    assert (beat_labels(window([], []), 40, 50.0) == UNKNOWN).all()


def test_the_beat_head_reads_frames_where_they_stand():
    """One-hot hidden states of the right phases give a head of ones its full score."""
    model = make_tiny_model()
    one = window(np.arange(0.1, 0.7, 0.16), [0.1, 0.58])
    codes = torch.randint(0, TINY_CARD, (4, 30))
    examples = [replace(one, context_codes=codes[:, :n], target_codes=codes) for n in (30, 12)]
    examples.append(replace(one, context_codes=None, target_codes=codes))
    batch = make_batch(model, examples)
    head = BeatHead(N_PHASES, 50.0)
    torch.nn.init.eye_(head.phase.weight)
    torch.nn.init.zeros_(head.phase.bias)
    phases = torch.from_numpy(beat_labels(one, 30, 50.0)[0])
    first = batch.prefix.target_start - 1
    hidden = torch.zeros(3, batch.inputs.shape[2], N_PHASES)
    for row, n in enumerate((30, 12, 0)):  # contexts are padded on the left
        hidden[row, first - n : first] = torch.nn.functional.one_hot(phases[:n], N_PHASES).float()
        hidden[row, first : first + 30] = torch.nn.functional.one_hot(phases, N_PHASES).float()
    head(hidden, batch)
    assert head.watched == {"context": 0.02, "target": 0.02}  # the first step of a running mean
    loss = head(50 * hidden, batch)
    loss.backward()
    assert head.phase.weight.grad.abs().max() < 1e-6 < head.place.weight.grad.abs().max()


def test_the_shipped_recipe_is_well_formed():
    for what, stages in train_lm.STAGES.items():
        assert what in train_lm.HEARD and what in train_lm.PAST
        ends = [stage.until for stage in stages]
        assert ends == sorted(set(ends)) and stages[-1].window_s >= train_lm.SHIPPED_S
        assert all(0 <= stage.clicks < 1 for stage in stages)
    assert not any("click" in name for name in train_lm.UNDER_CLICK)


def test_a_blend_draws_each_part_by_its_share_and_by_number_only():
    parts = [(0.75, ["a"] * 2000), (0.25, ["b"] * 3000)]
    blend = Blend(parts, seed=1)
    drawn = [blend[i] for i in range(2000)]
    assert len(blend) == 2000
    assert drawn.count("b") / 2000 == pytest.approx(0.25, abs=0.03)
    assert drawn == [Blend(parts, seed=1)[i] for i in range(2000)]
    assert drawn != [Blend(parts, seed=2)[i] for i in range(2000)]


def test_new_words_leave_the_old_ones_as_they_were(tmp_path):
    model = make_tiny_model()
    before = encode_text(model.lm, ["drums, rock", "click"])[0]
    add_words(model, ["click", "rock"])
    after = encode_text(model.lm, ["drums, rock", "click"])[0]
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    model.save(tmp_path)
    again = load(tmp_path)
    assert again.config.lm.vocabulary == model.config.lm.vocabulary
    assert torch.equal(encode_text(again.lm, ["click"])[0], after[1:, :8])
