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
# Change one line, and this notebook runs on MusicGen, or on the authors' own STAGE. Before you pay for a GPU you see what
# changes then, prove that weights survive the move between programs, and work out on paper what it takes.
#
# ```
#   layer i      audiocraft          transformers           official STAGE
#                layers.i            decoder.layers.i       layers.3i to 3i+2
#   attention    one matrix [q]      q_proj k_proj v_proj   to_q  to_k  to_v
#                           [k]           \     |     /         \    |    /
#                           [v]            \    |    /           \   |   /
#                            └────────▶ one model, the same logits ◀─┘
# ```
#
# You will be able to
# - **count** the parameters of a decoder from its shape, and the bytes of its cache,
# - **move** weights between programs, and prove that nothing changed,
# - **work out** what a size needs on a machine that you do not have yet.
#
# Needs: notebooks 02 (cache, guidance) and 03 (the token). Two CPU cores, no GPU, no network. Reading and listening: 25
# minutes. Exercises: 40 minutes. Computing: at most 75 s.

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
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import stage_lite as sl
from stage_lite import charts, checks, sizing
from stage_lite.audio import mix
from stage_lite.clips import Clip, Clips
from stage_lite.interop import peers
from stage_lite.prefix import OFFICIAL, has_context_row
from stage_lite.song import open_samples
from stage_lite.text import encode_text

SEED = 0
print(f"torch {torch.__version__}, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# **This is the line.** The other names come from the hub (`sl.load` says how large they are); their licence is CC-BY-NC
# 4.0, see below. On Colab choose a runtime with a GPU.

# %%
MODEL = "nano"  # or "facebook/musicgen-small", "stage-drums", or a folder of weights
device = "cuda" if torch.cuda.is_available() and MODEL != "nano" else "cpu"
model = sl.load(MODEL, device=device)
listens = has_context_row(model.lm)  # MusicGen knows words only
print(model, "on", device)

# %% [markdown]
# ## 1. What changes and what stays
#
# **Predict.** `nano` has about 10 million parameters, MusicGen-small 420. Which of these differ: frames a second, codebooks
# K, codes of a codebook, width, layers, heads, width of a head, the delay, the tokens?

# %%
shapes = {"nano": sl.load("nano").config.lm, **sizing.MUSICGEN}
outlines = {name: sizing.outline(shape) for name, shape in shapes.items()}  # shapes, no memory
table = sizing.shape_table(shapes)
millions = table.loc["parameters (M)"]
assert round(millions["nano"], -1) == 10 and round(millions["facebook/musicgen-small"], -1) == 420
assert set(table.loc["width of a head"]) == {64} and set(table.loc["codebooks K"]) == {4}
assert (model.frame_rate, model.sample_rate, model.n_q) == (50.0, 32000, 4)
table

# %% [markdown]
# | part | changes | stays |
# |---|---|---|
# | codec | size, `card`; MusicGen's has two LSTM layers | 32 kHz, 50 frames a second, K = 4 |
# | language model | width, depth | norm first, sines, one head per codebook, no biases |
# | words | T5-base, frozen, instead of a small table | cross-attention; null text is zeros |
# | sequence | only `nano` hears its context through an encoder, and counts the target anew | delay, special and context token |
#
# So the call stays as it is. **Predict.** What must be different for MusicGen, which has no context token?


# %%
def play_drums(seconds: float) -> Tensor:
    """Drums, and the click with them if the model hears one."""
    beats, bars = sl.beat_grid(bpm=110, beats_per_bar=4, duration_s=seconds, start_s=0.1)
    click = sl.click_track(beats, bars, duration_s=seconds, sample_rate=model.sample_rate)
    heard = (click, model.sample_rate) if listens else (None, None)
    out = model.generate(*heard, description="drums, rock", duration_s=seconds, seed=SEED)
    assert out.codes.shape[1:] == (4, round(seconds * 50))
    played = out.wav[0].cpu()
    return mix([click, played]) if listens else played


Clips([Clip(f"{MODEL}: drums", play_drums(8.0), model.sample_rate, "do they keep to the click?")])

# %% [markdown]
# ### Exercise 1: parameters from a shape
#
# ★★☆ · 15 minutes. K tables of `card` + 1 rows; in each layer self-attention and cross-attention (queries, keys, values and
# the way out, `dim` x `dim` each), a feed-forward part `dim` to 4 `dim` and back, and three norms (scale and shift); one
# more norm at the end; K heads with `card` columns. No biases.


# %%
def count_parameters(n_q: int, card: int, dim: int, n_layers: int) -> int:
    """How many numbers a MusicGen decoder holds, without its text reader.

    Args:
        n_q, card, dim, n_layers: codebooks, codes of each, width, depth.
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
    assert count_parameters(4, 2048, 1024, 24) == sum(parts.values()) - parts["text"]
added = sum(sizing.parameters(outlines["stage-drums"]).values()) - sum(parts.values())
print(f"STAGE adds a row to each of four tables: {added} of {sum(parts.values()):,} parameters")
assert added == 4 * 1024
assert parts["feed-forward"] > parts["self-attention"] + parts["heads"] > parts["embeddings"]
charts.bars({part: n / 1e6 for part, n in parts.items()}, "parameters of MusicGen-small (millions)")

# %% [markdown]
# ## 2. The same weights under three names
#
# Three programs wrote MusicGen's decoder anew. The numbers are the same, the names are not, and audiocraft keeps queries,
# keys and values in one matrix, below one another.
#
# ### Exercise 2: rename a layer
#
# ★★★ · 15 minutes. In the official STAGE a layer is three entries, each with a norm in front:
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
# Write three blocks, one per entry, with f-strings: `f"lm.decoder.attn_layers.layers.{3 * i}.0.0.weight"`.
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
# Names prove nothing; **logits** do. Meta's weights are not needed for that: a small random model, made by transformers' own
# classes and written in its own format, goes the way of the real files.

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
# On to audiocraft, by its own loader, and back; then the official STAGE, whose peer is a decoder of x-transformers.
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
        yours = rename_layer(lm.state_dict(), 1)
        assert all(torch.equal(written[n], tensor) for n, tensor in yours.items())
except sl.StageLiteError as error:
    print("Left out:", error)
for way, difference in found.items():
    print(f"{way:30} {difference:.0e}")
assert max(found.values()) < 1e-4

# %% [markdown]
# In the seventh digit: only the order of additions differs. What cannot be right is refused with a sentence:

# %%
listening = sl.load(room / "transformers")
sl.extend_embedding(listening.lm, seed=SEED)
(room / "again" / "model.safetensors").unlink(missing_ok=True)
for attempt in (
    lambda: sl.interop.save_audiocraft(listening, room / "x"),  # has no row for the token
    lambda: sl.load("facebook/musicgen-melody"),  # another kind of model
    lambda: sl.load(room / "again"),  # half downloaded
):
    try:
        attempt()
        raise AssertionError("this should have been refused")
    except sl.StageLiteError as error:
        print("-", error)

# %% [markdown]
# ### Without a network
#
# A folder does instead of a name. Where there is a network, `hf download facebook/musicgen-small` and `hf download t5-base`
# fetch files that you copy; what was fetched once is found again without one. STAGE's file holds codec and T5 already.

# %%
there = sl.load(room / "audiocraft", t5=room / "t5")  # the small stand-in, from folders alone
print(there.generate(description="slow waltz", duration_s=0.004, seed=SEED))

# %% [markdown]
# ### The licence, in plain words
#
# The code is MIT, `nano` and its music are free. **MusicGen's weights are CC-BY-NC 4.0**: share and change them, name Meta,
# earn no money with them. What you fine-tune from them, STAGE included, is under the same limit, whatever your data allow.
# MoisesDB, on which STAGE was trained, is for research without commercial use. Who owns what a model writes differs between
# countries: ask someone who knows the law before you sell music.
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
        rows, steps: that are kept; guidance makes two rows of one.
        bytes_per_number: 4 for fp32, 2 for bf16.
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
    assert cache_bytes(24, 16, 64, 2, 1000, 4) == sizing.kv_bytes(small, 2, 1000, 4)
sizes = {
    f"{name.split('-')[-1]}, {s:g} s": sizing.kv_bytes(outlines[name], 2, round(s * 50), 2) / 1e9
    for name in list(sizing.MUSICGEN)[:3]
    for s in (10.0, 30.0, 60.0)
}
charts.bars(sizes, "cache in 16 bits, with guidance (GB)")

# %% [markdown]
# **Time.** Each step reads all matrices from memory once, whatever it writes. So steps a second are at most
#
# $$\frac{\text{bytes a second of the memory}}{\text{bytes of the matrices} + \text{bytes of the cache}}$$
#
# and half the bytes take half the time. **Predict.** Real time is 50 steps a second. Which sizes can a T4 write in real time,
# at best? Which a laptop's CPU?
#
# **Worked out, not measured**, from data sheets (T4: 16 GB, 320 GB/s; A100: 40 GB, 1,555 GB/s; CPU: two channels of
# DDR4-3200, 51.2 GB/s), for 10 s after 10 s of context, with guidance. Memory: weights, cache, codec, T5 and 0.5 GB of
# program. For clocks see `python -m benchmarks musicgen_small` and `benchmarks/README.md`: they show less.

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
# ### A minute of music
#
# MusicGen was trained on 30 s, `nano` on 8. Longer music is written in **windows**: each begins with the end of the one
# before, so memory stays that of one. **Predict.** What will you hear where windows meet?

# %%
with peers.quietly():  # a warning says that it is written in windows
    minute = play_drums(60.0)
whole, one = (sizing.kv_bytes(small, 2, round(s * 50), 4) / 1e6 for s in (60, 30))
print(f"MusicGen-small's cache: {one:.0f} MB for a window of 30 s, {whole:.0f} MB for 60 s at once")
listen_for = f"a window begins every {model.config.trained_s / 2:g} s: do beat and groove go on?"
Clips([Clip(f"{MODEL}: a minute", minute, model.sample_rate, listen_for)])

# %% [markdown]
# ## 4. What rounding costs
#
# bf16 keeps 8 binary digits of each weight, int8 one of 255 steps per row. The price, measured: loss of real drums and beat
# F1 of generated ones, same windows, same seeds; in brackets the 95 % interval of the difference, over songs. Ceiling: the
# real drums. Floor: another song's click.
#
# **Predict.** Which of the two will see the rounding first?

# %%
songs = [s for s in open_samples() if "drums" in s.stem_names]
data = sl.StemDataset(songs, "drums", window_s=4.0, conditions=["metronome"], seed=SEED, n=8)
examples = [e if listens else replace(e, context=None) for e in data]
cost = sl.metrics.precision.compare_weights(model, examples, seed=SEED)
loss = cost["loss"]
assert loss["bf16"] - loss["fp32"] < 0.02 and cost["MB"]["bf16"] < 0.7 * cost["MB"]["fp32"]
cost.style.format(na_rep="", precision=3)

# %% [markdown]
# Eight windows cannot say how little it is, and a beat F1 may rise by luck: `python -m benchmarks precision` takes longer
# windows and more of them, of songs that `nano` was not trained on.
#
# ## 5. A recipe for `stage-drums`
#
# What the authors did, as far as their code tells:
#
# | what | theirs | here |
# |---|---|---|
# | start | MusicGen-small and one new row | `finetune` adds the row |
# | data | MoisesDB, 10 s windows of songs with drums | `sl.StemDataset` |
# | context | half of the time a click, else a random mix without vocals; 5 to 10 s of it, 5 % whole | `context_s`, `whole_context` |
# | augmentation | stretch 0.8 to 1.2, pitch -4 to +4 | `augment=True` |
# | step | 8 windows as 4 times 2; AdamW, 1e-5, no schedule | `RECIPE` |
# | dropout | context 0.1, text 0.5 | the defaults |
# | end | 100,000 steps or 24 hours | `steps` |
# | differs | clips the gradient by value, drops words | clips by norm |

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
# The price is hours times what your provider asks. The call (`docs/data.md` says how to lay MoisesDB out; on an A100 take
# `"bf16-mixed"`):
#
# ```python
# data = sl.StemDataset(
#     "moisesdb", "drums", split="train", window_s=10.0, augment=True,
#     context_s=(5, 10), whole_context=0.05, conditions=["mixture", "metronome"],
# )
# model = sl.load("facebook/musicgen-small", device="cuda")
# model.config = replace(model.config, anchor_frames=OFFICIAL, trained_s=10.0)
# sl.finetune(model, data, steps=100_000, checkpoint_dir="stage-drums",
#             precision="16-mixed", **RECIPE)
# sl.interop.save_official_stage(model, "my-stage-drums.safetensors")
# ```
#
# The same call, small: two steps from `nano-base` on the shipped songs. They teach nothing and show that it runs.

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
# - **Random weights.** Equality is shown for small random models, at full size by names and shapes. Meta's and the authors'
#   files were never opened where this was written: compare a clip with audiocraft's when you first load them.
# - **Paper is a bound.** A GPU also waits for the calls themselves, so an A100 stays far below its number without CUDA graphs
#   (`graph=True`, which was not timed).
# - **A guess.** Training time hangs on the 30 %; at half of that it doubles.

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
#
# ## Can you say it without looking?
#
# 1. Which numbers are the same for `nano` and MusicGen-large?
# 2. Where do most of a decoder's parameters sit?
# 3. How do you prove a conversion without the original weights?
# 4. What halves in bf16, and what does not?
# 5. Why does memory not grow for a minute of music, and what is lost?
# 6. May you sell an app with your own fine-tuned MusicGen?
#
# ## Sources
#
# - MusicGen: Copet et al., 2023, arXiv:2306.05284; sizes from audiocraft's `config/model/lm`.
# - STAGE: Strano et al., ISMIR 2025, arXiv:2504.05690, and the authors' code.
# - The bound by bandwidth: Williams, Waterman and Patterson, *Roofline*, 2009.
# - int8 per row: Dettmers et al., *LLM.int8()*, 2022, arXiv:2208.07339.
# - T4 and A100: NVIDIA's data sheets.
