"""A blind listening test on the screen: pages of two clips, or sheets of sliders by a reference.

The face of stage_lite/listening_test.py, which makes the clips and the plan. The browser is given
the sound of one page at a time, clips of one length as "1", "2", ... in the order of the plan: no
name of a system, item or file, and no waveform, in which an anchor could be seen. Every clip has a
dither of its own, so that the hidden reference differs from the open one in its bytes.

Each answer is written to a CSV file at once; a widget made again goes on where that file ends.

Notebook: 07_evaluation.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile
import torch
import traitlets
from jaxtyping import Float
from torch import Tensor

from stage_lite.audio import load_audio, resample
from stage_lite.errors import StageLiteError
from stage_lite.listening_answers import (
    answer_columns,
    append_answer,
    read_answers,
    unanswered,
)
from stage_lite.listening_plan import Trial
from stage_lite.listening_test import ListeningItem, load_listening_test, write_listening_test
from stage_lite.listening_test import ListeningTest as WrittenTest

from .base import StageWidget
from .esm import bundle, stylesheet
from .pcm import LIMIT_BYTES, Packed, pack

if TYPE_CHECKING:
    from pandas import DataFrame

LOWEST_RATE = 24_000  # Hz; below, the reference itself would lose what a listener can hear
NAMES = {"reference": "Reference", "context": "Music alone"}
TWIN_BYTES = 30_000  # of all players of the static twin
TWIN_BYTES_PER_S = 3_000  # 24 kbit/s
TWIN_S = 4.0  # the longest of a clip
TWIN_HZ = 16_000
TWIN_LEVEL = 0.9  # soundfile's scale; at this rate it is 24 kbit/s
MAX_LISTENERS = 1000  # of a test that is written here
MAX_ON_PAGE = 12  # clips that a listener can hold apart; BS.1534-3 has as many


class ListeningTest(StageWidget):
    """A listening test for one listener.

        ListeningTest("my_test", listener=3)      # a folder of write_listening_test
        ListeningTest(items, folder="my_test", form="sheets", reference="real")

    Args:
        test: the folder of a test, what `load_listening_test` returns, or what the test is made
            of: a list of ListeningItem, or {item: {system: (wav, sample_rate)}}.
        listener: from 1; each hears a plan of their own.
        folder: where a test is written that is given as items; if it is there already, its clips
            are used and the test goes on.
        answers: the CSV file of this listener; None is `answers/listener-01.csv` in the folder.
        options: of `write_listening_test`: form ("pairs" or "sheets"), pairs, reference, anchor,
            trials_per_listener, seed, ...

    Attributes:
        trial: the page that is shown; None when all are answered. What its clips are is not in it.
        answers_file: the CSV file.

    Raises:
        StageLiteError: no such test or listener, a file of answers that belongs to another test,
            too many or too long clips for one page.
    """

    _esm, _css = bundle("listening.js"), stylesheet("listening.css")

    _page = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        test: str | Path | WrittenTest | Sequence[ListeningItem] | Mapping[str, Mapping[str, Any]],
        listener: int = 1,
        *,
        folder: str | Path | None = None,
        answers: str | Path | None = None,
        **options: Any,
    ):
        if not isinstance(test, str | Path | WrittenTest):
            test = _from_items(test, listener, folder, options)
        elif folder is not None or options:
            raise StageLiteError(
                f"{', '.join(['folder'] * (folder is not None) + list(options))} came with a test "
                "that is written already; expected them only beside items"
            )
        folder = test.folder if isinstance(test, WrittenTest) else Path(test)
        self._test = load_listening_test(folder, blind=True)
        self._with_key = test if isinstance(test, WrittenTest) else None
        self.listener = listener
        pages = self._test.pages(listener)
        _check_count(max(len(trial.stimuli) for trial in pages))
        default = folder / "answers" / f"listener-{listener:02d}.csv"
        self.answers_file = default if answers is None else Path(answers)
        self._left = unanswered(self._test, listener, self.answers_file)
        self.n_pages = len(pages)
        super().__init__(
            label="Listening test",
            listen_for="beat, notes and feel against the music; all clips are equally loud",
            audio=self._audio(),
            _page=self._page_state(),
        )

    # --- what a listener has said --------------------------------------------------------------

    @property
    def trial(self) -> Trial | None:
        """The page that is shown."""
        return self._left[0] if self._left else None

    @property
    def n_left(self) -> int:
        """Pages without an answer."""
        return len(self._left)

    @property
    def answers(self) -> DataFrame:
        """The answers so far as they were given, still blind: a row a page, as in the CSV file."""
        import pandas as pd

        if not self.answers_file.exists():
            return pd.DataFrame(columns=answer_columns(self._test))
        unanswered(self._test, self.listener, self.answers_file)  # every cell is checked
        return pd.read_csv(self.answers_file, dtype={"trial": str})

    def results(self, key_file: str | Path | None = None) -> DataFrame:
        """The answers with what was heard; ends the blindness of whoever looks at it.

        Args:
            key_file: where the organiser keeps the key; None is `key.json` in the test's folder.

        Returns:
            As `stage_lite.listening_answers.read_answers`.
        """
        test = self._with_key
        if key_file is not None or test is None or test.trials[0].item is None:
            test = load_listening_test(self._test.folder, key_file=key_file)
        return read_answers(self.answers_file, test)

    def answer(self, answer: str | Sequence[float], seconds: float = 0.0) -> None:
        """Answer the page that is shown, and go to the next.

        Args:
            answer: "left" or "right", or a number from 0 to 100 for each slider.
            seconds: that it took.

        Raises:
            StageLiteError: nothing left to answer, or no answer to this page; nothing is written.
        """
        if self.trial is None:
            raise StageLiteError("all pages are answered; expected no more answers")
        self._check_answer(answer)
        try:
            append_answer(self.answers_file, self._test, self.trial.id, answer, seconds)
        except OSError as error:
            raise StageLiteError(
                f"the answer could not be written to {self.answers_file} ({error.strerror}); "
                "mend that and press Next again; nothing is lost"
            ) from None
        self._show_next()

    def _check_answer(self, answer: Any) -> None:
        if self._test.form == "pairs":
            if answer not in ("left", "right"):
                raise StageLiteError(f"the answer is {answer!r}; expected 'left' or 'right'")
            return
        wanted = len(self.trial.stimuli)
        numbers = (
            isinstance(answer, Sequence)
            and not isinstance(answer, str)
            and len(answer) == wanted
            and all(isinstance(value, int | float) and 0 <= value <= 100 for value in answer)
        )
        if not numbers:
            raise StageLiteError(f"the answer is {answer!r}; expected {wanted} numbers, 0 to 100")

    # --- the browser's side --------------------------------------------------------------------

    def on_answer(self, content: dict[str, Any]) -> None:
        """A page was answered in the browser."""
        self.message = ""  # a sentence that comes a second time is news too
        if self.trial is None or content.get("trial") != self.trial.id:
            return  # of a second view, or sent twice: the page is answered already
        seconds = content.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            seconds = 0.0
        self.answer(content.get("answer"), round(float(seconds), 2))

    def _show_next(self) -> None:
        self._left = self._left[1:]
        self.set_audio(self._audio(), _page=self._page_state())

    def _page_state(self) -> dict[str, Any]:
        """What the browser is told about a page; see the top of the file."""
        state = {"form": self._test.form, "question": self._test.question, "of": self.n_pages}
        state["number"] = self.n_pages - self.n_left + 1
        if self.trial is None:
            return state | {"done": True, "file": self.answers_file.name}
        return state | {
            "done": False,
            "trial": self.trial.id,
            "count": len(self.trial.stimuli),
            "reference": self.trial.reference is not None,
            "context": self.trial.context is not None,
        }

    def _audio(self) -> Packed:
        """The clips of the page, one after the other, each with a dither of its own."""
        trial = self.trial
        if trial is None:
            return pack({}, self._test.sample_rate)
        files = {str(i): file for i, file in enumerate(trial.stimuli, start=1)}
        files |= {"reference": trial.reference, "context": trial.context}
        wavs: dict[str, Tensor] = {}
        for name, file in files.items():
            if file is not None:
                wavs[f"{trial.id}/{name}"] = _dithered(load_audio(file)[0])
        packed = pack(wavs, self._test.sample_rate)
        if packed.sample_rate < min(self._test.sample_rate, LOWEST_RATE):
            seconds = sum(wav.shape[-1] for wav in wavs.values()) / self._test.sample_rate
            raise StageLiteError(
                f"the {len(wavs)} clips of page {trial.id} last {seconds:.0f} s together; expected "
                f"at most {LIMIT_BYTES / 2 / LOWEST_RATE:.0f} s; use fewer systems or shorter clips"
            )
        return packed

    # --- showing -------------------------------------------------------------------------------

    def summary(self) -> str:
        """Form, listener and how far it is."""
        done = self.n_pages - self.n_left
        return f"{self._test.form}, listener {self.listener}, {done} of {self.n_pages} pages"

    def twin_html(self) -> str:
        """Question, progress as a picture, and the beginning of each clip of the page."""
        done, width = self.n_pages - self.n_left, 300
        filled = round(width * done / self.n_pages)
        words = f"{done} of {self.n_pages} pages answered"
        return (
            f"<p>{html.escape(self._test.question)}</p>"
            f'<svg role="img" aria-label="{words}" viewBox="0 0 {width} 14" width="{width}" '
            f'height="14"><rect width="{width}" height="14" fill="#bbbbbb"/>'
            f'<rect width="{filled}" height="14" fill="#0072b2"/></svg>'
            f"<p>Listener {self.listener}: {words}.</p>{self._players()}"
        )

    def _players(self) -> str:
        """A player a clip. All files have one size: of a constant rate, and cut alike."""
        if not self._packed.index:
            return ""
        clips = {e["name"].partition("/")[2]: e["name"] for e in self._packed.index}
        seconds = min(TWIN_BYTES / TWIN_BYTES_PER_S / len(clips), TWIN_S)
        players = []
        for name, key in clips.items():
            wav = torch.from_numpy(self._packed.clip(key))
            whole_s = wav.shape[-1] / self._packed.sample_rate
            part = wav[:, : int(seconds * self._packed.sample_rate)]
            data = base64.b64encode(_mp3(part, self._packed.sample_rate)).decode("ascii")
            text = f"Clip {name}" if name.isdecimal() else NAMES[name]
            shown = f"{text}, the first {min(seconds, whole_s):.1f} of {whole_s:.1f} s"
            players.append(
                f'<p>{shown}<br><audio controls preload="metadata" aria-label="{shown}" '
                f'src="data:audio/mpeg;base64,{data}"></audio></p>'
            )
        return "".join(players)


def _mp3(wav: Float[Tensor, "1 L"], sample_rate: int) -> bytes:
    """MP3 of a constant bit rate: its size hangs on the length alone."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", TWIN_HZ, 1, "MPEG_LAYER_III", format="MP3",
        bitrate_mode="CONSTANT", compression_level=TWIN_LEVEL,
    ) as file:  # fmt: skip
        file.write(resample(wav, sample_rate, TWIN_HZ)[0].numpy())
    return buffer.getvalue()


def _check_count(most: int) -> None:
    if most > MAX_ON_PAGE:
        raise StageLiteError(
            f"a page has {most} clips to rate; expected at most {MAX_ON_PAGE}, which a listener "
            "can hold apart; choose systems, or use form='pairs'"
        )


def _dithered(wav: Tensor) -> Tensor:
    """Triangular noise of one 16-bit step: drawn anew each time, at -96 dBFS."""
    generator = torch.Generator()  # of its own: the reader's random numbers stay as they are
    generator.seed()
    first, second = torch.rand(2, *wav.shape, generator=generator)
    return (wav + (first - second) / 32768).clamp(-1.0, 1.0)


def _from_items(
    items: Sequence[ListeningItem] | Mapping[str, Mapping[str, Any]],
    listener: int,
    folder: str | Path | None,
    options: dict[str, Any],
) -> WrittenTest:
    """Write the test, or go on with the one that is there if it is of these items and systems."""
    if isinstance(items, Mapping):
        for name, clips in items.items():
            if not isinstance(clips, Mapping):
                raise StageLiteError(
                    f"item {name!r} is a {type(clips).__name__}; expected {{system: (wav, "
                    "sample_rate)}"
                )
        items = [ListeningItem(str(name), clips) for name, clips in items.items()]
    if not isinstance(items, Sequence) or not all(isinstance(i, ListeningItem) for i in items):
        raise StageLiteError(
            f"test is a {type(items).__name__}; expected the folder of a test, a list of "
            "ListeningItem, or {item: {system: (wav, sample_rate)}}"
        )
    if folder is None:
        raise StageLiteError(
            "a test of items came without a folder; expected folder='my_test', where clips and "
            "answers are kept so that the test can go on another day"
        )
    folder = Path(folder)
    if not isinstance(listener, int) or not 1 <= listener <= MAX_LISTENERS:
        raise StageLiteError(
            f"listener is {listener!r}; expected a whole number, 1 to {MAX_LISTENERS}"
        )
    if not (folder / "trials.json").is_file():
        if options.get("form") == "sheets":
            _check_count(max((len(item.clips) for item in items), default=0))
        options = {"n_listeners": max(20, listener)} | options
        try:
            return write_listening_test(folder, items, **options)
        except OSError as error:
            raise StageLiteError(
                f"the test could not be written to {folder} ({error.strerror}); expected a place "
                "where files may be made; choose another folder"
            ) from error
    test = load_listening_test(folder)
    there = (test.form, {trial.item for trial in test.trials})
    asked = (options.get("form", "pairs"), {item.id for item in items})
    systems = {system for trial in test.trials for system in trial.systems} - {test.anchor}
    other = sorted(systems - {system for item in items for system in item.clips})
    if there[0] != asked[0] or not there[1] <= asked[1] or other:
        raise StageLiteError(
            f"{folder} holds another test: form {there[0]!r} with items {sorted(there[1])}; "
            f"expected {asked[0]!r} with {sorted(asked[1])}; choose another folder"
        )
    if "seed" in options and options["seed"] != test.seed:
        raise StageLiteError(
            f"{folder} holds a test of seed {test.seed}; expected {options['seed']}; choose "
            "another folder"
        )
    return test


__all__ = ["ListeningTest"]
