"""What the nano codec keeps of the test split, next to Opus and MP3.

    python pretraining/report_codec.py --codec work/codec/codec --corpus work/corpus --out it.json

Measures, of seeded windows of stems and mixes (the sum of all stems):
- log-mel distance: mean |log10 mel(decoded) - log10 mel(original)| over four resolutions, as in
  codec_losses.LogMelDistance; 0.1 is 2 dB.
- SI-SDR in dB (Le Roux et al. 2019). It asks for the same waveform, which a codec at this rate does
  not aim at: read it as a check of timing and phase. Clipped to [-60, 60].
- onset F1 at 50 ms between decoded and original drums (metrics.beats).
- entries of each codebook that occur at all in the sample, and their perplexity.
Writes it.json and it.png and prints Markdown tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from anchors import ANCHORS, missing, through
from codec_losses import LogMelDistance
from jaxtyping import Float, Int
from markdown_table import table
from numpy import ndarray
from segments import STEMS, read_songs
from torch import Tensor

from stage_lite.audio import level_db
from stage_lite.codec import decode, encode, load_codec
from stage_lite.errors import StageLiteError
from stage_lite.files import sha256_of, write_atomic
from stage_lite.metrics.beats import find_onsets, onset_f1
from stage_lite.metrics.bootstrap import Bootstrap, shown
from stage_lite.song import Song, open_songs

KINDS = (*STEMS, "mix")
PICTURED = ("drums", "keys", "mix")
SILENCE_DB = -50.0  # windows below are not drawn


@dataclasses.dataclass
class Windows:
    """What is coded: windows of one kind."""

    kind: str
    wavs: Float[Tensor, "n L"]
    song_ids: list[str]
    onsets: list[ndarray]  # of drums, else empty


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON; the picture goes beside it")
    parser.add_argument("--n", type=int, default=50, help="windows of each kind")
    parser.add_argument("--window", type=float, default=8.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-anchors", action="store_true")
    return parser.parse_args(argv)


def draw(songs: list[Song], kind: str, n: int, window_s: float, seed: int) -> Windows:
    """Windows in which the kind is heard; every song is taken once before any is taken again."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    having = [s for s in songs if kind in (*s.stem_names, "mix") and s.duration_s >= window_s]
    if not having:
        raise StageLiteError(f"no song of {len(songs)} has {kind} and lasts {window_s} s")
    wavs, ids = [], []
    for _ in range(20):
        for i in rng.permutation(len(having)):
            start_s = rng.random() * (having[i].duration_s - window_s)
            wav = (
                having[i].mix(None, start_s, window_s)
                if kind == "mix"
                else having[i].stem(kind, start_s, window_s)
            )
            if len(wavs) < n and level_db(wav) > SILENCE_DB:
                wavs.append(wav[0])
                ids.append(having[i].id)
        if len(wavs) == n:
            break
    stacked = torch.stack(wavs)
    onsets = [find_onsets(w[None], songs[0].sample_rate) for w in wavs] if kind == "drums" else []
    return Windows(kind, stacked, ids, onsets)


def si_sdr(decoded: Float[Tensor, "n L"], original: Float[Tensor, "n L"]) -> Float[ndarray, "n"]:
    """Scale-invariant signal-to-distortion ratio in dB, clipped to [-60, 60]."""
    decoded = (decoded - decoded.mean(1, keepdim=True)).double()
    original = (original - original.mean(1, keepdim=True)).double()
    tiny = 1e-12
    gain = (decoded * original).sum(1) / (original.square().sum(1) + tiny)
    wanted = gain[:, None] * original
    ratio = (wanted.square().sum(1) + tiny) / ((wanted - decoded).square().sum(1) + tiny)
    silent = decoded.square().sum(1) < tiny
    return (10 * torch.log10(ratio)).masked_fill(silent, -60.0).clamp(-60, 60).numpy()


def measure(
    windows: Windows, decoded: Float[Tensor, "n L"], mel: LogMelDistance, sample_rate: int
) -> dict[str, dict]:
    """Every measure of one kind under one codec, with intervals over songs."""
    spread = Bootstrap(windows.song_ids)
    pairs = list(zip(decoded, windows.wavs, strict=True))
    distance = np.array([float(mel(a[None, None], b[None, None])) for a, b in pairs])
    scores = {
        "log_mel": spread.mean(distance),
        "si_sdr_db": spread.mean(si_sdr(decoded, windows.wavs)),
    }
    if windows.onsets:
        f1 = [
            onset_f1(onsets, find_onsets(wav[None], sample_rate)) if len(onsets) else np.nan
            for onsets, wav in zip(windows.onsets, decoded, strict=True)
        ]
        scores["onset_f1"] = spread.mean(np.array(f1))
        scores["onset_f1"]["n"] = int(np.isfinite(f1).sum())
    return scores


def codec_systems(
    codec: torch.nn.Module, codes: dict[str, Int[Tensor, "n K T"]], n_samples: int
) -> Iterator[tuple[str, float, dict[str, Tensor]]]:
    """(name, kbit/s, decoded wavs of each kind) with K to 1 codebooks."""
    kbit_s = float(np.log2(codec.cardinality)) * codec.frame_rate / 1000
    for k in range(codec.total_codebooks, 0, -1):
        wavs = {}
        for kind, rows in codes.items():
            decoded = [decode(codec, row[None, :k]).clamp(-1, 1)[0, 0] for row in rows]
            wavs[kind] = torch.stack(decoded)[:, :n_samples]
        yield f"nano codec, {k} codebook{'s' * (k > 1)}", k * kbit_s, wavs


def anchor_systems(
    all_windows: list[Windows], sample_rate: int
) -> Iterator[tuple[str, float, dict[str, Tensor]]]:
    """(name, kbit/s, decoded wavs of each kind). The windows of a kind are coded as one file."""
    for anchor in ANCHORS:
        wavs, rates = {}, []
        for w in all_windows:
            joined, kbit_s = through(anchor, w.wavs.flatten().numpy(), sample_rate)
            wavs[w.kind] = torch.from_numpy(joined).view_as(w.wavs)
            rates.append(kbit_s)
        yield anchor.name, float(np.mean(rates)), wavs


def usage(codes: dict[str, Tensor], card: int) -> dict:
    """Of each codebook: share of the entries that occur, and perplexity."""
    frames = torch.cat([c.transpose(1, 2).flatten(0, 1) for c in codes.values()])  # [frames, K]
    shares, perplexities = [], []
    for column in frames.T:
        p = torch.bincount(column, minlength=card).double() / len(column)
        shares.append(float((p > 0).double().mean()))
        perplexities.append(float(torch.exp(-(p[p > 0] * p[p > 0].log()).sum())))
    return {"in_use": shares, "perplexity": perplexities, "card": card, "n_frames": len(frames)}


def markdown(result: dict) -> str:
    """The tables of the model card."""
    header = ["codec", "kbit/s", *KINDS]
    blocks = [f"n = {result['n']} windows of {result['window_s']:g} s per kind, split "
              f"{result['split']!r}, {result['n_songs']} songs, seed {result['seed']}; "
              "95 % intervals over songs."]  # fmt: skip
    for key, title in (("log_mel", "Log-mel distance (log10; lower is better)"),
                       ("si_sdr_db", "SI-SDR in dB (higher is better)")):  # fmt: skip
        digits = 3 if key == "log_mel" else 1
        rows = [
            [s["name"], f"{s['kbit_s']:.2f}",
             *(shown(s["kinds"][kind][key], digits) for kind in KINDS)]
            for s in result["systems"]
        ]  # fmt: skip
        blocks += [f"**{title}**", table(header, rows)]
    rows = [
        [s["name"], f"{s['kbit_s']:.2f}", shown(s["kinds"]["drums"]["onset_f1"])]
        for s in result["systems"]
    ]
    blocks += ["**Onset F1 of decoded against original drums, 50 ms**",
               table(["codec", "kbit/s", "onset F1"], rows)]  # fmt: skip
    used = result["usage"]
    rows = [
        [str(k), f"{share:.1%}", f"{p:.0f}"]
        for k, (share, p) in enumerate(zip(used["in_use"], used["perplexity"], strict=True), 1)
    ]
    blocks += [f"**Entries in use, of {used['card']}, over {used['n_frames']} frames**",
               table(["codebook", "in use", "perplexity"], rows)]  # fmt: skip
    if result["anchors_missing"]:
        blocks.append(f"No Opus and MP3: {result['anchors_missing']}.")
    return "\n\n".join(blocks)


def draw_spectrograms(clips: dict[str, dict[str, Tensor]], sample_rate: int, file: Path) -> str:
    """A grid of log-mel spectrograms, clip by clip in columns; returns its description."""
    import librosa
    from matplotlib.figure import Figure

    names = list(next(iter(clips.values())))
    figure = Figure(figsize=(4 * len(clips), 1.9 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(clips), sharex=True, sharey=True, squeeze=False)
    for column, (kind, versions) in enumerate(clips.items()):
        top = None  # the original is 0 dB for all versions of a clip
        for row, name in enumerate(names):
            power = librosa.feature.melspectrogram(
                y=versions[name].numpy(), sr=sample_rate, n_fft=1024, hop_length=256, n_mels=96
            )
            level = 10 * np.log10(power + 1e-10)
            top = level.max() if top is None else top
            axis = axes[row, column]
            image = axis.imshow(
                level - top, origin="lower", aspect="auto", vmin=-70, vmax=0, cmap="viridis",
                extent=(0, versions[name].shape[-1] / sample_rate, 0, 96),
            )  # fmt: skip
            axis.set_yticks([])
            if row == 0:
                axis.set_title(kind)
            if column == 0:
                axis.set_ylabel(name, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB below the original's loudest", shrink=0.5)
    figure.savefig(file, dpi=110, facecolor="white", metadata={"Software": None})
    rows = "; ".join(name.replace("\n", ", ") for name in names)
    return (
        f"Log-mel spectrograms of {len(clips)} clips ({', '.join(clips)}) in columns; rows, top "
        f"to bottom: {rows}. Colour is dB below the original's loudest place."
    )


def report(args: argparse.Namespace) -> dict:
    """Everything; writes the files, returns what is in the JSON."""
    torch.set_num_threads(args.threads)
    codec, config = load_codec(args.codec)
    songs = [
        open_songs(song["folder"], config.sample_rate)[0]
        for song in read_songs(args.corpus, (args.split,))
    ]
    if not songs:
        raise StageLiteError(f"no songs of split {args.split!r} in {args.corpus}")
    print(f"{len(songs)} songs of split {args.split!r}", flush=True)
    all_windows = [draw(songs, kind, args.n, args.window, args.seed) for kind in KINDS]
    print("windows:", {w.kind: len(w.wavs) for w in all_windows}, flush=True)
    mel = LogMelDistance(config.sample_rate)
    systems: list[dict] = []
    clips = {w.kind: {"original": w.wavs[0]} for w in all_windows if w.kind in PICTURED}

    def add(name: str, kbit_s: float, wavs: dict[str, Tensor], label: str | None) -> None:
        kinds = {w.kind: measure(w, wavs[w.kind], mel, config.sample_rate) for w in all_windows}
        systems.append({"name": name, "kbit_s": kbit_s, "kinds": kinds})
        for kind in clips if label else ():
            clips[kind][f"{label}\n{kbit_s:.2f} kbit/s"] = wavs[kind][0]
        print(f"{name}: {kbit_s:.2f} kbit/s", flush=True)

    codes = {w.kind: torch.cat([encode(codec, x[None, None]) for x in w.wavs]) for w in all_windows}
    n_samples = round(args.window * config.sample_rate)
    for name, kbit_s, wavs in codec_systems(codec, codes, n_samples):
        k = config.n_q - len(systems)
        add(name, kbit_s, wavs, name.split(", ")[1] if k in (1, config.n_q) else None)
    reason = "not asked for" if args.no_anchors else missing()
    if reason is None:
        for name, kbit_s, wavs in anchor_systems(all_windows, config.sample_rate):
            add(name, kbit_s, wavs, "Opus" if "that sounds" in name else None)
    picture = args.out.with_suffix(".png")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    alt = draw_spectrograms(clips, config.sample_rate, picture)
    result = {
        "what": "codec report",
        "n": args.n,
        "window_s": args.window,
        "seed": args.seed,
        "split": args.split,
        "n_songs": len(songs),
        "n_windows": {w.kind: len(w.wavs) for w in all_windows},
        "codec_sha256": sha256_of(args.codec / "codec.safetensors"),
        "usage": usage(codes, config.card),
        "systems": systems,
        "anchors_missing": reason,
        "figure": {"file": picture.name, "alt": alt},
    }
    write_atomic(args.out, json.dumps(result, indent=1) + "\n")
    print("\n" + markdown(result))
    return result


if __name__ == "__main__":
    report(arguments())
