"""A widget on a blank page, without Jupyter: its real JavaScript, its real Python, a short wire.

    there = mount(page, StemMixer(...))             # page: the fixture of browser.py
    there.root.get_by_role("button", name="Play").click()
    there.wait(lambda: there.widget.playing)        # what the browser said has reached Python

The wire behaves as a front end does: bytes arrive as DataView (JupyterLab), Uint8Array (Colab) or
ArrayBuffer, or are lost from the first message and, if asked for, from all.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from browser import PATIENCE_S

LIGHT = {"--jp-ui-font-color1": "#212121", "--jp-layout-color1": "#fff"}
DARK = {  # JupyterLab Dark's
    "--jp-ui-font-color1": "rgba(255,255,255,0.87)",
    "--jp-ui-font-color2": "rgba(255,255,255,0.54)",
    "--jp-layout-color1": "#111",
    "--jp-layout-color2": "#424242",
    "--jp-border-color1": "#616161",
}

WIRE = (Path(__file__).parent / "js" / "wire.js").read_text("utf-8")


class Mounted:
    """A widget on a page.

    Attributes:
        widget: the Python side.
        root: playwright's locator of the browser's side.
        sent: every content that the browser sent, in order.
    """

    def __init__(self, page: Any, widget: Any, how: str, lose: str, width: int, dark: bool):
        self.page, self.widget, self.how, self.lose = page, widget, how, lose
        self.sent: list[dict] = []
        self._news: list[tuple[dict, list[bytes]]] = []
        self.id = f"w{widget.model_id}"
        widget.comm.publish_msg = self._from_python
        state = {
            k: _code(v)
            for k, v in widget.get_state(list(widget.keys)).items()
            if not k.startswith("_view")
        }
        state = {k: v for k, v in state.items() if _plain(v)}
        if lose:
            state = {k: v for k, v in state.items() if not _is_bytes(v)}
        theme = DARK if dark else LIGHT
        page.goto("about:blank") if page.url != "about:blank" else None
        page.evaluate(
            "([theme, width]) => { for (const [k, v] of Object.entries(theme)) "
            "document.documentElement.style.setProperty(k, v); document.body.style.cssText = "
            "`margin:8px;width:${width}px;background:${theme['--jp-layout-color1']}`; "
            "document.documentElement.lang = 'en'; document.title = 'widget'; }",
            [theme, width],
        )
        page.evaluate(
            WIRE,
            {"state": state, "esm": widget._esm, "css": widget._css, "how": how, "id": self.id},
        )
        self.root = page.locator(f"#{self.id} .stage-widget")

    def ready(self) -> Mounted:
        """Wait until it is built."""
        self.wait(lambda: self.root.get_attribute("data-ready") is not None)
        return self

    def sync(self) -> None:
        """Carry what was said on both sides to the other."""
        out = self.page.evaluate("id => window.stage[id].model.out.splice(0)", self.id)
        for message in out:
            if "state" in message:
                self.widget.set_state(message["state"])
            else:
                self.sent.append(message["content"])
                buffers = [base64.b64decode(text) for text in message["buffers"]]
                self.widget._handle_custom_msg(message["content"], buffers)
        news, self._news = self._news, []
        for data, buffers in news:
            if data["method"] in ("update", "echo_update"):
                state = dict(data["state"])
                for path, buffer in zip(data.get("buffer_paths", []), buffers, strict=False):
                    state[path[0]] = {"__bytes": base64.b64encode(buffer).decode()}
                self.page.evaluate(
                    "([id, state]) => window.stage[id].model.update(state)", [self.id, state]
                )
            elif data["method"] == "custom":
                kept = [] if self.lose == "all" else buffers
                coded = [base64.b64encode(buffer).decode() for buffer in kept]
                self.page.evaluate(
                    "([id, content, buffers]) => window.stage[id].model.receive(content, buffers)",
                    [self.id, data["content"], coded],
                )

    def wait(self, true: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
        """Carry messages until something is true."""
        until = time.monotonic() + timeout_s
        while True:
            self.sync()
            if true():
                return
            assert time.monotonic() < until, f"it did not come true; status: {self.status()!r}"
            self.page.wait_for_timeout(20)

    def status(self) -> str:
        """The sentence in the status line."""
        return self.root.locator(".stage-status").inner_text()

    def clean(self) -> None:
        """What a front end does when the view goes away."""
        self.page.evaluate("id => window.stage[id].clean()", self.id)

    def _from_python(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers=None, **_
    ):
        if msg_type == "comm_msg" and data:
            self._news.append((data, [bytes(b) for b in buffers or []]))


def mount(
    page: Any,
    widget: Any,
    how: str = "DataView",
    *,
    lose: str = "",
    width: int = 860,
    dark: bool = False,
) -> Mounted:
    """Show a widget on a page.

    Args:
        how: what bytes arrive as: "DataView", "Uint8Array" or "ArrayBuffer".
        lose: "first" loses the bytes of the first message, "all" those of all messages.
        width: of the page's body, CSS pixels.
    """
    return Mounted(page, widget, how, lose, width, dark)


def _code(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"__bytes": base64.b64encode(bytes(value)).decode()}
    return value


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and "__bytes" in value


def _plain(value: Any) -> bool:
    return not isinstance(value, str) or not value.startswith("IPY_MODEL_")
