"""A second pair of ears for the context: features that are added to the embedding of its steps.

MusicGen's transformer reads the context one step after the other and finds it hard to learn where
the beat of a mix is (dev/LOG.md). This small convolutional network reads the whole context at once,
both ways, and says at every step where in the beat it is and which root the chord has. What it
finds is added to the embedding of the context's steps, and of no other: sequence, token, delay and
loss stay STAGE's, and a sequence without a context token is computed as if the encoder were not
there.

Source of the network: dilated convolutions for beats, Davies & Böck 2019 (EUSIPCO), "Temporal
convolutional networks for musical audio beat tracking"; gates, van den Oord et al. 2016,
arXiv:1609.03499.   Notebook: 03_context_token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

N_PHASES = 16  # parts of a beat that are told apart
N_ROOTS = 12  # pitch classes, C = 0
TAPS = 5  # steps that a convolution looks at
DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4)  # 5 s to either side in all


class ContextEncoder(nn.Module):
    """Codes of a context -> features for each of its steps.

    Args:
        n_q, card: codebooks and their size; ids up to card + 1 are known.
        dim: width of the language model.
        width: of the network.
    """

    def __init__(self, n_q: int, card: int, dim: int, width: int):
        super().__init__()
        self.n_q, self.rows = n_q, card + 2
        self.table = nn.Embedding(n_q * self.rows, width)
        self.blocks = nn.ModuleList(_Block(width, dilation) for dilation in DILATIONS)
        self.phase = nn.Linear(width, N_PHASES)
        self.root = nn.Linear(width, N_ROOTS)
        self.of_phase = nn.Linear(N_PHASES, dim, bias=False)
        self.of_root = nn.Linear(N_ROOTS, dim, bias=False)
        self.of_features = nn.Linear(width, dim, bias=False)
        for linear in (self.of_phase, self.of_root, self.of_features):
            nn.init.zeros_(linear.weight)  # a new encoder changes nothing

    def forward(
        self, sequence: Int[Tensor, "B K S"], context: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B S dim"]:
        """What to add to the embedding: zeros where there is no context.

        Args:
            sequence: delayed codes, as the language model reads them.
            context: the context's steps, see `context_steps`.
        """
        n_steps = sequence.shape[-1]
        end = int(context.any(0).nonzero()[-1]) + 1  # nothing behind the last token is looked at
        features = self.features(sequence[..., :end], context[:, :end])
        found = self.of_features(features)
        for heard, way in ((self.phase, self.of_phase), (self.root, self.of_root)):
            found = found + way(heard(features).float().softmax(-1).to(features.dtype))
        found = found * context[:, :end, None]
        return F.pad(found, (0, 0, 0, n_steps - end))

    def features(
        self, sequence: Int[Tensor, "B K S"], context: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B S width"]:
        """The network's last layer; steps outside of the context count as silence around it."""
        offsets = torch.arange(self.n_q, device=sequence.device)[:, None] * self.rows
        ids = (sequence + offsets).transpose(1, 2).flatten(0, 1)  # [B * S, K]
        x = F.embedding_bag(ids, self.table.weight, mode="sum").unflatten(0, (len(sequence), -1))
        heard = context[..., None].to(x.dtype)
        for block in self.blocks:
            x = block(x, heard)
        return F.gelu(x)


class _Block(nn.Module):
    """x + gate(dilated convolution(norm(x))); the convolution is one product of shifted steps."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.taps = nn.Linear(TAPS * width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        n_steps, reach = x.shape[1], TAPS // 2 * self.dilation
        around = F.pad(self.norm(x) * heard, (0, 0, reach, reach))
        shifted = [around[:, i * self.dilation :][:, :n_steps] for i in range(TAPS)]
        value, gate = self.taps(torch.cat(shifted, dim=-1)).chunk(2, dim=-1)
        return x + self.out(torch.tanh(value) * torch.sigmoid(gate))


def context_steps(
    sequence: Int[Tensor, "B K S"],
    context_token_id: int,
    attention_mask: Bool[Tensor, "B S"] | None = None,
) -> Bool[Tensor, "B S"] | None:
    """Steps up to the context token of codebook 0, padding left out; None without any token.

    No such step holds a code of the target: codebook 0 is the first to leave the context.
    """
    token = sequence[:, 0] == context_token_id
    if not bool(token.any()):
        return None
    before = token.flip(1).cummax(1).values.flip(1)
    return before if attention_mask is None else before & attention_mask


def hear_context(
    lm: nn.Module,
    x: Float[Tensor, "B S dim"],
    sequence: Int[Tensor, "B K S"],
    attention_mask: Bool[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B S dim"]:
    """Add what the model's context encoder hears, if it has one, to the embedding of a sequence.

    The sequence must hold the context as a whole, up to its token.
    """
    encoder = getattr(lm, "context_encoder", None)
    if encoder is None:
        return x
    context = context_steps(sequence, lm.card + 1, attention_mask)
    return x if context is None else x + encoder(sequence, context).to(x.dtype)
