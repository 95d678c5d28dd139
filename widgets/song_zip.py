"""A song in the making as a zip: stems, mix, beats and a tempo map.

    song.json       Stage Lite's own layout: unpacked, `StemDataset` and `open_songs` read it
    context.wav  drums.wav  bass.wav ...        16 bit
    mix.wav                                     all of them together
    beats.txt       seconds, beat in the bar
    tempo.mid       tempo map: bar lines of a music program fall on the beats
    click.wav       if it began with one

Same song, same bytes. Notebook: 00_quickstart.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float
from torch import Tensor

from stage_lite.audio import is_silent
from stage_lite.errors import StageLiteError
from stage_lite.metronome import tempo_of

from .accompaniment import Accompaniment, Tempo
from .midi_tempo import midi_tempo_map

_DATE = (1980, 1, 1, 0, 0, 0)  # of every file in the zip


def song_zip(song: Accompaniment) -> bytes:
    """The content of the .zip file. Beats that nobody knows are tracked, which takes seconds.

    Raises:
        StageLiteError: there is nothing to export yet.
    """
    parts = song.parts()
    if not parts:
        raise StageLiteError(
            "there is nothing to export; expected a context or a stem that is kept; keep a take"
        )
    files: dict[str, bytes] = {}
    stems: dict[str, dict[str, Any]] = {}
    click = song.context is not None and song.context.is_click
    for i, (name, wav) in enumerate(parts.items()):
        from_context = i == 0 and song.context is not None and name == song.context.name
        stem = "context" if from_context else _plain(name)
        while stem in stems:
            stem += "-"
        if from_context and click:
            continue
        content = _wav(wav, song.sample_rate)
        files[f"{stem}.wav"] = content
        stems[stem] = {
            "file": f"{stem}.wav",
            "sha256": hashlib.sha256(content).hexdigest(),
            "silent": is_silent(wav),
        }
    files["mix.wav"] = _wav(song.mix(), song.sample_rate)
    if click:
        files["click.wav"] = _wav(song.context.wav, song.sample_rate)
    tempo = song.tempo()
    if len(tempo.beats) > 1:
        files["beats.txt"] = _beats_text(tempo).encode()
        files["tempo.mid"] = midi_tempo_map(tempo.beats, tempo.downbeats)
    labels = _labels(song, tempo, stems)
    files["song.json"] = json.dumps(labels, indent=1, ensure_ascii=False).encode()

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _DATE), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _labels(song: Accompaniment, tempo: Tempo, stems: dict[str, dict]) -> dict[str, Any]:
    """song.json: what is in the folder, the beats, and how each take can be made again."""
    kept = [stem for stem in stems if stem != "context"]
    takes = dict(zip(kept, song.kept, strict=True))
    labels = {
        "id": "accompaniment",
        "sample_rate": song.sample_rate,
        "duration_s": max(wav.shape[-1] for wav in song.parts().values()) / song.sample_rate,
        "context": None if song.context is None else song.context.name,
        "beats": [round(float(t), 6) for t in tempo.beats],
        "downbeats": [round(float(t), 6) for t in tempo.downbeats],
        "beats_are": tempo.source,
        "stems": stems,
        "description": {name: take.description for name, take in takes.items()},
        "takes": {
            name: {
                "description": take.description,
                "cfg_coef": take.cfg_coef,
                "seed": take.seed,
                "heard": list(take.heard),
            }
            for name, take in takes.items()
        },
    }
    bpm = tempo_of(tempo.beats)
    return labels if bpm is None else labels | {"bpm": round(bpm, 2)}


def _beats_text(tempo: Tempo) -> str:
    """As Beat This and mir_eval write them, and `metronome.read_beats` reads them."""
    bars = np.flatnonzero(np.isin(np.round(tempo.beats, 4), np.round(tempo.downbeats, 4)))
    per_bar = int(np.median(np.diff(bars))) if len(bars) > 1 else 4
    place = -int(bars[0]) % per_bar if len(bars) else 0
    lines = [f"# seconds, beat in the bar; {tempo.source}"]
    for i, beat in enumerate(tempo.beats):
        place = 1 if i in bars else place + 1
        lines.append(f"{beat:.6f}\t{place}")
    return "\n".join(lines) + "\n"


def _wav(wav: Float[Tensor, "C L"], sample_rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wav.numpy().T, sample_rate, "PCM_16", format="WAV")
    return buffer.getvalue()


def _plain(name: str) -> str:
    """A name that is one on every system: letters, digits, -; never a path."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "stem"
