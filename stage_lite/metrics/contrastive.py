"""The small networks behind `coherence` and `text`: an encoder of sound, and a judge of pairs.

    wav ──> spectra [2, 96 semitones, T] ──CNN──> a vector every 64 ms ──┬─> of a mix  ─┐
                                                                        └─> of a stem ─┴─> x'Wy

COCOLA's idea at pocket size: stems of one window of one song belong together, anything else does
not, and a bilinear similarity learns to tell. Two things differ. (1) COCOLA pools each sound into
one vector; here the similarity is taken moment by moment and averaged, so that a stem that is
right but late does not fit. (2) COCOLA's 64 mel bands can't tell the notes of a bass apart; here
bands are semitones, seen twice: through a short window, which knows when, and through a long one,
which knows which note.

Source: Ciranni et al. 2024, COCOLA, arXiv:2404.16969, sec. 3 (idea and bilinear similarity).
Notebook: 07_evaluation.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config_json import config_from_json
from ..errors import StageLiteError
from ..files import sha256_of, write_atomic
from ..shipped import verify_digests
from ..weights import load_weights, save_weights

STRIDE = 4  # spectra per vector: the CNN's stride in time, and what the long window moves by
LEVEL = 0.1  # RMS that every sound is brought to, -20 dBFS: how loud it is says nothing
FLOOR = 1e-8  # power below which nothing is heard, 60 dB under a sine of that level


@dataclass(frozen=True)
class EncoderConfig:
    """Geometry of an encoder; saved in config.json."""

    sample_rate: int = 32000  # Hz
    hop_length: int = 512  # samples between two spectra, 16 ms
    short_fft: int = 1024  # samples, 32 ms
    long_fft: int = 8192  # samples, 256 ms
    lowest_hz: float = 32.703  # C1
    n_bands: int = 96  # semitones, up to 7.9 kHz
    channels: tuple[int, ...] = (16, 32, 48, 64)  # of the 2-d convolutions
    width: int = 96  # of the convolutions over time
    dilations: tuple[int, ...] = (1, 2, 4, 8)  # of these, in vectors: hears one second around
    dim: int = 64  # of the vector that comes out

    def __post_init__(self):
        if len(self.channels) < 2:
            raise StageLiteError(
                f"EncoderConfig.channels is {self.channels}; expected at least two numbers: the "
                f"first two convolutions make the stride of {STRIDE} in time"
            )

    @property
    def frame_length(self) -> int:
        """Samples per vector, 64 ms."""
        return STRIDE * self.hop_length

    def to_json(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping) -> EncoderConfig:
        return config_from_json(cls, values, "encoder")


class Spectra(nn.Module):
    """Log power in semitone bands, through a short and through a long window; nothing to learn."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        for name, n_fft in (("short", config.short_fft), ("long", config.long_fft)):
            self.register_buffer(f"{name}_window", torch.hann_window(n_fft), persistent=False)
            self.register_buffer(f"{name}_bands", _semitones(config, n_fft), persistent=False)

    @torch.no_grad()
    def forward(self, wav: Float[Tensor, "B samples"]) -> Float[Tensor, "B 2 F T"]:
        """T = STRIDE * (samples // frame_length) spectra; silence is silence_value everywhere."""
        config = self.config
        n_frames = wav.shape[-1] // config.frame_length
        if not n_frames:
            raise StageLiteError(
                f"wavs of {wav.shape[-1]} samples; expected at least {config.frame_length}, one "
                "vector; take longer windows"
            )
        wav = wav[:, : n_frames * config.frame_length]
        level = wav.square().mean(dim=-1, keepdim=True).sqrt()
        wav = wav * (LEVEL / level.clamp(min=1e-5))  # below -100 dBFS it stays silent
        short = self._bands(wav, self.short_window, self.short_bands, STRIDE * n_frames)
        long = self._bands(wav, self.long_window, self.long_bands, n_frames)
        return torch.stack([short, long.repeat_interleave(STRIDE, dim=-1)], dim=1)

    def _bands(self, wav: Tensor, window: Tensor, bands: Tensor, n_frames: int) -> Tensor:
        n_fft, hop = len(window), wav.shape[-1] // n_frames  # of a wav that is whole vectors long
        padded = nn.functional.pad(wav, (n_fft // 2, n_fft // 2))
        frames = padded.unfold(-1, n_fft, hop)[:, :n_frames] * window  # [B, n_frames, n_fft]
        spectrum = torch.fft.rfft(frames)[..., : bands.shape[1]]
        power = torch.view_as_real(spectrum).square().sum(-1) / window.sum().square()
        levels = torch.log10(power @ bands.T + FLOOR)  # [B, n_frames, F]
        return (levels.transpose(1, 2) + 5) / 2

    @property
    def silence_value(self) -> float:
        """What is in a band without sound."""
        return (math.log10(FLOOR) + 5) / 2


class Encoder(nn.Module):
    """Spectra -> a vector every 64 ms that knows about one second around; any length will do."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        layers, before, bands = [], 2, config.n_bands
        for i, channels in enumerate(config.channels):
            size = 5 if i == 0 else 3
            stride = (1 if i == 0 else 2, 2 if i < 2 else 1)  # (bands, time)
            layers += [
                nn.Conv2d(before, channels, size, stride, size // 2, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            before, bands = channels, -(-bands // stride[0])
        self.bands = nn.Sequential(*layers)
        self.join = _conv1d(before * bands, config.width, 1)
        self.time = nn.ModuleList(_conv1d(config.width, config.width, 3, d)
                                  for d in config.dilations)  # fmt: skip
        self.out = nn.Conv1d(config.width, config.dim, 1)

    def forward(self, spectra: Float[Tensor, "B 2 F T"]) -> Float[Tensor, "B dim frames"]:
        x = self.bands(spectra)  # [B, channels, bands, frames]
        x = self.join(x.flatten(1, 2))  # [B, width, frames]
        for layer in self.time:
            x = x + layer(x)
        return self.out(x)


class PairModel(nn.Module):
    """How well a stem belongs to a mix: the mean over time of x'Wy of their vectors.

    Attributes:
        floor, ceiling: mean similarity of wrong and of right pairs that were held out; with them
            a score reads 0 for a wrong pair and 1 for a right one, on average.
        results: how well it does on held-out songs, as config.json says; empty if not measured.
    """

    def __init__(self, config: EncoderConfig, floor: float = 0.0, ceiling: float = 1.0):
        super().__init__()
        self.config, self.floor, self.ceiling = config, floor, ceiling
        self.results: dict = {}
        self.spectra = Spectra(config)
        self.encoder = Encoder(config)
        self.norm = nn.LayerNorm(config.dim)
        self.bilinear = nn.Parameter(torch.eye(config.dim) / math.sqrt(config.dim))

    def vectors(self, spectra: Float[Tensor, "B 2 F T"]) -> Float[Tensor, "B frames dim"]:
        """What is compared, moment by moment; each number in (-1, 1)."""
        return torch.tanh(self.norm(self.encoder(spectra).transpose(1, 2)))

    def embed(self, wav: Float[Tensor, "B samples"]) -> Float[Tensor, "B frames dim"]:
        """`vectors` of audio at the model's sample rate."""
        return self.vectors(self.spectra(wav))

    def similarities(
        self, mixes: Float[Tensor, "n frames dim"], stems: Float[Tensor, "m frames dim"]
    ) -> Float[Tensor, "n m"]:
        """Of every mix with every stem; no upper or lower bound."""
        return (mixes @ self.bilinear).flatten(1) @ stems.flatten(1).T / mixes.shape[1]

    def scores(
        self, mixes: Float[Tensor, "n frames dim"], stems: Float[Tensor, "m frames dim"]
    ) -> Float[Tensor, "n m"]:
        """`similarities` on the scale where wrong pairs have 0 and right ones 1 on average."""
        return (self.similarities(mixes, stems) - self.floor) / (self.ceiling - self.floor)


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- folders -------------------------------------------------------------------------------------


def save_folder(module: nn.Module, folder: str | Path, config: Mapping, card: str) -> Path:
    """Write `weights.safetensors` (half precision), `README.md`, and `config.json` last.

    Args:
        module: what is saved.
        folder: made if missing.
        config: what JSON can write; the sha256 of the weights is added.
        card: the model card, Markdown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(module, folder / "weights.safetensors", "fp16")
    write_atomic(folder / "README.md", card)
    digest = {"weights.safetensors": sha256_of(folder / "weights.safetensors")}
    write_atomic(folder / "config.json", json.dumps({**config, "sha256": digest}, indent=1) + "\n")
    return folder


def read_folder_config(folder: str | Path, what: str, made_by: str) -> dict:
    """`config.json` of a folder that `save_folder` wrote, after comparing the weights' sha256.

    Args:
        folder: of the model.
        what: name of the model, for the message.
        made_by: script that trains one, for the message.

    Raises:
        StageLiteError: the folder or a file is missing, broken, or of another model.
    """
    folder = Path(folder)
    missing = [n for n in ("config.json", "weights.safetensors") if not (folder / n).is_file()]
    if missing:
        raise StageLiteError(
            f"no {what} in {folder}: {' and '.join(missing)} missing; expected the folder that "
            f"comes with the package, or one that {made_by} wrote; the measures without weights "
            "work as they are"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, expected = config["kind"], config["sha256"]["weights.safetensors"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise StageLiteError(
            f"{folder / 'config.json'} is no config of a {what} ({type(error).__name__}: {error}); "
            "copy the folder again"
        ) from None
    if kind != what:
        raise StageLiteError(f"{folder} holds a {kind!r}; expected a {what!r}; pass its folder")
    verify_digests(folder, {"weights.safetensors": expected})
    return config


PAIR_MODEL = "coherence model"


def save_pair_model(model: PairModel, folder: str | Path, results: Mapping, card: str) -> Path:
    """Write a pair model; `load_pair_model(folder)` gives it back.

    Args:
        model: its floor and ceiling are saved too.
        folder: made if missing.
        results: how well it does, with n and intervals; printed beside its scores.
        card: the model card.
    """
    config = {
        "kind": PAIR_MODEL,
        "encoder": model.config.to_json(),
        "floor": model.floor,
        "ceiling": model.ceiling,
        "results": dict(results),
    }
    return save_folder(model, folder, config, card)


def load_pair_model(folder: str | Path) -> PairModel:
    """The model that `save_pair_model` wrote, in eval mode; `model.results` is what was saved.

    Raises:
        StageLiteError: the folder is missing, broken, or holds another model, or one that has
            learnt nothing, whose scores would have no scale.
    """
    config = read_folder_config(folder, PAIR_MODEL, "pretraining/train_coherence.py")
    model = PairModel(
        EncoderConfig.from_json(config["encoder"]), float(config["floor"]), float(config["ceiling"])
    )
    if not model.ceiling > model.floor:
        raise StageLiteError(
            f"{folder} holds a model whose right pairs are not more alike ({model.ceiling:.4g}) "
            f"than wrong ones ({model.floor:.4g}): it has learnt nothing; train it for longer"
        )
    load_weights(model, Path(folder) / "weights.safetensors")
    model.results = config["results"]
    return model.eval().requires_grad_(False)


# --- helpers -------------------------------------------------------------------------------------


def _semitones(config: EncoderConfig, n_fft: int) -> Float[Tensor, "F bins"]:
    """Triangles around semitones, at least one bin wide, each of sum 1; bins beyond are left out.

    A triangle reaches to its neighbours; where a bin is wider than a semitone, to the next bin.
    """
    centres = config.lowest_hz * 2.0 ** (torch.arange(config.n_bands).double() / 12)
    bin_hz = config.sample_rate / n_fft
    if float(centres[-1]) * 2 ** (1 / 12) > config.sample_rate / 2:
        raise StageLiteError(
            f"{config.n_bands} semitones from {config.lowest_hz} Hz reach {centres[-1]:.0f} Hz; "
            f"expected less than {config.sample_rate / 2:.0f} Hz; take fewer bands"
        )
    reach = (centres * (2 ** (1 / 12) - 1)).clamp(min=bin_hz)
    n_bins = math.ceil(float(centres[-1] + reach[-1]) / bin_hz) + 1
    hz = torch.arange(min(n_bins, n_fft // 2 + 1)) * bin_hz
    weights = (1 - (hz - centres[:, None]).abs() / reach[:, None]).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def _conv1d(before: int, after: int, size: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(before, after, size, padding=dilation * (size // 2), dilation=dilation,
                  bias=False),
        nn.BatchNorm1d(after),
        nn.ReLU(),
    )  # fmt: skip
