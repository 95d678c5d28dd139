"""Tensors -> audiocraft's LMModel, and back, in the namings of names.py.

The sizes are read off the tensors, so a model of any width and depth is built as it is. One size no
tensor tells: the number of heads. Every published MusicGen and STAGE has heads of 64 numbers; for
others say `num_heads`.

The model is laid out without memory first and takes the tensors over as they are: a model in fp32
is never held twice, one in fp16 becomes fp32 tensor by tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import StageLiteError
from ..held_weights import fill_int8
from ..lm_config import LMConfig, build_lm
from ..prefix import has_context_row
from .names import AUDIOCRAFT, OFFICIAL_STAGE, PROJECTION, TRANSFORMERS, Names, Naming
from .t5 import T5_BASE, T5Reader, make_reader
from .tensor_file import shape_of

HEAD_DIM = 64  # of MusicGen in all sizes, and of the official STAGE


def lm_from_audiocraft(
    state_dict: Mapping[str, Tensor], num_heads: int | None = None, t5: T5Reader | None = None
) -> nn.Module:
    """audiocraft's LMModel from its own state dict (`best_state` of a published file).

    Args:
        state_dict: tensors of any float type; the model is fp32.
        num_heads: None is one per 64 numbers of the width.
        t5: the text reader; None is t5-base, fetched at the first description.

    Raises:
        StageLiteError: a tensor is missing, left over or of another shape; names it.
    """
    return lm_from(state_dict, AUDIOCRAFT, num_heads, t5)


def lm_from_transformers(
    state_dict: Mapping[str, Tensor], num_heads: int | None = None, t5: T5Reader | None = None
) -> nn.Module:
    """The same from the state dict of a MusicgenForConditionalGeneration, or of the
    MusicgenForCausalLM inside it (then without a projection of the text)."""
    alone = "model.decoder.embed_tokens.0.weight"
    if alone in state_dict and TRANSFORMERS.emb.format(k=0) not in state_dict:
        state_dict = {f"decoder.{name}": tensor for name, tensor in state_dict.items()}
    return lm_from(state_dict, TRANSFORMERS, num_heads, t5)


def lm_from_official_stage(
    state_dict: Mapping[str, Tensor], num_heads: int | None = None, t5: T5Reader | None = None
) -> nn.Module:
    """The same from the state dict of the authors' STAGE, with the context token's row.

    Args:
        state_dict: of their Lightning module (`lm.decoder...`), or of the language model inside it
            (`decoder...`, its text projection under `conditioner.output_proj`).
    """
    if OFFICIAL_STAGE.emb.format(k=0) not in state_dict:
        inner = OFFICIAL_STAGE.emb.format(k=0).removeprefix("lm.")
        if inner in state_dict:
            state_dict = {_of_module(name): tensor for name, tensor in state_dict.items()}
    return lm_from(state_dict, OFFICIAL_STAGE, num_heads, t5)


def lm_to_audiocraft(lm: nn.Module) -> dict[str, Tensor]:
    """The state dict that audiocraft's loader reads.

    Raises:
        StageLiteError: the LM holds a context token, for which audiocraft has no row.
    """
    _no_context_row(lm, AUDIOCRAFT)
    return lm_to(lm, AUDIOCRAFT)


def lm_to_transformers(lm: nn.Module) -> dict[str, Tensor]:
    """The tensors of an LMModel under transformers' names (decoder and projection of the text).

    Raises:
        StageLiteError: the LM holds a context token, for which transformers has no row.
    """
    _no_context_row(lm, TRANSFORMERS)
    return lm_to(lm, TRANSFORMERS)


def lm_to_official_stage(lm: nn.Module) -> dict[str, Tensor]:
    """The tensors of an LMModel under the names of the authors' Lightning module.

    Raises:
        StageLiteError: there is no context token; the official STAGE always has one.
    """
    if not has_context_row(lm):
        raise StageLiteError(
            "the model has no context token; the official STAGE needs its row. "
            "Try: stage_lite.extend_embedding(model.lm), and training"
        )
    return lm_to(lm, OFFICIAL_STAGE)


def lm_from(
    state: Mapping[str, Tensor],
    naming: Naming,
    num_heads: int | None = None,
    t5: T5Reader | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """An LMModel in eval mode from tensors under the names of `naming`.

    Raises:
        StageLiteError: a tensor is missing, left over or of another shape; names it.
    """
    config, names = read_sizes(state, naming, num_heads)
    width = text_width(state, naming, config.dim if t5 is None else t5.dim)
    if t5 is None:
        t5 = make_reader(T5_BASE, config.dim, dim=width)
    if (t5.dim, t5.output_dim) != (width, config.dim):
        raise StageLiteError(
            f"{t5.name} is the wrong T5 for this model: its vectors have {t5.dim} numbers, the "
            f"model projects vectors of {width}"
        )
    lm = empty_lm(config, t5)
    fill(lm, state, names, naming, dtype)
    return lm


def text_width(state: Mapping[str, Tensor], naming: Naming, otherwise: int | None) -> int | None:
    """Numbers in a vector of the text encoder, as the model projects it."""
    name = f"{naming.projection}.weight"
    return _matrix(state, name)[1] if name in state else otherwise


def lm_to(lm: nn.Module, naming: Naming) -> dict[str, Tensor]:
    """The tensors of an LMModel under the names of `naming`; copies, in the LM's type."""
    own = lm.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        raise StageLiteError(
            "the model was loaded as 'int8' and no longer holds the weights that "
            f"{naming.title} needs. Try: stage_lite.load(..., dtype='fp32')"
        )
    names = naming.names(lm.n_q, len(lm.transformer.layers))
    extra = sorted(set(own) - set(names))
    missing = sorted(set(names) - set(own))
    if extra or missing:
        part = (extra or missing)[0]
        why = "has a part" if extra else "lacks a part"
        words = " (it reads words from a table of its own)" if part.endswith("embed.weight") else ""
        raise StageLiteError(
            f"the model {why}, {part!r}{words}, and {naming.title} does not know such a model: "
            "expected MusicGen's geometry with a T5"
        )
    out = {}
    for name, theirs in names.items():
        for new, tensor in zip(theirs, own[name].detach().chunk(len(theirs)), strict=True):
            out[new] = tensor.cpu().clone()
    return out


def read_sizes(
    state: Mapping[str, Tensor], naming: Naming, num_heads: int | None = None
) -> tuple[LMConfig, Names]:
    """Sizes of a language model, and the names of its tensors, every one of them checked.

    Nothing is allocated; of a file only the header is read.
    """
    first = naming.emb.format(k=0)
    if first not in state:
        some = ", ".join(sorted(state)[:3]) or "nothing"
        raise StageLiteError(
            f"there is no tensor {first!r}, but {some}, ...: expected the names of {naming.title}"
        )
    n_q = n_layers = 0
    while naming.emb.format(k=n_q) in state:
        n_q += 1
    while any(name in state for names in naming.layer(n_layers).values() for name in names):
        n_layers += 1
    rows, dim = _matrix(state, first)
    head = naming.head.format(k=0)
    up = naming.layer(0)["linear1.weight"][0]
    for name in (head, up):
        if name not in state:
            raise StageLiteError(f"there is no tensor {name!r} of {naming.title}")
    card, hidden = _matrix(state, head)[0], _matrix(state, up)[0]
    if rows - card not in (1, 2):
        raise StageLiteError(
            f"{first} has {rows} rows and {head} {card}: expected {card + 1} (codes and the "
            f"special token) or {card + 2} (and the context token)"
        )
    if hidden % dim:
        raise StageLiteError(
            f"{up} has {hidden} rows: expected a multiple of the width {dim}, as in MusicGen"
        )
    if num_heads is None:
        if dim % HEAD_DIM:
            raise StageLiteError(
                f"the width is {dim}, no multiple of {HEAD_DIM}, so the number of heads cannot be "
                "told; no tensor holds it. Try: num_heads=..."
            )
        num_heads = dim // HEAD_DIM
    names = naming.names(n_q, n_layers)
    if f"{naming.projection}.weight" not in state and f"{naming.projection}.bias" not in state:
        names = {own: theirs for own, theirs in names.items() if not own.startswith(PROJECTION)}
    config = LMConfig(
        n_q=n_q,
        card=card,
        dim=dim,
        num_layers=n_layers,
        num_heads=num_heads,
        hidden_scale=hidden // dim,
        t5=T5_BASE,
        context_token=rows == card + 2,
    )
    _check(state, naming, names, config)
    return config, names


def empty_lm(config: LMConfig, t5: T5Reader | None = None) -> nn.Module:
    """An LMModel of these sizes whose weights have shapes and no memory (torch's meta device)."""
    with torch.device("meta"):
        lm = build_lm(_without_token(config), seed=0, text_reader=t5)
    if config.context_token:
        for table in lm.emb:
            table.weight = nn.Parameter(
                torch.empty(config.card + 2, config.dim, device="meta"),
                requires_grad=table.weight.requires_grad,
            )
            table.num_embeddings = config.card + 2
    return lm


def fill(
    lm: nn.Module,
    state: Mapping[str, Tensor],
    names: Names,
    naming: Naming,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Give an empty LMModel its tensors. Names and shapes have been checked."""
    if dtype is torch.int8:
        rest = {} if f"{PROJECTION}.weight" in names else _projection(lm, naming, torch.float32)

        def read(own: str) -> Tensor:
            return rest[own] if own in rest else torch.cat([state[name] for name in names[own]])

        return fill_int8(lm, read)
    ready = {}
    for own, theirs in names.items():
        # copies: neither a caller's tensors nor a mapped file may change with the model
        pieces = [state[name].to(dtype, copy=len(theirs) == 1) for name in theirs]
        ready[own] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    if f"{PROJECTION}.weight" not in ready:
        ready |= _projection(lm, naming, dtype)
    lm.load_state_dict(ready, assign=True)


# --- helpers -----------------------------------------------------------------------------------


def _projection(lm: nn.Module, naming: Naming, dtype: torch.dtype) -> dict[str, Tensor]:
    """What stands in for a missing projection of the text's vectors."""
    rows, columns = lm.state_dict()[f"{PROJECTION}.weight"].shape
    if naming is TRANSFORMERS and rows == columns:  # transformers leaves it out if widths agree
        return {
            f"{PROJECTION}.weight": torch.eye(rows, dtype=dtype),
            f"{PROJECTION}.bias": torch.zeros(rows, dtype=dtype),
        }
    warnings.warn(
        f"there is no tensor {naming.projection}.weight: descriptions will have no effect",
        stacklevel=5,
    )
    return {
        f"{PROJECTION}.weight": torch.zeros(rows, columns, dtype=dtype),
        f"{PROJECTION}.bias": torch.zeros(rows, dtype=dtype),
    }


def _check(state: Mapping[str, Tensor], naming: Naming, names: Names, config: LMConfig) -> None:
    dim = config.dim
    rows = config.card + (2 if config.context_token else 1)
    for own, theirs in names.items():
        for name in theirs:
            if name not in state:
                raise StageLiteError(
                    f"there is no tensor {name!r}; expected all {len(names)} of {naming.title} "
                    f"with {config.n_q} codebooks and {config.num_layers} layers; the file is "
                    "incomplete or its names were changed"
                )
            shape = shape_of(state, name)
            expected: tuple[int, ...]
            if own.startswith("emb."):
                expected = (rows, dim)
            elif own.startswith("linears."):
                expected = (config.card, dim)
            elif own.endswith("linear1.weight"):
                expected = (config.hidden_scale * dim, dim)
            elif own.endswith("linear2.weight"):
                expected = (dim, config.hidden_scale * dim)
            elif own == f"{PROJECTION}.weight":
                expected = (dim, shape[1] if len(shape) == 2 else 0)
            elif own.endswith("in_proj_weight") and len(theirs) == 1:
                expected = (3 * dim, dim)
            elif own.endswith(("in_proj_weight", "out_proj.weight")):
                expected = (dim, dim)
            else:
                expected = (dim,)
            if shape != expected:
                raise StageLiteError(
                    f"{name} has shape {list(shape)}; expected {list(expected)} in a model of "
                    f"width {dim} with {config.card} codes per codebook"
                )
    known = {name for theirs in names.values() for name in theirs}
    left = sorted(n for n in state if n not in known and not n.startswith(naming.ignored))
    if left:
        raise StageLiteError(
            f"{len(left)} tensors are left over, first {left[0]!r}: {naming.title} has none of "
            "that name; the names were changed, or the model has parts that are not MusicGen's"
        )


def _matrix(state: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    shape = shape_of(state, name)
    if len(shape) != 2:
        raise StageLiteError(f"{name} has shape {list(shape)}; expected a matrix")
    return shape[0], shape[1]


def _without_token(config: LMConfig) -> LMConfig:
    return LMConfig(**(config.as_json() | {"context_token": False}))


def _no_context_row(lm: nn.Module, naming: Naming) -> None:
    if has_context_row(lm):
        raise StageLiteError(
            f"the model has a context token, which {naming.title} cannot hold: its tables have "
            f"{lm.card + 1} rows. Try: model.save(folder), or stage_lite.interop."
            "save_official_stage(model, file)"
        )


def _of_module(name: str) -> str:
    """A name inside the authors' language model as it is called inside their Lightning module."""
    if name.startswith("conditioner.output_proj."):
        return name.replace("conditioner.output_proj", OFFICIAL_STAGE.projection)
    return name if name.startswith(OFFICIAL_STAGE.projection) else f"lm.{name}"
