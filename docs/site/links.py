"""Which lesson uses which public function, read off the notebooks' sources: links go both ways.

A function is what a notebook reaches through the package: `sl.delay(...)`, a name imported from one
of its modules (`from stage_lite.audio import mix`), or `sl.metrics.beats.beat_f1(...)`. Only those
that have a page count (`pages_of`): every public name of `stage_lite`, and what its rooms hold.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path

import nbformat

import stage_lite

ROOMS = ("metrics", "plots", "charts")  # documented as they are written
LISTED = ("interop", "checks")  # documented as far as `__all__` goes


def pages_of() -> dict[str, str]:
    """Dotted name of each documented object -> its kind, "function" or "class"."""
    found = {}
    for name in stage_lite.__all__:
        value = getattr(stage_lite, name)
        if callable(value):
            found[f"stage_lite.{name}"] = _kind(value)
    for module in _modules():
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if own and not name.startswith("_") and callable(value) and inspect.getdoc(value):
                found[f"{module.__name__}.{name}"] = _kind(value)
    for room in LISTED:
        module = importlib.import_module(f"stage_lite.{room}")
        for name in module.__all__:
            if callable(getattr(module, name)):
                found[f"{module.__name__}.{name}"] = _kind(getattr(module, name))
    return dict(sorted(found.items(), key=lambda item: (item[0].count("."), item[0].lower())))


def used_in(notebook: Path, known: Iterable[str]) -> list[str]:
    """The names of `known` that a notebook's code cells use, in order of first use."""
    # an exported name is the same thing as where it lives: stage_lite.delay is delay.delay
    homes = {_home(name): name for name in known}
    used: dict[str, None] = {}
    aliases: dict[str, str] = {}
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(_parsed(cell.source)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    aliases[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in ast.walk(_parsed(cell.source)):
            if isinstance(node, ast.Attribute | ast.Name):
                dotted = _dotted(node, aliases)
                name = homes.get(_home(dotted)) if dotted.startswith("stage_lite") else None
                if name:
                    used.setdefault(name)
    return list(used)


def lessons_of(notebooks: Iterable[Path], known: Iterable[str]) -> dict[str, list[str]]:
    """Name of `known` -> stems of the notebooks that use it, in the order of the course."""
    known = list(known)
    found: dict[str, list[str]] = {name: [] for name in known}
    for notebook in sorted(notebooks):
        for name in used_in(notebook, known):
            found[name].append(notebook.stem)
    return found


def _modules() -> list:
    """The rooms and the files in them."""
    found = []
    for room in ROOMS:
        module = importlib.import_module(f"stage_lite.{room}")
        if not hasattr(module, "__path__"):
            found.append(module)
            continue
        folder = Path(module.__file__).parent
        files = sorted(f.stem for f in folder.glob("*.py") if f.stem != "__init__")
        found += [importlib.import_module(f"{module.__name__}.{f}") for f in files]
    return found


def _home(dotted: str) -> str:
    """Where the object behind a dotted name was written; the name itself if there is none."""
    try:
        value = stage_lite
        for part in dotted.split(".")[1:]:
            if inspect.ismodule(value) and not hasattr(value, part):
                value = importlib.import_module(f"{value.__name__}.{part}")
            else:
                value = getattr(value, part)
        return f"{value.__module__}.{value.__qualname__}" if callable(value) else dotted
    except (AttributeError, ImportError):
        return dotted


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value, aliases)
        return f"{inner}.{node.attr}" if inner else ""
    return aliases.get(node.id, "") if isinstance(node, ast.Name) else ""


def _parsed(source: str) -> ast.AST:
    try:
        return ast.parse(source)
    except SyntaxError:  # a cell of another language, or a magic
        return ast.parse("")


def _kind(value: object) -> str:
    return "class" if inspect.isclass(value) else "function"
