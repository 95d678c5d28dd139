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
# # 08 Template: from an idea to a pocket model
#
# Copy this notebook, change **one cell**, run all. At the end there is a model that was trained on your idea, a report
# that says whether it listens, and a widget to hear it in.
#
# ```
#   your function ──▶ a condition? ──▶ windows ──▶ before ──▶ training ──▶ after
#                                                                            │
#                                              report, folder, widget ◀───────┘
# ```
#
# Reading: 15 minutes. Computing with `QUICK = False`: about 7 minutes of CPU, most of them the training. As it comes, with
# `QUICK = True`: few windows and a handful of steps show that every cell runs with your function. They do **not** show whether
# the idea works, and the report says so. Computing: at most 75 s. Notebook 08 explains each part.

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
from pathlib import Path

import torch

import stage_lite as sl
from stage_lite import charts
from stage_lite.audio import mix
from stage_lite.clips import Clip, Clips
from stage_lite.condition_check import check_condition
from stage_lite.listening import context_losses
from stage_lite.pocket import pocket_windows
from stage_lite.song import open_samples

SEED = 0
QUICK = True  # False: the real thing
SAVE_TO = None  # folder for model and report, such as "runs/my-idea"; None: a temporary one
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}, QUICK {QUICK}")

# %% [markdown]
# ## 1. Your idea: the cell to change
#
# Two functions. The first makes the context for a window of a song, from its labels (`window.beat_times`, `song.chords`,
# `song.key`, ...) or from a stem (`song.stem(name, window.start_s, window.duration_s)`, also of the target, if a user can say
# the same about a target that is not there yet). The second is that user. Both must sound alike.
#
# The idea that stands here: clicks *between* the beats. To the shipped model a click is a beat, so it should be wrong by half
# a beat, and learn.

# %%
NAME, TARGET = "off-beats", "drums"


@sl.condition(NAME, needs_target=False)  # True if the wav depends on window.target
def my_idea(song, window):
    """A click halfway between each two beats."""
    beats = window.beat_times  # seconds from the start of the window
    if len(beats) < 2:
        return None  # nothing to say here: another window is drawn
    between = (beats[:-1] + beats[1:]) / 2
    return sl.click_track(between, duration_s=window.duration_s, sample_rate=song.sample_rate)


def by_hand(duration_s: float, sample_rate: int) -> torch.Tensor:
    """The same from a user: Float[1, L]."""
    beats, _ = sl.beat_grid(bpm=104, duration_s=duration_s, start_s=0.2)
    between = (beats[:-1] + beats[1:]) / 2
    return sl.click_track(between, duration_s=duration_s, sample_rate=sample_rate)


# %% [markdown]
# ## 2. Is it a condition?
#
# Length, rate, the same wav for the same window, something to hear, and no leak: none of the target's own sound in it. An
# error here says what to change.

# %%
WINDOW_S = 2.56  # of training: short windows are many windows
songs = open_samples()
print(check_condition(NAME, songs, TARGET, window_s=WINDOW_S, seed=SEED))

model = sl.load("nano")
having = [song for song in songs if TARGET in song.stem_names]
windows = [sl.Window(song, song.downbeats[0], 4.0, TARGET, SEED) for song in having]
window = next(w for w in windows if my_idea(w.song, w) is not None)
context = my_idea(window.song, window)
target = window.song.stem(TARGET, window.start_s, window.duration_s)
Clips([
    Clip("your context", context, model.sample_rate, "is all in it that a player would need?"),
    Clip("context and target", mix([context, target]), model.sample_rate, "could you play this from that?"),
    Clip("by hand", by_hand(4.0, model.sample_rate), model.sample_rate, "does it sound like the first?"),
])  # fmt: skip

# %% [markdown]
# ## 3. Windows
#
# From the token shards that come with the project. Training windows are of the train split. Held-out windows are of the
# test split: no groove and no chart of them stands in training. Look at them once, at the end; to try out settings, ask for
# `split="valid"`.

# %%
N_TRAIN, N_TEST, STEPS = (24, 8, 6) if QUICK else (256, 48, 256)
train = pocket_windows(model, NAME, TARGET, n=N_TRAIN, window_s=WINDOW_S, seed=SEED)
held_out = pocket_windows(model, NAME, TARGET, n=N_TEST, window_s=WINDOW_S, split="test", seed=SEED)
heard = [{window.song_id for window in windows} for windows in (train, held_out)]
assert not heard[0] & heard[1]
print(f"{len(train)} windows of {len(heard[0])} songs, {len(held_out)} of {len(heard[1])} others")

# %% [markdown]
# ## 4. Before
#
# What the shipped model makes of it: the loss of the true target after the right context, after another song's, and without.

# %%
before = context_losses(model, held_out)
to_hand = {"context": by_hand(4.0, model.sample_rate), "context_sample_rate": model.sample_rate}
asked = {**to_hand, "description": f"{TARGET}, rock", "duration_s": 4.0, "seed": SEED}
made = {"before": model.generate(**asked)}
print({name: round(before[name], 3) for name in ("right", "shuffled", "none", "gap", "gap_hidden")})

# %% [markdown]
# ## 5. Training
#
# From `nano`, with part of the target's past hidden in most windows, so that the context is needed. It may be interrupted:
# what is learnt so far stays.

# %%
pocket = sl.load("nano")
run = sl.finetune(
    pocket, train, steps=STEPS, batch_size=8, learning_rate=5e-4, warmup_steps=max(1, STEPS // 10),
    cooldown_steps=STEPS // 3, history_dropout=0.6, text_dropout=0.2, spread_positions=True,
    seed=SEED, log_every=max(1, STEPS // 30),
)  # fmt: skip
steps = [row["step"] for row in run.log]
losses = [row["loss"] for row in run.log]
charts.curves({"loss": losses}, steps, x_label="step", y_label="loss (nats)")

# %% [markdown]
# ## 6. After
#
# The gap is what another song's context costs, on songs that training never saw. With the past hidden it should have grown. With
# the past there the target predicts itself, and the gap may stay as it was; compare `right` with `none` then: did the context
# do harm before, and does it help now?

# %%
after = context_losses(pocket, held_out)
made["after"] = pocket.generate(**asked)
for when, loss in (("before", before), ("after", after)):
    print(when, {name: round(loss[name], 3) for name in ("right", "shuffled", "none")})
rows = {
    f"{when}, {what}": loss[key]
    for what, key in (("past known", "gap"), ("past hidden", "gap_hidden"))
    for when, loss in (("before", before), ("after", after))
}
verdict = "QUICK: a rehearsal. These numbers say nothing about the idea." if QUICK else ""
charts.bars(rows, f"gap on {len(held_out)} held-out windows (nats)", verdict)

# %% [markdown]
# ## 7. Report and folder
#
# `evaluate` makes the model play, on the songs with real audio, and puts it beside the real stem (ceiling), another song's
# context (floor) and no context. `report.html` opens in any browser, `sl.load(folder)` brings the model back.

# %%
folder = Path(SAVE_TO or tempfile.mkdtemp(prefix=f"pocket-{NAME}-"))
data = sl.StemDataset(songs, TARGET, window_s=4.0, conditions=[NAME], seed=SEED)
table = sl.evaluate(
    pocket, data, n=4 if QUICK else 24, seed=SEED, out=folder / "report",
    metrics=["onset_alignment", "onset_agreement"], progress=False,
)  # fmt: skip
pocket.save(folder / "model")
(folder / "README.md").write_text(
    f"# {NAME}: {my_idea.__doc__}\n\nnano, fine-tuned for {STEPS} steps of 8 x {WINDOW_S} s, seed "
    f"{SEED}. {verdict}\nGap before {before['gap']:.3f}, after {after['gap']:.3f} nats; with the "
    f"target's past hidden {before['gap_hidden']:.3f} and {after['gap_hidden']:.3f} "
    f"({N_TEST} held-out windows).\n"
)
print(f"{verdict}\n{folder}: {sorted(path.name for path in folder.iterdir())}")
assert torch.equal(sl.load(folder / "model").lm.emb[0].weight, pocket.lm.emb[0].weight)
table[["value", "low", "high", "n"]].round(3)

# %% [markdown]
# ## 8. Listen
#
# Your context by hand, and what the model played to it before and after.

# %%
stems = {"context": to_hand["context"], **{when: out.wav[0] for when, out in made.items()}}
try:
    from stage_widgets import StemMixer

    display(StemMixer(stems, model.sample_rate, label=f"{NAME}, before and after",
                      listen_for="mute one of the two: which one plays to the context?"))  # fmt: skip
except ImportError as error:
    print("The widgets are not installed here:", error)

# %% [markdown]
# ## If it does not listen
#
# - **Gap 0 before and after.** Is the condition audible behind the codec? `model.decode(model.encode(context, rate))` is what
#   the model hears. Fine detail above 2 kHz is smeared.
# - **The loss falls, the gap does not.** It learns the style of the windows and ignores the context. Hide more of the past
#   (`history_dropout=0.9`), take more windows, or an idea that says more.
# - **The gap is huge at once.** Look for a leak that `check_condition` does not know, such as the target, transposed.
# - **Right on training songs, not on others.** More windows of more songs; then fewer steps.
