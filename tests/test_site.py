"""The site: links between lessons and functions go both ways, and pages need no network."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

import stage_lite

ROOT = Path(stage_lite.__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "site"))
sphinx = pytest.importorskip("sphinx", reason="no sphinx here: pip install '.[site]'")
import build as site_build  # noqa: E402
import check as site_check  # noqa: E402
import links  # noqa: E402
from browser import require_browser  # noqa: E402

SOLVED = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
LESSON = """# A lesson that is not one

Text, with a picture and a sound of its own."""
CODE = """import numpy as np
import stage_lite as sl
from stage_lite import charts
from stage_lite.clips import Clip, Clips
sl.delay
Clips([Clip("noise", np.random.default_rng(0).uniform(-0.1, 0.1, (1, 8000)), 8000, "noise.")])"""
SOLUTION = """def half(x):
    # BEGIN SOLUTION
    return x / 2
    # END SOLUTION
charts.bars({"a": half(1.0)}, "b")"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    new = nbformat.v4
    cells = [new.new_markdown_cell(LESSON), new.new_code_cell(CODE), new.new_code_cell(SOLUTION)]
    notebook = new.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "98_sample.ipynb")
    names = ("stage_lite.delay", "stage_lite.undelay", "stage_lite.charts.bars")
    kinds = {name: kind for name, kind in links.pages_of().items() if name in names}
    assert len(kinds) == len(names)
    code = site_build.build(
        folder / "source", folder / "out", [folder / "98_sample.ipynb"], folder / "kept", kinds
    )
    assert code == 0
    return folder / "out"


def test_every_public_name_has_a_page():
    kinds = links.pages_of()
    for name in stage_lite.__all__:
        if callable(getattr(stage_lite, name)):
            assert f"stage_lite.{name}" in kinds
    assert kinds["stage_lite.StageModel"] == "class" and kinds["stage_lite.delay"] == "function"
    assert "stage_lite.metrics.beats.beat_f1" in kinds


@pytest.mark.parametrize(
    ("code", "used"),
    [
        ("import stage_lite as sl\nsl.delay(1, 2)", ["stage_lite.delay"]),
        ("from stage_lite import delay as late\nlate(1, 2)", ["stage_lite.delay"]),
        ("from stage_lite.delay import undelay\nundelay(1, 2)", ["stage_lite.undelay"]),
        (
            "import stage_lite as sl\nsl.metrics.beats.beat_f1",
            ["stage_lite.metrics.beats.beat_f1"],
        ),
        (
            "from stage_lite.metrics.beats import beat_f1\nbeat_f1",
            ["stage_lite.metrics.beats.beat_f1"],
        ),
        ("delay = 3\nprint(delay)", []),
        ("import numpy as sl\nsl.delay", []),
        ("%matplotlib inline", []),
    ],
)
def test_what_a_notebook_uses_is_found(tmp_path, code, used):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    assert links.used_in(tmp_path / "n.ipynb", links.pages_of()) == used


def test_the_course_uses_what_it_is_about():
    taught = links.lessons_of(SOLVED, links.pages_of())
    for name in ("delay", "extend_embedding", "build_prefix", "load", "click_track", "forward"):
        assert taught[f"stage_lite.{name}"], f"no lesson uses sl.{name}"


def article(page: Path) -> str:
    """A page without what stands beside it, where everything is linked."""
    return re.search("<article.*</article>", page.read_text(), re.DOTALL)[0]


def test_links_go_both_ways(site):
    lesson = article(site / "lessons" / "98_sample.html")
    for name in ("stage_lite.delay", "stage_lite.charts.bars"):
        assert f'href="../functions/{name}.html"' in lesson
        page = article(site / "functions" / f"{name}.html")
        assert 'href="../lessons/98_sample.html"' in page
    unused = article(site / "functions" / "stage_lite.undelay.html")
    assert "In no lesson yet" in unused and "../functions/stage_lite.undelay.html" not in lesson


def test_solutions_are_folded_and_have_lost_their_marks(site):
    lesson = (site / "lessons" / "98_sample.html").read_text()
    assert "BEGIN SOLUTION" not in lesson
    assert re.search(r"<details.*?Show the solution.*?half", lesson, re.DOTALL)


def test_what_a_docstring_sets_apart_keeps_its_lines(site):
    page = re.sub("<.*?>", "", (site / "functions" / "stage_lite.delay.html").read_text())
    assert "[S S 1 2 3 4 S]\n" in page


def test_every_page_opens_without_network(site):
    require_browser()
    assert site_check.check_site(site, word="lesson") == []


def test_the_check_finds_what_is_wrong(site, tmp_path, monkeypatch):
    require_browser()
    monkeypatch.chdir(tmp_path)
    for name in ("search.html", "searchindex.js"):
        (tmp_path / name).write_text((site / name).read_text())
    (tmp_path / "a.html").write_text(
        "<img src='https://example.org/x.png' alt='x'><img src='none.png' alt='y'>"
        "<audio controls></audio><script>undefined_name()</script>"
    )
    said = " ".join(site_check.check_site(Path(".")))  # a path as one types it
    for word in ("asks for https://example.org", "not there", "player without sound",
                 "undefined_name"):  # fmt: skip
        assert word in said


def test_links_that_lead_nowhere_or_one_way_are_named(site, tmp_path):
    for folder, file, href in (
        ("lessons", "one.html", "../functions/f.html"),
        ("functions", "f.html", "../lessons/gone.html#x"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(f'<article><a href="{href}">x</a></article>')
    assert site_check.check_links(tmp_path) == [
        "functions/f.html: no page behind ../lessons/gone.html",
        "f.html does not link back to one.html",
    ]
    assert site_check.check_links(site) == []


def test_lists_say_what_stands_behind_each_link(site):
    functions = re.sub("<.*?>", "", article(site / "functions.html"))
    assert "delay: Shift codebook k right by k + 1 steps" in functions
    index = re.sub("<.*?>", "", article(site / "index.html"))
    assert "A lesson that is not one\nText, with a picture and a sound of its own." in index


def test_a_lesson_that_fails_is_not_published(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("1 / 0")]
    )
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "n.ipynb")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        site_build.build(tmp_path / "s", tmp_path / "o", [tmp_path / "n.ipynb"], tmp_path / "k", {})
    assert not (tmp_path / "o").exists() and not list((tmp_path / "k").glob("*.ipynb"))
