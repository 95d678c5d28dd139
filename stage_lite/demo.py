"""`make demo`: a shipped song without its drums and bass; the model plays both.

    mix -> drums        mix + drums -> bass        out/: stems, mixes, picture, page with players

Notebook: 00_quickstart.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .audio import is_silent, mix, save_audio
from .demo_page import demo_page
from .errors import StageLiteError
from .examples import beats_in
from .files import write_atomic
from .html_page import Table
from .onsets import beat_lock, beats_hit, best_subdivision, detect_onsets
from .song import Song, open_samples

if TYPE_CHECKING:
    from torch import Tensor

    from .model import StageModel
    from .plots import Figure

PLAYED = ("drums", "bass")  # in this order; the second hears the first
SHORTEST_S = 1.0  # of a demo
BEFORE_S = 0.1  # the window begins so much before a bar, so that its first note is heard whole
GRIDS = {1: "beats", 2: "halves of a beat", 3: "thirds of a beat", 4: "quarters of a beat"}


@dataclass
class Demo:
    """What a demo made: where it is, how long it took, how well it keeps the beat."""

    out: Path
    files: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # step -> wall clock
    # stem -> "generated", "real", "another song" -> {"beat_lock", "beats_hit", "onsets"}
    scores: dict[str, dict[str, dict]] = field(default_factory=dict)


def run(
    out: str | Path = "out",
    seed: int = 0,
    *,
    song: str | None = None,
    duration_s: float | None = None,
    description: str | None = None,
    model: StageModel | None = None,
    songs: Sequence[Song] | None = None,
    say: Callable[[str], object] = print,
) -> Demo:
    """Generate drums, then bass, for a song that the models never heard, and write a folder.

    Args:
        out: folder for `mix.wav`, `drums.wav`, `mix_drums.wav`, `bass.wav`, `mix_drums_bass.wav`,
            `picture.png`, `index.html` and `demo.json`; files of these names are replaced, each
            whole or not at all.
        seed: same seed, same music.
        song: its id or an unambiguous part of it ("bossa"); None is the first.
        duration_s: seconds to generate; None is what the model was trained on. Longer is allowed up
            to the song's end: the model then goes on alone after its context has ended.
        description: style in words for both stems ("swing, fast"); None is what the song's own
            labels say.
        model: None loads "nano".
        songs: None are the shipped ones.
        say: takes each line of the report.

    Raises:
        StageLiteError: no such song, nothing in it to play along with, a duration that does not
            fit, an output folder that is a file, missing or broken weights or songs.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise StageLiteError(
            f"{out} is a file; expected a folder to write into: try --out demo_out"
        )
    done = Demo(out)
    with _timed(done, say, "check the songs"):
        songs = open_samples() if songs is None else list(songs)
        chosen = _find_song(songs, song)
    with _timed(done, say, "load the model"):
        if model is None:
            from .model import load

            model = load("nano")
    with _timed(done, say, "read the song"):
        scene = _Scene(chosen, songs, model, duration_s)
        words = {stem: _words(chosen, stem, description) for stem in PLAYED}
    say(f"{chosen.id}: {scene.duration_s:g} s from {scene.start_s:.2f} s, "
        f"{len(scene.beats)} beats; the model hears {', '.join(scene.heard)}")  # fmt: skip

    stems: dict[str, Tensor] = {}
    so_far = scene.mix
    for stem in PLAYED:
        with _timed(done, say, f"generate {stem}", scene.duration_s):
            generation = model.generate(
                context=so_far,
                context_sample_rate=model.sample_rate,
                description=words[stem],
                duration_s=scene.duration_s,
                seed=seed,
                progress=sys.stderr.isatty(),
            )
            stems[stem] = generation.wav[0]
            so_far = mix([so_far, generation.wav[0]])
    with _timed(done, say, "measure the onsets"):
        onsets = {stem: scene.onsets(stem, stems[stem]) for stem in PLAYED}
        done.scores = {stem: scene.scores(stem, onsets[stem]) for stem in PLAYED}
    with _timed(done, say, "write the folder"):
        picture = _picture(scene, stems, onsets)
        command = _command(seed, song, duration_s, description)
        _write(done, scene, stems, picture, words, command)
    say(f"  {'in all':<20} {sum(done.seconds.values()):6.1f} s")
    say(str(_table(done, scene)))
    say(f"Wrote {len(done.files)} files. Open {(out / 'index.html').resolve()} in a browser.")
    return done


class _Scene:
    """The window of the song that is played to: what is heard, the real stems, the beats."""

    def __init__(
        self, song: Song, songs: Sequence[Song], model: StageModel, duration_s: float | None
    ):
        self.song, self.songs, self.sample_rate = song, songs, model.sample_rate
        downbeat = float(song.downbeats[0]) if len(song.downbeats) else 0.0
        self.start_s = max(0.0, downbeat - BEFORE_S)
        room_s = song.duration_s - self.start_s
        self.duration_s = min(model.config.trained_s, room_s) if duration_s is None else duration_s
        if not SHORTEST_S <= self.duration_s <= room_s:
            raise StageLiteError(
                f"the duration is {self.duration_s:g} s; expected {SHORTEST_S:g} to "
                f"{int(room_s * 10) / 10:g} s, what song {song.id!r} has"
            )
        self.real = {stem: self._stem(song, stem) for stem in PLAYED}
        others = {s: self._stem(song, s) for s in song.stem_names if s not in PLAYED}
        others = {s: wav for s, wav in others.items() if not is_silent(wav)}
        if not others:
            raise StageLiteError(
                f"song {song.id!r} has nothing but {' and '.join(PLAYED)} here; expected another "
                "stem to play along with; choose another song"
            )
        self.heard, self.mix = list(others), mix(list(others.values()))
        self.beats = beats_in(song.beats, self.start_s, self.duration_s)
        self.downbeats = beats_in(song.downbeats, self.start_s, self.duration_s)
        self.grid: dict[str, int] = {}

    def _stem(self, song: Song, stem: str) -> Tensor:
        return song.stem(stem, self.start_s, self.duration_s)

    def onsets(self, stem: str, generated: Tensor) -> dict:
        """Onset times of the generated stem, the real one and another song's."""
        at = self.songs.index(self.song)
        order = [*self.songs[at + 1 :], *self.songs[:at]]
        other = next((s for s in order if stem in s.stem_names), None)
        wavs = {"generated": generated, "real": self.real[stem]}
        if other is not None:
            wavs["another song"] = self._stem(other, stem)
        return {name: detect_onsets(wav, self.sample_rate) for name, wav in wavs.items()}

    def scores(self, stem: str, onsets: dict) -> dict[str, dict]:
        """Numbers of each; the grid is the one that the real stem keeps to best."""
        if len(self.beats) < 2:
            return {}
        self.grid[stem] = best_subdivision(onsets["real"], self.beats)
        return {
            name: {
                "beat_lock": beat_lock(times, self.beats, self.grid[stem]),
                "beats_hit": beats_hit(times, self.beats),
                "onsets": len(times),
            }
            for name, times in onsets.items()
        }


def _find_song(songs: Sequence[Song], name: str | None) -> Song:
    if not songs:
        raise StageLiteError("there are no songs; expected the shipped ones in data_samples/songs")
    if name is None:
        return songs[0]
    exact = [song for song in songs if song.id == name]
    found = exact or [song for song in songs if name.lower() in song.id.lower()]
    if len(found) != 1:
        what = "no song fits" if not found else f"{len(found)} songs fit"
        raise StageLiteError(
            f"{what} {name!r}; expected one of {', '.join(song.id for song in found or songs)}"
        )
    return found[0]


def _words(song: Song, stem: str, description: str | None) -> str:
    """What the model is told: the stem, then the style; stem names among the style are left out."""
    if description is None:
        return song.text(stem)
    style = [part.strip() for part in description.split(",")]
    return ", ".join([stem, *(part for part in style if part and part not in PLAYED)])


@contextmanager
def _timed(done: Demo, say: Callable, step: str, music_s: float | None = None) -> Iterator[None]:
    started = time.perf_counter()
    yield
    took = done.seconds[step] = time.perf_counter() - started
    speed = f"  ({music_s / took:.1f} x real time)" if music_s else ""
    say(f"  {step:<20} {took:6.1f} s{speed}")


def _picture(scene: _Scene, stems: dict[str, Tensor], onsets: dict[str, dict]) -> Figure:
    from .plots import waveforms

    rows, marks = {"mix: what the model hears": scene.mix}, {}
    for stem in PLAYED:
        for kind, wav in (("generated", stems[stem]), ("real", scene.real[stem])):
            rows[f"{stem}, {kind}"] = wav
            marks[f"{stem}, {kind}"] = onsets[stem][kind]
    return waveforms(
        rows, scene.sample_rate, scene.beats, scene.downbeats, marks,
        caption="Triangles are detected onsets; a filled one is at most 50 ms from a beat.",
    )  # fmt: skip


def _table(done: Demo, scene: _Scene) -> Table:
    def number(stem: str, kind: str) -> str:
        value = done.scores[stem].get(kind, {}).get("beat_lock")
        return "no onsets" if value is None else f"{value:.2f}"

    return Table(
        "How strictly onsets keep to the beat in this one window: 1 is all on the grid, "
        "0 is as if by chance",
        ["stem", "grid", "generated", "real stem", "another song's stem"],
        [
            [stem, GRIDS.get(scene.grid.get(stem, 0), "none"), number(stem, "generated"),
             number(stem, "real"), number(stem, "another song")]
            for stem in PLAYED
        ],
    )  # fmt: skip


def _write(done, scene, stems, picture, words, command) -> None:
    """All files; the page comes last, so that a page means a finished demo."""
    drums, bass = (stems[stem] for stem in PLAYED)
    wavs = {
        "mix": scene.mix,
        "drums": drums,
        "mix_drums": mix([scene.mix, drums]),
        "bass": bass,
        "mix_drums_bass": mix([scene.mix, drums, bass]),
    }
    for name, wav in wavs.items():
        done.files.append(save_audio(done.out / f"{name}.wav", wav, scene.sample_rate))
    done.files.append(picture.save(done.out / "picture.png"))
    wavs["real"] = mix([scene.mix, *scene.real.values()])  # for the page only
    facts = {
        "song": scene.song.id,
        "start_s": round(scene.start_s, 3),
        "duration_s": scene.duration_s,
        "heard": scene.heard,
        "descriptions": words,
        "command": command,
        "seconds": {step: round(s, 3) for step, s in done.seconds.items()},
        "grid": scene.grid,
        "scores": done.scores,
    }
    for name, text in {
        "demo.json": json.dumps(facts, indent=1) + "\n",
        "index.html": demo_page(
            scene.song.id,
            wavs,
            scene.sample_rate,
            words,
            picture,
            _table(done, scene),
            done.seconds,
            command,
        ),
    }.items():
        write_atomic(done.out / name, text)
        done.files.append(done.out / name)


def _command(seed: int, song: str | None, duration_s: float | None, description: str | None) -> str:
    words = ["python", "-m", "stage_lite", "demo", "--seed", str(seed)]
    for option, value in (("song", song), ("duration", duration_s), ("description", description)):
        if value is not None:
            words += [f"--{option}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)
