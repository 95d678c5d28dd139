"""The whole tool in one panel: give it music or a click, choose stem and words, keep what is good.

The song itself is accompaniment.py; generating runs in a thread (job.py), so that the kernel goes
on answering and Cancel works; the zip is song_zip.py. Sound goes to the browser when it asks for
it, clip by clip: a notebook that is saved holds none.

Notebook: 00_quickstart.
"""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from jaxtyping import Float
from torch import Tensor

from stage_lite.audio import prepare
from stage_lite.errors import StageLiteError
from stage_lite.files import write_atomic

from .accompaniment import Accompaniment, Take, description_of
from .base import StageWidget
from .decode import decode_audio
from .esm import bundle, stylesheet
from .job import Cancelled, Job, Report
from .pcm import LIMIT_BYTES, pack
from .song_zip import song_zip
from .take_request import (
    MAX_GUIDANCE,
    MAX_SEED,
    MAX_WORDS_LENGTH,
    STEMS,
    checked_form,
    checked_stems,
    opened,
    samples_of,
    shown_name,
    taken,
    times_of,
)
from .twin import colour_of, player, wave_img

IDLE = {"state": "idle", "done": 0, "total": 0, "text": ""}

_log = logging.getLogger(__name__)


class Accompanist(StageWidget):
    """A panel that generates one stem after the other, each to the mix of what was kept.

        Accompanist("nano")
        Accompanist(model, context="mix.wav", beats=beats, downbeats=downbeats)

    Args:
        model: a StageModel, or a name or folder for `stage_lite.load`.
        context: the music to begin with: a file, or a wav [L] or [C, L]. None: choose it in the
            panel, or begin with words alone.
        sample_rate: Hz of a wav; not with a file.
        beats, downbeats: in seconds of the context, where they are known; else the tempo file is
            made of tracked beats.
        stems: what can be chosen; words that the model knows.
        duration_s: of every stem; None is what the model was trained on.

    Attributes:
        song: the Accompaniment: context, takes, kept; change it in the panel or by the methods
            here, which the panel follows.

    Raises:
        StageLiteError: no such model, a context that cannot be used, no stems or too many.
    """

    _esm, _css = bundle("accompanist.js"), stylesheet("accompanist.css")

    _song = traitlets.Dict().tag(sync=True)
    _job = traitlets.Dict(dict(IDLE)).tag(sync=True)
    _options = traitlets.Dict().tag(sync=True)
    _form = traitlets.Dict().tag(sync=True)  # what was asked for last
    _running: Job | None = None

    def __init__(
        self,
        model: Any = "nano",
        *,
        context: str | Path | Tensor | np.ndarray | None = None,
        sample_rate: int | None = None,
        beats: Sequence[float] | None = None,
        downbeats: Sequence[float] | None = None,
        stems: Sequence[str] = STEMS,
        duration_s: float | None = None,
    ):
        stems = checked_stems(stems)
        if isinstance(model, str | Path):
            from stage_lite.model import load

            model = load(model)
        if not callable(getattr(model, "generate", None)):
            raise StageLiteError(
                f"model is a {type(model).__name__}; expected a StageModel or a name: 'nano'"
            )
        self.model = model
        trained_s = float(model.config.trained_s)
        duration_s = trained_s if duration_s is None else duration_s
        if not isinstance(duration_s, int | float) or not 1 <= duration_s <= 120:
            raise StageLiteError(
                f"duration_s is {duration_s!r}; expected 1 to 120 seconds; "
                f"{model.config.name!r} was trained on {trained_s:g} s"
            )
        self.song = Accompaniment(model.sample_rate, float(duration_s))
        if context is None and not (beats is None and downbeats is None):
            raise StageLiteError(
                "beats came without a context; expected context=... as well, or set_click(bpm)"
            )
        if context is not None:
            wav, rate, name = opened(context, sample_rate)
            self.song.set_context(wav, rate, name, beats=beats, downbeats=downbeats)
        self._lock = threading.RLock()  # of the song: the panel, a cell and the job change it
        self._ended: tuple[Any, BaseException | None] = (None, None)
        super().__init__(
            label="Accompanist",
            listen_for="does the new stem keep the beat and the chords of what it heard?",
            _options={
                "stems": stems,
                "model": model.config.name,
                "duration": self.song.duration_s,
                "rate": model.sample_rate,
                "max_seed": MAX_SEED,
                "max_guidance": MAX_GUIDANCE,
                "max_words": MAX_WORDS_LENGTH,
            },
            _form={"stem": stems[0], "words": "", "cfg_coef": 3.0, "seed": 0},
            _song=self._song_state(),
        )

    # --- Python's side -------------------------------------------------------------------------

    @property
    def takes(self) -> list[Take]:
        """All takes that are remembered, the oldest first."""
        return list(self.song.takes)

    @property
    def kept(self) -> list[Take]:
        """The stems of the song, in the order of keeping."""
        return self.song.kept

    @property
    def busy(self) -> bool:
        """Is it generating or exporting?"""
        return self._job["state"] != "idle"

    def mix(self) -> Float[Tensor, "1 L"] | None:
        """Context and kept stems together: what the next stem hears."""
        return self.song.mix()

    def generate(
        self,
        stem: str | None = None,
        words: str = "",
        *,
        cfg_coef: float = 3.0,
        seed: int = 0,
        wait: bool = True,
    ) -> Take | None:
        """Generate one take, to all that is kept so far.

        Args:
            stem: one of `stems`; None is the first.
            words: the style, "bossa nova, slow".
            cfg_coef: guidance, 0 to 20.
            seed: same seed, same take.
            wait: False returns at once; `wait()` comes back when it is done.

        Returns:
            The take; None if it was cancelled, or is still being made.

        Raises:
            StageLiteError: settings out of range, a take that is still being made, or what
                `model.generate` refuses.
        """
        form = checked_form(self._options["stems"], stem, words, cfg_coef, seed)
        with self._lock:
            self._start(f"{form['stem']}, seed {form['seed']}", "generating", self._work(form))
        self._form = form
        return self.wait() if wait else None

    def wait(self, timeout_s: float | None = None) -> Take | None:
        """Wait for what is being generated. Ctrl-C cancels it.

        Returns:
            The take; None if it was cancelled, or has not come in time.

        Raises:
            StageLiteError: and others, that came up while it was generated.
        """
        job = self._running
        if job is None:
            return None
        try:
            if not job.wait(timeout_s):
                return None
        except KeyboardInterrupt:
            job.cancel()
            job.wait(30.0)
            raise
        result, error = self._ended
        if error is not None and not isinstance(error, Cancelled):
            raise error
        return result if isinstance(result, Take) else None

    def cancel(self) -> None:
        """Call off what is being generated; returns at once."""
        if self._job["state"] == "generating":
            self._running.cancel()
            self._job = self._job | {"state": "cancelling", "text": "Cancelling ..."}

    def set_context(
        self,
        context: str | Path | Tensor | np.ndarray,
        sample_rate: int | None = None,
        *,
        start_s: float = 0.0,
        beats: Sequence[float] | None = None,
        downbeats: Sequence[float] | None = None,
    ) -> None:
        """Begin with this music; takes for another context are dropped. See `Accompanist`."""
        wav, rate, name = opened(context, sample_rate)
        self._change(
            lambda song: song.set_context(
                wav, rate, name, start_s=start_s, beats=beats, downbeats=downbeats
            ),
            of_context=True,
        )

    def set_click(self, bpm: float, beats_per_bar: int = 4) -> None:
        """Begin with a metronome; takes for another context are dropped."""
        self._change(lambda song: song.set_click(bpm, beats_per_bar), of_context=True)

    def keep(self, take: Take | int) -> None:
        """Make a take part of the song."""
        self._change(lambda song: song.keep(_id(take)))

    def put_back(self, take: Take | int) -> None:
        """Take it out of the song."""
        self._change(lambda song: song.put_back(_id(take)))

    def delete(self, take: Take | int) -> None:
        """Forget a take."""
        self._change(lambda song: song.delete(_id(take)))

    def start_over(self) -> None:
        """No context, no takes."""
        self._change(lambda song: song.start_over(), of_context=True)

    def export(self, path: str | Path) -> Path:
        """Write the song as a .zip of stems, beats and tempo map; see song_zip.py.

        Raises:
            StageLiteError: nothing to export, another suffix, or a place that cannot be written.
        """
        if not isinstance(path, str | Path):
            raise StageLiteError(f"path is {path!r}; expected the name of a file, 'song.zip'")
        path = Path(path)
        if path.suffix.lower() != ".zip":
            raise StageLiteError(f"cannot write {path.name!r}; expected a name that ends in .zip")
        with self._lock:
            song = self.song.snapshot()
        content = song_zip(song)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except OSError as error:
            raise StageLiteError(
                f"{path} could not be written ({error.strerror}); expected a place where files may "
                "be made; choose another"
            ) from error
        return path

    def close(self) -> None:
        """Cancel what is being generated, free the audio, remove the panel."""
        if self._running is not None:
            self._running.cancel()
        super().close()

    # --- work in the background ----------------------------------------------------------------

    def _work(self, form: dict[str, Any]) -> Any:
        """What the job does: one take from the settings and the song as it is now."""
        context, heard = self.song.mix(), tuple(self.song.parts())

        def work(report: Report) -> Take:
            started = time.perf_counter()
            out = self.model.generate(
                context=context,
                context_sample_rate=None if context is None else self.song.sample_rate,
                description=description_of(form["stem"], form["words"]),
                duration_s=self.song.duration_s,
                cfg_coef=form["cfg_coef"],
                seed=form["seed"],
                progress=report,
            )
            seconds = time.perf_counter() - started
            report(1, 1)  # a last chance to call it off
            wav = taken(out, self.song.sample_rate)
            with self._lock:
                return self.song.add(**form, wav=wav, heard=heard, seconds=seconds)

        return work

    def _start(self, text: str, state: str, work: Any) -> None:
        with self._lock:
            if self.busy:
                raise StageLiteError(
                    f"it is still {self._job['state']} ({self._job['text']}); expected one at a "
                    "time; wait, or cancel it"
                )
            self.message, self._ended = "", (None, None)
            self._job = {"state": state, "done": 0, "total": 0, "text": text}
            self._running = Job(work, self._on_progress, self._on_end)

    def _on_progress(self, done: int, total: int) -> None:
        if self._job["state"] != "cancelling":
            self._job = self._job | {"done": done, "total": total}

    def _on_end(self, result: Any, error: BaseException | None) -> None:
        self._ended = (result, error)
        text = "Cancelled." if isinstance(error, Cancelled) else self._said(result)
        try:
            self._song = self._song_state()
            if isinstance(error, StageLiteError):
                self.message = str(error)
            elif error is not None and not isinstance(error, Cancelled):
                self.message = f"{type(error).__name__}: {error}"
                _log.error("in the background: %s", error, exc_info=error)
        finally:
            self._job = dict(IDLE) | {"text": text}

    def _said(self, take: Any) -> str:
        """One line on a new take, and on words that meant nothing to the model."""
        if not isinstance(take, Take):
            return ""
        known = getattr(getattr(self.model.config, "lm", None), "vocabulary", ())
        unknown = []
        if known:
            from stage_lite.text import split_words  # its file brings audiocraft along

            words = dict.fromkeys(split_words(take.description))
            unknown = [word for word in words if word not in known]
        text = f"Take {take.id}: {take.description}, {take.seconds:.1f} s."
        if unknown:
            name = self.model.config.name
            text += f" {name} does not know: {', '.join(unknown)}."
        return text

    def _change(self, change: Any, *, of_context: bool = False) -> Any:
        """Change the song and let the panel follow."""
        with self._lock:
            if of_context and self._job["state"] in ("generating", "cancelling"):
                raise StageLiteError(
                    "a take is being generated to the context as it is; expected the end of it "
                    "before the context changes; wait, or cancel it"
                )
            result = change(self.song)
            self.message = ""
            self._song = self._song_state()
        return result

    # --- the browser's side --------------------------------------------------------------------

    def on_generate(self, content: dict[str, Any]) -> None:
        """Generate with the settings of the form."""
        self.message = ""
        self.generate(
            content.get("stem"),
            content.get("words", ""),
            cfg_coef=content.get("cfg_coef"),
            seed=content.get("seed"),
            wait=False,
        )

    def on_cancel(self, _: dict[str, Any]) -> None:
        """Cancel was pressed."""
        self.cancel()

    def on_context(self, content: dict[str, Any]) -> None:
        """A part of a file or of a recording that the browser has decoded: int16, mono."""
        self.message = ""
        wav = samples_of(content)
        name = shown_name(content.get("name"))
        rate = content.get("rate")
        if not isinstance(rate, int):
            raise StageLiteError(
                f"{name} came with the rate {rate!r}; expected Hz; choose it again"
            )
        dropped = self._change(lambda song: song.set_context(wav, rate, name), of_context=True)
        notes = [f"{dropped} takes for another context were dropped."] if dropped else []
        if self.song.context.silent:
            notes.append(f"{name} is silent here: there is nothing to play along with.")
        self._job = dict(IDLE) | {"text": " ".join(notes)}

    def on_file(self, content: dict[str, Any]) -> None:
        """A file that the browser could not decode: try here, and give it back as samples."""
        self.message = ""
        name = shown_name(content.get("name"))
        buffers = content.get("buffers") or [b""]
        wav, rate = decode_audio(buffers[0], name)
        longest = LIMIT_BYTES // 2  # samples
        wav = prepare(wav, rate, self.song.sample_rate, name=name)[:, :longest]
        packed = pack({"clip": wav}, self.song.sample_rate)
        self.send({"kind": "decoded", "name": name, "rate": packed.sample_rate}, [packed.data])

    def on_click(self, content: dict[str, Any]) -> None:
        """Begin with a metronome."""
        self.message = ""
        self.set_click(content.get("bpm"), content.get("beats_per_bar"))

    def on_take(self, content: dict[str, Any]) -> None:
        """Keep, put back or delete a take."""
        self.message = ""
        change = {"keep": self.keep, "put_back": self.put_back, "delete": self.delete}
        action = change.get(content.get("action"))
        if action is not None:
            action(content.get("id"))

    def on_start_over(self, _: dict[str, Any]) -> None:
        """Start over was pressed."""
        self.message = ""
        self.start_over()

    def on_clip_please(self, content: dict[str, Any]) -> None:
        """The browser wants to draw and play something: "context" or the number of a take."""
        key = content.get("key")
        with self._lock:
            if str(key).startswith("context"):
                wav = None if self.song.context is None else self.song.context.wav
            else:
                found = [take.wav for take in self.song.takes if take.id == key]
                wav = found[0] if found else None
        if wav is None:
            return  # deleted in the meantime
        packed = pack({"clip": wav}, self.song.sample_rate)
        self.send({"kind": "clip", "key": key, "rate": packed.sample_rate}, [packed.data])

    def on_export(self, _: dict[str, Any]) -> None:
        """Save was pressed: make the zip in the background (beats may have to be tracked)."""
        self.message = ""

        with self._lock:
            song = self.song.snapshot()

        def work(report: Report) -> None:
            content = song_zip(song)
            if len(content) > LIMIT_BYTES:
                raise StageLiteError(
                    f"the zip has {len(content) / 1e6:.1f} MB, too much for this page; expected at "
                    f"most {LIMIT_BYTES / 1e6:g}; in a cell: accompanist.export('song.zip')"
                )
            self.send({"kind": "zip", "name": "song.zip"}, [content])

        self._start("making the zip", "exporting", work)

    def _song_state(self) -> dict[str, Any]:
        """What the panel shows; sound is asked for."""
        song = self.song
        context = song.context
        return {
            "context": None
            if context is None
            else {
                "name": context.name,
                "seconds": context.wav.shape[-1] / song.sample_rate,
                "click": context.is_click,
                "key": f"context {song.n_contexts}",
                "beats": times_of(context.beats),
                "downbeats": times_of(context.downbeats),
            },
            "takes": [
                {
                    "id": take.id,
                    "stem": take.stem,
                    "words": take.words,
                    "cfg_coef": take.cfg_coef,
                    "seed": take.seed,
                }
                for take in song.takes
            ],
            "kept": list(song.kept_ids),
        }

    # --- showing -------------------------------------------------------------------------------

    def summary(self) -> str:
        """Model, and how much there is."""
        return f"{self.model.config.name!r}, {len(self.takes)} takes, {len(self.kept)} kept"

    def twin_html(self) -> str:
        """What the song is made of, as waveforms, the takes, and the mix to listen to."""
        song, rate = self.song, self.song.sample_rate
        pictures = []
        for i, (name, wav) in enumerate(song.parts().items()):
            from_context = song.context is not None and name == song.context.name
            bars = song.context.downbeats if from_context else None
            colour = colour_of("mix" if from_context else name.partition("-")[0], i)
            picture = wave_img(wav, rate, colour, name, () if bars is None else bars)
            pictures.append(f"<p>{html.escape(name)}<br>{picture}</p>")
        mixed = song.mix()
        listen = "" if mixed is None else player(mixed, rate, "all of it together")
        rows = [
            f"take {take.id}{', kept' if take.id in song.kept_ids else ''}: {take.description}; "
            f"guidance {take.cfg_coef:g}, seed {take.seed}"
            for take in song.takes
        ]
        items = "".join(f"<li>{html.escape(row)}</li>" for row in rows or ["no takes yet"])
        name = html.escape(self.model.config.name)
        return f"<p>Model: {name}</p>{''.join(pictures)}{listen}<ul>{items}</ul>"


def _id(take: Take | int) -> int:
    return take.id if isinstance(take, Take) else take
