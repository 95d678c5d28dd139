"""Folders of transformers' MusicgenForConditionalGeneration: language model, EnCodec and T5 in one
set of safetensors, beside `config.json` and the tokenizer.

Written by transformers' own classes, so that the folder is what `save_pretrained` makes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..codec import CodecConfig
from ..errors import StageLiteError
from ..memory import check_memory
from ..prefix import has_context_row
from ..text import text_conditioner
from .build import lm_from, lm_to_transformers
from .codec_tensors import (
    codec_from_transformers,
    codec_to_transformers,
    config_from_transformers,
    config_to_transformers,
)
from .names import PROJECTION, TRANSFORMERS
from .parts import DTYPES, Parts
from .t5 import make_reader, quiet_transformers, read_tokenizer, t5_from_tensors
from .tensor_file import INDEX, Prefixed, n_elements, open_folder
from .torch_file import read_torch_file

if TYPE_CHECKING:
    from ..model import StageModel

KIND = "musicgen"
_PARTS = ("text_encoder.", "audio_encoder.", "decoder.")


def read_transformers(
    folder: Path,
    *,
    name: str,
    t5: str | Path | None = None,
    codec: tuple[nn.Module, CodecConfig] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Parts:
    """Language model, codec and T5 of a folder.

    Args:
        t5: a folder or a name on the hub, in place of the folder's own T5.
        codec: in place of the folder's own.
        dtype: of the LM's weights.
        device: where the model will go, for the check of its memory.

    Raises:
        StageLiteError: files missing or broken, melody or stereo, tensors that do not fit, or too
            little memory.
    """
    config = read_config(folder, name)
    state = open_weights(folder)
    lm_state = _language_model(state)
    needed = n_elements(state, "decoder.") * dtype.itemsize
    needed += 4 * n_elements(state, ("audio_encoder.", "text_encoder."))
    check_memory(needed, f"{name} ({n_elements(state) / 1e6:.0f} M parameters)", device)
    decoder = config.decoder
    if t5 is not None:
        reader = make_reader(t5, decoder.hidden_size)
    else:
        tokens = any((folder / file).is_file() for file in ("tokenizer.json", "spiece.model"))
        tokenizer = read_tokenizer(folder) if tokens else None
        tensors = Prefixed(state, "text_encoder.")
        t5_parts = t5_from_tensors(tensors, config.text_encoder, tokenizer, folder)
        reader = make_reader(folder.name, decoder.hidden_size, t5=t5_parts)
    lm = lm_from(lm_state, TRANSFORMERS, decoder.num_attention_heads, reader, dtype)
    if codec is None:
        audio = Prefixed(state, "audio_encoder.")
        codec_config = config_from_transformers(config.audio_encoder)
        codec = (codec_from_transformers(audio, config.audio_encoder), codec_config)
    return Parts(name, lm, codec[0], codec[1])


def read_transformers_codec(folder: Path) -> tuple[nn.Module, CodecConfig]:
    """The codec of a folder of transformers' EncodecModel, or of a MusicGen there."""
    values = read_json(folder / "config.json")
    state: Mapping[str, Tensor] = open_weights(folder)
    if values.get("model_type") == KIND:
        config = read_config(folder, folder.name).audio_encoder
        state = Prefixed(state, "audio_encoder.")
    elif values.get("model_type") == "encodec":
        from transformers import EncodecConfig

        config = EncodecConfig.from_dict(values)
    else:
        raise StageLiteError(
            f"{folder} holds a model of type {values.get('model_type')!r}; expected 'encodec'"
        )
    return codec_from_transformers(state, config), config_from_transformers(config)


def save_transformers(model: StageModel, folder: str | Path, *, dtype: str = "fp32") -> Path:
    """Write a model as a folder that transformers' `MusicgenForConditionalGeneration` reads, with
    the processor for its texts and sounds.

    Args:
        folder: made if missing; appears whole or not at all, and must not hold other files.
        dtype: of all weights in the file: "fp32", "bf16" or "fp16".

    Raises:
        StageLiteError: a context token, no T5, or a codec that transformers cannot hold.
    """
    from transformers import (
        EncodecFeatureExtractor,
        GenerationConfig,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        MusicgenProcessor,
    )

    folder, lm = Path(folder), model.lm
    if dtype not in DTYPES:
        raise StageLiteError(f"dtype is {dtype!r}; expected one of {sorted(DTYPES)}")
    _check_target(folder)
    if has_context_row(lm):
        lm_to_transformers(lm)  # raises its sentence
    reader = text_conditioner(lm)
    if not hasattr(reader, "t5"):
        raise StageLiteError(
            "the model reads words from a table of its own; transformers' MusicGen reads them with "
            "a T5, so this model cannot be written in that form. Try: model.save(folder)"
        )
    state = lm_to_transformers(lm)
    codec_state = codec_to_transformers(model.codec)
    audio_config = config_to_transformers(model.config.codec)
    encoder, tokenizer = reader.t5, reader.t5_tokenizer
    layer = lm.transformer.layers[0]
    decoder = MusicgenDecoderConfig(
        vocab_size=lm.card,
        num_hidden_layers=len(lm.transformer.layers),
        ffn_dim=layer.linear1.weight.shape[0],
        num_attention_heads=layer.self_attn.num_heads,
        hidden_size=lm.dim,
        num_codebooks=lm.n_q,
        activation_function="gelu",
        pad_token_id=lm.card,
        bos_token_id=lm.card,
    )
    config = MusicgenConfig(
        text_encoder=encoder.config, audio_encoder=audio_config, decoder=decoder
    )
    if encoder.config.d_model == lm.dim:
        _check_no_projection(state)
    with torch.device("meta"):
        theirs = MusicgenForConditionalGeneration(config)
    state |= {f"audio_encoder.{n}": v for n, v in codec_state.items()}
    state |= {f"text_encoder.{n}": v.detach().cpu() for n, v in encoder.state_dict().items()}
    state = {n: v.to(DTYPES[dtype]) if v.is_floating_point() else v for n, v in state.items()}
    theirs.load_state_dict(state, assign=True, strict=True)
    theirs.tie_weights()
    theirs.generation_config = GenerationConfig(
        bos_token_id=lm.card,
        pad_token_id=lm.card,
        decoder_start_token_id=lm.card,
        do_sample=True,
        guidance_scale=3.0,
        max_length=round(model.config.trained_s * model.frame_rate),
    )
    sounds = EncodecFeatureExtractor(
        feature_size=model.config.codec.channels, sampling_rate=model.sample_rate
    )
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with quiet_transformers():
            theirs.save_pretrained(part)
            MusicgenProcessor(sounds, tokenizer).save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


# --- helpers -----------------------------------------------------------------------------------


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object in a file."""
    if not file.is_file():
        raise StageLiteError(f"there is no file {file}; expected a model of transformers")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageLiteError(f"{file} is not JSON ({error}); copy or download it again") from None
    if not isinstance(values, dict):
        raise StageLiteError(f"{file} holds a {type(values).__name__}; expected a JSON object")
    return values


def read_config(folder: Path, name: str) -> Any:
    """transformers' MusicgenConfig of a folder, if it is of the kind that this library knows."""
    from transformers import MusicgenConfig

    values = read_json(folder / "config.json")
    kind = values.get("model_type")
    if kind == "musicgen_melody":
        raise StageLiteError(
            f"{name} is MusicGen-melody, which also listens to a melody: this library does not "
            "know its second condition; expected a text-to-music model. Try: "
            "facebook/musicgen-small, -medium or -large"
        )
    if kind != KIND:
        raise StageLiteError(
            f"{name} is a model of type {kind!r} of transformers: expected {KIND!r}"
        )
    with quiet_transformers():
        try:
            config = MusicgenConfig.from_dict(values)
        except Exception as error:  # its validators raise what they like
            raise StageLiteError(
                f"{folder / 'config.json'} is no config of a MusicGen "
                f"({type(error).__name__}: {str(error).splitlines()[0]})"
            ) from None
    decoder = config.decoder
    if decoder.audio_channels != 1 or config.audio_encoder.audio_channels != 1:
        raise StageLiteError(
            f"{name} is a stereo MusicGen: expected a model of one channel. Try: "
            "facebook/musicgen-small, -medium or -large"
        )
    if decoder.activation_function != "gelu" or decoder.scale_embedding:
        raise StageLiteError(f"{name} has another activation or scaled embeddings than MusicGen")
    if config.text_encoder.model_type != "t5" or config.audio_encoder.model_type != "encodec":
        raise StageLiteError(
            f"{name} reads text with {config.text_encoder.model_type!r} and sound with "
            f"{config.audio_encoder.model_type!r}: expected 't5' and 'encodec'"
        )
    return config


def open_weights(folder: Path) -> Mapping[str, Tensor]:
    """The weights of a folder of transformers: safetensors, or an older pytorch_model.bin."""
    if (folder / "model.safetensors").is_file() or (folder / INDEX).is_file():
        return open_folder(folder)
    if (folder / "pytorch_model.bin").is_file():
        return read_torch_file(folder / "pytorch_model.bin")
    raise StageLiteError(
        f"{folder} holds config.json and no model.safetensors; the download was not finished. "
        "Try: download the folder again"
    )


def _language_model(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    unknown = sorted(n for n in state if not n.startswith((*_PARTS, TRANSFORMERS.projection)))
    if unknown:
        raise StageLiteError(
            f"{len(unknown)} tensors belong to no part of a MusicGen, first {unknown[0]!r}; the "
            "names were changed"
        )
    return state


def _check_no_projection(state: dict[str, Tensor]) -> None:
    """Where the T5 is as wide as the LM transformers has no projection: ours must do nothing."""
    weight = state.pop(f"{TRANSFORMERS.projection}.weight")
    bias = state.pop(f"{TRANSFORMERS.projection}.bias")
    if bias.any() or not torch.equal(weight, torch.eye(len(weight), dtype=weight.dtype)):
        raise StageLiteError(
            f"the T5 and the model are both {len(weight)} wide, and transformers has no projection "
            f"({PROJECTION}) there; this model's is trained and would be lost"
        )


def _check_target(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise StageLiteError(f"{folder} is a file; expected a folder to write the model into")
    if folder.is_dir() and any(folder.iterdir()):
        values = folder / "config.json"
        mine = values.is_file() and read_json(values).get("model_type") == KIND
        if not mine:
            raise StageLiteError(
                f"{folder} holds other files, which would be replaced; expected a new folder"
            )
