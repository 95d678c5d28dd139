"""AttentionViewer: what a step of the target looks at in the context, to see and to hear.

    AttentionViewer(model, out, beats=beats, downbeats=downbeats)

The map of a head: the target runs to the right, the context upwards, each with its waveform and its
beats. A chosen step shows its row of the map over the context's waveform.

What is sent: attention from frame to frame, 8 bits a value (square roots, scaled row by row), with
frames pooled where all heads would be more than 5 MB; and the sound of both.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import traitlets
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from stage_lite.attention import (
    TOLERANCE_S,
    attention,
    diagonal,
    frame_attention,
    layout,
    shares_by_frame,
)
from stage_lite.batch import Batch
from stage_lite.errors import StageLiteError
from stage_lite.generation import Generation
from stage_lite.metronome import check_times

from .base import StageWidget
from .esm import bundle, stylesheet
from .model_input import check_model
from .pcm import LIMIT_BYTES, Packed, pack
from .pixels import cividis, pixel_img
from .stem_input import check_name, read_clip
from .twin import PALETTE, player, wave_img

if TYPE_CHECKING:
    from stage_lite.model import StageModel

MAP_BYTES = 5_000_000  # of all heads together; the rest of LIMIT_BYTES is sound
MEAN = -1  # as a layer or a head: the mean over all of them
PLACES = ("context", "token", "start", "own_past")
LISTEN = "Play the target together with what the head reads in the context: is it the same beat?"
TWIN_PIXELS, TWIN_SHADES, TWIN_BYTES = 160, 16, 9_000


class AttentionViewer(StageWidget):
    """Attention from target to context, head by head.

    Args:
        model: that wrote `out`.
        out: a Generation, or a Batch to see how real stems are read; with a context.
        row: of it.
        layers, heads: which to show; None is all.
        beats, downbeats: seconds from the start, the same for context and target.
        context: its sound, [C, L], (wav, sample_rate) or a file; None decodes its codes.
        context_sample_rate: Hz of a wav that comes alone.
        label: the widget's name.
        listen_for: one line for the listener.

    Attributes:
        layer, head: what is shown, from 0; -1 is the mean over all heads (of all layers).
        time_s: the chosen step, in seconds of the target.
        sounds: what Play plays: some of "target", "context" and "head" (what the head reads).
        playing: whether the browser plays.

    Of a generation in several windows it shows the last one; beats then count from its start.

    Raises:
        StageLiteError: no context, a layer or head that is not there, beats that do not increase,
            or more heads than fit at 0.2 s a frame.

    Notebook: 06_attention.
    """

    _esm, _css = bundle("attention.js"), stylesheet("attention.css")

    layer = traitlets.Int(MEAN).tag(sync=True)
    head = traitlets.Int(MEAN).tag(sync=True)
    time_s = traitlets.Float(0.0).tag(sync=True)
    sounds = traitlets.List(traitlets.Unicode()).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    _map = traitlets.Dict().tag(sync=True)
    _scores = traitlets.Dict().tag(sync=True)
    _beats = traitlets.List().tag(sync=True)
    _downbeats = traitlets.List().tag(sync=True)

    def __init__(
        self,
        model: StageModel,
        out: Generation | Batch,
        *,
        row: int = 0,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        beats: Sequence[float] | ndarray | None = None,
        downbeats: Sequence[float] | ndarray | None = None,
        context: Any = None,
        context_sample_rate: int | None = None,
        label: str = "Attention",
        listen_for: str = LISTEN,
    ):
        check_name(label, "the widget")
        check_model(model)
        grid = [check_times(t, n) for t, n in ((beats, "beats"), (downbeats, "downbeats"))]
        att = attention(model, out, row=row, layers=layers, heads=heads)
        frames = frame_attention(att, out, row)  # [layer, head, T, Tc]
        self._layers = list(range(att.shape[0])) if layers is None else [int(i) for i in layers]
        self._heads = list(range(att.shape[1])) if heads is None else [int(i) for i in heads]
        self._frame_rate = float(model.frame_rate)
        self._pool = _pool(*frames.shape)
        given = shares_by_frame(att, out, row)  # [place, layer, head, T]
        self._values, self._tops = _quantise(_pooled(frames, self._pool))
        self._given = _in_bytes(_pooled_rows(given, self._pool))  # [layer, head, R, place]
        scores = _scores(frames, self._frame_rate)
        packed = self._sound(model, out, row, context, context_sample_rate)
        where = layout(out, row)
        # best first: above chance, in parts of all attention
        best = np.argsort(-scores.pop("worth"), axis=None, kind="stable").tolist()
        order = [
            (self._layers[i // len(self._heads)], self._heads[i % len(self._heads)]) for i in best
        ]
        super().__init__(
            label=label,
            listen_for=listen_for,
            audio=_with_map(packed, self._values, self._tops, self._given),
            layer=order[0][0],
            head=order[0][1],
            time_s=round(min(where.n_target, where.n_context) / self._frame_rate / 2, 3),
            sounds=["target", "head"],
            _beats=grid[0].tolist(),
            _downbeats=grid[1].tolist(),
            _map={
                "layers": self._layers,
                "heads": self._heads,
                "rows": self._values.shape[2],
                "columns": self._values.shape[3],
                "pool": self._pool,
                "frame_rate": self._frame_rate,
                "target_s": where.n_target / self._frame_rate,
                "context_s": where.n_context / self._frame_rate,
                "tolerance_s": TOLERANCE_S,
            },
            _scores={name: values.round(4).tolist() for name, values in scores.items()}
            | {"order": [list(place) for place in order]},
        )

    # --- results -------------------------------------------------------------------------------

    @property
    def weights(self) -> Float[ndarray, " C"]:
        """Attention of the chosen step to each frame of the context, as it is shown.

        Where frames were pooled, to each group of them.
        """
        values, tops = self._chosen(self._values), self._chosen(self._tops)
        row = min(int(self.time_s * self._frame_rate / self._pool), self._values.shape[2] - 1)
        return ((values[:, row] / 255.0) ** 2 * tops[:, row, None]).mean(0)

    @property
    def score(self) -> tuple[float, float]:
        """Of the chosen layer and head: the share near the target's own time, and by chance."""
        if self.layer == MEAN:
            return tuple(self._scores["all"])
        layer = self._layers.index(self.layer)
        head = [*self._heads, MEAN].index(self.head)
        return self._scores["diagonal"][layer][head], self._scores["chance"][layer][head]

    def _chosen(self, array: ndarray) -> ndarray:
        """[n, R, ...] of the chosen heads."""
        if self.layer == MEAN:
            return array.reshape(-1, *array.shape[2:])
        of_layer = array[self._layers.index(self.layer)]
        return of_layer if self.head == MEAN else of_layer[[self._heads.index(self.head)]]

    # --- checks --------------------------------------------------------------------------------

    @traitlets.validate("layer", "head")
    def _check_place(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        known = self._layers if name == "layer" else self._heads
        if value != MEAN and value not in known:
            raise StageLiteError(f"{name} is {value}; expected one of {known}, or -1 for the mean")
        return value

    @traitlets.validate("time_s")
    def _check_time(self, proposal: Any) -> float:
        end = self._values.shape[2] * self._pool / self._frame_rate
        if not 0 <= proposal["value"] <= end:
            raise StageLiteError(f"time_s is {proposal['value']:g}; expected 0 to {end:g} seconds")
        return proposal["value"]

    @traitlets.validate("sounds")
    def _check_sounds(self, proposal: Any) -> list[str]:
        known = ["target", "context", "head"]
        unknown = [name for name in proposal["value"] if name not in known]
        if unknown:
            raise StageLiteError(f"sounds names {unknown[0]!r}; expected some of {known}")
        return [name for name in known if name in proposal["value"]]

    # --- standing still ------------------------------------------------------------------------

    def summary(self) -> str:
        _, _, n_rows, n_columns = self._values.shape
        seconds = (n * self._pool / self._frame_rate for n in (n_rows, n_columns))
        return (
            f"{len(self._layers)} layers of {len(self._heads)} heads, "
            "{:.2f} s of target, {:.2f} s of context".format(*seconds)
        )

    def twin_html(self) -> str:
        score, chance = self.score
        title = _title(self.layer, self.head)
        said = (
            f"{title}: {score:.0%} of what it gives to the context lies within {TOLERANCE_S:g} s "
            f"of the target's own time, by chance {chance:.0%}"
        )
        values = (self._chosen(self._values) / 255.0) ** 2 * self._chosen(self._tops)[..., None]
        shown = np.sqrt(_thinned(values.mean(0)).T[::-1])  # context upwards
        top = max(float(np.quantile(shown, 0.995)), 1e-9)
        pixels = (shown / top * (TWIN_SHADES - 1)).clip(max=TWIN_SHADES - 1).round()
        alt = f"Attention map, target to the right, context upwards. {said}."
        picture = pixel_img(pixels.astype(np.uint8), cividis(TWIN_SHADES), alt, 400,
                            round(400 * shown.shape[0] / shown.shape[1]))  # fmt: skip
        clips = [
            (name, torch.from_numpy(self._packed.clip(name)))
            for name in ("context", "target")
            if any(entry["name"] == name for entry in self._packed.index)
        ]
        colours = {"context": PALETTE["mix"], "target": PALETTE["drums"]}
        return f"<p>{html.escape(said)}.</p>{picture}{self._best_html()}" + "".join(
            "<p>"
            + wave_img(wav, self._packed.sample_rate, colours[name], name, self._downbeats)
            + "</p>"
            + player(wav, self._packed.sample_rate, name.title(), TWIN_BYTES)
            for name, wav in clips
        )

    def _best_html(self) -> str:
        rows = ""
        for layer, head in self._scores["order"][:5]:
            at = self._layers.index(layer), self._heads.index(head)
            cells = (f"{np.array(self._scores[name])[at]:.0%}" for name in ("diagonal", "chance"))
            rows += (
                f'<tr><th scope="row" style="text-align:left">layer {layer} head {head}</th>'
                f"<td>{'</td><td>'.join(cells)}</td></tr>"
            )
        return (
            "<table><caption>Heads that look at their own time</caption><thead><tr>"
            '<th scope="col">head</th><th scope="col">near its own time</th>'
            f'<th scope="col">by chance</th></tr></thead><tbody>{rows}</tbody></table>'
        )

    # --- sound ---------------------------------------------------------------------------------

    def _sound(
        self, model: StageModel, out: Any, row: int, context: Any, context_sample_rate: int | None
    ) -> Packed:
        """Context and target as clips, as long as their codes."""
        from stage_lite.audio import resample, to_mono

        where, rate = layout(out, row), int(model.sample_rate)
        sequence = out.inputs[row] if isinstance(out, Batch) else out.sequence[row]
        hop = round(rate / self._frame_rate)
        clips = {}
        if context is not None:
            wav, own = read_clip(context, context_sample_rate, "context")
            clips["context"] = resample(to_mono(wav), own, rate)[:, : where.n_context * hop]
        else:
            clips["context"] = _decoded(model, sequence, where.start, where.n_context)
        if isinstance(out, Generation):  # of one in several windows, the last
            clips["target"] = to_mono(out.wav[row, :, -where.n_target * hop :].cpu())
        else:
            clips["target"] = _decoded(model, sequence, out.prefix.target_start - 1, where.n_target)
        clips = {name: wav for name, wav in clips.items() if wav is not None and wav.shape[-1]}
        map_bytes = self._values.nbytes + self._tops.nbytes + self._given.nbytes
        return pack(clips, rate, limit_bytes=LIMIT_BYTES - map_bytes - 1)


def _decoded(
    model: StageModel, sequence: Tensor, first: int, n_frames: int
) -> Float[Tensor, "1 L"] | None:
    """The sound of frames `first` to `first + n_frames`; None if some of them are no codes."""
    codes = torch.stack(
        [row[first + k + 1 : first + k + 1 + n_frames] for k, row in enumerate(sequence)]
    )
    if n_frames == 0 or (codes >= model.card).any():
        return None
    return model.decode(codes[None])[0].mean(0, keepdim=True).cpu()


def _pool(n_layers: int, n_heads: int, n_target: int, n_context: int) -> int:
    """Frames per side of a pixel, as few as fit."""
    for pool in range(1, 11):
        rows, columns = -(-n_target // pool), -(-n_context // pool)
        if n_layers * n_heads * rows * (columns + 8) <= MAP_BYTES:
            return pool
    raise StageLiteError(
        f"{n_layers} layers of {n_heads} heads over {n_target} and {n_context} frames are too much "
        "for one widget; choose layers=[...] or heads=[...]"
    )


def _pooled(
    frames: Float[Tensor, "layer head T Tc"], pool: int
) -> Float[ndarray, "layer head R C"]:
    """Attention from group to group of frames: sums over the context's, means over the target's."""
    values = frames.float().cpu()
    if pool > 1:
        values = torch.nn.functional.pad(values, (0, -values.shape[3] % pool))
        values = values.unflatten(-1, (-1, pool)).sum(-1)
        values = torch.stack([part.mean(2) for part in values.split(pool, dim=2)], dim=2)
    return values.numpy()


def _pooled_rows(
    given: Float[Tensor, "place layer head T"], pool: int
) -> Float[ndarray, "layer head R place"]:
    parts = [part.mean(-1) for part in given.float().cpu().split(pool, dim=-1)]
    return torch.stack(parts, dim=-1).permute(1, 2, 3, 0).numpy()


def _quantise(
    values: Float[ndarray, "layer head R C"],
) -> tuple[UInt8[ndarray, "layer head R C"], Float[ndarray, "layer head R"]]:
    """8-bit square roots in parts of each row's top, and the tops."""
    tops = values.max(-1)
    parts = np.sqrt(values / np.maximum(tops, 1e-30)[..., None])
    return np.rint(255 * parts).astype(np.uint8), tops.astype(np.float32)


def _in_bytes(parts: Float[ndarray, "*shape"]) -> UInt8[ndarray, "*shape"]:
    return np.rint(255 * parts.clip(0, 1)).astype(np.uint8)


def _with_map(packed: Packed, values: ndarray, tops: ndarray, given: ndarray) -> Packed:
    """The clips' bytes and behind them the map's, under the name "map"."""
    data = values.tobytes() + tops.astype("<f4").tobytes() + given.tobytes()
    data += b"\0" * (len(data) % 2)
    entry = {"name": "map", "offset": len(packed.data), "channels": 1, "samples": len(data) // 2}
    return Packed(packed.data + data, [*packed.index, entry], packed.sample_rate, packed.note)


def _scores(frames: Float[Tensor, "layer head T Tc"], frame_rate: float) -> dict[str, ndarray]:
    """Diagonals of every head, of the mean of each layer (last column) and of the mean of all."""
    heads = diagonal(frames, frame_rate)
    means = diagonal(frames.mean(1, keepdim=True), frame_rate)
    every = diagonal(frames.mean((0, 1), keepdim=True), frame_rate)
    given = frames.sum((2, 3)) / frames.shape[2]
    return {
        "diagonal": torch.cat([heads.score, means.score], 1).nan_to_num(0).cpu().numpy(),
        "chance": torch.cat([heads.chance, means.chance], 1).nan_to_num(0).cpu().numpy(),
        "all": torch.cat(every, 1)[0].nan_to_num(0).cpu().numpy(),
        "worth": ((heads.score - heads.chance) * given).nan_to_num(-1).cpu().numpy(),
    }


def _thinned(values: Float[ndarray, "R C"]) -> Float[ndarray, "r c"]:
    """Means over blocks, so that the picture of the twin stays small."""
    for axis in (0, 1):
        size = math.ceil(values.shape[axis] / TWIN_PIXELS)
        starts = np.arange(0, values.shape[axis], size)
        counts = np.diff(np.append(starts, values.shape[axis]))
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / (counts[:, None] if axis == 0 else counts)
    return values


def _title(layer: int, head: int) -> str:
    if layer == MEAN:
        return "Mean of all heads"
    return f"Layer {layer}, mean of its heads" if head == MEAN else f"Layer {layer} head {head}"
