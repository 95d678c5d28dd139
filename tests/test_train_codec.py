"""pretraining/train_codec.py: all its stages on a toy corpus, an exact resume, codes that stay."""

import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from toy_corpus import toy_corpus

from stage_lite.checkpoint import load_checkpoint
from stage_lite.codec import CodecConfig, decode, encode, load_codec
from stage_lite.shipped import PRETRAINED

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import train_codec


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return toy_corpus(tmp_path_factory.mktemp("corpus"), n_train=2, n_valid=1, n_test=0)


@pytest.fixture
def run(corpus, monkeypatch):
    """train_codec.py with a batch of two, up to a number of steps."""
    monkeypatch.setattr(train_codec, "WARM_SEGMENTS", 16)
    monkeypatch.setattr(train_codec, "guard", partial(train_codec.guard, n_samples=640))

    def call(out, steps, *more):
        argv = ["--corpus", corpus, "--out", out, "--steps", steps, "--batch-size", 2,
                "--threads", torch.get_num_threads(), *more]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["train_codec.py", *map(str, argv)])
        train_codec.main()
        return load_checkpoint(out / "checkpoint.safetensors")

    return call


def test_a_run_that_was_stopped_in_any_stage_ends_as_a_whole_one(run, tmp_path, monkeypatch):
    monkeypatch.setattr(train_codec, "CodecConfig", partial(CodecConfig, kmeans_iters=2))
    stages = ["--mel-from", 0, "--quantise-from", 1, "--freeze", 3, "--adversary-from", 3]
    whole, meta = run(tmp_path / "whole", 5, *stages)
    for steps in (1, 4):
        run(tmp_path / "parts", steps, *stages)
    parts, meta_of_parts = run(tmp_path / "parts", 5, *stages)
    assert meta == meta_of_parts and meta["step"] == 5
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_decoder_that_goes_on_leaves_the_codes_valid(run, tmp_path):
    shipped = PRETRAINED / "nano-codec"
    frozen = ["--start", shipped, "--freeze", 7, "--adversary-from", 8]
    run(tmp_path, 10, *frozen)
    old, new = load_codec(shipped)[0], load_codec(tmp_path / "codec")[0]
    wav = torch.sin(torch.arange(12800) / 20)[None, None] * 0.3
    codes = encode(old, wav)
    assert torch.equal(codes, encode(new, wav))
    assert not torch.equal(decode(old, codes), decode(new, codes))
    assert (decode(old, codes) - decode(new, codes)).abs().max() < 0.1  # three small steps


def test_ctrl_c_keeps_what_was_learned(run, tmp_path, monkeypatch, capsys):
    step = train_codec.CodecTraining.train_step

    def interrupted(self, real):
        if self.step == 1:
            raise KeyboardInterrupt
        return step(self, real)

    monkeypatch.setattr(train_codec.CodecTraining, "train_step", interrupted)
    _, meta = run(tmp_path, 9)
    assert meta["step"] == 1 and "stopped at step 1" in capsys.readouterr().out


def test_ctrl_c_within_a_step_comes_when_the_step_is_whole(run, tmp_path, monkeypatch):
    whole, _ = run(tmp_path / "whole", 2)
    step = train_codec.CodecTraining._optimise

    def interrupted(self, *args):
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        step(self, *args)

    monkeypatch.setattr(train_codec.CodecTraining, "_optimise", interrupted)
    stopped, meta = run(tmp_path / "stopped", 9)
    assert meta["step"] == 2
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
