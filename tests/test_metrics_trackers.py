"""metrics/trackers.py: names and functions; Beat This without and with its package and weights."""

import importlib.util
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from stage_lite.errors import StageLiteError
from stage_lite.metrics import beat_this_tracker
from stage_lite.metrics.beat_this_tracker import beat_this
from stage_lite.metrics.beats import beat_f1, continuity, tempo_error
from stage_lite.metrics.trackers import (
    find_beats,
    get_tracker,
    grid_tracker,
    list_trackers,
    tracked_beats,
)
from stage_lite.metronome import beat_grid, click_track

RATE = 32000
BEATS, DOWNBEATS = beat_grid(113, 4, duration_s=8.0, start_s=0.21)
CLICK = click_track(BEATS, DOWNBEATS, duration_s=8.0, sample_rate=RATE)


def test_names_and_functions():
    assert list_trackers() == ["beat-this", "grid", "librosa"]
    assert get_tracker() is get_tracker("librosa") is find_beats
    assert get_tracker(find_beats) is find_beats
    assert np.array_equal(tracked_beats(CLICK, RATE), tracked_beats(CLICK, RATE, "librosa"))
    assert beat_f1(BEATS, CLICK, RATE, "librosa") == beat_f1(BEATS, CLICK, RATE) > 0.9


@pytest.mark.parametrize("measure", [beat_f1, continuity, tempo_error])
def test_every_measure_takes_a_name_or_a_function(measure):
    heard = measure(BEATS, CLICK, RATE)
    assert measure(BEATS, CLICK, RATE, "librosa") == heard
    own = measure(BEATS, CLICK, RATE, lambda wav, sample_rate: find_beats(wav, sample_rate))
    assert own == heard
    with pytest.raises(StageLiteError, match=r"unknown beat tracker 'madmom'.*'beat-this', 'grid'"):
        measure(BEATS, CLICK, RATE, "madmom")


def test_grid_returns_the_given_times():
    tracker = get_tracker("grid", beat_times=BEATS[2:])
    assert np.array_equal(tracked_beats(CLICK, RATE, tracker), BEATS[2:])
    tracker(CLICK, RATE)[:] = 0  # what a user does with the result changes nothing
    assert np.array_equal(tracker(CLICK, RATE), BEATS[2:])
    assert beat_f1(BEATS, CLICK, RATE, grid_tracker(BEATS)) == 1.0
    assert beat_f1(BEATS, CLICK, RATE, grid_tracker([])) == 0.0
    with pytest.raises(StageLiteError, match=r"'grid' came without times.*get_tracker\('grid'"):
        beat_f1(BEATS, CLICK, RATE, "grid")
    with pytest.raises(StageLiteError, match="beat_times does not increase"):
        grid_tracker([2.0, 1.0])


def test_what_is_no_tracker(unchecked_types):
    for wrong in (3, ["librosa"], ""):
        with pytest.raises(StageLiteError, match="unknown beat tracker"):
            get_tracker(wrong)
    with pytest.raises(StageLiteError, match="tracked beats has shape"):
        tracked_beats(CLICK, RATE, lambda wav, sample_rate: np.zeros((2, 2)))


# --- Beat This -----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch's hub folder, empty; no model of another test is kept."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    beat_this_tracker._load.cache_clear()
    yield tmp_path / "checkpoints"
    beat_this_tracker._load.cache_clear()


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the package, with the signatures of beat-this 1.1.0; records its calls."""
    calls = []

    class Audio2Beats:
        def __init__(self, checkpoint_path="final0", device="cpu", float16=False, dbn=False):
            calls.append(("load", checkpoint_path, device, dbn))
            if "broken" in checkpoint_path:
                raise KeyError("hyper_parameters")

        def __call__(self, signal, sr):
            assert isinstance(signal, np.ndarray) and signal.ndim == 1
            calls.append(("hear", len(signal), sr))
            return np.array([0.5, 1.0, 1.5]), np.array([0.5])

    module = types.ModuleType("beat_this")
    module.__spec__ = importlib.machinery.ModuleSpec("beat_this", None)
    inference = types.ModuleType("beat_this.inference")
    inference.Audio2Beats = Audio2Beats
    monkeypatch.setitem(sys.modules, "beat_this", module)
    monkeypatch.setitem(sys.modules, "beat_this.inference", inference)
    return calls


def checkpoint(file):
    torch.save({"state_dict": {}}, file)
    return file


def test_without_package_and_weights(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "beat_this", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StageLiteError) as raised:
        beat_f1(BEATS, CLICK, RATE, "beat-this")
    text = str(raised.value)
    assert "pip install beat-this" in text and "final0.ckpt" in text and str(hub) in text
    assert "tracker='librosa'" in text


def test_without_weights_nothing_is_fetched(hub, package):
    with pytest.raises(StageLiteError, match=r"no weights in .*beat_this-final0\.ckpt") as raised:
        get_tracker("beat-this")
    assert "pip install" not in str(raised.value) and package == []
    with pytest.raises(StageLiteError, match=r"no weights in .*nowhere\.ckpt"):
        beat_this(hub / "nowhere.ckpt")


def test_with_package_and_weights(hub, package):
    file = checkpoint(hub / "beat_this-final0.ckpt")
    tracker = get_tracker("beat-this")
    assert package == []  # loaded when it is first used
    for wav, rate in [(CLICK, RATE), (CLICK.expand(2, -1)[:, :8000], 8000)]:
        assert np.array_equal(tracked_beats(wav, rate, "beat-this"), [0.5, 1.0, 1.5])
    assert package == [
        ("load", str(file), "cpu", False), ("hear", 256000, RATE), ("hear", 8000, 8000)
    ]  # fmt: skip
    assert len(tracker(CLICK[:, :100], RATE)) == 0  # too short to be asked
    assert pickle.loads(pickle.dumps(tracker)) == tracker  # for worker processes
    own = checkpoint(hub / "mine.ckpt")
    beat_f1(BEATS, CLICK, RATE, beat_this(own))
    assert package[-2] == ("load", str(own), "cpu", False)


def test_bad_weights(hub, package):
    (hub / "beat_this-final0.ckpt").write_bytes(b"cut short")
    with pytest.raises(StageLiteError, match="cut short or no checkpoint"):
        get_tracker("beat-this")
    with pytest.raises(StageLiteError, match=r"could not be loaded.*hyper_parameters"):
        beat_f1(BEATS, CLICK, RATE, beat_this(checkpoint(hub / "broken.ckpt")))


def test_real_package(hub):
    """The package itself, small and untrained: the plug-in fits its interface."""
    pytest.importorskip("rotary_embedding_torch")
    if importlib.util.find_spec("beat_this") is None:
        pytest.skip("beat-this is not installed")
    from stage_lite.upstream import torchaudio

    torchaudio()
    from beat_this.model.beat_tracker import BeatThis

    torch.manual_seed(0)
    size = {"transformer_dim": 32, "n_layers": 1, "head_dim": 16, "stem_dim": 16}
    state = {f"model.{name}": value for name, value in BeatThis(**size).state_dict().items()}
    file = hub / "tiny.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": size}, file)
    for wav, rate in [(CLICK, RATE), (CLICK[:, :4000], RATE), (CLICK[:, :40000], 22050)]:
        times = tracked_beats(wav, rate, beat_this(file))
        assert times.dtype == np.float64 and (times < wav.shape[-1] / rate + 0.1).all()
