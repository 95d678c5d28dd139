"""Clips as points: the embeddings over which FAD and KAD are measured.

An embedding is a function (wavs, sample_rate) -> Float[n, d]. The built-in ones give one row per
clip: mean and standard deviation over time of something that is there in every frame, so that a
clip's length does not change d. They need nothing but this package, but nobody has compared them
with listeners: they tell whether sets of clips differ, not how much worse one sounds.

    embed = embedding("codec", model=model)      or "log-mel", "clap", "vggish", "panns"
    fad(embed(real, 32000), embed(generated, 32000))

CLAP, VGGish and PANNs are plug-ins: each needs a package and weights of others, looked for when
the embedding is made; nothing is downloaded. They were tried with random weights of the right
shapes only, so nothing is known here of their scores.

Notebook: 07_evaluation.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..audio import prepare
from ..codec import chunks, hop_length, n_frames
from ..errors import StageLiteError
from ..upstream import torchaudio
from .beats import ANALYSIS_RATE

MEL_BANDS = 32  # few: a covariance of d dimensions wants several times d clips
MEL_FFT = 2048  # samples at ANALYSIS_RATE, 64 ms
MEL_HOP = 640  # samples, 20 ms, as a frame of the codec
CLAP_WEIGHTS = "laion/larger_clap_music"
VGGISH_FILE = "vggish-10086976.pth"
VGGISH_URL = "https://github.com/harritaylor/torchvggish/releases/tag/v0.1"
PANNS = {  # below ~/panns_data, where panns_inference looks
    "Cnn14_mAP=0.431.pth": "https://zenodo.org/record/3987831",
    "class_labels_indices.csv": "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv",
}

Wavs = Tensor | ndarray | Sequence[Tensor] | Sequence[ndarray]  # [B, C, L], or a list of [C, L]
Embedding = Callable[[Wavs, int], Float[ndarray, "n d"]]


def embedding(name: str, **options: Any) -> Embedding:
    """An embedding by its name.

    Args:
        name: "codec" (needs model=), "log-mel", "clap", "vggish" or "panns".
        options: of the function that makes it: `codec_latents`, `log_mel_statistics`, `clap`,
            `vggish`, `panns`.

    Raises:
        StageLiteError: no such name, an option missing or unknown, a package or weights missing.
    """
    if not isinstance(name, str) or name not in _MAKERS:
        raise StageLiteError(
            f"no embedding is called {name!r}; expected one of {', '.join(_MAKERS)}; or write a "
            "function (wavs, sample_rate) -> [n, d] of your own"
        )
    try:
        inspect.signature(_MAKERS[name]).bind(**options)
    except TypeError as error:
        raise StageLiteError(
            f"embedding {name!r} got options {sorted(options)}: {error}; expected "
            f"{inspect.signature(_MAKERS[name])}"
        ) from None
    return _MAKERS[name](**options)


def codec_latents(model: Any) -> Embedding:
    """What a codec's encoder makes of a clip, before it is quantised.

    Frames of the latent, [D, T]; mean and standard deviation over T, so d = 2 D (128 for nano).

    Args:
        model: a StageModel, or audiocraft's EncodecModel.

    Returns:
        One row per clip, [B, 2 D].
    """
    codec = getattr(model, "codec", model)
    if not hasattr(codec, "encoder"):
        raise StageLiteError(
            f"codec_latents got a {type(model).__name__}, which has no encoder; expected a "
            "StageModel or an audiocraft EncodecModel, such as stage_lite.load('nano')"
        )

    def embed(wavs: Wavs, sample_rate: int) -> Float[ndarray, "B d"]:
        rows = [
            _statistics(_latents(codec, wav))
            for wav in _clips(wavs, sample_rate, codec.sample_rate)
        ]
        return np.stack(rows)

    return embed


def log_mel_statistics(
    wavs: Wavs, sample_rate: int, n_mels: int = MEL_BANDS
) -> Float[ndarray, "B d"]:
    """Mean and standard deviation over time of log-mel bands, in dB, d = 2 n_mels.

    librosa's mel spectrogram of 64-ms frames every 20 ms at 32 kHz, 0 Hz to 16 kHz, power in dB of
    full scale, -100 at the lowest. Hears timbre, level and how much both move; no pitch, no beat.

    Args:
        wavs: [B, C, L], or a list of [C, L] or [L] of any lengths; mixed to mono, resampled.
        sample_rate: Hz, of all.
        n_mels: bands.

    Raises:
        StageLiteError: no clips, a clip that `audio.check_wav` refuses.
    """
    import librosa

    rows = []
    for wav in _clips(wavs, sample_rate, ANALYSIS_RATE):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # short audio: n_fft is larger than the signal
            power = librosa.feature.melspectrogram(
                y=wav[0].numpy(),
                sr=ANALYSIS_RATE,
                n_fft=MEL_FFT,
                hop_length=MEL_HOP,
                n_mels=n_mels,
            )  # [n_mels, T]
        rows.append(_statistics(librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)))
    return np.stack(rows)


def clap(weights: str | Path = CLAP_WEIGHTS) -> Embedding:
    """LAION's CLAP through transformers: one row per clip, [B, 512], each of length 1.

    CLAP listens to 10 s: a longer clip is cut into pieces of 10 s, whose rows are averaged by
    their lengths.
    Source: Wu et al. 2023, arXiv:2211.06687.

    Args:
        weights: a folder, or the name on the Hugging Face hub of what is in its cache; the
            default's licence is Apache 2.0.
    """
    needs = ("clap", "transformers", f"{weights} (a folder, or in the Hugging Face cache)")
    transformers = _package("transformers", *needs)
    torchaudio()  # imported by transformers' CLAP: first without the part that may not load
    extractor_class = transformers.ClapFeatureExtractor
    try:
        extractor = extractor_class.from_pretrained(str(weights), local_files_only=True)
        model = load_clap_model(weights)
    except OSError as error:
        raise _missing(*needs, str(error), f"hf download {weights}") from error
    rate = extractor.sampling_rate

    @torch.no_grad()
    def embed(wavs: Wavs, sample_rate: int) -> Float[ndarray, "B d"]:
        rows = []
        for wav in _clips(wavs, sample_rate, rate):
            pieces = [piece.numpy() for piece in wav[0].split(extractor.nb_max_samples)]
            features = extractor(pieces, sampling_rate=rate, return_tensors="pt")
            found = model.get_audio_features(**features)
            found = getattr(found, "pooler_output", found)  # transformers 5, 4: [pieces, d]
            rows.append(np.average(found.numpy(), axis=0, weights=[len(p) for p in pieces]))
        return np.stack(rows)

    return embed


def load_clap_model(weights: str | Path) -> torch.nn.Module:
    """transformers' ClapModel in eval mode; nothing is downloaded, and no pickle is read.

    Raises:
        ImportError, OSError, ValueError: transformers or the weights are missing or broken.
    """
    torchaudio()  # imported by transformers' CLAP: first without the part that may not load
    from transformers import ClapModel

    return ClapModel.from_pretrained(
        str(weights), local_files_only=True, use_safetensors=True
    ).eval()


def vggish() -> Embedding:
    """VGGish through torchvggish: one row of 128 for every 0.96 s of each clip.

    Rows of one clip are not independent, so n overstates what is known. As in fadtk and
    frechet-audio-distance, without PCA and quantisation and without the last ReLU.
    Source: Hershey et al. 2017, arXiv:1609.09430; Kilgour et al. 2019.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    needs = ("vggish", "torchvggish (with resampy)", f"{VGGISH_FILE} in {folder}")
    package = _package("torchvggish", *needs)
    if not (folder / VGGISH_FILE).is_file():
        raise _missing(*needs, "the package alone", f"fetch it from {VGGISH_URL}")
    model = package.vggish(postprocess=False)
    model.embeddings = model.embeddings[:-1]
    model.eval()

    @torch.no_grad()
    def embed(wavs: Wavs, sample_rate: int) -> Float[ndarray, "n d"]:
        rows = []
        for i, wav in enumerate(_clips(wavs, sample_rate, 16000)):
            examples = package.waveform_to_examples(wav[0].double().numpy(), 16000)
            if not len(examples):
                raise StageLiteError(
                    f"clip {i} is {wav.shape[-1] / 16000:.2f} s long; vggish expected at least "
                    "0.98 s; leave it out, and count it"
                )
            rows.append(model(examples).numpy())  # [examples, 128]
        return np.concatenate(rows)

    return embed


def panns() -> Embedding:
    """PANNs' Cnn14 through panns_inference: one row per clip, [B, 2048].

    So many dimensions want KAD; FAD would ask for more than 2048 clips.
    Source: Kong et al. 2020, arXiv:1912.10211.
    """
    folder = Path.home() / "panns_data"
    needs = ("panns", "panns_inference (with torchlibrosa)", f"{' and '.join(PANNS)} in {folder}")
    absent = [f"{name} from {url}" for name, url in PANNS.items() if not (folder / name).is_file()]
    if not absent:
        package = _package("panns_inference", *needs)
    elif importlib.util.find_spec("panns_inference") is None:
        raise _missing(
            *needs,
            "no package, no weights",
            _INSTALL["panns"] + f", and fetch {' and '.join(absent)}",
        )
    else:  # the package would call wget for them when it is imported
        raise _missing(*needs, "the package alone", f"fetch {' and '.join(absent)}")
    tagger = package.AudioTagging(device="cpu")

    def embed(wavs: Wavs, sample_rate: int) -> Float[ndarray, "B d"]:
        rows = [tagger.inference(wav.numpy())[1][0] for wav in _clips(wavs, sample_rate, 32000)]
        return np.stack(rows)

    return embed


def _log_mel(n_mels: int = MEL_BANDS) -> Embedding:
    return lambda wavs, sample_rate: log_mel_statistics(wavs, sample_rate, n_mels)


_MAKERS: dict[str, Callable[..., Embedding]] = {
    "codec": codec_latents,
    "log-mel": _log_mel,
    "clap": clap,
    "vggish": vggish,
    "panns": panns,
}

_INSTALL = {
    "clap": "python -m pip install transformers",
    "vggish": "python -m pip install torchvggish resampy",
    "panns": "python -m pip install panns-inference torchlibrosa",
}


# --- what they share -----------------------------------------------------------------------------


def _clips(wavs: Wavs, sample_rate: int, to_hz: int) -> Iterator[Float[Tensor, "1 L"]]:
    """Each clip, checked, mono, at the rate that is asked for."""
    if isinstance(wavs, Tensor | ndarray) and wavs.ndim != 3:
        raise StageLiteError(
            f"an embedding got wavs of shape {tuple(wavs.shape)}; expected [B, C, L] or a list of "
            "[C, L]; wav[None] is a batch of one"
        )
    if not len(wavs):
        raise StageLiteError("an embedding got no clips; expected at least one")
    for i, wav in enumerate(wavs):
        yield prepare(wav, sample_rate, to_hz, name=f"clip {i}")


@torch.no_grad()
def _latents(codec: Any, wav: Float[Tensor, "1 L"]) -> Float[ndarray, "D T"]:
    total, hop = n_frames(codec, wav.shape[-1]), hop_length(codec)
    wav = torch.nn.functional.pad(wav, (0, total * hop - wav.shape[-1])).expand(codec.channels, -1)
    like = next(codec.parameters())
    pieces = []
    for start, stop, left, right in chunks(codec, total, 20.0):
        piece, _ = codec.preprocess(wav[None, :, left * hop : right * hop].to(like))
        pieces.append(codec.encoder(piece)[0, :, start - left : stop - left])
    return torch.cat(pieces, dim=-1).float().cpu().numpy()


def _statistics(frames: Float[ndarray, "D T"]) -> Float[ndarray, " d"]:
    return np.concatenate([frames.mean(axis=1), frames.std(axis=1)])


def _package(module: str, name: str, package: str, weights: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(name, package, weights, str(error), _INSTALL[name]) from error


def _missing(name: str, package: str, weights: str, got: str, way_out: str) -> StageLiteError:
    first_line = got.partition("\n")[0]
    return StageLiteError(
        f"embedding {name!r} needs the package {package} and the weights {weights}; got: "
        f"{first_line}; try: {way_out}; or 'log-mel' or 'codec', which need neither"
    )
