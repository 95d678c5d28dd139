"""MetronomePad: a tempo by hand, by tapping or as a curve; hear it, and let a model play to it.

    pad = MetronomePad(bpm=112, duration_s=8, generate=model.generate,
                       options={"description": "drums, rock", "seed": 0})
    pad.beats, pad.downbeats        # seconds
    pad.click(model.sample_rate)    # Float[1, L], what stands in a prefix
    pad.result                      # what the last "generate on this click" returned

Swing moves the off-beats only: beats and downbeats, and with them the click that a model hears,
stay where the tempo puts them.

Notebook: 05_metronome.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets
from jaxtyping import Float
from numpy import ndarray

from stage_lite.errors import StageLiteError

from .base import StageWidget
from .esm import bundle, stylesheet
from .job import Cancelled, Job, Report
from .pcm import Packed, pack
from .stem_input import check_name, is_number
from .twin import player, wave_img

if TYPE_CHECKING:
    from torch import Tensor

BPM = (20.0, 400.0)
BEATS_PER_BAR = (1, 16)
SWING = (0.5, 0.75)  # where an off-beat stands between two beats
DURATION_S = (0.5, 120.0)
MAX_POINTS = 200  # of a tempo curve
OFFBEAT_LEVEL = 0.25  # of a beat's click
CLICK_BLUE = "#0072B2"
LISTEN = "Is the first beat of each bar the loud one? Does the tempo turn where you drew it?"


class MetronomePad(StageWidget):
    """A click to hear, to change and to generate on.

    Args:
        bpm: 20 to 400 beats a minute.
        beats_per_bar: the metre, 1 to 16: 4 for 4/4, 3 for 3/4.
        duration_s: of the click, 0.5 to 120 s.
        swing: 0.5 is straight, 0.667 a triplet feel; where off-beats stand between two beats.
        offbeats: hear the off-beats too, at a quarter of the level.
        start_s: time of one downbeat; beats before it are counted backwards.
        curve: [(time_s, bpm), ...] instead of one tempo.
        generate: called as `generate(context=click, context_sample_rate=..., duration_s=...,
            description=..., progress=...)` with those of these that it takes, for example
            `model.generate`. It runs in a thread; `progress(done, in_all)` shows how far it is and
            stops it after a cancel.
        options: more arguments for `generate`.
        sample_rate: Hz, of the click that is generated on.
        on_result: called with what `generate` returned.

    Attributes:
        result: what `generate` returned last; None at first.
        busy: is it generating?
        progress: of it, 0 to 1.

    Raises:
        StageLiteError: a number out of its range, a curve that does not increase in time.

    Notebook: 05_metronome.
    """

    _esm, _css = bundle("metronome.js"), stylesheet("metronome.css")

    bpm = traitlets.Float(112.0).tag(sync=True)
    beats_per_bar = traitlets.Int(4).tag(sync=True)
    duration_s = traitlets.Float(8.0).tag(sync=True)
    swing = traitlets.Float(0.5).tag(sync=True)
    offbeats = traitlets.Bool(False).tag(sync=True)
    start_s = traitlets.Float(0.0).tag(sync=True)
    curve = traitlets.List().tag(sync=True)
    description = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    _job: Job | None = None
    _can_generate = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        bpm: float = 112.0,
        beats_per_bar: int = 4,
        duration_s: float = 8.0,
        *,
        swing: float = 0.5,
        offbeats: bool = False,
        start_s: float = 0.0,
        curve: Sequence[tuple[float, float]] = (),
        generate: Callable[..., Any] | None = None,
        options: Mapping[str, Any] | None = None,
        sample_rate: int = 32000,
        on_result: Callable[[Any], None] | None = None,
        label: str = "Metronome",
        listen_for: str = LISTEN,
    ):
        check_name(label, "the widget")
        if generate is not None and not callable(generate):
            raise StageLiteError(
                f"generate is a {type(generate).__name__}; expected a function, for instance "
                "model.generate"
            )
        if on_result is not None and not callable(on_result):
            raise StageLiteError(
                f"on_result is a {type(on_result).__name__}; expected a function of the result"
            )
        if not isinstance(options, Mapping | None):
            raise StageLiteError(
                f"options is a {type(options).__name__}; expected more arguments of generate by "
                "name: {'seed': 0}"
            )
        self._generate, self._on_result = generate, on_result
        self._options = dict(options or {})
        self.sample_rate, self.result = _rate(sample_rate), None
        self._heard: Tensor | None = None
        super().__init__(
            label=label,
            listen_for=listen_for,
            bpm=_number(bpm, "bpm", BPM),
            beats_per_bar=_whole(beats_per_bar),
            duration_s=_number(duration_s, "duration_s", DURATION_S),
            swing=_number(swing, "swing", SWING),
            offbeats=bool(offbeats),
            start_s=start_s,
            curve=check_curve([] if curve is None else curve),
            description=str(self._options.pop("description", "") or ""),
            _can_generate=generate is not None,
            _rate=self.sample_rate,
        )

    # --- what it says --------------------------------------------------------------------------

    @property
    def beats(self) -> Float[ndarray, "n"]:
        """Beat times in seconds, in [0, duration_s)."""
        return self._grid()[0]

    @property
    def downbeats(self) -> Float[ndarray, "m"]:
        """Times of the first beat of each bar."""
        return self._grid()[1]

    @property
    def offbeat_times(self) -> Float[ndarray, "k"]:
        """Between each two beats, at `swing` of the way."""
        beats = self.beats
        return beats[:-1] + self.swing * np.diff(beats)

    def click(self, sample_rate: int | None = None) -> Float[Tensor, "1 L"]:
        """The click track, Float[1, L]; with soft off-beats if `offbeats` is on."""
        from stage_lite.metronome import click_track

        rate = self.sample_rate if sample_rate is None else _rate(sample_rate)
        beats, downbeats = self._grid()
        track = click_track(beats, downbeats, duration_s=self.duration_s, sample_rate=rate)
        if self.offbeats:
            soft = click_track(self.offbeat_times, duration_s=self.duration_s, sample_rate=rate)
            track = (track + OFFBEAT_LEVEL * soft).clamp(-1.0, 1.0)
        return track

    def _grid(self) -> tuple[ndarray, ndarray]:
        from stage_lite.metronome import beat_grid

        tempo = [tuple(point) for point in self.curve] or self.bpm
        return beat_grid(
            tempo, self.beats_per_bar, duration_s=self.duration_s, start_s=self.start_s
        )

    # --- generating ----------------------------------------------------------------------------

    def generate_now(self) -> None:
        """What the button does: start generating on this click. Returns at once.

        Raises:
            StageLiteError: nothing to generate with, one is running, or a click without a beat.
        """
        if self._generate is None:
            raise StageLiteError(
                "nothing to generate with; expected MetronomePad(generate=model.generate)"
            )
        if self.busy:
            raise StageLiteError("it is generating already; wait for it or cancel it")
        if not len(self.beats):
            raise StageLiteError(
                f"there is no beat in {self.duration_s:g} s at this tempo; raise the tempo or "
                "the duration"
            )
        click, arguments = self.click(), dict(self._options)
        arguments |= {
            "context": click,
            "context_sample_rate": self.sample_rate,
            "duration_s": self.duration_s,
            "description": self.description or None,
        }
        self.message, self.progress, self.busy = "", 0.0, True

        def work(report: Report) -> Any:
            return self._generate(
                **_taken(self._generate, {**arguments, "progress": report}, set(self._options))
            )

        self._job = Job(work, self._on_progress, self._on_end)

    def cancel(self) -> None:
        """Stop generating at its next step."""
        if self._job is not None:
            self._job.cancel()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of generating; False if it has not come in time."""
        return self._job is None or self._job.wait(timeout_s)

    def on_generate(self, _: dict[str, Any]) -> None:
        """The button was pressed."""
        self.message = ""
        self.generate_now()

    def on_cancel(self, _: dict[str, Any]) -> None:
        """The other button was pressed."""
        self.cancel()

    def _on_progress(self, done: int, in_all: int) -> None:
        self.progress = min(1.0, done / max(1, in_all))

    def _on_end(self, result: Any, error: BaseException | None) -> None:
        try:
            if error is None:
                self.result = result
                packed, self._heard = _result_audio(result)
                self.set_audio(packed, progress=1.0)
                if self._on_result is not None:
                    self._on_result(result)
            elif isinstance(error, Cancelled):
                self.message = "Cancelled."
            else:
                self.message = _sentence(error)
        except Exception as unusable:
            self.message = _sentence(unusable)
        finally:
            self.busy = False

    # --- checks --------------------------------------------------------------------------------

    @traitlets.validate("bpm")
    def _check_bpm(self, proposal: Any) -> float:
        return _number(proposal["value"], "bpm", BPM)

    @traitlets.validate("duration_s")
    def _check_duration(self, proposal: Any) -> float:
        return _number(proposal["value"], "duration_s", DURATION_S)

    @traitlets.validate("swing")
    def _check_swing(self, proposal: Any) -> float:
        return _number(proposal["value"], "swing", SWING)

    @traitlets.validate("start_s")
    def _check_start(self, proposal: Any) -> float:
        return _number(proposal["value"], "start_s", (-DURATION_S[1], DURATION_S[1]))

    @traitlets.validate("beats_per_bar")
    def _check_metre(self, proposal: Any) -> int:
        return _whole(proposal["value"])

    @traitlets.validate("curve")
    def _check_curve(self, proposal: Any) -> list[list[float]]:
        return check_curve(proposal["value"])

    # --- standing still ------------------------------------------------------------------------

    def summary(self) -> str:
        tempi = [bpm for _, bpm in self.curve] or [self.bpm]
        tempo = f"{min(tempi):g}" + (f" to {max(tempi):g}" if max(tempi) > min(tempi) else "")
        return f"{tempo} bpm, {self.beats_per_bar} beats a bar, {self.duration_s:g} s"

    def twin_html(self) -> str:
        click = self.click()
        picture = wave_img(click, self.sample_rate, CLICK_BLUE, "the click", self.downbeats)
        html = f"<p>{self.summary()}</p>{picture}" + player(click, self.sample_rate, "The click")
        if self._heard is not None:
            html += player(self._heard, self._packed.sample_rate, "Generated on it")
        return html

    def close(self) -> None:
        self.cancel()
        super().close()


def check_curve(points: Any) -> list[list[float]]:
    """A tempo curve as [[time_s, bpm], ...]; empty for none.

    Raises:
        StageLiteError: no list of pairs, too many, times that do not increase, a wrong tempo.
    """
    from stage_lite.metronome import check_times

    try:
        pairs = [(float(time), float(bpm)) for time, bpm in points]
    except (TypeError, ValueError):
        raise StageLiteError(
            f"curve is {points!r}; expected a list of (time_s, bpm), empty for one tempo"
        ) from None
    if len(pairs) > MAX_POINTS:
        raise StageLiteError(f"curve has {len(pairs)} points; expected at most {MAX_POINTS}")
    check_times([time for time, _ in pairs], "times of the curve")
    return [[time, _number(bpm, "a tempo of the curve", BPM)] for time, bpm in pairs]


def _number(value: Any, name: str, limits: tuple[float, float]) -> float:
    lowest, highest = limits
    if not is_number(value) or not lowest <= value <= highest:
        raise StageLiteError(f"{name} is {value!r}; expected {lowest:g} to {highest:g}")
    return float(value)


def _rate(value: Any) -> int:
    lowest, highest = 1000, 192_000
    if not is_number(value) or value != int(value) or not lowest <= value <= highest:
        raise StageLiteError(
            f"the sample rate is {value!r}; expected a whole number of Hz, {lowest} to {highest}"
        )
    return int(value)


def _whole(value: Any) -> int:
    lowest, highest = BEATS_PER_BAR
    whole = isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not lowest <= value <= highest:
        raise StageLiteError(
            f"beats_per_bar is {value!r}; expected a whole number, {lowest} to {highest}"
        )
    return int(value)


def _taken(function: Callable[..., Any], arguments: dict[str, Any], asked: set[str]) -> dict:
    """Those arguments that a function takes; what a user asked for by name is always kept."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return arguments
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return arguments
    names = {p.name for p in parameters} | asked
    return {name: value for name, value in arguments.items() if name in names}


def _result_audio(result: Any) -> tuple[Packed, Tensor]:
    """The audio of a Generation, of (wav, sample_rate), packed under "result"."""
    from .stem_input import read_clip

    wav, rate = getattr(result, "wav", None), getattr(result, "sample_rate", None)
    if wav is None and isinstance(result, tuple) and len(result) == 2:
        wav, rate = result
    if wav is None or rate is None:
        raise StageLiteError(
            f"generate returned a {type(result).__name__}; expected a Generation or "
            "(wav, sample_rate)"
        )
    wav = wav[0] if getattr(wav, "ndim", 0) == 3 else wav
    checked, rate = read_clip(wav, rate, "what generate returned")
    return pack({"result": checked}, rate), checked


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, StageLiteError) else f"{type(error).__name__}: {error}"
