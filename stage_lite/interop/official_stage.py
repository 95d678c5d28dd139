"""The authors' own STAGE: one safetensors file of their Lightning module.

    lm.decoder...                                      the language model, an x-transformers decoder
    condition_provider.embedders.description...        output_proj, and the T5 itself (t5.)
    encodec_model...                                   the codec

Their sequence differs from MusicGen's in two steps, see `prefix.OFFICIAL`; a model that is read
here is used with theirs.

Source: Strano et al. 2025, arXiv:2504.05690; github.com/giorgioskij/stage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..codec import CodecConfig
from ..errors import StageLiteError
from ..files import atomic
from ..memory import check_memory
from ..prefix import OFFICIAL
from ..text import text_conditioner
from .build import lm_from, lm_to_official_stage, read_sizes
from .codec_tensors import (
    codec_from_official_stage,
    codec_to_official_stage,
    config_from_tensors,
)
from .names import OFFICIAL_STAGE
from .parts import STAGE_S, Parts
from .t5 import T5_BASE, make_reader, t5_from_tensors
from .tensor_file import Prefixed, TensorFile, n_elements

if TYPE_CHECKING:
    from ..model import StageModel

_T5 = "condition_provider.embedders.description.t5."
_CODEC = "encodec_model."
WORD_DROPOUT = 0.3  # in their training
_SETTINGS = "stage_lite"  # what no tensor tells, in the header of files written here


def read_official_stage(
    file: Path,
    *,
    name: str,
    num_heads: int | None = None,
    t5: str | Path | None = None,
    codec: tuple[nn.Module, CodecConfig] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Parts:
    """Language model, codec and T5 of the authors' file.

    Args:
        num_heads: None is one per 64 numbers of the width, as theirs.
        t5: a folder or a name on the hub, in place of the file's own T5 (whose tokenizer is
            t5-base's, from the hub).
        codec: in place of the file's own; needed if the file holds none.
        dtype: of the LM's weights.
        device: where the model will go, for the check of its memory.

    Raises:
        StageLiteError: no such file, tensors that do not fit, or too little memory.
    """
    state = TensorFile(file)
    if OFFICIAL_STAGE.emb.format(k=0) not in state:
        some = ", ".join(sorted(state)[:3]) or "nothing"
        hint = ""
        if (file.parent / "config.json").is_file():
            hint = f". Try: stage_lite.load({str(file.parent)!r}), the folder"
        raise StageLiteError(
            f"{file} is no checkpoint of the official STAGE: it holds {some}, ... and no "
            f"{OFFICIAL_STAGE.emb.format(k=0)}{hint}"
        )
    settings = _settings(state)
    num_heads = settings.get("num_heads") if num_heads is None else num_heads
    config, _ = read_sizes(state, OFFICIAL_STAGE, num_heads)
    needed = n_elements(state, ("lm.",)) * dtype.itemsize + 4 * n_elements(state, (_T5, _CODEC))
    check_memory(needed, f"{name} ({n_elements(state) / 1e6:.0f} M parameters)", device)

    words = Prefixed(state, _T5)
    width = {"word_dropout": WORD_DROPOUT}
    projection = f"{OFFICIAL_STAGE.projection}.weight"
    if projection in state:
        width["dim"] = state.shape(projection)[1]
    if t5 is not None or not len(words):
        reader = make_reader(t5 or T5_BASE, config.dim, **width)
    else:
        parts = t5_from_tensors(words, None, None, file)
        reader = make_reader(T5_BASE, config.dim, t5=parts, **width)
    lm = lm_from(state, OFFICIAL_STAGE, num_heads, reader, dtype)
    if codec is None:
        sounds = Prefixed(state, _CODEC)
        if not len(sounds):
            raise StageLiteError(
                f"{file} holds no codec. Try: stage_lite.load(..., codec='folder of a MusicGen or "
                "of facebook/encodec_32khz')"
            )
        codec_config = config_from_tensors(sounds, pad_mode="reflect")
        codec = (codec_from_official_stage(state), codec_config)
    return Parts(name, lm, codec[0], codec[1], STAGE_S, OFFICIAL)


def save_official_stage(model: StageModel, file: str | Path) -> Path:
    """Write a model as a file that the authors' loader reads, with its codec and T5.

    Raises:
        StageLiteError: no context token, or no T5.
    """
    lm, file = model.lm, Path(file)
    state = lm_to_official_stage(lm)
    reader = text_conditioner(lm)
    if not hasattr(reader, "t5"):
        raise StageLiteError(
            "the model reads words from a table of its own; the official STAGE reads them with a "
            "T5, so this model cannot be written in that form. Try: model.save(folder)"
        )
    state |= codec_to_official_stage(model.codec)
    tied = "encoder.embed_tokens.weight"  # the same tensor as shared.weight, kept once
    state |= {
        f"{_T5}{n}": v.detach().cpu().clone()
        for n, v in reader.t5.state_dict().items()
        if n != tied
    }
    settings = {"num_heads": lm.transformer.layers[0].self_attn.num_heads}
    _write(file, {n: v.contiguous() for n, v in state.items()}, settings)
    return file


def _write(file: Path, state: dict[str, Tensor], settings: Mapping[str, int]) -> None:
    from safetensors.torch import save_file

    if file.suffix != ".safetensors":
        raise StageLiteError(f"{file} ends in {file.suffix!r}; expected .safetensors")
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as temporary:
        save_file(state, temporary, metadata={_SETTINGS: json.dumps(settings)})


def _settings(state: TensorFile) -> dict[str, int]:
    try:
        values = json.loads(state.metadata().get(_SETTINGS, "{}"))
    except json.JSONDecodeError:
        return {}
    return values if isinstance(values, dict) else {}
