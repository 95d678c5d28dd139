"""MusicGen's text reader: audiocraft's T5Conditioner with a T5 from anywhere.

audiocraft's class knows ten T5s by name and fetches them when it is built. This one takes a folder,
a name on the hub or a T5 that is in memory, and fetches by name only when the first description is
read: without text a MusicGen needs no T5. What it computes is audiocraft's own code: tokens, word
dropout in training, the null text (a mask of zeros), the projection.

The T5 is frozen and no part of the language model's state dict, as in audiocraft.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StageLiteError
from ..upstream import audiocraft_classes
from .hub import fetch_t5, fetch_tokenizer
from .torch_file import read_torch_file

T5_BASE = "t5-base"  # what every MusicGen was trained with


@dataclass
class T5:
    """A tokenizer and an encoder, shared by copies of a model: nobody changes them."""

    tokenizer: Any  # None: that of t5-base, fetched when it is needed
    encoder: nn.Module

    def __deepcopy__(self, memo: dict) -> T5:
        return self


class T5Reader(audiocraft_classes().T5Conditioner):
    """A conditioner for audiocraft's LMModel that reads descriptions with a T5.

    Args:
        name: a folder, or a name on the hub that is fetched at the first description.
        output_dim: width of the language model.
        dim: width of the T5; None asks its config.
        word_dropout: share of words that training leaves out, drawn from Python's `random`.
        t5: a T5 in memory; nothing is read by name.

    Raises:
        StageLiteError: the folder holds no whole T5, or its width is not `dim`.
    """

    def __init__(
        self,
        name: str | Path,
        output_dim: int,
        *,
        dim: int | None = None,
        word_dropout: float = 0.0,
        t5: T5 | None = None,
    ):
        if t5 is None and Path(name).is_dir():
            t5 = read_t5(Path(name))
        if t5 is not None:
            check_width(t5, dim, str(name))
            dim = t5.encoder.config.d_model
        elif dim is None:
            dim = _known_width(str(name))
        super(audiocraft_classes().T5Conditioner, self).__init__(dim, output_dim)
        self.name = str(name)
        self.finetune, self.word_dropout, self.normalize_text = False, word_dropout, False
        self.autocast = contextlib.nullcontext()
        self._t5 = t5
        self.in_memory = t5 is not None  # it came from a folder or from tensors, not by its name

    @property
    def device(self) -> torch.device:
        """Where the projection is; the T5 follows it."""
        return self.output_proj.weight.device

    @property
    def t5(self) -> nn.Module:
        """The encoder, read now if it has not been."""
        return self.ready().encoder

    @property
    def t5_tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.ready().tokenizer

    def ready(self) -> T5:
        """Tokenizer and encoder, fetched by name the first time."""
        if self._t5 is None:
            t5 = read_t5(fetch_t5(self.name))
            check_width(t5, self.dim, self.name)
            t5.encoder.to(self.device)
            self._t5 = t5
        if self._t5.tokenizer is None:  # weights came as tensors, which hold no words
            self._t5.tokenizer = read_tokenizer(fetch_tokenizer(T5_BASE))
            _checked(self._t5, self.name)
        return self._t5

    def tokenize(self, x: list[str | None]) -> dict[str, Tensor]:
        """Ids and mask; a description without any word is null."""
        return dict(super().tokenize([text if text and text.strip() else None for text in x]))

    def save(self, folder: Path) -> None:
        """Write the T5 and its tokenizer as transformers does, so that `T5Reader(folder)` reads
        them; the folder appears whole or not at all."""
        t5 = self.ready()
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        try:
            with quiet_transformers():
                t5.encoder.save_pretrained(part)
                t5.tokenizer.save_pretrained(part)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _apply(self, fn: Any, recurse: bool = True) -> T5Reader:
        super()._apply(fn, recurse)
        if self._t5 is not None and self.device.type != "meta":
            self._t5.encoder.to(self.device)  # moved, never cast
        return self


def make_reader(name: str | Path, output_dim: int, **settings: Any) -> T5Reader:
    """A T5Reader whose projection is drawn without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        return T5Reader(name, output_dim, **settings)


def read_t5(folder: Path) -> T5:
    """A T5 and its tokenizer from a folder that transformers wrote.

    Raises:
        StageLiteError: another kind of model, files missing, weights broken or renamed.
    """
    from transformers import T5EncoderModel

    config = _config(folder)
    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    if not any((folder / name).is_file() for name in weights):
        raise StageLiteError(
            f"{folder} holds no weights of a T5; expected model.safetensors beside config.json. "
            "Try: download the whole of https://huggingface.co/t5-base"
        )
    if not any((folder / name).is_file() for name in weights[:2]):
        read_torch_file(folder / weights[2])  # says it if it is cut short or holds code
    with quiet_transformers():
        try:
            encoder, found = T5EncoderModel.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers raises what its readers raise: dozens of kinds
            raise StageLiteError(
                f"{folder} holds no readable T5 ({_first_line(error)}); copy or download it again"
            ) from None
    wrong = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if wrong:
        raise StageLiteError(
            f"{folder}: the weights do not fit the config: {len(wrong)} tensors of a T5 are "
            f"missing or of another shape, first {wrong[0]}. Try: download the folder again"
        )
    tokenizer = read_tokenizer(folder)
    return _checked(T5(tokenizer, encoder.float().eval()), folder)


def t5_from_tensors(
    state: Mapping[str, Tensor], config: Any, tokenizer: Any, what: str | Path
) -> T5:
    """A T5 encoder from tensors under transformers' names, without any prefix.

    Args:
        config: transformers' T5Config; None reads the sizes off the tensors (T5 version 1.0, as
            t5-base: relu, tied tables).
        tokenizer: of transformers; None is that of t5-base.
        what: for messages.
    """
    from transformers import T5EncoderModel

    config = _config_of(state, what) if config is None else config
    with torch.device("meta"):
        encoder = T5EncoderModel(config)
    table = "shared.weight" if "shared.weight" in state else "encoder.embed_tokens.weight"
    tied = ("shared.weight", "encoder.embed_tokens.weight")
    own = encoder.state_dict()
    ready = {}
    for name, tensor in own.items():
        source = table if name in tied else name
        if source not in state:
            raise StageLiteError(f"{what} has no tensor {source!r} of its text encoder")
        value = state[source]
        if value.shape != tensor.shape:
            raise StageLiteError(
                f"{what}: {source} of the text encoder has shape {list(value.shape)}; expected "
                f"{list(tensor.shape)}"
            )
        ready[name] = ready["shared.weight"] if name == tied[1] and tied[0] in ready else (
            value.to(torch.float32)
        )  # fmt: skip
    encoder.load_state_dict(ready, assign=True)
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    encoder.requires_grad_(False)
    return _checked(T5(tokenizer, encoder.eval()), what)


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder.

    Raises:
        StageLiteError: there is none, or it is broken.
    """
    from transformers import AutoTokenizer, T5Config, T5TokenizerFast

    if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        raise StageLiteError(
            f"{folder} holds no tokenizer; expected tokenizer.json or spiece.model. "
            "Try: download the whole of https://huggingface.co/t5-base"
        )
    with quiet_transformers():
        try:
            if (folder / "tokenizer_config.json").is_file():
                tokenizer = AutoTokenizer.from_pretrained(
                    folder, config=T5Config(), local_files_only=True
                )
            else:
                tokenizer = T5TokenizerFast.from_pretrained(
                    folder, local_files_only=True, extra_ids=0
                )
        except Exception as error:  # as above
            raise StageLiteError(
                f"the tokenizer in {folder} cannot be read ({_first_line(error)}); "
                "copy or download it again"
            ) from None
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def check_width(t5: T5, dim: int | None, name: str) -> None:
    """Raise a StageLiteError if a T5's vectors do not fit the projection of a model."""
    width = t5.encoder.config.d_model
    if dim is not None and width != dim:
        raise StageLiteError(
            f"{name} is the wrong T5 for this model: its vectors have {width} numbers, the model "
            f"projects vectors of {dim}" + (" (MusicGen reads t5-base: 768)" if dim == 768 else "")
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers without progress bars, warnings and logs."""
    from transformers.utils import logging as theirs

    bars = theirs.is_progress_bar_enabled()
    level = logging.root.manager.disable
    theirs.disable_progress_bar()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        if bars:
            theirs.enable_progress_bar()


# --- helpers -----------------------------------------------------------------------------------


def _checked(t5: T5, where: str | Path) -> T5:
    """The tokenizer's ids must have rows in the table."""
    rows = t5.encoder.config.vocab_size
    if t5.tokenizer is not None and len(t5.tokenizer) > rows:
        raise StageLiteError(
            f"{where}: the tokenizer knows {len(t5.tokenizer)} tokens, the T5 {rows}; they do not "
            "belong together"
        )
    t5.encoder.requires_grad_(False)
    return t5


def _config(folder: Path) -> Any:
    from transformers import T5Config

    file = folder / "config.json"
    if not file.is_file():
        raise StageLiteError(
            f"{folder} holds no config.json; expected a T5 as transformers writes it"
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageLiteError(f"{file} is not JSON ({error}); copy it again") from None
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind != "t5":
        raise StageLiteError(f"{folder} holds a model of type {kind!r}; expected a T5 ('t5')")
    return T5Config.from_dict(values)


def _config_of(state: Mapping[str, Tensor], what: str | Path) -> Any:
    from transformers import T5Config

    block = "encoder.block.{}.layer."
    layers = 0
    while f"{block.format(layers)}0.SelfAttention.q.weight" in state:
        layers += 1
    bias = f"{block.format(0)}0.SelfAttention.relative_attention_bias.weight"
    table = "shared.weight" if "shared.weight" in state else "encoder.embed_tokens.weight"
    wi = f"{block.format(0)}1.DenseReluDense.wi.weight"
    for name in (table, bias, wi):
        if name not in state:
            raise StageLiteError(
                f"{what}: its text encoder has no tensor {name!r}; expected a T5 of version 1.0, "
                "as t5-base"
            )
    buckets, heads = state[bias].shape
    return T5Config(
        vocab_size=state[table].shape[0],
        d_model=state[table].shape[1],
        d_kv=state[f"{block.format(0)}0.SelfAttention.q.weight"].shape[0] // heads,
        d_ff=state[wi].shape[0],
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="relu",
    )


def _known_width(name: str) -> int:
    """Width of a T5 by its name, or by the config on the hub."""
    known = audiocraft_classes().T5Conditioner.MODELS_DIMS
    for alias in (name, name.removeprefix("google-t5/")):
        if alias in known:
            return known[alias]
    return _config(fetch_t5(name)).d_model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
