"""Clips of an evaluation: named by what they are made of, turned into audio only when it is needed.

A result that is kept under a clip's key is found again without decoding the clip.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from torch import Tensor

from ..audio import prepare, to_mono
from ..result_store import fingerprint, key_of

if TYPE_CHECKING:
    from ..model import StageModel

KEPT = 1 << 29  # bytes of audio that stay in memory for a second use


@dataclass(frozen=True)
class Clip:
    """Codes, or a function that makes audio; `key` tells contents apart."""

    key: str
    codes: Int[Tensor, "K T"] | None = None
    make: Callable[[], Tensor] | None = None


class Sounds:
    """Makes clips, and audio of clips: mono, at the model's sample rate.

    Args:
        model: its codec decodes.
    """

    def __init__(self, model: StageModel):
        self.model, self.sample_rate = model, model.sample_rate
        self.codec_hash = fingerprint(model.codec)
        self._wavs: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def of_codes(self, codes: Int[Tensor, "K T"]) -> Clip:
        return Clip(key_of("codes", self.codec_hash, codes), codes=codes)

    def of_audio(self, wav: Tensor, sample_rate: int, name: str) -> Clip:
        """A clip of audio of any rate; `name` is what a message calls it."""
        ready = prepare(wav, sample_rate, self.sample_rate, name=name)
        return Clip(key_of("audio", ready), make=lambda: ready)

    def of_clip(self, source: Clip, what: Any, change: Callable[[Tensor], Tensor]) -> Clip:
        """Another clip's audio, changed; `what` (for JSON) says how, for the key."""
        return Clip(
            key_of("changed", source.key, what), make=lambda: change(self.wavs([source])[0])
        )

    def wavs(self, clips: Sequence[Clip]) -> list[Float[Tensor, "1 _"]]:
        """Audio of clips; what was used last stays in memory."""
        made: dict[str, Tensor] = {}
        for clip in clips:
            if clip.key in self._wavs:
                self._wavs.move_to_end(clip.key)
                made[clip.key] = self._wavs[clip.key]
            elif clip.key not in made:
                made[clip.key] = clip.make() if clip.codes is None else self._decode(clip.codes)
        for key, wav in made.items():
            self._keep(key, wav)
        return [made[clip.key] for clip in clips]

    def _decode(self, codes: Int[Tensor, "K T"]) -> Float[Tensor, "1 _"]:
        # One by one: batches of 4 clips of 8 s took 1.7 times as long (two cores, nano's codec).
        return to_mono(self.model.decode(codes[None].to(self.model.device))[0]).cpu()

    def _keep(self, key: str, wav: Tensor) -> None:
        if key not in self._wavs:
            self._wavs[key] = wav
            self._bytes += wav.nbytes
        while self._bytes > KEPT and len(self._wavs) > 1:
            _, old = self._wavs.popitem(last=False)
            self._bytes -= old.nbytes
