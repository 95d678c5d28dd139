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
# # 08 Your own conditioning: one function
#
# A click and a mix are two things that can stand before a target. Yours is a third: chords that you wrote, a rhythm that you
# tapped, a curve that you drew. To the model all of them are sound in front of the context token, so a new one is a function
# that makes sound. Here you write some, ask the trained model what it makes of them, and train it to listen to one.
#
# ```
#   song, window ──▶ your function ──▶ wav ──codec──▶ codes ─┐
#                                                            ▼
#                                                [ context | C | target ]
#
#   in training:  made from the song's labels, or from the target itself
#   in use:       made from what a user taps, draws or types: both must sound alike
# ```
#
# You will be able to
# - **write** a condition that a user can supply, too,
# - **find** out whether it gives the answer away,
# - **train** a pocket model on it, and show what that was worth.
#
# Needs: notebooks 03 (token, positions, gap) and 04 (training). Two CPU cores, no GPU, no network. Reading and listening: 30
# minutes. Exercises: 35 minutes. Computing: at most 75 s. To do it with an idea of your own, take `08_template.ipynb` afterwards.

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
from dataclasses import replace

import torch
from torch import Tensor, nn

import stage_lite as sl
from stage_lite import charts, checks, condition_check
from stage_lite.audio import mix
from stage_lite.chords import chord_track
from stage_lite.clips import Clip, Clips
from stage_lite.listening import context_losses
from stage_lite.onsets import detect_onsets
from stage_lite.pocket import pocket_windows
from stage_lite.song import open_samples

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. First idea: chords as a guide track
#
# A lead sheet says Am7, D7, G: which notes go together. Struck once each
# and held, the chords are a sound with the harmony in it and little else: no beat, no strumming. The songs carry their chords
# as labels, so the function does not need to look at any stem.

# %%
model = sl.load("nano")
songs = open_samples()
song = next(s for s in songs if s.family == "ballad")
window = sl.Window(song, song.downbeats[0], 8.0, "bass", SEED)
place = {"start_s": window.start_s, "duration_s": window.duration_s}


def clip(name, wav, listen_for):
    return Clip(name, wav, model.sample_rate, listen_for)


@sl.condition("chords", needs_target=False)
def chords(song, window):
    """The song's chords as plain blocks, struck when they change."""
    here = {"start_s": window.start_s, "duration_s": window.duration_s}
    wav = chord_track(song.chords, **here, sample_rate=song.sample_rate)
    return wav if wav.any() else None  # None: nothing to say here, draw another window


# %%
TYPED = [(0.0, "Am"), (1.2, "F"), (2.4, "C"), (3.6, "G7/B")]  # (seconds, chord): change them
guide, bass = chords(song, window), song.stem("bass", **place)
Clips([
    clip("guide track", guide, "count the chords. Can you hear a beat?"),
    clip("guide track and the song's bass", mix([guide, bass]), "does the bass change its note with the chord?"),
    clip("a guide typed by hand", chord_track(TYPED, duration_s=4.8), "the same kind of sound?"),
])  # fmt: skip

# %% [markdown]
# The decorator is all there is to registering: `StemDataset(..., conditions=["chords"])`, `finetune`, `evaluate` and the
# token shards know the name from now on. `needs_target=False` says that the wav is the same whatever is to be played.
#
# ## 2. Second idea: a rhythm, tapped or hummed
#
# In training nobody taps. But every stem has **onsets**, the moments in which a note or a stroke begins, and a tap on each of
# them is what somebody would tap who knew the stem. All taps are alike: they say *when*, and neither what nor how loud.


# %%
@sl.condition("taps")
def taps(song, window):
    """A tap wherever the target begins a note."""
    wav = song.stem(window.target, window.start_s, window.duration_s)
    times = detect_onsets(wav, song.sample_rate)
    if not len(times):
        return None
    return sl.click_track(times, duration_s=window.duration_s, sample_rate=song.sample_rate)


# %% [markdown]
# In use the times come from anywhere: a list, a `MetronomePad`, or a recording of knocks on a table, with the same
# `detect_onsets`. Put the name of your own recording into `TAPPED`, or keep the stand-in.
#
# **Predict.** `nano` has heard thousands of clicks, all of them on beats. What will it make of a rhythm that skips beats?

# %%
TAPPED = None  # such as "taps.wav", four seconds of knocking or humming
RHYTHM = [0.2 + bar + step * 0.3 for bar in (0.0, 2.4) for step in (0, 1.5, 3, 4, 5.5)]
noise = torch.randn(1, 4 * model.sample_rate, generator=torch.Generator().manual_seed(SEED))
if TAPPED:
    recording, rate = sl.load_audio(TAPPED)
else:  # dull knocks and some hiss, as a laptop's microphone has it
    rate, recording = model.sample_rate, 0.002 * noise
    knock = torch.exp(-torch.arange(0.05 * rate) / (0.008 * rate)) * noise[0, : rate // 20] * 0.3
    for time in [t for t in RHYTHM if t < 3.9]:
        recording[0, round(time * rate) :][: len(knock)] += knock
found = detect_onsets(recording, rate)
tapped = sl.click_track(found, duration_s=4.0, sample_rate=model.sample_rate)
print(len(found), "taps, in seconds:", found.round(2).tolist())

# %%
asked = {"description": "drums, rock", "duration_s": 4.0, "seed": SEED}
to_taps = model.generate(tapped, model.sample_rate, **asked)
for name, made in {"to the taps": to_taps, "without": model.generate(**asked)}.items():
    drums = detect_onsets(made.wav[0], model.sample_rate)
    hit, by_chance = sl.metrics.beats.share_near(found, drums, 4.0, window_s=0.05)
    print(f"{name:12} {hit:.0%} of the taps have a drum; {by_chance:.0%} would by chance")
Clips([
    Clip("the recording", recording, rate, "the rhythm, with the hiss of the room."),
    clip("taps and drums", mix([tapped, to_taps.wav[0]]), "a drum on each tap, or a beat of its own between them?"),
])  # fmt: skip

# %% [markdown]
# One clip proves little: drums that were told nothing may hit by luck. Section 5 has numbers. A tempo by hand is the plainest
# rhythm of all; the pad's `beats` are a list of times like any other:

# %%
try:
    from stage_widgets import MetronomePad

    pad = MetronomePad(bpm=100, duration_s=4.0, generate=model.generate, options=asked)
    display(pad)  # sl.click_track(pad.beats, ...) is what stands in the context
except ImportError as error:
    print("The widgets are not installed here:", error)

# %% [markdown]
# ## 3. Third idea: a loudness curve
#
# Noise that is as loud as the target, frame by frame: when to play and how hard, and nothing of pitch or colour. A user
# draws it, or hisses the rhythm. How loud a frame is, says its **RMS**, the root of the mean square of its samples.


# %%
def level(wav: Tensor, hop: int) -> Tensor:
    return wav.unfold(-1, hop, hop).square().mean(-1).sqrt()  # RMS, [1, L // hop]


@sl.condition("loudness")
def loudness(song, window):
    """Noise as loud as the target."""
    wav = song.stem(window.target, window.start_s, window.duration_s)
    frames = level(wav, song.sample_rate // 50)  # 20 ms
    curve = nn.functional.interpolate(frames[None], wav.shape[1], mode="linear")[0]
    noise = torch.from_numpy(window.rng().standard_normal(wav.shape)).float()
    return (curve * noise).clamp(-1, 1)


drum_window = replace(window, target="drums")
Clips([
    clip("the song's drums", song.stem("drums", **place), "which strokes are the loud ones?"),
    clip("their loudness curve as noise", loudness(song, drum_window), "could you play the drums from this?"),
])  # fmt: skip

# %% [markdown]
# Random numbers come from `window.rng()`: the same window must always give the same wav, or a run could not be repeated.
#
# ### Exercise 1: play and rest
#
# ★★☆ · 15 minutes. A coarser idea: a hum while the stem plays, silence while it rests. It says who
# plays when, as a bandleader's nod does.


# %%
def play_and_rest(song: sl.Song, window: sl.Window) -> Tensor | None:
    """A hum where the target plays.

    Args:
        song: .stem(name, start_s, duration_s) is Float[1, L] at song.sample_rate.
        window: .target is the stem's name; .start_s and .duration_s say which part of the song.

    Returns:
        Float[1, L], as long as the window: a sine of 220 Hz with the peak 0.1 in each block of
        20 ms in which the target's RMS is above 0.01, and 0 elsewhere. None if it never plays.
    """
    ### BEGIN SOLUTION
    wav = song.stem(window.target, window.start_s, window.duration_s)
    block = song.sample_rate // 50
    whole = nn.functional.pad(wav, (0, -wav.shape[1] % block))  # the last block may be short
    plays = whole.unfold(-1, block, block).square().mean(-1).sqrt() > 0.01  # [1, blocks]
    if not plays.any():
        return None
    time = torch.arange(wav.shape[1]) / song.sample_rate
    gate = plays.repeat_interleave(block, dim=1)[:, : wav.shape[1]]
    return 0.1 * torch.sin(2 * torch.pi * 220 * time) * gate
    ### END SOLUTION


# %%
checks.play_and_rest(play_and_rest)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Read the stem as `loudness` does. `level` wants whole blocks: pad the end with `nn.functional.pad(wav, (0, n))`.
# </details>
#
# <details><summary>Hint 2: from blocks to samples</summary>
#
# `level(...) > 0.01` is one bool a block; `repeat_interleave(block, dim=1)` makes them samples again. Multiply the sine by it.
# </details>
#
# <details><summary>I am told of a leak: I returned the stem, only quieter</summary>
#
# ```python
# def play_and_rest(song, window):
#     return 0.3 * song.stem(window.target, window.start_s, window.duration_s)
# ```
# </details>
#
# <details><summary>My hum is in pieces</summary>
#
# ```python
# def play_and_rest(song, window):
#     wav = song.stem(window.target, window.start_s, window.duration_s)
#     time = torch.arange(wav.shape[1]) / song.sample_rate
#     return 0.1 * torch.sin(2 * torch.pi * 220 * time) * (wav.abs() > 0.01)
# ```
# </details>
#
# <details><summary>I am told the length is wrong, and it is right for nano</summary>
#
# ```python
# def play_and_rest(song, window):
#     wav = song.stem(window.target, window.start_s, window.duration_s)
#     time = torch.arange(round(window.duration_s * 32000)) / 32000
#     return 0.1 * torch.sin(2 * torch.pi * 220 * time)[None]
# ```
# </details>
#
# <details><summary>My hum is in the wrong places</summary>
#
# ```python
# def play_and_rest(song, window):
#     wav = song.stem(window.target, 0.0, window.duration_s)
#     block = song.sample_rate // 50
#     whole = nn.functional.pad(wav, (0, -wav.shape[1] % block))
#     plays = whole.unfold(-1, block, block).square().mean(-1).sqrt() > 0.01
#     time = torch.arange(wav.shape[1]) / song.sample_rate
#     gate = plays.repeat_interleave(block, dim=1)[:, : wav.shape[1]]
#     return 0.1 * torch.sin(2 * torch.pi * 220 * time) * gate
# ```
# </details>

# %% [markdown]
# ## 4. What may be taken from the target
#
# What a user can say: when, how loud, which chord. Not its sound. With a context that holds the sound, the loss falls fast,
# because copying is easy, and the model is of no use: nobody has that sound before the model has played it.
#
# ### Exercise 2: find the leak
#
# ★★☆ · 10 minutes. Cross-correlation slides one wave along the other and asks at each shift how alike the two are. All shifts at
# once are one multiplication of their Fourier transforms.


# %%
def leak(context: Tensor, target: Tensor) -> float:
    """How much of the target's waveform stands in a context, at any delay and level.

    Args:
        context, target: Float[1, L] each.

    Returns:
        The largest |cross-correlation| over all shifts, divided by both norms: 1 is a copy, also
        a late, a quiet or an inverted one. 0 if one of them is silent.
    """
    ### BEGIN SOLUTION
    size = context.norm() * target.norm()
    if size == 0:
        return 0.0
    n = context.shape[-1] + target.shape[-1]  # zeros behind both, so that no shift wraps round
    alike = torch.fft.rfft(context[0], n) * torch.fft.rfft(target[0], n).conj()
    return float(torch.fft.irfft(alike, n).abs().max() / size)
    ### END SOLUTION


# %%
checks.leak(leak)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# At no shift it is `(context * target).sum()`, divided by `context.norm() * target.norm()`.
# </details>
#
# <details><summary>Hint 2: all shifts</summary>
#
# `torch.fft.irfft(A * B.conj(), n)` holds the sums of all shifts, where `A = torch.fft.rfft(context[0], n)` and B that of the
# target. Take n as long as both together.
# </details>
#
# <details><summary>I pass the quiet copy and fail the late one</summary>
#
# ```python
# def leak(context, target):
#     size = context.norm() * target.norm()
#     return float((context * target).sum().abs() / size) if size > 0 else 0.0
# ```
# </details>
#
# <details><summary>I pass the copy and fail the one upside down</summary>
#
# ```python
# def leak(context, target):
#     size = context.norm() * target.norm()
#     n = context.shape[-1] + target.shape[-1]
#     alike = torch.fft.rfft(context[0], n) * torch.fft.rfft(target[0], n).conj()
#     return float(torch.fft.irfft(alike, n).max() / size) if size > 0 else 0.0
# ```
# </details>
#
# <details><summary>I pass all copies and get nan</summary>
#
# ```python
# def leak(context, target):
#     n = context.shape[-1] + target.shape[-1]
#     alike = torch.fft.rfft(context[0], n) * torch.fft.rfft(target[0], n).conj()
#     return float(torch.fft.irfft(alike, n).abs().max() / (context.norm() * target.norm()))
# ```
# </details>

# %% [markdown]
# The library asks the same, and more, of some windows of real songs. One condition of its own is a leak on purpose: `self`, the
# target as its own context, with which notebook 04 taught a model where to look.

# %%
IDEAS = {"chords": "bass", "taps": "drums", "loudness": "drums"}
for name, target in IDEAS.items():
    print(condition_check.check_condition(name, songs, target, window_s=2.56, seed=SEED))
try:
    condition_check.check_condition("self", songs, "drums", window_s=2.56)
except sl.StageLiteError as error:
    print("refused:", error)
if checks.passed(leak):
    print(f"by your own measure: the guide {leak(guide, bass):.2f}, a copy {leak(bass, bass):.2f}")

# %% [markdown]
# ## 5. Does the trained model follow?
#
# `nano` was trained on clicks and mixes. **Predict.** For which of the three will the right context be better than another
# song's? Answer for each before you run the cell.
#
# The windows come from the token shards: stems are decoded, the condition is made, and encoded once. `split="test"` are
# songs whose grooves (the patterns of the band) and chord charts no training song has.

# %%
held_out = {
    name: pocket_windows(model, name, target, n=16, split="test", seed=SEED, progress=False)
    for name, target in IDEAS.items()
}


def measured(name, model, windows):
    loss = context_losses(model, windows)
    print(f"{name:9} right {loss['right']:.3f}  another song's {loss['shuffled']:.3f}  none "
          f"{loss['none']:.3f}  gap {loss['gap']:+.3f}, past hidden {loss['gap_hidden']:+.3f}")  # fmt: skip
    return loss


zero_shot = {name: measured(name, model, windows) for name, windows in held_out.items()}
charts.bars({n: z["gap_hidden"] for n, z in zero_shot.items()}, "gap with the past hidden (nats)")

# %% [markdown]
# Hear it: one batch, the same song, and each idea as the only thing that the model is told besides words.

# %%
told = [chords(song, window), taps(song, drum_window), loudness(song, drum_window)]
words = [song.text(target) for target in IDEAS.values()]
answers = model.generate(torch.stack(told), model.sample_rate, words, duration_s=8.0, seed=SEED).wav
Clips([
    clip(f"{name} and {target}", mix([heard, answer]), "which of the two keeps to the other?")
    for (name, target), heard, answer in zip(IDEAS.items(), told, answers, strict=True)
])  # fmt: skip

# %% [markdown]
# All three mean something to it, although it was trained on none of them: taps and noise have attacks where the drums have
# theirs, as a mix has. Chords help least. There is no beat in them, and a bass of an earlier `nano` was found to be in time
# rather than in key (`dev/LOG.md`).
#
# ## 6. Which number has what sounds together?
#
# A guide track runs beside the target, second by second. In STAGE the target's steps count on where the context stopped, so
# what sounds together is as many numbers apart as the guide is long, and one more for the token. `nano` begins anew with 0 at
# the token (`anchor_frames = -1`, which is `prefix.ALIGNED`): what sounds together has the same number.
#
# ### Exercise 3: two ways of counting
#
# ★☆☆ · 10 minutes. One row, a context without padding.


# %%
def step_positions(n_context: int, n_target: int, n_q: int, aligned: bool) -> Tensor:
    """The number of each step.

    Args:
        n_context, n_target: frames. Frame t of the context, codebook 0, stands at step t + 1, the
            token at step n_context + 1, frame t of the target at step n_context + 2 + t.
        n_q: codebooks; the delay makes the sequence so many steps longer.
        aligned: False counts on, 0, 1, 2, ...; True begins again with 0 at the token.

    Returns:
        Int[S], S = n_context + 1 + n_target + n_q.
    """
    ### BEGIN SOLUTION
    steps = torch.arange(n_context + 1 + n_target + n_q)
    if not aligned:
        return steps
    return torch.where(steps > n_context, steps - n_context - 1, steps)
    ### END SOLUTION


# %%
checks.step_positions(step_positions)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# `torch.arange(S)` is the whole answer for `aligned=False`.
# </details>
#
# <details><summary>Hint 2: beginning again</summary>
#
# The token stands at step `n_context + 1` and gets 0: from there on, subtract that. `torch.where(condition, a, b)` chooses.
# </details>
#
# <details><summary>My numbers go round and round</summary>
#
# ```python
# def step_positions(n_context, n_target, n_q, aligned):
#     steps = torch.arange(n_context + 1 + n_target + n_q)
#     return steps % (n_context + 1) if aligned else steps
# ```
# </details>
#
# <details><summary>My target is one number late</summary>
#
# ```python
# def step_positions(n_context, n_target, n_q, aligned):
#     steps = torch.arange(n_context + 1 + n_target + n_q)
#     return torch.where(steps > n_context, steps - n_context, steps) if aligned else steps
# ```
# </details>
#
# <details><summary>I forgot that there are two ways</summary>
#
# ```python
# def step_positions(n_context, n_target, n_q, aligned):
#     return torch.arange(n_context + 1 + n_target + n_q)
# ```
# </details>

# %% [markdown]
# **Predict.** The same weights, the same windows, but STAGE's numbers, which `nano` was not trained with. How much of the
# gap is left?

# %%
counted_on = sl.StageModel(model.lm, model.codec, replace(model.config, anchor_frames=None))
gaps = {}
for name in ("taps", "loudness"):
    loss = context_losses(counted_on, held_out[name])
    gaps[f"{name}, aligned"] = zero_shot[name]["gap_hidden"]
    gaps[f"{name}, counted on"] = loss["gap_hidden"]
    assert loss["gap_hidden"] < zero_shot[name]["gap_hidden"] > zero_shot["chords"]["gap_hidden"]
charts.bars(gaps, "gap with the past hidden (nats)")

# %% [markdown]
# That shows what these weights lean on, not which way is better: a model trained with STAGE's numbers would lean on those.
# Which way is learnt sooner is another question; the end of notebook 04 prints the numbers of a trial.
#
# ## 7. A pocket model for the loudness curve
#
# **Which songs?** The 16 with audio are of the test split: who trains on them has nothing left to test with. The train split
# of the shards is for training, its test split for measuring; no groove and no chart is in both.

# %%
short = {"target": "drums", "window_s": 1.28, "seed": SEED, "progress": False}
train = pocket_windows(model, "loudness", n=96, **short)
test = pocket_windows(model, "loudness", n=32, split="test", **short)
trained_on, tested_on = {w.song_id for w in train}, {w.song_id for w in test}
assert not trained_on & tested_on
print(f"{len(train)} windows of {len(trained_on)} songs; held out: {len(tested_on)} others")

# %% [markdown]
# **Predict.** Forty steps, with about two minutes of drums to learn from. Will the gap grow? And the loss without any context?

# %%
pocket = sl.load("nano")
before = measured("before", pocket, test)
run = sl.finetune(
    pocket, train, steps=40, batch_size=8, learning_rate=3e-4, warmup_steps=10, cooldown_steps=13,
    history_dropout=0.6, text_dropout=0.1, spread_positions=True, seed=SEED,
)  # fmt: skip
after = measured("after", pocket, test)
assert after["gap_hidden"] > before["gap_hidden"]

# %% [markdown]
# `spread_positions` moves each short window to some place within 8 s, so that all position numbers are trained.
#
# The loss says what the model expects. What does it *play*? Drums to the curves of eight songs that it never heard, and how
# the loudness of each correlates with each curve, in steps of 50 ms (1: up and down together, 0: unrelated).

# %%
rate = model.sample_rate
windows = [sl.Window(s, s.downbeats[0], 4.0, "drums", SEED) for s in songs[:8]]
curves = [loudness(w.song, w) for w in windows]
to_curve = {"context_sample_rate": rate, "duration_s": 4.0, "seed": SEED}
players = {"before": model, "after": pocket}
for name, player in players.items():
    words = [w.song.text("drums") for w in windows]
    wavs = player.generate(torch.stack(curves), description=words, **to_curve).wav
    levels = [level(wav, rate // 20)[0] for wav in [*curves, *wavs]]
    alike = torch.corrcoef(torch.stack(levels))[:8, 8:]  # [curve, drums]
    print(f"{name:7} own {alike.trace() / 8:.2f}, others {(alike.sum() - alike.trace()) / 56:.2f}")

# %% [markdown]
# And your curve, which no drummer played.

# %%
POINTS = [0.0, 0.05, 0.3, 0.05, 0.05, 0.3, 0.0]  # yours: loudness, evenly spread over four seconds
curve = nn.functional.interpolate(torch.tensor(POINTS)[None, None], 4 * rate, mode="linear")[0]
drawn = (curve * noise).clamp(-1, 1)  # [1, L]
clips = [clip("your curve", drawn, "where is it loud?")]
for name, player in players.items():
    out = player.generate(drawn, description="drums, rock", **to_curve)
    clips.append(clip(f"drums to it, {name}", out.wav[0], "are the hard strokes where it is loud?"))
Clips(clips)

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **Few windows.** A gap from 32 windows of a few songs has an interval; notebook 07 computes it.
# - **One start.** `nano` knew how to listen. From `nano-base` the first hundreds of steps go into that (notebook 04).
# - **By heart.** If the gap on training windows is much larger than on held-out ones, more songs are needed, not more steps.
# - **Forgotten.** A model that is trained on one thing may lose another. Taps and noise both have their attacks where the
#   drums have theirs: has it lost the taps, or gained?

# %%
for name, part in {"training": train[:32], "taps": held_out["taps"]}.items():
    measured(name, pocket, part)  # beside "after" in section 7 and "taps" in section 5

# %% [markdown]
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | condition | what can stand in a context, made by a function | (song, window) -> wav | `@sl.condition` |
# | guide track | harmony as plain chords, to play along with | wav `[1, L]` | `chord_track` |
# | taps | equal clicks at the onsets of a rhythm | wav `[1, L]` | `click_track` |
# | loudness curve | how loud, frame by frame | RMS | `level` |
# | leak | the target's own sound in its context | 0 to 1 | `condition_check.leak` |
# | zero-shot | asked for what it was never trained on | | `context_losses` |
# | aligned | what sounds together has the same position | `ALIGNED` | `anchor_frames` |
# | pocket model | a small fine-tune on one's own idea | | `pocket_windows` |
#
# ## Can you say it without looking?
#
# 1. Why may taps be made from the target, and why may a filtered copy of it not be?
# 2. Which copies does the measure of a leak find, and which not?
# 3. Why must a condition draw its random numbers from the window?
# 4. What does `needs_target=False` promise?
# 5. Why could `nano` follow taps that it was never trained on?
# 6. What do two steps with the same position number have in common in an aligned model?
# 7. Which songs may a pocket model be trained on, and which measured?
# 8. The gap on training windows grew, the one on held-out windows did not. What would you change?
#
# ## Sources
#
# - STAGE: Strano et al., *Stemmed Accompaniment Generation through Prefix-Based Conditioning*, ISMIR 2025, arXiv:2504.05690.
# - Conditions made from the target itself: Copet et al., *Simple and Controllable Music Generation*, 2023, arXiv:2306.05284 (melody).
# - Loudness and rhythm as controls: Wu et al., *Music ControlNet*, 2023, arXiv:2311.07069.
# - Chords and drums as controls: Tal et al., *Joint Audio and Symbolic Conditioning (JASCO)*, 2024, arXiv:2406.10970.
