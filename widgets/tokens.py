"""TokenGrid: the tokens of a sequence, where the delay puts them, how each codebook sounds.

    TokenGrid(model, out)                                   # what a generation was, and heard
    TokenGrid(model, codes, context_codes=context_codes)    # any codes, Int[K, T]

Rows are codebooks, columns are frames, or steps of the model once the delay is on. The sound of the
first 1, 2, ... K codebooks is sent along; other choices are decoded here when they are asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import traitlets
from jaxtyping import Float, Int
from torch import Tensor

from stage_lite.batch import Batch
from stage_lite.codec import decode_codebooks
from stage_lite.errors import StageLiteError
from stage_lite.generation import Generation
from stage_lite.prefix import Prefix, build_prefix

from .base import StageWidget
from .esm import bundle, stylesheet
from .model_input import check_model
from .pcm import LIMIT_BYTES, Packed, pack
from .pixels import cividis, pixel_img
from .stem_input import check_name
from .twin import player

if TYPE_CHECKING:
    from stage_lite.model import StageModel

MASKS = ("attention", "loss")
LISTEN = "Switch off the last codebook, then all but the first: what is lost, what stays?"
TWIN_BYTES = 11_000  # of each of two players
TWIN_COLUMNS = 1200  # of the picture
LONGEST_FRAMES = 6000  # of context and target together: two minutes at 50 Hz


class TokenGrid(StageWidget):
    """Codes, delayed sequence, masks and sound of one row.

    Args:
        model: whose codes these are; its codec makes the sound.
        tokens: a Generation, a Batch (`batch.make_batch`), or codes of the target, Int[K, T] or
            Int[1, K, T].
        context_codes: beside codes, those of the context, Int[K, Tc]; None: no context.
        row: of a Generation or Batch.
        label: the widget's name.
        listen_for: one line for the listener.

    Attributes:
        codebooks: which are heard, from 0.
        lost: hear what the chosen codebooks leave out instead: all codebooks minus the chosen ones.
        delay: how many steps of the delay are shown, 0 (codes: columns are frames) to K (the
            sequence that the model sees: columns are steps).
        masks: some of "attention" (steps that are hidden from all others) and "loss" (entries that
            training counts).
        cursor: [codebook, step] of the chosen entry.
        playing: whether the browser plays.

    Raises:
        StageLiteError: codes that are not this model's, a row that is not there, or too many
            frames.

    Notebook: 01_tokenization.
    """

    _esm, _css = bundle("tokens.js"), stylesheet("tokens.css")

    codebooks = traitlets.List(traitlets.Int()).tag(sync=True)
    lost = traitlets.Bool(False).tag(sync=True)
    delay = traitlets.Int().tag(sync=True)
    masks = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cursor = traitlets.List(traitlets.Int()).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    _tokens = traitlets.Unicode().tag(sync=True)  # base64 of int16: sequence, positions, masks
    _sizes = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        model: StageModel,
        tokens: Generation | Batch | Int[Tensor, "*row K T"],
        *,
        context_codes: Int[Tensor, "*row K Tc"] | None = None,
        row: int = 0,
        label: str = "Token grid",
        listen_for: str = LISTEN,
    ):
        check_name(label, "the widget")
        check_model(model)
        prefix, sequence, row = _sequence_of(model, tokens, context_codes, row)
        n_frames = sequence.shape[1] - model.n_q - (prefix.target_start > 1)  # without the token
        if n_frames > LONGEST_FRAMES:
            raise StageLiteError(
                f"{n_frames} frames are too many for one grid; expected at most {LONGEST_FRAMES}, "
                f"{LONGEST_FRAMES / model.frame_rate:g} s; show a part: codes[:, :n]"
            )
        self.sequence: Int[np.ndarray, "K S"] = sequence.cpu().numpy()
        self.attention_mask = prefix.attention_mask[row].cpu().numpy()
        self.loss_mask = prefix.loss_mask[row].cpu().numpy()
        self._codec, self._n_q, self._card = model.codec, model.n_q, model.card
        self._frame_rate = float(model.frame_rate)
        self._codes = _known_codes(prefix, sequence, row, model.card)  # [K, T], of the target
        packed = self._sound(int(model.sample_rate))
        width = prefix.target_start - 1
        pad = int(self.attention_mask.argmax())
        numbers = [
            self.sequence.ravel(),
            prefix.positions[row].cpu().numpy(),
            self.attention_mask,
            self.loss_mask.ravel(),
        ]
        raw = np.concatenate([part.astype("<i2") for part in numbers]).tobytes()
        super().__init__(
            label=label,
            listen_for=listen_for if packed.index else "",
            audio=packed,
            codebooks=list(range(model.n_q)),
            delay=model.n_q,
            cursor=[0, min(prefix.target_start, sequence.shape[1] - 1)],
            _tokens=base64.b64encode(raw).decode("ascii"),
            _sizes={
                "n_q": model.n_q,
                "steps": int(sequence.shape[1]),
                "card": model.card,
                "width": int(width),  # frames of the longest context, and the token
                "pad": pad,  # of them, those before this row's context
                "frame_rate": self._frame_rate,
                "heard": int(self._codes.shape[1]),
            },
        )

    # --- results -------------------------------------------------------------------------------

    @property
    def wav(self) -> Float[Tensor, "1 L"]:
        """What is heard: the target, decoded from the chosen codebooks, or what they leave out."""
        chosen = self._decode(self.codebooks)
        if not self.lost:
            return chosen
        return (self._decode(range(self._n_q)) - chosen).clamp(-1, 1)

    # --- messages and checks -------------------------------------------------------------------

    def on_decode(self, content: dict[str, Any]) -> None:
        """The browser wants the sound of other codebooks than the first ones."""
        chosen = _checked_codebooks(content.get("codebooks"), self._n_q)
        packed = pack({"sound": self._at_rate(self._decode(chosen))}, self._packed.sample_rate)
        self.send({"kind": "decoded", "codebooks": chosen}, buffers=[packed.data])

    @traitlets.validate("codebooks")
    def _check_codebooks(self, proposal: Any) -> list[int]:
        return _checked_codebooks(proposal["value"], self._n_q)

    @traitlets.validate("delay")
    def _check_delay(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] <= self._n_q:
            raise StageLiteError(
                f"delay is {proposal['value']}; expected 0 (frames) to {self._n_q} (steps)"
            )
        return proposal["value"]

    @traitlets.validate("masks")
    def _check_masks(self, proposal: Any) -> list[str]:
        unknown = [name for name in proposal["value"] if name not in MASKS]
        if unknown:
            raise StageLiteError(f"masks names {unknown[0]!r}; expected some of {list(MASKS)}")
        return sorted(set(proposal["value"]))

    @traitlets.validate("cursor")
    def _check_cursor(self, proposal: Any) -> list[int]:
        at, shape = list(proposal["value"]), self.sequence.shape
        if len(at) != 2 or not all(0 <= a < n for a, n in zip(at, shape, strict=True)):
            raise StageLiteError(f"cursor is {at}; expected [codebook, step] within {list(shape)}")
        return at

    # --- standing still ------------------------------------------------------------------------

    def summary(self) -> str:
        n_q, n_steps = self.sequence.shape
        return f"{n_q} codebooks, {n_steps} steps, {self._codes.shape[1]} frames of target"

    def twin_html(self) -> str:
        n_context = max(0, self._sizes["width"] - 1 - self._sizes["pad"])
        alt = (
            f"The delayed sequence: {self._n_q} codebooks (rows), {self.sequence.shape[1]} steps; "
            f"{n_context} frames of context, "
            + ("the context token in orange, " if self._has_token else "no context token, ")
            + f"{self._codes.shape[1]} frames of target; special tokens in grey"
        )
        picture = pixel_img(*self._pixels(), alt, 700, 20 * self._n_q + 10)
        if not self._codes.shape[1]:
            return picture
        rate = self._packed.sample_rate
        every, first = list(range(self._n_q)), [0]
        return picture + "".join(
            player(self._at_rate(self._decode(chosen)), rate, name, TWIN_BYTES)
            for name, chosen in (("All codebooks", every), ("Codebook 0 alone", first))
        )

    @property
    def _has_token(self) -> bool:
        return bool((self.sequence == self._card + 1).any())

    def _pixels(self) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
        shades = 60
        special, token, gap = shades, shades + 1, shades + 2
        cells = (self.sequence * shades // self._card).clip(max=shades - 1)
        cells = np.where(self.sequence == self._card, special, cells)
        cells = np.where(self.sequence == self._card + 1, token, cells)
        every = max(1, -(-cells.shape[1] // TWIN_COLUMNS))
        thin = np.array(
            [  # the token is one column: it must not fall between two
                [
                    token if token in row[i : i + every] else row[i]
                    for i in range(0, len(row), every)
                ]
                for row in cells
            ]
        )
        rows = np.repeat(thin, 9, axis=0).reshape(len(thin), 9, -1)
        lines = np.full((len(thin), 1, thin.shape[1]), gap)
        pixels = np.concatenate([rows, lines], axis=1).reshape(-1, thin.shape[1])
        mark = np.full((5, thin.shape[1]), gap)  # a column of one pixel is overlooked
        for column in np.flatnonzero(thin[0] == token):
            mark[:4, max(0, column - 4) : column + 5] = token
        pixels = np.concatenate([mark, pixels])
        colours = [*cividis(shades), (200, 200, 200), (230, 120, 0), (255, 255, 255)]
        return pixels.astype(np.uint8), colours

    def close(self) -> None:
        super().close()
        if "_codes" in self.__dict__:  # not if the constructor refused
            self._codes = self._codes[:, :0]

    # --- sound ---------------------------------------------------------------------------------

    def _sound(self, sample_rate: int) -> Packed:
        """The first 1, 2, ... K codebooks, named "0", "0,1", ..."""
        self._sample_rate = sample_rate
        if not self._codes.shape[1]:
            return Packed(b"", [], sample_rate, "")
        first = [list(range(n)) for n in range(1, self._n_q + 1)]
        wavs = {",".join(map(str, chosen)): self._decode(chosen) for chosen in first}
        return pack(wavs, sample_rate, limit_bytes=LIMIT_BYTES - 200_000)

    def _decode(self, chosen: Sequence[int]) -> Float[Tensor, "1 L"]:
        wav = decode_codebooks(self._codec, self._codes[None], list(chosen))[0]
        return wav.mean(0, keepdim=True).clamp(-1, 1).cpu().float()

    def _at_rate(self, wav: Tensor) -> Tensor:
        from stage_lite.audio import resample

        return resample(wav, self._sample_rate, self._packed.sample_rate or self._sample_rate)


def _sequence_of(
    model: StageModel, tokens: Any, context_codes: Tensor | None, row: int
) -> tuple[Prefix, Int[Tensor, "K S"], int]:
    """Prefix, delayed sequence and row of whatever was given."""
    if isinstance(tokens, Generation | Batch):
        if context_codes is not None:
            raise StageLiteError(
                "context_codes came with a finished sequence; expected them only beside codes"
            )
        sequence = tokens.inputs if isinstance(tokens, Batch) else tokens.sequence
        if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < len(sequence):
            raise StageLiteError(
                f"row is {row!r}; expected one of the {len(sequence)} rows, from 0 on"
            )
        prefix = tokens.prefix
        if sequence.shape != prefix.sequence.shape:
            raise StageLiteError(
                f"the sequence has the shape {list(sequence.shape)}, its prefix one of "
                f"{list(prefix.sequence.shape)}; expected one sequence"
            )
        n_q = sequence.shape[1]
    else:
        codes = _one_row(model, tokens, "tokens")
        context = None if context_codes is None else _one_row(model, context_codes, "context_codes")
        if not codes.shape[1]:
            raise StageLiteError("tokens has no frames; expected Int[K, T] with at least one")
        n_q = codes.shape[0]
        prefix = build_prefix(
            None if context is None else context[None],
            codes[None],
            special_token_id=model.special_token_id,
            context_token_id=model.context_token_id,
            anchor_frames=model.config.anchor_frames,
        )
        sequence, row = prefix.sequence, 0
    if n_q != model.n_q:
        raise StageLiteError(f"got {n_q} codebooks; expected the model's {model.n_q}")
    highest = int(sequence.max()) if sequence.numel() else 0
    if highest > model.context_token_id:
        raise StageLiteError(
            f"got the code {highest}; expected codes below {model.card}: are they another model's?"
        )
    return prefix, sequence[row], row


def _one_row(model: StageModel, codes: Any, name: str) -> Int[Tensor, "K T"]:
    if not isinstance(codes, Tensor):
        try:
            codes = torch.as_tensor(np.asarray(codes))
        except (TypeError, ValueError, RuntimeError):
            raise StageLiteError(
                f"{name} is a {type(codes).__name__}; expected a Generation, a Batch or codes "
                "Int[K, T]"
            ) from None
    if codes.dim() == 3 and codes.shape[0] == 1:
        codes = codes[0]
    if codes.dim() != 2 or codes.dtype.is_floating_point or codes.dtype == torch.bool:
        raise StageLiteError(
            f"{name} has the shape {list(codes.shape)} and the type {codes.dtype}; expected "
            f"Int[{model.n_q}, T], whole numbers"
        )
    if codes.shape[0] != model.n_q:
        raise StageLiteError(f"{name} has {codes.shape[0]} codebooks; expected {model.n_q}")
    return codes.long().to(model.device)


def _known_codes(prefix: Prefix, sequence: Tensor, row: int, card: int) -> Int[Tensor, "K T"]:
    """The target's frames up to the first that is not known whole: these can be heard."""
    n_q, first, n = len(sequence), prefix.target_start, prefix.n_target_frames
    codes = torch.stack([sequence[k, first + k : first + k + n] for k in range(n_q)])
    known = torch.stack([prefix.loss_mask[row, k, first + k : first + k + n] for k in range(n_q)])
    whole = (known & (codes < card)).all(0)  # a batch may hide some of them
    return codes[:, : int(whole.int().cumprod(0).sum())]


def _checked_codebooks(chosen: Any, n_q: int) -> list[int]:
    fine = isinstance(chosen, list | tuple) and all(
        isinstance(k, int) and not isinstance(k, bool) and 0 <= k < n_q for k in chosen
    )
    if not fine or len(set(chosen)) < len(chosen):
        raise StageLiteError(
            f"codebooks is {chosen!r}; expected some of 0 to {n_q - 1}, none of them twice"
        )
    return sorted(chosen)
