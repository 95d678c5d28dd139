"""Models of other programs: audiocraft's, transformers' and the authors' own STAGE, both ways.

    model = sl.load("facebook/musicgen-small")        # or a folder of audiocraft or transformers
    model = sl.load("stage-drums.safetensors")        # the authors' checkpoint
    lm = sl.interop.lm_from_transformers(state_dict)  # audiocraft's LMModel, sizes off the tensors
    sl.interop.save_transformers(model, "folder")     # and back

Nothing is renamed by guesswork: a tensor that is missing, left over or of another shape is an error
that names it. No pickle that holds code is ever read.

    names.py               which tensor is called what, in the four namings
    build.py               tensors -> LMModel and back
    codec_tensors.py       the same for EnCodec
    t5.py                  MusicGen's text reader, from a folder, the hub or tensors
    audiocraft_folder.py   state_dict.bin + compression_state_dict.bin
    transformers_folder.py MusicgenForConditionalGeneration
    official_stage.py      the authors' safetensors
    read.py                what a name or a path is, and the parts of the model in it
    tensor_file.py, torch_file.py, hub.py    files, downloads
    peers.py               small models of the other programs, of random weights

Notebook: 09_musicgen_and_stage.
"""

from __future__ import annotations

import importlib

_HOME = {
    "lm_from_audiocraft": "build",
    "lm_to_audiocraft": "build",
    "lm_from_transformers": "build",
    "lm_to_transformers": "build",
    "lm_from_official_stage": "build",
    "lm_to_official_stage": "build",
    "codec_from_transformers": "codec_tensors",
    "codec_to_transformers": "codec_tensors",
    "codec_from_official_stage": "codec_tensors",
    "codec_to_official_stage": "codec_tensors",
    "T5Reader": "t5",
    "save_audiocraft": "audiocraft_folder",
    "save_transformers": "transformers_folder",
    "save_official_stage": "official_stage",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(
            f"module 'stage_lite.interop' has no attribute {name!r}; it has: {', '.join(__all__)}"
        )
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
