"""One HTML page that holds everything it shows: no network, no files beside it.

Parts are words (a paragraph each), or anything with the `_repr_html_` that notebooks use.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# The browser itself is told to load nothing from anywhere.
POLICY = (
    "default-src 'none'; img-src data:; media-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1b1b; --paper: #fdfdfb; --line: #8a8a8a; --link: #0058a3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --paper: #17191c; --line: #8a8a8a; --link: #7cc4ff; }
}
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 58rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 1rem; }
audio:focus-visible, a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
a { color: var(--link); } img { border-radius: 4px; padding: 4px; box-sizing: border-box; }
table { border-collapse: collapse; } caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: right; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; } code { overflow-wrap: anywhere; }
"""
# Two players at once are noise: starting one stops the others.
SCRIPT = """
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);
"""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    parts: Sequence[Any]


@dataclass(frozen=True)
class Table:
    """Rows of words under column names; the first column names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in self.columns)
        body = ""
        for name, *cells in self.rows:
            row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            body += f'<tr><th scope="row">{html.escape(name)}</th>{row}</tr>'
        return (
            f"<table><caption>{html.escape(self.caption)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def __str__(self) -> str:
        """The same for a terminal."""
        rows = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        return "\n".join([self.caption, *(f"  {line}" for line in lines)])


@dataclass(frozen=True)
class Code:
    """A line to type."""

    text: str

    def _repr_html_(self) -> str:
        return f"<pre><code>{html.escape(self.text)}</code></pre>"


@dataclass(frozen=True, repr=False)
class Frame:
    """A whole page inside a cell of a notebook, apart from the notebook's own style."""

    document: str  # of `page`
    title: str  # said by a screen reader
    height: str = "56em"

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="{html.escape(self.title)}" srcdoc="{html.escape(self.document)}" '
            f'style="width:100%;height:{html.escape(self.height)};border:1px solid #888"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Frame({self.title!r}, a page of {len(self.document)} characters)"


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """The whole document; words are escaped, parts bring their own HTML."""
    body = "".join(
        f"<section><h2>{html.escape(section.heading)}</h2>"
        f"{''.join(_part(part) for part in section.parts)}</section>\n"
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(introduction)}</p>\n{body}"
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _part(part: Any) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    return part._repr_html_()
