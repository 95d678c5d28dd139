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
# # 06 Attention: what the target looks at
#
# A model that plays along must look at what it plays along with. In this notebook you compute where it looks, find the
# heads that keep time, and cut heads out to see which of them the music needed. The two answers differ.
#
# ```
#                        what is looked at
#              context            token   the target itself
#            ┌──────────────────┬───┬──────────────────┐
#  who       │ ▚                │ ▐ │ ▚                │   one head: a row per step of the target,
#  looks:    │    ▚             │ ▐ │ ▚▚▚▚             │   each row sums to 1
#  target    │        ▚         │ ▐ │ ▚▚▚▚▚▚▚▚         │
#            └──────────────────┴───┴──────────────────┘
#              its own time       rest   its own past
# ```
#
# You will be able to
# - **compute** the attention of a head, equal to the library's,
# - **score** whether a head keeps to its own time, against chance and against another song,
# - **cut** heads, and tell what the model looks at from what it uses.
#
# Needs: notebooks 02 (queries, keys, values) and 03 (context token, positions, gap). Two CPU cores, no GPU, no network.
# Reading and listening: 30 minutes. Exercises: 35 minutes. Computing: at most 75 s.

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
import torch
from torch import Tensor

import stage_lite as sl
from stage_lite import charts, checks, plots
from stage_lite.attention import frame_attention, head_effects, head_table, without_heads
from stage_lite.attention_charts import attention_regions
from stage_lite.batch import make_batch
from stage_lite.clips import Clip, Clips
from stage_lite.context_encoder import hear_context
from stage_lite.examples import shuffle_contexts
from stage_lite.listening import encoder_swap
from stage_lite.lm import embed, sin_positions, split_qkv, weights_of
from stage_lite.onsets import beat_lock, detect_onsets
from stage_lite.song import open_samples

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. One head by hand
#
# `nano` plays drums to a click. Then we compute the whole sequence once more, with everything that was written already in
# place (teacher forcing). A step sees only what stands before it, so this is what it saw while it wrote.

# %%
nano = sl.load("nano")
seconds = 4.0
beats, bars = sl.beat_grid(bpm=110, beats_per_bar=4, duration_s=seconds, start_s=0.1)
click = sl.click_track(beats, bars, duration_s=seconds, sample_rate=nano.sample_rate)
asked = {"description": "drums, rock", "duration_s": seconds, "seed": SEED}
out = nano.generate(click, nano.sample_rate, **asked)
Clip("Click and drums", (click + out.wav[0]) / 2, out.sample_rate, "is every hit on the click?")

# %% [markdown]
# Into the first layer goes one vector per step: the codes' embeddings, the position and, on the context's steps of `nano`,
# what an encoder has heard there (section 5). Each head makes of it a *query* (what am I looking for?) and a *key* (what
# am I found by?), `d` numbers each.

# %%
w = weights_of(nano.lm)
first = w.layers[0]
with torch.inference_mode():
    x = embed(w, out.sequence, sin_positions(out.prefix.positions, w.dim, w.max_period))
    x = hear_context(nano.lm, x, out.sequence)  # [B, S, dim]
    normed = torch.layer_norm(x, (w.dim,), *first.norm1)
    queries, keys, values = split_qkv(first.qkv(normed), w.num_heads)  # each [B, heads, S, d]
n_layers, n_heads, n_steps, d = len(w.layers), w.num_heads, *queries.shape[2:]
print(f"{n_layers} layers of {n_heads} heads; {n_steps} steps, d = {d}")

# %% [markdown]
# ### Exercise 1: who looks where
#
# ★★☆ · 10 minutes. One head. Row s says how step s spreads its attention over steps 0 to s.


# %%
def head_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """How much each step looks at each step up to itself.

    Args:
        queries, keys: Float[S, d], one row per step.

    Returns:
        Float[S, S]: rows sum to 1, and are 0 where the future would be.
    """
    ### BEGIN SOLUTION
    n_steps, d = queries.shape
    scores = queries @ keys.T / d**0.5  # [S, S]
    future = torch.ones(n_steps, n_steps, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1)
    ### END SOLUTION


# %%
checks.head_weights(head_weights)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# `queries @ keys.T` is `[S, S]`: entry (s, t) says how well the key of step t fits the query of step s. Divide by the
# square root of d, or long vectors make every choice a sure one.
# </details>
#
# <details><summary>Hint 2: the future</summary>
#
# `torch.ones(S, S, dtype=torch.bool).triu(1)` is True right of the diagonal. A score of -inf becomes a weight of 0, and
# the softmax shares the rest.
# </details>
#
# <details><summary>My rows do not sum to 1</summary>
#
# ```python
# def head_weights(queries, keys):
#     weights = (queries @ keys.T / queries.shape[1] ** 0.5).softmax(dim=-1)
#     return weights.tril()
# ```
# </details>
#
# <details><summary>My steps know the future</summary>
#
# ```python
# def head_weights(queries, keys):
#     return (queries @ keys.T / queries.shape[1] ** 0.5).softmax(dim=-1)
# ```
# </details>
#
# <details><summary>My steps are too sure of themselves</summary>
#
# ```python
# def head_weights(queries, keys):
#     future = torch.ones(len(queries), len(queries), dtype=torch.bool).triu(1)
#     return (queries @ keys.T).masked_fill(future, -torch.inf).softmax(dim=-1)
# ```
# </details>

# %%
att = sl.attention(nano, out)  # [layer, head, steps of the target, steps of the prefix]
start = out.prefix.target_start
if checks.passed(head_weights):
    for head in range(n_heads):
        yours = head_weights(queries[0, head], keys[0, head])  # [S, S]
        assert torch.allclose(yours[start:, :start], att[0, head], atol=1e-5)
    print(f"your {[*yours.shape]}, cut to the target's rows: equal in all heads of layer 0")

# %% [markdown]
# ## 2. The whole matrix
#
# A step can look at four places: the start, the **context**, the **token**, and the **target itself** (its own past, and
# this step). **Predict.** How much of all attention goes to the context? How much to the token?

# %%
full = sl.attention(nano, out, whole=True)  # columns of the target itself, too: rows sum to 1
assert torch.equal(full[..., :start], att)
assert torch.allclose(full.sum(-1), torch.ones(1), atol=1e-4)
here = head_table(nano, out)  # one line per head
places = ["context", "token", "start", "own_past"]
charts.bars(dict(here[places].mean()), "attention, mean over all heads")

# %% [markdown]
# A mean over heads hides what each one does. Below, one head per place: the one that gives it most. Time runs downwards in
# the target; to the right stand all steps that can be seen. Pale lines are beats, on both axes.

# %%
named = {}
for place in ("context", "token", "own_past"):
    layer, head = here.loc[here[place].idxmax(), ["layer", "head"]].astype(int)
    named[f"layer {layer} head {head}: most to {place.replace('_', ' ')}"] = full[layer, head]
attention_regions(named, out, nano.frame_rate, beats, bars,
                  caption="Each head by its own brightest 0.2 %. Orange: the context token.")  # fmt: skip

# %% [markdown]
# A fine line that runs down the context is a head that reads the context **at its own time**. The head at the token rests
# there. The delay bends neither: it shifts rows and columns alike.
#
# ## 3. Does it keep time?
#
# Eyes find lines everywhere; a number is needed. Of all that a head gives to the context: which part lies within 0.1 s of
# the target's own time?
#
# ### Exercise 2: score a diagonal
#
# ★★☆ · 15 minutes. Frame t of the target and frame t of the context sound together.


# %%
def diagonal_share(frames: Tensor, near_frames: int) -> Tensor:
    """The part of a head's attention to the context that lies near its own time.

    Args:
        frames: Float[T, Tc], from frame t of the target to frame c of the context, T at most Tc. A
            row sums to what the head gives to the context then: 1 or less.
        near_frames: c is near if it is at most so many frames earlier or later than t.

    Returns:
        Float[], 0 to 1: near, summed over all rows, in parts of everything that goes to the context.
    """
    ### BEGIN SOLUTION
    n_target, n_context = frames.shape
    lag = torch.arange(n_context) - torch.arange(n_target)[:, None]  # [T, Tc]
    near = lag.abs() <= near_frames
    return frames[near].sum() / frames.sum()
    ### END SOLUTION


# %%
checks.diagonal_share(diagonal_share)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Make the lag of every field first: `torch.arange(Tc)` against `torch.arange(T)[:, None]` gives `[T, Tc]`.
# </details>
#
# <details><summary>Hint 2: near</summary>
#
# `lag.abs() <= near_frames` is a mask. Sum what it chooses, and divide once, at the end.
# </details>
#
# <details><summary>I took the mean of the rows' shares</summary>
#
# ```python
# def diagonal_share(frames, near_frames):
#     lag = torch.arange(frames.shape[1]) - torch.arange(frames.shape[0])[:, None]
#     near = frames * (lag.abs() <= near_frames)
#     return (near.sum(1) / frames.sum(1)).mean()
# ```
# </details>
#
# <details><summary>I see the past only</summary>
#
# ```python
# def diagonal_share(frames, near_frames):
#     lag = torch.arange(frames.shape[0])[:, None] - torch.arange(frames.shape[1])
#     near = (lag >= 0) & (lag <= near_frames)
#     return frames[near].sum() / frames.sum()
# ```
# </details>
#
# <details><summary>My heads score low when they look elsewhere, too</summary>
#
# ```python
# def diagonal_share(frames, near_frames):
#     lag = torch.arange(frames.shape[1]) - torch.arange(frames.shape[0])[:, None]
#     return frames[lag.abs() <= near_frames].sum() / len(frames)
# ```
# </details>

# %%
frames = frame_attention(att, out)  # [layer, head, T, Tc]
score = torch.tensor(here.diagonal.values).view(n_layers, n_heads)
given = torch.tensor(here.context.values).view(n_layers, n_heads)
if checks.passed(diagonal_share):
    yours = torch.tensor(
        [[float(diagonal_share(f, 5)) for f in layer] for layer in frames]
    )  # 0.1 s
    assert torch.allclose(yours, score, atol=1e-4, equal_nan=True)
    print(f"yours agrees in all {yours.numel()} heads")
display(plots.head_map(given, "share of attention that goes to the context"))
display(plots.head_map(score, "of that, the part near its own time"))
top = here.loc[here.diagonal.idxmax()]  # the highest score
print(
    f"score {top.diagonal:.2f}, by chance {top.chance:.2f}, with {top.context:.2%} of its attention"
)

# %% [markdown]
# A high score proves little by itself. A head may score high on next to nothing. And a head that always looks at one
# spot scores, too: **chance** is what the same columns would score with the rows exchanged. So sort by (score − chance) ×
# share; and, since one clip may be luck, over eight windows of real drums.

# %%
songs = [s for s in open_samples() if "drums" in s.stem_names]


def examples_with(condition: str) -> list:
    """Eight windows of real drums, encoded once."""
    data = sl.StemDataset(songs, "drums", window_s=3.0, conditions=[condition], seed=SEED, n=8)
    examples = [data[i] for i in range(len(data))]
    for one in examples:
        one.context_codes = nano.encode(one.context, nano.sample_rate)[0]
        one.target_codes = nano.encode(one.target, nano.sample_rate)[0]
    return examples


examples = examples_with("metronome")
table = head_table(nano, make_batch(nano, examples))  # means over the windows
table["worth"] = (table.diagonal - table.chance) * table.context
best = table.sort_values("worth", ascending=False)
best.set_index(["layer", "head"])[["diagonal", "chance", *places]].head(6).round(2)

# %% [markdown]
# **Predict.** Now they hear *another song's* click, which fits at no point. Will the score fall? And what if the model is
# told that its target begins 0.2 s later, by nothing but the numbers of the target's positions?

# %%
two = best.index[:2]  # the two that keep time best
late = make_batch(nano, examples)
late.prefix.positions[:, late.prefix.target_start :] += round(0.2 * nano.frame_rate)
tables = {
    "right click": table,
    "another song's click": head_table(nano, make_batch(nano, shuffle_contexts(examples))),
    "right click, target 0.2 s late": head_table(nano, late),
}
for what, f in tables.items():
    print(f"{what:30} score {f.diagonal[two].mean():.2f}, best lag {f.lag_s[two].mean():+.2f} s")
own, foreign, moved = (found.diagonal[two].mean() for found in tables.values())
assert abs(foreign - own) < 0.15 and moved < own / 2
assert abs((tables["right click, target 0.2 s late"].lag_s - table.lag_s)[two] - 0.2).max() < 0.05

# %% [markdown]
# These heads are **clocks, not ears**. They look at "the frame with my number", whatever sounds there. `nano` makes that
# easy: its target begins to count anew, so that what sounds together has the same position. In STAGE, where the target
# counts on, a head must learn to look so many positions back, and the number depends on the context's length.
#
# Look around for yourself: pick a step, hear what a head reads there.

# %%
try:
    from stage_widgets import AttentionViewer

    display(AttentionViewer(nano, out, beats=beats, downbeats=bars, context=click,
                            context_sample_rate=nano.sample_rate, label="Drums look at a click"))  # fmt: skip
except ImportError as error:
    print("The widgets are not installed here:", error)

# %% [markdown]
# ## 4. Cut a head
#
# What a layer's heads say is written side by side, `d` numbers each, and one matrix reads them all. A head whose part of the
# matrix is zero says nothing.
#
# ### Exercise 3: cut it
#
# ★★☆ · 10 minutes. The matrix is applied as `y = matrix @ x`, x: what all heads say.


# %%
def cut_head(matrix: Tensor, head: int, n_heads: int) -> Tensor:
    """The same output matrix, deaf to one head.

    Args:
        matrix: Float[dim, dim]; not to be changed. x holds head 0 first, then head 1, and so on.
        head: from 0.
        n_heads: all of the same width.

    Returns:
        Float[dim, dim].
    """
    ### BEGIN SOLUTION
    width = matrix.shape[1] // n_heads
    left = matrix.clone()
    left[:, head * width : (head + 1) * width] = 0
    return left
    ### END SOLUTION


# %%
checks.cut_head(cut_head)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# In `matrix @ x`, number i of x meets column i of the matrix. Which numbers of x are this head's?
# </details>
#
# <details><summary>Hint 2: a copy</summary>
#
# `matrix.clone()` may be written to: `left[:, a:b] = 0`.
# </details>
#
# <details><summary>I cut rows</summary>
#
# ```python
# def cut_head(matrix, head, n_heads):
#     width = matrix.shape[0] // n_heads
#     left = matrix.clone()
#     left[head * width : (head + 1) * width] = 0
#     return left
# ```
# </details>
#
# <details><summary>I cut every n-th column</summary>
#
# ```python
# def cut_head(matrix, head, n_heads):
#     left = matrix.clone()
#     left[:, head::n_heads] = 0
#     return left
# ```
# </details>
#
# <details><summary>I am told that I changed an argument</summary>
#
# ```python
# def cut_head(matrix, head, n_heads):
#     width = matrix.shape[1] // n_heads
#     matrix[:, head * width : (head + 1) * width] = 0
#     return matrix
# ```
# </details>

# %%
layer, head = best[["layer", "head"]].iloc[0].astype(int).tolist()
reads = nano.lm.transformer.layers[layer].self_attn.out_proj
whole = reads.weight.detach().clone()
with without_heads(nano, [(layer, head)]):
    cut = reads.weight.detach().clone()
assert torch.equal(reads.weight, whole), "after the block every bit is back"
if checks.passed(cut_head):
    assert torch.equal(cut_head(whole, head, n_heads), cut)
    print(f"yours is what without_heads does to layer {layer} head {head}")

# %% [markdown]
# What is a head worth? The **gap** of notebook 03 says what the context is worth: the loss after another song's click minus
# the loss after the right one, with the target's own past hidden. Cut a head, and see how much of the gap is left. We cut
# one by one the heads that give the context more than 1 % or the token most, and two pairs: some twenty seconds.
#
# **Predict.** Which costs more: the two clocks, or the two others that give most of their attention to the context?

# %%
table["name"] = [f"{i}.{j}" for i, j in zip(table.layer, table["head"], strict=True)]
heads = {name: tuple(map(int, name.split("."))) for name in table.name}
clocks = list(table.name[two])
lookers = list(table.drop(two).nlargest(2, "context").name)
pairs = {"the two clocks": clocks, "two that look as much": lookers}
cuts = {what: [heads[name] for name in names] for what, names in pairs.items()}
cut = table.name[(table.context > 0.01) | (table.token == table.token.max())]
singles = {name: [heads[name]] for name in cut}
effects = head_effects(nano, examples, cuts | singles, n_random=0, seed=SEED)
assert effects.gap["nothing cut"] > 0.1 > 4 * abs(effects.gap["all heads cut"])
plots.head_effects(effects.loc[["nothing cut", *cuts, "all heads cut"]])

# %% [markdown]
# With no self-attention at all the gap is nothing: by no other way does anything of the context reach the target. How much
# a head looks there does not say what it is worth:

# %%
table["kept"] = table.name.map(effects.kept)
looks = table[table.context > 0.25].sort_values("kept", ascending=False)
idle = looks.iloc[0]
print(f"head {idle['name']} gives the context {idle.context:.0%} of its attention;"
      f" without it {idle.kept:.0%} of the gap is left")  # fmt: skip
assert effects.kept["the two clocks"] < effects.kept["two that look as much"]
looks.set_index(["layer", "head"])[["context", "diagonal", "kept"]].round(2)

# %% [markdown]
# **Attention is not explanation.** A head may look at the context most of the time and change next to nothing: what it
# reads may be known already, or no later layer listens to it. And a head that costs little alone may have a twin. Compare
# the clocks one by one with both together; below them, the head that rests at the token:

# %%
alone = " and ".join(f"{1 - effects.kept[name]:.0%}" for name in clocks)
print(f"{alone} of the gap lost when cut alone, {1 - effects.kept['the two clocks']:.0%} together")
resting = table.name[table.token.idxmax()]  # the head that gives the token most
effects.loc[["nothing cut", resting], ["right", "another", "gap", "kept"]].round(2)

# %% [markdown]
# What stands at the token is one and the same for all steps of the target. It may say what they play along with, but not
# *when*: its cut costs the right and the wrong click alike. Now hear the same words, click and seed:

# %%
listen_for = {"nothing": "the click, hit by hit.", "the two clocks": "does it still know where the click is?",
              "two that look as much": "is anything missing?"}  # fmt: skip
clips = []
for name, heard in listen_for.items():
    with without_heads(nano, cuts.get(name, [])):
        wav = nano.generate(click, nano.sample_rate, **asked).wav[0]
    lock = beat_lock(detect_onsets(wav, nano.sample_rate), beats)
    print(f"cut: {name:22} beat lock {'none' if lock is None else f'{lock:.2f}'}")
    clips.append(Clip(f"Cut: {name}", (click + wav) / 2, nano.sample_rate, heard))
Clips(clips)

# %% [markdown]
# ## 5. Which part of the listening is attention's?
#
# An honest question, because `nano` has help that STAGE has not. A small convolutional network hears the context as a whole
# and adds what it finds (where in the beat, which chord) to the embeddings of the context's steps. Attention then carries
# it over. To tell the two apart, let them hear different songs: the codes of one, the encoder's findings of another.
#
# **Predict.** Codes from the wrong song, encoder right: nearer to all right, or to all wrong?

# %%
left = {}
for condition in ("metronome", "mixture"):
    loss = encoder_swap(nano, examples if condition == "metronome" else examples_with(condition))
    print(condition, {what: round(nats, 2) for what, nats in loss.items()})
    whole_gap = loss["both wrong"] - loss["both right"]
    for what in ("codes wrong", "encoder wrong"):
        left[f"{condition}: {what}"] = (loss["both wrong"] - loss[what]) / whole_gap
assert left["metronome: codes wrong"] > left["metronome: encoder wrong"]
charts.bars(left, "part of the gap that is left", "1: as good as all right; 0: as all wrong.")

# %% [markdown]
# So in `nano` the encoder does most of the *hearing*, and attention does the *fetching*: two clocks that look at their own
# time find there, ready-made, in which part of the beat they are. A model without an encoder, as STAGE is, has to do both by
# attention, in later layers and with heads that follow what sounds, not only when. What this notebook found on `nano` is
# true of `nano`; the methods are true of any model that `sl.load` opens.
#
# ## What could be wrong, in numbers
#
# - **Eight windows of 3 s, one stem, clicks.** The intervals in the figure are over songs, and wide. Try `mixture`.
# - **A cut is brutal.** Zeros are nothing a layer has ever been told. As many other heads, drawn at random, are the measure:
#   `n_random=3`. And the heads that are left may do more than they did before.
# - **The past hidden.** With it known, drums predict themselves, and the gap is small. Look at the losses, too: the clocks
#   bring the right click next to nothing then. What they cost is the wrong click.

# %%
known = head_effects(nano, examples, cuts, history_hidden=False, n_random=0, seed=SEED)
assert known.right["the two clocks"] < known.right["nothing cut"] + 0.05
display(effects.loc[["nothing cut", *cuts], "right":"high"].round(3))  # past hidden
known.loc[["nothing cut", *cuts], "right":"high"].round(3)  # past known

# %% [markdown]
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | head | one of several attentions of a layer, with its own queries and keys | `[layer, head]` | `sl.attention` |
# | share | where a head's attention goes, in parts of 1 | 0 to 1 | `attention.shares` |
# | own time | the frame of the context that sounds with the target's | frames | `attention.frame_attention` |
# | diagonal | the part near one's own time of all that goes to the context | 0 to 1 | `attention.diagonal` |
# | chance | the same with the target's frames exchanged | 0 to 1 | `attention.Diagonal` |
# | alignment head | a head that looks at its own time | | `attention.head_table` |
# | cut | a head's part of the output matrix set to zero | | `attention.without_heads` |
# | kept | the part of the gap that a cut leaves | 0 to 1 | `attention.head_effects` |
#
# ## Can you say it without looking?
#
# 1. Why may attention be computed once more, after the music was written?
# 2. What would a score without its chance not tell from alignment?
# 3. How did you show that a head looks by position and not by sound?
# 4. Why do the columns of the output matrix, and not its rows, belong to heads?
# 5. A head gives the context half of its attention, and its cut costs nothing. Name two reasons.
# 6. Two heads cost little alone and much together. What does that say about them?
# 7. How do you know that nothing of the context reaches the target but by attention?
# 8. Which of the results would you not expect in a model without an encoder?
#
# ## Sources
#
# - Attention: Vaswani et al., *Attention Is All You Need*, 2017, arXiv:1706.03762.
# - Cutting heads: Michel et al., *Are Sixteen Heads Really Better than One?*, 2019, arXiv:1905.10650.
# - What attention explains: Jain and Wallace, *Attention is not Explanation*, 2019, arXiv:1902.10186; and the reply, Wiegreffe
#   and Pinter, *Attention is not not Explanation*, 2019, arXiv:1908.04626.
# - STAGE: Strano et al., *Stemmed Accompaniment Generation through Prefix-Based Conditioning*, ISMIR 2025, arXiv:2504.05690.
