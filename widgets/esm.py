"""One ES module per widget, made of shared files when the widget's class is imported.

anywidget takes one string of JavaScript. The files in static/ are ordinary ES modules, which node
tests import as they are; `bundle` joins a widget's file with the files that it imports. Each file
keeps a scope of its own, so that two files may use the same name:

    const m0 = (() => { ...palette.js...; return { palette }; })();
    const m1 = (() => { const { palette } = m0; ...wave.js...; return { drawWave }; })();
    const { drawWave } = m1; ...mixer.js...; export default { render };

What a shared file may say: `import { a, b } from "./file.js";` and `export` before a function, a
class or a const. Comments and indents are left out of the result.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"
LIMIT_BYTES = 40_000  # of one widget's JavaScript

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(
    r"^export (?=(?:async )?function\*? (\w+)|class (\w+)|const (\w+))", re.MULTILINE
)
_INDENT = re.compile(r"^ +", re.MULTILINE)  # no text of ours runs over two lines
_REMARK = re.compile(r"(?<=[;{},)]) +// [^\"'`\n]*$", re.MULTILINE)  # at the end of a line
_COMMENT = re.compile(r"^ *(?://.*|/\*\*.*\*/)\n|^ */\*\*(?:.|\n)*?\*/\n|^\n", re.MULTILINE)


@functools.cache
def bundle(name: str) -> str:
    """The widget's JavaScript in one piece, as long as all its files together.

    Args:
        name: of the widget's file in static/, for instance "mixer.js".

    Raises:
        ValueError: a file imports or exports in a way that is not joined here, or two files import
            each other; names the file.
    """
    done: dict[str, str] = {}  # file -> its name in the bundle
    parts: list[str] = []
    text = _resolve(name, done, parts, ())
    return _INDENT.sub("", _REMARK.sub("", "".join([*parts, text])))


@functools.cache
def stylesheet(*names: str) -> str:
    """The shared style and then the named ones, for instance stylesheet("mixer.css")."""
    return "\n".join((STATIC / name).read_text("utf-8") for name in ("base.css", *names))


def _resolve(name: str, done: dict[str, str], parts: list[str], above: tuple[str, ...]) -> str:
    """The text of a file with its imports bound; the files it needs are appended to `parts`."""
    if name in above:
        raise ValueError(f"{' imports '.join([*above, name])}: files may not import in a circle")
    text = _COMMENT.sub("", (STATIC / name).read_text("utf-8"))

    def bind(match: re.Match) -> str:
        names, file = " ".join(match[1].split()).rstrip(","), match[2]
        if file not in done:
            _append(file, done, parts, (*above, name))
        return f"const {{ {names.strip().replace(' as ', ': ')} }} = {done[file]};\n"

    text = _IMPORT.sub(bind, text)
    left = re.search(
        r"^(?:import\b|export (?!default|(?:async )?function|class|const)).*", text, re.M
    )
    if left:
        raise ValueError(f'{name}: cannot join {left[0]!r}; import {{ a, b }} from "./file.js";')
    return text


def _append(name: str, done: dict[str, str], parts: list[str], above: tuple[str, ...]) -> None:
    text = _resolve(name, done, parts, above)
    exported = [next(filter(None, match.groups())) for match in _EXPORT.finditer(text)]
    if re.search(r"^export default", text, re.MULTILINE) or not exported:
        raise ValueError(f"{name}: a shared file exports names, and no default")
    done[name] = f"m{len(done)}"
    body = _EXPORT.sub("", text)
    parts.append(
        f"const {done[name]} = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();\n"
    )
