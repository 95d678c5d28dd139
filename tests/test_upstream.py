"""audiocraft imports on today's torch, quickly, without leaving anything in the way."""

import importlib.util
import subprocess
import sys

import pytest

from stage_lite import upstream
from stage_lite.errors import StageLiteError


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_classes_are_audiocrafts_own():
    from audiocraft.models.encodec import EncodecModel
    from audiocraft.models.lm import LMModel

    classes = upstream.audiocraft_classes()
    assert classes.LMModel is LMModel
    assert classes.EncodecModel is EncodecModel
    assert upstream.audiocraft_classes() is classes


def test_the_import_waits_for_what_is_not_needed_and_gets_out_of_the_way():
    out = run_python(
        "import sys\n"
        "from stage_lite.upstream import audiocraft_classes\n"
        "audiocraft_classes()\n"
        "heavy = ['transformers', 'librosa', 'spacy', 'audiocraft.solvers', 'torchmetrics']\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "import librosa, audiocraft.solvers\n"
        "print(librosa.filters.mel.__name__, audiocraft.solvers.CompressionSolver.__name__)\n"
    )
    assert out == ["[]", "mel", "CompressionSolver"]


def test_deferred_names_become_real_on_use():
    from audiocraft.models.encodec import HFEncodecModel
    from audiocraft.modules.conditioners import T5EncoderModel

    assert not isinstance(3, T5EncoderModel)
    assert HFEncodecModel.__class__.__name__ in ("_Later", "type")
    assert T5EncoderModel.from_pretrained.__self__.__name__ == "T5EncoderModel"


def test_stand_ins_do_not_confuse_other_packages():
    upstream.audiocraft_classes()
    # transformers and others ask in this way whether xformers is there
    assert importlib.util.find_spec("xformers") is not None
    from xformers import ops

    if getattr(sys.modules["xformers"], "__doc__", "").startswith("Stand-in"):
        with pytest.raises(StageLiteError, match="xformers' attention was called"):
            ops.memory_efficient_attention()


def test_torchaudio_resamples_without_its_compiled_part():
    import torch

    resample = upstream.torchaudio().functional.resample
    assert resample(torch.zeros(1, 480), 48_000, 32_000).shape == (1, 320)


def test_missing_packages_are_named_at_once(monkeypatch):
    found = upstream._found
    monkeypatch.setattr(upstream, "_found", lambda n: n not in ("av", "audiocraft") and found(n))
    assert upstream.missing_packages() == ["audiocraft", "av"]
    with pytest.raises(StageLiteError) as error:
        upstream.check_packages()
    message = str(error.value)
    assert message.startswith("missing packages: audiocraft, av. Try: python -m pip install av &&")
    assert "--no-deps audiocraft==1.3.0" in message
    assert "\n" not in message


def test_missing_torchaudio_is_named(monkeypatch):
    monkeypatch.setattr(upstream, "_found", lambda name: name != "torchaudio")
    with pytest.raises(StageLiteError, match="torchaudio is not installed.*pip install"):
        upstream.torchaudio()


def test_wrong_versions_are_named(monkeypatch):
    import importlib.metadata

    import torch

    monkeypatch.setattr(torch, "__version__", "2.1.0+cpu")
    with pytest.raises(StageLiteError, match=r"torch 2.1.0\+cpu is too old: expected 2.9 or later"):
        upstream.check_packages()
    monkeypatch.undo()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.4.0a2")
    with pytest.raises(StageLiteError, match="audiocraft 1.4.0a2 is installed: expected 1.3.0"):
        upstream.check_packages()


def test_a_failing_import_becomes_one_sentence():
    with pytest.raises(StageLiteError, match="needs the package 'no_such_package'.*pip install"):
        upstream._import("no_such_package")
