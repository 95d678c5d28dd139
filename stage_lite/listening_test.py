"""A blind listening test as a folder of files whose names tell nothing.

Two forms:
- "pairs": two clips, left and right; which one plays along better? A choice must be made.
- "sheets", in the manner of MUSHRA (ITU-R BS.1534-3): all systems on one page with a slider each,
  0 to 100, next to an open reference. The reference is also hidden among them, and so is a low
  anchor (the reference without what is above 3.5 kHz, or a system such as "shuffled"). Without the
  mid anchor of BS.1534.

What can be told from a clip other than how well it plays along is made equal: all clips are mono,
of one sample rate and length, equally loud (stage_lite/loudness.py), and each stem is added to its
context at one balance.

Who hears what: stage_lite/listening_plan.py. Answers: stage_lite/listening_answers.py. Their
statistics: stage_lite/listening_statistics.py.

The folder:
    audio/3f0c9a….flac   names are drawn; files are written in the order of their names
    trials.json          for the player: pages with file names, no system or item
    key.json             for the organiser: what was what; may be kept elsewhere
    registry.txt         sha256 of all but the key

Source: ITU-R BS.1534-3 (2015).
Notebook: 07_evaluation.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from .audio import check_wav, prepare, save_audio
from .errors import StageLiteError
from .files import sha256_of, verify_registry, write_atomic, write_registry
from .listening_plan import Trial, plan_pairs, plan_sheets
from .loudness import TARGET_LUFS, match_loudness

FORMAT = 1  # of trials.json and key.json
FORMS = ("pairs", "sheets")
LOW_PASS = "low-pass 3.5 kHz"  # name of the anchor that is made from the reference
MAX_BALANCE_LU = 20.0
MAX_CUT_S = 0.05  # clips of one item may differ by so much, a frame or two; the longer are cut
QUESTIONS = {
    "pairs": "Which of the two plays along better with the music?",
    "sheets": "How well does each one play along, compared with the reference? "
    "0-20 bad, 20-40 poor, 40-60 fair, 60-80 good, 80-100 excellent.",
}

Clip = tuple[Tensor | ndarray, int]  # wav [C, L] and its rate in Hz, as `load_audio` returns them


@dataclass(frozen=True)
class ListeningItem:
    """One window of music as every system played it."""

    id: str  # of the window or song
    clips: Mapping[str, Clip]  # system ("real", "nano", "shuffled", ...) -> the stem it played
    context: Clip | None = None  # what the stem is added to for listening; None: heard alone


@dataclass(frozen=True)
class ListeningTest:
    """A written test; loaded without its key, what the key tells is None."""

    folder: Path
    form: str
    question: str
    sample_rate: int
    loudness_lufs: float
    trials: tuple[Trial, ...]  # listener by listener, in the order of hearing
    reference: str | None = None
    anchor: str | None = None
    seed: int | None = None

    @property
    def n_listeners(self) -> int:
        return max(trial.listener for trial in self.trials)

    def pages(self, listener: int) -> list[Trial]:
        """What one listener hears, in order."""
        pages = [trial for trial in self.trials if trial.listener == listener]
        if not pages:
            raise StageLiteError(
                f"listener is {listener!r}; expected a number from 1 to {self.n_listeners}; for "
                "more, write the test again with the same seed and more n_listeners"
            )
        return pages


# --- what they hear ------------------------------------------------------------------------------


def low_anchor(wav: Float[Tensor, "1 L"], sample_rate: int) -> Float[Tensor, "1 L"]:
    """The wav without what is above 3.5 kHz: at most 0.1 dB off below, 50 dB down from 4 kHz on."""
    from scipy import signal

    if sample_rate < 12000:
        raise StageLiteError(
            f"sample_rate is {sample_rate} Hz; expected at least 12000 Hz for an anchor that is "
            "cut off at 3.5 kHz; name a system as anchor, or None"
        )
    # Forwards and backwards: no delay, twice the decibels.
    ripple_db, stop_db = 0.05, 25.1
    order, edge = signal.ellipord(3500, 4000, ripple_db, stop_db, fs=sample_rate)
    sections = signal.ellip(order, ripple_db, stop_db, edge, output="sos", fs=sample_rate)
    filtered = signal.sosfiltfilt(sections, wav.double().numpy(), axis=-1)
    return torch.from_numpy(filtered.copy()).float()


def _heard(
    item: ListeningItem, systems: Sequence[str], sample_rate: int, balance_lu: float
) -> dict[str | None, Float[Tensor, "1 L"]]:
    """System -> stem in its context; None -> the context alone. Not yet equally loud."""
    clips = {s: prepare(*item.clips[s], sample_rate, name=_name(item, s)) for s in systems}
    lengths = {system: clip.shape[-1] for system, clip in clips.items()}
    shortest, longest = min(lengths, key=lengths.get), max(lengths, key=lengths.get)
    length = lengths[shortest]
    if lengths[longest] - length > MAX_CUT_S * sample_rate:
        raise StageLiteError(
            f"item {item.id!r}: {shortest!r} lasts {length / sample_rate:.3f} s and {longest!r} "
            f"{lengths[longest] / sample_rate:.3f} s; expected lengths within {MAX_CUT_S} s of "
            "each other, or the length tells which is which; cut them first"
        )
    stems = [clip[:, :length] for clip in clips.values()]
    names = [_name(item, system) for system in clips]
    stems, _ = match_loudness(stems, sample_rate, peak_dbfs=None, names=names)
    if item.context is None:
        return dict(zip(clips, stems, strict=True))
    name = f"item {item.id!r}, context"
    context = prepare(*item.context, sample_rate, name=name)
    if context.shape[-1] - length > MAX_CUT_S * sample_rate:
        raise StageLiteError(
            f"{name} lasts {context.shape[-1] / sample_rate:.3f} s, the clips "
            f"{length / sample_rate:.3f} s; expected a context of the same window, or one that "
            "ends before it; cut it first"
        )
    (context,), _ = match_loudness(
        [context[:, :length]],
        sample_rate,
        to_lufs=TARGET_LUFS - balance_lu,
        peak_dbfs=None,
        names=[name],
    )
    context = torch.nn.functional.pad(context, (0, length - context.shape[-1]))
    heard = {system: stem + context for system, stem in zip(clips, stems, strict=True)}
    return {**heard, None: context}


def _check_clip(clip: Clip, name: str) -> None:
    if not isinstance(clip, tuple | list) or len(clip) != 2:
        raise StageLiteError(
            f"{name} is a {type(clip).__name__}; expected (wav, sample_rate), as load_audio returns"
        )
    check_wav(clip[0], clip[1], name=name)


def _name(item: ListeningItem, system: str) -> str:
    return f"item {item.id!r}, system {system!r}"


def _systems(items: Sequence[ListeningItem]) -> list[str]:
    """Names of the systems, the same in every item; clips are (wav, rate) and can be read."""
    if not items:
        raise StageLiteError("a listening test got no items; expected at least one")
    systems = list(items[0].clips)
    for item in items:
        other = set(systems) ^ set(item.clips)
        if other:
            raise StageLiteError(
                f"item {item.id!r} has the systems {sorted(item.clips)}, item {items[0].id!r} "
                f"{sorted(systems)}; expected the same in every item; give {min(other)!r} to all "
                "or to none"
            )
        for system, clip in item.clips.items():
            _check_clip(clip, _name(item, system))
        if item.context is not None:
            _check_clip(item.context, f"item {item.id!r}, context")
    return systems


# --- the folder ----------------------------------------------------------------------------------


def write_listening_test(
    folder: str | Path,
    items: Sequence[ListeningItem],
    form: str = "pairs",
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    reference: str = "real",
    anchor: str | None = LOW_PASS,
    n_listeners: int = 20,
    trials_per_listener: int | None = None,
    seed: int = 0,
    question: str | None = None,
    sample_rate: int | None = None,
    balance_lu: float = 0.0,
    suffix: str = ".flac",
) -> ListeningTest:
    """Make the clips and pages of a test and write them; the folder appears whole or not at all.

    Args:
        folder: must not exist yet, or be empty.
        items: each with the same systems; all clips are held in memory (1 MB for 8 s at 32 kHz).
        form: "pairs" or "sheets".
        pairs: of systems, for "pairs"; None is every pair. Five systems have ten pairs: with 16
            items 160 pages, so choose, or limit `trials_per_listener`.
        reference: for "sheets": the system that is open to the listener, and hidden.
        anchor: for "sheets": a system of the items, `LOW_PASS` to make one from what is heard as
            the reference, or None. A bass alone has little above 3.5 kHz: name a system there.
        n_listeners, trials_per_listener, seed: as in `plan_pairs`.
        question: shown on each page; None is one of `QUESTIONS`.
        sample_rate: of the files in Hz; None is the highest of the clips.
        balance_lu: how much louder the stem is than its context, in loudness units.
        suffix: ".flac" or ".wav".

    Raises:
        StageLiteError: no items, different systems or lengths, an unknown form or system, a clip
            that is silent, shorter than 0.4 s or holds NaN, a folder that is not empty.
    """
    folder = Path(folder)
    if form not in FORMS or suffix not in (".flac", ".wav"):
        raise StageLiteError(
            f"form is {form!r} and suffix is {suffix!r}; expected one of {FORMS}, and '.flac' or "
            "'.wav'"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StageLiteError(
            f"{folder} exists and is not empty; expected a new folder, so that no test that people "
            "have answered is lost; choose another name"
        )
    if not abs(balance_lu) <= MAX_BALANCE_LU:
        raise StageLiteError(
            f"balance_lu is {balance_lu}; expected -{MAX_BALANCE_LU} to {MAX_BALANCE_LU}, at which "
            "both stem and context are heard"
        )
    systems = _systems(items)
    ids = [item.id for item in items]
    if form == "pairs":
        pairs = list(itertools.combinations(systems, 2)) if pairs is None else pairs
        _check_known({system for pair in pairs for system in pair}, systems)
        systems = [system for system in systems if any(system in pair for pair in pairs)]
        trials = plan_pairs(ids, pairs, n_listeners, trials_per_listener, seed)
    else:
        _check_known({reference} | {anchor} - {None, LOW_PASS}, systems)
        if anchor == reference or (anchor == LOW_PASS and LOW_PASS in systems):
            raise StageLiteError(
                f"anchor is {anchor!r}, the name of another system; expected one of its own"
            )
        on_page = [*systems, LOW_PASS] if anchor == LOW_PASS else systems
        trials = plan_sheets(ids, on_page, n_listeners, trials_per_listener, seed)
    if sample_rate is None:
        sample_rate = max(int(clip[1]) for item in items for clip in item.clips.values())

    # (item, system, or None for the context alone; open to the listener?) -> what is heard
    roles: dict[tuple[str, str | None, bool], Tensor] = {}
    for item in items:
        heard = _heard(item, systems, sample_rate, balance_lu)
        roles |= {(item.id, system, system is None): wav for system, wav in heard.items()}
        if form == "sheets":
            roles[item.id, reference, True] = heard[reference]
            if anchor == LOW_PASS:
                roles[item.id, LOW_PASS, False] = low_anchor(heard[reference], sample_rate)
    names = [f"item {item!r}, {system or 'context'}" for item, system, _ in roles]
    matched, loudness = match_loudness(list(roles.values()), sample_rate, names=names)

    rng = np.random.default_rng([seed, 0, 1])
    tokens = [rng.bytes(8).hex() for _ in roles]
    files = {role: f"audio/{token}{suffix}" for role, token in zip(roles, tokens, strict=True)}

    def page(trial: Trial) -> dict:
        return {
            "trial": trial.id,
            "stimuli": [files[trial.item, system, False] for system in trial.systems],
            "context": files.get((trial.item, None, True)),
            "reference": files.get((trial.item, reference, True)),
        }

    with _atomic_folder(folder) as temporary:
        written = dict(zip(files.values(), matched, strict=True))
        for name in sorted(written):  # the time of writing tells nothing either
            save_audio(temporary / name, written[name], sample_rate)
        sheets: dict[str, list[dict]] = {}
        for trial in trials:
            sheets.setdefault(str(trial.listener), []).append(page(trial))
        content = {
            "format": FORMAT,
            "form": form,
            "question": question or QUESTIONS[form],
            "sample_rate": int(sample_rate),
            "loudness_lufs": round(loudness, 2),
            "listeners": sheets,
        }
        write_atomic(temporary / "trials.json", json.dumps(content, indent=1))
        write_registry(temporary)
        key = {
            "format": FORMAT,
            "trials_sha256": sha256_of(temporary / "trials.json"),
            "seed": seed,
            "reference": reference if form == "sheets" else None,
            "anchor": anchor if form == "sheets" else None,
            "trials": {t.id: {"item": t.item, "systems": list(t.systems)} for t in trials},
        }
        write_atomic(temporary / "key.json", json.dumps(key, indent=1))
    return load_listening_test(folder)


def load_listening_test(
    folder: str | Path, *, blind: bool = False, key_file: str | Path | None = None
) -> ListeningTest:
    """Read a test back and check that it is whole.

    Args:
        folder: as written.
        blind: True is for the player: the key is not read, and need not be there.
        key_file: where the organiser keeps the key; None is `key.json` in the folder.

    Raises:
        StageLiteError: a file is missing, changed, no JSON, of another format or another test.
    """
    folder = Path(folder)
    content = _read_json(folder / "trials.json")
    verify_registry(folder)
    trials = [
        Trial(
            page["trial"],
            int(listener),
            item=None,
            systems=(),
            stimuli=tuple(folder / name for name in page["stimuli"]),
            context=None if page["context"] is None else folder / page["context"],
            reference=None if page["reference"] is None else folder / page["reference"],
        )
        for listener, pages in content["listeners"].items()
        for page in pages
    ]
    test = ListeningTest(
        folder,
        content["form"],
        content["question"],
        content["sample_rate"],
        content["loudness_lufs"],
        tuple(trials),
    )
    return test if blind else _with_key(test, Path(key_file or folder / "key.json"))


def _with_key(test: ListeningTest, key_file: Path) -> ListeningTest:
    key = _read_json(key_file)
    if key.get("trials_sha256") != sha256_of(test.folder / "trials.json"):
        raise StageLiteError(
            f"{key_file} is the key of another test than {test.folder / 'trials.json'}, or one of "
            "them was changed; expected the two that were written together"
        )
    trials = []
    for trial in test.trials:
        entry = key["trials"].get(trial.id)
        if not isinstance(entry, dict) or len(entry.get("systems", ())) != len(trial.stimuli):
            raise StageLiteError(
                f"{key_file} does not say what trial {trial.id!r} was; expected its item and "
                f"{len(trial.stimuli)} systems; restore the file as it was written"
            )
        trials.append(
            dataclasses.replace(trial, item=entry["item"], systems=tuple(entry["systems"]))
        )
    return dataclasses.replace(
        test,
        trials=tuple(trials),
        reference=key.get("reference"),
        anchor=key.get("anchor"),
        seed=key.get("seed"),
    )


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed at the end; after an error nothing is left."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_json(file: Path) -> dict:
    if not file.is_file():
        raise StageLiteError(
            f"{file} is missing; expected a file that write_listening_test wrote; "
            "to play a test without its key, load it with blind=True"
        )
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise StageLiteError(f"{file} is no JSON ({error}); restore it as it was written") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StageLiteError(
            f"{file} is not of format {FORMAT}; expected a file that write_listening_test wrote; "
            "write the test again, with the same seed"
        )
    return content


def _check_known(names: set[str], systems: Sequence[str]) -> None:
    unknown = names - set(systems)
    if unknown:
        raise StageLiteError(f"no item has the system {min(unknown)!r}; they have {list(systems)}")
