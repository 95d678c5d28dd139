"""Descriptions become vectors that the language model attends to: words here, T5 in MusicGen.

MusicGen reads a description with a frozen T5 of 110 M parameters. The nano models know a few
hundred words (stems, genres, metres), so a table with one learnt vector per word does the same
work in kilobytes. Both are conditioners of audiocraft's `ConditioningProvider`, and `encode_text`
asks whichever an LMModel holds. Both give zeros for a missing description: the null text of
classifier-free guidance.

Notebook: 00_quickstart.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stage_lite.errors import StageLiteError
from stage_lite.upstream import audiocraft_classes

MAX_WORDS = 64  # of one description; the rest is cut off with a warning
PADDING_ID, UNKNOWN_ID = 0, 1  # rows of the word table before the vocabulary's own
# Text is padded to a multiple of this many words. Padding holds zeros that are attended to, as in
# audiocraft: a fixed amount of it keeps a row's result free of the length of its neighbours' texts.
PAD_TO_MULTIPLE = 8

_WORD = re.compile(r"[^\W_]+(?:[/#&'+-][^\W_]+)*#?")


def split_words(text: str) -> list[str]:
    """Lower-case words of a text: "Drums, hip-hop in 6/8" -> ["drums", "hip-hop", "in", "6/8"]."""
    return _WORD.findall(text.lower())


def build_vocabulary(texts: Iterable[str], min_count: int = 1) -> list[str]:
    """Words that occur at least `min_count` times in `texts`, most frequent first, then a to z."""
    counts = Counter(word for text in texts for word in split_words(text))
    return sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))


class WordConditioner(audiocraft_classes().TextConditioner):
    """A table of one learnt vector per word, projected to the width of the language model.

    Stands where MusicGen has its T5Conditioner and answers like it: `tokenize`, then the module.

    Args:
        vocabulary: the known words in lower case, no word twice; any other word is "<unk>".
        dim: width of the table.
        output_dim: width of the language model.
    """

    def __init__(self, vocabulary: Sequence[str], dim: int, output_dim: int):
        super().__init__(dim, output_dim)
        self.vocabulary = tuple(vocabulary)
        self._id_of_word = {word: i + 2 for i, word in enumerate(self.vocabulary)}
        if len(self._id_of_word) != len(self.vocabulary):
            twice = next(w for w, n in Counter(self.vocabulary).items() if n > 1)
            raise StageLiteError(
                f"vocabulary holds {twice!r} more than once: expected each word once"
            )
        self.embed = nn.Embedding(len(self.vocabulary) + 2, dim)

    def tokenize(self, x: list[str | None]) -> dict[str, Tensor]:
        """Word ids and a mask, both [B, L]; L is the longest text, padded to a multiple of 8.

        A description that is None or holds no word is null: all of its mask is 0.
        """
        rows = []
        for text in x:
            words = split_words(text or "")
            if len(words) > MAX_WORDS:
                warnings.warn(
                    f"description of {len(words)} words: the first {MAX_WORDS} are used",
                    stacklevel=2,
                )
            rows.append([self._id_of_word.get(word, UNKNOWN_ID) for word in words[:MAX_WORDS]])
        longest = max([1, *map(len, rows)])
        length = -(-longest // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE
        ids = torch.tensor([row + [PADDING_ID] * (length - len(row)) for row in rows])
        device = self.embed.weight.device
        return {"ids": ids.to(device), "mask": (ids != PADDING_ID).to(device)}

    def forward(
        self, inputs: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "B L dim"], Bool[Tensor, "B L"]]:
        """Projected word vectors, zero where the mask is 0, and the mask."""
        embeds = self.output_proj(self.embed(inputs["ids"]))  # [B, L, dim]
        return embeds * inputs["mask"].unsqueeze(-1), inputs["mask"]


def encode_text(
    lm: nn.Module, descriptions: Sequence[str | None]
) -> tuple[Float[Tensor, "B L dim"], Bool[Tensor, "B L"]] | tuple[None, None]:
    """The projected description of each row, for `forward(lm, ..., text, text_mask)`.

    Args:
        lm: audiocraft's LMModel with one text condition that is fused by cross-attention.
        descriptions: one per row; None or "" is the null text (a row of zeros).

    Returns:
        (text, text_mask), or (None, None) when every description is null.

    Raises:
        StageLiteError: a description is not a string, or the model takes other conditions.
    """
    for b, description in enumerate(descriptions):
        if description is not None and not isinstance(description, str):
            raise StageLiteError(
                f"description of row {b} is a {type(description).__name__}: "
                "expected a string or None"
            )
    if not any(description and description.strip() for description in descriptions):
        return None, None
    conditioner = text_conditioner(lm)
    text, mask = conditioner(conditioner.tokenize(list(descriptions)))
    return text, mask.bool()


def text_conditioner(lm: nn.Module) -> Any:
    """The one conditioner of an LMModel that reads the description: for words, or T5."""
    names = list(lm.fuser.fuse2cond.get("cross", []))
    conditioners = lm.condition_provider.conditioners
    if len(names) != 1 or set(conditioners.keys()) != set(names):
        raise StageLiteError(
            f"the model takes the conditions {sorted(conditioners.keys())}, by cross-attention "
            f"{names}: expected exactly one, a text read by cross-attention "
            "(as in MusicGen, not in its melody variant)"
        )
    return conditioners[names[0]]


def word_ids(conditioner: WordConditioner, text: str) -> Int[Tensor, " L"]:
    """Ids of the words of one text without padding, for a look inside."""
    tokens = conditioner.tokenize([text])
    return tokens["ids"][0][tokens["mask"][0]]
