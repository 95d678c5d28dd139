"""The oldest ipywidgets and anywidget that are taken, Colab's: made, shown, changed, closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD = ["ipywidgets==7.7.1", "anywidget==0.9.21", "ipython_genutils==0.2.0"]
CODE = """
import importlib.util, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "stage_widgets", folder + "/__init__.py", submodule_search_locations=[folder])
stage_widgets = sys.modules["stage_widgets"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stage_widgets)

import anywidget, ipywidgets, numpy as np, torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
InteractiveShell.instance()
assert (ipywidgets.__version__, anywidget.__version__) == ("7.7.1", "0.9.21")

def shown(widget):
    with capture_output() as shown:
        display(widget)
    still, view = (output.data for output in shown.outputs)
    assert set(still) == {"text/plain", "text/html"} and "Run its cell" in still["text/html"]
    assert set(view) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert still["text/plain"] == repr(widget) and " at 0x" not in repr(widget)

beats = np.arange(0, 1, 0.25)
mixer = stage_widgets.StemMixer({"a": torch.ones(1, 8000) / 2}, 8000, beats=beats, downbeats=beats)
shown(mixer)
mixer.set_state({"mute": ["a"], "_pcm": b""})
assert mixer.mute == ["a"] and len(mixer.get_state(["_pcm"])["_pcm"]) == 16000
mixer._handle_custom_msg({"kind": "audio_please", "base64": True}, [])
mixer.close()

pad = stage_widgets.MetronomePad(generate=lambda context: (context, 32000))
shown(pad)
pad._handle_custom_msg({"kind": "generate"}, [])
assert pad.wait(60) and pad.message == "" and pad.result[0].shape == (1, 256000)
pad.close()

import stage_lite as sl
from types import SimpleNamespace
from stage_lite.batch import make_batch
from stage_lite.examples import Example
from stage_lite.listening_test import ListeningItem

nano = sl.load("nano")
codes = torch.randint(0, nano.card, (2, nano.n_q, 50), generator=torch.Generator().manual_seed(0))
grid = stage_widgets.TokenGrid(nano, codes[1], context_codes=codes[0])
shown(grid)
grid.set_state({"codebooks": [0, 2], "lost": True})
grid._handle_custom_msg({"kind": "decode", "codebooks": [0, 2]}, [])
assert grid.codebooks == [0, 2] and grid.message == "" and grid.wav.shape == (1, 32000)
grid.close()

example = Example(target=None, context=None, description="drums", beat_times=beats,
                  downbeat_times=beats[:1], song_id="a", start_s=0.0, duration_s=1.0,
                  condition="mixture", context_codes=codes[0], target_codes=codes[1])
viewer = stage_widgets.AttentionViewer(nano, make_batch(nano, [example]), beats=beats)
shown(viewer)
viewer.set_state({"layer": 0, "head": 1, "time_s": 0.5})
assert viewer.weights.shape == (50,)
viewer.close()

clips = {n: (0.1 * torch.randn(1, 8000), 8000) for n in ("a", "b")}
test = stage_widgets.ListeningTest([ListeningItem("x", clips)], folder="test", listener=1)
shown(test)
test._handle_custom_msg({"kind": "answer", "trial": test.trial.id, "answer": "left"}, [])
assert test.n_left == 0 and len(test.answers) == 1
test.close()

class Player:
    sample_rate, config = 8000, SimpleNamespace(name="player", trained_s=1.0)
    def generate(self, *, progress, **asked):
        progress(1, 2)
        return SimpleNamespace(wav=torch.ones(1, 1, 8000) / 2)

panel = stage_widgets.Accompanist(Player(), context=torch.ones(1, 8000) / 4, sample_rate=8000)
shown(panel)
panel._handle_custom_msg({"kind": "generate", "stem": "drums", "words": "", "cfg_coef": 3,
                          "seed": 0}, [])
assert panel.wait(60).stem == "drums" and panel.message == ""
panel._handle_custom_msg({"kind": "take", "action": "keep", "id": 1}, [])
import zipfile
assert len(panel.kept) == 1 and "drums.wav" in zipfile.ZipFile(panel.export("song.zip")).namelist()
panel.close()
print("all is well")
"""


@pytest.mark.slow
def test_ipywidgets_7_and_anywidget_0_9(tmp_path):
    folder = ROOT / ".pytest_cache" / "old_widgets"
    if not (folder / "anywidget").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        done = subprocess.run([*pip, *OLD], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"pip could not fetch {', '.join(OLD)}")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(ROOT / "widgets")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "all is well", done.stderr
