"""Where in the beat, and where in the bar, is this step? A second thing to learn for the LM.

What a drummer hears in a piano is hardly worth a thousandth of the loss of the codes, most of which
is timbre. Two linear maps on the last layer's output, thrown away after training, ask for it
openly: of every frame of the target, before it is read, and of every frame of the context, which
can be told from what was heard up to it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor, nn

from stage_lite.batch import Batch
from stage_lite.context_encoder import N_PHASES
from stage_lite.examples import Example
from stage_lite.metrics.reference import beat_phase

LONGEST_BAR = 6  # beats
UNKNOWN = -100


class BeatHead(nn.Module):
    """Cross-entropy of the beat's phase and of the beat's number in the bar, times `weight`."""

    def __init__(self, dim: int, frame_rate: float, weight: float = 0.3):
        super().__init__()
        self.phase = nn.Linear(dim, N_PHASES)
        self.place = nn.Linear(dim, LONGEST_BAR)
        self.frame_rate, self.weight = frame_rate, weight
        self.watched: dict[str, float] = {}  # running share of phases right to a sixteenth

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        labels = torch.stack([torch.from_numpy(row) for row in self._rows(batch, hidden.shape[1])])
        labels = labels.to(hidden.device)  # [B, 2, S]
        of_target = torch.arange(hidden.shape[1], device=hidden.device) >= _first(batch)
        logits = self.phase(hidden)
        with torch.no_grad():
            near = is_near(logits, labels[:, 0], 1).float()
            for name, part in (("context", ~of_target), ("target", of_target)):
                known = (labels[:, 0] != UNKNOWN) & part
                if known.any():
                    seen = self.watched.get(name, 0.0)
                    self.watched[name] = round(0.98 * seen + 0.02 * float(near[known].mean()), 3)
        loss: Tensor | float = 0.0
        for part in (~of_target, of_target):
            for head, row in ((logits, labels[:, 0]), (self.place(hidden), labels[:, 1])):
                wanted = row.masked_fill(~part, UNKNOWN)
                total = F.cross_entropy(
                    head.flatten(0, 1).float(),
                    wanted.flatten(),
                    ignore_index=UNKNOWN,
                    reduction="sum",
                )
                loss = loss + total / (wanted != UNKNOWN).sum().clamp(min=1)
        return self.weight * loss

    def _rows(self, batch: Batch, n_steps: int) -> list[ndarray]:
        rows = []
        for example, valid in zip(batch.examples, batch.prefix.attention_mask, strict=True):
            frames = batch.prefix.n_target_frames
            labels = beat_labels(example, frames, self.frame_rate)
            row = np.full((2, n_steps), UNKNOWN)
            first = _first(batch)  # the step that predicts frame 0
            row[:, first : first + frames] = labels
            begin = int(valid.int().argmax()) + 1  # the step that reads the context's frame 0
            length = first - begin  # up to the context token
            if length > 0:
                row[:, begin : begin + length] = labels[:, :length]
            rows.append(row)
        return rows


def _first(batch: Batch) -> int:
    return batch.prefix.target_start - 1


def is_near(logits: Tensor, labels: Tensor, reach: int) -> Tensor:
    """Is the likeliest class at most `reach` off? Classes go round in a circle. Bool[...]."""
    n_classes = logits.shape[-1]
    distance = (logits.argmax(-1) - labels) % n_classes
    return torch.minimum(distance, n_classes - distance) <= reach


def beat_labels(example: Example, n_frames: int, frame_rate: float) -> ndarray:
    """[2, n_frames]: phase of the beat in sixteenths and number in the bar, UNKNOWN outside."""
    beats, downbeats = example.beat_times, example.downbeat_times
    labels = np.full((2, n_frames), UNKNOWN)
    if len(beats) < 2 or len(downbeats) < 1:
        return labels
    # counted from one beat before the first: a window begins and ends inside a beat
    at = beat_phase(np.arange(n_frames) / frame_rate, beats) + 1
    known = (at >= 0) & (at <= len(beats) + 1)
    labels[0, known] = np.floor(at[known] % 1 * N_PHASES + 0.5) % N_PHASES
    bars = np.searchsorted(beats, downbeats - 1e-4) + 1
    number = np.full(len(beats) + 2, UNKNOWN)
    length = int(np.median(np.diff(bars))) if len(bars) > 1 else UNKNOWN
    for i in range(len(number)):
        before = bars[bars <= i]
        if len(before):
            number[i] = i - before[-1]
        elif length != UNKNOWN:
            number[i] = (i - bars[0]) % length
    number[number >= LONGEST_BAR] = UNKNOWN
    labels[1, known] = number[at[known].astype(int)]
    return labels
