"""Tiny made-up song folders for the tests: one tone per stem, in every layout that is read."""

import json

import numpy as np
import torch

from stage_lite.audio import save_audio
from stage_lite.files import sha256_of

RATE = 8000
TONES = {"drums": 200.0, "bass": 300.0, "keys": 500.0, "guitar": 700.0, "other": 1100.0}


def tone(hz, seconds=6.0, rate=RATE, level=0.1):
    time = torch.arange(round(seconds * rate)) / rate
    return (level * torch.sin(2 * torch.pi * hz * time))[None]


def loudness(wav, hz, rate=RATE):
    """Amplitude of one tone in a wav [1, L]."""
    time = np.arange(wav.shape[-1]) / rate
    return 2 * abs(np.mean(wav[0].numpy() * np.exp(-2j * np.pi * hz * time)))


def heard_stems(wav, rate=RATE):
    return {name for name, hz in TONES.items() if loudness(wav, hz, rate) > 0.03}


def own_song(root, number=0, split="train", seconds=6.0, silent=(), **labels):
    """A folder as Stage Lite's own maker writes it: 120 bpm, 4/4."""
    folder = root / f"song{number}"
    stems = {}
    for name, hz in TONES.items():
        wav = tone(hz, seconds) * (name not in silent)
        file = save_audio(folder / f"{name}.flac", wav, RATE)
        stems[name] = {"file": file.name, "sha256": sha256_of(file), "silent": name in silent}
    content = {
        "id": f"song{number}",
        "split": split,
        "bpm": 120.0,
        "beats_per_bar": 4,
        "duration_s": seconds,
        "beats": [0.5 * i for i in range(int(2 * seconds))],
        "downbeats": [2.0 * i for i in range(int(seconds / 2))],
        "chords": [[0.0, "Am7"], [2.0, "Bb/D"]],
        "key": "Am",
        "groove": "BossaNova",
        "family": "bossa nova",
        "stems": stems,
        "description": {"drums": "drums, bossa nova"},
        "description_long": {"drums": "drums, bossa nova, medium tempo"},
    }
    (folder / "song.json").write_text(json.dumps(content | labels))
    return folder


def moisesdb_song(root, number=0):
    folder = root / "moisesdb_v0.1" / f"track-{number}"
    stems = []
    for stem, kind, hz in [
        ("drums", "kick drum", TONES["drums"]),
        ("drums", "snare drum", 250.0),
        ("bass", "bass guitar", TONES["bass"]),
        ("other_keys", "organ", TONES["keys"]),
        ("bowed_strings", "violin section", TONES["other"]),
        ("other", "click track", 900.0),
        ("vocals", "lead male singer", 800.0),
    ]:
        track = f"{stem}-{kind[:5].strip()}"
        save_audio(folder / stem / f"{track}.wav", tone(hz), RATE)
        track = {"id": track, "trackType": kind, "extension": "wav", "has_bleed": False}
        stems.append({"stemName": stem, "tracks": [track]})
    labels = {"song": "A", "artist": "B", "genre": "bossa_nova", "stems": stems}
    (folder / "data.json").write_text(json.dumps(labels))
    return folder


def musdb18_song(root, split="train", name="A Band - A Song"):
    folder = root / split / name
    for stem, hz in {"drums": 200.0, "bass": 300.0, "other": 1100.0, "vocals": 800.0}.items():
        save_audio(folder / f"{stem}.wav", tone(hz, rate=11025).expand(2, -1), 11025)
    save_audio(folder / "mixture.wav", tone(200.0, rate=11025).expand(2, -1), 11025)
    return folder


def slakh_song(root, split="validation", name="Track00001", midi=True):
    folder = root / split / name
    stems = {
        "S00": {"inst_class": "Drums", "is_drum": True, "audio_rendered": True},
        "S01": {"inst_class": "Bass", "is_drum": False, "audio_rendered": True},
        "S02": {"inst_class": "Organ", "is_drum": False, "audio_rendered": True},
        "S03": {"inst_class": "Strings (continued)", "is_drum": False, "audio_rendered": True},
        "S04": {"inst_class": "Guitar", "is_drum": False, "audio_rendered": False},
    }
    for stem, hz in zip(stems, (200.0, 300.0, 500.0, 1100.0), strict=False):
        save_audio(folder / "stems" / f"{stem}.flac", tone(hz), RATE)
    save_audio(folder / "mix.flac", tone(200.0), RATE)
    lines = ["UUID: abc", "stems:"]
    for stem, entry in stems.items():
        lines.append(f"  {stem}:")
        lines += [f"    {key}: {str(value).lower() if isinstance(value, bool) else value}"
                  for key, value in entry.items()]  # fmt: skip
    (folder / "metadata.yaml").write_text("\n".join(lines))
    if midi:
        (folder / "all_src.mid").write_bytes(midi_file([(0, 100.0)], [(0, 3, 4)]))
    return folder


def midi_file(tempi, metres, ticks=480):
    """A one-track MIDI file of (tick, bpm) and (tick, numerator, denominator) events and a note."""
    events = [(t, bytes([0xFF, 0x51, 3]) + round(6e7 / bpm).to_bytes(3)) for t, bpm in tempi]
    events += [
        (t, bytes([0xFF, 0x58, 4, n, int(np.log2(d)), 24, 8])) for t, n, d in metres
    ]  # fmt: skip
    events += [(240, bytes([0x90, 60, 100])), (250, bytes([61, 100])), (260, bytes([0xC0, 5]))]
    data, last = b"", 0
    for tick, event in sorted(events, key=lambda pair: pair[0]):
        delta = tick - last
        parts = [delta & 0x7F]
        while delta := delta >> 7:
            parts.append(delta & 0x7F | 0x80)
        data += bytes(reversed(parts)) + event
        last = tick
    data += bytes([0, 0xFF, 0x2F, 0])
    head = b"MThd" + (6).to_bytes(4) + (0).to_bytes(2) + (1).to_bytes(2) + ticks.to_bytes(2)
    return head + b"MTrk" + len(data).to_bytes(4) + data
