"""Stem folders -> windows of (context, target, text, beats), to train on and to evaluate with.

    dataset = StemDataset("my_songs", target="drums", window_s=8.0)
    example = dataset[0]    # .context Float[1, Lc], .target Float[1, L], .description, .beat_times

Folders may be Stage Lite's own, MoisesDB, MUSDB18-HQ, Slakh2100 or just `<song>/drums.wav ...`;
see stem_layouts.py. Notebook: 04_finetuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .audio import level_db, rms_db
from .augment import AugmentedSong, draw_augmentation
from .conditions import SILENCE_DB, get_condition
from .errors import StageLiteError
from .examples import Example, description_of, weights_of
from .song import Song, Window, open_samples, open_songs, split_of
from .stem_layouts import find_songs

TRIES = 60  # windows that are drawn for one example before giving up

__all__ = ["Example", "Song", "StemDataset", "Window", "open_samples", "open_songs"]


class StemDataset(Sequence):
    """Random windows of songs; example i depends on (seed, i) and the songs only.

    Args:
        folder: of songs in any layout of stem_layouts.py, or a list of Song.
        target: stem to play, several, or stem -> weight. Windows without it are not drawn.
        window_s: length of the target.
        conditions: names from conditions.py, or name -> weight; "none" for no context.
        context_s: (shortest, longest): the context is the first x seconds of the window, x drawn
            evenly, as STAGE draws 5 to 10 s. None: the whole window.
        whole_context: with `context_s`, this share of the contexts is kept whole (STAGE: 0.05).
        seed: with i, makes the example.
        augment: time stretch by 0.8 to 1.2 and pitch shift by -4 to +4 semitones, each with
            p = 0.5, the same on target and context; beats move along.
        split: "train", "valid" or "test". Songs whose data set has no splits get one by a hash of
            their id: 80 %, 10 %, 10 %.
        n: length of the data set; None is one pass over the music in windows.
        min_active: share of the window's seconds in which the target must be heard.
        text: label that becomes the description ("description", "description_long"); of several,
            one is drawn.
        sample_rate: of all audio, Hz.
        verify: compare files with the sha256 in song.json when they are first read.
    """

    def __init__(
        self,
        folder: str | Path | Sequence[Song],
        target: str | Sequence[str] | Mapping[str, float] = "drums",
        *,
        window_s: float = 8.0,
        conditions: str | Sequence[str] | Mapping[str, float] = ("mixture", "metronome"),
        context_s: tuple[float, float] | None = None,
        whole_context: float = 0.05,
        seed: int = 0,
        augment: bool = False,
        split: str | None = None,
        n: int | None = None,
        min_active: float = 0.5,
        text: str | Sequence[str] = "description",
        sample_rate: int = 32000,
        verify: bool = True,
    ):
        if not window_s > 0:
            raise StageLiteError(f"window_s is {window_s}; expected more than 0 seconds")
        if context_s is not None and not 0 < context_s[0] <= context_s[1] <= window_s:
            raise StageLiteError(
                f"context_s is {context_s}; expected 0 < shortest <= longest <= window_s = "
                f"{window_s}"
            )
        self.targets = weights_of(target, "target")
        self.conditions = weights_of(conditions, "conditions")
        for name in self.conditions:
            if name != "none":
                get_condition(name)
        self.window_s, self.context_s, self.whole_context = window_s, context_s, whole_context
        self.seed, self.augment, self.split, self.min_active = seed, augment, split, min_active
        self.text = [text] if isinstance(text, str) else list(text)
        self.sample_rate = sample_rate
        if isinstance(folder, str | Path):
            songs = [Song(files, sample_rate, verify) for files in find_songs(folder)]
        else:
            songs = list(folder)
        self.songs = [song for song in songs if split is None or split_of(song) == split]
        self._with_target = {
            name: [song for song in self.songs if name in song.stem_names] for name in self.targets
        }
        for name, having in self._with_target.items():
            if not having:
                known = sorted({stem for song in self.songs for stem in song.stem_names})
                raise StageLiteError(
                    f"no song with stem {name!r} among {len(self.songs)} songs of split {split!r} "
                    f"({len(songs)} in all); they have {known}; take another target or split"
                )
        self._n = n

    def __len__(self) -> int:
        if self._n is None:
            seconds = sum(song.duration_s for song in self.songs)
            self._n = max(1, int(seconds * len(self.targets) / self.window_s))
        return self._n

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Example:
        if not 0 <= i < len(self):
            raise IndexError(i)
        rng = np.random.default_rng([self.seed, i])
        for _ in range(TRIES):
            target, condition = _draw(rng, self.targets), _draw(rng, self.conditions)
            having = self._with_target[target]
            song = having[rng.integers(len(having))]
            if self.augment:
                song = AugmentedSong(song, *draw_augmentation(rng))
            room_s = song.duration_s - self.window_s
            start_s, seed = rng.random() * max(room_s, 0.0), int(rng.integers(2**31))
            whole, part, text = rng.random(3)
            if room_s < 0:
                continue
            example = self.window(
                song,
                start_s,
                target,
                condition,
                seed=seed,
                context_s=self._context_s(whole, part),
                text=self.text[int(text * len(self.text))],
            )
            if self._is_heard(example):
                return example
        raise StageLiteError(
            f"no window of {self.window_s} s with the target heard and something to play along to, "
            f"in {TRIES} tries over {len(self.songs)} songs (targets {list(self.targets)}, "
            f"conditions {list(self.conditions)}); take shorter windows, a lower min_active or "
            "other songs"
        )

    def window(
        self,
        song: Song | AugmentedSong,
        start_s: float,
        target: str,
        condition: str = "mixture",
        *,
        seed: int = 0,
        context_s: float | None = None,
        text: str = "description",
    ) -> Example:
        """One chosen window; its context is None if the condition finds nothing to hear.

        Args:
            song: one of `songs`, or an AugmentedSong of one.
            start_s: of the window in the song.
            target: stem to play.
            condition: a registered name or "none".
            seed: of the condition's choices.
            context_s: length of the context; None is the whole window.
            text: which label describes the target.
        """
        window = Window(song, start_s, self.window_s, target, seed)
        context = None
        if condition != "none":
            context = get_condition(condition)(song, window)
            length_s = self.window_s if context_s is None else context_s
            if context is not None:
                context = context[:, : max(1, round(length_s * self.sample_rate))]
        return Example(
            target=song.stem(target, start_s, self.window_s),
            context=context,
            description=description_of(song.labels, target, text),
            beat_times=window.beat_times,
            downbeat_times=window.downbeat_times,
            song_id=song.id,
            start_s=start_s,
            duration_s=self.window_s,
            condition=condition,
            target_name=target,
            sample_rate=self.sample_rate,
            bpm=song.bpm,
            groove=song.groove,
            family=song.family,
        )

    def _context_s(self, whole: float, part: float) -> float | None:
        if self.context_s is None or whole < self.whole_context:
            return None
        shortest, longest = self.context_s
        return shortest + part * (longest - shortest)

    def _is_heard(self, example: Example) -> bool:
        levels = rms_db(example.target, self.sample_rate)
        if (levels > SILENCE_DB).mean() < self.min_active:
            return False
        if example.condition == "none":
            return True
        return example.context is not None and level_db(example.context) > SILENCE_DB


def _draw(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    edges = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(edges, rng.random() * edges[-1], "right"))]
