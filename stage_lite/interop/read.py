"""What a name or a path is, and the parts of the model in it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..codec import CodecConfig, load_codec
from ..errors import StageLiteError
from ..memory import check_memory
from . import hub
from .audiocraft_folder import (
    CODEC_FILE,
    LM_FILE,
    codec_from_package,
    read_audiocraft,
    read_package,
)
from .official_stage import read_official_stage
from .parts import Parts
from .transformers_folder import read_json, read_transformers, read_transformers_codec

REFUSED = {
    "melody": "MusicGen-melody also listens to a melody",
    "stereo": "a stereo MusicGen has eight codebooks in pairs",
    "style": "MusicGen-style also listens to a style",
    "magnet": "MAGNeT writes in any order, not step by step",
    "jasco": "JASCO also reads chords, drums and melody",
}


def is_foreign_folder(folder: Path) -> bool:
    """Whether a folder looks like audiocraft's or transformers', whole or not."""
    if (folder / LM_FILE).is_file() or (folder / CODEC_FILE).is_file():
        return True
    config = folder / "config.json"
    return config.is_file() and "model_type" in read_json(config)


def is_hub_name(name: str) -> bool:
    """Whether a name can be one on the hub: "owner/name", or "stage-drums", "stage-bass"."""
    return name in hub.STAGE or hub.repo_name(name) is not None


def read_foreign(
    name_or_path: str | Path,
    *,
    num_heads: int | None = None,
    t5: str | Path | None = None,
    codec: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Parts:
    """The model in a folder, a file or a repository on the hub.

    Raises:
        StageLiteError: see the readers.
    """
    path, name = Path(name_or_path), str(name_or_path)
    found = None if codec is None else read_codec(codec)
    settings = {"t5": t5, "codec": found, "dtype": dtype, "device": device}
    if path.is_file():
        if path.suffix != ".safetensors":
            raise StageLiteError(
                f"{path} is a file of the kind {path.suffix!r}; expected a folder, or the official "
                "STAGE as .safetensors. A .bin of audiocraft is read with its folder"
            )
        return read_official_stage(path, name=path.stem, num_heads=num_heads, **settings)
    if path.is_dir():
        return _read_folder(path, path.resolve().name, settings)
    if name in hub.STAGE:
        return read_official_stage(hub.fetch_stage(name), name=name, **settings)
    repo = hub.repo_name(name)
    if repo is None:
        raise StageLiteError(f"{name!r} is no name on the hub; expected 'owner/name'")
    for word, why in REFUSED.items():
        if repo.startswith("facebook/") and word in repo:
            raise StageLiteError(
                f"{repo}: {why}, which this library does not know; expected a text-to-music model "
                "of one channel. Try: facebook/musicgen-small, -medium or -large"
            )
    if repo in hub.MUSICGEN:
        check_memory(round(hub.MUSICGEN[repo][1] / 4 * dtype.itemsize), repo, device)
    try:
        folder = hub.fetch_musicgen(repo)
    except hub.AbsentError:
        return read_transformers(hub.fetch_transformers(repo), name=repo, **settings)
    return read_audiocraft(folder, name=repo, **settings)


def read_codec(folder: str | Path) -> tuple[nn.Module, CodecConfig]:
    """A codec alone: from a folder of this library, of audiocraft or of transformers."""
    folder = Path(folder)
    if not folder.is_dir():
        raise StageLiteError(f"{folder} is no folder; expected one that holds a codec")
    for inner in (folder, folder / "codec"):
        if (inner / "codec.safetensors").is_file():
            return load_codec(inner)
    if (folder / CODEC_FILE).is_file():
        return codec_from_package(read_package(folder / CODEC_FILE), folder / CODEC_FILE)
    if (folder / "config.json").is_file():
        return read_transformers_codec(folder)
    raise StageLiteError(
        f"{folder} holds no codec: expected codec.safetensors, {CODEC_FILE}, or EnCodec as "
        "transformers writes it"
    )


def _read_folder(folder: Path, name: str, settings: dict) -> Parts:
    """transformers' files first: safetensors, and the T5 among them."""
    config = folder / "config.json"
    whole = any(
        (folder / n).is_file() for n in ("model.safetensors", "model.safetensors.index.json")
    )
    audiocraft = (folder / LM_FILE).is_file()
    if config.is_file() and "model_type" in read_json(config) and (whole or not audiocraft):
        return read_transformers(folder, name=name, **settings)
    if not audiocraft:
        raise StageLiteError(
            f"{folder} holds {CODEC_FILE} and no {LM_FILE}; the download or the export was not "
            "finished. Try: download the folder again"
        )
    return read_audiocraft(folder, name=name, **settings)
