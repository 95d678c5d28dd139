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
# # 01 Tokenization: from a wave to small integers and back
#
# A language model continues sequences of integers. In this notebook four seconds of a song become such a sequence, and
# music again.
#
# ```
#   wave ──encoder──▶ latents ──quantiser──▶ codes ──delay──▶ sequence   (what the language model reads)
#                                              │
#   wave ◀──decoder── sum of chosen entries ◀──┘
# ```
#
# You will be able to
# - **compute** how many bits a second a codec needs, and what they buy,
# - **build** a residual quantiser and the delay pattern, equal to the library's,
# - **hear** what each codebook adds, and measure it.
#
# Needs: two CPU cores, no GPU, no network. Notebook 00 helps and is not required. Reading and listening: 25 minutes.
# Exercises: 40 minutes. Computing: at most 75 s.

# %%
REPOSITORY = ""  # on Colab: this repository's address; elsewhere `make lab` did it all
import importlib.util
import math
import subprocess
import sys

if REPOSITORY:
    install = "pip install -q -e . && pip install -q --no-deps -r requirements-nodeps.txt"
    command = f"git clone -q {REPOSITORY} stage-lite && cd stage-lite && {install}"
    subprocess.run(command, shell=True, check=True)
    sys.path.insert(0, "stage-lite")
elif importlib.util.find_spec("stage_lite") is None:
    raise ImportError("no stage_lite in this kernel: start with `make lab`, or fill in REPOSITORY")
import mir_eval
import torch
from IPython.display import display
from torch import Tensor

import stage_lite as sl
from stage_lite import charts, checks
from stage_lite.clips import Clip, Clips
from stage_lite.onsets import detect_onsets
from stage_lite.song import open_samples

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. There and back
#
# A wave is a list of numbers, the air pressure at every 32,000th of a second. (`[1, L]` means: one channel, L numbers. The
# shape of a tensor stands behind it as a comment throughout.)
#
# **Predict.** How many numbers a second will be left after the encoder and the quantiser?

# %%
model = sl.load("nano")
songs = open_samples()
song = next(s for s in songs if s.family == "rock")
length_s = 4.0
wav = song.mix(None, start_s=song.downbeats[1], duration_s=length_s)  # [1, L]

codes = model.encode(wav, model.sample_rate)  # [B, K, T]
n_q, n_frames = codes.shape[1:]
back = model.decode(codes)[0]  # [1, L]
assert model.sample_rate == 32000 and n_q == model.n_q
print(f"{wav.numel() / length_s:.0f} numbers a second -> {codes.numel() / length_s:.0f}")
print(f"codes {[*codes.shape]}: 1 wave, K = {n_q} codebooks, T = {n_frames} frames")


# %%
def clip(name, wav, listen_for):
    return Clip(name, wav, model.sample_rate, listen_for)


Clips([
    clip(f"{song.id}, as it was rendered", wav, "cymbals, and how each note begins."),
    clip("through the codec", back, "the same groove? What has happened to the high notes?"),
])  # fmt: skip

# %% [markdown]
# A **frame** is what the codec writes at once; each frame holds one **code** per **codebook**. Codes are names, not amounts:
# 7 is no more like 8 than like 300. Half a second of them:

# %%
n_shown = round(0.5 * model.frame_rate)
charts.token_grid(codes[0, :, :n_shown], step_name="frame", caption="The number is the name.")

# %% [markdown]
# ## 2. What it costs
#
# ### Exercise 1: the bit rate
#
# ★☆☆ · 5 minutes. A code is one of `card` entries. How many thousand bits a second does a codec write?


# %%
def kbit_per_s(sample_rate: int, hop_length: int, n_q: int, card: int) -> float:
    """Bit rate of a codec.

    Args:
        sample_rate: samples a second.
        hop_length: samples a frame.
        n_q: codebooks, so codes a frame.
        card: entries of each codebook.

    Returns:
        kbit/s; 1 kbit is 1000 bits.
    """
    ### BEGIN SOLUTION
    frames_per_s = sample_rate / hop_length
    bits_per_frame = n_q * math.log2(card)
    return frames_per_s * bits_per_frame / 1000
    ### END SOLUTION


# %%
checks.kbit_per_s(kbit_per_s)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Frames a second, times codes a frame, times bits a code.
# </details>
#
# <details><summary>Hint 2: bits of a code</summary>
#
# With 1 bit you tell 2 entries apart, with 2 bits 4, with 3 bits 8. `math.log2(card)`.
# </details>
#
# <details><summary>I get hundreds of times too much</summary>
#
# ```python
# def kbit_per_s(sample_rate, hop_length, n_q, card):
#     return sample_rate * n_q * math.log2(card) / 1000
# ```
# </details>
#
# <details><summary>I am off by a factor of 0.69</summary>
#
# ```python
# def kbit_per_s(sample_rate, hop_length, n_q, card):
#     return sample_rate / hop_length * n_q * math.log(card) / 1000
# ```
# </details>
#
# <details><summary>I get a quarter of it</summary>
#
# ```python
# def kbit_per_s(sample_rate, hop_length, n_q, card):
#     return sample_rate / hop_length * math.log2(card) / 1000
# ```
# </details>

# %%
rates = {"this wave, 16 bit a sample": model.sample_rate * 16 / 1000}
n_bits = codes.numel() * math.log2(model.card)  # counted, not by formula
rates[f"this codec, {model.n_q} codebooks of {model.card}"] = n_bits / length_s / 1000
rates["MusicGen's codec, 4 codebooks of 2048"] = 50 * 4 * math.log2(2048) / 1000
for name, rate in rates.items():
    print(f"{rate:7.2f} kbit/s  {name}")
if checks.passed(kbit_per_s):
    hop_length = round(model.sample_rate / model.frame_rate)
    yours = kbit_per_s(model.sample_rate, hop_length, model.n_q, model.card)
    display(charts.bars({**rates, "this codec, by your function": yours}, "kbit/s"))

# %% [markdown]
# ## 3. Residual quantisation
#
# One codebook fine enough would need more entries than anybody can train. So several coarse ones share the work: the
# first takes the nearest entry, the next one quantises **what is left over**, the *residual*. On paper, with two
# codebooks of three entries each:
#
# **Predict.** What comes out for 5.3, and how much is left?

# %%
books_on_paper = [[-8.0, 0.0, 8.0], [-2.0, 0.0, 2.0]]
residual = 5.3
for book in books_on_paper:
    code = min(range(len(book)), key=lambda i: abs(residual - book[i]))
    print(f"{residual:+.1f} -> code {code} ({book[code]:+.0f}), left {residual - book[code]:+.1f}")
    residual -= book[code]
print("9 sums from 6 entries:", sorted(a + b for a in books_on_paper[0] for b in books_on_paper[1]))
# > +5.3 -> code 2 (+8), left -2.7
# > -2.7 -> code 0 (-2), left -0.7
# > 9 sums from 6 entries: [-10.0, -8.0, -6.0, -2.0, 0.0, 2.0, 6.0, 8.0, 10.0]

# %% [markdown]
# The real thing does this with vectors: the encoder makes one *latent* vector per frame, and an entry is a vector too.

# %%
with torch.no_grad():
    latents = model.codec.encoder(wav[None])[0].T  # [T, D]
books = [layer.codebook for layer in model.codec.quantizer.vq.layers]
codebooks = torch.stack(books)  # [K, card, D]
print(f"latents {[*latents.shape]}, codebooks {[*codebooks.shape]}")
print(f"{model.n_q * model.card} entries make {float(model.card**model.n_q):.1e} different sums")

# %% [markdown]
# ### Exercise 2: residual codes
#
# ★★☆ · 15 minutes. Four codebooks, or any number: the codes of each frame.


# %%
def residual_codes(latents: Tensor, codebooks: Tensor) -> Tensor:
    """Quantise each latent with one codebook after the other.

    Args:
        latents: Float[N, D], one row per frame.
        codebooks: Float[K, card, D].

    Returns:
        Int[K, N]: row k holds the codes of codebook k.
    """
    ### BEGIN SOLUTION
    codes, residual = [], latents
    for codebook in codebooks:
        nearest = torch.cdist(residual, codebook).argmin(dim=1)  # [N]
        codes.append(nearest)
        residual = residual - codebook[nearest]
    return torch.stack(codes)
    ### END SOLUTION


# %%
checks.residual_codes(residual_codes)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# `torch.cdist(a, b)` holds the distance of every row of `a` to every row of `b`, and `.argmin(dim=1)` says which is
# nearest.
# </details>
#
# <details><summary>Hint 2: what the next codebook gets</summary>
#
# `codebook[nearest]` are the chosen entries `[N, D]`, one per frame: subtract them.
# </details>
#
# <details><summary>I pass one codebook and fail two</summary>
#
# ```python
# def residual_codes(latents, codebooks):
#     return torch.stack([torch.cdist(latents, book).argmin(dim=1) for book in codebooks])
# ```
# </details>
#
# <details><summary>I pass two codebooks and fail three</summary>
#
# ```python
# def residual_codes(latents, codebooks):
#     codes, residual = [], latents
#     for book in codebooks:
#         nearest = torch.cdist(residual, book).argmin(dim=1)
#         codes.append(nearest)
#         residual = latents - book[nearest]  # forgets the codebooks before
#     return torch.stack(codes)
# ```
# </details>
#
# <details><summary>The numbers are right, the shape is not</summary>
#
# ```python
# def residual_codes(latents, codebooks):
#     codes, residual = [], latents
#     for book in codebooks:
#         nearest = torch.cdist(residual, book).argmin(dim=1)
#         codes.append(nearest)
#         residual = residual - book[nearest]
#     return torch.stack(codes, dim=1)
# ```
# </details>

# %%
if checks.passed(residual_codes):
    points = 6 * torch.rand(12, 2, generator=torch.Generator().manual_seed(SEED)) - 3
    coarse = torch.cartesian_prod(*2 * [torch.tensor([-2.0, 0.0, 2.0])])  # 9 entries of a plane
    finer = torch.stack([coarse, coarse / 3, coarse / 9])  # each as wide as the last one's gaps
    display(charts.quantisation(points, finer, residual_codes(points, finer), "Your function."))
    same = (residual_codes(latents, codebooks) == codes[0]).float().mean()
    print(f"your codes of the song are the codec's in {same:.1%} of the places")
    assert same > 0.99  # two entries may be equally near to the last bit
else:
    print("Once your function passes, this cell draws how it walks from entry to entry.")

# %% [markdown]
# What does each codebook take away? The decoder gets the **sum** of the chosen entries, so fewer codebooks can be
# decoded too. What is left, as a share of the latents' energy:

# %%
with torch.no_grad():
    energy = latents.square().sum()
    sums = [model.codec.decode_latent(codes[:, :k])[0].T for k in range(1, n_q + 1)]
left_over = [1.0] + [float((latents - s).square().sum() / energy) for s in sums]
assert left_over == sorted(left_over, reverse=True)
charts.curves(
    {"left over": left_over}, x_label="codebooks used", y_label="share of the energy", log_y=True
)

# %% [markdown]
# ## 4. Hear one to four codebooks
#
# **Predict.** With a single codebook, what will be lost first: the beat, the loudness, or the sound of the instruments?

# %%
with_k = {k: model.decode(codes[:, :k])[0] for k in range(1, n_q + 1)}
Clips([
    clip(f"{k} of {n_q} codebooks", heard, listen_for)
    for (k, heard), listen_for in zip(
        with_k.items(),
        ["can you tap to it? Which instruments can you name?", "what has come back?",
         "the ends of notes: still a hiss?", "and the last one: would you miss it?"],
        strict=True,
    )
])  # fmt: skip

# %%
window = torch.hann_window(1024)


def spectrum(wav):
    return torch.stft(wav[0], 1024, window=window, return_complex=True).abs()


def onset_f1(wav, heard):  # 1: notes begin at the same times, within 50 ms; 0: none does
    onsets = [detect_onsets(w, model.sample_rate) for w in (wav, heard)]
    return mir_eval.onset.f_measure(*onsets, window=0.05)[0]


kept = {k: onset_f1(wav, heard) for k, heard in with_k.items()}
wrong = {
    k: float((spectrum(wav) - spectrum(heard)).norm() / spectrum(wav).norm())
    for k, heard in with_k.items()
}
for k in with_k:
    print(f"{k} codebooks: onsets {kept[k]:.2f} the same, spectrum {wrong[k]:.0%} off")
assert abs(kept[1] - kept[n_q]) < 0.2 and wrong[n_q] < 0.85 * wrong[1]
lines = {"onsets kept": list(kept.values()), "spectrum off": list(wrong.values())}
charts.curves(lines, list(with_k), x_label="codebooks", y_label="share")

# %% [markdown]
# So **when** things happen is in the first codebook already, and **how they sound** is spread over all of them. Remember
# this when you judge a generated groove by its beats: one codebook decides.
#
# ## 5. The delay pattern
#
# K codes a frame, and they depend on each other: codebook 1 holds what codebook 0 left over. In which order should a
# language model choose them?

# %%
steps = {
    "flat, one code a step": n_q * n_frames,
    "parallel, a frame a step": n_frames,
    "delayed": n_frames + n_q,
}
for name, n in steps.items():
    print(f"{n:4} steps  {name}")

# %% [markdown]
# *Flat* is right and slow. *Parallel* is fast, and codes of one frame know nothing of each other. The **delay** is nearly
# as fast: one step chooses K codes of K *different* frames, codebook k being k frames behind. Step 0 is empty: it is what
# the first prediction is made from. On twelve codes, `.` being the **special token**, a filler with the id `card`:

# %%
small = torch.arange(1, 13).view(1, 3, 4)  # [B, K, T]
for row in sl.delay(small, special_token_id=99)[0].tolist():
    print(" ".join(" ." if c == 99 else f"{c:2}" for c in row))
# >  .  1  2  3  4  .  .
# >  .  .  5  6  7  8  .
# >  .  .  .  9 10 11 12

# %% [markdown]
# ### Exercise 3: the delay by hand
#
# ★★☆ · 10 minutes. Write what made this.


# %%
def delay_by_hand(codes: Tensor, special_token_id: int) -> Tensor:
    """Shift codebook k right by k + 1 steps.

    Args:
        codes: Int[B, K, T].
        special_token_id: fills all other places.

    Returns:
        Int[B, K, T + K].
    """
    ### BEGIN SOLUTION
    n_batch, n_q, n_frames = codes.shape
    sequence = torch.full((n_batch, n_q, n_frames + n_q), special_token_id)
    for k in range(n_q):
        sequence[:, k, k + 1 : k + 1 + n_frames] = codes[:, k]
    return sequence
    ### END SOLUTION


# %%
checks.delay_by_hand(delay_by_hand)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Begin with a tensor full of special tokens, `torch.full(shape, special_token_id)`, and write one codebook after the
# other into it.
# </details>
#
# <details><summary>Hint 2: where codebook k goes</summary>
#
# From step k + 1 on, T steps long: `sequence[:, k, k + 1 : k + 1 + T]`.
# </details>
#
# <details><summary>My picture looks right and is one step short</summary>
#
# ```python
# def delay_by_hand(codes, special_token_id):
#     B, K, T = codes.shape
#     sequence = torch.full((B, K, T + K - 1), special_token_id)
#     for k in range(K):
#         sequence[:, k, k : k + T] = codes[:, k]
#     return sequence
# ```
# </details>
#
# <details><summary>My gaps hold zeros</summary>
#
# ```python
# def delay_by_hand(codes, special_token_id):
#     B, K, T = codes.shape
#     sequence = torch.zeros(B, K, T + K, dtype=torch.long)
#     for k in range(K):
#         sequence[:, k, k + 1 : k + 1 + T] = codes[:, k]
#     return sequence
# ```
# </details>
#
# <details><summary>I pass one codebook and fail three</summary>
#
# ```python
# def delay_by_hand(codes, special_token_id):
#     B, K, T = codes.shape
#     sequence = torch.full((B, K, T + K), special_token_id)
#     sequence[:, :, 1 : 1 + T] = codes
#     return sequence
# ```
# </details>

# %%
delayed = sl.delay(codes, model.special_token_id)  # [B, K, S]
pattern = model.lm.pattern_provider.get_pattern(n_frames)  # audiocraft's own, by tables of indices
theirs, _, _ = pattern.build_pattern_sequence(codes, model.special_token_id)
assert torch.equal(delayed, theirs) and torch.equal(sl.undelay(delayed), codes)
print(f"{[*codes.shape]} -> {[*delayed.shape]}, equal to audiocraft's, and back")
if checks.passed(delay_by_hand):
    yours = delay_by_hand(codes[:, :, :10], model.special_token_id)
    display(charts.token_grid(yours[0], model.special_token_id, caption="Yours, ten frames."))

# %%
try:
    from stage_widgets import TokenGrid  # pull the delay out and in; hear some codebooks only

    display(TokenGrid(model, codes[0, :, : 2 * n_shown]))
except ImportError as error:
    print("The widgets are not installed here:", error)

# %% [markdown]
# **Predict.** Codebook 2 of frame 10 is being chosen. Which codes of frame 10 are known, and which of frame 11?
#
# ### Exercise 4: who knows what
#
# ★★☆ · 10 minutes. Count it for every codebook.


# %%
def known_frames(k: int, t: int, n_q: int) -> list[int]:
    """How many frames of each codebook are written before a code is chosen.

    Args:
        k, t: the code that is being chosen: codebook k of frame t (frames count from 0).
        n_q: codebooks.

    Returns:
        For j = 0, 1, ..., n_q - 1 how many frames of codebook j stand in the steps before, in an
        endless song.
    """
    ### BEGIN SOLUTION
    return [max(0, t + k - j) for j in range(n_q)]
    ### END SOLUTION


# %%
checks.known_frames(known_frames)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# At which step does codebook k of frame t stand? All steps before that one are known, in all codebooks.
# </details>
#
# <details><summary>Hint 2: then count</summary>
#
# Step s = t + k + 1. Codebook j writes its first frame in step j + 1. Which frames fit in steps 0 to s - 1?
# </details>
#
# <details><summary>I know that earlier codebooks are further, by one: as if the order were flat</summary>
#
# ```python
# def known_frames(k, t, n_q):
#     return [t + 1 if j < k else t for j in range(n_q)]
# ```
# </details>
#
# <details><summary>I say the same for all: as if there were no delay</summary>
#
# ```python
# def known_frames(k, t, n_q):
#     return [t] * n_q
# ```
# </details>
#
# <details><summary>I pass frame 10 and fail frame 0</summary>
#
# ```python
# def known_frames(k, t, n_q):
#     return [t + k - j for j in range(n_q)]
# ```
# </details>

# %%
k, t = 2, 10
numbered = torch.arange(14).repeat(n_q, 1)  # every code says which frame it is of
laid_out = sl.delay(numbered[None], special_token_id=99)[0]  # [K, S]
step = t + k + 1
known = laid_out[:, :step]  # all that stands left of the code
counted = [int((row != 99).sum()) for row in known]
print(f"codebook {k} of frame {t}: {counted} frames of codebooks 0 to {n_q - 1} are known")
assert counted[0] > t + 1 and counted[k + 1] < t  # ahead of this frame; behind it
place = torch.zeros_like(laid_out, dtype=torch.bool)
seen, chosen = place.clone(), place.clone()
seen[:, :step], chosen[k, step] = True, True
groups = {"being chosen": chosen, "known": seen}
charts.token_grid(laid_out, 99, groups=groups, caption="Each code shows its frame's number.")

# %% [markdown]
# Earlier codebooks of the same frame are known, and those of *later* frames too; later codebooks are behind. So a late
# codebook never has to guess what it refines. And a frame can be heard K - 1 steps after its first code, when its last one
# is there.
#
# ## What could be wrong, in numbers
#
# - **One song.** The codec's card (`stage_lite/pretrained/nano-codec/README.md`) has a table over many windows.
# - **Bits that say nothing.** If some codes are much more frequent than others, the true information is less than
#   `log2(card)` a code. A language model lives on the difference.
# - **The ear of the program.** Where the codec blurs soft notes, the onset detector finds others. Bossa nova, with all
#   codebooks: see below.
# - **The last frame.** A wave that ends within a frame is filled up with silence.

# %%
for number, row in enumerate(codes[0]):
    share = row.bincount(minlength=model.card) / len(row)
    entropy = -(share[share > 0] * share[share > 0].log2()).sum()
    print(f"codebook {number}: {int((share > 0).sum())} entries in use, {entropy:.1f} bits a code")
    assert entropy <= math.log2(min(model.card, len(row))) + 1e-4  # few frames tell little
soft = songs[0].mix(None, start_s=songs[0].downbeats[1], duration_s=length_s)
soft_back = model.decode(model.encode(soft, model.sample_rate))[0]
print(f"{songs[0].id}: onsets {onset_f1(soft, soft_back):.2f} the same, {song.id}: {kept[n_q]:.2f}")
cut = model.encode(wav[:, :1000], model.sample_rate)
print(f"1000 samples -> {cut.shape[2]} frames -> {model.decode(cut).shape[2]} samples")
# %% [markdown]
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | sample rate | numbers of a wave a second | Hz | `model.sample_rate` |
# | frame | what the codec writes at once | `T`, `frame_rate` a second | `model.frame_rate` |
# | latent | a frame as the encoder says it | `[D]` | `codec.encoder(wav)` |
# | codebook | a list of vectors to choose from | `K` of them, `n_q` | `model.n_q` |
# | code | the number of an entry | 0 to `card` - 1 | `model.encode(...) [B, K, T]` |
# | residual | what the codebooks so far have left over | `[D]` | `residual_codes` |
# | delay | codebook k written k steps later | `S = T + K` steps | `sl.delay` |
# | special token | fills places that hold no code | id `card` | `model.special_token_id` |
#
# ## Can you say it without looking?
#
# 1. What does the decoder get: codes, entries, or their sum?
# 2. Why do four small codebooks tell more sounds apart than one with as many entries in all?
# 3. Why is `card` no possible code?
# 4. Why does the delayed sequence begin with an empty step?
# 5. In which order would you choose codes if speed did not matter?
# 6. Which codebook carries the beat, and how did you measure it?
# 7. How many steps after its first code is a frame complete?
#
# ## Sources
#
# - EnCodec: Défossez et al., *High Fidelity Neural Audio Compression*, 2022, arXiv:2210.13438.
# - Residual quantisation of sound: Zeghidour et al., *SoundStream*, 2021, arXiv:2107.03312.
# - The delay pattern: Copet et al., *Simple and Controllable Music Generation*, 2023, arXiv:2306.05284, sec. 2.2.
# - Comparing onsets: Raffel et al., *mir_eval*, ISMIR 2014.
