"""The widgets' JavaScript: its own tests under node, the joined files, equality with Python."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import stage_widgets
from browser import PATIENCE_S, node
from stage_widgets import esm

from stage_lite.metronome import beat_grid, click_track

TESTS = Path(__file__).parent / "js"
STATIC = Path(stage_widgets.__file__).parent / "static"
WIDGETS = [getattr(stage_widgets, n) for n in stage_widgets.__all__ if n != "StageWidget"]


def run_node(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [node(), *words], capture_output=True, text=True, timeout=PATIENCE_S, **more
    )


def in_node(file: str, expression: str, **values):
    """The value of an expression over what a shared file exports (as `m`) and JSON values."""
    code = (
        f"import * as m from {json.dumps((STATIC / file).as_uri())};"
        f"const v = JSON.parse(process.argv[1]);"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    done = run_node("--input-type=module", "-e", code, json.dumps(values))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_javascript_unit_tests():
    done = run_node("--test", "--test-reporter=tap", *map(str, sorted(TESTS.glob("*.test.mjs"))))
    failed = re.findall(r"^\s*not ok.*", done.stdout, re.MULTILINE)
    assert done.returncode == 0, "\n".join(failed) or done.stderr
    assert int(re.search(r"^# pass (\d+)", done.stdout, re.MULTILINE)[1]) >= 25


@pytest.mark.parametrize("widget", WIDGETS, ids=lambda w: w.__name__)
def test_one_small_module_per_widget(widget, tmp_path):
    text = str(widget._esm)
    assert len(text.encode()) <= esm.LIMIT_BYTES, f"{len(text)} bytes"
    file = tmp_path / "widget.mjs"
    file.write_text(text)
    done = run_node("--check", str(file))
    assert done.returncode == 0, done.stderr
    code = (
        f"const m = await import({json.dumps(file.as_uri())}); console.log(typeof m.default.render)"
    )
    done = run_node("--input-type=module", "-e", code)
    assert done.stdout.strip() == "function", done.stderr
    assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), "no network"
    assert "innerHTML" not in text, "words are text"
    assert "url(" not in str(widget._css) and "@import" not in str(widget._css)


def test_bundle_keeps_every_file_a_scope_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(esm, "STATIC", tmp_path)
    (tmp_path / "low.js").write_text("const own = 1;\nexport function low() {\n  return own;\n}\n")
    (tmp_path / "high.js").write_text(
        'import { low } from "./low.js";\nconst own = 10;\nexport const high = () => low() + own;\n'
    )
    (tmp_path / "w.js").write_text(
        'import { high as h } from "./high.js";\nimport { low } from "./low.js";\n'
        "const own = 100;\nconsole.log(h() + low() + own);\nexport default { render() {} };\n"
    )
    esm.bundle.cache_clear()
    text = esm.bundle("w.js")
    esm.bundle.cache_clear()
    assert text.count("return own") == 1, "a file that two others need is there once"
    (tmp_path / "out.mjs").write_text(text)
    done = run_node(str(tmp_path / "out.mjs"))
    assert done.stdout.strip() == "112", done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import x from "./low.js";\nexport default {};\n', "cannot join"),
        ('import { low } from "./w.js";\nexport default {};\n', "w.js imports w.js"),
        ('import { low } from "./none.js";\nexport default {};\n', "exports names"),
    ],
)
def test_bundle_refuses_what_it_cannot_join(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(esm, "STATIC", tmp_path)
    (tmp_path / "none.js").write_text("const a = 1;\n")
    (tmp_path / "w.js").write_text(text)
    esm.bundle.cache_clear()
    with pytest.raises(ValueError, match=message):
        esm.bundle("w.js")
    esm.bundle.cache_clear()


@pytest.mark.parametrize(
    ("bpm", "curve", "per_bar", "start_s"),
    [
        (112.0, [], 4, 0.0),
        (97.3, [], 3, 1.37),
        (60.0, [], 7, -2.5),
        (100.0, [(0.0, 60.0), (4.0, 180.0), (6.0, 90.0)], 4, 0.0),
        (100.0, [(1.013, 80.0), (5.007, 131.0)], 3, 0.777),
        (100.0, [(2.0, 240.0)], 5, -0.4),
    ],
)
def test_the_browser_counts_as_python_does(bpm, curve, per_bar, start_s):
    expected = beat_grid(curve or bpm, per_bar, duration_s=8.0, start_s=start_s)
    arguments = {"bpm": bpm, "curve": curve, "perBar": per_bar, "duration": 8, "start": start_s}
    found = in_node("tempo.js", "m.beatGrid(v.a)", a=arguments)
    for ours, name in zip(expected, ("beats", "downbeats"), strict=True):
        assert len(found[name]) == len(ours)
        np.testing.assert_allclose(found[name], ours, atol=2e-6)


def test_the_browser_clicks_as_python_does():
    beats, downbeats = beat_grid(133.7, 3, duration_s=2.0, start_s=0.1)
    expected = click_track(beats, downbeats, duration_s=2.0, sample_rate=22050)[0].numpy()
    found = in_node(
        "click.js", "Array.from(m.clickTrack(v.b, v.d, 2, 22050))", b=list(beats), d=list(downbeats)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_colours_are_those_of_the_plots():
    from stage_widgets.twin import PALETTE

    from stage_lite.plots import COLOURS

    ours = in_node("palette.js", "v.names.map((n) => m.colourOf(n))", names=list(PALETTE))
    assert ours == list(PALETTE.values()) == [COLOURS[name] for name in PALETTE]
