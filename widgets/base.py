"""What all widgets share: bytes and messages to the browser, a static twin, an end.

    class Beep(StageWidget):
        _esm, _css = bundle("beep.js"), stylesheet()

        def __init__(self, wav, sample_rate):
            audio = pack({"beep": check_wav(wav, sample_rate)}, sample_rate)
            super().__init__(label="Beep", listen_for="one tone", audio=audio)

        def summary(self):        # -> Beep(1.0 s)
            return "1.0 s"

        def twin_html(self):      # what GitHub and exported pages show
            return "<p>...</p>"

        def on_pressed(self, content):      # ui.send("pressed", {...}) in the browser
            ...

The browser's half of it is static/frame.js; README.md in this folder says how to add a widget.
Audio is sent once, when the widget is made, and forgotten by the browser's model as soon as it is
read, so that a notebook saved with its widgets' state holds none of it.
"""

from __future__ import annotations

import base64
import html
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from stage_lite.errors import StageLiteError

from .pcm import LIMIT_BYTES, Packed, pack

if TYPE_CHECKING:
    from torch import Tensor

# The browser empties its copy; what it says about this trait never counts.
_ONE_WAY = {"sync": True, "echo_update": False, "from_json": lambda _, widget: widget._pcm}
TURN_S = 2.0  # longest wait for another thread
VIEW = "application/vnd.jupyter.widget-view+json"
_NOT_OURS = ("msg", "displayed", "trait_change", "widget_constructed")  # on_... of ipywidgets


class StageWidget(anywidget.AnyWidget):
    """Base class: see the top of this file.

    Attributes:
        label: the widget's name, for screen readers too.
        listen_for: one line that says what to pay attention to.
        message: what went wrong, in one sentence; the widget shows it. "" when nothing did.
    """

    label = traitlets.Unicode().tag(sync=True)
    listen_for = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)  # about the audio, for instance a lower rate
    _sent = traitlets.Unicode().tag(sync=True)  # another word for every audio that is sent
    _pcm = traitlets.Bytes().tag(**_ONE_WAY)
    _clips = traitlets.List().tag(sync=True)
    _rate = traitlets.Int(32000).tag(sync=True)

    _place = traitlets.Unicode().tag(sync=True)  # by which a page finds the still picture of a view

    _open = False  # until all is checked

    def __init__(self, *, label: str, listen_for: str = "", **traits: Any):
        self._turn = threading.RLock()
        self._packed = Packed(b"", [], 32000, "")
        self._open = True
        # One message opens the widget, audio included.
        audio = traits.pop("audio", None)
        if audio is not None:
            self._packed = audio
            traits |= {
                "_pcm": audio.data,
                "_clips": audio.index,
                "_rate": audio.sample_rate,
                "note": " ".join(filter(None, [traits.get("note", ""), audio.note])),
            }
        place = f"stage-{uuid.uuid4().hex}"
        super().__init__(label=label, listen_for=listen_for, _place=place, **traits)
        self.on_msg(self._on_message)

    # --- audio ---------------------------------------------------------------------------------

    def send_audio(
        self, wavs: Mapping[str, Tensor], sample_rate: int, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        """Replace the audio of a widget that is shown already; see `pcm.pack`.

        For the audio it begins with, pass `audio=pack(wavs, sample_rate)` to the constructor.
        """
        self.set_audio(pack(wavs, sample_rate, limit_bytes=limit_bytes))

    def set_audio(self, packed: Packed, **traits: Any) -> None:
        """The same for audio that is packed, and other traits with it, in one message."""
        self._packed = packed
        with self._alone(), self.hold_sync():
            for name, value in traits.items():
                self.set_trait(name, value)
            self.note = packed.note
            self._rate, self._clips, self._pcm = packed.sample_rate, packed.index, packed.data

    @traitlets.observe("_pcm")
    def _name_audio(self, _: Any) -> None:
        self._sent = uuid.uuid4().hex

    def on_audio_please(self, content: dict[str, Any]) -> None:
        """The first message came without its bytes (Colab): send them again, at last as text."""
        if content.get("base64"):
            text = base64.b64encode(self._packed.data).decode("ascii")
            self.send({"kind": "audio", "base64": text})
        else:
            self.send({"kind": "audio"}, buffers=[self._packed.data])

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """The bytes go out with the first message; who asks for everything later asks for them too.

        A page that is loaded again wants the state of all widgets at once, within seconds.
        """
        state = super().get_state(key=key, drop_defaults=drop_defaults)
        if key is None and self.comm is not None and "_pcm" in state:
            state["_pcm"] = b""
        return state

    # --- one thread at a time ------------------------------------------------------------------

    # JupyterLab hands messages to the kernel in a thread of their own (a subshell). While traitlets
    # takes one over, another thread's change would go unchecked, or be told to nobody.

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Other threads wait, but not for ever: a handler may itself wait for one of them."""
        turn = self.__dict__.get("_turn")
        held = turn is not None and turn.acquire(timeout=TURN_S)
        try:
            yield
        finally:
            if held:
                turn.release()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        with self._alone():
            super().set_state(sync_data)

    def __setattr__(self, name: str, value: Any) -> None:
        if not self.has_trait(name):
            return super().__setattr__(name, value)
        with self._alone():
            try:
                super().__setattr__(name, value)
            except traitlets.TraitError as error:  # of another type
                expected = self.traits()[name].info().replace("unicode string", "text")
                raise StageLiteError(f"{name} is {value!r:.200}; expected {expected}") from error

    # --- messages ------------------------------------------------------------------------------

    def _on_message(self, _: Any, content: Any, buffers: list[Any]) -> None:
        """Call `on_<kind>` for a message of the browser; an error becomes the widget's message."""
        if not isinstance(content, dict):
            return
        handler = getattr(self, f"on_{content.get('kind')}", None)
        if not callable(handler) or content["kind"] in _NOT_OURS:
            return
        if buffers:
            content = content | {"buffers": [bytes(buffer) for buffer in buffers]}
        try:
            handler(content)
        except StageLiteError as error:
            self.message = str(error)
        except Exception as error:
            self.message = f"{type(error).__name__}: {error}"
            raise  # the log of the server keeps the traceback; the kernel lives

    # --- showing and closing -------------------------------------------------------------------

    def summary(self) -> str:
        """What stands in the brackets of the repr: the same for the same content."""
        return ""

    def twin_html(self) -> str:
        """The static picture of this widget: HTML, every text of a user escaped."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs) if self._open else None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return data | {"text/plain": repr(self), "text/html": self._twin()}, metadata

    def _ipython_display_(self, **kwargs: Any) -> None:
        """What `display` and the last line of a cell do: the still picture, then the view.

        Two outputs, because a front end that has lost a view's model (the notebook was saved, its
        kernel has ended) looks at nothing else in that output: JupyterLab writes "Error displaying
        widget: model not found". `_hide` shows either the view or the picture, never both.
        """
        from IPython.display import display

        data, metadata = self._repr_mimebundle_(**kwargs)
        if VIEW not in data:
            display(data, metadata=metadata, raw=True)
            return
        still = f'<div id="{self._place}">{_hide(self._place)}{data["text/html"]}</div>'
        display({"text/plain": data["text/plain"], "text/html": still}, raw=True)
        display(data | {"text/html": ""}, metadata=metadata, raw=True)

    def _twin(self) -> str:
        label, listen = html.escape(self.label), html.escape(self.listen_for)
        if self._open:
            inside = self.twin_html() + (f"<p><em>Listen for:</em> {listen}</p>" if listen else "")
            end = "A still picture of a widget. Run its cell to use it."
        else:
            inside, end = "", "This widget was closed."
        return (
            f'<section class="stage-twin" aria-label="{label}"><p><strong>{label}</strong></p>'
            f"{inside}<p><small>{end}</small></p></section>"
        )

    def close(self) -> None:
        """Stop the sound, free the audio here and in the browser, remove the widget."""
        if self._open:
            self._open = False
            self._packed = Packed(b"", [], 32000, "")
            self.send({"kind": "close"})
        super().close()
        self.set_trait("_pcm", b"")
        self.__dict__.pop("_repr_mimebundle_", None)  # ipywidgets puts None there


def _hide(place: str) -> str:
    """CSS: no still picture where its view is alive, no error box where the picture stands.

    For 2 s, in which a view is usually built, JupyterLab shows its "Loading widget..." alone. A
    page that takes no styles, or a browser that does not know `:has`, shows picture and view.
    """
    row, out = ".jp-OutputArea-child", ".jp-OutputArea-output"
    view = f"{out}:not([data-mime-type])"  # by a renderer that is not JupyterLab's own
    lost = f"{out}.jupyter-widgets"  # how ipywidgets marks a view whose model is gone
    return (
        f"<style>body:has([data-stage-place={place}]) #{place},"
        f"{row}:has(#{place}) + {row}:has(> {lost}){{display:none}}"
        f"{row}:has(#{place}):has(+ {row} > {view}:not(.jupyter-widgets))"
        "{animation:stage-wait 2s steps(1,end)}"
        "@keyframes stage-wait{from,to{max-height:0;overflow:hidden;visibility:hidden}}</style>"
    )
