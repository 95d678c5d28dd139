"""Which tensor of a MusicGen is called what: audiocraft's names beside the other programs'.

A naming maps audiocraft's name to the other's: one name, or three where audiocraft keeps queries,
keys and values in one matrix, below one another.

    audiocraft                       official STAGE (h = 3 i)          transformers
    emb.k                            token_emb.emb.k                   embed_tokens.k
    layers.i.norm1                   layers.h.0.0                      self_attn_layer_norm
    self_attn.in_proj_weight         layers.h.1.to_q, to_k, to_v       self_attn.q_proj, k_proj, ...
    norm_cross, cross_attention      layers.h+1...                     encoder_attn...
    norm2, linear1, linear2          layers.h+2.0.0, 1.ff.0.0, ff.2    final_layer_norm, fc1, fc2
    out_norm, linears.k              final_norm, to_logits.linears.k   layer_norm, lm_heads.k
    ...description.output_proj       ...description.output_proj        enc_to_dec_proj
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PROJECTION = "condition_provider.conditioners.description.output_proj"

Names = dict[str, tuple[str, ...]]  # audiocraft's name -> the other's; three are stacked


@dataclass(frozen=True)
class Naming:
    """The names of one program."""

    title: str  # for messages
    emb: str  # of codebook {k}
    head: str
    layer: Callable[[int], dict[str, tuple[str, ...]]]  # parts of layer i, below audiocraft's name
    out_norm: str
    projection: str  # of the text encoder's vectors
    ignored: tuple[str, ...] = ()  # beginnings of names that belong to other parts of the model

    def names(self, n_q: int, n_layers: int) -> Names:
        """All names of a language model of these sizes."""
        found: Names = {}
        for k in range(n_q):
            found[f"emb.{k}.weight"] = (self.emb.format(k=k),)
            found[f"linears.{k}.weight"] = (self.head.format(k=k),)
        for i in range(n_layers):
            for own, theirs in self.layer(i).items():
                found[f"transformer.layers.{i}.{own}"] = theirs
        for part in ("weight", "bias"):
            found[f"out_norm.{part}"] = (f"{self.out_norm}.{part}",)
            found[f"{PROJECTION}.{part}"] = (f"{self.projection}.{part}",)
        return found


_NORMS = ("norm1", "norm_cross", "norm2")


def _audiocraft_layer(i: int) -> dict[str, tuple[str, ...]]:
    own = [f"{norm}.{part}" for norm in _NORMS for part in ("weight", "bias")]
    own += [f"{a}.{w}" for a in ("self_attn", "cross_attention")
            for w in ("in_proj_weight", "out_proj.weight")]  # fmt: skip
    own += ["linear1.weight", "linear2.weight"]
    return {name: (f"transformer.layers.{i}.{name}",) for name in own}


def _official_layer(i: int) -> dict[str, tuple[str, ...]]:
    layers = [f"lm.decoder.attn_layers.layers.{3 * i + part}" for part in range(3)]
    found = {
        f"{norm}.{part}": (f"{layer}.0.0.{part}",)
        for norm, layer in zip(_NORMS, layers, strict=True)
        for part in ("weight", "bias")
    }
    for attention, layer in zip(("self_attn", "cross_attention"), layers, strict=False):
        found[f"{attention}.in_proj_weight"] = tuple(f"{layer}.1.to_{w}.weight" for w in "qkv")
        found[f"{attention}.out_proj.weight"] = (f"{layer}.1.to_out.weight",)
    found["linear1.weight"] = (f"{layers[2]}.1.ff.0.0.weight",)
    found["linear2.weight"] = (f"{layers[2]}.1.ff.2.weight",)
    return found


def _transformers_layer(i: int) -> dict[str, tuple[str, ...]]:
    layer = f"decoder.model.decoder.layers.{i}"
    norms = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")
    found = {
        f"{own}.{part}": (f"{layer}.{theirs}.{part}",)
        for own, theirs in zip(_NORMS, norms, strict=True)
        for part in ("weight", "bias")
    }
    for own, theirs in (("self_attn", "self_attn"), ("cross_attention", "encoder_attn")):
        found[f"{own}.in_proj_weight"] = tuple(f"{layer}.{theirs}.{w}_proj.weight" for w in "qkv")
        found[f"{own}.out_proj.weight"] = (f"{layer}.{theirs}.out_proj.weight",)
    found["linear1.weight"] = (f"{layer}.fc1.weight",)
    found["linear2.weight"] = (f"{layer}.fc2.weight",)
    return found


AUDIOCRAFT = Naming(
    title="audiocraft's MusicGen",
    emb="emb.{k}.weight",
    head="linears.{k}.weight",
    layer=_audiocraft_layer,
    out_norm="out_norm",
    projection=PROJECTION,
)
OFFICIAL_STAGE = Naming(
    title="the official STAGE",
    emb="lm.decoder.token_emb.emb.{k}.weight",
    head="lm.decoder.to_logits.linears.{k}.weight",
    layer=_official_layer,
    out_norm="lm.decoder.attn_layers.final_norm",
    projection="condition_provider.embedders.description.output_proj",
    ignored=("encodec_model.", "condition_provider.embedders.description.t5."),
)
TRANSFORMERS = Naming(
    title="transformers' MusicGen",
    emb="decoder.model.decoder.embed_tokens.{k}.weight",
    head="decoder.lm_heads.{k}.weight",
    layer=_transformers_layer,
    out_norm="decoder.model.decoder.layer_norm",
    projection="enc_to_dec_proj",
    ignored=(
        "text_encoder.",
        "audio_encoder.",
        "decoder.model.decoder.embed_positions.",  # sines, kept by older versions
    ),
)
