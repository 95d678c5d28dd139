"""A corpus of made-up songs in which timing, chords and groove can be heard."""

import json

import numpy as np
import soundfile

RATE = 32000
FAMILIES = {"march": (150, 190), "slow waltz": (60, 80)}  # bpm


def toy_song(folder, number, split, rng, seconds=6.0):
    """Drums are bursts on the beats; bass and keys play the same notes, a chord lasts two beats."""
    family = list(FAMILIES)[number % 2]
    bpm = rng.uniform(*FAMILIES[family])
    beats = np.arange(rng.uniform(0.05, 0.3), seconds - 0.3, 60 / bpm)
    stems = {
        name: np.zeros(round(seconds * RATE), np.float32) for name in ("drums", "bass", "keys")
    }
    time = np.arange(round(0.25 * RATE)) / RATE
    roots = rng.permutation(12)[: 1 + len(beats) // 2]
    for i, beat in enumerate(beats):
        place = slice(round(beat * RATE), round(beat * RATE) + len(time))
        stems["drums"][place] += 0.3 * np.exp(-time * 60) * rng.standard_normal(len(time))
        for name, octave in (("bass", 1), ("keys", 4)):
            hz = 65.406 * octave * 2 ** (roots[i // 2] / 12)
            stems[name][place] += 0.3 * np.exp(-time * 8) * np.sin(2 * np.pi * hz * time)
    song = folder / f"{split}-{number:03d}"
    song.mkdir(parents=True)
    for name, wav in stems.items():
        soundfile.write(song / f"{name}.wav", wav, RATE, subtype="PCM_16")
    labels = {
        "id": song.name, "split": split, "sample_rate": RATE, "bpm": bpm, "duration_s": seconds,
        "beats": beats.tolist(), "downbeats": beats[::2].tolist(), "beats_per_bar": 2,
        "chords": [[beat, str(root)] for beat, root in zip(beats[::2], roots, strict=False)],
        "family": family, "groove": family,
        "stems": {name: {"file": f"{name}.wav", "silent": False} for name in stems},
        "description": {name: f"{name}, {family}" for name in stems},
    }  # fmt: skip
    (song / "song.json").write_text(json.dumps(labels))


def toy_corpus(folder, n_train=16, n_valid=16, n_test=16):
    """The songs of three splits below a folder."""
    rng = np.random.default_rng(0)
    for split, n in (("train", n_train), ("valid", n_valid), ("test", n_test)):
        for number in range(n):
            toy_song(folder, number, split, rng)
    return folder
