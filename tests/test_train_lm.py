"""pretraining/train_lm.py: a run on tiny shards, blended data sets, words that are added later."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_CARD, make_tiny_model

from stage_lite.model import load
from stage_lite.shards import ShardWriter
from stage_lite.text import encode_text

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import train_lm
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
            writer.add(meta | {"beats": list(np.arange(0, 4, 0.5))}, streams)
    return folder


def test_a_run_of_the_nano_recipe_resumes_and_leaves_a_model(tmp_path, monkeypatch, capsys):
    tokens = shards(tmp_path / "tokens")
    settings = {"history_delay": 0.4, "learning_rate": 1e-3}
    stages = [Stage(2, 1.0, 4, train_lm.MUSIC, settings, clicks=0.5),
              Stage(3, 2.0, 2, train_lm.MUSIC, settings, context_s=(1.0, 2.0))]  # fmt: skip
    monkeypatch.setitem(train_lm.STAGES, "nano", stages)
    make_tiny_model(context_token=False).save(tmp_path / "base")
    command = ["train_lm.py", "nano", "--tokens", tokens, "--start", tmp_path / "base"]
    for _ in range(2):  # the second finds all steps done
        out = tmp_path / "nano"
        monkeypatch.setattr(sys, "argv", [str(x) for x in [*command, "--out", out]])
        train_lm.main()
    model = load(out / "model")
    assert model.config.anchor_frames == -1 and "click" in model.config.lm.vocabulary
    assert model.lm.emb[0].weight.shape[0] == TINY_CARD + 2
    assert len((out / "log.jsonl").read_text().splitlines()) == 2  # the end of each stage


def test_the_shipped_recipe_is_well_formed():
    for what, stages in train_lm.STAGES.items():
        assert what in train_lm.HEARD and what in train_lm.HIDDEN
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
