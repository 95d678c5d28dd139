"""Folders as audiocraft exports them: `state_dict.bin` (the language model) and
`compression_state_dict.bin` (the codec).

Each is a torch file with two entries that matter: `best_state`, the tensors, and `xp.cfg`, the
configuration of the training run as YAML text, from which audiocraft rebuilds the module. Read here
for the sizes that no tensor holds and for what must be refused: melody, style, stereo.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..codec import CodecConfig
from ..errors import StageLiteError
from ..memory import check_memory
from ..text import text_conditioner
from ..upstream import AUDIOCRAFT_VERSION, audiocraft_classes
from .build import lm_from, lm_to_audiocraft, text_width
from .codec_tensors import SAMPLE_RATE, codec_of
from .hub import fetch_codec
from .names import AUDIOCRAFT
from .parts import DTYPES, MUSICGEN_S, Parts
from .t5 import T5_BASE, make_reader
from .tensor_file import n_elements
from .torch_file import read_torch_file, write_torch_file

if TYPE_CHECKING:
    from ..model import StageModel

LM_FILE, CODEC_FILE = "state_dict.bin", "compression_state_dict.bin"

# What audiocraft's configuration must say for this library's geometry, where it says anything.
_LM_MUST = {
    "norm_first": True,
    "norm": "layer_norm",
    "activation": "gelu",
    "bias_ff": False,
    "bias_attn": False,
    "bias_proj": False,
    "causal": True,
    "positional_embedding": "sin",
    "max_period": 10000,
    "positional_scale": 1.0,
    "past_context": None,
    "layer_scale": None,
    "qk_layer_norm": False,
    "qk_layer_norm_cross": False,
    "kv_repeat": 1,
    "xpos": False,
}


def read_audiocraft(
    folder: Path,
    *,
    name: str,
    t5: str | Path | None = None,
    codec: tuple[nn.Module, CodecConfig] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Parts:
    """LM and codec of an audiocraft folder.

    Args:
        t5: a folder or a name on the hub, in place of the one that the LM names.
        codec: in place of the folder's own.
        dtype: of the LM's weights.
        device: where the model will go, for the check of its memory.

    Raises:
        StageLiteError: a file is missing or broken, a kind of model that this library does not
            know, tensors that do not fit, or too little memory.
    """
    package = read_package(folder / LM_FILE)
    cfg = config_of(package, folder / LM_FILE)
    check_kind(cfg, name)
    state = package["best_state"]
    codec_file = folder / CODEC_FILE
    codec_package = None
    if codec is None:
        if not codec_file.is_file():
            raise StageLiteError(
                f"{folder} holds {LM_FILE} and no {CODEC_FILE}; the download or the export was not "
                "finished. Try: download the folder again, or stage_lite.load(..., codec=folder)"
            )
        codec_package = read_package(codec_file)
    needed = n_elements(state) * dtype.itemsize
    if codec_package is not None and "best_state" in codec_package:
        needed += n_elements(codec_package["best_state"]) * 4
    check_memory(needed, f"{name} ({n_elements(state) / 1e6:.0f} M parameters)", device)

    t5_settings = select(cfg, "conditioners.description.t5", {})
    dim = select(cfg, "transformer_lm.dim")
    reader = make_reader(
        t5 or t5_settings.get("name", T5_BASE),
        dim,
        dim=text_width(state, AUDIOCRAFT, 768),
        word_dropout=float(t5_settings.get("word_dropout", 0.0)),
    )
    lm = lm_from(state, AUDIOCRAFT, select(cfg, "transformer_lm.num_heads"), reader, dtype)
    if codec is None:
        codec = codec_from_package(codec_package, codec_file, select(cfg, "compression_model_n_q"))
    trained_s = float(select(cfg, "dataset.segment_duration", MUSICGEN_S))
    return Parts(name, lm, codec[0], codec[1], trained_s)


def save_audiocraft(
    model: StageModel, folder: str | Path, *, t5: str | None = None, dtype: str = "fp32"
) -> Path:
    """Write a model as a folder that audiocraft's `MusicGen.get_pretrained(folder)` reads.

    Args:
        folder: made if missing.
        t5: the name by which audiocraft fetches the text encoder; None is the model's own.
        dtype: of the LM's weights in the file; Meta's own files are "fp16".

    Raises:
        StageLiteError: the model has a context token, or no T5 that audiocraft knows by name.
    """
    lm, codec = model.lm, model.codec
    if dtype not in DTYPES:
        raise StageLiteError(f"dtype is {dtype!r}; expected one of {sorted(DTYPES)}")
    state = lm_to_audiocraft(lm)
    reader = text_conditioner(lm)
    name = str(t5 or reader.name)
    known = audiocraft_classes().T5Conditioner.MODELS
    if name not in known:
        raise StageLiteError(
            f"the text encoder is {name!r}, and audiocraft fetches one by name: expected one of "
            f"{', '.join(known)}. Try: save_audiocraft(..., t5='t5-base')"
        )
    state = {n: v.to(DTYPES[dtype]) if v.is_floating_point() else v for n, v in state.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    common = {"version": AUDIOCRAFT_VERSION, "exported": True}
    codec_state = {n: v.detach().cpu() for n, v in codec.state_dict().items()}
    write_torch_file(
        folder / CODEC_FILE,
        {"best_state": codec_state, "xp.cfg": to_yaml(codec_cfg(model.config.codec)), **common},
    )
    cfg = lm_cfg(model, name, float(getattr(reader, "word_dropout", 0.0)))
    write_torch_file(folder / LM_FILE, {"best_state": state, "xp.cfg": to_yaml(cfg), **common})
    return folder


# --- reading ---------------------------------------------------------------------------------


def read_package(file: Path) -> dict[str, Any]:
    """A torch file of audiocraft with the entries that its loader asks for."""
    package = read_torch_file(file)
    if "pretrained" in package:
        return package
    missing = [key for key in ("best_state", "xp.cfg") if key not in package]
    if missing:
        there = ", ".join(map(repr, list(package)[:4])) or "nothing"
        raise StageLiteError(
            f"{file} holds {there} and no {' and no '.join(map(repr, missing))}; expected a file "
            "that audiocraft.utils.export wrote, not a checkpoint of its training"
        )
    state = package["best_state"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise StageLiteError(f"{file}: 'best_state' is no dictionary of tensors")
    return package


def config_of(package: Mapping[str, Any], file: Path) -> Any:
    """`xp.cfg` as an OmegaConf tree."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    text = package.get("xp.cfg")
    if isinstance(text, str):
        try:
            cfg = OmegaConf.create(text)
        except (YAMLError, OmegaConfBaseException, ValueError) as error:
            raise StageLiteError(
                f"{file}: 'xp.cfg' is no YAML ({str(error).splitlines()[0]})"
            ) from None
        if OmegaConf.is_dict(cfg):
            return cfg
    raise StageLiteError(
        f"{file}: 'xp.cfg' is a {type(text).__name__}; expected the text of a configuration"
    )


def select(cfg: Any, path: str, default: Any = None) -> Any:
    """An entry of a configuration tree, or the default where it is missing or null."""
    from omegaconf import OmegaConf

    value = OmegaConf.select(cfg, path, default=default)
    return default if value is None else value


def check_kind(cfg: Any, name: str) -> None:
    """Refuse what is not MusicGen from text to one channel, each in one sentence."""
    kind = select(cfg, "lm_model", "")
    conditioners = [key for key in (select(cfg, "conditioners", {}) or {}) if key != "args"]
    models = {key: select(cfg, f"conditioners.{key}.model", "?") for key in conditioners}
    if "self_wav" in models:
        raise StageLiteError(
            f"{name} also listens to a melody or a style ({models['self_wav']}), a condition that "
            "this library does not know; expected a text-to-music model. Try: "
            "facebook/musicgen-small, -medium or -large"
        )
    if select(cfg, "interleave_stereo_codebooks.use", False):
        raise StageLiteError(
            f"{name} is a stereo MusicGen, of eight codebooks in pairs: expected a model of one "
            "channel. Try: facebook/musicgen-small, -medium or -large"
        )
    if kind != "transformer_lm":
        raise StageLiteError(
            f"{name} is a model of the kind {kind!r}: expected MusicGen's 'transformer_lm'"
        )
    if list(models.values()) != ["t5"] or list(models) != ["description"]:
        raise StageLiteError(
            f"{name} is conditioned by {models or 'nothing'}: expected one description read by a T5"
        )
    if select(cfg, "codebooks_pattern.modeling", "delay") != "delay":
        raise StageLiteError(
            f"{name} has the codebook pattern {select(cfg, 'codebooks_pattern.modeling')!r}: "
            "expected 'delay'"
        )
    n_q = select(cfg, "transformer_lm.n_q", 0)
    delays = list(select(cfg, "codebooks_pattern.delay.delays", list(range(n_q))))
    if delays != list(range(n_q)):
        raise StageLiteError(f"{name} delays its codebooks by {delays}: expected 0, 1, 2, ...")
    if list(select(cfg, "fuser.cross", [])) != ["description"]:
        raise StageLiteError(f"{name} does not read its text by cross-attention: expected that")
    for key, expected in _LM_MUST.items():
        got = select(cfg, f"transformer_lm.{key}", expected)
        if got != expected:
            raise StageLiteError(
                f"{name} has transformer_lm.{key} = {got!r}: expected {expected!r}, as MusicGen"
            )
    if select(cfg, "conditioners.description.t5.normalize_text", False):
        raise StageLiteError(f"{name} normalises its texts with spaCy: expected plain text for T5")


def codec_from_package(
    package: Mapping[str, Any], file: Path, n_q: int | None = None
) -> tuple[nn.Module, CodecConfig]:
    """The codec of a file, or the one that the file only names.

    Args:
        n_q: codebooks to keep; None keeps all.
    """
    if "pretrained" in package:
        from .transformers_folder import read_transformers_codec

        name = str(package["pretrained"]).removeprefix("//pretrained/")
        if name.startswith("dac_"):
            raise StageLiteError(f"{file} names the codec {name!r}; expected an EnCodec")
        folder = Path(name) if Path(name).is_dir() else fetch_codec(name)
        return read_transformers_codec(folder)
    cfg = config_of(package, file)
    if select(cfg, "compression_model") != "encodec" or select(cfg, "encodec.quantizer") != "rvq":
        raise StageLiteError(
            f"{file} holds a codec of the kind {select(cfg, 'compression_model')!r}: expected an "
            "EnCodec with a residual quantiser"
        )
    seanet = select(cfg, "seanet", {})
    wrong = [
        what
        for what, there in {
            "causal convolutions": select(cfg, "encodec.causal", False),
            "normalised loudness": select(cfg, "encodec.renormalize", False),
            f"the norm {seanet.get('norm')!r}": seanet.get("norm", "weight_norm") != "weight_norm",
            "another activation": seanet.get("activation", "ELU") != "ELU",
            "a last activation": select(cfg, "seanet.decoder.final_activation") is not None,
            "blocks without norm": select(cfg, "seanet.disable_norm_outer_blocks", 0) != 0,
        }.items()
        if there
    ]
    if wrong:
        raise StageLiteError(f"{file}: the codec has {', '.join(wrong)}; expected MusicGen's kind")

    def of(part: str, key: str, default: Any) -> Any:
        return select(cfg, f"seanet.{part}.{key}", select(cfg, f"seanet.{key}", default))

    total = select(cfg, "rvq.n_q", 4)
    config = CodecConfig(
        sample_rate=select(cfg, "encodec.sample_rate", SAMPLE_RATE),
        channels=select(cfg, "encodec.channels", 1),
        n_filters_encoder=of("encoder", "n_filters", 32),
        n_filters_decoder=of("decoder", "n_filters", 32),
        dimension=of("encoder", "dimension", 128),
        ratios=tuple(of("encoder", "ratios", (8, 5, 4, 4))),
        n_residual_layers=of("encoder", "n_residual_layers", 1),
        kernel_size=of("encoder", "kernel_size", 7),
        last_kernel_size=of("encoder", "last_kernel_size", 7),
        residual_kernel_size=of("encoder", "residual_kernel_size", 3),
        dilation_base=of("encoder", "dilation_base", 2),
        compress=of("encoder", "compress", 2),
        lstm=of("encoder", "lstm", 0),
        true_skip=of("encoder", "true_skip", True),
        pad_mode=of("encoder", "pad_mode", "reflect"),
        n_q=min(total, n_q or total),
        card=select(cfg, "rvq.bins", 1024),
        decay=select(cfg, "rvq.decay", 0.99),
        kmeans_iters=select(cfg, "rvq.kmeans_iters", 10),
        threshold_ema_dead_code=select(cfg, "rvq.threshold_ema_dead_code", 2),
    )
    return codec_of(package["best_state"], config), config


# --- writing ---------------------------------------------------------------------------------


def to_yaml(cfg: dict[str, Any]) -> str:
    """A configuration as audiocraft's export keeps it."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(cfg))


def lm_cfg(model: StageModel, t5: str, word_dropout: float) -> dict[str, Any]:
    """What audiocraft's builder asks for to make this LM."""
    lm = model.lm
    layer = lm.transformer.layers[0]
    return {
        "solver": "musicgen",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": model.sample_rate,
        "channels": 1,
        "lm_model": "transformer_lm",
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": list(range(lm.n_q)), "flatten_first": 0, "empty_initial": 0},
        },
        "transformer_lm": {
            "dim": lm.dim,
            "num_heads": layer.self_attn.num_heads,
            "num_layers": len(lm.transformer.layers),
            "hidden_scale": layer.linear1.weight.shape[0] // lm.dim,
            "n_q": lm.n_q,
            "card": lm.card,
            "dropout": 0.0,
            "emb_lr": None,
            **_LM_MUST,
            "custom": False,
            "memory_efficient": True,
            "attention_as_float32": False,
            "checkpointing": "none",
            "weight_init": "gaussian",
            "depthwise_init": "current",
            "zero_bias_init": True,
            "cross_attention": True,
            "two_step_cfg": False,
        },
        "conditioners": {
            "args": {"merge_text_conditions_p": 0.0, "drop_desc_p": 0.0},
            "description": {
                "model": "t5",
                "t5": {
                    "name": t5,
                    "finetune": False,
                    "word_dropout": word_dropout,
                    "normalize_text": False,
                },
            },
        },
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": [],
            "cross": ["description"],
            "input_interpolate": [],
        },
        "attribute_dropout": {},
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "compression_model_n_q": lm.n_q,
        "interleave_stereo_codebooks": {"use": False, "per_timestep": False},
        "dataset": {"segment_duration": model.config.trained_s},
    }


def codec_cfg(config: CodecConfig) -> dict[str, Any]:
    """What audiocraft's builder asks for to make this codec."""
    return {
        "solver": "compression",
        "device": "cpu",
        "sample_rate": config.sample_rate,
        "channels": config.channels,
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": config.sample_rate,
            "channels": config.channels,
            "causal": False,
            "renormalize": False,
        },
        "seanet": {
            "dimension": config.dimension,
            "channels": config.channels,
            "causal": False,
            "n_residual_layers": config.n_residual_layers,
            "ratios": list(config.ratios),
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm",
            "norm_params": {},
            "kernel_size": config.kernel_size,
            "residual_kernel_size": config.residual_kernel_size,
            "last_kernel_size": config.last_kernel_size,
            "dilation_base": config.dilation_base,
            "pad_mode": config.pad_mode,
            "true_skip": config.true_skip,
            "compress": config.compress,
            "lstm": config.lstm,
            "disable_norm_outer_blocks": 0,
            "encoder": {"n_filters": config.n_filters_encoder},
            "decoder": {
                "n_filters": config.n_filters_decoder,
                "trim_right_ratio": 1.0,
                "final_activation": None,
                "final_activation_params": None,
            },
        },
        "rvq": {
            "n_q": config.n_q,
            "q_dropout": False,
            "bins": config.card,
            "decay": config.decay,
            "kmeans_init": True,
            "kmeans_iters": config.kmeans_iters,
            "threshold_ema_dead_code": config.threshold_ema_dead_code,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
            "orthogonal_reg_max_codes": None,
        },
    }
