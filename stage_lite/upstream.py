"""audiocraft 1.3.0, imported on today's torch: the only file of this library that imports it.

audiocraft pins torch 2.1 and xformers, yet its models need neither. Three things stand between its
wheel and a current torch, and this file puts each right without touching a file of audiocraft:

- it imports `xformers`, of which its torch attention backend uses one function: a stand-in will do;
- it imports `torchaudio`, whose Linux wheel wants CUDA libraries even beside a CPU build of torch:
  all that is used of it is Python, so its compiled part is left out where it cannot load;
- it imports transformers, librosa, spaCy and its own training code at once (5 s, 300 MB), for parts
  that a MusicGen touches only with its T5 text encoder: those imports wait until first use.

Notebook: 00_quickstart.
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import logging
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stage_lite.errors import StageLiteError

MIN_TORCH = (2, 9)
AUDIOCRAFT_VERSION = "1.3.0"

# import name -> name for pip. What audiocraft's models import for real, at once.
REQUIRED = {
    "torch": "torch",
    "torchaudio": "torchaudio",
    "audiocraft": "--no-deps audiocraft==1.3.0",
    "av": "av",
    "einops": "einops",
    "dora": "dora-search",
    "flashy": "flashy",
    "hydra": "hydra-core",
    "huggingface_hub": "huggingface_hub",
    "julius": "julius",
    "num2words": "num2words",
    "omegaconf": "omegaconf",
    "soundfile": "soundfile",
    "tqdm": "tqdm",
}
# Imported by audiocraft at once, used by few of its parts: import waits for the first use.
DEFERRED = ("transformers", "librosa", "spacy", "audiocraft.solvers")

_lock = threading.RLock()


@functools.cache
def audiocraft_classes() -> types.SimpleNamespace:
    """Import audiocraft once and hand out the classes of it that this library builds on.

    Returns:
        LMModel, EncodecModel, SEANetEncoder, SEANetDecoder, ResidualVectorQuantizer,
        ConditionFuser, ConditioningProvider, ConditioningAttributes, BaseConditioner,
        TextConditioner, T5Conditioner, LUTConditioner, DelayedPatternProvider.

    Raises:
        StageLiteError: a package is missing or of a version that cannot serve; says which.
    """
    with _lock:
        check_packages()
        torchaudio()
        if "audiocraft.models" not in sys.modules:
            _install_xformers_stand_in()
            with _deferred(DEFERRED), _silence():
                _import("audiocraft.models")
        lm, encodec = _import("audiocraft.models.lm"), _import("audiocraft.models.encodec")
        conditioners = _import("audiocraft.modules.conditioners")
        patterns = _import("audiocraft.modules.codebooks_patterns")
        seanet, quantization = (
            _import("audiocraft.modules.seanet"),
            _import("audiocraft.quantization"),
        )
        logging.getLogger("audiocraft.modules.codebooks_patterns").setLevel(logging.WARNING)
    return types.SimpleNamespace(
        LMModel=lm.LMModel,
        EncodecModel=encodec.EncodecModel,
        SEANetEncoder=seanet.SEANetEncoder,
        SEANetDecoder=seanet.SEANetDecoder,
        ResidualVectorQuantizer=quantization.ResidualVectorQuantizer,
        ConditionFuser=conditioners.ConditionFuser,
        ConditioningProvider=conditioners.ConditioningProvider,
        ConditioningAttributes=conditioners.ConditioningAttributes,
        BaseConditioner=conditioners.BaseConditioner,
        TextConditioner=conditioners.TextConditioner,
        T5Conditioner=conditioners.T5Conditioner,
        LUTConditioner=conditioners.LUTConditioner,
        DelayedPatternProvider=patterns.DelayedPatternProvider,
    )


def torchaudio() -> types.ModuleType:
    """torchaudio, without its compiled part where that cannot load beside this torch.

    Resampling and spectrograms are Python; reading and writing files is soundfile's work here.

    Raises:
        StageLiteError: torchaudio is missing, or fails even without its compiled part.
    """
    with _lock:
        if not _found("torchaudio"):
            raise StageLiteError(
                "torchaudio is not installed; audiocraft cannot be imported without it. "
                "Try: python -m pip install --no-deps torchaudio"
            )
        try:
            return importlib.import_module("torchaudio")
        except OSError:  # the compiled part does not fit this torch
            for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
                del sys.modules[name]
        extension = _module("torchaudio._extension")
        extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
        extension._IS_ALIGN_AVAILABLE = False
        extension.fail_if_no_align = _fail_if_no_align
        sys.modules["torchaudio._extension"] = extension
        return _import("torchaudio")


def missing_packages() -> list[str]:
    """Import names that audiocraft's models need and that are not installed, in a fixed order."""
    return [name for name in REQUIRED if not _found(name)]


def check_packages() -> None:
    """Raise one StageLiteError that names every missing package, or the one of a wrong version."""
    missing = missing_packages()
    if missing:
        commands = [
            f"python -m pip install {REQUIRED[name]}" for name in missing if name == "audiocraft"
        ]
        others = " ".join(REQUIRED[name] for name in missing if name != "audiocraft")
        if others:
            commands.insert(0, f"python -m pip install {others}")
        raise StageLiteError(
            f"missing {'package' if len(missing) == 1 else 'packages'}: {', '.join(missing)}. "
            f"Try: {' && '.join(commands)}"
        )
    import torch

    got = torch.__version__
    if tuple(int(part) for part in got.split("+")[0].split(".")[:2]) < MIN_TORCH:
        raise StageLiteError(
            f"torch {got} is too old: expected {MIN_TORCH[0]}.{MIN_TORCH[1]} or later. "
            "Try: python -m pip install --upgrade torch"
        )
    from importlib import metadata

    try:
        version = metadata.version("audiocraft")
    except metadata.PackageNotFoundError:
        return  # a source tree on the path carries no version: trust it
    if version != AUDIOCRAFT_VERSION:
        raise StageLiteError(
            f"audiocraft {version} is installed: expected {AUDIOCRAFT_VERSION}. "
            f"Try: python -m pip install {REQUIRED['audiocraft']}"
        )


# --- helpers -----------------------------------------------------------------------------------


def _found(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _import(name: str) -> types.ModuleType:
    """Import a module; what goes wrong becomes one sentence, with the cause chained."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise StageLiteError(
            f"{name} needs the package {error.name!r}, which is not installed. "
            f"Try: python -m pip install {str(error.name).split('.')[0]}"
        ) from error
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        import torch

        raise StageLiteError(
            f"{name} cannot be imported beside torch {torch.__version__}: {error}. "
            "Try: python -m stage_lite doctor"
        ) from error


def _module(name: str) -> Any:
    module = types.ModuleType(name, doc=f"Stand-in for {name} made by stage_lite.upstream.")
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
    return module


def _fail_if_no_align(function: Any) -> Any:
    @functools.wraps(function)
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"{function.__name__} needs torchaudio's compiled part, which is not loaded"
        )

    return fail


def _install_xformers_stand_in() -> None:
    """Leave a stand-in behind: audiocraft asks for xformers again whenever it builds a layer."""
    if "xformers" in sys.modules:
        return
    import torch

    def unavailable(*args: Any, **kwargs: Any) -> Any:
        raise StageLiteError(
            "xformers' attention was called, but stage_lite runs audiocraft with torch's own. "
            "Try: audiocraft.modules.transformer.set_efficient_attention_backend('torch')"
        )

    xformers, ops, profiler = (_module(f"xformers{n}") for n in ("", ".ops", ".profiler"))
    profiler_module = _module("xformers.profiler.profiler")
    profiler_module._Profiler = type("_Profiler", (), {"_CURRENT_PROFILER": None})
    xformers.__path__, profiler.__path__ = [], []
    ops.unbind = torch.unbind
    ops.memory_efficient_attention = unavailable
    ops.LowerTriangularMask = type("LowerTriangularMask", (), {})
    xformers.ops, xformers.profiler, profiler.profiler = ops, profiler, profiler_module
    for module in (xformers, ops, profiler, profiler_module):
        sys.modules[module.__name__] = module


class _Later:
    """A name imported from a package that is itself imported only when the name is used."""

    def __init__(self, module: str, name: str):
        self._where = (module, name)

    def _resolve(self) -> Any:
        module, name = self._where
        return getattr(_import(module), name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # typing and copy look for these: they are no reason to import
            raise AttributeError(name)
        return getattr(self._resolve(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._resolve()(*args, **kwargs)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._resolve())


class _LaterModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(self.__name__, name)


class _LaterFinder:
    """Answers imports of the deferred packages, and of whatever lies inside them."""

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if any(fullname == name or fullname.startswith(name + ".") for name in self.names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _LaterModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


@contextmanager
def _deferred(names: tuple[str, ...]) -> Iterator[None]:
    """While this is open, importing any of `names` succeeds at once and imports nothing yet."""
    names = tuple(name for name in names if name not in sys.modules)
    finder = _LaterFinder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n, module in sys.modules.items() if isinstance(module, _LaterModule)]:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and isinstance(
                vars(sys.modules[parent]).get(child), _LaterModule
            ):
                delattr(sys.modules[parent], child)


@contextmanager
def _silence() -> Iterator[None]:
    """audiocraft's import warns of things that its user cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
