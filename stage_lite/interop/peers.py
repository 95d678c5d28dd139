"""Small models of the other programs, of random weights, made with their own code.

To try the ways between the formats without a download: what the real files go through, these go
through too. Notebook: 09_musicgen_and_stage.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StageLiteError
from ..upstream import audiocraft_classes, torchaudio

CARD, N_Q, DIM, HEADS, LAYERS, TEXT_DIM = 16, 4, 32, 2, 2, 24
RATIOS = (4, 2)
WORDS = ("drums", "bass", "rock", "slow", "waltz", "bossa", "nova", "for", "two", "hands")


@contextmanager
def quietly() -> Iterator[None]:
    """Without the other programs' progress bars, and their notes on what is old or unusual."""
    torchaudio()  # transformers imports it too, and cannot beside a CPU build of torch
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@quietly()
def t5_folder(folder: Path, d_model: int = TEXT_DIM, seed: int = 0) -> Path:
    """A T5 encoder of two layers and its tokenizer, as transformers writes them."""
    from transformers import T5Config, T5EncoderModel

    tokenizer = t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer) + 3, d_model=d_model, d_kv=8, d_ff=40, num_layers=2, num_heads=3
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = T5EncoderModel(config).eval()
        for parameter in encoder.parameters():  # transformers draws them tiny
            parameter.data += 0.3 * torch.randn_like(parameter)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5_tokenizer() -> Any:
    """transformers' T5 tokenizer over ten words and their letters."""
    torchaudio()
    from transformers import T5Tokenizer

    letters = sorted({letter for word in WORDS for letter in word} | set(",-'"))
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -5.0)]
    vocab += [(f"▁{word}", -2.0) for word in WORDS] + [(letter, -6.0) for letter in letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0)


@quietly()
def transformers_musicgen(
    folder: Path | None = None, seed: int = 0, text_dim: int = TEXT_DIM
) -> nn.Module:
    """transformers' MusicGen with EnCodec and T5; written to a folder with its processor."""
    from transformers import (
        EncodecConfig,
        EncodecFeatureExtractor,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        MusicgenProcessor,
        T5Config,
    )

    tokenizer = t5_tokenizer()
    config = MusicgenConfig(
        text_encoder=T5Config(
            vocab_size=len(tokenizer), d_model=text_dim, d_kv=8, d_ff=40, num_layers=2, num_heads=3
        ),
        audio_encoder=EncodecConfig(
            target_bandwidths=[64.0],  # 4 codebooks of 4 bits, 4000 times a second
            sampling_rate=32000,
            hidden_size=8,
            num_filters=2,
            upsampling_ratios=list(RATIOS),
            use_causal_conv=False,
            use_conv_shortcut=False,
            codebook_size=CARD,
            num_lstm_layers=2,
        ),
        decoder=MusicgenDecoderConfig(
            vocab_size=CARD,
            hidden_size=DIM,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            ffn_dim=4 * DIM,
            num_codebooks=N_Q,
            pad_token_id=CARD,
            bos_token_id=CARD,
            dropout=0.0,
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MusicgenForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if not name.startswith("audio_encoder"):  # drawn tiny: make choices differ
                    tensor += 0.2 * torch.randn_like(tensor)
            for name, tensor in model.named_buffers():
                if name.endswith(("embed", "embed_avg")):
                    tensor.copy_(torch.randn_like(tensor) * 0.1)
    model.generation_config.decoder_start_token_id = CARD
    model.generation_config.pad_token_id = model.generation_config.bos_token_id = CARD
    if folder is not None:
        model.save_pretrained(folder)
        sounds = EncodecFeatureExtractor(feature_size=1, sampling_rate=32000)
        MusicgenProcessor(sounds, tokenizer).save_pretrained(folder)
    return model


@contextmanager
def known_to_audiocraft(t5: Path) -> Iterator[str]:
    """audiocraft fetches a T5 by one of ten names; meanwhile it takes the folder of one, too."""
    conditioner, name = audiocraft_classes().T5Conditioner, str(t5)
    names, widths = conditioner.MODELS, conditioner.MODELS_DIMS
    conditioner.MODELS = [*names, name]
    conditioner.MODELS_DIMS = widths | {name: TEXT_DIM}
    try:
        yield name
    finally:
        conditioner.MODELS, conditioner.MODELS_DIMS = names, widths


class OfficialStage(nn.Module):
    """The authors' model: a decoder of x-transformers 1.26.0 under their names.

    Four tables summed, sines, four heads; a mask hides steps, positions begin at the first step
    that is not hidden.

    Raises:
        StageLiteError: x-transformers is not installed.
    """

    def __init__(self, seed: int = 0, dim: int = 128, layers: int = 2, text_dim: int = TEXT_DIM):
        try:
            import x_transformers
        except ImportError:
            raise StageLiteError(
                "the peer of the official STAGE needs x-transformers. Try: pip install --no-deps "
                "x-transformers==1.26.0"
            ) from None
        super().__init__()
        self.dim, self.heads = dim, dim // 64
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lm = nn.Module()
            decoder = self.lm.decoder = x_transformers.TransformerWrapper(
                num_tokens=CARD + 2,
                max_seq_len=500,
                use_abs_pos_emb=True,
                scaled_sinu_pos_emb=True,
                attn_layers=x_transformers.Decoder(
                    dim=dim, depth=layers, heads=self.heads, attn_dim_head=64, attn_flash=True,
                    ff_no_bias=True, cross_attend=True,
                ),
            )  # fmt: skip
            decoder.token_emb, decoder.pos_emb = _Tables(dim), _Sines(dim)
            decoder.to_logits = _Heads(dim)
            self.condition_provider = nn.Module()
            self.condition_provider.embedders = nn.ModuleDict({"description": nn.Module()})
            reader = self.condition_provider.embedders["description"]
            reader.output_proj = nn.Linear(text_dim, dim)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
                for table in decoder.token_emb.emb:
                    table.weight[CARD] = 0  # their special token's row
        self.eval()

    def forward(self, sequence: Tensor, mask: Tensor, text: Tensor | None = None) -> Tensor:
        """Logits [B, K, S, card]; `text` is projected, None is their null text."""
        if text is None:
            text = torch.zeros(len(sequence), 1, self.dim)
        first = mask.int().argmax(1, keepdim=True)
        positions = (torch.arange(sequence.shape[-1]) - first).clamp(min=0)
        return self.lm.decoder(
            sequence,
            mask=mask,
            pos=positions[..., None],
            context=text,
            context_mask=torch.ones(text.shape[:2], dtype=torch.bool),
        )


class _Tables(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.emb = nn.ModuleList(nn.Embedding(CARD + 2, dim) for _ in range(N_Q))

    def forward(self, x):
        return torch.stack([table(x[:, k]) for k, table in enumerate(self.emb)]).sum(0)


class _Sines(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x, pos=None, seq_start_pos=None):
        half = self.dim // 2
        periods = 10000 ** (torch.arange(half) / (half - 1))
        return torch.cat([torch.cos(pos / periods), torch.sin(pos / periods)], dim=-1)


class _Heads(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(dim, CARD, bias=False) for _ in range(N_Q))

    def forward(self, x):
        return torch.stack([head(x) for head in self.linears], dim=1)
