"""StageModel: an LMModel, its codec and their sizes, with what one does with them.

    load -> encode -> prefix -> generate -> decode -> save

A model folder holds `lm.safetensors`, `config.json` and, below or beside it, the folder of its
codec. Notebook: 00_quickstart.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import codec as codec_file
from .audio import check_wav, is_silent, prepare
from .batch import make_batch
from .codec import CodecConfig, load_codec, save_codec
from .errors import StageLiteError
from .examples import Example
from .files import sha256_of, write_atomic
from .generate import generate_codes, stream_codes
from .generation import Generation
from .held_weights import gave_up
from .lm_config import LMConfig
from .lm_weights import check_whole
from .prefix import has_context_row, prefix_loss
from .request import batch_size, context_rows, description_rows, rate_rows, window_request
from .shipped import read_config, shipped_models, verify
from .text import text_conditioner
from .weights import load_int8, load_weights, save_weights

FORMAT = 1  # of config.json
MAX_DURATION_S = 600.0  # of one generation


@dataclass(frozen=True)
class ModelConfig:
    """What a model is, apart from its weights."""

    name: str
    lm: LMConfig
    codec: CodecConfig
    anchor_frames: int | None = None  # see prefix.build_prefix; None: STAGE's own positions
    trained_s: float = 8.0  # seconds of context, and of target, that training went up to


class StageModel:
    """A language model over codes and its codec.

    Args:
        lm: audiocraft's LMModel, with or without the context token.
        codec: audiocraft's EncodecModel in eval mode; the LM was trained on its codes.
        config: their sizes.

    Raises:
        StageLiteError: LM and codec differ in the number or the size of codebooks.
    """

    def __init__(self, lm: nn.Module, codec: nn.Module, config: ModelConfig):
        self.lm, self.codec, self.config = lm, codec, config
        if (lm.n_q, lm.card) != (codec.num_codebooks, codec.cardinality):
            raise StageLiteError(
                f"the LM has {lm.n_q} codebooks of {lm.card} codes, the codec "
                f"{codec.num_codebooks} of {codec.cardinality}; expected the codec of its training"
            )

    sample_rate = property(lambda self: self.codec.sample_rate, doc="Hz of the codec's audio.")
    frame_rate = property(lambda self: float(self.codec.frame_rate), doc="Frames per second.")
    n_q = property(lambda self: self.lm.n_q, doc="Codebooks, K.")
    card = property(lambda self: self.lm.card, doc="Codes of a codebook.")
    special_token_id = property(lambda self: self.lm.card, doc="Fills where the delay has no code.")
    context_token_id = property(lambda self: self.lm.card + 1, doc="Ends the context.")
    device = property(lambda self: self.lm.emb[0].weight.device, doc="Where the weights are.")

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.lm.parameters()) / 1e6
        token = "with" if has_context_row(self.lm) else "without"
        return (
            f"StageModel({self.config.name!r}: LM of {millions:.1f} M parameters {token} context "
            f"token, codec of {self.n_q} x {self.card} codes, {self.frame_rate:g} frames/s, "
            f"{self.sample_rate} Hz)"
        )

    def to(self, device: torch.device | str) -> StageModel:
        """Move LM and codec. Returns the model itself."""
        if gave_up(self.lm):
            if torch.device(device).type != "cpu":
                check_whole(self.lm)
            return self
        self.lm.to(device)
        self.codec.to(device)
        for conditioner in self.lm.condition_provider.conditioners.values():
            if "t5" in vars(conditioner):  # audiocraft's own T5Conditioner: it hides its T5
                conditioner.t5.to(device)
                conditioner.device = str(device)
        return self

    def encode(self, wav: Any, sample_rate: int) -> Int[Tensor, "B K T"]:
        """Codes of audio of any rate and channel count.

        Args:
            wav: [L], [C, L] or [B, C, L]; checked, mixed to mono and resampled by `audio.prepare`.
            sample_rate: of `wav`, in Hz.

        Returns:
            One row per wav, T = ceil(seconds * frame_rate).
        """
        rows = wav if isinstance(wav, Tensor) and wav.dim() == 3 else [wav]
        ready = [prepare(row, sample_rate, self.sample_rate) for row in rows]
        return codec_file.encode(self.codec, torch.stack(ready))

    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B C L"]:
        """The audio of codes, clipped to [-1, 1]; L = T * hop_length."""
        return codec_file.decode(self.codec, codes).clamp(-1.0, 1.0)

    def generate(
        self,
        context: Any = None,
        context_sample_rate: int | Sequence[int | None] | None = None,
        description: str | Sequence[str | None] | None = None,
        duration_s: float | None = None,
        *,
        cfg_coef: float = 3.0,
        cfg_over: Literal["both", "text", "context"] = "both",
        temperature: float = 1.0,
        top_k: int = 250,
        top_p: float = 0.0,
        seed: int | Sequence[int] | None = None,
        prompt: Any = None,
        prompt_sample_rate: int | None = None,
        progress: bool | Callable[[int, int], None] = False,
        weights: str | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        graph: bool = False,
    ) -> Generation:
        """Write audio that fits a context and a description, beginning where the context begins.

        One row or a batch: a list of contexts, a [B, C, L] tensor or a list of descriptions makes a
        batch; a single one beside it serves all rows.

        Args:
            context: what to play along with, [L] or [C, L], any rate and channels; None is plain
                text to music. What is longer than the output and than the trained length is not
                heard, with a warning. Silence is allowed, with a warning.
            context_sample_rate: Hz, needed with a context; one, or one per context.
            description: stem and style in words; None is no text.
            duration_s: length of the output with the prompt; None is the trained length. Longer, up
                to 600 s, is written in windows, with a warning; rounded to whole frames (20 ms).
            cfg_coef: guidance; 1 is none, 0 ignores the conditions.
            cfg_over: what the guidance pushes towards: context and text, or one of them.
            temperature: 0 takes the likeliest code.
            top_k: draw from the k likeliest codes; 0 is all of them.
            top_p: draw from the likeliest codes of this total probability instead; 0 is off.
            seed: same seed and settings, same codes, row b drawing with seed + b (or seed[b]); None
                draws others each time.
            prompt: beginning of the output, as audio (with prompt_sample_rate) or as int64 codes.
            prompt_sample_rate: Hz of an audio prompt.
            progress: True shows a bar; a function gets (steps done, steps in all).
            weights: how the matrices are held meanwhile: "fp32", "bf16" (half the reading) or
                "int8" (a quarter; CPU only). None is as the model was loaded. On a large model the
                time is that of reading them; nano is as quick in fp32. The first call converts.
            window_s: seconds that the model writes before it must begin anew; None is the trained
                length. A longer output goes on in the next window, which begins with the end of
                what is written, hears the part of the context that sounds with it, and needs no
                more memory. Longer than the trained length is allowed, with a warning.
            stride_s: seconds that each window but the first adds; None is half a window. Less is
                slower and holds together better.
            graph: on a GPU, record a step once as a CUDA graph and replay it.

        Returns:
            A Generation: audio, codes, and what the model saw.

        Raises:
            StageLiteError: audio that cannot be used, lists of different lengths, a duration out of
                range, a context for a model without context token, unknown options.
        """
        request = self._request(
            context,
            context_sample_rate,
            description,
            duration_s,
            prompt,
            prompt_sample_rate,
            window_s,
            stride_s,
        )
        done = generate_codes(
            self.lm,
            **request,
            cfg_coef=cfg_coef,
            cfg_over=cfg_over,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            progress=progress,
            weights=weights,
            graph=graph,
        )
        return Generation(
            wav=self.decode(done.codes),
            sample_rate=self.sample_rate,
            codes=done.codes,
            sequence=done.sequence,
            prefix=done.prefix,
            descriptions=tuple(request["descriptions"]),
            seconds_per_step=done.seconds_per_step,
        )

    def stream(
        self,
        context: Any = None,
        context_sample_rate: int | Sequence[int | None] | None = None,
        description: str | Sequence[str | None] | None = None,
        duration_s: float | None = None,
        *,
        block_s: float = 0.5,
        prompt: Any = None,
        prompt_sample_rate: int | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        **sampling: Any,
    ) -> Iterator[Float[Tensor, "B C L"]]:
        """`generate`, in blocks of finished audio while the rest is still being written.

        Put one behind the other the blocks are the audio of `generate` with the same seed: each is
        decoded together with its neighbours' frames, so they join without clicks. The first block
        is ready a quarter of a second of music later than its own frames.

        Args:
            block_s: seconds per block; the last may be shorter.
            window_s, stride_s: as in `generate`.
            sampling: cfg_coef, cfg_over, temperature, top_k, top_p, seed, progress, weights and
                graph as in `generate`.

        Yields:
            Float[B, C, L] in [-1, 1] at `sample_rate`.
        """
        if not block_s > 0:
            raise StageLiteError(f"block_s is {block_s}; expected a number of seconds above 0")
        request = self._request(
            context,
            context_sample_rate,
            description,
            duration_s,
            prompt,
            prompt_sample_rate,
            window_s,
            stride_s,
        )
        return self._blocks(
            stream_codes(self.lm, **request, **sampling), request["n_frames"], block_s
        )

    def loss(self, examples: Sequence[Example]) -> tuple[Float[Tensor, ""], Float[Tensor, " K"]]:
        """Teacher-forced loss of a batch, in nats: mean over codebooks, and of each codebook.

        Args:
            examples: with codes or with audio; targets may differ in length (the rest is no loss).

        Returns:
            (loss, loss per codebook). Differentiable; nothing is dropped.
        """
        batch = make_batch(self, examples)
        return prefix_loss(batch.logits(self.lm), batch.prefix)

    def save(
        self,
        folder: str | Path,
        *,
        dtype: str = "fp32",
        codec_folder: str = "codec",
        t5_folder: str = "t5",
    ) -> Path:
        """Write the model so that `load(folder)` gives it back. Safetensors and JSON, no pickle.

        Each file appears whole or not at all; `config.json` comes last and holds the sha256 of the
        others, so that a folder half overwritten is found out.

        Args:
            folder: made if missing.
            dtype: of the LM's weights in the file: "fp32" (bit-equal), "bf16" or "fp16".
            codec_folder: the codec goes into this subfolder; a path that begins with ".." names
                an existing folder that several models share, and nothing is written there.
            t5_folder: the same for the T5 of a MusicGen that was read with it. One that is only
                known by its name on the hub is not written: its name is.
        """
        check_whole(self.lm)
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise StageLiteError(f"{folder} is a file; expected a folder to write the model into")
        shared = (folder / codec_folder).resolve() / "codec.safetensors"
        if codec_folder.startswith(".."):
            if not shared.is_file():
                raise StageLiteError(f"{shared} is missing; save the codec there first")
        folder.mkdir(parents=True, exist_ok=True)
        if not codec_folder.startswith(".."):
            save_codec(self.codec, self.config.codec, folder / codec_folder)
        save_weights(self.lm, folder / "lm.safetensors", dtype)
        encoder = getattr(self.lm, "context_encoder", None)
        lm = dataclasses.replace(
            self.config.lm,
            context_token=has_context_row(self.lm),
            context_encoder=None if encoder is None else encoder.table.embedding_dim,
        )
        files = ["lm.safetensors", f"{codec_folder}/codec.safetensors"]
        reader, text = text_conditioner(self.lm), {}
        if getattr(reader, "in_memory", False):
            text = {"t5_folder": t5_folder}
            lm = dataclasses.replace(lm, t5=Path(reader.name).name)
            files.append(f"{t5_folder}/model.safetensors")
            if not t5_folder.startswith(".."):
                reader.save(folder / t5_folder)
        config = {
            "format": FORMAT,
            "name": self.config.name,
            "anchor_frames": self.config.anchor_frames,
            "trained_s": self.config.trained_s,
            "codec_folder": codec_folder,
            **text,
            "lm": lm.as_json(),
            "sha256": {name: sha256_of(folder / name) for name in files},
        }
        write_atomic(folder / "config.json", json.dumps(config, indent=1) + "\n")
        return folder

    # --- how a request becomes codes -------------------------------------------------------------

    def _request(
        self,
        context,
        context_sample_rate,
        description,
        duration_s,
        prompt,
        prompt_sample_rate,
        window_s,
        stride_s,
    ) -> dict[str, Any]:
        """The checked arguments of `generate_codes` that come from the user's audio and words."""
        if self.device.type == "cpu" and self.lm.emb[0].weight.dtype == torch.float16:
            raise StageLiteError(
                "the model's weights are fp16 on a CPU, where half precision is slow and "
                "overflows; expected fp32 or bf16. Try: model.lm.float()"
            )
        contexts, descriptions = context_rows(context), description_rows(description)
        rates = rate_rows(context_sample_rate, contexts)
        n_batch = batch_size(context=contexts, description=descriptions)
        n_frames = self._n_frames(duration_s)
        windows = window_request(
            n_frames, window_s, stride_s, self.config.trained_s, self.frame_rate, self.config.name
        )
        longest = self._max_context_frames
        if windows:
            longest = max(longest, n_frames)
        context_codes: list[Tensor | None] | None = None
        if contexts is not None and any(c is not None for c in contexts):
            self.check_context_token()
            context_codes = []
            for b, (wav, rate) in enumerate(zip(contexts, rates, strict=True)):
                name = f"context {b}" if len(contexts) > 1 else "context"
                context_codes.append(self._context_codes(wav, rate, name, longest))
            if len(context_codes) == 1:
                context_codes = context_codes * n_batch
        if len(descriptions) == 1:
            descriptions = descriptions * n_batch
        prompt_codes = self._prompt_codes(prompt, prompt_sample_rate, n_batch, n_frames)
        return {
            "context_codes": context_codes,
            "descriptions": descriptions,
            "n_frames": n_frames,
            "prompt_codes": prompt_codes,
            "anchor_frames": self.config.anchor_frames,
            **windows,
        }

    def _n_frames(self, duration_s: float | None) -> int:
        trained_s = self.config.trained_s
        duration_s = trained_s if duration_s is None else duration_s
        fine = isinstance(duration_s, int | float) and not isinstance(duration_s, bool)
        n_frames = round(duration_s * self.frame_rate) if fine and math.isfinite(duration_s) else 0
        if not 1 <= n_frames <= MAX_DURATION_S * self.frame_rate:
            raise StageLiteError(
                f"duration_s is {duration_s!r}; expected seconds from {1 / self.frame_rate:g} to "
                f"{MAX_DURATION_S:g}; {self.config.name!r} was trained on {trained_s:g} s"
            )
        return n_frames

    @property
    def _max_context_frames(self) -> int:
        anchor = self.config.anchor_frames
        return anchor if anchor and anchor > 0 else round(self.config.trained_s * self.frame_rate)

    def _context_codes(
        self, wav: Any, sample_rate: Any, name: str, longest: int
    ) -> Int[Tensor, "K T"] | None:
        if wav is None:
            return None
        if sample_rate is None:
            raise StageLiteError(
                f"{name} came without a sample rate; expected context_sample_rate in Hz, "
                "the second value that stage_lite.load_audio returns"
            )
        wav = check_wav(wav, sample_rate, name=name)
        longest_s = longest / self.frame_rate
        if wav.shape[-1] > longest_s * sample_rate:
            warnings.warn(
                f"{name} is {wav.shape[-1] / sample_rate:.2f} s long: its first {longest_s:g} s "
                f"are used; {self.config.name!r} was trained on {self.config.trained_s:g} s",
                stacklevel=4,
            )
            wav = wav[:, : math.ceil(longest_s * sample_rate)]
        if is_silent(wav):
            warnings.warn(f"{name} is silent: there is nothing to play along with", stacklevel=4)
        return self.encode(wav, sample_rate)[0, :, :longest].to(self.device)

    def _prompt_codes(
        self, prompt: Any, sample_rate: Any, n_batch: int, n_frames: int
    ) -> Int[Tensor, "B K T"] | None:
        if prompt is None:
            return None
        if isinstance(prompt, Tensor) and prompt.dtype == torch.int64:
            codes = prompt if prompt.dim() == 3 else prompt[None]
            if codes.dim() != 3 or codes.shape[1] != self.n_q:
                raise StageLiteError(
                    f"prompt has shape {tuple(prompt.shape)}; expected codes [B, K, T] or [K, T] "
                    f"with K = {self.n_q}, or audio as floats with prompt_sample_rate"
                )
        elif sample_rate is None:
            raise StageLiteError(
                "prompt came without a sample rate; expected prompt_sample_rate in Hz beside "
                "audio, or int64 codes as model.encode gives"
            )
        else:
            codes = self.encode(prompt, sample_rate)
        if codes.shape[0] not in (1, n_batch):
            raise StageLiteError(f"prompt has {codes.shape[0]} rows; expected 1 or {n_batch}")
        if codes.shape[-1] >= n_frames:
            raise StageLiteError(
                f"prompt is {codes.shape[-1] / self.frame_rate:g} s long; expected less than the "
                f"{n_frames / self.frame_rate:g} s of duration_s, which includes it"
            )
        return codes.expand(n_batch, -1, -1).to(self.device)

    def check_context_token(self) -> None:
        """Raise a StageLiteError if the LM cannot take a context."""
        if not has_context_row(self.lm):
            raise StageLiteError(
                f"{self.config.name!r} has no context token: it knows text only; expected a model "
                "that was trained to listen, such as 'nano'; "
                "stage_lite.extend_embedding(model.lm) adds an untrained token"
            )

    def _blocks(
        self, frames: Iterator[Tensor], n_frames: int, block_s: float
    ) -> Iterator[Float[Tensor, "B C L"]]:
        """Decode each piece of codes as soon as it and its margin on the right are there."""
        hop = codec_file.hop_length(self.codec)
        pieces = codec_file.chunks(self.codec, n_frames, block_s)
        piece = next(pieces, None)
        kept: list[Tensor] = []  # frames `first` to `have`, those that a piece still needs
        first = have = 0
        for new in frames:
            kept.append(new)
            have += new.shape[-1]
            while piece is not None and have >= piece[3]:
                start, stop, left, right = piece
                codes = torch.cat(kept, dim=-1)[..., left - first :]  # [B, K, have - left]
                kept, first = [codes], left
                wav = self.decode(codes[..., : right - left])
                yield wav[..., (start - left) * hop : (stop - left) * hop]
                piece = next(pieces, None)


def load(
    name_or_folder: str | Path,
    device: torch.device | str = "cpu",
    *,
    dtype: str = "fp32",
    t5: str | Path | None = None,
    codec: str | Path | None = None,
    num_heads: int | None = None,
) -> StageModel:
    """A model by name, from a folder or from a file.

        "nano", "nano-stage", "nano-base"       shipped with this library
        "facebook/musicgen-small" (or medium, large), "stage-drums", "stage-bass", "owner/name"
                                                from the Hugging Face hub: see interop.hub
        a folder                                of `StageModel.save`, audiocraft or transformers
        a file .safetensors                     the authors' STAGE

    Half-precision files are loaded as fp32. No pickle that holds code is read.

    Args:
        device: where the model goes.
        dtype: of the language model's weights: "fp32", "bf16", on a GPU "fp16", or on a CPU "int8":
            its matrices are rounded while they are read and never held in another form (MusicGen-
            small: 0.5 GB instead of 1.7). Such a model generates, and cannot be trained or saved.
        t5: a folder, or a name on the hub, of the T5 that reads the descriptions, in place of what
            the model says.
        codec: a folder that holds a codec, in place of the model's own.
        num_heads: of a file that does not tell; None is one per 64 numbers of the width.

    Raises:
        StageLiteError: unknown name, no network, a folder without a whole model, a file that is
            cut short or changed, weights that do not fit their config, another kind of model, or
            too little memory.
    """
    from .interop.parts import check_dtype
    from .interop.read import is_foreign_folder, is_hub_name, read_codec, read_foreign

    torch_dtype = check_dtype(dtype, device)
    known, path = shipped_models(), Path(name_or_folder)
    shipped = known.get(str(name_or_folder))
    if shipped is None and (
        path.is_file()
        or (is_foreign_folder(path) if path.is_dir() else is_hub_name(str(name_or_folder)))
    ):
        settings = {"num_heads": num_heads, "t5": t5, "codec": codec}
        parts = read_foreign(name_or_folder, dtype=torch_dtype, device=device, **settings)
        config = ModelConfig(
            parts.name, parts.lm_config, parts.codec_config, parts.anchor_frames, parts.trained_s
        )
        return StageModel(parts.lm, parts.codec, config).to(device)
    if shipped is None and not path.is_dir():
        raise StageLiteError(
            f"there is no model {str(name_or_folder)!r}; expected one of {sorted(known)}, a folder "
            "that model.save(folder) wrote, or a name on the hub such as facebook/musicgen-small"
        )
    found = None if codec is None else read_codec(codec)
    return _load_folder(shipped or path, torch_dtype, t5, found, device).to(device)


# --- helpers -----------------------------------------------------------------------------------


def _load_folder(
    folder: Path,
    dtype: torch.dtype,
    t5: str | Path | None,
    codec: tuple[nn.Module, CodecConfig] | None,
    device: torch.device | str,
) -> StageModel:
    """The model in a folder of `StageModel.save`."""
    from .interop.build import empty_lm, text_width
    from .interop.names import AUDIOCRAFT
    from .interop.t5 import make_reader
    from .interop.tensor_file import TensorFile, n_elements
    from .memory import check_memory

    values = read_config(folder)
    verify(folder)
    codec_name, t5_name, lm_config, others = _read_values(values, folder)
    weights = TensorFile(folder / "lm.safetensors")
    check_memory(n_elements(weights) * dtype.itemsize, str(folder), device)
    codec = codec or load_codec(folder / codec_name)
    reader = None
    if lm_config.t5 is not None:
        source = t5 or (lm_config.t5 if t5_name is None else (folder / t5_name).resolve())
        width = text_width(weights, AUDIOCRAFT, None)
        reader = make_reader(source, lm_config.dim, dim=width, word_dropout=lm_config.word_dropout)
    lm = empty_lm(lm_config, reader)
    if dtype is torch.int8:
        load_int8(lm, folder / "lm.safetensors")
    else:
        load_weights(lm.to(dtype), folder / "lm.safetensors")
    return StageModel(lm, codec[0], ModelConfig(lm=lm_config, codec=codec[1], **others))


def _read_values(values: dict, folder: Path) -> tuple[str, str | None, LMConfig, dict[str, Any]]:
    """Folders of codec and T5, LM sizes and the other fields of ModelConfig."""
    values = copy.deepcopy(values)
    file = folder / "config.json"
    if values.pop("format", None) != FORMAT:
        raise StageLiteError(
            f"{file} is no config of a Stage Lite model of format {FORMAT}; it comes from another "
            "program or from a newer version of this one"
        )
    values.pop("sha256", None)
    try:
        codec_name, lm_values = values.pop("codec_folder"), values.pop("lm")
        t5_name = values.pop("t5_folder", None)
        lm_values["vocabulary"] = tuple(lm_values["vocabulary"])  # JSON knows only lists
        lm = LMConfig(**lm_values)
        names = {field.name for field in dataclasses.fields(ModelConfig)} - {"lm", "codec"}
        unknown = sorted(set(values) - names)
        if unknown:
            raise TypeError(f"unknown fields {unknown}")
    except (KeyError, TypeError) as error:
        raise StageLiteError(
            f"{file} does not describe a model ({error}); expected what model.save(folder) writes"
        ) from None
    return codec_name, t5_name, lm, values
