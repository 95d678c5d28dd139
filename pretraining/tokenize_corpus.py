"""Turn a corpus of rendered songs into token shards.

    python pretraining/tokenize_corpus.py --corpus work/corpus --codec CODEC --out work/tokens

Songs are taken in blocks, one shard file a block; a block that is there is not made again, so the
script can be stopped and started. Every stem that is heard becomes a stream, and for each of the
targets a random mix of other stems, for drums and bass also all other stems together (`backing`),
and one click track. Songs to train on may be cut (`--train-seconds`): more songs teach more than
the rest of a song, and the encoder is the slow part.
"""

import argparse
import hashlib
import os
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from bf16_guard import guard

from stage_lite.codec import load_codec
from stage_lite.files import write_registry
from stage_lite.shards import ShardWriter, encode_song
from stage_lite.song import open_songs

TARGETS = ("drums", "bass", "keys", "guitar")
BLOCK = 40  # songs per shard
CONDITIONS = {"backing": {"drums": 1, "bass": 1}, "metronome": 1}


def make_block(
    corpus: Path, ids: list[str], codec_folder: Path, out: Path, name: str, mixes: int, cut_s
):
    """One shard file, in a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    codec, config = load_codec(codec_folder)
    guard(
        codec
    )  # bf16 is three times as fast, and gives 92 (last) to 99 % (first codebook) the same codes
    fingerprint = hashlib.sha256((codec_folder / "codec.safetensors").read_bytes()).hexdigest()[:16]
    writer = ShardWriter(
        out, card=config.card, prefix=name, songs_per_shard=10**9, codec=fingerprint
    )
    for song_id in ids:
        song = open_songs(corpus / song_id)[0]
        heard = [
            t for t in TARGETS if t in song.stem_names and not song.labels["stems"][t]["silent"]
        ]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            duration_s = cut_s if song.split == "train" else None
            streams = encode_song(
                codec, song, heard, {"mixture": mixes} | CONDITIONS, duration_s=duration_s
            )
        writer.add(*streams)
    writer.flush()
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mixes", type=int, default=1, help="random mixes per target and song")
    parser.add_argument("--train-seconds", type=float, help="of a song of the train split")
    parser.add_argument("--first", type=int, default=0, help="number of the first song")
    parser.add_argument("--songs", type=int, default=10**9)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    # ids end in the song's number; the splits are interleaved in that order
    ids = sorted((p.parent.name for p in args.corpus.glob("[!.]*/song.json")), key=lambda i: i[-5:])
    ids = ids[args.first : args.first + args.songs]
    args.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = []
        for start in range(0, len(ids), BLOCK):
            part = ids[start : start + BLOCK]
            name = f"{part[0][-5:]}"
            if not list(args.out.glob(f"{name}-*.safetensors")):
                jobs.append(
                    pool.submit(
                        make_block,
                        args.corpus,
                        part,
                        args.codec,
                        args.out,
                        name,
                        args.mixes,
                        args.train_seconds,
                    )
                )
        for done, job in enumerate(as_completed(jobs), 1):
            print(f"block {job.result()}: {done} of {len(jobs)}", flush=True)
            write_registry(args.out, "*.safetensors")


if __name__ == "__main__":
    main()
