"""The weights that come with the package: where they are, and whether they are whole.

A model folder holds `config.json` and `lm.safetensors`; `config.json` names the folder of its codec
and the sha256 of each weight file, so that a file cut short in a copy, or an LM beside another LM's
codec, is found before it makes noise. Standard library only: the doctor runs this without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .errors import StageLiteError
from .files import sha256_of

PRETRAINED = Path(__file__).parent / "pretrained"


def shipped_models() -> dict[str, Path]:
    """Name -> folder of every model that `load` knows by name, sorted."""
    configs = sorted(PRETRAINED.glob("*/config.json"))
    return {c.parent.name: c.parent for c in configs if (c.parent / "lm.safetensors").is_file()}


def read_config(folder: Path) -> dict:
    """`config.json` of a model folder as a dictionary.

    Raises:
        StageLiteError: not a folder, no `config.json` or weights in it, or the JSON is broken.
    """
    if not folder.is_dir():
        raise StageLiteError(
            f"{folder} is not a folder; expected a model folder with config.json and "
            "lm.safetensors, as written by model.save(folder)"
        )
    missing = [n for n in ("config.json", "lm.safetensors") if not (folder / n).is_file()]
    if missing:
        there = sorted(p.name for p in folder.iterdir())
        shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "nothing"
        raise StageLiteError(
            f"{folder} holds no {' and no '.join(missing)}, but {shown}; expected a model folder "
            "as written by model.save(folder), or by audiocraft or transformers"
        )
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageLiteError(f"{file} is not JSON ({error}); copy or save it again") from None
    if not isinstance(config, dict):
        raise StageLiteError(f"{file} holds a {type(config).__name__}; expected a JSON object")
    return config


def verify(folder: Path) -> dict[str, str]:
    """Compare each weight file of a model folder with the sha256 in its `config.json`.

    Returns:
        File name relative to the folder -> its digest. Empty where the config names no digests.

    Raises:
        StageLiteError: a file is missing or differs; names the file.
    """
    expected = read_config(folder).get("sha256", {})
    verify_digests(folder, expected)
    return expected


def verify_digests(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files of a folder, by their name in it, with their sha256.

    Raises:
        StageLiteError: a file is missing or differs; names the file.
    """
    for name, digest in expected.items():
        file = folder / name
        if not file.is_file():
            raise StageLiteError(
                f"{folder}: {name} is missing; expected it next to config.json. "
                "Try: copy the whole folder again, or `git checkout` it"
            )
        got = sha256_of(file)
        if got != digest:
            raise StageLiteError(
                f"{file} is not the file that config.json was written with: sha256 {got[:12]}, "
                f"expected {digest[:12]} ({file.stat().st_size} bytes); it was cut short, changed "
                "or comes from another model. Try: copy the folder again, or `git checkout` it"
            )
