"""Stem folders -> windows of (context, target, text, beats), to train on and to evaluate with.

    dataset = StemDataset("my_songs", target="drums", window_s=8.0)
    example = dataset[0]    # .context Float[1, Lc], .target Float[1, L], .description, .beat_times

Folders may be Stage Lite's own, MoisesDB, MUSDB18 (HQ), Slakh2100 or just `<song>/drums.wav ...`;
see stem_layouts.py. `scan` finds what is broken in them first. Notebook: 04_fine_tuning.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .audio import level_db, rms_db
from .augment import RATES, AugmentedSong, draw_augmentation
from .conditions import SILENCE_DB, get_condition
from .errors import StageLiteError
from .examples import Example, description_of, weights_of
from .song import (
    Song,
    Tracker,
    Window,
    beat_hearing,
    open_samples,
    open_songs,
    split_of,
)
from .stem_layouts import SongFiles, find_songs

TRIES = 60  # windows that are drawn for one example before giving up
APART_S = 0.02  # windows that begin at least so far apart count as different

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
            p = 0.5, the same on target and context; beats move along, a click is made anew. What
            was done stands in the example's `rate` and `semitones`. Where a song is too short to be
            played so fast, the window is drawn again.
        split: "train", "valid" or "test". Songs whose data set has no splits get one by a hash of
            their id: 80 %, 10 %, 10 %.
        n: length of the data set; None is one pass over the music in windows. Windows overlap, so
            that n may be far more than that; training goes round when it needs more.
        min_active: share of the window's seconds in which the target must be heard.
        text: label that becomes the description ("description", "description_long"); of several,
            one is drawn.
        sample_rate: of all audio, Hz.
        verify: compare files with the sha256 in song.json when they are first read.
        tracker: of beats, where no label says them: "librosa", "beat-this", or a function (wav,
            sample_rate) -> beat times. What is found is kept; see beat_labels.py.
        skip: ids of songs, or the table of `scan`, whose broken songs are then left out.

    Raises:
        StageLiteError: no song with that target, none as long as a window, more windows asked for
            than the songs hold, or labels that cannot be read.
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
        tracker: Tracker = "librosa",
        skip: Collection[str] = (),
    ):
        if not window_s > 0:
            raise StageLiteError(f"window_s is {window_s}; expected more than 0 seconds")
        if n is not None and n < 1:
            raise StageLiteError(f"n is {n}; expected at least 1 window, or None")
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
        beat_hearing(tracker)  # missing weights are missed now, not at the first example
        skip = frozenset(getattr(skip, "broken_songs", skip))
        if isinstance(folder, str | Path):
            files = [song for song in find_songs(folder, skip) if song.id not in skip]
            _warn_of_missing(files)
            songs = [Song(found, sample_rate, verify, tracker) for found in files]
        else:
            songs = [song for song in folder if song.id not in skip]
            for song in songs:
                if song.sample_rate != sample_rate:
                    raise StageLiteError(
                        f"song {song.id!r} is opened at {song.sample_rate} Hz, the data set at "
                        f"{sample_rate} Hz; expected one rate; give sample_rate={song.sample_rate}"
                    )
        self.songs = [song for song in songs if split is None or split_of(song) == split]
        self._with_target = {name: self._long_enough(name, len(songs)) for name in self.targets}
        self._n = n
        if n is not None and not augment and n > self.holds:
            raise StageLiteError(
                f"n is {n}: more windows of {window_s} s than the songs hold, which is "
                f"{self.holds} that begin at least {APART_S} s apart; take n={self.holds} or less "
                "(training goes round), shorter windows, augment=True or more songs"
            )

    @functools.cached_property
    def holds(self) -> int:
        """Windows that begin at least 0.02 s apart in the songs that can be drawn, per target."""
        having = [song for songs in self._with_target.values() for song in songs]
        rooms_s = [max(song.duration_s - self.window_s, 0.0) for song in having]
        return sum(1 + int(room_s / APART_S + 1e-6) for room_s in rooms_s)

    def resized(self, n: int) -> StemDataset:
        """The same data set with n examples, or as many as the songs hold if that is less."""
        other = copy.copy(self)
        other._n = n if self.augment else min(n, self.holds)
        return other

    def __len__(self) -> int:
        if self._n is None:
            seconds = sum(s.duration_s for having in self._with_target.values() for s in having)
            self._n = max(1, int(seconds / self.window_s))
        return self._n

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Example:
        if not 0 <= i < len(self):
            raise IndexError(i)
        rng, passed = np.random.default_rng([self.seed, i]), Counter()
        for _ in range(TRIES):
            target, condition = _draw(rng, self.targets), _draw(rng, self.conditions)
            having = self._with_target[target]
            song = having[rng.integers(len(having))]
            if self.augment:
                song = AugmentedSong(song, *draw_augmentation(rng))
            room_s = song.duration_s - self.window_s
            start_s, seed = rng.random() * max(room_s, 0.0), int(rng.integers(2**31))
            whole, part, text = rng.random(3)
            if room_s < -1e-6:
                passed["too short for that speed"] += 1
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
            reason = self._why_not(example)
            if reason is None:
                return example
            passed[reason] += 1
        reasons = ", ".join(f"{count} times {reason}" for reason, count in passed.most_common())
        raise StageLiteError(
            f"no window of {self.window_s} s with the target heard and something to play along to, "
            f"in {TRIES} tries over {len(self.songs)} songs (targets {list(self.targets)}, "
            f"conditions {list(self.conditions)}): {reasons}; take shorter windows, a lower "
            "min_active or other songs"
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
            rate=song.rate,
            semitones=song.semitones,
        )

    def _context_s(self, whole: float, part: float) -> float | None:
        if self.context_s is None or whole < self.whole_context:
            return None
        shortest, longest = self.context_s
        return shortest + part * (longest - shortest)

    def _why_not(self, example: Example) -> str | None:
        """Why a window is passed over; None for one to take."""
        levels = rms_db(example.target, self.sample_rate)
        if (levels > SILENCE_DB).mean() < self.min_active:
            return f"{example.target_name} silent"
        if example.condition == "none":
            return None
        if example.context is None or not level_db(example.context) > SILENCE_DB:
            return f"nothing to hear by {example.condition!r}"
        return None

    def _long_enough(self, target: str, n_in_all: int) -> list[Song]:
        """Songs that have the target and hold a window."""
        having = [song for song in self.songs if target in song.stem_names]
        if not having:
            known = sorted({stem for song in self.songs for stem in song.stem_names})
            raise StageLiteError(
                f"no song with stem {target!r} among {len(self.songs)} songs of split "
                f"{self.split!r} ({n_in_all} in all); they have {known}; take another target or "
                "split"
            )
        shortest_s = self.window_s * (RATES[0] if self.augment else 1.0)
        long = [song for song in having if song.lasts(shortest_s)]
        if not long:
            longest_s = max(song.duration_s for song in having)
            raise StageLiteError(
                f"no window of {self.window_s} s in the {len(having)} songs with stem {target!r}: "
                f"the longest lasts {longest_s:.2f} s; take shorter windows or longer songs"
            )
        return long


def _warn_of_missing(songs: Sequence[SongFiles]) -> None:
    short = [song for song in songs if song.missing]
    if short:
        first = next(iter(short[0].missing))
        warnings.warn(
            f"{len(short)} of {len(songs)} songs lack files that their labels promise, such as "
            f"{first}; they are used without; `stage-lite scan` lists them",
            stacklevel=3,
        )


def _draw(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    edges = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(edges, rng.random() * edges[-1], "right"))]
