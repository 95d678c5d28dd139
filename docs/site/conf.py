"""Settings of Sphinx. `docs/site/build.py` lays out the folder that this is copied into."""

import stage_lite

project = "Stage Lite"
author = "Stage Lite contributors"
copyright = "Stage Lite contributors. Text, pictures, music and weights: see Licences"
version = release = stage_lite.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "index"
html_theme = "furo"
html_title = f"Stage Lite {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses on a disk
pygments_style = "a11y-light"
pygments_dark_style = "a11y-dark"

nb_execution_mode = "off"  # run_notebooks.py did it
nb_ipywidgets_js = {}  # nothing from elsewhere
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/html", 0), ("html", "image/png", 10)]
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
myst_heading_anchors = 3
myst_enable_extensions = ["fieldlist"]  # dollars stay dollars: no formula needs a script
suppress_warnings = ["myst.header", "myst.xref_missing", "mystnb.unknown_mime_type", "docutils"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of a dataclass are listed once


def keep_layout(app, what, name, obj, options, lines: list[str]) -> None:
    """Text that a docstring sets apart, indented below an empty line, is shown as it stands."""
    shown, last, literal = [], 0, None
    for place, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip():
            new = place and not lines[place - 1].strip() and indent > last
            if new and literal is None:
                literal = indent
                shown += [" " * last + "::", ""]
            elif literal is not None and indent < literal:
                literal = None
            if literal is None:
                last = indent
        shown.append(line)
    lines[:] = shown


def setup(app) -> None:
    app.connect("autodoc-process-docstring", keep_layout, priority=100)
