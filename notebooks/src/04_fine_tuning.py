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
# In notebook 03 the new token was of no use. Here you train the model with it for a few minutes on your own processor, watch
# it begin to follow a click, stop the training with Ctrl-C, and go on as if nothing had happened.
#
# ```
#   windows of codes ──drop, hide──▶ [ context | C | target ] ──model──▶ loss of the target
#          ▲                                                                    │
#          └──── next step ◀──── weights ◀──── gradient ◀───────────────────────┘
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
# An example for training is a **window**: a few seconds of a song as context and as target. A folder of stems gives windows as
# audio; a folder of token **shards** gives them as codes that were made once.
#
# **Predict.** How many times smaller than the audio are the codes?

# %%
base = sl.load("nano-base")
stems = sl.StemDataset(song.open_samples(), "drums", window_s=4.0, conditions=["metronome"])
shards = song.SAMPLES / "tokens"
tokens = sl.ShardDataset(shards, "drums", window_s=4.0, conditions=["click"], split="train")
example, coded = stems[0], tokens[0]
audio_bytes, code_bytes = example.target.nbytes, 2 * coded.target_codes.numel()  # 2 bytes a code
print(f"{len(tokens.song_ids)} songs, {tokens.hours:.1f} h; {audio_bytes} bytes as audio,",
      f"{code_bytes} as codes: {audio_bytes / code_bytes:.0f} times smaller")  # fmt: skip

# %% [markdown]
# The codec is frozen, so encoding once is enough. Random changes of the audio (`augment=True`) need the stems.
#
# Windows have numbers. Which song window 77 is of, where it begins and what its context is, follows from **(seed, 77)** alone.
# That makes a run repeatable, and stopping easy: whoever knows the step knows its windows.
#
# Below, `self` puts the target itself in the context, `click` a metronome on its beats.

# %%
mixed = sl.ShardDataset(shards, "drums", window_s=1.28, conditions={"self": 0.3, "click": 0.7},
                        split="train", seed=SEED, n=10**6)  # fmt: skip
assert torch.equal(mixed[77].target_codes, mixed[77].target_codes)  # number 77, twice
print("contexts of the first windows:", ", ".join(mixed[i].condition for i in range(8)))

# %% [markdown]
# ## 2. What is left out on purpose
#
# - **Context dropout**: some windows lose context and token, **text dropout**: some lose their words. So guidance (notebook
#   02) has something to compare with.
# - **Hidden past**: some of what the model has played so far is hidden. Drums predict their own next bar so well that the
#   context is hardly needed; who cannot remember has to listen.
# - **Late past**: it is shown some frames too late. It looks right and is out of step.
#
# Below, the first codes of a target as the model reads them (a dot: no code). What it is asked to *say* stays the same.


# %%
def beginner() -> sl.StageModel:
    model = sl.load("nano-base")
    sl.extend_embedding(model.lm, seed=SEED)  # the new row of notebook 03
    model.config = replace(model.config, name="student", anchor_frames=prefix.ALIGNED)
    return model  # whose target has the position numbers of the context, see section 5


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
# ★★☆ · 10 minutes. Which rows of a batch lose their context? The same habit: a row's fate follows from (seed, number).


# %%
def dropped_rows(numbers: list[int], share: float, seed: int) -> Tensor:
    """Draw, for each example, whether it goes without.

    Args:
        numbers, seed: of the examples in this batch, and of the run.
        share: how many of all examples go without, 0 to 1.

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
# ★★★ · 20 minutes. Everything that training is, once. The loop below it explains the lines.


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
# The whole loop adds which windows a step sees, what they lose, and their words.
#
# **Predict.** Three steps by hand and three by `sl.finetune`: how many of the weights will differ?


# %%
def by_hand(model: sl.StageModel, data: sl.ShardDataset, n_steps: int) -> None:
    adam = {"betas": config.betas, "weight_decay": config.weight_decay, "fused": True}
    optimizer = optim.AdamW(model.lm.parameters(), **adam)
    for step in range(n_steps):
        numbers = range(step * config.batch_size, (step + 1) * config.batch_size)  # windows
        fates = np.stack([np.random.default_rng([SEED, 1, i]).random(5) for i in numbers])
        gone = torch.from_numpy(fates[:, :2] < [config.context_dropout, config.text_dropout])
        rows = batch.make_batch(model, [data[i] for i in numbers], context_dropped=gone[:, 0],
                                text_dropped=gone[:, 1])  # fmt: skip
        words, mask = text.encode_text(model.lm, rows.descriptions)  # what cross-attention reads
        p = rows.prefix
        logits = sl.forward(model.lm, p.sequence, p.attention_mask, p.positions, words, mask,
                            first_step=p.target_start - 1)  # fmt: skip
        loss, _ = sl.prefix_loss(logits, p)  # of the target's codes alone
        optimizer.zero_grad()  # or the gradients of all steps add up
        loss.backward()  # which way should each weight go?
        nn.utils.clip_grad_norm_(model.lm.parameters(), config.clip_norm)  # one odd batch: no harm
        for group in optimizer.param_groups:  # warm-up: AdamW's first steps would be full size
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / config.warmup_steps)
        optimizer.step()  # all weights move a little


# %%
def weights(model: sl.StageModel) -> Tensor:
    return nn.utils.parameters_to_vector(model.lm.parameters()).detach()


config = TrainingConfig(batch_size=4, warmup_steps=2, context_dropout=0.3, seed=SEED)
mine, library = beginner(), beginner()
by_hand(mine, mixed, 3)
sl.finetune(library, mixed, steps=3, config=config, progress=False)
assert torch.equal(weights(mine), weights(library))
print(f"{int((weights(mine) != weights(beginner())).sum())} weights moved; 0 differ")

# %% [markdown]
# ## 4. Stop, and go on
#
# ### Exercise 3: what must be kept
#
# ★★☆ · 10 minutes. AdamW, the optimizer, keeps two running means for every weight, of its gradient and of the gradient's
# square: the **moments**. And in the run of this exercise rows are dropped with one generator that goes on and on. What
# does a checkpoint need, so that nobody can tell that there was a pause?


# %%
def snapshot(
    lm: nn.Module, optimizer: optim.Optimizer, generator: torch.Generator, step: int
) -> dict:
    """All that the run needs in order to go on; what trains on afterwards does not change it.

    Args:
        generator, step: of all random numbers of the run; steps that are done.

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
# What makes a short run listen was found by trial (`dev/LOG.md`):
#
# - **Something to copy.** In three of ten windows the context is the target itself, to learn where to look.
# - **Clicks only**, and **short windows**: many in a step, little past to lean on.
# - **Aligned positions**: a frame of the target has the number of the context's frame that sounds with it.
# - **Past hidden or late**, in most windows.
#
# Three judges, on songs that are never trained on: the loss, the **gap** (notebook 03), and **beat F1**: play drums to a click,
# let a beat tracker (a program that taps to audio) listen, compare its taps with the click's beats. 1 is all, 0 none. Other
# songs' beats give the floor, the real drums the ceiling.


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
judge("before", play(beginner()))

# %% [markdown]
# **Predict.** Which will move first: the loss, the gap, or beat F1?
#
# Each of the four cells goes on from the checkpoint of the one before; interrupt any, run it again, and it goes on too. (Where
# bfloat16, 16 bits a number, is no quicker than 32 bits, the training takes about three times as long.) `right` is the loss
# after the right click, `none` without any; `hidden`: with the target's past hidden.

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
    seen = run.history().dropna(subset="valid_gap").set_index("step").filter(like="valid_")
    seen.columns = seen.columns.str.removeprefix("valid_")
    print(seen[["right", "none", "gap", "gap_hidden"]].to_string())
    return seen


seen = train(80)

# %%
seen = train(160)
judge("halfway", play(student))

# %%
seen = train(240)

# %%
seen = train(320)
assert seen["right"][0] - seen["right"][80] > 0.8 * (seen["right"][0] - seen["right"][320])
names = {"right click": "right", "another song's click": "shuffled", "no click": "none"}
charts.curves({name: seen[column] for name, column in names.items()}, seen.index, x_label="step",
              y_label="loss, past there (nats)")  # fmt: skip

# %% [markdown]
# The model learns that what stands before the token is *not* music that it should go on with: that is the fall of the loss, and
# nearly all of it is over by step 80. And it learns to tell a right click from a wrong one: the line of another song's click
# parts from the others. Who looks at the mean loss alone would stop too soon.

# %%
judge("after", play(student))
nano = sl.load("nano")
judge("nano", play(nano))
charts.bars({name: f1[name].mean() for name in f1}, "beat F1 against the click (16 windows)")

# %%
best = int((f1["after"] - f1["before"]).argmax())  # the window that gained most: no fair sample
listen_for = {"before": "click and drums go their own ways.", "after": "are hits on the click?",
              "nano": "the same click after hours of training."}  # fmt: skip
Clips([Clip(f"{name}: {asked[best].description}", audio.mix([clicks[best], played[name][best]]),
            rate, what) for name, what in listen_for.items()])  # fmt: skip

# %% [markdown]
# ## 6. The long run beside it
#
# The run that became `nano` went on for far longer (`docs/reports/nano-training.json`). A fair axis is how much music each has
# trained on. Its beginning had mixes in the contexts from the first step on, and other stems as targets. The bars show the
# end of each of nano's runs (`aligned` is that beginning), each begun where the one before had stopped.
#
# **Predict.** Which of the two listens to clicks sooner?

# %%
report = json.loads((song.SAMPLES.parent / "docs/reports/nano-training.json").read_text())
runs = {run["name"]: run for run in report["runs"]}
hours = seen.index.to_numpy() * recipe.batch_size * mixed.window_s / 3600
lines = {"here": seen["gap_hidden"], "nano's beginning": runs["aligned"]["click_hidden"]}
charts.curves(lines, {"here": hours, "nano's beginning": runs["aligned"]["hours"]},
              x_label="hours of target trained on", y_label="gap, past hidden (nats)")  # fmt: skip

# %%
later = {name: run["click"][-1] for name, run in runs.items() if name != "anchored"}
last, long = seen.iloc[-1], listening.context_losses(nano, held_out)
for name, loss in {"here": last, "nano": long}.items():
    print(f"{name}: loss {loss['right']:.3f}, gap {loss['gap']:.3f}: the right click helps by "
          f"{loss['none'] - loss['right']:.3f}, another one costs {loss['shuffled'] - loss['none']:.3f}")  # fmt: skip
assert long["right"] < last["right"] - 0.2
charts.bars({"here": last["gap"], **later}, "gap with the past there (nats)")

# %% [markdown]
# A gap says how much a wrong click costs, and nothing of what else a model knows. What the hours bought is in the loss, in the
# other stems, and in the mixes.
#
# ### When it does not listen
#
# Look at the gap with the past hidden; the mean loss falls either way. If it stays at zero, in about this order:
#
# 1. **Positions.** With the target as far behind the context as STAGE puts it, as many steps taught next to nothing (below).
# 2. **Something to copy**, then clicks, then mixes: the order in which they are learnt.
# 3. **Less past.** Hide it, let it come late, take short windows.
# 4. **A target that is nothing but rhythm**: the click itself, to be found from a mix.
# 5. **A larger learning rate**, with warm-up, before more steps. Cool down at the end only.
# 6. **Ask openly** where the beat is, with a second loss (`auxiliary=` of `sl.finetune`).
# 7. **Another ear**: `nano` reads its context through a small network that was trained to hear beats.
#
# Stronger guidance and a lower temperature did not help, choosing among four takes little (`dev/LOG.md`).

# %%
for name in ("anchored", "aligned"):
    print(f"{name:9} {runs[name]['click_hidden'][1]:.3f} nats: {runs[name]['what']}")
assert runs["aligned"]["click_hidden"][1] > 50 * runs["anchored"]["click_hidden"][1]

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **Sixteen windows** of a few songs: the gain has a wide interval (notebook 07).
# - **Beat F1 likes plain drums.** A tracker hears them better than what a drummer plays, so a score above the real drums'
#   says nothing about taste.
# - **The gap has two sides**: the right click helps, or the wrong one misleads. Section 6 takes them apart: the help may well
#   be nothing.
# - **Something was lost.** Without a click the model expects real drums less well than before the training.
# - **Only clicks.** If `right` is above `none`, a mix disturbs it, whatever the gap says.

# %%
songs = metrics.bootstrap.Bootstrap([e.song_id for e in asked])
print("beat F1 gained:", metrics.bootstrap.shown(songs.mean(f1["after"] - f1["before"])))
mixes = listening.context_losses(student, windows("mix", "valid", 2.56, 32))
print("after a mix:", {k: round(mixes[k], 3) for k in ("right", "shuffled", "none", "gap")})
assert mixes["right"] > mixes["none"]  # disturbed
assert 0 < last["gap"] < last["gap_hidden"] and last["none"] > seen["none"][0]

# %% [markdown]
# Keep what you have made: `student.save("my-student")`, and `sl.load("my-student")` brings it back. To train for longer,
# run `train(1000)`: it goes on from the last checkpoint in `folder`.
#
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | window | a piece of a song, as training uses it | `window_s`, s | `StemDataset`, `ShardDataset` |
# | dropout of context, of text | leaving them out of some windows | share | `context_dropout`, `text_dropout` |
# | hidden history, late history | the target's own past, unreadable in part, or some frames late | share | `history_dropout`, `history_delay` |
# | warm-up | the first steps, in which the learning rate rises | steps | `warmup_steps` |
# | clipping | scaling a gradient down to a largest norm | `clip_norm` | `clip_grad_norm_` |
# | checkpoint | weights, moments and step, from which training goes on | a file | `checkpoint_dir` |
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
