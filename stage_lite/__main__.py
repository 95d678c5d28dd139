"""`python -m stage_lite doctor | demo | generate | scan | train | evaluate`, or `stage-lite`."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import __version__
from .errors import StageLiteError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 not well (doctor, scan), 2 bad input, 130 Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        with _plain_warnings():
            return arguments.run(arguments)
    except StageLiteError as error:
        print(f"stage-lite {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stage-lite {arguments.command}: stopped", file=sys.stderr)
        return 130


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """A shell wants the sentence, not the line of code that it came from."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stage-lite",
        description="A small MusicGen that plays along. `stage-lite COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"stage-lite {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = commands.add_parser(
        "doctor", help="what is installed, what is missing, how to mend it"
    )
    doctor.set_defaults(run=_doctor)

    demo = commands.add_parser("demo", help="generate drums and bass for a shipped mix into out/")
    demo.add_argument(
        "--out", type=Path, default=Path("out"), help="folder to write (default: out)"
    )
    demo.add_argument("--seed", type=int, default=0, help="same seed, same music (default: 0)")
    demo.add_argument("--song", help="a shipped song or part of its name (default: the first)")
    demo.add_argument("--duration", type=float, help="seconds (default: what the model learnt on)")
    demo.add_argument("--description", help="style in words (default: what the song is)")
    demo.set_defaults(run=_demo)

    generate = commands.add_parser(
        "generate",
        help="generate one stem for a mix, or from words alone",
        description="Generate one stem that plays along with --context, or from the words alone.",
        epilog="stage-lite generate --context mix.wav --description 'drums, rock' --out drums.wav",
    )
    generate.add_argument("--context", type=Path, help="audio to play along with: a mix or a click")
    generate.add_argument(
        "--description", help="stem and style in words, for example 'bass, bossa nova'"
    )
    generate.add_argument(
        "--out", type=Path, required=True, help=".wav, .flac or .ogg; overwritten"
    )
    generate.add_argument(
        "--mix-out", type=Path, help="also write the context and the stem together"
    )
    generate.add_argument("--model", default="nano", help="name or folder (default: nano)")
    generate.add_argument(
        "--duration", type=float, help="seconds (default: what the model learnt on)"
    )
    generate.add_argument("--cfg", type=float, default=3.0, help="guidance; 1 is none (default: 3)")
    generate.add_argument(
        "--temperature", type=float, default=1.0, help="0 takes the likeliest (default: 1)"
    )
    generate.add_argument(
        "--top-k", type=int, default=250, help="draw from the k likeliest (default: 250)"
    )
    generate.add_argument(
        "--seed", type=int, help="same seed, same music (default: another each time)"
    )
    generate.set_defaults(run=_generate)

    train = commands.add_parser(
        "train",
        help="fine-tune a model on a folder of stems",
        description="Fine-tune a model on a folder of stems. Ctrl-C keeps all; run again to go on.",
        epilog="stage-lite train --data songs --target drums --checkpoint-dir runs/drums; "
        "on several GPUs: torchrun --nproc-per-node 4 -m stage_lite train ...",
    )
    train.add_argument(
        "--data", type=Path, required=True, help="folder of songs, each a folder of stems"
    )
    train.add_argument("--target", default="drums", help="stem to learn (default: drums)")
    train.add_argument(
        "--conditions", nargs="+", default=["mixture", "metronome"],
        help="what may stand before the target (default: mixture metronome)",
    )  # fmt: skip
    train.add_argument("--window", type=float, default=8.0, help="seconds per example (default: 8)")
    train.add_argument(
        "--model", default="nano-base", help="model to start from (default: nano-base)"
    )
    train.add_argument("--steps", type=int, default=500, help="optimiser steps (default: 500)")
    train.add_argument("--checkpoint-dir", type=Path, required=True, help="written every few steps")
    train.add_argument("--batch-size", type=int, default=8, help="windows per step (default: 8)")
    train.add_argument("--learning-rate", type=float, default=3e-4, help="(default: 3e-4)")
    train.add_argument("--seed", type=int, default=0, help="of data order and dropout (default: 0)")
    train.add_argument(
        "--augment", action="store_true",
        help="half of the windows faster or slower, half of them higher or lower; stems only",
    )  # fmt: skip
    train.add_argument(
        "--skip", type=Path, help="what `stage-lite scan --out` wrote: leave out its broken songs"
    )
    train.add_argument(
        "--accumulation", type=int, default=1,
        help="forward passes that share a step, for less memory (default: 1)",
    )  # fmt: skip
    train.add_argument(
        "--activation-checkpointing", action="store_true",
        help="compute layers twice to need less memory",
    )  # fmt: skip
    train.add_argument(
        "--precision", default="32-true", help="32-true, bf16-mixed or 16-mixed (default: 32-true)"
    )
    train.add_argument(
        "--lora-rank", type=int, default=0,
        help="train two thin matrices beside each large one, with peft (default: 0, all weights)",
    )  # fmt: skip
    train.add_argument(
        "--strategy", help="over torchrun's processes: ddp or fsdp (default: ddp if it has several)"
    )
    train.add_argument("--device", help="cpu, cuda or mps (default: cuda if there is one)")
    train.add_argument("--devices", type=int, help="processes on this machine, to be checked")
    train.add_argument("--fresh", action="store_true", help="start again instead of going on")
    train.set_defaults(run=_train)

    scan = commands.add_parser(
        "scan",
        help="what is broken in a folder of songs, before training finds out",
        description="List what is broken, odd or worth knowing in a folder of stems. Nothing is "
        "changed. The exit code is 1 if something is broken.",
        epilog="stage-lite scan --data songs --target drums",
    )
    scan.add_argument("--data", type=Path, required=True, help="folder of songs")
    scan.add_argument("--target", help="stem that is to be learnt; songs without it are listed")
    scan.add_argument("--window", type=float, default=8.0, help="seconds per example (default: 8)")
    scan.add_argument(
        "--quick", action="store_true", help="read heads and tails of files only: misses silence"
    )
    scan.add_argument(
        "--track-beats", action="store_true",
        help="track the beats of songs without labels now, and keep them",
    )  # fmt: skip
    scan.add_argument("--workers", type=int, help="files read at once (default: cores, up to 8)")
    scan.add_argument("--out", type=Path, help="also write all rows to this .csv file")
    scan.set_defaults(run=_scan)

    evaluate = commands.add_parser(
        "evaluate",
        help="how well a model plays along, next to its ceiling and floor",
        description="Compare what a model plays to a folder of songs with the real stems, with "
        "other contexts and with a loop; writes a page, a picture and JSON.",
        epilog="stage-lite evaluate --data songs --target drums --n 64 --out report",
    )
    evaluate.add_argument("--model", default="nano", help="name or folder (default: nano)")
    evaluate.add_argument(
        "--data", type=Path, required=True, help="folder of songs, or of token shards"
    )
    evaluate.add_argument("--target", default="drums", help="stem to play (default: drums)")
    evaluate.add_argument(
        "--conditions", nargs="+", default=["mixture"],
        help="what the model hears: mixture, backing, metronome ... (default: mixture)",
    )  # fmt: skip
    evaluate.add_argument("--split", help="songs of this split (default: test, else all songs)")
    evaluate.add_argument("--window", type=float, default=8.0, help="seconds (default: 8)")
    evaluate.add_argument("--n", type=int, default=64, help="windows (default: 64)")
    evaluate.add_argument(
        "--seed", type=int, default=0, help="of windows and of generation (default: 0)"
    )
    evaluate.add_argument("--cfg", type=float, default=3.0, help="guidance; 1 is none (default: 3)")
    evaluate.add_argument("--temperature", type=float, default=1.0, help="(default: 1)")
    evaluate.add_argument("--top-k", type=int, default=250, help="(default: 250)")
    evaluate.add_argument(
        "--metrics", nargs="+", help="some of the metrics, by name (default: all)"
    )
    evaluate.add_argument(
        "--tracker", default="librosa", help="of beats: librosa or beat-this (default: librosa)"
    )
    evaluate.add_argument(
        "--embedding", default="log-mel",
        help="for FAD and KAD: log-mel, codec, clap, vggish or panns (default: log-mel)",
    )  # fmt: skip
    evaluate.add_argument("--out", type=Path, required=True, help="folder for the report")
    evaluate.add_argument(
        "--cache", type=Path, help="folder that keeps results, to go on after Ctrl-C"
    )
    evaluate.add_argument("--batch-size", type=int, default=16, help="windows (default: 16)")
    evaluate.set_defaults(run=_evaluate)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    from . import doctor

    return doctor.main()


SMALL_DIM = 512  # width of a model below which a step is many small calls


def _one_thread() -> None:
    """Generation with a small model gains nothing by a second thread, and where the machine is busy
    each of its many small calls waits for that thread (dev/LOG.md: five times as long)."""
    import torch

    torch.set_num_threads(1)


def _demo(arguments: argparse.Namespace) -> int:
    from . import demo

    _one_thread()
    demo.run(
        out=arguments.out,
        seed=arguments.seed,
        song=arguments.song,
        duration_s=arguments.duration,
        description=arguments.description,
    )
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    from .audio import load_audio, mix, resample, save_audio, to_mono
    from .model import load

    for file in filter(None, (arguments.out, arguments.mix_out)):
        _check_writable(file)
    if arguments.mix_out and not arguments.context:
        raise StageLiteError("--mix-out needs --context: without one there is nothing to mix with")
    context, sample_rate = load_audio(arguments.context) if arguments.context else (None, None)
    model = load(arguments.model)
    if model.lm.dim < SMALL_DIM:
        _one_thread()
    out = model.generate(
        context=context,
        context_sample_rate=sample_rate,
        description=arguments.description,
        duration_s=arguments.duration,
        cfg_coef=arguments.cfg,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
        progress=sys.stderr.isatty(),
    )
    out.save(arguments.out)
    print(f"{arguments.out}: {out.duration_s:.2f} s at {out.sample_rate} Hz, "
          f"{out.seconds_per_step * 1000:.1f} ms a step")  # fmt: skip
    if arguments.mix_out:
        heard = to_mono(resample(context, sample_rate, out.sample_rate))  # [1, L]
        stem = out.wav[0]  # [C, L]
        length = min(heard.shape[-1], stem.shape[-1])
        save_audio(arguments.mix_out, mix([heard[:, :length], stem[:, :length]]), out.sample_rate)
        print(f"{arguments.mix_out}: the context and the stem together")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from .model import load
    from .processes import device_of_process
    from .training import finetune

    model = load(arguments.model).to(device_of_process(arguments.device))
    data, validation = _datasets(arguments)
    run = finetune(
        model,
        data,
        steps=arguments.steps,
        checkpoint_dir=arguments.checkpoint_dir,
        resume=not arguments.fresh,
        validation=validation,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        accumulation=arguments.accumulation,
        activation_checkpointing=arguments.activation_checkpointing,
        precision=arguments.precision,
        lora_rank=arguments.lora_rank,
        strategy=arguments.strategy,
        devices=arguments.devices,
    )
    if run.rank > 0:
        return 130 if run.interrupted else 0
    model.config = replace(model.config, name=arguments.checkpoint_dir.absolute().name)
    folder = model.save(arguments.checkpoint_dir / "model")
    print(f"{run.step} steps; stage-lite generate --model {folder} ... plays with it")
    return 130 if run.interrupted else 0


def _datasets(arguments: argparse.Namespace):
    """Training windows, and held-out ones if the folder has songs to hold out."""
    from .examples import shuffle_contexts
    from .processes import is_first_process

    settings = {
        "window_s": arguments.window,
        "conditions": arguments.conditions,
        "seed": arguments.seed,
    }
    kind = _kind_of(arguments.data)
    own = {}  # of the songs that are trained on
    if kind.__name__ == "StemDataset":
        settings["skip"] = _broken_songs(arguments.skip) if arguments.skip else ()
        own["augment"] = arguments.augment
    elif arguments.augment or arguments.skip:
        raise StageLiteError(
            f"{arguments.data} holds token shards; --augment and --skip need songs as stems"
        )
    try:
        data = kind(arguments.data, arguments.target, split="train", **settings, **own)
        validation = kind(arguments.data, arguments.target, split="valid", **settings)
        validation = list(_resized(validation, 32))
        shuffle_contexts(validation)
    except StageLiteError as error:
        data, which = kind(arguments.data, arguments.target, **settings, **own), "all songs"
        splits = {song.split for song in getattr(data, "songs", ())}
        if "train" in splits and len(splits) > 1:  # songs that are labelled as test stay unheard
            data = kind(arguments.data, arguments.target, split="train", **settings, **own)
            which = "the songs of split 'train'"
        if is_first_process():
            print(f"training on {which}, none held out ({error})")
        return data, None
    return data, validation


def _broken_songs(file: Path) -> list[str]:
    """Ids of the broken songs in a CSV file of `scan`."""
    import pandas as pd

    try:
        rows = pd.read_csv(file, dtype=str)
        return sorted(set(rows.song[rows.severity == "broken"]))
    except (OSError, ValueError, AttributeError) as error:
        raise StageLiteError(
            f"{file} is no table of a scan ({error}); expected what `stage-lite scan --out` wrote"
        ) from None


def _scan(arguments: argparse.Namespace) -> int:
    from .files import write_atomic
    from .scan import scan

    out = arguments.out
    if out is not None and (out.suffix != ".csv" or not out.absolute().parent.is_dir()):
        raise StageLiteError(f"--out is {out}; expected a .csv file in a folder that is there")
    table = scan(
        arguments.data,
        target=arguments.target,
        window_s=arguments.window,
        deep=not arguments.quick,
        track_beats=arguments.track_beats,
        workers=arguments.workers,
        progress=sys.stderr.isatty(),
    )
    print(table)
    if out is not None:
        write_atomic(out, table.to_csv(index=False))
    return 1 if table.broken_songs else 0


def _kind_of(folder: Path) -> type:
    """The data set that reads a folder: of token shards, or of songs as stems."""
    from .shards import ShardDataset
    from .stems import StemDataset

    return ShardDataset if any(folder.glob("*.safetensors")) else StemDataset


MORE = 10  # windows in the data set for each that is evaluated: some are passed over


def _evaluate(arguments: argparse.Namespace) -> int:
    from .metrics.report import evaluate
    from .metrics.report_page import compact_table
    from .model import load

    model = load(arguments.model)
    data = _songs_to_evaluate(arguments)
    table = evaluate(
        model,
        data,
        n=arguments.n,
        seed=arguments.seed,
        cfg_coef=arguments.cfg,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        metrics=arguments.metrics,
        tracker=arguments.tracker,
        embedding=arguments.embedding,
        out=arguments.out,
        cache_dir=arguments.cache,
        batch_size=arguments.batch_size,
        progress=sys.stderr.isatty(),
    )
    print(compact_table(table))
    print(f"{arguments.out / 'report.html'}: all of it, with intervals and how to read it")
    return 0


def _songs_to_evaluate(arguments: argparse.Namespace):
    """Windows of the split that was asked for; else of the test split, if there is one."""
    kind = _kind_of(arguments.data)
    settings = {
        "window_s": arguments.window,
        "conditions": arguments.conditions,
        "seed": arguments.seed,
    }
    n = max(1, MORE * arguments.n)
    if arguments.split is not None:
        data = kind(arguments.data, arguments.target, split=arguments.split, **settings)
        return _resized(data, n)
    try:
        return _resized(kind(arguments.data, arguments.target, split="test", **settings), n)
    except StageLiteError as error:
        data = kind(arguments.data, arguments.target, **settings)
        print(f"evaluating on all songs, whatever their split ({error})")
        return _resized(data, n)


def _resized(data, n: int):
    """The data set with n windows; of stems, with as many as the songs hold if that is less."""
    if hasattr(data, "resized"):
        return data.resized(n)
    data.n = n
    return data


def _check_writable(file: Path) -> None:
    """Say it before minutes of generation, not after."""
    if file.suffix.lower() not in (".wav", ".flac", ".ogg"):
        raise StageLiteError(
            f"{file}: the name ends in {file.suffix!r}; expected .wav, .flac or .ogg"
        )
    if not file.absolute().parent.is_dir():
        raise StageLiteError(f"{file}: there is no folder {file.absolute().parent}; make it first")


if __name__ == "__main__":
    sys.exit(main())
