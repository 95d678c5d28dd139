# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 Fine-tuning: teaching it to listen
#
# In notebook 03 the new token did nothing. Here you train it for a few minutes on your own processor, watch the model begin
# to follow a click, stop the training with Ctrl-C, and go on as if nothing had happened.
#
# ```
#   windows of codes ──drop, hide──▶ [ context | C | target ] ──model──▶ loss of the target ──▶ gradient ──▶ weights
#          ▲                                                                                                   │
#          └────────────────────────────────────── next step ◀─────────────────────────────────────────────────┘
# ```
#
# You will be able to
# - **write** the training loop, equal to the library's,
# - **stop and go on** without losing a bit,
# - **judge** whether a model listens while it is still being trained, and say what to try if it does not.
#
# Needs: notebook 03 (prefix, loss, gap). Two CPU cores, no GPU, no network. Reading and listening: 30 minutes. Exercises:
# 40 minutes. Computing: at most 240 s, most of it the training.

# %%
REPOSITORY = ""  # on Colab: this repository's address; elsewhere `make lab` did it all
import importlib.util
import subprocess
import sys

if REPOSITORY:
    install = "pip install -q -e . && pip install -q --no-deps -r requirements-nodeps.txt"
    command = f"git clone -q {REPOSITORY} stage-lite && cd stage-lite && {install}"
    subprocess.run(command, shell=True, check=True)
    sys.path.insert(0, "stage-lite")
elif importlib.util.find_spec("stage_lite") is None:
    raise ImportError("no stage_lite in this kernel: start with `make lab`, or fill in REPOSITORY")
import json
import signal
import tempfile
import timeit
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn, optim

import stage_lite as sl
from stage_lite import audio, batch, charts, checks, listening, metrics, prefix, song, text
from stage_lite.clips import Clip, Clips
from stage_lite.training import TrainingConfig

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. Windows of codes
#
# Training wants the same few seconds of a song as context and as target, again and again from other places. A folder of
# stems gives such **windows** as audio; a folder of token shards gives them as codes that were made once.
#
# **Predict.** How many times smaller are the codes?

# %%
base = sl.load("nano-base")
stems = sl.StemDataset(song.open_samples(), "drums", window_s=4.0, conditions=["metronome"])
shards = song.SAMPLES / "tokens"
tokens = sl.ShardDataset(shards, "drums", window_s=4.0, conditions=["click"], split="train")
example, coded = stems[0], tokens[0]
audio_bytes, code_bytes = example.target.nbytes, 2 * coded.target_codes.numel()  # 2 bytes a code
assert coded.target is None and audio_bytes > 100 * code_bytes
print(f"{len(tokens.song_ids)} songs, {tokens.hours:.1f} h; {audio_bytes} bytes as audio,",
      f"{code_bytes} as codes: {audio_bytes / code_bytes:.0f} times as many")  # fmt: skip
print([*coded.target_codes.shape], coded.description, "|", coded.condition, "|", coded.song_id)

# %% [markdown]
# The codec is frozen, so encoding once is enough. Random changes of the audio (another tempo, another key: `augment=True`)
# need the stems; shards cannot have them.
#
# A window has a number, and follows from **(seed, number)** alone. That one habit makes a run repeatable, and makes
# stopping easy: whoever knows the step knows its windows.

# %%
mixed = sl.ShardDataset(shards, "drums", window_s=1.28, conditions={"self": 0.3, "click": 0.7},
                        split="train", seed=SEED, n=10**6)  # fmt: skip
assert torch.equal(mixed[77].target_codes, mixed[77].target_codes)  # number 77, twice
print("contexts of the first windows:", ", ".join(mixed[i].condition for i in range(8)))
both = audio.mix(list(base.decode(torch.stack([coded.context_codes, coded.target_codes]))))
Clips([Clip("context and target", both, base.sample_rate, "it begins anywhere in the bar.")])

# %% [markdown]
# ## 2. What is left out on purpose
#
# - **Context dropout**: some windows lose context and token, **text dropout**: some lose their words. The model stays able
#   to play without, and guidance (notebook 02) has something to compare with.
# - **Hidden past**: of what the target reads about itself, some steps are hidden. Drums predict their own next bar so well
#   that the context is hardly needed; who cannot remember has to listen.
# - **Late past**: the target reads its own past some frames late. It sounds right and is out of step, so only the
#   context says where the beat is.


# %%
def beginner() -> sl.StageModel:
    model = sl.load("nano-base")
    sl.extend_embedding(model.lm, seed=SEED)
    model.config = replace(model.config, name="student", anchor_frames=prefix.ALIGNED)
    return model


student, folder = beginner(), tempfile.mkdtemp(prefix="stage-lite-")
whole, special = batch.make_batch(student, [coded]), student.special_token_id
first, n_steps = whole.prefix.target_start, whole.prefix.sequence.shape[2]
coin = torch.rand(1, n_steps, generator=torch.Generator().manual_seed(SEED)) < 0.5
ways = {"as it is": whole, "half hidden": batch.hide_history(whole, coin, special),
        "late by 3": batch.delay_history(whole, torch.tensor([3]), special)}  # fmt: skip
for name, way in ways.items():
    row = way.inputs[0, 0, first : first + 14].tolist()
    print(f"{name:12}", " ".join("  ." if code == special else f"{code:3}" for code in row))
    assert torch.equal(way.prefix.sequence, whole.prefix.sequence)  # what is asked for stays

# %% [markdown]
# ### Exercise 1: who goes without
#
# ★★☆ · 10 minutes. Which rows of a batch lose their context?


# %%
def dropped_rows(numbers: list[int], share: float, seed: int) -> Tensor:
    """Draw, for each example, whether it goes without.

    Args:
        numbers: of the examples in this batch.
        share: how many of all examples go without, 0 to 1.
        seed: of the run.

    Returns:
        Bool[B]; an example's fate follows from (seed, its number) alone.
    """
    ### BEGIN SOLUTION
    draws = [np.random.default_rng([seed, number]).random() for number in numbers]
    return torch.tensor(draws) < share
    ### END SOLUTION


# %%
checks.dropped_rows(dropped_rows)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# `np.random.default_rng([a, b])` takes several numbers as its seed. Make one generator for each example.
# </details>
#
# <details><summary>Hint 2: from a number to a decision</summary>
#
# `.random()` is even in [0, 1), so it is below `share` in just that share of the cases.
# </details>
#
# <details><summary>The share is right, and the same rows go without in every step</summary>
#
# ```python
# def dropped_rows(numbers, share, seed):
#     generator = torch.Generator().manual_seed(seed)
#     return torch.rand(len(numbers), generator=generator) < share
# ```
# </details>
#
# <details><summary>Each call gives other rows</summary>
#
# ```python
# def dropped_rows(numbers, share, seed):
#     return torch.rand(len(numbers)) < share
# ```
# </details>
#
# <details><summary>The whole batch goes without, or nobody</summary>
#
# ```python
# def dropped_rows(numbers, share, seed):
#     dropped = bool(np.random.default_rng([seed, numbers[0]]).random() < share)
#     return torch.full((len(numbers),), dropped)
# ```
# </details>

# %% [markdown]
# ## 3. The loop, line by line
#
# ### Exercise 2: one step
#
# ★★★ · 20 minutes. Everything that training is, once.


# %%
def train_step(
    lm: nn.Module, optimizer: optim.Optimizer, prefix: sl.Prefix, step: int, config: TrainingConfig
) -> float:
    """Move the weights once.

    Args:
        optimizer: over its weights; its learning rate is yours to set, in each of its param_groups.
        prefix, step: the batch, without text, and its number, 0 for the first one.
        config: has learning_rate, warmup_steps (over which the rate rises evenly: step 0 has
            1 / warmup_steps of it) and clip_norm (what the gradient's norm may be at most).

    Returns:
        The loss of the target's codes, in nats.
    """
    ### BEGIN SOLUTION
    warm = min(1.0, (step + 1) / config.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * warm
    logits = sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)
    loss, _ = sl.prefix_loss(logits, prefix)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(lm.parameters(), config.clip_norm)
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %%
checks.train_step(train_step)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Logits from `sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)`, the loss from
# `sl.prefix_loss(logits, prefix)`, which gives two things.
# </details>
#
# <details><summary>Hint 2: the order</summary>
#
# Learning rate, logits, loss, `zero_grad`, `backward`, `nn.utils.clip_grad_norm_`, `optimizer.step`.
# </details>
#
# <details><summary>My loss is another one: it counts the context too</summary>
#
# ```python
# def train_step(lm, optimizer, prefix, step, config):
#     for group in optimizer.param_groups:
#         group["lr"] = config.learning_rate * min(1.0, (step + 1) / config.warmup_steps)
#     logits = sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)
#     labels = prefix.sequence[:, :, 1:]
#     labels = labels.masked_fill(labels >= lm.card, -100)  # all codes, wherever they stand
#     loss = nn.functional.cross_entropy(logits[:, :, :-1].flatten(0, 2), labels.flatten())
#     optimizer.zero_grad()
#     loss.backward()
#     nn.utils.clip_grad_norm_(lm.parameters(), config.clip_norm)
#     optimizer.step()
#     return loss.item()
# ```
# </details>
#
# <details><summary>The first step is far too large</summary>
#
# ```python
# def train_step(lm, optimizer, prefix, step, config):
#     for group in optimizer.param_groups:
#         group["lr"] = config.learning_rate
#     logits = sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)
#     loss, _ = sl.prefix_loss(logits, prefix)
#     optimizer.zero_grad()
#     loss.backward()
#     nn.utils.clip_grad_norm_(lm.parameters(), config.clip_norm)
#     optimizer.step()
#     return loss.item()
# ```
# </details>
#
# <details><summary>The first step is right, the second is not</summary>
#
# ```python
# def train_step(lm, optimizer, prefix, step, config):
#     for group in optimizer.param_groups:
#         group["lr"] = config.learning_rate * min(1.0, (step + 1) / config.warmup_steps)
#     logits = sl.forward(lm, prefix.sequence, prefix.attention_mask, prefix.positions)
#     loss, _ = sl.prefix_loss(logits, prefix)
#     loss.backward()
#     nn.utils.clip_grad_norm_(lm.parameters(), config.clip_norm)
#     optimizer.step()
#     return loss.item()
# ```
# </details>

# %% [markdown]
# The whole loop adds three lines: which windows, what they lose, and their words. **Predict.** Three steps by hand and
# three by `sl.finetune`: how many of the weights will differ?


# %%
def by_hand(model: sl.StageModel, data: sl.ShardDataset, n_steps: int) -> None:
    adam = {"betas": config.betas, "weight_decay": config.weight_decay, "fused": True}
    optimizer = optim.AdamW(model.lm.parameters(), **adam)
    for step in range(n_steps):
        numbers = range(step * config.batch_size, (step + 1) * config.batch_size)
        fates = np.stack([np.random.default_rng([SEED, 1, i]).random(5) for i in numbers])
        gone = torch.from_numpy(fates[:, :2] < [config.context_dropout, config.text_dropout])
        rows = batch.make_batch(model, [data[i] for i in numbers], context_dropped=gone[:, 0],
                                text_dropped=gone[:, 1])  # fmt: skip
        words, mask = text.encode_text(model.lm, rows.descriptions)
        p = rows.prefix
        logits = sl.forward(model.lm, p.sequence, p.attention_mask, p.positions, words, mask,
                            first_step=p.target_start - 1)  # fmt: skip
        loss, _ = sl.prefix_loss(logits, p)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.lm.parameters(), config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / config.warmup_steps)
        optimizer.step()


# %%
def weights(model: sl.StageModel) -> Tensor:
    return nn.utils.parameters_to_vector(model.lm.parameters()).detach()


config = TrainingConfig(batch_size=4, warmup_steps=2, context_dropout=0.3, seed=SEED)
mine, library = beginner(), beginner()
by_hand(mine, mixed, 3)
sl.finetune(library, mixed, steps=3, config=config, progress=False)
assert torch.equal(weights(mine), weights(library))
print(f"{int((weights(mine) != weights(student)).sum())} weights moved, by hand and by the library")

# %% [markdown]
# ## 4. Stop, and go on
#
# ### Exercise 3: what must be kept
#
# ★★☆ · 10 minutes. AdamW, the optimizer, keeps two running means of every weight's gradient, its **moments**. And in the run of
# this exercise rows are dropped with one generator that goes on and on. What does a checkpoint need, so that nobody can
# tell that there was a pause?


# %%
def snapshot(
    lm: nn.Module, optimizer: optim.Optimizer, generator: torch.Generator, step: int
) -> dict:
    """All that the run needs in order to go on; what trains on afterwards does not change it.

    Args:
        generator: of all random numbers of the run.
        step: steps that are done.

    Returns:
        {"lm": state dict, "optimizer": state dict, "random": the generator's state, "step": step}
    """
    ### BEGIN SOLUTION
    state = {"lm": lm.state_dict(), "optimizer": optimizer.state_dict()}
    return {**deepcopy(state), "random": generator.get_state(), "step": step}
    ### END SOLUTION


# %%
checks.snapshot(snapshot)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Modules and optimizers have `state_dict()`, a generator has `get_state()`.
# </details>
#
# <details><summary>Hint 2: it has changed since</summary>
#
# A state dict holds the very tensors that training writes into. `deepcopy` gives tensors of its own.
# </details>
#
# <details><summary>It goes on, and stumbles: the optimizer is forgotten</summary>
#
# ```python
# def snapshot(lm, optimizer, generator, step):
#     return {"lm": deepcopy(lm.state_dict()), "random": generator.get_state(), "step": step}
# ```
# </details>
#
# <details><summary>It goes on with other random numbers</summary>
#
# ```python
# def snapshot(lm, optimizer, generator, step):
#     state = {"lm": lm.state_dict(), "optimizer": optimizer.state_dict()}
#     return {**deepcopy(state), "random": torch.Generator().get_state(), "step": step}
# ```
# </details>
#
# <details><summary>All four are in it, and it is the state of the end</summary>
#
# ```python
# def snapshot(lm, optimizer, generator, step):
#     return {"lm": lm.state_dict(), "optimizer": optimizer.state_dict(),
#             "random": generator.get_state(), "step": step}
# ```
# </details>

# %% [markdown]
# In the library the random numbers of an example follow from (seed, number), so the step says it all: a checkpoint is
# weights, moments, step. Ctrl-C (in a notebook: the stop button) writes one. The next cell presses it by itself, after
# step 2 of 4.
#
# **Predict.** Will the run that was stopped end with the same weights, or with nearly the same?


# %%
plain = {"steps": 4, "config": config, "progress": False}
stopped, again, through = beginner(), beginner(), beginner()
with tempfile.TemporaryDirectory() as kept:
    run = sl.finetune(stopped, mixed, checkpoint_dir=kept, **plain,
                      on_step=lambda n, _: n == 2 and signal.raise_signal(signal.SIGINT))  # fmt: skip
    assert run.interrupted and run.step == 2
    sl.finetune(again, mixed, checkpoint_dir=kept, **plain)  # as after a restart of the kernel
sl.finetune(through, mixed, **plain)
assert torch.equal(weights(again), weights(through))
print(f"all {len(weights(again))} weights equal to the last bit")

# %% [markdown]
# ## 5. A few minutes of training
#
# What makes a short run listen was found by trial (`dev/LOG.md`; section 6 shows the numbers):
#
# - **Copying first.** In a third of the windows the context is the target itself. That is the quickest way to learn where to
#   look.
# - **Clicks only.** One thing to hear, and nothing in it but the beat.
# - **Short windows**, 1.28 s: many of them in a step, and little past to lean on.
# - **Aligned positions**: a frame of the target has the number of the context's frame that sounds with it.
# - **Past hidden or late**, in most windows.
#
# Three judges, on songs that are never trained on: the loss, the **gap** (notebook 03) with the past there and hidden, and
# **beat F1**: play drums to a click, let a beat tracker listen, compare its beats with the click's. 1 is all, 0 none. Held
# against the beats of *other* songs, the same drums give the floor; the real drums give the ceiling.


# %%
def windows(condition: str, split: str, window_s: float, n: int) -> list[sl.Example]:
    options = {"window_s": window_s, "conditions": condition, "split": split, "n": n, "seed": SEED}
    return list(sl.ShardDataset(shards, "drums", **options))


held_out, asked = windows("click", "valid", 2.56, 32), windows("click", "test", 4.0, 16)
rate, f1, played, beats = student.sample_rate, {}, {}, metrics.beats
named = {"duration_s": 4.0, "sample_rate": rate}
clicks = [sl.click_track(e.beat_times, e.downbeat_times, **named) for e in asked]


def judge(name: str, wavs: Tensor) -> None:
    heard, score = [beats.tracked_beats(wav, rate) for wav in wavs], beats.beat_f1_of_times
    table = np.array([[score(e.beat_times, times) for times in heard] for e in asked])
    played[name], f1[name] = wavs, table.diagonal()
    floor = table[~np.eye(len(asked), dtype=bool)].mean()
    print(f"{name}: beat F1 {f1[name].mean():.2f}, against other songs' beats {floor:.2f}")


def play(model: sl.StageModel) -> Tensor:
    words, heard = [e.description for e in asked], torch.stack(clicks)
    return model.generate(heard, rate, words, 4.0, seed=SEED).wav


# %%
judge("real drums", base.decode(torch.stack([e.target_codes for e in asked])))
judge("before", play(student))

# %% [markdown]
# **Predict.** Which will move first: the loss, the gap, or beat F1?
#
# The training stands in four cells. Each goes on from the checkpoint of the one before, just as it would after a
# restart; interrupt any of them, run it again, and it goes on too. (A processor that is not quick with bfloat16, a short
# number format, takes about three times as long.)

# %%
grids = {"32-true": torch.ones(999, 999), "bf16-mixed": torch.ones(999, 999).bfloat16()}
cost_s = {name: timeit.timeit(lambda x=x: x @ x, number=9) for name, x in grids.items()}
precision = min(cost_s, key=cost_s.get)  # what this processor is quicker with
recipe = TrainingConfig(
    batch_size=24, learning_rate=1e-3, warmup_steps=20, text_dropout=0.3, history_dropout=0.7,
    history_delay=0.3, spread_positions=True, validate_every=80, precision=precision, seed=SEED,
)  # fmt: skip


def train(until: int):
    run = sl.finetune(student, mixed, steps=until, checkpoint_dir=folder, validation=held_out,
                      config=recipe)  # fmt: skip
    seen = run.history().dropna(subset="valid_gap").set_index("step")
    print(seen[["valid_right", "valid_none", "valid_gap", "valid_gap_hidden"]].to_string())
    return seen


seen = train(80)

# %%
seen = train(160)
judge("halfway", play(student))

# %%
seen = train(240)

# %%
seen = train(320)

# %%
judge("after", play(student))
judge("nano", play(sl.load("nano")))

# %%
names = ["before", "halfway", "after", "nano", "real drums"]
charts.bars({name: f1[name].mean() for name in names}, "beat F1 against the click (16 windows)")

# %%
best = int((f1["after"] - f1["before"]).argmax())  # that gained most: no fair sample
listen_for = {"before": "click and drums go their own ways.", "after": "are hits on the click?",
              "nano": "the same click after hours of training."}  # fmt: skip
Clips([Clip(f"{name}: {asked[best].description}", audio.mix([clicks[best], played[name][best]]),
            rate, what) for name, what in listen_for.items()])  # fmt: skip

# %% [markdown]
# ## 6. The long run beside it
#
# The run that became `nano` went on for far longer, and its curve was written down (`docs/reports/nano-training.json`, from
# `dev/LOG.md`), on windows of the same kind. A fair axis is how much music each has trained on: steps times windows times
# seconds. Its beginning is no copy of yours: it had mixes in the contexts from the first step on, and other stems as
# targets. The bars show the end of each run after it, one begun where the last one stopped.
#
# **Predict.** Which of the two listens to clicks sooner?

# %%
report = json.loads((song.SAMPLES.parent / "docs/reports/nano-training.json").read_text())
runs = {run["name"]: run for run in report["runs"]}
hours = seen.index.to_numpy() * recipe.batch_size * mixed.window_s / 3600
lines = {"here": seen["valid_gap_hidden"], "nano's beginning": runs["aligned"]["click_hidden"]}
charts.curves(lines, {"here": hours, "nano's beginning": runs["aligned"]["hours"]},
              x_label="hours of target trained on", y_label="gap, past hidden (nats)")  # fmt: skip

# %%
later = {name: run["click"][-1] for name, run in runs.items() if name != "anchored"}
charts.bars({"here": seen["valid_gap"].iloc[-1], **later}, "gap with the past there (nats)")

# %% [markdown]
# ### When it does not listen
#
# Look at the gap with the past hidden, from the first hundred steps on; the mean loss falls either way. If it stays at
# zero, in about this order:
#
# 1. **Positions.** At STAGE's own distance the same steps teach next to nothing (the cell below). STAGE starts from a
#    model sixty times as large that looks a bar back already; a pocket model has to be helped.
# 2. **Something to copy**, then clicks, then mixes. The order is that in which they are learnt.
# 3. **Less past.** Hide it, let it come late. Short windows have less of it.
# 4. **A target that is nothing but rhythm**: the click itself, to be found from a mix.
# 5. **A larger learning rate**, with warm-up, before more steps. Cool down at the end only.
# 6. **Ask openly** where the beat is (`auxiliary=` of `sl.finetune`).
# 7. Guidance, temperature and choosing among several takes help little: what was not learnt cannot be drawn out.

# %%
for name in ("anchored", "aligned"):
    at = runs[name]["steps"].index(400)
    print(f"{name:9} {runs[name]['click_hidden'][at]:.3f} nats: {runs[name]['what']}")
assert runs["aligned"]["click_hidden"][1] > 50 * runs["anchored"]["click_hidden"][1]

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **Sixteen windows** of a few songs: the gain has an interval (notebook 07).
# - **Beat F1 likes plain drums.** A tracker hears them better than what a drummer plays, so a score above the real drums'
#   says nothing about taste. A copy of the click would score best; so compare the codes.
# - **The gap has two sides.** Another song's click costs because the right one helps, or because the wrong one
#   misleads. In the table above, `valid_right` against `valid_none` is the help alone: after so short a training, and with
#   the past there to read, it may well be nothing.
# - **Only clicks.** Nobody showed it a mix. If `right` is above `none`, the mix disturbs it, whatever the gap says.

# %%
gain = metrics.bootstrap.Bootstrap([e.song_id for e in asked]).mean(f1["after"] - f1["before"])
print("beat F1 gained, with its interval over songs:", {k: round(v, 2) for k, v in gain.items()})
click_codes = base.encode(torch.stack(clicks), rate)
for name in ("after", "real drums"):
    alike = (base.encode(played[name], rate) == click_codes).float().mean()
    print(f"{name}: {alike:.0%} of the codes are the click's own (silence is alike in all)")
mixes = listening.context_losses(student, windows("mix", "valid", 2.56, 32))
print("after a mix:", {k: round(mixes[k], 3) for k in ("right", "shuffled", "none", "gap")})
assert mixes["right"] > mixes["none"]  # disturbed
assert 0 < seen["valid_gap"].iloc[-1] < seen["valid_gap_hidden"].iloc[-1]

# %% [markdown]
# Keep what you have made: `student.save("my-student")`, and `sl.load("my-student")` brings it back. To train for longer,
# run `train(1000)`: it goes on from the last checkpoint in `folder`.
#
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | window | a piece of a song, as training uses it | `window_s`, s | `StemDataset`, `ShardDataset` |
# | shard | codes of songs in one small file | | `ShardDataset` |
# | dropout of context, of text | leaving them out of some windows | share | `context_dropout`, `text_dropout` |
# | hidden history | part of the target's own past, made unreadable | share | `history_dropout` |
# | late history | the target's own past, some frames late | frames | `history_delay` |
# | warm-up | the first steps, in which the learning rate rises | steps | `warmup_steps` |
# | clipping | scaling a gradient down to a largest norm | `clip_norm` | `clip_grad_norm_` |
# | checkpoint | weights, moments and step, from which training goes on | a file | `checkpoint_dir` |
# | gap | loss after another song's context minus after the right one | nats | `context_losses` |
# | beat F1 | share of beats at the right time | 0 to 1 | `beats.beat_f1` |
#
# ## Can you say it without looking?
#
# 1. Why are windows kept as codes, and what can be done with stems only?
# 2. Why must an example's fate follow from its number, and not from its place in the batch?
# 3. What does context dropout have to do with guidance?
# 4. Why hide the target's own past?
# 5. What does a checkpoint hold beside the weights, and what happens without it?
# 6. Loss falls, gap stays at zero. What has been learnt, and what do you try first?
# 7. Why is 1 not the ceiling of beat F1?
#
# ## Sources
#
# - STAGE: Strano et al., *Stemmed Accompaniment Generation through Prefix-Based Conditioning*, ISMIR 2025, arXiv:2504.05690.
# - AdamW: Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, 2019, arXiv:1711.05101.
# - Guidance by dropout: Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv:2207.12598.
# - Beat F1: Raffel et al., *mir_eval*, ISMIR 2014.
