"""What the page of the demo says and in which order it lets one listen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from .clips import Clip
from .html_page import Code, Section, Table, page


def demo_page(
    song_id: str,
    wavs: Mapping[str, Float[Tensor, "C _"]],
    sample_rate: int,
    descriptions: Mapping[str, str],
    picture: Any,
    scores: Table,
    seconds: Mapping[str, float],
    command: str,
) -> str:
    """The HTML document.

    Args:
        song_id: which song it is.
        wavs: "mix", "drums", "mix_drums", "bass", "mix_drums_bass" and "real".
        sample_rate: of all of them, Hz.
        descriptions: what the model was told for "drums" and "bass".
        picture: a plots.Figure.
        scores: numbers below the picture.
        seconds: step -> wall clock.
        command: what makes this page again.
    """

    def clip(key: str, name: str, listen_for: str) -> Clip:
        return Clip(name, wavs[key], sample_rate, listen_for)

    times = Table(
        "How long it took", ["step", "seconds"], [[n, f"{s:.1f}"] for n, s in seconds.items()]
    )
    return page(
        "Stage Lite plays along",
        f"{wavs['mix'].shape[-1] / sample_rate:g} s of the song {song_id}, which the model was not "
        "trained on. Its drums and bass were taken away; the model heard the rest, and played both "
        "anew.",
        [
            Section("1. What the model hears", [
                clip("mix", "Mix without drums and bass", "where is the beat? Tap along."),
            ]),
            Section("2. It plays drums", [
                f'It was told "{descriptions["drums"]}".',
                clip("mix_drums", "Mix with generated drums",
                     "do the hits fall where you tapped, and do the bars begin together?"),
                clip("drums", "Generated drums alone", "a groove, or single hits?"),
            ]),
            Section("3. It hears mix and drums, and plays bass", [
                f'It was told "{descriptions["bass"]}".',
                clip("mix_drums_bass", "Mix with generated drums and bass",
                     "does the bass change notes with the chords, and together with the drums?"),
                clip("bass", "Generated bass alone", "clear notes, or a hum?"),
            ]),
            Section("4. The real thing", [
                clip("real", "Mix with the song's own drums and bass",
                     "what does the real rhythm section do that the generated one does not?"),
            ]),
            Section("5. The onsets on the beat grid", [
                picture, scores,
                "One window of one song proves nothing: the model cards hold the numbers over many "
                "windows, with intervals.",
            ]),
            Section("Again, with other words or another seed", [Code(command), times]),
        ],
    )  # fmt: skip
