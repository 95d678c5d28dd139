"""The names of the package: there, imported late, and what they say they are."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import stage_lite as sl

PACKAGE = Path(sl.__file__).parent
# design contract: what a reader may write after `import stage_lite as sl`
CONTRACT = {
    "load", "load_audio", "save_audio", "extend_embedding", "build_prefix", "delay", "undelay",
    "forward", "click_track", "beat_grid", "StemDataset", "finetune", "condition", "StageModel",
    "StageLiteError", "evaluate",
}  # fmt: skip


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=PACKAGE.parent
    )


def test_import_is_light():
    """`import stage_lite` loads no torch, no audiocraft, no transformers, not even NumPy."""
    done = python("import stage_lite, sys; print(sorted(m.partition('.')[0] for m in sys.modules))")
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {
        "torch",
        "torchaudio",
        "audiocraft",
        "transformers",
        "numpy",
        "librosa",
        "jaxtyping",
    }


def test_command_line_is_light():
    done = python(
        "import sys, stage_lite.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    assert done.stdout.strip().endswith("False"), done.stderr


def test_contract_names_are_listed():
    assert set(sl.__all__) >= CONTRACT
    assert set(dir(sl)) >= set(sl.__all__)


@pytest.mark.parametrize("name", sorted(sl._HOME))
def test_every_public_name_exists(name):
    file = PACKAGE / f"{sl._HOME[name].replace('.', '/')}.py"
    assert file.is_file(), f"{name} should be in {file.name}"
    value = getattr(sl, name)
    assert not isinstance(value, ModuleType)
    assert value.__doc__, f"{name} has no docstring"


def test_names_for_editors_are_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(
        n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    )
    listed = {(alias.name, line.module) for line in block.body for alias in line.names}
    assert listed == set(sl._HOME.items())


def test_function_wins_over_the_file_of_the_same_name():
    """Importing the file delay.py must not turn `sl.delay` into a module, in either order."""
    code = (
        "import stage_lite as sl, sys\n"
        "import stage_lite.delay\n"
        "from stage_lite.delay import undelay\n"
        "assert callable(sl.delay) and sl.delay is sys.modules['stage_lite.delay'].delay\n"
        "from stage_lite import delay\n"
        "assert delay is sl.delay\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    done = python("import stage_lite as sl\nsl.prefix_loss\nassert callable(sl.delay)")
    assert done.returncode == 0, done.stderr


def test_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'laod'.*load, load_audio"):
        sl.laod  # noqa: B018


def test_errors_are_value_errors():
    assert issubclass(sl.StageLiteError, ValueError)
