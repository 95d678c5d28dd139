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
# # 07 Evaluation: what a number stands between
#
# A model that plays along gets a score. Whether the score is good, sure, or even about playing along, it does not say. In
# this notebook each number gets its company: a floor, a ceiling, a cheap rival, an interval, and a listener.
#
# ```
#       floor                                           ceiling
#   another song's context    loop     generated     the real stem
#   ─────────┼──────────────────┼─────[────●────]─────────┼──────▶ score
# ```
#
# You will be able to
# - **place** a score between floor and ceiling, with an interval that counts songs,
# - **distrust** a distance between sets: for its sample size, its axes, its embedding,
# - **run** a blind listening test, and write a report that says what is not known.
#
# Needs: notebook 00. Two CPU cores, no GPU, no network. Reading and listening: 35 minutes. Exercises: 40 minutes.
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
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

import stage_lite as sl
from stage_lite import charts, checks, listening_power, listening_statistics, metrics
from stage_lite.audio import mix
from stage_lite.clips import Clip, Clips
from stage_lite.html_page import Frame, Section, Table, page
from stage_lite.listening_simulation import simulate_answers
from stage_lite.listening_test import write_listening_test
from stage_lite.song import open_samples

SEED = 0
print(f"torch {torch.__version__} on cpu, stage_lite {sl.__version__}, seed {SEED}")

# %% [markdown]
# ## 1. A number needs company
#
# `nano` plays drums to 24 windows of songs that it has never heard. `sl.evaluate` makes six stems for each window and scores
# them.

# %%
scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # gone when the kernel stops
folder = Path(scratch.name)
model, songs = sl.load("nano"), open_samples()
data = sl.StemDataset(songs, "drums", window_s=4.0, conditions=["backing"], seed=SEED, n=96)
asked = {"n": 24, "seed": SEED, "batch_size": 24, "cache_dir": folder / "cache", "progress": False}
table = sl.evaluate(model, data, **asked, out=folder / "report",
                    metrics=["beat_f1", "onset_agreement", "kad_unbiased", "fad_biased"])  # fmt: skip
assert "n > d" in table.attrs["missing"]["fad_biased"]
print(f"beat F1 of the generated drums: {table.loc[('beat_f1', 'generated'), 'value']:.2f}")

# %% [markdown]
# FAD was refused: 24 windows are too few for covariances in 32 dimensions. It is a gap in the table, never a number.
#
# **Predict.** Beat F1 is 1 if a beat tracker taps all true beats on the drums it hears, and no others. Is the number above
# good? Write down what you expect of the real drums, of another song's drums, of the model with another song's mix, and of
# a bar of another song, looped at the right tempo.

# %%
f1 = table.loc["beat_f1"]
assert f1.value["real"] > f1.value["another song's stem"] + 0.15
charts.intervals(f1.to_dict("index"), "beat F1 with 95 % intervals")

# %% [markdown]
# - The **ceiling** is the real stem. It is not 1: the tracker errs on real drums too.
# - The **floor** is the same model with another song's context. It is not 0: whoever taps at random hits some beats.
# - The **loop** costs nothing. It knows the tempo, and not where the beat is.
#
# Hear one window, which proves nothing either way.

# %%
items = metrics.report_clips.evaluated_clips(model, data, **asked, most=14)  # from the cache
report = json.loads((folder / "report" / "report.json").read_text())
scores = {name: np.array(row, float) for name, row in report["scores"]["beat_f1"].items()}
hear = {"real": "where is the beat?", "generated": "on it, beside it, or between?",
        "shuffled context": "to whose beat does it play?", "loop": "right speed, any place."}  # fmt: skip
clips, (context, rate) = [], items[0].context
for name, listen_for in hear.items():
    full = mix([context, items[0].clips[name][0]])
    clips.append(Clip(f"{name}, beat F1 {scores[name][0]:.2f}", full, rate, listen_for))
Clips(clips)

# %% [markdown]
# ## 2. How sure?
#
# Windows of one song are alike: same groove, same tempo, same fate. A second window of a song tells less than a window of
# another song.
#
# **Predict.** 12 songs with 16 windows each. A 95 % interval (mean ± 1.96 standard errors) is made as if all windows were
# independent. How often does it hold the truth?

# %%
rng, each = np.random.default_rng(SEED), [1, 2, 4, 8, 16, 32]
held = {"counting windows": [], "counting songs": []}
for n_windows in each:  # 2000 tests each; the truth is 0
    drawn = rng.normal(size=(2000, 12, 1)) + rng.normal(size=(2000, 12, n_windows))
    for name, rows in zip(held, (drawn.reshape(2000, -1), drawn.mean(-1)), strict=True):
        reach = 1.96 * rows.std(1, ddof=1) / np.sqrt(rows.shape[1])
        held[name].append((abs(rows.mean(1)) < reach).mean())
assert held["counting windows"][4] < 0.6 and min(held["counting songs"]) > 0.88
charts.curves(held, each, x_label="windows of each of 12 songs", y_label="share that holds the truth")  # fmt: skip

# %% [markdown]
# More windows make the wrong interval surer and no truer. For any score there is the **bootstrap**: take your songs for the
# world, draw as many as you have, with replacement, and see how the mean moves.
#
# ### Exercise 1: a bootstrap over songs
#
# ★★☆ · 15 minutes.


# %%
def song_interval(
    scores: torch.Tensor, songs: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """95 % of the means of 2000 resamples, each of whole songs.

    Args:
        scores: Float[N], one per window.
        songs: Int[N], the window's song, 0 to n - 1; they may differ in their number of windows.
        generator: for torch.randint.

    Returns:
        Float[2]: the 2.5th and the 97.5th percentile of the means over all windows drawn.
    """
    ### BEGIN SOLUTION
    n = int(songs.max()) + 1
    sums = torch.zeros(n).index_add(0, songs, scores)
    counts = songs.bincount()
    drawn = torch.randint(n, (2000, n), generator=generator)  # songs of each resample
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return torch.quantile(means, torch.tensor([0.025, 0.975]))
    ### END SOLUTION


# %%
checks.song_interval(song_interval)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# One resample: `drawn = torch.randint(n, (n,), generator=generator)` are n songs, some of them twice. All their windows
# together have a mean. A loop of 2000 of these will do.
# </details>
#
# <details><summary>Hint 2: without a loop</summary>
#
# A mean of all windows of the drawn songs is a sum of sums over a sum of counts. `torch.zeros(n).index_add(0, songs,
# scores)` are the sums, `songs.bincount()` the counts; index both with `drawn` of shape `[2000, n]`.
# </details>
#
# <details><summary>I drew windows, and my interval is too narrow</summary>
#
# ```python
# def song_interval(scores, songs, generator):
#     drawn = torch.randint(len(scores), (2000, len(scores)), generator=generator)
#     return torch.quantile(scores[drawn].mean(1), torch.tensor([0.025, 0.975]))
# ```
# </details>
#
# <details><summary>I drew every song once, in another order</summary>
#
# ```python
# def song_interval(scores, songs, generator):
#     n = int(songs.max()) + 1
#     orders = [torch.randperm(n, generator=generator) for _ in range(2000)]
#     means = [torch.cat([scores[songs == song] for song in order]).mean() for order in orders]
#     return torch.quantile(torch.stack(means), torch.tensor([0.025, 0.975]))
# ```
# </details>
#
# <details><summary>I pass songs of one length and fail the long one</summary>
#
# ```python
# def song_interval(scores, songs, generator):
#     n = int(songs.max()) + 1
#     of_song = torch.stack([scores[songs == song].mean() for song in range(n)])
#     drawn = torch.randint(n, (2000, n), generator=generator)
#     return torch.quantile(of_song[drawn].mean(1), torch.tensor([0.025, 0.975]))
# ```
# </details>

# %%
windows = report["windows"]
song_ids, place = np.unique([window["song"] for window in windows], return_inverse=True)
ends = f1.loc["generated", ["low", "high"]].to_numpy(float)
print(f"{len(windows)} windows of {len(song_ids)} songs, generated {ends.round(2)}")
if checks.passed(song_interval):
    mine, generator = torch.tensor(scores["generated"]).float(), torch.Generator().manual_seed(SEED)
    assert np.allclose(song_interval(mine, torch.tensor(place), generator), ends, atol=0.05)

# %% [markdown]
# **Paired.** Two systems played the same windows, and a hard song is hard for both. So take the difference window by window
# and then its interval. And if the context made no difference, right and wrong mix could change places in every song: toss
# the sign of each song's difference, and count how often chance does as well.
#
# **How much of the gap?** (generated - shuffled) / (real - another): 0 is a model that does not listen, 1 one that follows
# as the real stem does. In each resample the same songs make all four means, and only then is divided.

# %%
spread, shown = metrics.bootstrap.Bootstrap(song_ids[place]), metrics.bootstrap.shown
four = [scores[s] for s in ("generated", "shuffled context", "real", "another song's stem")]
paired = spread.mean(four[0] - four[1])
of_song = [(four[0] - four[1])[place == i].mean() for i in range(len(song_ids))]
by_chance = (rng.choice([-1, 1], size=(20000, len(of_song))) * of_song).mean(1)
p = (abs(by_chance) >= abs(np.mean(of_song)) - 1e-9).mean()
assert abs(p - f1.p["generated"]) < 0.02 and round(1 - 0.95**20, 2) == 0.64
closed = spread.of(lambda g, s, r, a: (g - s) / (r - a), *four)
print(f"difference {shown(paired)}, p by tossing signs {p:.3f}; gap closed {shown(closed)}")

# %% [markdown]
# The interval is wide. 24 windows are enough for a lesson and not for a claim; the model's card has 200.
#
# ## 3. Distances between sets, and how they lie
#
# FAD and KAD ask whether a **set** of clips sounds like a set of real ones. Each clip becomes a point (an *embedding*), and
# two clouds of points are compared. FAD takes both for Gaussians:
#
# $$|\mu_x - \mu_y|^2 + \mathrm{tr}\,\Sigma_x + \mathrm{tr}\,\Sigma_y - 2\,\mathrm{tr}\,(\Sigma_x \Sigma_y)^{1/2}.$$
#
# KAD asks how near points are to their own cloud and to the other, and takes nothing for Gaussian.
#
# ### Exercise 2: Fréchet's distance by hand
#
# ★★★ · 15 minutes. The trace of a root is the sum of the roots of the eigenvalues.


# %%
def frechet(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Fréchet's distance of two sets, each taken for a Gaussian.

    Args:
        x: Float[n, d], one embedding per row.
        y: Float[m, d].

    Returns:
        Float[], with covariances divided by n - 1 and m - 1.
    """
    ### BEGIN SOLUTION
    sx, sy = torch.cov(x.T), torch.cov(y.T)  # [d, d]
    root = torch.linalg.eigvals(sx @ sy).real.clamp(min=0).sqrt().sum()
    means = (x.mean(0) - y.mean(0)).square().sum()
    return means + sx.trace() + sy.trace() - 2 * root
    ### END SOLUTION


# %%
checks.frechet(frechet)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Means over rows: `x.mean(0)` is `[d]`. `torch.cov` takes dimensions as rows: `torch.cov(x.T)` is `[d, d]`.
# </details>
#
# <details><summary>Hint 2: the root</summary>
#
# `torch.linalg.eigvals(sx @ sy)` are d complex numbers that are real but for rounding: `.real.clamp(min=0).sqrt().sum()`.
# </details>
#
# <details><summary>It runs for sets of one size, and the number is wrong</summary>
#
# ```python
# def frechet(x, y):
#     sx, sy = torch.cov(x), torch.cov(y)
#     root = torch.linalg.eigvals(sx @ sy).real.clamp(min=0).sqrt().sum()
#     return (x.mean(1) - y.mean(1)).square().sum() + sx.trace() + sy.trace() - 2 * root
# ```
# </details>
#
# <details><summary>I took the root of each entry</summary>
#
# ```python
# def frechet(x, y):
#     sx, sy = torch.cov(x.T), torch.cov(y.T)
#     means = (x.mean(0) - y.mean(0)).square().sum()
#     return means + (sx + sy - 2 * (sx @ sy).sqrt()).trace()
# ```
# </details>
#
# <details><summary>My distance of the means is a distance</summary>
#
# ```python
# def frechet(x, y):
#     sx, sy = torch.cov(x.T), torch.cov(y.T)
#     root = torch.linalg.eigvals(sx @ sy).real.clamp(min=0).sqrt().sum()
#     return (x.mean(0) - y.mean(0)).norm() + sx.trace() + sy.trace() - 2 * root
# ```
# </details>

# %% [markdown]
# ### Lie 1: the sample size
#
# Real stems of sixteen songs, cut into clips of 2 s, shuffled, dealt into two heaps: the **same** music on both sides.
# **Predict.** What happens to the distance when the heaps get smaller?

# %%
RATE, fad, kad = model.sample_rate, metrics.frechet.fad, metrics.frechet.kad
parts = (p for s in songs for name in s.stem_names for p in s.stem(name).split(2 * RATE, dim=1))
pool = [part for part in parts if part.shape[1] == 2 * RATE and part.square().mean() > 1e-5]
log_mel = metrics.embeddings.embedding("log-mel", n_mels=16)
points = torch.tensor(log_mel(pool, RATE)).double()  # [clips, 32]
sizes, far = [60, 90, 140, 220], {"FAD, biased": [], "FAD, unbiased": [], "KAD, x 1000": []}
for n in sizes:
    deals = [points[rng.permutation(len(points))[: 2 * n]].split(n) for _ in range(8)]
    far["FAD, biased"].append(np.mean([fad(x, y) for x, y in deals]))
    far["FAD, unbiased"].append(np.mean([fad(x, y, estimator="unbiased") for x, y in deals]))
    far["KAD, x 1000"].append(1000 * np.mean([kad(x, y) for x, y in deals]))
assert far["FAD, biased"][0] > 2 * far["FAD, biased"][-1] > 0
charts.curves(far, sizes, x_label="clips in each heap", y_label="distance to itself", levels={"truth": 0.0})  # fmt: skip

# %% [markdown]
# The usual FAD comes from n and not from the sound. Compare sets of one size, or take an unbiased estimator, which scatters
# around 0.
#
# ### Lie 2: the axes
#
# A published tool handed its embeddings over transposed for years. If both sets are of one size, nothing fails:

# %%
x, y = points[rng.permutation(len(points))[:400]].split(200)
if checks.passed(frechet):
    print(f"yours {frechet(x, y):.0f}, transposed {frechet(x.T, y.T):.0f}")
    assert np.isclose(float(frechet(x, y)), fad(x, y), rtol=1e-4)
try:
    fad(x.T, y.T)
except sl.StageLiteError as error:
    print(f"FAD {fad(x, y):.0f}; the library on the transposed sets: {error}")

# %% [markdown]
# ### Lie 3: the embedding
#
# Two ways to spoil real clips: a soft **hiss**, and the codec with its first codebook only, which **blurs**. **Predict.**
# Which is farther from real music for log-mel statistics (in dB), and which for what our codec's encoder hears?

# %%
chosen, worse = [pool[i] for i in rng.permutation(len(pool))[:260]], {}
reference, clean = chosen[:130], torch.stack(chosen[130:])  # [130, 1, L]
hiss = clean + 10 ** (-60 / 20) * torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED))  # fmt: skip
blurred = torch.cat([model.decode(model.encode(ten, RATE)[:, :1]) for ten in clean.split(10)])[..., : 2 * RATE]  # fmt: skip
for name, embed in (("log-mel", log_mel), ("codec", metrics.embeddings.codec_latents(model))):
    real = embed(reference, RATE)
    far = {"hiss": kad(real, embed(hiss, RATE)), "blurred": kad(real, embed(blurred, RATE))}
    print(f"KAD over {name:8} hiss {far['hiss']:.3f}, blurred {far['blurred']:.3f}")
    worse[name] = max(far, key=far.get)
assert worse == {"log-mel": "hiss", "codec": "blurred"}
Clips([Clip("with hiss", hiss[0], RATE, "would you notice?"), Clip("blurred", blurred[0], RATE, "which would you send to a friend?")])  # fmt: skip

# %% [markdown]
# The ranking has turned round. Both are right about what they measure: a distance is a statement about an embedding.
#
# ### Lie 4: who belongs to whom
#
# **Predict.** In section 1, "another song's stem" are the real stems, each in the wrong song. What is their KAD?

# %%
far = table.loc["kad_unbiased"]
for name in scores:
    print(f"{name:20} KAD {shown(far.loc[name])}   beat F1 {f1.value[name]:.2f}")
assert np.isclose(far.value["real"], far.value["another song's stem"])

# %% [markdown]
# The same set in another order has the same distance. (And look at the intervals: with 24 windows this KAD can hardly tell
# anyone apart.)
#
# ## 4. Coherence: does it fit the mix?
#
# **Onset agreement**: the share of a stem's onsets that fall on onsets of the mix, above chance. **Chroma agreement**: how
# alike the pitch classes are, half-second by half-second. To test such a measure, give it one stem and the mixes of sixteen
# songs. On which place does the right mix come?
#
# ### Exercise 3: the rank of the right mix
#
# ★★☆ · 10 minutes. Beware of a measure that says the same of everything.


# %%
def ranks_of_right(scores: torch.Tensor) -> torch.Tensor:
    """On which place each stem's own mix comes.

    Args:
        scores: Float[N, N]; scores[m, s] says how well stem s fits mix m, larger is better. Stem s
            belongs to mix s.

    Returns:
        Int[N], from 1; a mix that scores as high as the right one stands before it.
    """
    ### BEGIN SOLUTION
    return (scores >= scores.diagonal()).sum(dim=0)
    ### END SOLUTION


# %%
checks.ranks_of_right(ranks_of_right)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# `scores.diagonal()` is `[N]`: what the right mixes score. Compare each column with its own entry.
# </details>
#
# <details><summary>Hint 2: count, do not sort</summary>
#
# The rank is the number of mixes, the right one included, that score at least as high.
# </details>
#
# <details><summary>I used argsort</summary>
#
# ```python
# def ranks_of_right(scores):
#     return scores.argsort(dim=0, descending=True).diagonal() + 1
# ```
# </details>
#
# <details><summary>A measure that says 0.5 of everything finds all</summary>
#
# ```python
# def ranks_of_right(scores):
#     return (scores > scores.diagonal()).sum(dim=0) + 1
# ```
# </details>
#
# <details><summary>I compared along the rows</summary>
#
# ```python
# def ranks_of_right(scores):
#     return (scores >= scores.diagonal()[:, None]).sum(dim=1)
# ```
# </details>

# %% [markdown]
# **Predict.** By chance the right mix is first for 1 stem of 16. For how many with onsets, and for how many with pitch?
# A third measure is a small model in the manner of COCOLA, trained to tell right pairs from wrong ones.

# %%
cut = {s.id: {"start_s": s.downbeats[1], "duration_s": 4.0} for s in songs}
drums, bass = ([s.stem(name, **cut[s.id]) for s in songs] for name in ("drums", "bass"))
mixes = [s.mix([n for n in s.stem_names if n not in ("drums", "bass")], **cut[s.id]) for s in songs]
hits, of_mix = ([metrics.beats.find_onsets(w, RATE) for w in wavs] for wavs in (drums, mixes))
onset, chroma = metrics.agreement.onset_agreement_of_times, metrics.agreement.chroma_agreements
fits = {"onsets, drums": [[onset(m, s, 4.0) for s in hits] for m in of_mix],
        "chroma, bass": [chroma(m, bass, RATE) for m in mixes]}  # fmt: skip
try:
    fits["model, drums"] = metrics.coherence.score_matrix(mixes, drums, RATE)
    fits["model, bass"] = metrics.coherence.score_matrix(mixes, bass, RATE)
except sl.StageLiteError as error:
    print("The rest holds without it:", error)
first = {"by chance": 1 / len(songs)}
for name, matrix in fits.items():
    ranks = np.sum(np.array(matrix) >= np.diagonal(matrix), axis=0)
    if checks.passed(ranks_of_right):
        assert ranks_of_right(torch.tensor(np.array(matrix))).tolist() == ranks.tolist()
    first[name] = np.mean(ranks == 1)
assert len(songs) == 16 and first["chroma, bass"] > 2 / 16
charts.bars(first, "share of stems whose own mix comes first")

# %% [markdown]
# Each measure is blind to something: onsets to pitch, chroma to drums, the model to what it was not trained on. So each is
# read beside its own floor and ceiling. And the **words**? Does the stem do what the description says? A small classifier
# of stems and families listens, and errs on real stems too: these stand beside it.

# %%
try:
    reader = metrics.text.load_text_classifier()
    for name in ("real", "generated"):
        said = [metrics.text.text_agreement(*i.clips[name], w["description"], reader)
                for i, w in zip(items, windows, strict=False)]  # fmt: skip
        hit = [sum(bool(getattr(t, what)) for t in said) for what in ("stem_hit", "family_hit")]
        print(f"{name}: of {len(said)} clips {hit[0]} heard as drums, {hit[1]} as the right family")
except sl.StageLiteError as error:
    print("The rest holds without it:", error)
charts.intervals(table.loc["onset_agreement"].to_dict("index"), "onset agreement with the mix")

# %% [markdown]
# ## 5. A blind listening test
#
# No measure above has ears. Your own test: clips equally loud, names that tell nothing, an order for each listener, answers
# as CSV. Silent clips are left out. Does the right context matter? How far is the real stem?

# %%
tests = Path(tempfile.mkdtemp(dir=folder))
heard = [item for item in items if min(wav.std() for wav, _ in item.clips.values()) > 0.01][:6]
pairs = [("generated", "shuffled context"), ("real", "generated")]
test = write_listening_test(tests / "test", heard, pairs=pairs, n_listeners=10, seed=SEED)
print(f"{len(test.pages(1))} pages; a clip is called {test.trials[0].stimuli[0].name}")
try:
    from stage_widgets import ListeningTest

    display(ListeningTest(test.folder, listener=1, answers=tests / "yours.csv"))
except ImportError as error:
    print("The widgets are not installed here:", error)

# %% [markdown]
# Answer some pages yourself. Below, ten listeners who do not exist choose by beat F1, so that there is something to count.
# **Predict.** Ten listeners, six clips: is it enough to show that the right context matters?

# %%
ids, own = [item.id for item in items], tempfile.mkdtemp(dir=tests)
answers = simulate_answers(test, own, lambda i, s: 4 * scores[s][ids.index(i)], seed=SEED)
shares = listening_statistics.pair_shares(answers)
assert np.isclose(shares.smallest_p.min(), 2 / 2**6)
print(listening_statistics.bradley_terry(answers).round(2).to_string(index=False), end="\n\n")
power = listening_power.listening_power(0.7, 6, (5, 10, 40), n_simulations=100, seed=SEED)
print("a preference of 70 % is found by", power.set_index("n_listeners").power.to_dict())
shares[["system", "other", "share", "low", "high", "n", "p_listeners", "p_items"]].round(3)

# %% [markdown]
# `p_listeners` asks whether other people would agree about these clips, `p_items` whether these people would agree about
# other clips. Both must be small, and six clips never give a p below 2 / 2^6 = 0.03.
#
# ## 6. A report of your own
#
# `sl.evaluate` has left report.json and report.html in its folder. Yours may say less and mean more: one claim, its numbers
# with intervals, what it does not show. It is shown if the interval of the difference leaves out 0.

# %%
claim = f"nano listens: {'shown' if paired['low'] > 0 else 'not shown'}"
limits = [f"{len(windows)} windows, {len(song_ids)} songs, seed {SEED}.", "No people listened."]
numbers = {"right mix": spread.mean(four[0]), "another song's mix": spread.mean(four[1]),
           "difference": paired, "share of the gap": closed}  # fmt: skip
values = Table("Intervals over songs.", ["", ""], [[n, shown(e)] for n, e in numbers.items()])
own = page("Does nano listen?", claim, [
    Section("In numbers", [values, charts.intervals(numbers, "beat F1, share", line=0.0)]), Section("What this does not show", limits)])  # fmt: skip
(folder / "own.html").write_text(own, encoding="utf-8")
(folder / "own.json").write_text(json.dumps({"claim": claim, "numbers": numbers, "limits": limits}))
Frame(own, "Your report")

# %% [markdown]
# ## What could be wrong, in numbers
#
# - **The tracker.** Its ceiling is below 1, and no model can be shown to be better than the tracker hears.
# - **Many looks.** Of twenty tests of nothing, at least one has p below 0.05 in 64 % of cases. Say beforehand which number
#   decides.
#
# ## Words of this notebook
#
# | word | meaning | symbol, unit | in the code |
# |---|---|---|---|
# | floor | the same model with another song's context | as the measure | `"shuffled context"` |
# | ceiling | the real stem | as the measure | `"real"` |
# | bootstrap | draws the songs again, with replacement | 2000 resamples | `bootstrap.Bootstrap` |
# | paired test | tosses the sign of each song's difference | p | `bootstrap.paired_test` |
# | gap closed | (generated - shuffled) / (real - another) | share | `attrs["gap_closed"]` |
# | embedding of a clip | a clip as a point | `[n, d]` | `metrics.embeddings` |
# | FAD | distance of two sets, as Gaussians | of the embedding | `frechet.fad` |
# | KAD | distance of two sets, by a kernel | at most 2 | `frechet.kad` |
# | coherence | does a stem fit a mix? | rank of 16 | `metrics.coherence` |
# | power | how often a test finds what is there | share | `listening_power` |
#
# ## Can you say it without looking?
#
# 1. Why is the ceiling of beat F1 below 1, and its floor above 0?
# 2. A hundred windows of two songs: how many observations are that?
# 3. Two papers report FAD 3.1 (n = 5000) and 4.0 (n = 200). Which is better?
# 4. Which score does not change when all real stems are put to the wrong songs?
# 5. What do `p_listeners` and `p_items` ask?
#
# ## Sources
#
# - Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993.
# - FAD: Kilgour et al., Interspeech 2019; sample size: Gui et al., 2024, arXiv:2311.01616.
# - KAD: Chung et al., 2025, arXiv:2502.15602. COCOLA: Ciranni et al., 2024, arXiv:2404.16969.
# - Listening tests: ITU-R BS.1534-3, 2015; Bradley and Terry, 1952.
