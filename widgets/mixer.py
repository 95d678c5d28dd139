"""StemMixer: several stems on one clock, with solo, mute, gain, a beat grid, a loop and A/B.

    mixer = StemMixer({"drums": drums, "bass": {"with context": a, "shuffled": b}},
                      sample_rate=32000, beats=beats, downbeats=downbeats)
    mixer.solo = ["drums"]; mixer.loop_bars(3, 4); mixer.play()
    mixer.mix()             # what is heard now, Float[C, L]

What a listener changes in the browser is a trait here, and the other way round. The click is one
more stem, muted at first.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from stage_lite.errors import StageLiteError

from .base import StageWidget
from .esm import bundle, stylesheet
from .pcm import pack
from .stem_input import ONLY, check_name, is_number, read_stems
from .twin import colour_of, player, wave_img

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from stage_lite.song import Song

GAIN_DB = (-60.0, 12.0)  # of a fader; its lowest place is silence
CLICK_DB = -9.0  # at first: a full click would drown the stems
SHORTEST_LOOP_S = 0.1
LISTEN = "Do the stems land on the same beats? Solo one, then add the click."
LISTEN_PLAIN = "Do the stems land on the same beats? Solo one, then add the others."  # no click


class StemMixer(StageWidget):
    """One to eight stems, sample by sample together.

    Args:
        stems: name -> wav [C, L] or [L], (wav, sample_rate), a file's path, or several versions of
            one of these by name. Shorter stems end in silence; other rates are resampled.
        sample_rate: Hz, of wavs that come without one.
        beats, downbeats: seconds; with beats there is a click, and a grid behind the waves.
        label: the widget's name.
        listen_for: one line for the listener; None is a question on the beat.

    Attributes:
        gain_db: stem -> dB, -60 (silence) to 12.
        mute, solo: names of stems; "click" is one of them where there are beats.
        version: stem -> name of the version that is heard.
        loop_s: (from, to) in seconds, or None.
        playing, position_s: what the browser does; while it plays, told about once a second.

    Raises:
        StageLiteError: no stems, too many or too long, NaN, an empty clip, beats that do not
            increase.

    Notebook: 00_quickstart.
    """

    _esm, _css = bundle("mixer.js"), stylesheet("mixer.css")

    gain_db = traitlets.Dict().tag(sync=True)
    mute = traitlets.List(traitlets.Unicode()).tag(sync=True)
    solo = traitlets.List(traitlets.Unicode()).tag(sync=True)
    version = traitlets.Dict().tag(sync=True)
    loop_s = traitlets.Any(None, allow_none=True).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    position_s = traitlets.Float(0.0).tag(sync=True)
    _stems = traitlets.List().tag(sync=True)
    _beats = traitlets.List().tag(sync=True)
    _downbeats = traitlets.List().tag(sync=True)
    _duration_s = traitlets.Float().tag(sync=True)
    _master = traitlets.Float(1.0).tag(sync=True)
    _click_name = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        stems: Mapping[str, Any],
        sample_rate: int | None = None,
        *,
        beats: Sequence[float] | np.ndarray | None = None,
        downbeats: Sequence[float] | np.ndarray | None = None,
        label: str = "Stem mixer",
        listen_for: str | None = None,
    ):
        from stage_lite.metronome import check_times

        check_name(label, "the widget")
        given = read_stems(stems, sample_rate)
        grid = [check_times(t, n) for t, n in ((beats, "beats"), (downbeats, "downbeats"))]
        if len(grid[1]) and not len(grid[0]):
            raise StageLiteError("got downbeats without beats; expected beats=... as well")
        clips = {
            f"{i}.{j}": wav
            for i, versions in enumerate(given.wavs.values())
            for j, wav in enumerate(versions.values())
        }
        stems_ = [
            {
                "name": name,
                "versions": [{"name": v, "clip": f"{i}.{j}"} for j, v in enumerate(versions)],
            }
            for i, (name, versions) in enumerate(given.wavs.items())
        ]
        packed = pack(clips, given.sample_rate)
        self._wavs, self.sample_rate = given.wavs, given.sample_rate
        master, notes = _headroom(given.wavs), list(given.notes)
        if master < 1:
            notes.append(f"All turned down by {-20 * np.log10(master):.1f} dB, so as not to clip.")
        click = _free_name("click", given.wavs) if len(grid[0]) else ""
        if listen_for is None:
            listen_for = LISTEN if click else LISTEN_PLAIN
        names = [*given.wavs, *filter(None, [click])]
        super().__init__(
            label=label,
            listen_for=listen_for,
            note=" ".join(notes),
            audio=packed,
            gain_db={name: CLICK_DB if name == click else 0.0 for name in names},
            mute=[click] if click else [],
            version={name: next(iter(versions)) for name, versions in given.wavs.items()},
            _stems=stems_,
            _beats=grid[0].tolist(),
            _downbeats=grid[1].tolist(),
            _duration_s=given.duration_s,
            _master=master,
            _click_name=click,
        )

    @classmethod
    def from_song(
        cls, song: Song, start_s: float = 0.0, duration_s: float = 30.0, **words: Any
    ) -> StemMixer:
        """All stems of a song, or of a part of it, with its beats.

        Args:
            song: of `StemDataset(...).songs` or `stage_lite.song.open_samples`.
            words: label, listen_for.
        """
        duration_s = min(duration_s, song.duration_s - start_s)
        parts = [
            [t - start_s for t in times if start_s <= t < start_s + duration_s]
            for times in (song.beats, song.downbeats)
        ]
        return cls(
            {name: song.stem(name, start_s, duration_s) for name in song.stem_names},
            song.sample_rate,
            beats=parts[0],
            downbeats=parts[1],
            **{"label": f"Song {song.id}"} | words,
        )

    # --- what is heard -------------------------------------------------------------------------

    @property
    def stem_names(self) -> list[str]:
        """Names of the stems, without the click."""
        return list(self._wavs)

    @property
    def duration_s(self) -> float:
        """Length of the longest stem."""
        return self._duration_s

    def levels(self) -> dict[str, float]:
        """Stem -> the factor it is heard with: gain, solo and mute; the click too."""
        names = [*self._wavs, *filter(None, [self._click_name])]
        chosen = [n for n in names if n in self.solo] or names
        return {
            n: _factor(self.gain_db.get(n, 0.0)) if n in chosen and n not in self.mute else 0.0
            for n in names
        }

    def mix(self) -> Float[Tensor, "C L"]:
        """What is heard now, Float[C, L]: versions, levels, click, the whole turned down.

        Raises:
            StageLiteError: the mixer was closed.
        """
        import torch

        from stage_lite.metronome import click_track

        if not self._wavs:
            raise StageLiteError("this mixer was closed and its audio is freed; run its cell again")
        levels = self.levels()
        heard = {n: self._wavs[n][self.version[n]] for n in self._wavs}
        if self._click_name:
            click = click_track(
                self._beats,
                self._downbeats,
                duration_s=self._duration_s,
                sample_rate=self.sample_rate,
            )
            length = next(iter(heard.values())).shape[-1]
            heard[self._click_name] = torch.nn.functional.pad(click, (0, length))[:, :length]
        channels = max(wav.shape[0] for wav in heard.values())
        total = torch.zeros(channels, next(iter(heard.values())).shape[-1])
        for name, wav in heard.items():
            total += levels[name] * wav
        return self._master * total

    # --- commands to the browser ---------------------------------------------------------------

    def play(self) -> None:
        """Play from where it stands; a browser may want a click on the page first."""
        self.send({"kind": "play"})

    def pause(self) -> None:
        """Stop and keep the place."""
        self.send({"kind": "pause"})

    def seek(self, position_s: float) -> None:
        """Go to a time in seconds; it plays on if it was playing."""
        if not is_number(position_s) or not 0 <= position_s <= self._duration_s:
            raise StageLiteError(
                f"seek got {position_s!r}; expected 0 to {self._duration_s:.2f} seconds"
            )
        self.send({"kind": "seek", "position_s": float(position_s)})

    def loop_bars(self, first: int, last: int) -> None:
        """Loop from the beginning of bar `first` to the end of bar `last`, counted from 1."""
        starts = self._downbeats
        if not starts:
            raise StageLiteError("loop_bars needs downbeats=...; set loop_s = (from, to) instead")
        whole = all(isinstance(bar, int | np.integer) for bar in (first, last))
        if not whole or not 1 <= first <= last <= len(starts):
            raise StageLiteError(
                f"loop_bars got {first!r} to {last!r}; expected bars of 1 to {len(starts)}, in "
                "order"
            )
        end = starts[last] if last < len(starts) else self._duration_s
        self.loop_s = (starts[first - 1], end)

    # --- checks --------------------------------------------------------------------------------

    @traitlets.validate("mute", "solo")
    def _check_names(self, proposal: Any) -> list[str]:
        self._known(proposal["value"], proposal["trait"].name)
        return list(dict.fromkeys(proposal["value"]))

    @traitlets.validate("gain_db")
    def _check_gains(self, proposal: Any) -> dict[str, float]:
        gains, (lowest, highest) = proposal["value"], GAIN_DB
        self._known(gains, "gain_db")
        for name, gain in gains.items():
            if not is_number(gain) or not lowest <= gain <= highest:
                raise StageLiteError(
                    f"gain_db of {name!r} is {gain!r}; expected {lowest:g} to {highest:g} dB"
                )
        return {**self.gain_db, **{name: float(gain) for name, gain in gains.items()}}

    @traitlets.validate("version")
    def _check_version(self, proposal: Any) -> dict[str, str]:
        chosen = proposal["value"]
        for name, version in chosen.items():
            if name not in self._wavs or version not in self._wavs[name]:
                known = {n: list(v) for n, v in self._wavs.items()}
                raise StageLiteError(
                    f"version {version!r} of stem {name!r} is unknown; expected one of {known}"
                )
        return {**self.version, **chosen}

    @traitlets.validate("loop_s")
    def _check_loop(self, proposal: Any) -> list[float] | None:
        loop = proposal["value"]
        if loop is None:
            return None
        try:
            start, end = (float(time) for time in loop)
        except (TypeError, ValueError):
            raise StageLiteError(f"loop_s is {loop!r}; expected (from, to) or None") from None
        if not 0 <= start <= end - SHORTEST_LOOP_S or not end <= self._duration_s + 1e-6:
            raise StageLiteError(
                f"loop_s is ({start:g}, {end:g}); expected 0 to {self._duration_s:.2f} s and at "
                f"least {SHORTEST_LOOP_S} s between them"
            )
        return [start, end]

    def _known(self, names: Any, what: str) -> None:
        known = [*self._wavs, *filter(None, [self._click_name])]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise StageLiteError(f"{what} names {unknown[0]!r}; expected some of {known}")

    # --- standing still ------------------------------------------------------------------------

    def summary(self) -> str:
        names = ", ".join(repr(stem["name"]) for stem in self._stems)
        return f"{names}, {self._duration_s:.2f} s at {self.sample_rate} Hz"

    def twin_html(self) -> str:
        rows = []
        for place, (name, versions) in enumerate(self._wavs.items()):
            colour = colour_of(name, place)
            for version, wav in versions.items():
                title = name if version == ONLY else f"{name} ({version})"
                picture = wave_img(wav, self.sample_rate, colour, title, self._downbeats)
                rows.append(
                    f'<tr><th scope="row" style="text-align:left">{html.escape(title)}</th>'
                    f"<td>{picture}</td></tr>"
                )
        return f"<table>{''.join(rows)}</table>" + player(
            self.mix(), self.sample_rate, "What is heard"
        )

    def close(self) -> None:
        super().close()
        self._wavs = {}


def _factor(gain_db: float) -> float:
    """dB -> factor; the lowest place of the fader is silence."""
    return 0.0 if gain_db <= GAIN_DB[0] else 10 ** (gain_db / 20)


def _headroom(wavs: Mapping[str, Mapping[str, Tensor]]) -> float:
    """The factor that keeps the plain sum within [-1, 1], whatever versions are chosen."""
    total = 0.0
    for versions in wavs.values():
        loudest = max(versions.values(), key=lambda wav: float(wav.abs().max()))
        total = total + loudest
    peak = float(abs(total).max())
    return 1.0 if peak <= 1 else 1 / peak


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name += " (metronome)"
    return name
