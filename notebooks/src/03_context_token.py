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
# # 03 The context token: one new row
#
# A model that was trained to write music from words becomes one that plays along, by one added row per table and by where
# things stand in the sequence. In this notebook you add the row, lay out the sequence, and hear what the row does before
# anything is trained. (Nothing useful. How much that is worth knowing, you will see.)
#
# ```
#            what it hears                 what it plays
#   ┌──────────────────────────────┐ ┌───┐ ┌─────────────
#   │ context: mix or click        │ │ C │ │ target: drums          C: the context token, id card + 1
#   └──────────────────────────────┘ └───┘ └─────────────
#   0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0    0     1 1 1 1 1 1            what counts in the loss
# ```
#
# You will be able to
# - **extend** a trained model without changing what it computes, and prove it,
# - **lay out** a batch: sequence, mask, positions, loss,
# - **measure** whether a model listens.
#
# Needs: notebooks 01 (delay) and 02 (logits, loss, positions). Two CPU cores, no GPU, no network. Reading and listening: 25
# minutes. Exercises: 50 minutes. Computing: at most 75 s.

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
from torch import Tensor, nn

import stage_lite as sl
from stage_lite import charts, checks
from stage_lite.audio import mix
from stage_lite.clips import Clip, Clips
from stage_lite.listening import context_losses
from stage_lite.song import open_samples

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. One new row
#
# `nano-base` is to this project what MusicGen is to STAGE: trained on words and music, without any context. Its tables
# have `card` rows for codes and one for the special token.
#
# **Predict.** What will it say to the id `card + 1`?

# %%
base = sl.load("nano-base")
special, token = base.special_token_id, base.context_token_id
print([*base.lm.emb[0].weight.shape], "rows and width of a table; special", special, "token", token)
try:
    sl.forward(base.lm, torch.full((1, base.n_q, 1), token))
except sl.StageLiteError as error:
    print("refused:", error)

# %% [markdown]
# ### Exercise 1: a longer table
#
# ★★☆ · 10 minutes. What the model has learnt must stay to the last bit, and the new row must be able to learn.


# %%
def longer_table(table: nn.Embedding, row: Tensor) -> nn.Embedding:
    """The same embedding with one more row.

    Args:
        table: n rows; not to be changed.
        row: Float[dim], the new row.

    Returns:
        An nn.Embedding of n + 1 rows in the table's own type, trainable.
    """
    ### BEGIN SOLUTION
    old = table.weight.detach()
    weight = torch.cat([old, row[None].to(old)])
    return nn.Embedding.from_pretrained(weight, freeze=False)
    ### END SOLUTION


# %%
checks.longer_table(longer_table)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# `table.weight.detach()` is `[n, dim]`, `row[None]` is `[1, dim]`; `torch.cat` joins them along the first axis.
# </details>
#
# <details><summary>Hint 2: back to an embedding</summary>
#
# `nn.Embedding.from_pretrained(weight)` freezes the weights unless you say otherwise.
# </details>
#
# <details><summary>I pass the shape and fail the old rows</summary>
#
# ```python
# def longer_table(table, row):
#     longer = nn.Embedding(table.num_embeddings + 1, table.embedding_dim)
#     longer.weight.data[-1] = row
#     return longer
# ```
# </details>
#
# <details><summary>The numbers are right; I am told that it cannot learn</summary>
#
# ```python
# def longer_table(table, row):
#     weight = torch.cat([table.weight.detach(), row[None].to(table.weight)])
#     return nn.Embedding.from_pretrained(weight)
# ```
# </details>
#
# <details><summary>I wrote the new row over an old one</summary>
#
# ```python
# def longer_table(table, row):
#     weight = table.weight.detach().clone()
#     weight[-1] = row
#     return nn.Embedding.from_pretrained(weight, freeze=False)
# ```
# </details>

# %% [markdown]
# The library does this to all K tables. **Predict.** Will the model's answers to plain music change?

# %%
song = next(s for s in open_samples() if s.family == "rock")
window = {"start_s": song.downbeats[1], "duration_s": 4.0}
drum_codes = base.encode(song.stem("drums", **window), base.sample_rate)  # [B, K, T]
plain = sl.delay(drum_codes, special)

extended = sl.load("nano-base")
with torch.inference_mode():
    before = sl.forward(extended.lm, plain)
    old = [table.weight.clone() for table in extended.lm.emb]
    sl.extend_embedding(extended.lm, seed=SEED)
    after = sl.forward(extended.lm, plain)
assert torch.equal(before, after), "without a context it must compute what it computed"
assert all(torch.equal(t.weight[:-1], rows) for t, rows in zip(extended.lm.emb, old, strict=True))
assert after.shape[-1] == base.card  # a head has no row for the token: it is read, never written
print(
    f"{old[0].shape[0]} -> {extended.lm.emb[0].weight.shape[0]} rows; logits equal to the last bit"
)

# %% [markdown]
# ## 2. One sequence
#
# Context, token and target stand one after the other, and then the **delay runs over all of it**, as if it were one piece
# of music. Two codebooks, context 1 to 3 and 4 to 6:

# %%
context, target = torch.tensor([[[1, 2, 3], [4, 5, 6]]]), torch.tensor([[[7, 8], [9, 10]]])
small = sl.build_prefix(context, target, special_token_id=98, context_token_id=99)
for row in small.sequence[0].tolist():
    print(" ".join({98: " .", 99: " C"}.get(c, f"{c:2}") for c in row))
# >  .  1  2  3  C  7  8  .
# >  .  .  4  5  6  C  9 10

# %% [markdown]
# ### Exercise 2: lay it out
#
# ★★☆ · 15 minutes. `sl.delay` refuses the token, which is no code. Use your loop from notebook 01, or any other way.


# %%
def lay_out(
    context: Tensor, target: Tensor, special_token_id: int, context_token_id: int
) -> Tensor:
    """Context, token and target as the model reads them.

    Args:
        context, target: Int[K, Tc] and Int[K, T].
        special_token_id: fills the places of the delay.
        context_token_id: one frame of it, in all K codebooks, ends the context.

    Returns:
        Int[K, Tc + 1 + T + K].
    """
    ### BEGIN SOLUTION
    n_q = context.shape[0]
    token = torch.full((n_q, 1), context_token_id)
    frames = torch.cat([context, token, target], dim=1)  # [K, Tc + 1 + T]
    sequence = torch.full((n_q, frames.shape[1] + n_q), special_token_id)
    for k in range(n_q):
        sequence[k, k + 1 : k + 1 + frames.shape[1]] = frames[k]
    return sequence
    ### END SOLUTION


# %%
checks.lay_out(lay_out)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# First make one tensor of frames, `[K, Tc + 1 + T]`, with the token in the middle. Think of the delay afterwards.
# </details>
#
# <details><summary>Hint 2: the delay</summary>
#
# Codebook k begins at step k + 1. All other places hold `special_token_id`.
# </details>
#
# <details><summary>I delayed both parts and joined them</summary>
#
# ```python
# def lay_out(context, target, special_token_id, context_token_id):
#     def late(x):
#         return sl.delay(x[None], special_token_id)[0]
#     token = torch.full((context.shape[0], 1), context_token_id)
#     return torch.cat([late(context), token, late(target)], dim=1)
# ```
# </details>
#
# <details><summary>My token stands in codebook 0 only</summary>
#
# ```python
# def lay_out(context, target, special_token_id, context_token_id):
#     n_q = context.shape[0]
#     token = torch.full((n_q, 1), special_token_id)
#     token[0] = context_token_id
#     frames = torch.cat([context, token, target], dim=1)
#     sequence = torch.full((n_q, frames.shape[1] + n_q), special_token_id)
#     for k in range(n_q):
#         sequence[k, k + 1 : k + 1 + frames.shape[1]] = frames[k]
#     return sequence
# ```
# </details>
#
# <details><summary>I have two parts and no token</summary>
#
# ```python
# def lay_out(context, target, special_token_id, context_token_id):
#     return sl.delay(torch.cat([context, target], dim=1)[None], special_token_id)[0]
# ```
# </details>

# %% [markdown]
# **Predict.** The first target code is being chosen (codebook 0, frame 0). Are all codes of the context known by then?

# %%
n_q, n_c = base.n_q, 6
names = [[f"c{t}" for t in range(n_c)] + ["C"] + [f"t{t}" for t in range(4)]] * n_q
numbers = torch.arange(n_c)[None, None].repeat(1, n_q, 1)
ids = {"special_token_id": 98, "context_token_id": 99}
border = sl.build_prefix(numbers, torch.arange(4).repeat(1, n_q, 1), **ids)
start = border.target_start  # codebook 0 holds the target's frame 0 here
for step in range(start - 1, start + n_q):
    held = [names[k][step - k - 1] for k in range(n_q)]
    print(f"step {step - start:+}: " + "  ".join(f"{name:2}" for name in held))
unheard = sum(
    names[k][step - k - 1].startswith("c") for step in range(start, start + n_q) for k in range(n_q)
)
print(f"{unheard} codes of the context are read when the target has begun already")
assert unheard == (n_q - 1) * (n_q - 2) // 2
charts.token_grid(border.sequence[0], 98, 99, groups={"target": border.loss_mask[0]})

# %% [markdown]
# That is the **border**: late codebooks of the last context frames stand beside the token and beside the first target
# codes. Whoever masks "the context" by whole steps cuts off target codes, or lets context codes into the loss.
#
# ## 3. A batch: mask and positions
#
# Contexts differ in length. Shorter ones get padding, which nobody may look at (the **mask**), and counting begins where
# the row begins (the **positions**). Then each row computes what it would compute alone.
#
# **Predict.** Does the padding go to the left or to the right?

# %%
lengths = [150, 50]  # frames
contexts = [base.encode(song.stem("bass", **window), base.sample_rate)[0, :, :n] for n in lengths]
rows = drum_codes[:, :, :50].repeat(2, 1, 1)
named = {"special_token_id": special, "context_token_id": token}
both = sl.build_prefix(contexts, rows, **named)
alone = sl.build_prefix([contexts[1]], rows[1:], **named)
with torch.inference_mode():
    in_batch = sl.forward(extended.lm, both.sequence, both.attention_mask, both.positions)
    by_itself = sl.forward(extended.lm, alone.sequence, alone.attention_mask, alone.positions)
padding = int((~both.attention_mask[1]).sum())
assert padding == lengths[0] - lengths[1]
assert torch.allclose(in_batch[1, :, padding:], by_itself[0], atol=1e-3)
print(f"{padding} steps of padding on the left; positions there {both.positions[1, padding - 1].item()},",
      f"then {both.positions[1, padding : padding + 4].tolist()}; the row computes what it does alone")  # fmt: skip

# %% [markdown]
# ### Exercise 3: mask and positions
#
# ★★★ · 15 minutes. A row may also have no context: then it has no token either.


# %%
def mask_and_positions(
    context_lengths: list[int | None], n_target: int, n_q: int
) -> tuple[Tensor, Tensor]:
    """What each step may be seen by, and what number it has.

    Args:
        context_lengths: frames of each row's context, or None for no context (and no token); at
            least one row has one.
        n_target: frames of the target, the same for all rows.
        n_q: codebooks.

    Returns:
        attention_mask Bool[B, S] (False: padding) and positions Int[B, S] (0 in the padding and at
        the first step that is not), S = longest context + 1 + n_target + n_q.
    """
    ### BEGIN SOLUTION
    frames = [0 if n is None else n + 1 for n in context_lengths]  # with the token
    width = max(frames)
    steps = torch.arange(width + n_target + n_q)  # [S]
    padding = torch.tensor([[width - n] for n in frames])  # [B, 1]
    return steps >= padding, (steps - padding).clamp(min=0)
    ### END SOLUTION


# %%
checks.mask_and_positions(mask_and_positions)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# How many steps of padding does each row need, so that all rows end together? Write that as a tensor `[B, 1]`.
# </details>
#
# <details><summary>Hint 2: compare and subtract</summary>
#
# `torch.arange(S)` against `[B, 1]` gives `[B, S]`: `steps >= padding`, and `steps - padding`, which must not be negative.
# </details>
#
# <details><summary>My mask passes; my positions count from the left edge</summary>
#
# ```python
# def mask_and_positions(context_lengths, n_target, n_q):
#     frames = [0 if n is None else n + 1 for n in context_lengths]
#     steps = torch.arange(max(frames) + n_target + n_q)
#     mask = steps >= torch.tensor([[max(frames) - n] for n in frames])
#     return mask, steps.expand(len(frames), -1)
# ```
# </details>
#
# <details><summary>I pad on the right</summary>
#
# ```python
# def mask_and_positions(context_lengths, n_target, n_q):
#     frames = [0 if n is None else n + 1 for n in context_lengths]
#     steps = torch.arange(max(frames) + n_target + n_q)
#     valid = torch.tensor([[n + n_target + n_q] for n in frames])
#     return steps < valid, steps.expand(len(frames), -1)
# ```
# </details>
#
# <details><summary>I pass two rows and fail the one without context</summary>
#
# ```python
# def mask_and_positions(context_lengths, n_target, n_q):
#     frames = [(n or 0) + 1 for n in context_lengths]
#     steps = torch.arange(max(frames) + n_target + n_q)
#     padding = torch.tensor([[max(frames) - n] for n in frames])
#     return steps >= padding, (steps - padding).clamp(min=0)
# ```
# </details>

# %% [markdown]
# ## 4. The loss
#
# Only codes of the target count. The context is given; to be good at guessing it is no aim.
#
# ### Exercise 4: the target's loss
#
# ★★☆ · 10 minutes. One row of a batch.


# %%
def target_loss(logits: Tensor, sequence: Tensor, loss_mask: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of the codes that count.

    Args:
        logits: Float[K, S, card]; those of step s predict step s + 1.
        sequence: Int[K, S]; holds tokens too, in places that do not count.
        loss_mask: Bool[K, S], True where the sequence holds a code of the target.

    Returns:
        Float[].
    """
    ### BEGIN SOLUTION
    counts = loss_mask[:, 1:]  # [K, S - 1]
    return nn.functional.cross_entropy(logits[:, :-1][counts], sequence[:, 1:][counts])
    ### END SOLUTION


# %%
checks.target_loss(target_loss)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Shift first: `logits[:, :-1]` are predictions, `sequence[:, 1:]` is what came. Shift the mask with the sequence.
# </details>
#
# <details><summary>Hint 2: choose, then compare</summary>
#
# A tensor indexed by a mask is a list of what is chosen: `logits[:, :-1][mask]` is `[n, card]`, which
# `nn.functional.cross_entropy` takes beside `[n]` labels.
# </details>
#
# <details><summary>My loss is far too high: I did not shift</summary>
#
# ```python
# def target_loss(logits, sequence, loss_mask):
#     return nn.functional.cross_entropy(logits[loss_mask], sequence[loss_mask])
# ```
# </details>
#
# <details><summary>I get an IndexError about a target out of bounds</summary>
#
# ```python
# def target_loss(logits, sequence, loss_mask):
#     return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), sequence[:, 1:].flatten())  # tokens too
# ```
# </details>
#
# <details><summary>My loss grows with the length of the target</summary>
#
# ```python
# def target_loss(logits, sequence, loss_mask):
#     counts = loss_mask[:, 1:]
#     return nn.functional.cross_entropy(logits[:, :-1][counts], sequence[:, 1:][counts], reduction="sum")
# ```
# </details>

# %%
free = in_batch.clone().requires_grad_()  # logits as if they were parameters: who gets a gradient?
loss, per_codebook = sl.prefix_loss(free, both)
loss.backward()
touched = free.grad.abs().sum((0, 1, 3)) > 0  # [S]
assert not touched[: both.target_start - 1].any() and touched[both.target_start - 1]
print(
    f"loss {float(loss.detach()):.3f}; the first logits that count are those of the token's own step"
)
if checks.passed(target_loss):
    yours = [target_loss(in_batch[b], both.sequence[b], both.loss_mask[b]) for b in range(2)]
    assert torch.allclose(sum(yours) / 2, loss.detach(), atol=1e-5)
    print("yours agrees:", [round(float(x), 3) for x in yours])

# %% [markdown]
# ## 5. What an untrained token does
#
# `extended` has the token, and has never been told what it means. `nano` began like this and was then trained for hours,
# as notebook 04 shows for minutes. Both hear the same click.
#
# **Predict.** Will the untrained one ignore the click, follow it a little, or be disturbed by it?

# %%
nano = sl.load("nano")
beats, bars = sl.beat_grid(bpm=110, beats_per_bar=4, duration_s=4.0, start_s=0.1)
click = sl.click_track(beats, bars, duration_s=4.0, sample_rate=nano.sample_rate)
asked = {"description": "drums, rock", "duration_s": 4.0, "seed": SEED}
played = {
    "no context, nano-base": base.generate(**asked),
    "click and untrained token": extended.generate(click, nano.sample_rate, **asked),
    "click and trained token": nano.generate(click, nano.sample_rate, **asked),
}
listen_for = ["what it plays by itself.", "does it take the click for music that it should go on with?",
              "hit by hit on the click?"]  # fmt: skip
Clips([
    Clip(name, mix([click, made.wav[0]]), made.sample_rate, heard)
    for (name, made), heard in zip(played.items(), listen_for, strict=True)
])  # fmt: skip

# %%
try:
    from stage_widgets import TokenGrid

    grid = TokenGrid(nano, played["click and trained token"], label="Click, token, drums")
    display(grid)  # look for the border; the mask "loss" is what training counts
except ImportError as error:
    print("The widgets are not installed here:", error)

# %% [markdown]
# One clip proves nothing. **Does it listen?** has a number: the loss of the true drums after the right click, after
# another song's, and without any. A model that listens pays for the wrong click.

# %%
songs = [s for s in open_samples() if "drums" in s.stem_names]
data = sl.StemDataset(songs, "drums", window_s=4.0, conditions=["metronome"], seed=SEED, n=16)
examples = [data[i] for i in range(len(data))]
for example in examples:  # encode once, for both models
    example.context_codes = base.encode(example.context, base.sample_rate)[0]
    example.target_codes = base.encode(example.target, base.sample_rate)[0]
heard = {
    name: context_losses(m, examples) for name, m in {"untrained": extended, "nano": nano}.items()
}
for name, loss in heard.items():
    print(f"{name:10} right {loss['right']:.3f}  another song's {loss['shuffled']:.3f}"
          f"  none {loss['none']:.3f}  gap {loss['gap']:+.3f} nats")  # fmt: skip
assert abs(heard["untrained"]["gap"]) < 0.03 < heard["nano"]["gap"]
assert heard["untrained"]["right"] > heard["untrained"]["none"]  # disturbed

# %% [markdown]
# The **gap** of the untrained token is nothing: all clicks are alike to it. And any click is worse than none, because the
# model takes it for the beginning of the piece. Drums predict their own next bar so well that the gap stays small even for
# a model that listens; with the target's own past hidden, the context is all there is:

# %%
gaps = {
    f"{name}, {what}": loss[key]
    for name, loss in heard.items()
    for what, key in (("past known", "gap"), ("past hidden", "gap_hidden"))
}
assert gaps["nano, past hidden"] > gaps["nano, past known"]
charts.bars(gaps, "what another song's click costs (nats)")

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **Sixteen windows.** The card of `nano` has 256, with intervals.
# - **How the row begins.** STAGE draws it at random. Does it matter before training? See below.
# - **Positions.** STAGE counts on from context to target. `nano` lets the target begin anew behind the token, so that what
#   sounds together has the same number. (`sl.load("nano-stage")` keeps STAGE's: it follows a click as well as `nano` does, a mix
#   hardly.) The same layout, other numbers:

# %%
for init in ("kaiming", "mean", "zeros"):
    fresh = sl.load("nano-base")
    sl.extend_embedding(fresh.lm, init=init, seed=SEED)
    with torch.inference_mode():
        print(f"row from {init:8} loss after the right click {float(fresh.loss(examples)[0]):.3f}")
shown = slice(border.target_start - 3, border.target_start + 3)
ours = sl.build_prefix(numbers, numbers[:, :, :4], **ids, anchor_frames=nano.config.anchor_frames)
print("STAGE ", border.positions[0, shown].tolist(), " around the token")
print("nano  ", ours.positions[0, shown].tolist())

# %% [markdown]
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | context | what is played along with | codes `[K, Tc]` | `build_prefix(context_codes, ...)` |
# | context token | one frame that ends the context | id `card` + 1 | `model.context_token_id` |
# | prefix | context and token | steps | `sl.build_prefix` |
# | target | what is to be played | codes `[K, T]` | `loss_mask` |
# | border | where late context codebooks meet the target | K steps | `prefix.target_start` |
# | padding | what makes rows equally long | steps, on the left | `attention_mask [B, S]` |
# | position | number of a step in its row | from 0 | `positions [B, S]` |
# | gap | loss after another song's context minus after the right one | nats | `context_losses` |
#
# ## Can you say it without looking?
#
# 1. Why can the token never be generated?
# 2. How would you prove that adding the row has changed nothing?
# 3. Which codes does the model not know yet when it chooses the first target code?
# 4. Why is the padding on the left?
# 5. What goes wrong if positions do not begin anew in each row?
# 6. Why is the mean loss a poor witness of listening?
# 7. Why did the untrained token make things worse than no context?
#
# ## Sources
#
# - STAGE: Strano et al., *Stemmed Accompaniment Generation through Prefix-Based Conditioning*, ISMIR 2025, arXiv:2504.05690.
# - MusicGen: Copet et al., *Simple and Controllable Music Generation*, 2023, arXiv:2306.05284.
# - A random start for new rows: He et al., *Delving Deep into Rectifiers*, 2015, arXiv:1502.01852.
