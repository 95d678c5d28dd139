"""The codec: wav <-> codes, with audiocraft's own EnCodec classes in MusicGen's 32 kHz geometry.

One frame is `hop_length` = 640 samples (20 ms, 50 frames a second) and holds K = 4 codes.
A wav whose length is no multiple of 640 is padded with zeros on the right; `decode` returns
exactly T * 640 samples for T frames.

Source: Défossez et al. 2022, arXiv:2210.13438; Copet et al. 2023, arXiv:2306.05284, sec. 3.1.
Notebook: 01_tokenization.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import warnings
import weakref
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .config_json import config_from_json
from .errors import StageLiteError
from .files import write_atomic

if TYPE_CHECKING:
    from audiocraft.models.encodec import EncodecModel

MARGIN_FRAMES = 12  # frames read on both sides of a chunk: more than encoder or decoder look around
MARGIN_FRAMES_LSTM = 100  # an LSTM remembers without limit; 2 s is where chunks stop to matter


@dataclass(frozen=True)
class CodecConfig:
    """Geometry of an EnCodec model. The defaults are MusicGen's, with fewer filters and codes."""

    sample_rate: int = 32000  # Hz
    channels: int = 1
    n_filters_encoder: int = 16  # width at the full sample rate; doubles at each ratio
    n_filters_decoder: int = 16
    dimension: int = 64  # of one latent frame
    ratios: tuple[int, ...] = (8, 5, 4, 4)  # decoder order; product = hop_length in samples
    n_residual_layers: int = 1
    kernel_size: int = 7  # first convolution
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2  # narrowing inside a residual block
    lstm: int = 0  # layers (MusicGen has 2)
    true_skip: bool = True
    pad_mode: str = "constant"
    n_q: int = 4  # codebooks
    card: int = 512  # codes per codebook (MusicGen has 2048)
    decay: float = 0.99  # of the codebooks' moving average, training only
    kmeans_iters: int = 50
    threshold_ema_dead_code: int = 2

    def __post_init__(self):
        for name in ("sample_rate", "channels", "n_filters_encoder", "n_filters_decoder",
                     "dimension", "n_q", "card"):  # fmt: skip
            if getattr(self, name) < 1:
                raise StageLiteError(
                    f"CodecConfig.{name} is {getattr(self, name)}; expected a number of at least 1"
                )

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    def to_json(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> CodecConfig:
        return config_from_json(cls, values, "codec")


def build_codec(config: CodecConfig, seed: int | None = None) -> EncodecModel:
    """An audiocraft EncodecModel with random weights, in eval mode.

    Encoder and decoder are non-causal SEANets with weight norm, the quantiser is a residual vector
    quantiser with k-means initialisation, nothing is renormalised: as in MusicGen's 32 kHz codec.

    Args:
        config: geometry.
        seed: seeds the weights without touching torch's global random state; None draws from it.
    """
    from .upstream import audiocraft_classes

    ac = audiocraft_classes()
    shared = {
        "channels": config.channels,
        "dimension": config.dimension,
        "n_residual_layers": config.n_residual_layers,
        "ratios": list(config.ratios),
        "norm": "weight_norm",
        "kernel_size": config.kernel_size,
        "last_kernel_size": config.last_kernel_size,
        "residual_kernel_size": config.residual_kernel_size,
        "dilation_base": config.dilation_base,
        "causal": False,
        "pad_mode": config.pad_mode,
        "true_skip": config.true_skip,
        "compress": config.compress,
        "lstm": config.lstm,
    }
    with torch.random.fork_rng(devices=[], enabled=seed is not None), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch: weight_norm is deprecated
        if seed is not None:
            torch.manual_seed(seed)
        codec = ac.EncodecModel(
            encoder=ac.SEANetEncoder(n_filters=config.n_filters_encoder, **shared),
            decoder=ac.SEANetDecoder(n_filters=config.n_filters_decoder, **shared),
            quantizer=ac.ResidualVectorQuantizer(
                dimension=config.dimension,
                n_q=config.n_q,
                bins=config.card,
                decay=config.decay,
                kmeans_init=True,
                kmeans_iters=config.kmeans_iters,
                threshold_ema_dead_code=config.threshold_ema_dead_code,
            ),
            frame_rate=config.frame_rate,
            sample_rate=config.sample_rate,
            channels=config.channels,
            causal=False,
            renormalize=False,
        )
    return codec.eval()


def hop_length(codec: EncodecModel) -> int:
    """Samples per frame of any audiocraft codec (640 for MusicGen's)."""
    return round(codec.sample_rate / codec.frame_rate)


def n_frames(codec: EncodecModel, n_samples: int) -> int:
    """Frames that `encode` makes of `n_samples` samples: rounded up, the last one zero-padded."""
    return -(-n_samples // hop_length(codec))


@torch.no_grad()
def encode(
    codec: EncodecModel, wav: Float[Tensor, "B C L"], chunk_s: float | None = 20.0
) -> Int[Tensor, "B K T"]:
    """Codes of a wav at the codec's own sample rate and channel count.

    Args:
        codec: an audiocraft EncodecModel in eval mode (training mode would move its codebooks).
        wav: in [-1, 1], L >= 1; padded with zeros on the right to a whole number of frames.
        chunk_s: long audio is encoded in pieces of this many seconds, which overlap by more than
            the receptive field, so the codes are those of one piece; None takes one piece.

    Returns:
        T = ceil(L / hop_length) frames, int64, on the wav's device.

    Raises:
        StageLiteError: wrong rank, wrong channel count, no samples, NaN or infinite samples.
    """
    _check_ready(codec)
    if wav.dim() != 3 or wav.shape[1] != codec.channels or wav.shape[-1] < 1:
        raise StageLiteError(
            f"encode got a wav of shape {tuple(wav.shape)}; expected [B, C, L] with "
            f"C = {codec.channels} and L >= 1; add the batch axis with wav[None], "
            "or mix to mono with stage_lite.audio.to_mono"
        )
    if not torch.isfinite(wav).all():
        raise StageLiteError(
            "encode got a wav with NaN or infinite samples; expected numbers in [-1, 1]; "
            "torch.nan_to_num(wav) replaces them"
        )
    device = next(codec.parameters()).device
    dtype = next(codec.parameters()).dtype
    hop = hop_length(codec)
    total = n_frames(codec, wav.shape[-1])
    wav = torch.nn.functional.pad(wav, (0, total * hop - wav.shape[-1]))  # [B, C, T * hop]
    pieces = []
    for start, stop, left, right in chunks(codec, total, chunk_s):
        piece = wav[..., left * hop : right * hop].to(device, dtype)
        codes, _ = codec.encode(piece)  # [B, K, right - left]
        pieces.append(codes[..., start - left : stop - left].to(wav.device))
    return torch.cat(pieces, dim=-1)  # [B, K, T]


@torch.no_grad()
def decode(
    codec: EncodecModel, codes: Int[Tensor, "B K T"], chunk_s: float | None = 20.0
) -> Float[Tensor, "B C L"]:
    """The wav of codes: L = T * hop_length samples, exactly. T may be 0.

    Args:
        codec: an audiocraft EncodecModel in eval mode.
        codes: each in [0, card); fewer than n_q codebooks are allowed (a coarser wav).
        chunk_s: as in `encode`.

    Raises:
        StageLiteError: wrong rank or codebook count, or a code out of range (the first is named).
    """
    _check_ready(codec)
    if codes.dim() != 3 or not 1 <= codes.shape[1] <= codec.total_codebooks:
        raise StageLiteError(
            f"decode got codes of shape {tuple(codes.shape)}; expected [B, K, T] with K from 1 to "
            f"{codec.total_codebooks}; add the batch axis with codes[None]"
        )
    _check_codes(codec, codes)
    device = next(codec.parameters()).device
    hop = hop_length(codec)
    pieces = []
    for start, stop, left, right in chunks(codec, codes.shape[-1], chunk_s):
        wav = codec.decode(codes[..., left:right].to(device))  # [B, C, (right - left) * hop]
        pieces.append(wav[..., (start - left) * hop : (stop - left) * hop].to(codes.device))
    if not pieces:
        return torch.zeros(codes.shape[0], codec.channels, 0)
    return torch.cat(pieces, dim=-1)  # [B, C, T * hop]


@torch.no_grad()
def decode_codebooks(
    codec: EncodecModel,
    codes: Int[Tensor, "B K T"],
    codebooks: Sequence[int],
    chunk_s: float | None = 20.0,
) -> Float[Tensor, "B C L"]:
    """The wav of some of the codebooks, to hear what the others add.

    The decoder gets a sum of one vector per codebook; here those of the others are left out. The
    first n codebooks give `decode(codec, codes[:, :n])`; others are sums that the decoder was never
    trained on. None at all gives silence.

    Args:
        codes: of all codebooks, as for `decode`.
        codebooks: which to keep, from 0.

    Raises:
        StageLiteError: a codebook that is not there, or codes that `decode` would refuse.
    """
    kept = sorted(set(codebooks))
    n_q = codes.shape[1]
    wrong = [k for k in kept if not 0 <= k < n_q]
    if wrong:
        raise StageLiteError(f"there is no codebook {wrong[0]}; expected some of 0 to {n_q - 1}")
    if kept == list(range(len(kept))) and kept:
        return decode(codec, codes[:, : len(kept)], chunk_s)
    whole = decode(codec, codes[:, :1], chunk_s)  # checks codes and codec, and knows the shape
    if not kept or not codes.shape[-1]:
        return torch.zeros_like(whole)
    device, hop = next(codec.parameters()).device, hop_length(codec)
    _check_codes(codec, codes)
    pieces = []
    for start, stop, left, right in chunks(codec, codes.shape[-1], chunk_s):
        piece = codes[..., left:right].to(device)
        latents = torch.zeros_like(codec.decode_latent(piece[:, :1]))
        for k in kept:  # what codebook k adds to those before it
            latents += codec.decode_latent(piece[:, : k + 1])
            if k:
                latents -= codec.decode_latent(piece[:, :k])
        wav = codec.decoder(latents)
        pieces.append(wav[..., (start - left) * hop : (stop - left) * hop].to(codes.device))
    return torch.cat(pieces, dim=-1)  # [B, C, T * hop]


@torch.no_grad()
def restart_dead_codes(
    codec: EncodecModel,
    latents: Float[Tensor, "B D T"],
    min_share: float = 0.1,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Move codes that nobody uses onto latents of the current batch; for training a codec.

    audiocraft's own restart has no effect: `expire_codes_` writes the new vector into `embed` only,
    and the same forward pass overwrites it from `embed_avg`, so that a dead code stays dead. Here
    the moving averages are set along with it. Call it after an optimiser step, every few steps.

    Args:
        codec: its quantiser has been initialised (one forward pass in training mode).
        latents: encoder output of a batch.
        min_share: a code is dead below this share of the mean usage (moving average). audiocraft's
            absolute threshold of 2 would be above the mean for small batches.
        generator: draws the replacement latents; None uses torch's global one.

    Returns:
        How many codes were restarted in each codebook.
    """
    residual = latents.transpose(1, 2).reshape(-1, latents.shape[1]).float()  # [B * T, D]
    restarted = []
    for layer in codec.quantizer.vq.layers:
        book = layer._codebook
        mean_usage = book.cluster_size.sum() / book.codebook_size
        dead = (book.cluster_size < min_share * mean_usage).nonzero()[:, 0]
        if len(dead):
            drawn = torch.randint(len(residual), (len(dead),), generator=generator)
            vectors = residual[drawn.to(residual.device)].to(book.embed.dtype)
            book.embed[dead] = vectors
            book.cluster_size[dead] = mean_usage
            book.embed_avg[dead] = vectors * mean_usage
        restarted.append(len(dead))
        residual = residual - book.decode(book.encode(residual.to(book.embed.dtype))).float()
    return restarted


def save_codec(codec: EncodecModel, config: CodecConfig, folder: str | Path) -> None:
    """Write `codec.safetensors` and `config.json` into a folder, each of them atomically."""
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in codec.state_dict().items()}
    write_atomic(folder / "codec.safetensors", save(state))
    write_atomic(folder / "config.json", json.dumps(config.to_json(), indent=1))


def load_codec(folder: str | Path) -> tuple[EncodecModel, CodecConfig]:
    """The codec that `save_codec` wrote.

    Raises:
        StageLiteError: a file is missing, cut short, or holds tensors of other names or shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config_file, weights_file = folder / "config.json", folder / "codec.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise StageLiteError(
                f"no codec in {folder}: {file.name} is missing; expected config.json and "
                "codec.safetensors, as written by stage_lite.codec.save_codec"
            )
    try:
        config = CodecConfig.from_json(json.loads(config_file.read_text()))
    except json.JSONDecodeError as error:
        raise StageLiteError(f"{config_file} is not JSON ({error}); copy it again") from None
    try:
        state = load_file(weights_file)
    except SafetensorError as error:
        raise StageLiteError(
            f"{weights_file} is broken or cut short ({error}); copy or download it again"
        ) from None
    codec = build_codec(config, seed=0)
    own = codec.state_dict()
    odd = sorted(
        name
        for name in own.keys() | state.keys()
        if name not in own or name not in state or own[name].shape != state[name].shape
    )
    if odd:
        raise StageLiteError(
            f"{weights_file} does not fit config.json: {len(odd)} tensors are missing, unknown or "
            f"of another shape, first {odd[0]!r}; use the config.json that was saved with it"
        )
    codec.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()})
    return codec, config


class CodeCache:
    """Codes on disk, found again by the content of the audio and of the codec.

    Encoding is the slow part of fine-tuning on one's own songs and always gives the same codes, so
    it is done once: `cache(codec, wav)` encodes at the first call and reads a small file later.
    One `.npz` per wav, written atomically; a broken file is encoded anew.

    Args:
        folder: made if missing; safe to delete at any time.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._fingerprints = weakref.WeakKeyDictionary()  # codec -> (version, sha256)

    def __call__(self, codec: EncodecModel, wav: Float[Tensor, "C L"]) -> Int[Tensor, "K T"]:
        """Codes of one wav at the codec's sample rate."""
        file = self.folder / f"{self.key(codec, wav)}.npz"
        codes = _read_codes(file)
        if codes is None:
            codes = encode(codec, wav[None])[0]
            _write_codes(file, codes)
        return codes

    def key(self, codec: EncodecModel, wav: Float[Tensor, "C L"]) -> str:
        """Hex name of a wav as seen by a codec: changes with any sample and any weight."""
        content = hashlib.sha256(self._fingerprint(codec).encode())
        content.update(str(tuple(wav.shape)).encode())
        content.update(wav.detach().cpu().float().contiguous().numpy().tobytes())
        return content.hexdigest()[:32]

    def _fingerprint(self, codec: EncodecModel) -> str:
        # In-place changes raise a tensor's version, so training the codec asks for a new hash.
        state = codec.state_dict()
        version = sum(tensor._version for tensor in state.values())
        known = self._fingerprints.get(codec)
        if known is None or known[0] != version:
            content = hashlib.sha256(f"{codec.num_codebooks}".encode())
            for name, tensor in sorted(state.items()):
                content.update(name.encode())
                content.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
            known = self._fingerprints[codec] = (version, content.hexdigest())
        return known[1]


def _check_ready(codec: EncodecModel) -> None:
    # In training mode the quantiser moves its codebooks while it encodes.
    if codec.training:
        raise StageLiteError(
            "the codec is in training mode; expected eval mode, in which codes are repeatable; "
            "call codec.eval() first"
        )


def _check_codes(codec: EncodecModel, codes: Tensor) -> None:
    wrong = (codes < 0) | (codes >= codec.cardinality)
    if wrong.any():
        b, k, t = (int(i) for i in wrong.nonzero()[0])
        raise StageLiteError(
            f"decode got code {int(codes[b, k, t])} at batch {b}, codebook {k}, frame {t}; "
            f"expected 0 to {codec.cardinality - 1}; special and context tokens are no audio, "
            "cut them off with stage_lite.undelay"
        )


def chunks(codec: EncodecModel, total: int, chunk_s: float | None):
    """(start, stop) of each piece in frames and (left, right) with the margin around it."""
    size = total if chunk_s is None else max(1, round(chunk_s * codec.frame_rate))
    recurrent = any(isinstance(module, torch.nn.LSTM) for module in codec.modules())
    margin = MARGIN_FRAMES_LSTM if recurrent else MARGIN_FRAMES
    for start in range(0, total, max(1, size)):
        stop = min(total, start + size)
        yield start, stop, max(0, start - margin), min(total, stop + margin)


def _read_codes(file: Path) -> Int[Tensor, "K T"] | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return torch.from_numpy(stored["codes"].astype(np.int64))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or broken: encode again


def _write_codes(file: Path, codes: Int[Tensor, "K T"]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, codes=codes.cpu().numpy().astype(np.uint16))
    write_atomic(file, buffer.getvalue())
