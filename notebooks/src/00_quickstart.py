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
# # 00 Quickstart: a model that plays along
#
# In this notebook a small model hears eight seconds of a song without drums and bass, and plays both: first drums, then
# bass to the mix and its own drums.
#
# ```
#   mix ──codec──▶ codes ──┐
#                          ▼
#                [ context | C | target ]◀── "drums, bossa nova"
#                          │
#                          └─language model──▶ codes ──codec──▶ drums
#
#   C: the context token, one step that says "now play along"
# ```
#
# You will be able to
# - **generate** a stem for a mix, for a click, or from words alone,
# - **judge** it: what is better than chance, and how far it is from a real player,
# - **steer** it with words, seed and guidance.
#
# Needs: two CPU cores, no GPU, no network, no account. Reading and listening: 20 minutes. Exercise: 15 minutes.
# Computing: at most 75 s.

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
import numpy as np
import torch
from IPython.display import display
from torch import Tensor

import stage_lite as sl
from stage_lite import checks, plots
from stage_lite.audio import mix
from stage_lite.clips import Clip, Clips
from stage_lite.onsets import beat_lock, beat_position, best_subdivision, detect_onsets
from stage_lite.song import open_samples

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. The model and a song
#
# A **StageModel** is two networks. The *codec* turns audio into a few integers per frame and back. The *language model*
# continues such integers, as a text model continues words. Everything about their sizes can be asked:

# %%
model = sl.load("nano")
print(model)
print("special token", model.special_token_id, "and context token", model.context_token_id)
assert model.special_token_id == model.card and model.context_token_id == model.card + 1

# %% [markdown]
# The songs that come with the project are from its *test split*: neither their grooves nor their chord charts were in
# the training. Their stems (one recording per instrument) and their beats are known exactly, because they were rendered.

# %%
songs = open_samples()
for s in songs:
    print(f"{s.id:18} {s.bpm:6.1f} bpm, {s.beats_per_bar} beats a bar, {', '.join(s.stem_names)}")

# %%
song = songs[0]
length_s = model.config.trained_s  # what the model was trained on
assert length_s == 8
window = {"start_s": max(0.0, song.downbeats[0] - 0.1), "duration_s": length_s}  # begins with a bar

real = {stem: song.stem(stem, **window) for stem in ("drums", "bass")}
context = song.mix([stem for stem in song.stem_names if stem not in real], **window)  # [1, L]
chosen = sl.Window(song, **window, target="drums", seed=SEED)
beats, downbeats = chosen.beat_times, chosen.downbeat_times  # seconds from the start of the window
assert context.shape == (1, round(length_s * model.sample_rate))


def clip(name, wav, listen_for):
    return Clip(name, wav, model.sample_rate, listen_for)


clip(
    f"{song.id} without drums and bass", context, "where is the beat? Tap along, and go on tapping."
)

# %% [markdown]
# ## 2. Drums for the mix
#
# **Predict.** The model gets this mix and two or three words, nothing about the tempo and no list of beats. Of all beats
# in the window, how many will have a drum hit on them? Write your number down before you run the next cells.

# %%
words = song.text("drums")
to_mix = {"context": context, "context_sample_rate": model.sample_rate}
drums = model.generate(**to_mix, description=words, duration_s=length_s, seed=SEED)
print(f'told "{words}", made {drums}')
print(
    f"{1000 * drums.seconds_per_step:.1f} ms a step; real time is {1000 / model.frame_rate:.0f} ms"
)

# %%
with_drums = mix([context, drums.wav[0]])
Clips([
    clip("mix and generated drums", with_drums, "do the hits fall where you tapped?"),
    clip("generated drums alone", drums.wav[0], "a groove, or single hits? What does the codec blur?"),
    clip("the song's real drums", real["drums"], "what does this groove have that the other lacks?"),
])  # fmt: skip

# %% [markdown]
# `generate` is four arrows of the picture above. By hand, for two seconds: audio to codes, the codes as context, new
# codes step by step, codes to audio.

# %%
n_frames = round(2.0 * model.frame_rate)
context_codes = model.encode(context, model.sample_rate)  # [1, K, T]
made = sl.generate_codes(
    model.lm, context_codes, [words], n_frames, seed=SEED, anchor_frames=model.config.anchor_frames
)
by_hand = model.decode(made.codes)  # [1, 1, L]

short = model.generate(**to_mix, description=words, duration_s=2.0, seed=SEED)
assert torch.equal(made.codes, short.codes) and torch.equal(by_hand, short.wav)
print(f"codes {[*context_codes.shape]} -> codes {[*made.codes.shape]} -> audio {[*by_hand.shape]}")

# %% [markdown]
# ## 3. Bass for the mix and the new drums
#
# What was generated can be heard by the next one: the sum of mix and drums is the context of the bass.
#
# **Predict.** Whom will the bass follow if the generated drums are late, the mix or the drums?

# %%
bass = model.generate(with_drums, model.sample_rate, song.text("bass"), length_s, seed=SEED)
full = mix([context, drums.wav[0], bass.wav[0]])
Clips([
    clip("mix, generated drums and bass", full, "does the bass change notes with the chords?"),
    clip("generated bass alone", bass.wav[0], "clear notes, or a hum?"),
    clip("mix, real drums and bass", mix([context, *real.values()]), "the song as it was written."),
])  # fmt: skip

# %% [markdown]
# ## 4. Is it on the beat?
#
# Ears are kind to what they expect. An **onset** is the moment at which a note begins; below, triangles are onsets that
# were found in the audio, filled ones lie on a beat. Lines are the true beats of the song.

# %%
wavs = {
    "drums, generated": drums.wav[0],
    "drums, real": real["drums"],
    "drums of another song": songs[1].stem("drums", **window),  # plays to its own beat: the floor
}
onsets = {name: detect_onsets(wav, model.sample_rate) for name, wav in wavs.items()}
plots.waveforms(
    wavs,
    model.sample_rate,
    beats,
    downbeats,
    onsets,
    "All rows in one scale; triangles are onsets.",
)

# %% [markdown]
# **Predict.** Fold all beats onto one another and look where within the beat the onsets fall. How will the row of
# *another song's* drums look?

# %%
plots.beat_positions(onsets, beats, "Each dot is an onset; time goes upwards within a row.")

# %% [markdown]
# Columns mean *it keeps this beat*; an even band means that it does not. One number for it: turn each position within
# the beat into an angle and average the cosine. Onsets on the grid give 1, onsets anywhere give about 0, at every tempo and
# for few and many onsets alike. By hand:

# %%
grid = best_subdivision(onsets["drums, real"], beats)  # lines per beat


def lock_by_hand(onset_times):
    position = beat_position(onset_times, beats)  # 0 is on the beat, 0.5 halfway to the next
    return np.cos(2 * np.pi * grid * position).mean()


assert np.isclose(
    lock_by_hand(onsets["drums, real"]), beat_lock(onsets["drums, real"], beats, grid)
)
lock = {name: beat_lock(times, beats, grid) for name, times in onsets.items()}
plots.lock_bars(lock, f"Beat lock on a grid of {grid} lines a beat.")

# %% [markdown]
# A number alone says nothing. The **ceiling** is the song's own drums, the **floor** the drums of another song against
# these beats. Whether the model listens shows in where it stands between the two.

# %%
floor, ceiling = lock["drums of another song"], lock["drums, real"]
assert ceiling > floor + 0.3, "this window could not tell a listener from a stranger"


def show(name, value):
    print(f"{name:24} {'no onsets' if value is None else f'{value:9.2f}'}")


for name, value in lock.items():
    show(name, value)
if lock["drums, generated"] is not None:
    share = (lock["drums, generated"] - floor) / (ceiling - floor)
    print(f"{share:.0%} of the way from floor to ceiling")

# %% [markdown]
# ## 5. Words, seed, guidance
#
# A list of descriptions is a batch: one pass computes all rows. Three styles for the same mix, the same seed in each
# row, so that only the words differ.
#
# **Predict.** Which of the three will fit this mix worst?

# %%
half = {**to_mix, "duration_s": length_s / 2}
styles = [words, "drums, house", "drums, jazz waltz"]
by_words = model.generate(**half, description=styles, seed=[SEED] * len(styles))
Clips([
    clip(style, mix([context[:, : wav.shape[-1]], wav]), "which drums, which pattern, whose beat?")
    for style, wav in zip(styles, by_words.wav, strict=True)
])  # fmt: skip

# %% [markdown]
# The **seed** fixes the dice. The same seed gives the same codes to the last bit; another one gives another take of the
# same request. How much the takes differ is the first thing to know about any number above.


# %%
def lock_of(wav):
    return beat_lock(detect_onsets(wav, model.sample_rate), beats[beats < length_s / 2], grid)


takes = model.generate(**half, description=[words] * 3, seed=[SEED, 1, 2])
assert torch.equal(takes.codes[0], by_words.codes[0])  # the same request beside other rows
for seed, wav in zip((SEED, 1, 2), takes.wav, strict=True):
    show(f"seed {seed}", lock_of(wav))

# %% [markdown]
# **Guidance** asks the model twice per step, with and without mix and words, and exaggerates the difference:
# `without + cfg_coef * (with - without)`. At 1 nothing is exaggerated, at 0 mix and words are not heard at all.

# %%
guided = {}
for cfg_coef in (0.0, 1.0, 3.0, 6.0):
    guided[cfg_coef] = model.generate(**half, description=words, cfg_coef=cfg_coef, seed=SEED)
    show(f"guidance {cfg_coef:g}", lock_of(guided[cfg_coef].wav[0]))

# %% [markdown]
# That 0 means deaf is no figure of speech. A model that was given nothing makes the same codes:

# %%
nothing = model.generate(duration_s=length_s / 2, seed=SEED)
assert torch.equal(nothing.codes, guided[0.0].codes)
print("guidance 0 = no context, no words:", nothing)

# %% [markdown]
# ## 6. From a click alone
#
# A context need not be music. A metronome click goes through the same codec and the same token, and asks for drums at a
# tempo of your choice. The floor here is the same request without the click. Change `bpm` and run the two cells again.

# %%
bpm = 100
click_beats, click_bars = sl.beat_grid(bpm, beats_per_bar=4, duration_s=length_s, start_s=0.1)
click = sl.click_track(click_beats, click_bars, duration_s=length_s, sample_rate=model.sample_rate)

request = {"description": "drums, rock", "duration_s": length_s, "seed": SEED}
to_click = model.generate(click, model.sample_rate, **request)
without = model.generate(**request)
Clips([
    clip(f"click, {bpm} bpm", click, "which clicks are louder?"),
    clip("click and generated drums", mix([click, to_click.wav[0]]), "do click and drums become one sound?"),
])  # fmt: skip

# %%
wavs = {"click": click, "drums to the click": to_click.wav[0], "drums without": without.wav[0]}
found = {name: detect_onsets(wav, model.sample_rate) for name, wav in wavs.items()}
for name, times in found.items():
    show(name, beat_lock(times, click_beats))
plots.waveforms(wavs, model.sample_rate, click_beats, click_bars, found)

# %% [markdown]
# ## Exercise: a song from a click
#
# ★★☆ · 15 minutes. Write `build_song`: stem after stem, from nothing but a click. The first stem hears the click. Each
# later stem hears the sum of the stems so far, *without* the click: in training, a context was a click or a mix, never both.


# %%
def build_song(
    model: sl.StageModel, click: Tensor, descriptions: list[str], seed: int
) -> list[Tensor]:
    """One stem per description, each playing along with those before it.

    Args:
        model: .generate(...) as above; .sample_rate is that of click and stems.
        click: [1, L]; only the first stem hears it.
        descriptions: what each stem is, in order, such as ["drums, rock", "bass, rock"].
        seed: of every call.

    Returns:
        One wav [1, L] per description.
    """
    ### BEGIN SOLUTION
    stems, context = [], click
    for description in descriptions:
        out = model.generate(context, model.sample_rate, description, seed=seed)
        stems.append(out.wav[0])
        context = mix(stems)
    return stems
    ### END SOLUTION


# %%
checks.build_song(build_song)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Keep a list `stems` and a variable `context` that starts as the click. In a loop over the descriptions, generate, append
# `.wav[0]`, and set `context` for the next round.
# </details>
#
# <details><summary>Hint 2: what the next one hears</summary>
#
# `mix(stems)` is the sum of a list of wavs. The click is not in `stems`, so it is gone after the first round by itself.
# </details>
#
# <details><summary>I pass the first stem and fail the second: the click is still there</summary>
#
# ```python
# def build_song(model, click, descriptions, seed):
#     stems, context = [], click
#     for description in descriptions:
#         out = model.generate(context, model.sample_rate, description, seed=seed)
#         stems.append(out.wav[0])
#         context = context + out.wav[0]  # starts from the click, so the click stays in the sum
#     return stems
# ```
# </details>
#
# <details><summary>I pass two stems and fail the third: only the last one is heard</summary>
#
# ```python
# def build_song(model, click, descriptions, seed):
#     stems, context = [], click
#     for description in descriptions:
#         out = model.generate(context, model.sample_rate, description, seed=seed)
#         stems.append(out.wav[0])
#         context = out.wav[0]  # forgets all stems but the last
#     return stems
# ```
# </details>
#
# <details><summary>I pass all calls, and my click is changed</summary>
#
# ```python
# def build_song(model, click, descriptions, seed):
#     stems, context = [], click
#     for description in descriptions:
#         out = model.generate(context, model.sample_rate, description, seed=seed)
#         stems.append(out.wav[0])
#         if len(stems) == 1:
#             context *= 0  # in place: this empties the caller's click
#         context = context + out.wav[0]
#     return stems
# ```
# </details>

# %%
if checks.passed(build_song):
    parts = ["drums, rock", "bass, rock", "keys, rock"]
    stems = dict(zip(parts, build_song(model, click, parts, seed=SEED), strict=True))
    display(plots.waveforms(stems, model.sample_rate, click_beats, click_bars))
    display(clip("your song", mix([*stems.values()]), "does each newcomer follow those before it?"))
else:
    print("Once your function passes, this cell plays and draws the song that it builds.")

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **One window.** Everything above is one song, eight seconds, few takes. The model card
#   (`stage_lite/pretrained/nano/README.md`) has many windows, with intervals.
# - **The ear of the program.** The onset detector errs too. On the click every beat is known, so its error can be told.
# - **The codec.** What passes through it loses detail before the language model plays a role.

# %%
missed = len(click_beats) - len(found["click"])
off_ms = 1000 * np.abs(found["click"][:, None] - click_beats[None]).min(1).max()
print(f"detector on the click: {missed} of {len(click_beats)} missed, at most {off_ms:.0f} ms off")
assert missed <= 1 and off_ms < 15

round_trip = model.decode(model.encode(real["drums"], model.sample_rate))[0]  # [1, L]
show("real drums", ceiling)
show("... through the codec", beat_lock(detect_onsets(round_trip, model.sample_rate), beats, grid))
clip("real drums through the codec", round_trip, "this much is lost without any language model.")

# %% [markdown]
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | stem | one instrument of a song, alone | wav `[1, L]` | `song.stem("drums")` |
# | frame | what the codec writes at once | `T`, `frame_rate` a second | `model.frame_rate` |
# | code | an entry of a codebook | 0 to `card` - 1 | `out.codes [B, K, T]` |
# | context | what is played along with | wav, or codes `[K, T]` | `generate(context=...)` |
# | context token | ends the context | id `card` + 1 | `model.context_token_id` |
# | guidance | exaggerates the effect of context and words | `cfg_coef` | `generate(cfg_coef=...)` |
# | onset | beginning of a note | seconds | `detect_onsets` |
# | beat lock | how strictly onsets keep to a grid | -1 to 1, chance 0 | `beat_lock` |
# | floor, ceiling | what a stranger and what the real stem reach | as the measure | `lock[...]` |
#
# ## Can you say it without looking?
#
# 1. Which two networks make a StageModel, and what passes between them?
# 2. What stands between context and target, and how many steps does it take?
# 3. Why is a floor needed when 0 is already "chance"?
# 4. Why is the ceiling not 1?
# 5. What does `cfg_coef=0` compute, and how was that shown?
# 6. Why may the bass hear the generated drums, but a generated stem not hear click and stems together?
# 7. Which of the sentences in this notebook would another song have made untrue?
#
# ## Sources
#
# - STAGE: Strano et al., *Stemmed Accompaniment Generation through Prefix-Based Conditioning*, ISMIR 2025, arXiv:2504.05690.
# - MusicGen: Copet et al., *Simple and Controllable Music Generation*, 2023, arXiv:2306.05284.
# - Guidance: Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv:2207.12598.
# - Onsets: Böck and Widmer, *Maximum filter vibrato suppression for onset detection*, DAFx 2013.
