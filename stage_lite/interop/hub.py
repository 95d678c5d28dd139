"""Weights from the Hugging Face hub, by its ordinary client; and what to say before and after.

A file that is in the client's cache is used without the network. What is downloaded is named first,
with its size and licence. All that can go wrong ends in one sentence that also says how to do
without the network: every model can be loaded from a folder.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import StageLiteError
from .tensor_file import INDEX, weight_files

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LICENCE = "CC-BY-NC 4.0: for non-commercial use only, also of what is fine-tuned from it"
# Bytes of the files as published (LM in fp16, codec in fp32), and of the LM in fp32.
MUSICGEN = {
    "facebook/musicgen-small": (841e6 + 236e6, 1.68e9),
    "facebook/musicgen-medium": (3.68e9 + 236e6, 7.36e9),
    "facebook/musicgen-large": (6.51e9 + 236e6, 13.03e9),
}
# The authors offer their files in a drive folder that github.com/giorgioskij/stage links to; this
# is a copy of them on the hub.
STAGE_REPO = "teamup-tech/STAGE-checkpoints"
STAGE = {name: f"{name}.safetensors" for name in ("stage-drums", "stage-bass")}
STAGE_BYTES = 2.4e9
CODEC_REPO = "facebook/encodec_32khz"  # MusicGen's codec alone, as transformers keeps it


class AbsentError(StageLiteError):
    """A repository does not hold a file."""


def repo_name(name: str) -> str | None:
    """The repository that a name means: "owner/name", "hf://owner/name" or its web address."""
    for beginning in ("hf://", "https://huggingface.co/", "https://hf.co/"):
        name = name.removeprefix(beginning)
    name = name.rstrip("/")
    return name if _REPO.fullmatch(name) else None


def fetch(
    repo: str,
    files: Sequence[str],
    *,
    optional: Sequence[str] = (),
    size: float | None = None,
    licence: str | None = None,
    offline: str,
) -> Path:
    """The folder in the hub client's cache that holds files of a repository.

    Args:
        repo: "owner/name".
        files: all of them must be there.
        optional: fetched if the repository has them.
        size: bytes of all files, for the announcement.
        licence: for the announcement.
        offline: what to do without the network, for the error: ends "Try: ...".

    Raises:
        StageLiteError: no network and not in the cache, no such repository or file, no access, no
            space.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        found = [hf_hub_download(repo, file, local_files_only=True) for file in files]
        return Path(found[0]).parent
    except EntryNotFoundError:  # not all of them are in the cache
        pass
    about = f", about {size / 1e9:.1f} GB" if size else ""
    note = f"; licence {licence}" if licence else ""
    print(f"downloading {repo} ({', '.join(files)}{about}{note})", file=sys.stderr)
    found = []
    try:
        for file in optional:  # first, so that a cache with all of `files` holds them too
            try:
                hf_hub_download(repo, file)
            except LocalEntryNotFoundError:  # no network: the files below will say so
                break
            except EntryNotFoundError:
                continue
        for file in files:  # all again, so that they are of one version
            found.append(hf_hub_download(repo, file))
    except GatedRepoError:
        raise StageLiteError(
            f"{repo} asks its readers to accept its terms first. Try: open "
            f"https://huggingface.co/{repo}, accept, then `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise StageLiteError(
            f"the hub has no repository {repo!r} that you may read, and there is no folder of that "
            f"name here; expected a name such as facebook/musicgen-small. {offline}"
        ) from None
    except LocalEntryNotFoundError as error:
        raise StageLiteError(no_network(repo, files, offline, error)) from None
    except EntryNotFoundError:
        raise AbsentError(
            f"{repo} on the hub holds no {files[len(found)]}; expected a repository with "
            f"{', '.join(files)}. {offline}"
        ) from None
    except OSError as error:  # the client's other errors: connections, time-outs, a full disk
        raise StageLiteError(no_network(repo, files, offline, error)) from None
    return Path(found[0]).parent


def no_network(repo: str, files: Sequence[str], offline: str, error: Exception) -> str:
    """The sentence for a download that did not work."""
    reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else ""
    reason = f" ({type(error).__name__}{': ' + reason if reason else ''})"
    return (
        f"could not download {', '.join(files)} of {repo} from the hub: no network, or it is "
        f"switched off (HF_HUB_OFFLINE){reason}; and there is no folder {repo} here. {offline}"
    )


def fetch_musicgen(repo: str) -> Path:
    """audiocraft's two files of a MusicGen."""
    size, _ = MUSICGEN.get(repo, (None, None))
    return fetch(
        repo,
        ("state_dict.bin", "compression_state_dict.bin"),
        size=size,
        licence=LICENCE if repo in MUSICGEN else "see the repository's page",
        offline=(
            "Try: on a machine with a network download https://huggingface.co/"
            f"{repo}, copy its folder here, then "
            "stage_lite.load('the/folder', t5='folder of t5-base')"
        ),
    )


def fetch_transformers(repo: str) -> Path:
    """A MusicGen as transformers keeps it, with its tokenizer."""
    words = {
        "licence": "see the repository's page",
        "offline": f"Try: copy the folder of https://huggingface.co/{repo} here and load that",
    }
    others = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
    try:
        return fetch(repo, ("config.json", "model.safetensors"), optional=others, **words)
    except AbsentError:
        folder = fetch(repo, ("config.json", INDEX), optional=others, **words)
    return fetch(repo, tuple(weight_files(folder)), **words)


def fetch_stage(name: str) -> Path:
    """One of the authors' two checkpoints."""
    file = STAGE[name]
    offline = (
        f"Try: get {file} from the drive folder that github.com/giorgioskij/stage links to, then "
        f"stage_lite.load('path/{file}')"
    )
    return fetch(STAGE_REPO, (file,), size=STAGE_BYTES, licence=LICENCE, offline=offline) / file


def fetch_t5(name: str) -> Path:
    """A T5 with its tokenizer."""
    offline = (
        f"Try: on a machine with a network download https://huggingface.co/{name}, copy its "
        "folder here and stage_lite.load(..., t5='the/folder'); without a description no text "
        "encoder is needed"
    )
    return fetch(
        name,
        ("config.json", "model.safetensors"),
        optional=("tokenizer.json", "tokenizer_config.json", "spiece.model"),
        size=0.9e9 if name.split("/")[-1] == "t5-base" else None,
        licence="Apache 2.0" if name.split("/")[-1].startswith("t5-") else None,
        offline=offline,
    )


def fetch_tokenizer(name: str) -> Path:
    """The tokenizer of a T5 alone."""
    return fetch(
        name,
        ("tokenizer.json",),
        optional=("tokenizer_config.json", "spiece.model"),
        offline="Try: stage_lite.load(..., t5='folder of t5-base'); no description needs no T5",
    )


def fetch_codec(name: str = CODEC_REPO) -> Path:
    """EnCodec as transformers keeps it."""
    offline = "Try: stage_lite.load(..., codec='folder of a codec or of a MusicGen')"
    return fetch(
        name,
        ("config.json", "model.safetensors"),
        size=0.24e9 if name == CODEC_REPO else None,
        licence=LICENCE,
        offline=offline,
    )
