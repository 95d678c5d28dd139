"""Tiny songs in the layouts of MoisesDB, MUSDB18 and Slakh2100, with every file and key they have.

Layouts as in the data sets' own readers: moises-ai/moises-db, sigsep/sigsep-mus-db and
ethman/slakh-utils. The audio is one tone per recording (songs.tone), 44.1 kHz as in all three.
"""

import json
import uuid

import av
import numpy as np
import yaml
from songs import midi_file, tone

from stage_lite.audio import save_audio

HZ = 44100
SECONDS = 3.0
PITCHES = {"drums": 200.0, "bass": 300.0, "other": 1100.0, "vocals": 800.0}
MUSDB18_STREAMS = ("mixture", "drums", "bass", "other", "vocals")
MOISES = [  # stem, kind of track, pitch, bleed
    ("drums", "kick drum", 200.0, False),
    ("drums", "overheads", 250.0, True),
    ("bass", "bass guitar", 300.0, False),
    ("guitar", "clean electric guitar", 700.0, False),
    ("piano", "grand piano", 500.0, False),
    ("other_keys", "synth pad", 520.0, False),
    ("bowed_strings", "violin section", 1100.0, False),
    ("wind", "flutes (piccolo, bamboo flute, panpipes, flutes etc)", 1150.0, False),
    ("percussion", "a-tonal percussion (claps, shakers, congas, cowbell etc)", 1300.0, False),
    ("other", "click track", 900.0, False),
    ("vocals", "lead female singer", 800.0, False),
]
SLAKH = [  # class, program name, program number, pitch or None for what was not rendered
    ("Drums", "Drums", 128, 200.0),
    ("Bass", "Electric Bass (finger)", 33, 300.0),
    ("Piano", "Electric Piano 1", 4, 500.0),
    ("Guitar", "Distortion Guitar", 30, 700.0),
    ("Strings (continued)", "Synth Strings 1", 50, 1100.0),
    ("Synth Pad", "Pad 2 (warm)", 89, 520.0),
    ("Sound Effects", "Seashore", 122, None),
]


def stereo(hz, seconds=SECONDS, level=0.1):
    wav = tone(hz, seconds, HZ, level)
    return wav.expand(2, -1).contiguous()


def mixture(seconds=SECONDS):
    return sum(stereo(hz, seconds) for hz in PITCHES.values())


def moisesdb(root, number=0, genre="bossa_nova", stems=MOISES, seconds=SECONDS):
    """moisesdb/moisesdb_v0.1/<uuid>/data.json and <stem>/<uuid>.wav, stereo."""
    name = str(uuid.UUID(int=number))
    folder = root / "moisesdb" / "moisesdb_v0.1" / name
    listed = {}
    for place, (stem, kind, hz, bleed) in enumerate(stems):
        track = str(uuid.UUID(int=1000 * number + place))
        save_audio(folder / stem / f"{track}.wav", stereo(hz, seconds), HZ)
        entry = listed.setdefault(
            stem, {"id": str(uuid.UUID(int=place)), "stemName": stem, "tracks": []}
        )
        entry["tracks"].append(
            {"id": track, "trackType": kind, "has_bleed": bleed, "extension": "wav"}
        )
    labels = {
        "song": f"Song {number}",
        "artist": "Artist",
        "genre": genre,
        "stems": list(listed.values()),
    }
    (folder / "data.json").write_text(json.dumps(labels))
    return folder


def musdb18_hq(root, split="train", name="A Band - A Song", seconds=SECONDS):
    """musdb18hq/<split>/<Artist - Title>/{mixture,drums,bass,other,vocals}.wav, stereo."""
    folder = root / "musdb18hq" / split / name
    for stem, hz in PITCHES.items():
        save_audio(folder / f"{stem}.wav", stereo(hz, seconds), HZ)
    save_audio(folder / "mixture.wav", mixture(seconds), HZ)
    return folder


def musdb18(root, split="train", name="A Band - A Song", seconds=SECONDS, names=None):
    """musdb18/<split>/<Artist - Title>.stem.mp4: five AAC streams, stereo, 256 kbit/s.

    `names` adds the box moov/udta/stem of Native Instruments with names of streams 1 to 4.
    """
    file = root / "musdb18" / split / f"{name}.stem.mp4"
    file.parent.mkdir(parents=True, exist_ok=True)
    wavs = [mixture(seconds), *(stereo(PITCHES[stem], seconds) for stem in MUSDB18_STREAMS[1:])]
    with av.open(str(file), "w", format="mp4") as container:
        streams = [container.add_stream("aac", rate=HZ, layout="stereo") for _ in wavs]
        for stream in streams:
            stream.bit_rate = 256_000
        for start in range(0, wavs[0].shape[1], 1024):
            for stream, wav in zip(streams, wavs, strict=True):
                samples = np.ascontiguousarray(wav[:, start : start + 1024].numpy())
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = HZ, start
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    if names is not None:
        _add_stem_box(file, names)
    return file


def _add_stem_box(file, names):
    """Put udta/stem at the end of moov, which is the last box that PyAV writes."""
    content = json.dumps({"version": 1, "stems": [{"name": n, "color": "#000000"} for n in names]})
    box = _box(b"udta", _box(b"stem", content.encode()))
    whole = file.read_bytes()
    place = whole.rindex(b"moov") - 4
    size = int.from_bytes(whole[place : place + 4])
    assert place + size == len(whole)
    file.write_bytes(whole[:place] + (size + len(box)).to_bytes(4) + whole[place + 4 :] + box)


def _box(kind, content):
    return (len(content) + 8).to_bytes(4) + kind + content


def slakh(root, split="train", name="Track00001", piece=None, stems=SLAKH, seconds=SECONDS):
    """slakh2100_flac_redux/<split>/<Track>/: metadata.yaml, all_src.mid, MIDI, mix.flac, stems."""
    folder = root / "slakh2100_flac_redux" / split / name
    piece = piece or uuid.uuid5(uuid.NAMESPACE_OID, name).hex
    entries, midi = {}, midi_file([(0, 100.0)], [(0, 3, 4)])
    for place, (kind, program, number, hz) in enumerate(stems):
        stem = f"S{place:02d}"
        entries[stem] = {
            "audio_rendered": hz is not None,
            "inst_class": kind,
            "integrated_loudness": -20.5 if hz is not None else None,
            "is_drum": kind == "Drums",
            "midi_program_name": program,
            "midi_saved": hz is not None,
            "plugin_name": "some_plugin.nkm",
            "program_num": number,
        }
        if hz is not None:
            save_audio(folder / "stems" / f"{stem}.flac", tone(hz, seconds, HZ), HZ)
            (folder / "MIDI").mkdir(exist_ok=True)
            (folder / "MIDI" / f"{stem}.mid").write_bytes(midi)
    save_audio(folder / "mix.flac", tone(200.0, seconds, HZ), HZ)
    (folder / "all_src.mid").write_bytes(midi)
    labels = {
        "UUID": piece,
        "audio_dir": "stems",
        "lmd_midi_dir": f"lmd_matched/A/A/A/TRAAA/{piece}.mid",
        "midi_dir": "MIDI",
        "normalization_factor": -13.0,
        "normalized": True,
        "overall_gain": 0.18270259567062658,
        "stems": entries,
        "target_peak": -1.0,
    }
    (folder / "metadata.yaml").write_text(yaml.safe_dump(labels))
    return folder
