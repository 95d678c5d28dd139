"""Make the site: lessons with sound and pictures, a page per function, search; all in one folder.

    make site                                  into out/site
    python docs/site/build.py --only 00 01     two lessons, to try something

The pages ask nothing of the network and open from a disk as well as from a server. Solutions are
folded. Each function's page names the lessons that use it, each lesson the functions it uses
(links.py). At the end every page is opened in a browser without network (check.py).
"""

from __future__ import annotations

import argparse
import pydoc
import re
import shutil
import sys
from pathlib import Path

import nbformat
from links import lessons_of, pages_of
from run_notebooks import ROOT, run_all
from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
SOLVED = ("# BEGIN SOLUTION", "### BEGIN SOLUTION")
DOCUMENTS = {  # page -> (file of the repository, title in the list)
    "teaching": ("docs/teaching.md", "For teachers"),
    "evidence": ("docs/evidence.md", "Evidence"),
    "glossary": ("docs/glossary.md", "Glossary"),
    "data": ("docs/data.md", "Data sets"),
    "log": ("dev/LOG.md", "Log of experiments"),
    "licences": ("LICENSES.md", "Licences"),
}
INDEX = """# Stage Lite

A small MusicGen that plays along, and a course that takes it apart. The lessons below were run as
they stand here: what you hear is what came out. Solutions are folded; try first. To run a lesson
yourself, open its notebook with `make lab`.

## Lessons

{promises}

## Reference

- [Functions](functions.md): a page each, with the lessons that use it
{titles}

```{{toctree}}
:caption: Lessons
:hidden:
{lessons}
```

```{{toctree}}
:caption: Reference
:hidden:
functions
{documents}
```
"""


def build(
    source: Path, out: Path, notebooks: list[Path], cache: Path, kinds: dict[str, str] | None = None
) -> int:
    """Make the site.

    Args:
        source: laid out anew for Sphinx.
        out: of the pages, made anew when all went well.
        notebooks: solved ones.
        cache: of notebooks that were run.
        kinds: what gets a page, as `links.pages_of` gives it; None: all of it.

    Returns:
        0 if it went well.
    """
    shutil.rmtree(source, ignore_errors=True)
    for folder in ("lessons", "functions"):
        (source / folder).mkdir(parents=True)
    shutil.copy(HERE / "conf.py", source)
    shutil.copytree(HERE / "_static", source / "_static")
    kinds = pages_of() if kinds is None else kinds
    used = lessons_of(notebooks, kinds)
    titles, promises = {}, []
    for stem, notebook in run_all(notebooks, cache).items():
        titles[stem] = _title(notebook)
        promises.append(f"- [{titles[stem]}](lessons/{stem}.ipynb)\\\n  {_promise(notebook)}")
        _fold(notebook)
        mine = [name for name, lessons in used.items() if stem in lessons]
        if mine:
            notebook.cells.append(nbformat.v4.new_markdown_cell(_functions_of_lesson(mine)))
        nbformat.write(notebook, source / "lessons" / f"{stem}.ipynb")
    for name, lessons in used.items():
        (source / "functions" / f"{name}.md").write_text(
            _page(name, kinds[name], {stem: titles[stem] for stem in lessons}), "utf-8"
        )
    (source / "functions.md").write_text(_list_of_functions(list(used)), "utf-8")
    documents = {}
    for page, (file, title) in DOCUMENTS.items():
        if (ROOT / file).exists():
            text = (ROOT / file).read_text("utf-8")
            (source / f"{page}.md").write_text(
                _with_local_links(text, ROOT / file, source), "utf-8"
            )
            documents[page] = title
    index = INDEX.format(
        promises="\n".join(promises),
        titles="\n".join(f"- [{title}]({page}.md)" for page, title in documents.items()),
        lessons="\n".join(f"lessons/{stem}" for stem in titles),
        documents="\n".join(f"{title} <{page}>" for page, title in documents.items()),
    )
    (source / "index.md").write_text(index, "utf-8")
    made = source.with_name("html")
    shutil.rmtree(made, ignore_errors=True)
    words = ["-q", "-b", "html", "-j", "auto", "-d", str(source.with_name("doctrees"))]
    code = build_main([*words, str(source), str(made)])
    if code == 0:
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, out)
    return code


def _fold(notebook: nbformat.NotebookNode) -> None:
    """Cells that hold a solution are folded, and lose the markers."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and any(mark in cell.source for mark in SOLVED):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            cell.source = re.sub(r"^ *#+ (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.M)


def _title(notebook: nbformat.NotebookNode) -> str:
    text = next(c.source for c in notebook.cells if c.cell_type == "markdown")
    return re.search(r"^# (.+)$", text, re.M)[1]


def _promise(notebook: nbformat.NotebookNode) -> str:
    """The first paragraph below the title."""
    text = next(c.source for c in notebook.cells if c.cell_type == "markdown")
    below = re.split(r"^# .+$", text, maxsplit=1, flags=re.M)[1].strip()
    return " ".join(below.split("\n\n")[0].split())


def _functions_of_lesson(names: list[str]) -> str:
    lines = [f"- [`{_short(name)}`](../functions/{name}.md)" for name in names]
    return "## Functions of this lesson\n\n" + "\n".join(lines)


def _page(name: str, kind: str, lessons: dict[str, str]) -> str:
    """A page of a function: its docstring, and the lessons that use it."""
    links = [f"- [{title}](../lessons/{stem}.ipynb)" for stem, title in lessons.items()]
    where = "\n".join(links) if links else "In no lesson yet."
    members = "\n:members:" if kind == "class" else ""
    return (
        f"# `{_short(name)}`\n\n```{{eval-rst}}\n.. auto{kind}:: {name}"
        f"{members.replace(chr(10), chr(10) + '   ')}\n```\n\n## Lessons\n\n{where}\n"
    )


def _list_of_functions(names: list[str]) -> str:
    """The reference's table of contents: the package's own names first, then room by room."""
    rooms: dict[str, list[str]] = {}
    for name in names:
        rooms.setdefault(name.split(".")[1] if name.count(".") > 1 else "", []).append(name)
    parts = ["# Functions"]
    for room, listed in rooms.items():
        lines = [f"- [`{_short(n)}`](functions/{n}.md): {_first_line(n)}" for n in listed]
        parts.append(f"## stage_lite{'.' if room else ''}{room}\n\n" + "\n".join(lines))
    pages = "\n".join(f"{_short(n)} <functions/{n}>" for n in names)
    parts.append(f"```{{toctree}}\n:hidden:\n{pages}\n```")
    return "\n\n".join(parts) + "\n"


def _first_line(name: str) -> str:
    """What a docstring says first, as far as the first full stop or line."""
    said = (pydoc.getdoc(pydoc.locate(name)) or "").split("\n\n")[0]
    return " ".join(said.split())


def _short(name: str) -> str:
    return name.removeprefix("stage_lite.")


def _with_local_links(text: str, file: Path, source: Path) -> str:
    """Pictures are copied; links to files that are no page become plain words."""
    pages = {(ROOT / path).resolve(): page for page, (path, _) in DOCUMENTS.items()}

    def picture(found: re.Match) -> str:
        path = (file.parent / found[2]).resolve()
        if not path.is_file():
            return found[0]
        (source / "pictures").mkdir(exist_ok=True)
        shutil.copy(path, source / "pictures" / path.name)
        return f"![{found[1]}](pictures/{path.name})"

    def link(found: re.Match) -> str:
        if "://" in found[2] or found[2].startswith(("#", "pictures/", "mailto:")):
            return found[0]
        page = pages.get((file.parent / found[2].split("#")[0]).resolve())
        return f"[{found[1]}]({page}.md)" if page else found[1]

    text = re.sub(r"!\[([^\]]*)\]\(([^)\s]+)\)", picture, text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "site")
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "site", help="kept here")
    parser.add_argument("--only", nargs="*", help="beginnings of names of notebooks")
    parser.add_argument("--no-check", action="store_true", help="do not open the pages")
    args = parser.parse_args()
    notebooks = [
        file
        for file in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
        if not args.only or file.name.startswith(tuple(args.only))
    ]
    code = build(args.work / "source", args.out, notebooks, args.work / "executed")
    if code:
        return code
    print("the site:", args.out / "index.html")
    if args.no_check:
        return 0
    from check import check_site

    problems = check_site(args.out)
    print("\n".join(problems) or "every page opens without network, with its sound and pictures")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
