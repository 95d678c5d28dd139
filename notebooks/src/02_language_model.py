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
# # 02 The language model: one step after the other
#
# Everything that MusicGen plays comes from one question, asked fifty times a second: given all codes so far, how likely is
# each code to be the next? In this notebook you take that question apart, and mend three bugs of the original code.
#
# ```
#   codes of K codebooks ──embed, add up──▶ one vector a step ──layers──▶ logits [K, card] ──sample──▶ K codes
#                                                 ▲                            ▲
#                                    cache: keys and values so far         guidance
# ```
#
# You will be able to
# - **build** the embedding, a cache and the sampling, equal to the library's,
# - **derive** guidance, and say what its coefficient does,
# - **find** a bug that no crash tells you of.
#
# Needs: notebook 01 (codes, the delay). Two CPU cores, no GPU, no network. Reading and listening: 30 minutes. Exercises:
# 50 minutes. Computing: at most 75 s.

# %%
REPOSITORY = ""  # on Colab: this repository's address; elsewhere `make lab` did it all
import importlib.util
import math
import subprocess
import sys
import time

if REPOSITORY:
    install = "pip install -q -e . && pip install -q --no-deps -r requirements-nodeps.txt"
    command = f"git clone -q {REPOSITORY} stage-lite && cd stage-lite && {install}"
    subprocess.run(command, shell=True, check=True)
    sys.path.insert(0, "stage-lite")
elif importlib.util.find_spec("stage_lite") is None:
    raise ImportError("no stage_lite in this kernel: start with `make lab`, or fill in REPOSITORY")
import torch
import torch.nn.functional as F
from IPython.display import display
from torch import Tensor

import stage_lite as sl
from stage_lite import charts, checks
from stage_lite.clips import Clip, Clips
from stage_lite.lm import KVCache, embed, sin_positions, weights_of
from stage_lite.sampling import sample
from stage_lite.song import open_samples
from stage_lite.text import encode_text
from stage_lite.upstream import audiocraft_classes

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. What one step predicts
#
# The model reads a delayed sequence. At every step, and for every codebook, it answers with `card` numbers, the **logits**;
# a softmax makes them probabilities of the **next** step's code. (Softmax: raise e to each, divide by the sum.)
#
# **Predict.** Which codebook is the hardest to guess, the first one, which holds the beat, or the last one?

# %%
model = sl.load("nano")
lm, special = model.lm, model.special_token_id
song = next(s for s in open_samples() if s.family == "rock")
drums = song.stem("drums", start_s=song.downbeats[1], duration_s=4.0)
sequence = sl.delay(model.encode(drums, model.sample_rate), special)  # [B, K, S]

text, text_mask = encode_text(lm, ["drums, rock"])  # words as vectors, [B, words, dim]
with torch.inference_mode():
    logits = sl.forward(lm, sequence, text=text, text_mask=text_mask)  # [B, K, S, card]
    changed = sequence.clone()
    changed[:, :, 100] = 7
    other = sl.forward(lm, changed, text=text, text_mask=text_mask)
differs = (logits != other).any(-1).any(1)[0]  # [S]
assert not differs[:100].any() and differs[100:].any()
print(f"{[*sequence.shape]} -> logits {[*logits.shape]}; step 100 changes nothing before it")

# %%
losses = {}
for k in range(model.n_q):
    is_code = sequence[0, k, 1:] != special
    predicted, label = logits[0, k, :-1][is_code], sequence[0, k, 1:][is_code]  # one step apart
    losses[f"codebook {k}"] = float(F.cross_entropy(predicted, label))  # mean of -log(probability)
guessing = math.log(model.card)  # all codes equally likely
assert losses["codebook 0"] < losses[f"codebook {model.n_q - 1}"] < guessing
charts.bars({**losses, "guessing": guessing}, "loss in nats (lower is better)")

# %% [markdown]
# The coarse code follows from the groove; what is left over after several codebooks is close to noise, and noise cannot be
# guessed.
#
# ## 2. From K codes to one vector
#
# A step holds K codes, the layers want one vector. Each codebook has its own table of vectors; the K that are looked up
# are **added**, and so is a vector that says how late it is: cosines and sines of slow and fast waves, one wave per entry.

# %%
n_steps, dim = 200, lm.dim
period = 10_000 ** (torch.arange(dim // 2) / (dim // 2 - 1))  # of each wave, in steps / 2 pi
phase = torch.arange(n_steps)[:, None] / period
by_hand = torch.cat([phase.cos(), phase.sin()], dim=1)  # [S, dim]
library = sin_positions(torch.arange(n_steps), dim, lm.transformer.max_period)
assert torch.allclose(by_hand, library, atol=1e-4)
charts.heat(by_hand.T[::8], x_label="step", y_label="entry (every eighth)",
            caption="Each column is one step's position: no two are alike.")  # fmt: skip

# %% [markdown]
# ### Exercise 1: embed the steps
#
# ★☆☆ · 10 minutes.


# %%
def embed_steps(tables: list[Tensor], sequence: Tensor, positions: Tensor) -> Tensor:
    """One vector per step.

    Args:
        tables: one Float[rows, dim] per codebook.
        sequence: Int[B, K, S], numbers of rows.
        positions: Float[S, dim], to be added.

    Returns:
        Float[B, S, dim].
    """
    ### BEGIN SOLUTION
    vectors = positions
    for k, table in enumerate(tables):
        vectors = vectors + table[sequence[:, k]]  # [B, S, dim]
    return vectors
    ### END SOLUTION


# %%
checks.embed_steps(embed_steps)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# A table is indexed by a tensor of row numbers: `table[rows]` has the shape of `rows`, with `dim` behind it.
# </details>
#
# <details><summary>Hint 2: which rows</summary>
#
# Codebook k's row numbers are `sequence[:, k]`, its table is `tables[k]`.
# </details>
#
# <details><summary>My vectors are too wide</summary>
#
# ```python
# def embed_steps(tables, sequence, positions):
#     return torch.cat([t[sequence[:, k]] + positions for k, t in enumerate(tables)], dim=-1)
# ```
# </details>
#
# <details><summary>My vectors are too small: I took the mean</summary>
#
# ```python
# def embed_steps(tables, sequence, positions):
#     looked_up = [t[sequence[:, k]] for k, t in enumerate(tables)]
#     return torch.stack(looked_up).mean(0) + positions
# ```
# </details>
#
# <details><summary>I add everything up, positions included, and am off</summary>
#
# ```python
# def embed_steps(tables, sequence, positions):
#     return sum(t[sequence[:, k]] + positions for k, t in enumerate(tables))
# ```
# </details>

# %%
if checks.passed(embed_steps):
    tables = [table.weight.detach() for table in lm.emb]
    yours = embed_steps(tables, sequence[:, :, :n_steps], by_hand)
    into_layers = embed(weights_of(lm), sequence[:, :, :n_steps], library[None])
    assert torch.allclose(yours, into_layers, atol=1e-4)
    print(f"your {[*yours.shape]} are what the layers of the model get")

# %% [markdown]
# ## 3. The cache
#
# In a layer every step looks back. It holds up a *query*, compares it with the *key* of each step so far, and mixes their
# *values* by how well they fit: `softmax(query · keys / sqrt(dim)) · values`. Keys and values of the past never change (you
# saw why: step 100 changes nothing before it). So they are kept, and a new step costs one step, not all of them.
#
# **Predict.** For 8 s of context and 8 s of output, how many times fewer steps does the model compute?

# %%
frames, n_short = round(8 * model.frame_rate), 60
whole = 2 * frames + 1 + model.n_q  # context, token, target, delay
every_time = sum(range(frames + 1, whole))  # the whole sequence again for every new step
print(f"{every_time:,} steps without a cache, {whole:,} with: {every_time / whole:.0f} times fewer")
with torch.inference_mode():
    started = time.process_time()
    again = [sl.forward(lm, sequence[:, :, : s + 1])[:, :, -1:] for s in range(n_short)]
    halfway = time.process_time()
    cache = KVCache(lm, n_batch=1, max_steps=n_short)
    cached = [sl.forward(lm, sequence[:, :, s : s + 1], cache=cache) for s in range(n_short)]
    finished = time.process_time()
assert torch.allclose(torch.cat(again, 2), torch.cat(cached, 2), atol=1e-3)
print(f"{n_short} steps: {halfway - started:.1f} s without, {finished - halfway:.1f} s with; equal")

# %% [markdown]
# ### Exercise 2: a cache by hand
#
# ★★☆ · 15 minutes. One step, one head. You keep the cache: a list, empty at the first step.


# %%
def attend_step(query: Tensor, key: Tensor, value: Tensor, cache: list) -> Tensor:
    """What a new step reads from itself and all steps before it.

    Args:
        query, key, value: Float[dim], of the new step.
        cache: whatever you put in at earlier steps; add one entry per step.

    Returns:
        Float[dim]: the mixed values.
    """
    ### BEGIN SOLUTION
    cache.append((key, value))
    keys = torch.stack([k for k, _ in cache])  # [steps, dim]
    values = torch.stack([v for _, v in cache])
    weights = (keys @ query / query.shape[0] ** 0.5).softmax(dim=0)  # [steps]
    return weights @ values
    ### END SOLUTION


# %%
checks.attend_step(attend_step)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# First `cache.append((key, value))`: a step sees itself too.
# </details>
#
# <details><summary>Hint 2: all at once</summary>
#
# `torch.stack` makes `keys [steps, dim]` of a list of `[dim]`. Then `keys @ query` is one number per step.
# </details>
#
# <details><summary>I pass the first step and fail the second: I forget</summary>
#
# ```python
# def attend_step(query, key, value, cache):
#     keys, values = torch.stack([key]), torch.stack([value])
#     weights = (keys @ query / query.shape[0] ** 0.5).softmax(dim=0)
#     return weights @ values
# ```
# </details>
#
# <details><summary>I pass the first step and fail the second: I come last</summary>
#
# ```python
# def attend_step(query, key, value, cache):
#     past = cache or [(key, value)]
#     keys = torch.stack([k for k, _ in past])
#     values = torch.stack([v for _, v in past])
#     weights = (keys @ query / query.shape[0] ** 0.5).softmax(dim=0)
#     cache.append((key, value))
#     return weights @ values
# ```
# </details>
#
# <details><summary>I pass the first step and fail the second: too sure</summary>
#
# ```python
# def attend_step(query, key, value, cache):
#     cache.append((key, value))
#     keys = torch.stack([k for k, _ in cache])
#     values = torch.stack([v for _, v in cache])
#     return (keys @ query).softmax(dim=0) @ values
# ```
# </details>

# %% [markdown]
# ## 4. Choosing a code
#
# The likeliest code every time is *greedy*. Otherwise dice decide. The **temperature** divides the logits: below 1 the dice
# favour the likely, above 1 the unlikely gain. **top_k** first throws away all but the k likeliest.
#
# **Predict.** What will greedy drums sound like?

# %%
asked = {"description": "drums, rock", "duration_s": 4.0, "cfg_coef": 1.0, "seed": SEED}
takes = {t: model.generate(**asked, temperature=t) for t in (0.0, 0.7, 1.0, 2.0)}
different = {t: len(made.codes[0, 0].unique()) for t, made in takes.items()}
print("different codes in codebook 0:", ", ".join(f"at {t}: {n}" for t, n in different.items()))
assert different[0.0] < different[1.0] <= different[2.0]
listen_for = {0.0: "does anything happen after the first moment?", 0.7: "is there a pattern?",
              1.0: "more going on, or only more noise?", 2.0: "is anything left of a drum kit?"}  # fmt: skip
Clips([
    Clip(f"temperature {t}", made.wav[0], made.sample_rate, listen_for[t])
    for t, made in takes.items()
])  # fmt: skip

# %%
try:
    from stage_widgets import TokenGrid

    display(TokenGrid(model, takes[1.0], label="Temperature 1, code by code"))
except ImportError as error:
    print("The widgets are not installed here:", error)

# %% [markdown]
# ### Exercise 3: temperature and top_k
#
# ★★☆ · 10 minutes. The probabilities with which each code is drawn.


# %%
def sampling_probs(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    """Probabilities after temperature and top_k.

    Args:
        logits: Float[card].
        temperature: above 0.
        top_k: only so many of the likeliest; 0 is all.

    Returns:
        Float[card], which sums to 1.
    """
    ### BEGIN SOLUTION
    if top_k > 0:
        weakest = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < weakest, -torch.inf)
    return (logits / temperature).softmax(dim=0)
    ### END SOLUTION


# %%
checks.sampling_probs(sampling_probs)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Without top_k it is one line: divide, then softmax.
# </details>
#
# <details><summary>Hint 2: throwing codes away</summary>
#
# `logits.topk(k).values[-1]` is the weakest that stays. A logit of -inf becomes a probability of 0, and the others share
# the rest.
# </details>
#
# <details><summary>I pass without top_k; with it the sum is below 1</summary>
#
# ```python
# def sampling_probs(logits, temperature, top_k):
#     probs = (logits / temperature).softmax(dim=0)
#     if top_k > 0:
#         probs = probs * (logits >= logits.topk(top_k).values[-1])
#     return probs
# ```
# </details>
#
# <details><summary>I pass temperature 1 and fail 0.5: hot is cold</summary>
#
# ```python
# def sampling_probs(logits, temperature, top_k):
#     if top_k > 0:
#         logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
#     return (logits * temperature).softmax(dim=0)
# ```
# </details>
#
# <details><summary>I pass temperature 1 and fail 0.5: the sum is 2</summary>
#
# ```python
# def sampling_probs(logits, temperature, top_k):
#     if top_k > 0:
#         logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
#     return logits.softmax(dim=0) / temperature
# ```
# </details>

# %%
if checks.passed(sampling_probs):
    one, n_drawn = logits[0, 0, 50], 20_000
    settings = {"temperature": 0.8, "top_k": 5}
    drawn = sample(one.expand(n_drawn, 1, -1), **settings).flatten()  # torch's own dice
    counted, yours = drawn.bincount(minlength=model.card) / n_drawn, sampling_probs(one, **settings)
    assert torch.allclose(counted, yours, atol=0.03)
    best = yours.topk(settings["top_k"]).indices.tolist()
    display(charts.bars({f"code {i}, yours": float(yours[i]) for i in best}
                        | {f"code {i}, drawn": float(counted[i]) for i in best}, "probability"))  # fmt: skip

# %% [markdown]
# ## 5. Guidance
#
# Write p(x) for the probability of a code and p(x | w) for that with the words w. How much the words speak for a code is
# the ratio p(x | w) / p(x). Guidance multiplies p(x) by this ratio to the power of `cfg_coef` (call it c):
#
# log p'(x) = log p(x) + c · (log p(x | w) − log p(x)) + constant
#
# Logits are log-probabilities up to a constant, and softmax does not see constants. So it can be done to logits directly:
#
# **Predict.** Which c gives the model without words, which the model with words?

# %%
start = torch.full((1, model.n_q, 1), special)  # step 0: nothing yet
with torch.inference_mode():
    without_words = sl.forward(lm, start)[0, 0, -1]  # [card], codebook 0
    with_words = sl.forward(lm, start, text=text, text_mask=text_mask)[0, 0, -1]
for c in (0.0, 1.0, 3.0, 8.0):
    mixed = without_words + c * (with_words - without_words)
    log_p, log_p_words = without_words.log_softmax(0), with_words.log_softmax(0)
    by_logs = log_p + c * (log_p_words - log_p)
    assert torch.allclose(mixed.softmax(0), by_logs.softmax(0), atol=1e-5)
    made = sl.generate_codes(lm, None, ["drums, rock"], 1, cfg_coef=c, temperature=0)
    assert made.codes[0, 0, 0] == mixed.argmax()
    print(f"c = {c:g}: made {int(mixed.argmax()):3}, the likeliest, {mixed.softmax(0).max():.0%}")

# %% [markdown]
# ## 6. Find the bug
#
# Three places of audiocraft 1.3.0, told in our own words. **Predict** for each what it does, and when nobody would notice.
#
# - **A.** Two-step guidance computes the two sets of logits one after the other. The caller's `cfg_coef` arrives as an
#   argument, and then: `mixed = without + (with_ - without) * self.cfg_coef`.
# - **B.** Before generating: `assert [n == rows[0] for n in rows], "sizes differ"`.
# - **C.** After generating: `assert codes.min() >= 0 and codes.max() <= card`.

# %%
words = [audiocraft_classes().ConditioningAttributes(text={"description": "drums, rock"})]


def upstream(cfg_coef, two_step=False, prompt=None, rows=1):
    settings = {"use_sampling": False, "max_gen_len": 12, "cfg_coef": cfg_coef}
    return lm.generate(prompt, words * rows, two_step_cfg=two_step, **settings)


same = {two: torch.equal(upstream(1.0, two), upstream(8.0, two)) for two in (False, True)}
print(f"A. guidance 1 and 8 agree: in one step {same[False]}, in two steps {same[True]}")
prompt = torch.zeros(1, model.n_q, 3, dtype=torch.long)
try:
    upstream(3.0, prompt=prompt.repeat(2, 1, 1), rows=3)
except RuntimeError as error:
    print("B. a prompt of 2 rows and 3 descriptions pass the assert, then:", error)
prompt[0, 1, 2] = special
returned = upstream(3.0, prompt=prompt)
print("C. special tokens among the codes that come back:", int((returned == special).sum()))
assert same == {False: False, True: True} and (returned == special).any()

# %% [markdown]
# ### Exercises 4 to 6: mend them
#
# ★☆☆ · 5 minutes each. A silent bug is worse than a crash: A plays music, only other music than was asked for.


# %%
def guided(
    conditional: Tensor, unconditional: Tensor, cfg_coef: float | None, own_coef: float
) -> Tensor:
    """Bug A. Guided logits.

    Args:
        conditional, unconditional: Float[card].
        cfg_coef: what the caller asks for; None is "as the model likes it".
        own_coef: the model's own coefficient.
    """
    ### BEGIN SOLUTION
    coef = own_coef if cfg_coef is None else cfg_coef
    return unconditional + coef * (conditional - unconditional)
    ### END SOLUTION


# %%
checks.guided(guided)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# First decide which coefficient counts, then use only that one.
# </details>
#
# <details><summary>Hint 2: what is "not given"?</summary>
#
# Only None. 0 is a wish: play without the conditions.
# </details>
#
# <details><summary>As audiocraft has it</summary>
#
# ```python
# def guided(conditional, unconditional, cfg_coef, own_coef):
#     return unconditional + (conditional - unconditional) * own_coef
# ```
# </details>
#
# <details><summary>I pass 5 and None, and fail 0</summary>
#
# ```python
# def guided(conditional, unconditional, cfg_coef, own_coef):
#     return unconditional + (cfg_coef or own_coef) * (conditional - unconditional)
# ```
# </details>
#
# <details><summary>I followed Ho and Salimans' formula to the letter</summary>
#
# ```python
# def guided(conditional, unconditional, cfg_coef, own_coef):
#     w = own_coef if cfg_coef is None else cfg_coef
#     return (1 + w) * conditional - w * unconditional  # their w is MusicGen's coefficient minus 1
# ```
# </details>


# %%
def rows_of_batch(sizes: dict[str, int | None]) -> int:
    """Bug B. The number of rows that all inputs agree on.

    Args:
        sizes: name of an input -> its number of rows, or None if it was not given.

    Returns:
        That number; 1 if nothing was given.

    Raises:
        ValueError: they disagree.
    """
    ### BEGIN SOLUTION
    given = {name: rows for name, rows in sizes.items() if rows is not None}
    if len(set(given.values())) > 1:
        raise ValueError(f"rows disagree: {given}; expected one number for all")
    return next(iter(given.values()), 1)
    ### END SOLUTION


# %%
checks.rows_of_batch(rows_of_batch)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Is `bool([False, False])` true? A list is false only if it is empty; `all(...)` asks what is in it. Is it your own
# mistake that is found here, or the user's?
# </details>
#
# <details><summary>Hint 2: which sizes to compare</summary>
#
# Those that are not None. A `set` of equal numbers has one member.
# </details>
#
# <details><summary>As audiocraft has it</summary>
#
# ```python
# def rows_of_batch(sizes):
#     rows = [n for n in sizes.values() if n is not None] or [1]
#     assert [n == rows[0] for n in rows], "sizes differ"
#     return rows[0]
# ```
# </details>
#
# <details><summary>I ask all, by an assert</summary>
#
# ```python
# def rows_of_batch(sizes):
#     rows = [n for n in sizes.values() if n is not None] or [1]
#     assert all(n == rows[0] for n in rows), "sizes differ"
#     return rows[0]
# ```
# </details>
#
# <details><summary>I refuse what was not given</summary>
#
# ```python
# def rows_of_batch(sizes):
#     rows = list(sizes.values())
#     if any(n != rows[0] for n in rows):
#         raise ValueError(f"sizes differ: {sizes}")
#     return rows[0]
# ```
# </details>


# %%
def are_codes(codes: Tensor, card: int) -> bool:
    """Bug C. Whether every entry is a code, and none a token.

    Args:
        codes: Int[B, K, T].
        card: entries of a codebook.
    """
    ### BEGIN SOLUTION
    return bool(((codes >= 0) & (codes < card)).all())
    ### END SOLUTION


# %%
checks.are_codes(are_codes)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# How many codes are there from 0 to `card`, both counted?
# </details>
#
# <details><summary>Hint 2: two questions about a tensor</summary>
#
# `(codes >= 0) & (codes < card)` is a tensor of bools; the brackets are needed. `.all()` makes one of them.
# </details>
#
# <details><summary>As audiocraft has it</summary>
#
# ```python
# def are_codes(codes, card):
#     return bool((codes >= 0).all() and (codes <= card).all())
# ```
# </details>
#
# <details><summary>I look only upwards</summary>
#
# ```python
# def are_codes(codes, card):
#     return bool((codes < card).all())
# ```
# </details>
#
# <details><summary>Python says that a bool is ambiguous</summary>
#
# ```python
# def are_codes(codes, card):
#     return 0 <= codes < card
# ```
# </details>

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **Teacher forcing.** The losses of section 1 are for the song's own past. The model's own past is worse, and errors add up.
# - **One song, one text.** Which codebook is hardest may change with the stem. Bass, for comparison:
# - **Equal is not bit-equal.** Cached and uncached steps add numbers up in another order. The largest difference:

# %%
bass_wav = song.stem("bass", song.downbeats[1], 4.0)
bass = sl.delay(model.encode(bass_wav, model.sample_rate), special)
with torch.inference_mode():
    bass_logits = sl.forward(lm, bass, text=encode_text(lm, ["bass, rock"])[0])
for k in range(model.n_q):
    here = bass[0, k, 1:] != special
    loss = F.cross_entropy(bass_logits[0, k, :-1][here], bass[0, k, 1:][here])
    print(f"codebook {k}: drums {losses[f'codebook {k}']:.2f}, bass {float(loss):.2f} nats")
error = float((torch.cat(again, 2) - torch.cat(cached, 2)).abs().max())
print(f"cached against uncached logits: at most {error:.0e} apart")

# %% [markdown]
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | step | one column of the delayed sequence | `S` of them | `sequence [B, K, S]` |
# | logits | log-probabilities up to a constant | `[card]` | `sl.forward` |
# | loss | mean of -log(probability of what came) | nats | `F.cross_entropy` |
# | embedding | a table with a vector per code | `[rows, dim]` | `lm.emb[k]` |
# | position | how late a step is | step | `sin_positions` |
# | query, key, value | what a step asks, is found by, and gives | `[dim]` | `KVCache` |
# | cache | keys and values of the past | `[steps, dim]` a layer | `KVCache` |
# | temperature | divides the logits | above 0 | `generate(temperature=...)` |
# | guidance | exaggerates what a condition changes | `cfg_coef` | `generate(cfg_coef=...)` |
#
# ## Can you say it without looking?
#
# 1. Logits at step s: of which step's codes, and of how many?
# 2. Why may the vectors of K codebooks simply be added?
# 3. What would attention be without positions?
# 4. Why can keys and values be kept?
# 5. Which two settings give the likeliest code every time?
# 6. What do coefficients 0, 1 and 3 of guidance do?
# 7. Why did nobody notice bug A, and how would a test have?
#
# ## Sources
#
# - MusicGen: Copet et al., *Simple and Controllable Music Generation*, 2023, arXiv:2306.05284.
# - Attention and sinusoidal positions: Vaswani et al., *Attention Is All You Need*, 2017, arXiv:1706.03762.
# - Guidance: Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv:2207.12598.
# - Dull and wild sampling: Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020, arXiv:1904.09751.
# - The three lines: audiocraft 1.3.0, `audiocraft/models/lm.py`, `_sample_next_token` and `generate`.
