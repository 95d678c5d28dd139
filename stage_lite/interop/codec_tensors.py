"""EnCodec's tensors in three namings: audiocraft's, transformers' and the official STAGE's.

    audiocraft                              transformers
    encoder.model.0.conv.conv.weight_g      encoder.layers.0.conv.parametrizations.weight.original0
    encoder.model.0.conv.conv.weight_v      encoder.layers.0.conv.parametrizations.weight.original1
    decoder.model.3.convtr.convtr.bias      decoder.layers.3.conv.bias
    quantizer.vq.layers.0._codebook.embed   quantizer.layers.0.codebook.embed

The official STAGE keeps audiocraft's names below `encodec_model.`, with the newer names of the two
parts of a normalised weight. Sizes are read off the tensors; the sample rate and how borders are
padded stand in no tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..codec import CodecConfig, build_codec
from ..errors import StageLiteError
from .tensor_file import Prefixed, shape_of

SAMPLE_RATE = 32000  # of every MusicGen's codec
_G, _V = "parametrizations.weight.original0", "parametrizations.weight.original1"


def codec_from_transformers(state_dict: Mapping[str, Tensor], config: Any) -> nn.Module:
    """audiocraft's EncodecModel from the state dict of transformers' one.

    Args:
        config: its EncodecConfig.

    Raises:
        StageLiteError: a kind of EnCodec that MusicGen does not use, or tensors that do not fit.
    """
    return codec_of(state_dict, config_from_transformers(config), transformers_name)


def codec_to_transformers(codec: nn.Module) -> dict[str, Tensor]:
    """The state dict of transformers' EncodecModel.

    Raises:
        StageLiteError: the codec has no LSTM, which transformers' always has.
    """
    state = codec.state_dict()
    if not any("lstm" in name for name in state):
        raise StageLiteError(
            "this codec has no LSTM, and transformers' EnCodec always has one: it cannot be "
            "written in that form. Try: model.save(folder)"
        )
    return {transformers_name(name): tensor.cpu().clone() for name, tensor in state.items()}


def codec_from_official_stage(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """audiocraft's EncodecModel from the authors' checkpoint (`encodec_model...`), which has the
    geometry of MusicGen's and pads borders by reflection."""
    state = Prefixed(state_dict, "encodec_model.")
    config = config_from_tensors(state, pad_mode="reflect")
    return codec_of(state, config, parametrized_name)


def codec_to_official_stage(codec: nn.Module) -> dict[str, Tensor]:
    """The tensors of a codec under the authors' names, `encodec_model.` in front."""
    return {
        f"encodec_model.{parametrized_name(name)}": tensor.cpu().clone()
        for name, tensor in codec.state_dict().items()
    }


def parametrized_name(name: str) -> str:
    """audiocraft's name, with torch's newer names of a normalised weight's length and direction."""
    for old, new in (("weight_g", _G), ("weight_v", _V)):
        if name.endswith(f".{old}"):
            return name.removesuffix(old) + new
    return name


def transformers_name(name: str) -> str:
    """transformers' name of one of audiocraft's tensors."""
    name = parametrized_name(name)
    name = name.replace("quantizer.vq.layers.", "quantizer.layers.")
    name = name.replace("._codebook.", ".codebook.").replace(".model.", ".layers.")
    for doubled in ("conv.conv.", "convtr.convtr."):
        name = name.replace(f".{doubled}", ".conv.")
    return name


def codec_of(state: Mapping[str, Tensor], config: CodecConfig, name_of: Any = str) -> nn.Module:
    """An EncodecModel in eval mode from tensors.

    Args:
        state: in older files a normalised weight's parts are `weight_g` and `weight_v`: both are
            read.
        name_of: audiocraft's name -> the name in `state`.

    Raises:
        StageLiteError: a tensor is missing, left over or of another shape; names it.
    """
    codec = build_codec(config, seed=0)
    ready, known = {}, set()
    for own, tensor in codec.state_dict().items():
        name = name_of(own)
        if name not in state:
            name = name.replace(_G, "weight_g").replace(_V, "weight_v")
        if name not in state:
            raise StageLiteError(
                f"the codec has no tensor {name_of(own)!r}; expected an EnCodec of "
                f"{config.n_q} codebooks and ratios {list(config.ratios)}; the file is incomplete "
                "or its names were changed"
            )
        known.add(name)
        shape = shape_of(state, name)
        if shape != tuple(tensor.shape):
            raise StageLiteError(
                f"the codec's {name} has shape {list(shape)}; expected {list(tensor.shape)}"
            )
        ready[own] = state[name]
    left = sorted(set(state) - known)
    left = [name for name in left if not _is_spare(name, config)]
    if left:
        raise StageLiteError(
            f"{len(left)} of the codec's tensors are left over, first {left[0]!r}; the names were "
            "changed, or it is no EnCodec as MusicGen uses it"
        )
    codec.load_state_dict(ready)
    return codec.eval()


def config_from_tensors(state: Mapping[str, Tensor], **known: Any) -> CodecConfig:
    """The sizes of an EnCodec in audiocraft's names, old or new, read off its tensors.

    Args:
        known: fields of CodecConfig that no tensor tells.
    """

    def weight(name: str) -> tuple[int, ...]:
        for end in (_V, "weight_v"):
            if f"{name}.{end}" in state:
                return shape_of(state, f"{name}.{end}")
        raise StageLiteError(f"the codec has no tensor {name}.{_V}; expected an EnCodec")

    first = weight("encoder.model.0.conv.conv")  # [filters, channels, kernel]
    numbers = sorted(int(name.split(".")[2]) for name in state if name.startswith("decoder.model."))
    ups = sorted({
        int(name.split(".")[2]) for name in state if name.startswith("decoder.model.")
        and ".convtr." in name
    })  # fmt: skip
    if not ups:
        raise StageLiteError("the codec has no tensor decoder.model.<n>.convtr: no EnCodec")
    ratios = tuple(weight(f"decoder.model.{n}.convtr.convtr")[2] // 2 for n in ups)
    last = weight(f"decoder.model.{numbers[-1]}.conv.conv")  # [channels, filters, kernel]
    latent = weight("decoder.model.0.conv.conv")  # [width, dimension, kernel]
    lstm = 0
    while f"decoder.model.1.lstm.weight_ih_l{lstm}" in state:
        lstm += 1
    blocks = {
        name.split(".")[2] for name in state
        if name.startswith("decoder.model.") and ".block." in name
    }  # fmt: skip
    block = f"decoder.model.{min(map(int, blocks))}.block"
    inner = weight(f"{block}.1.conv.conv")  # [width / compress, width, kernel]
    n_q = 0
    while f"quantizer.vq.layers.{n_q}._codebook.embed" in state:
        n_q += 1
    if n_q == 0:
        raise StageLiteError("the codec has no tensor quantizer.vq.layers.0._codebook.embed")
    card, dimension = shape_of(state, "quantizer.vq.layers.0._codebook.embed")
    sizes = CodecConfig(
        sample_rate=SAMPLE_RATE,
        channels=first[1],
        n_filters_encoder=first[0],
        n_filters_decoder=last[1],
        dimension=dimension,
        ratios=ratios,
        n_residual_layers=len(blocks) // len(ratios),
        kernel_size=latent[2],
        last_kernel_size=last[2],
        residual_kernel_size=inner[2],
        compress=inner[1] // inner[0],
        lstm=lstm,
        true_skip=not any(".shortcut." in name for name in state),
        n_q=n_q,
        card=card,
    )
    return replace(sizes, **known)


def config_from_transformers(config: Any) -> CodecConfig:
    """CodecConfig of transformers' EncodecConfig.

    Raises:
        StageLiteError: a causal or normalised EnCodec, which is not MusicGen's kind.
    """
    wrong = [
        what
        for what, there in {
            "causal convolutions": config.use_causal_conv,
            "normalised loudness": config.normalize,
            f"the norm {config.norm_type!r}": config.norm_type != "weight_norm",
            "chunks": config.chunk_length_s is not None,
            "codes of another width": config.codebook_dim != config.hidden_size,
        }.items()
        if there
    ]
    if wrong:
        raise StageLiteError(
            f"this EnCodec has {', '.join(wrong)}; expected MusicGen's 32 kHz kind "
            "(facebook/encodec_32khz)"
        )
    return CodecConfig(
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        n_filters_encoder=config.num_filters,
        n_filters_decoder=config.num_filters,
        dimension=config.hidden_size,
        ratios=tuple(config.upsampling_ratios),
        n_residual_layers=config.num_residual_layers,
        kernel_size=config.kernel_size,
        last_kernel_size=config.last_kernel_size,
        residual_kernel_size=config.residual_kernel_size,
        dilation_base=config.dilation_growth_rate,
        compress=config.compress,
        lstm=config.num_lstm_layers,
        true_skip=not config.use_conv_shortcut,
        pad_mode=config.pad_mode,
        n_q=config.num_quantizers,
        card=config.codebook_size,
    )


def config_to_transformers(config: CodecConfig) -> Any:
    """transformers' EncodecConfig of a CodecConfig.

    Raises:
        StageLiteError: encoder and decoder of different widths, which transformers does not know.
    """
    from transformers import EncodecConfig

    if config.n_filters_encoder != config.n_filters_decoder:
        raise StageLiteError(
            f"this codec has {config.n_filters_encoder} filters in its encoder and "
            f"{config.n_filters_decoder} in its decoder; transformers' has equally many in both"
        )
    bits = math.ceil(math.log2(config.card)) * math.ceil(config.frame_rate)  # a second
    kilobits = config.n_q * bits / 1000
    if int(1000 * kilobits // bits) < config.n_q:  # how transformers counts codebooks
        kilobits = math.nextafter(kilobits, math.inf)
    return EncodecConfig(
        target_bandwidths=[kilobits],
        sampling_rate=config.sample_rate,
        audio_channels=config.channels,
        normalize=False,
        hidden_size=config.dimension,
        num_filters=config.n_filters_encoder,
        num_residual_layers=config.n_residual_layers,
        upsampling_ratios=list(config.ratios),
        norm_type="weight_norm",
        kernel_size=config.kernel_size,
        last_kernel_size=config.last_kernel_size,
        residual_kernel_size=config.residual_kernel_size,
        dilation_growth_rate=config.dilation_base,
        use_causal_conv=False,
        pad_mode=config.pad_mode,
        compress=config.compress,
        num_lstm_layers=config.lstm,
        codebook_size=config.card,
        codebook_dim=config.dimension,
        use_conv_shortcut=not config.true_skip,
    )


def _is_spare(name: str, config: CodecConfig) -> bool:
    """Codebooks beyond those that the language model uses."""
    parts = name.split(".")
    return "layers" in parts and name.startswith("quantizer.") and (
        int(parts[parts.index("layers") + 1]) >= config.n_q
    )  # fmt: skip
