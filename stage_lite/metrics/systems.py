"""The six stems that an evaluation puts side by side in each window.

| system | what it is |
|---|---|
| real | the target's own stem: the ceiling |
| generated | by the model, with the right context |
| no context | by the model, from the words alone |
| shuffled context | by the model, with the context of another song: the floor |
| another song's stem | what was played to that other context; a perfect player's shuffled context |
| loop | one bar of another song at the right tempo, from the window's start on: the baseline |

The three of the model draw from the same random numbers in a window, so that they differ by what
the model was given and by nothing else.

Notebook: 07_evaluation.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..audio import check_wav, is_silent
from ..errors import StageLiteError
from ..examples import Example
from ..generate import generate_codes
from ..result_store import ResultStore, fingerprint, key_of
from .loop import Bar, find_bar, loop_bar, stretch_rate
from .sounds import Clip, Sounds
from .windows import Windows, name_of

if TYPE_CHECKING:
    from ..model import StageModel

REAL, GENERATED, NO_CONTEXT = "real", "generated", "no context"
SHUFFLED, ANOTHER, LOOP = "shuffled context", "another song's stem", "loop"
SYSTEMS = (REAL, GENERATED, NO_CONTEXT, SHUFFLED, ANOTHER, LOOP)
LOOP_TRIES = 20  # windows of other songs that are searched for a bar


@dataclass(frozen=True)
class Sampling:
    """How the model generates; see `generate_codes`."""

    cfg_coef: float = 3.0
    temperature: float = 1.0
    top_k: int = 250
    cfg_over: str = "both"


def window_seed(seed: int, example: Example) -> int:
    """Of the noise in a window, the same whatever the context."""
    place = f"{seed}/{example.song_id}/{example.start_s:.2f}/{example.target_name}"
    return zlib.crc32(place.encode())


class Systems:
    """Makes the stems of windows.

    Args:
        model: with a context token.
        sounds: of the same model.
        store: keeps what was generated.
        sampling: how to generate.
        seed: of the noise.
        batch_size: windows that are generated at once.
    """

    def __init__(
        self,
        model: StageModel,
        sounds: Sounds,
        store: ResultStore,
        sampling: Sampling,
        seed: int,
        batch_size: int,
    ):
        self.model, self.sounds, self.store = model, sounds, store
        self.sampling, self.seed, self.batch_size = sampling, seed, batch_size
        self._lm_hash = key_of(fingerprint(model.lm), model.config.anchor_frames)

    def real(self, example: Example) -> Clip:
        """The stem of a window: its audio, or else what the codec makes of its codes."""
        if example.target is not None:
            return self.sounds.of_audio(example.target, example.sample_rate, name_of(example))
        return self.sounds.of_codes(self._checked(example.target_codes, example, "target"))

    def context(self, example: Example) -> Clip:
        """What stands before the target, as audio."""
        if example.context is not None:
            name = f"the context of {name_of(example)}"
            return self.sounds.of_audio(example.context, example.sample_rate, name)
        return self.sounds.of_codes(self._checked(example.context_codes, example, "context"))

    def is_silent(self, example: Example) -> bool:
        """Is the real stem? Decodes codes, once for all."""
        if example.target is not None:
            wav = check_wav(example.target, example.sample_rate, name=name_of(example))
            return is_silent(wav)
        clip = self.real(example)
        key = key_of("silent", clip.key)
        if key not in self.store:
            self.store[key] = is_silent(self.sounds.wavs([clip])[0])
        return self.store[key]

    def make(self, windows: Windows, contexts: Sequence[Clip]) -> dict[str, list[Clip | None]]:
        """System -> one clip per window; None where no bar for the loop was found.

        Args:
            windows: the evaluated ones.
            contexts: of each, from `context`.

        Raises:
            StageLiteError: the model has no context token.
        """
        self.model.check_context_token()
        examples, lenders = windows.examples, windows.lenders
        real = [self.real(e) for e in examples]
        codes = self._context_codes(examples, contexts)
        given: dict[str, list[Tensor | None]] = {
            GENERATED: list(codes),
            NO_CONTEXT: [None] * len(examples),
            SHUFFLED: [codes[i] for i in lenders],
        }
        generated = {name: self.generate(name, examples, rows) for name, rows in given.items()}
        return {
            REAL: list(real),
            **generated,
            ANOTHER: [real[i] for i in lenders],
            LOOP: [self._loop(i, windows, real) for i in range(len(examples))],
        }

    # --- generation ------------------------------------------------------------------------------

    def _context_codes(
        self, examples: Sequence[Example], clips: Sequence[Clip]
    ) -> list[Int[Tensor, "K Tc"]]:
        keys = [key_of("encoded", self.sounds.codec_hash, clip.key) for clip in clips]
        rows = list(zip(examples, clips, keys, strict=True))
        jobs = {key: clip for e, clip, key in rows if e.context_codes is None}

        def encode(batch: Sequence[Clip]) -> list:
            wavs = self.sounds.wavs(batch)
            return [self.model.encode(wav, self.sounds.sample_rate)[0].tolist() for wav in wavs]

        if jobs:
            self.store.fill("contexts", jobs, encode, self.batch_size)
        found = [
            torch.tensor(self.store[key])
            if e.context_codes is None
            else self._checked(e.context_codes, e, "context")
            for e, _, key in rows
        ]
        most = self.model.config.anchor_frames
        longest = max(codes.shape[-1] for codes in found)
        if most is not None and 0 < most < longest:
            warnings.warn(
                f"contexts are {longest / self.model.frame_rate:g} s long: their first "
                f"{most / self.model.frame_rate:g} s are used, as long as "
                f"{self.model.config.name!r} was trained on",
                stacklevel=4,
            )
            found = [codes[:, :most] for codes in found]
        return found

    def generate(
        self, name: str, examples: Sequence[Example], contexts: Sequence[Tensor | None]
    ) -> list[Clip]:
        """What the model plays in each window, as long as the window, to the context's codes.

        Args:
            name: for the progress.
            examples: windows of one length, with their descriptions.
            contexts: codes of each, or None.
        """
        n_frames = round(examples[0].duration_s * self.model.frame_rate)
        settings = [asdict(self.sampling), n_frames]
        keys, jobs = [], {}
        for e, codes in zip(examples, contexts, strict=True):
            seed = window_seed(self.seed, e)
            given = "no context" if codes is None else codes
            key = key_of("generated", self._lm_hash, settings, e.description, given, seed)
            keys.append(key)
            jobs[key] = (codes, e.description, seed)

        def compute(batch: Sequence[tuple]) -> list:
            contexts, descriptions, seeds = (list(column) for column in zip(*batch, strict=True))
            made = generate_codes(
                self.model.lm,
                contexts,
                descriptions,
                n_frames,
                **asdict(self.sampling),
                seed=seeds,
                anchor_frames=self.model.config.anchor_frames,
            )
            return made.codes.tolist()

        self.store.fill(name, jobs, compute, self.batch_size)
        return [self.sounds.of_codes(torch.tensor(self.store[key])) for key in keys]

    def _checked(self, codes: Int[Tensor, "_ _"], example: Example, what: str) -> Tensor:
        model = self.model
        if codes.shape[0] != model.n_q or (codes.numel() and int(codes.max()) >= model.card):
            raise StageLiteError(
                f"the {what} codes of {name_of(example)} have {codes.shape[0]} codebooks and codes "
                f"up to {int(codes.max())}; {model.config.name!r} expects {model.n_q} codebooks of "
                f"codes below {model.card}; take the model's own codec, or a folder of audio"
            )
        return codes

    # --- loop ------------------------------------------------------------------------------------

    def _loop(self, i: int, windows: Windows, real: Sequence[Clip]) -> Clip | None:
        one = windows.examples[i]
        beat_s = float(np.median(np.diff(one.beat_times)))
        for number in self._possible_sources(i, windows):
            bar = self._bar(windows.examples[number], real[number])
            try:
                rate = None if bar is None else stretch_rate(bar, beat_s)
            except StageLiteError:
                continue
            if rate is not None:
                return self.sounds.of_clip(
                    real[number],
                    ["loop", list(bar), beat_s, one.duration_s],
                    lambda wav, bar=bar: loop_bar(
                        wav, self.sounds.sample_rate, bar, beat_s, one.duration_s
                    ),
                )
        return None

    def _possible_sources(self, i: int, windows: Windows) -> list[int]:
        """The lender first, then windows of other songs at random."""
        one = windows.examples[i]
        others = [
            j
            for j, e in enumerate(windows.examples)
            if e.song_id != one.song_id and e.target_name == one.target_name
        ]
        drawn = np.random.default_rng([self.seed, i]).permutation(others)[: LOOP_TRIES - 1]
        return [windows.lenders[i], *drawn.tolist()]

    def _bar(self, example: Example, clip: Clip) -> Bar | None:
        beats, downbeats = example.beat_times, example.downbeat_times
        key = key_of("bar", clip.key, [float(t) for t in beats], [float(t) for t in downbeats])
        if key not in self.store:
            try:
                wav = self.sounds.wavs([clip])[0]
                found = find_bar(wav, self.sounds.sample_rate, beats, downbeats)
            except StageLiteError:
                found = None
            self.store[key] = found
        return None if self.store[key] is None else Bar(*self.store[key])
