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
# # 09 From nano to MusicGen and STAGE
#
# Change one line, and this notebook runs on MusicGen, or on the authors' own STAGE. Before you pay for a GPU you find out
# what changes then and what stays, prove that weights survive the move between three programs, and work out on paper what
# memory and time it takes.
#
# ```
#   layer i        audiocraft              transformers               official STAGE
#                  layers.i                decoder.layers.i           layers.3i   3i+1   3i+2
#   attention      one matrix  [q]         q_proj  k_proj  v_proj     to_q  to_k  to_v
#                              [k]             \      |      /           \     |     /
#                              [v]              \     |     /             \    |    /
#                                └──────────▶  one model, the same logits  ◀──────┘
# ```
#
# You will be able to
# - **count** the parameters of a decoder from its shape, and the bytes of its cache,
# - **move** weights between programs, and prove that nothing changed,
# - **work out** what a size needs on a machine that you do not have yet.
#
# Needs: notebooks 02 (cache, guidance) and 03 (the token). Two CPU cores, no GPU, no network. Reading and listening: 25
# minutes. Exercises: 40 minutes. Computing: at most 100 s.

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
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

import stage_lite as sl
from stage_lite import charts, checks, sizing
from stage_lite.audio import mix
from stage_lite.clips import Clip, Clips
from stage_lite.generate import plan_windows
from stage_lite.interop import hub, peers
from stage_lite.metrics.precision import compare_weights
from stage_lite.prefix import OFFICIAL, has_context_row
from stage_lite.song import open_samples
from stage_lite.text import encode_text

SEED = 0
print(f"torch {torch.__version__}, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# **This is the line.** `facebook/musicgen-small` and `stage-drums` come from the hub (1.1 and 2.4 GB, and 0.9 GB for the
# T5 that reads the words); their licence is CC-BY-NC 4.0, see below. On Colab choose a runtime with a GPU.

# %%
MODEL = "nano"  # or "facebook/musicgen-small", "stage-drums", or a folder of weights
device = "cuda" if torch.cuda.is_available() and MODEL != "nano" else "cpu"
model = sl.load(MODEL, device=device)
listens = has_context_row(model.lm)  # MusicGen knows words only
print(model, "on", device)
sizes = hub.MUSICGEN["facebook/musicgen-small"][0], hub.STAGE_BYTES  # bytes of the downloads
assert [round(n / 1e9, 1) for n in sizes] == [1.1, 2.4]

# %% [markdown]
# ## 1. What changes and what stays
#
# **Predict.** `nano` has about 10 million parameters, MusicGen-small 420. Which of these differ: frames a second, codebooks
# K, codes of a codebook, width, layers, heads, width of a head, the delay, the tokens?

# %%
shapes = {"nano": sl.load("nano").config.lm, **sizing.MUSICGEN}
outlines = {name: sizing.outline(shape) for name, shape in shapes.items()}  # shapes, no memory
table = pd.DataFrame({
    name: {
        "codebooks K": c.n_q, "card": c.card, "dim": c.dim, "layers": c.num_layers,
        "heads": c.num_heads, "width of a head": c.dim // c.num_heads,
        "words read by": c.t5 or f"{len(c.vocabulary)} words", "context token": c.context_token,
        "parameters (M)": round(sum(sizing.parameters(outlines[name]).values()) / 1e6, 1),
    }
    for name, c in shapes.items()
}).T  # fmt: skip
assert (model.frame_rate, model.sample_rate, model.n_q) == (50.0, 32000, 4)
assert (model.special_token_id, model.context_token_id) == (model.card, model.card + 1)
millions = table["parameters (M)"]
assert round(millions["nano"], -1) == 10 and round(millions["facebook/musicgen-small"], -1) == 420
assert set(table["width of a head"]) == {64} and set(table["codebooks K"]) == {4}
table

# %% [markdown]
# | part | nano | MusicGen | what stays |
# |---|---|---|---|
# | codec | a small EnCodec, `card` 512 | EnCodec, `card` 2048, with two LSTM layers | 32 kHz, 50 frames a second, K = 4 |
# | language model | narrow, 6 layers | wide, 24 or 48 layers | norm first, sines, one head per codebook, no biases |
# | words | a table of its own | T5-base, frozen, 768 numbers a token | read by cross-attention; null text is zeros |
# | sequence | `[context, token, target]` | the same in STAGE | delay, special token `card`, context token `card` + 1 |
# | only in nano | an encoder in front that hears the context as a whole, and target positions that begin anew | | |
#
# So the calls stay as they are. **Predict.** Which part of the next cell must change for MusicGen?

# %%
seconds = min(8.0, model.config.trained_s)
beats, bars = sl.beat_grid(bpm=110, beats_per_bar=4, duration_s=seconds, start_s=0.1)
click = sl.click_track(beats, bars, duration_s=seconds, sample_rate=model.sample_rate)
heard = (click, model.sample_rate) if listens else (None, None)
out = model.generate(*heard, description="drums, rock", duration_s=seconds, seed=SEED)
listen_for = "hit by hit on the click?" if listens else "it knows words only: the beat is its own."
played = out.wav[0].cpu()
assert out.codes.shape[1:] == (4, round(seconds * 50))
played = mix([click, played]) if listens else played
Clips([Clip(f"{MODEL}: drums", played, out.sample_rate, listen_for)])

# %% [markdown]
# ### Exercise 1: parameters from a shape
#
# ★★☆ · 15 minutes. Count a decoder without its text reader: K tables of `card` + 1 rows; in each layer self-attention and
# cross-attention (queries, keys, values and the way out, `dim` x `dim` each), a feed-forward part `dim` to 4 `dim` and
# back, and three norms (a scale and a shift each); one more norm at the end; K heads with `card` columns. No biases.


# %%
def count_parameters(n_q: int, card: int, dim: int, n_layers: int) -> int:
    """How many numbers a MusicGen decoder holds, without its text reader.

    Args:
        n_q, card: codebooks, and codes of each.
        dim, n_layers: width and depth.

    Returns:
        The parameters of tables, layers, last norm and heads.
    """
    ### BEGIN SOLUTION
    attention, norm = 4 * dim**2, 2 * dim
    layer = 2 * attention + 2 * dim * 4 * dim + 3 * norm
    return n_q * (card + 1) * dim + n_layers * layer + norm + n_q * card * dim
    ### END SOLUTION


# %%
checks.count_parameters(count_parameters)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Count one layer: all its matrices are multiples of `dim**2`, 16 in all.
# </details>
#
# <details><summary>Hint 2: what is easily forgotten</summary>
#
# A norm has 2 `dim` numbers, there are three in a layer and one behind the last. The tables have one row more than the
# heads have columns.
# </details>
#
# <details><summary>I am far too low: one attention a layer</summary>
#
# ```python
# def count_parameters(n_q, card, dim, n_layers):
#     layer = 4 * dim**2 + 8 * dim**2 + 6 * dim
#     return n_q * (card + 1) * dim + n_layers * layer + 2 * dim + n_q * card * dim
# ```
# </details>
#
# <details><summary>I am a little too low: tables like heads</summary>
#
# ```python
# def count_parameters(n_q, card, dim, n_layers):
#     return 2 * n_q * card * dim + n_layers * (16 * dim**2 + 6 * dim) + 2 * dim
# ```
# </details>
#
# <details><summary>I counted biases</summary>
#
# ```python
# def count_parameters(n_q, card, dim, n_layers):
#     layer = 16 * dim**2 + 13 * dim + 6 * dim
#     return n_q * (card + 1) * dim + n_layers * layer + 2 * dim + n_q * card * dim
# ```
# </details>

# %%
small = outlines["facebook/musicgen-small"]
parts = sizing.parameters(small)
if checks.passed(count_parameters):
    c = shapes["facebook/musicgen-small"]
    assert count_parameters(4, c.card, c.dim, c.num_layers) == sum(parts.values()) - parts["text"]
    print("yours is the model's number, to the last parameter")
added = sum(sizing.parameters(outlines["stage-drums"]).values()) - sum(parts.values())
print(f"STAGE adds a row to each of four tables: {added} of {sum(parts.values()):,} parameters")
assert added == 4 * 1024
assert parts["feed-forward"] > parts["self-attention"] + parts["heads"] > parts["embeddings"]
charts.bars({part: n / 1e6 for part, n in parts.items()}, "parameters of MusicGen-small (millions)")

# %% [markdown]
# ## 2. The same weights under three names
#
# audiocraft, transformers and the authors of STAGE each wrote MusicGen's decoder anew. The numbers are the same, the names
# are not, and audiocraft keeps queries, keys and values in one matrix, below one another.
#
# ### Exercise 2: rename a layer
#
# ★★★ · 15 minutes. There, a layer is three entries, each with its own norm in front:
#
# | audiocraft, `transformer.layers.i.` | official STAGE, `lm.decoder.attn_layers.layers.` |
# |---|---|
# | `norm1.weight`, `norm1.bias` | `{3i}.0.0.weight`, `{3i}.0.0.bias` |
# | `self_attn.in_proj_weight` `[3 dim, dim]` | `{3i}.1.to_q.weight`, `{3i}.1.to_k.weight`, `{3i}.1.to_v.weight` |
# | `self_attn.out_proj.weight` | `{3i}.1.to_out.weight` |
# | `norm_cross`, `cross_attention` | the same in entry `3i + 1` |
# | `norm2.weight`, `norm2.bias` | `{3i+2}.0.0.weight`, `{3i+2}.0.0.bias` |
# | `linear1.weight`, `linear2.weight` | `{3i+2}.1.ff.0.0.weight`, `{3i+2}.1.ff.2.weight` |


# %%
def rename_layer(state: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    """One layer under the names of the official STAGE.

    Args:
        state: audiocraft's name -> tensor, of the whole model.
        i: the layer, from 0.

    Returns:
        New name -> tensor, of this layer only.
    """
    ### BEGIN SOLUTION
    out = {}
    for j, (norm, attention) in enumerate(
        [("norm1", "self_attn"), ("norm_cross", "cross_attention"), ("norm2", None)]
    ):
        old, new = f"transformer.layers.{i}", f"lm.decoder.attn_layers.layers.{3 * i + j}"
        for part in ("weight", "bias"):
            out[f"{new}.0.0.{part}"] = state[f"{old}.{norm}.{part}"]
        if attention is None:
            out[f"{new}.1.ff.0.0.weight"] = state[f"{old}.linear1.weight"]
            out[f"{new}.1.ff.2.weight"] = state[f"{old}.linear2.weight"]
        else:
            for letter, third in zip(
                "qkv", state[f"{old}.{attention}.in_proj_weight"].chunk(3), strict=True
            ):
                out[f"{new}.1.to_{letter}.weight"] = third
            out[f"{new}.1.to_out.weight"] = state[f"{old}.{attention}.out_proj.weight"]
    return out
    ### END SOLUTION


# %%
checks.rename_layer(rename_layer)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Write three blocks, one per entry, with f-strings: `f"lm.decoder.attn_layers.layers.{3 * i}.0.0.weight"`. A loop can come
# later.
# </details>
#
# <details><summary>Hint 2: three from one</summary>
#
# `matrix.chunk(3)` cuts `[3 dim, dim]` into three `[dim, dim]`, along the rows.
# </details>
#
# <details><summary>The names are right; to_q holds every third row</summary>
#
# ```python
# def rename_layer(state, i):
#     old, new = f"transformer.layers.{i}", "lm.decoder.attn_layers.layers"
#     out = {}
#     for j, (norm, part) in enumerate([("norm1", "self_attn"), ("norm_cross", "cross_attention"), ("norm2", "")]):
#         for p in ("weight", "bias"):
#             out[f"{new}.{3 * i + j}.0.0.{p}"] = state[f"{old}.{norm}.{p}"]
#         if part:
#             matrix = state[f"{old}.{part}.in_proj_weight"]
#             for k in range(3):
#                 out[f"{new}.{3 * i + j}.1.to_{'qkv'[k]}.weight"] = matrix[k::3]
#             out[f"{new}.{3 * i + j}.1.to_out.weight"] = state[f"{old}.{part}.out_proj.weight"]
#     out[f"{new}.{3 * i + 2}.1.ff.0.0.weight"] = state[f"{old}.linear1.weight"]
#     out[f"{new}.{3 * i + 2}.1.ff.2.weight"] = state[f"{old}.linear2.weight"]
#     return out
# ```
# </details>
#
# <details><summary>I pass layer 0 and fail layer 1</summary>
#
# ```python
# def rename_layer(state, i):
#     old, new = f"transformer.layers.{i}", "lm.decoder.attn_layers.layers"
#     out = {}
#     for j, (norm, part) in enumerate([("norm1", "self_attn"), ("norm_cross", "cross_attention"), ("norm2", "")]):
#         for p in ("weight", "bias"):
#             out[f"{new}.{i + j}.0.0.{p}"] = state[f"{old}.{norm}.{p}"]
#         if part:
#             for letter, third in zip("qkv", state[f"{old}.{part}.in_proj_weight"].chunk(3)):
#                 out[f"{new}.{i + j}.1.to_{letter}.weight"] = third
#             out[f"{new}.{i + j}.1.to_out.weight"] = state[f"{old}.{part}.out_proj.weight"]
#     out[f"{new}.{i + 2}.1.ff.0.0.weight"] = state[f"{old}.linear1.weight"]
#     out[f"{new}.{i + 2}.1.ff.2.weight"] = state[f"{old}.linear2.weight"]
#     return out
# ```
# </details>
#
# <details><summary>I renamed and did not cut</summary>
#
# ```python
# def rename_layer(state, i):
#     new = f"lm.decoder.attn_layers.layers.{3 * i}"
#     return {name.replace(f"transformer.layers.{i}", new): tensor for name, tensor in state.items()}
# ```
# </details>

# %% [markdown]
# Names prove nothing; **logits** do. Meta's weights are not needed for the proof: a small model with random weights, made
# by transformers' own classes and written in its own format, goes the same way as the real files.

# %%
room = Path(tempfile.mkdtemp(prefix="stage_lite_09_"))
theirs = peers.transformers_musicgen(room / "transformers", seed=SEED)  # with EnCodec and T5
ours = sl.load(room / "transformers")
draw = torch.Generator().manual_seed(SEED)
sequence = torch.randint(0, peers.CARD + 1, (2, peers.N_Q, 11), generator=draw)  # [B, K, S]
text, mask = encode_text(ours.lm, ["slow waltz", "rock bossa"])  # equally long


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference between two sets of logits that are not all alike."""
    assert a.shape == b.shape and a.std() > 0.1
    return float((a - b).detach().abs().max())


logits = sl.forward(ours.lm, sequence, text=text, text_mask=mask)
with torch.no_grad():
    their = theirs.decoder(sequence.flatten(0, 1), encoder_hidden_states=text).logits
found = {"transformers -> here": apart(their.reshape(logits.shape), logits)}

# %% [markdown]
# On to audiocraft, by its own loader, and back to transformers; then the official STAGE, whose peer is a decoder of
# x-transformers, as the authors used it.
#
# **Predict.** How far apart will the logits be: not at all, in the seventh digit, or in the second?

# %%
with peers.quietly(), peers.known_to_audiocraft(peers.t5_folder(room / "t5", seed=SEED)) as t5:
    from audiocraft.models import MusicGen

    sl.interop.save_audiocraft(ours, room / "audiocraft", t5=t5)
    loaded = MusicGen.get_pretrained(str(room / "audiocraft"), device="cpu").lm
    sl.interop.save_transformers(ours, room / "again")
plain = sl.forward(ours.lm, sequence)
for way, lm in {
    "here -> audiocraft": loaded,
    "audiocraft -> here": sl.load(room / "audiocraft").lm,
    "here -> transformers -> here": sl.load(room / "again").lm,
}.items():
    found[way] = apart(sl.forward(lm, sequence), plain)

# %%
try:
    with peers.quietly():
        authors = peers.OfficialStage(seed=SEED)
        lm = sl.interop.lm_from_official_stage(authors.state_dict())
        codes = torch.randint(0, peers.CARD, (2, peers.N_Q, 9), generator=draw)
        contexts = [codes[0, :, :6], codes[1, :, :3]]  # the second is padded on the left
        ids = {"special_token_id": peers.CARD, "context_token_id": peers.CARD + 1}
        p = sl.build_prefix(contexts, codes, anchor_frames=OFFICIAL, **ids)
        expected = authors(p.sequence, p.attention_mask)
    got = sl.forward(lm, p.sequence, p.attention_mask, p.positions)
    seen = p.attention_mask[:, None, :, None].expand_as(got)
    found["official STAGE -> here"] = apart(expected[seen], got[seen])
    written = sl.interop.lm_to_official_stage(lm)
    assert all(torch.equal(written[n], tensor) for n, tensor in authors.state_dict().items())
    if checks.passed(rename_layer):
        renamed = {n: x for i in range(2) for n, x in rename_layer(lm.state_dict(), i).items()}
        assert all(torch.equal(written[n], tensor) for n, tensor in renamed.items())
        print(f"{len(renamed)} tensors that you renamed are the authors', to the last bit")
except sl.StageLiteError as error:
    print("Left out:", error)
for way, difference in found.items():
    print(f"{way:30} {difference:.0e}")
assert max(found.values()) < 1e-4

# %% [markdown]
# In the seventh digit: the order of additions differs, nothing else. Where a move cannot be right, it is refused with a
# sentence, before anything is read:

# %%
sl.extend_embedding(ours.lm, seed=SEED)
(room / "again" / "model.safetensors").unlink()
tries = {
    "a token that audiocraft has no row for": lambda: sl.interop.save_audiocraft(ours, room / "x"),
    "another kind of model": lambda: sl.load("facebook/musicgen-melody"),
    "fp16 on a CPU": lambda: sl.load(room / "audiocraft", dtype="fp16"),
    "a folder that is half there": lambda: sl.load(room / "again"),
}
for what, attempt in tries.items():
    try:
        attempt()
        raise AssertionError(f"{what} was not refused")
    except sl.StageLiteError as error:
        print(f"{what}: {error}\n")

# %% [markdown]
# ### Without a network
#
# Everything that has a name on the hub can be a folder instead. On a machine that has a network, `hf download
# facebook/musicgen-small` and `hf download t5-base` (two programs' folders, 1.1 and 0.9 GB) put files into a folder that
# you copy; then `sl.load("that/folder", t5="folder/of/t5")`. What the hub's client has fetched once is found again without
# a network too. STAGE's file holds codec and T5 already; its words' tokenizer is T5's.

# %%
there = sl.load(room / "audiocraft", t5=room / "t5")  # the small stand-in, from folders alone
made = there.generate(description="slow waltz", duration_s=0.004, seed=SEED)
print(f"{there.config.name!r} wrote {made.codes.shape[-1]} frames, from two folders alone")

# %% [markdown]
# ### The licence, in plain words
#
# The code here is MIT, `nano` and its music are free. **MusicGen's weights are CC-BY-NC 4.0**: share and change them, name
# Meta, and earn no money with them. What you fine-tune from them, STAGE included, is a changed copy under the same limit,
# whatever your own data allow. MoisesDB, on which STAGE was trained, is for research without commercial use. Who owns what
# a model writes is a question of law that differs between countries; ask someone who knows it before you sell music.
#
# ## 3. Memory and time, on paper
#
# Keys and values of all steps so far are kept, so that a step is computed once: notebook 02's cache. How large is it?
#
# ### Exercise 3: bytes of a cache
#
# ★☆☆ · 10 minutes.


# %%
def cache_bytes(
    n_layers: int, n_heads: int, head_dim: int, rows: int, steps: int, bytes_per_number: int
) -> int:
    """Memory of keys and values.

    Args:
        n_layers, n_heads, head_dim: of the model.
        rows: that are computed at once; guidance makes two of one.
        steps: that are kept.
        bytes_per_number: 4 for fp32, 2 for bf16.

    Returns:
        Bytes.
    """
    ### BEGIN SOLUTION
    numbers = n_layers * rows * steps * n_heads * head_dim
    return 2 * numbers * bytes_per_number
    ### END SOLUTION


# %%
checks.cache_bytes(cache_bytes)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# One step, one row, one layer: a key and a value for each head, of `head_dim` numbers.
# </details>
#
# <details><summary>Hint 2: what does not count</summary>
#
# Codebooks don't: their vectors are added up before the first layer. Queries don't: a step asks once.
# </details>
#
# <details><summary>I get half of it</summary>
#
# ```python
# def cache_bytes(n_layers, n_heads, head_dim, rows, steps, bytes_per_number):
#     return n_layers * n_heads * head_dim * rows * steps * bytes_per_number
# ```
# </details>
#
# <details><summary>I get four times as much</summary>
#
# ```python
# def cache_bytes(n_layers, n_heads, head_dim, rows, steps, bytes_per_number):
#     return 2 * 4 * n_layers * n_heads * head_dim * rows * steps * bytes_per_number  # K = 4 codebooks
# ```
# </details>
#
# <details><summary>Mine grows with the square of the steps</summary>
#
# ```python
# def cache_bytes(n_layers, n_heads, head_dim, rows, steps, bytes_per_number):
#     return 2 * n_layers * n_heads * head_dim * rows * steps * steps * bytes_per_number
# ```
# </details>

# %%
if checks.passed(cache_bytes):
    assert cache_bytes(24, 16, 64, 2, 1000, 4) == sizing.cache_bytes(small, 2, 1000, 4)
minute = {
    f"{name.split('-')[-1]}, {s:g} s": sizing.cache_bytes(outlines[name], 2, round(s * 50), 2) / 1e6
    for name in list(sizing.MUSICGEN)[:3]
    for s in (10.0, 30.0, 60.0)
}
charts.bars(minute, "cache in 16 bits, with guidance (MB)")

# %% [markdown]
# **Time.** Each step reads all matrices from memory once, whatever it writes. So steps a second are at most
#
# $$\frac{\text{bytes a second of the memory}}{\text{bytes of the matrices} + \text{bytes of the cache}}$$
#
# and halving the bytes of a weight halves the time. **Predict.** Real time is 50 steps a second. Which of the three sizes can
# a T4 write in real time, at best? Which a laptop's CPU?
#
# The next table is **worked out, not measured**: from data sheets (T4: 16 GB, 320 GB/s; A100: 40 GB, 1,555 GB/s; CPU: two
# channels of DDR4-3200, 51.2 GB/s) for 10 s of context and 10 s of output with guidance. Memory is weights, cache, codec,
# T5 and 0.5 GB for the program.

# %%
sizes = {name: outlines[name] for name in list(sizing.MUSICGEN)[:3]}
kinds = {"T4": ["fp32", "fp16"], "A100": ["fp32", "bf16"], "CPU": ["fp32", "bf16", "int8"]}
paper = sizing.generation_table(sizes, kinds, context_s=10.0, duration_s=10.0)
assert [m.bandwidth / 1e9 for m in sizing.MACHINES.values()] == [320, 1555, 51.2]
small_name, medium_name, large_name = sizes
at_most = paper["steps/s at most"]
assert at_most[small_name, "CPU", "fp32"] < 50 < at_most[small_name, "CPU", "int8"]
assert at_most[large_name, "T4", "fp32"] < 50 < at_most[medium_name, "T4", "fp16"]
paper.style.set_caption("Worked out on paper from data sheets, not measured").format(precision=1)

# %% [markdown]
# How far is paper from a clock? One thing of it can be tried here: a slice of MusicGen-small, 4 of its 24 layers, in the
# three kinds of weights. The bound says fp32 : bf16 : int8 = 1 : 2 : 4.

# %%
shape = sl.LMConfig(card=2048, dim=1024, num_layers=4, num_heads=16, vocabulary=("drums",))
slice_lm = sl.build_lm(shape, seed=SEED)
steps_per_s, bound = {}, {}
for kind in ("fp32", "bf16", "int8"):
    settings = {"cfg_coef": 3.0, "seed": SEED, "weights": kind}
    sl.generate_codes(slice_lm, None, "drums", 4, **settings)  # converts, warms up
    made = sl.generate_codes(slice_lm, None, "drums", 40, **settings)
    steps_per_s[kind] = 1 / made.seconds_per_step
    bound[kind] = sizing.step_bytes(slice_lm, "fp32") / sizing.step_bytes(slice_lm, kind)
for kind, speed in steps_per_s.items():
    print(f"{kind}: {speed:6.1f} steps/s, {speed / steps_per_s['fp32']:.1f} times fp32;"
          f" on paper at most {bound[kind]:.1f} times")  # fmt: skip
assert 1.99 < bound["bf16"] < 2.01 and 3.9 < bound["int8"] < 4.01
del slice_lm

# %% [markdown]
# Your numbers depend on what else the machine does and on its instructions for bf16 and int8: one that has none gains
# nothing. `python -m benchmarks musicgen_small` times the whole model beside audiocraft and transformers, and
# `benchmarks/README.md` tells what came out: less than paper allows.
#
# ### A minute of music
#
# MusicGen was trained on 30 s, `nano` on 8. Longer music is written in **windows**: each begins with the end of the last
# one, so memory stays that of one window. **Predict.** What will you hear where windows meet?

# %%
LONG_S, trained_s = 60.0, model.config.trained_s
windows = plan_windows(round(LONG_S * 50), 0, round(trained_s * 50), round(trained_s * 25))
print(f"{len(windows)} windows; (start, first new, end) frame of each: {windows[:3]} ...")
beats, bars = sl.beat_grid(bpm=110, beats_per_bar=4, duration_s=LONG_S, start_s=0.1)
click = sl.click_track(beats, bars, duration_s=LONG_S, sample_rate=model.sample_rate)
heard = (click, model.sample_rate) if listens else (None, None)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # says that it is written in windows
    long = model.generate(*heard, description="drums, rock", duration_s=LONG_S, seed=SEED)
played = long.wav[0].cpu()
assert windows[-1][2] == LONG_S * 50 == long.codes.shape[-1]
whole, one = (sizing.cache_bytes(small, 2, round(s * 50), 4) / 1e6 for s in (60, 30))
print(f"MusicGen-small's cache: {one:.0f} MB for a window of 30 s, {whole:.0f} MB for 60 s at once")
listen_for = f"a window begins every {trained_s / 2:g} s: do beat and groove go on?"
played = mix([click, played]) if listens else played
Clips([Clip(f"{MODEL}: a minute", played, long.sample_rate, listen_for)])

# %% [markdown]
# ## 4. What rounding costs
#
# bf16 keeps 8 binary digits of each weight, int8 one of 255 steps per row. That must cost something. Measured: the loss of
# real drums and the beat F1 of generated ones, on the same windows with the same seeds. In brackets the 95 % interval of
# the difference, over songs. The real drums are the ceiling, another song's click is the floor.
#
# **Predict.** Which of the two will see the rounding first?

# %%
songs = [s for s in open_samples() if "drums" in s.stem_names]
data = sl.StemDataset(songs, "drums", window_s=4.0, conditions=["metronome"], seed=SEED, n=8)
examples = [e if listens else replace(e, context=None) for e in data]
cost = compare_weights(model, examples, seed=SEED)
loss = cost["loss"]
assert loss["bf16"] - loss["fp32"] < 0.02 and cost["MB"]["bf16"] < 0.6 * cost["MB"]["fp32"]
cost.fillna("")

# %% [markdown]
# Eight windows see that rounding costs little; how little they cannot say, and a beat F1 may go up by luck. `python -m
# benchmarks precision --n 48` takes longer windows and more of them, of songs that `nano` was not trained on.
#
# ## 5. A recipe for `stage-drums`
#
# What the authors did, as far as their code tells (the paper's results cannot be checked from it):
#
# | what | theirs | here |
# |---|---|---|
# | start | MusicGen-small and one new row | `sl.load("facebook/musicgen-small")`; `finetune` adds the row |
# | data | MoisesDB, songs with drums, 10 s windows | `sl.StemDataset("moisesdb", "drums", window_s=10.0)` |
# | context | a random mix without vocals, 5 to 10 s of it, 5 % whole; half of the time a click | `context_s=(5, 10)`, `whole_context=0.05`, `conditions` |
# | augmentation | stretch 0.8 to 1.2, pitch -4 to +4 | `augment=True` |
# | step | 8 windows, as 4 times 2; AdamW, 1e-5, no schedule | `RECIPE` below |
# | dropout | context 0.1, text 0.5 | the defaults |
# | end | 100,000 steps or 24 hours | `steps=100_000` |
# | differs | gradient clipped by value 1.0; words dropped from the text | clipped by norm 1.0 |

# %%
RECIPE = {"batch_size": 8, "accumulation": 4, "learning_rate": 1e-5, "warmup_steps": 0}
plan = {"rows": 2, "accumulation": 4, "steps": 100_000}
asked = {name: outlines[name] for name in ("stage-drums", medium_name)}
recipe = sizing.training_table(asked, ["T4", "A100"], **plan)
assert recipe["fits"]["stage-drums", "T4", False] and not recipe["fits"][medium_name, "T4", True]
hours = plan["steps"] * RECIPE["batch_size"] * 10 / 3600
print(f"{hours:,.0f} h of windows, {hours / 14.4:.0f} times the 14.4 h of MoisesDB")
caption = "Worked out, not measured: at a guessed 30 % of the data sheet's operations a second"
recipe.style.set_caption(caption).format(precision=1)

# %% [markdown]
# The price is hours times what your provider asks. The call, for a GPU and MoisesDB (`docs/data.md` says how to lay it
# out); `precision="16-mixed"` on a T4, `"bf16-mixed"` on an A100:
#
# ```python
# data = sl.StemDataset("moisesdb", "drums", split="train", window_s=10.0, context_s=(5, 10),
#                       whole_context=0.05, conditions=["mixture", "metronome"], augment=True)
# model = sl.load("facebook/musicgen-small", device="cuda")
# model.config = replace(model.config, anchor_frames=OFFICIAL, trained_s=10.0)  # their positions
# sl.finetune(model, data, steps=100_000, checkpoint_dir="stage-drums", precision="16-mixed", **RECIPE)
# sl.interop.save_official_stage(model, "my-stage-drums.safetensors")
# ```
#
# The same call, small: two steps from `nano-base` on the shipped songs. Two steps teach nothing; they show that the row
# is added, that the loss is finite, and that the weights move.

# %%
student = sl.load("nano-base")
student.config = replace(student.config, anchor_frames=OFFICIAL)
before = student.lm.linears[0].weight.detach().clone()
settings = {"window_s": 2.0, "context_s": (1.0, 2.0), "whole_context": 0.05, "augment": True}
stems = sl.StemDataset(songs, "drums", conditions=["mixture", "metronome"], seed=SEED, **settings)
run = sl.finetune(student, stems, steps=2, progress=False, log_every=1, seed=SEED, **RECIPE)
assert has_context_row(student.lm) and not torch.equal(student.lm.linears[0].weight, before)
run.history()[["step", "loss"]]

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **Random weights.** Equality was shown for small models with random numbers, and is tested at full size by names and
#   shapes. Meta's and the authors' files were never opened where this was written: the first one who loads them should
#   compare a clip with audiocraft's.
# - **Paper is a bound.** A GPU also waits for the calls themselves, so the A100's
#   number is out of reach without CUDA graphs (`graph=True`, which was not timed).
# - **A guess.** Training time hangs on the 30 %: at 15 % it takes twice as long.

# %%
t4 = sizing.MACHINES["T4"]
slow = sizing.training_on_paper(outlines["stage-drums"], t4, share=0.15, **plan)
done = 24 * 3600 * slow.steps_per_s
print(f"T4 at 15 %: {slow.seconds / 3600:.0f} hours; after 24 h it is at step {done:,.0f}")

# %% [markdown]
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | state dict | the tensors of a model by name | name to tensor | `lm.state_dict()` |
# | naming | what a program calls them | | `interop/names.py` |
# | bandwidth | what a memory hands out | bytes/s | `sizing.MACHINES` |
# | bound | what cannot be exceeded, worked out | steps/s | `sizing.generation_on_paper` |
# | int8, per row | weights as whole numbers of -127 to 127, times a scale of their row | 1 byte | `weights="int8"` |
# | window, stride | what is written at once, and how much of it is new | s | `window_s`, `stride_s` |
# | accumulation | forward passes that share a step of the optimizer | | `accumulation` |
# | activation checkpointing | computing the forward pass again instead of keeping it | | `activation_checkpointing` |
#
# ## Can you say it without looking?
#
# 1. Which numbers of the table are the same for `nano` and MusicGen-large, and why must they be?
# 2. Where do most of a decoder's parameters sit?
# 3. How would you prove that a converted checkpoint is right without the original program's weights?
# 4. Why do two rows (guidance) take hardly longer than one?
# 5. What halves when weights are kept in bf16, and what does not?
# 6. Why does memory not grow for a minute of music, and what is lost?
# 7. May you sell an app with your own fine-tuned MusicGen?
#
# ## Sources
#
# - MusicGen: Copet et al., *Simple and Controllable Music Generation*, 2023, arXiv:2306.05284; sizes from audiocraft's `config/model/lm`.
# - STAGE: Strano et al., ISMIR 2025, arXiv:2504.05690, and the authors' code for the recipe.
# - The bound by bandwidth: Williams, Waterman and Patterson, *Roofline*, 2009.
# - int8 per row: Dettmers et al., *LLM.int8()*, 2022, arXiv:2208.07339. Checkpointing: Chen et al., 2016, arXiv:1604.06174.
# - T4 and A100: NVIDIA's data sheets of 2019 and 2020. CC-BY-NC 4.0: Creative Commons.
