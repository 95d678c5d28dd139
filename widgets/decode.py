"""A sound file that the browser could not read, as a wav: soundfile first, then FFmpeg's libraries.

Notebook: 00_quickstart.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from torch import Tensor

from stage_lite.audio import check_wav
from stage_lite.errors import StageLiteError

MAX_FILE_BYTES = 8_000_000  # that a browser sends; larger ones it must decode itself
MAX_S = 600.0  # the first ten minutes are read


def decode_audio(content: bytes, name: str) -> tuple[Float[Tensor, "C L"], int]:
    """Wav and sample rate of a file's content: WAV, FLAC, OGG, MP3, AIFF, M4A, WebM, ...

    Args:
        content: the whole file.
        name: as the user knows it, for messages.

    Returns:
        The first ten minutes, in the file's own rate; of what FFmpeg reads, mono.

    Raises:
        StageLiteError: a text or another file without sound, an empty one, or samples that
            `audio.check_wav` refuses.
    """
    name = Path(name).name or "the file"
    if not content:
        raise StageLiteError(f"{name} is empty (0 bytes); expected a sound file; choose another")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate = file.samplerate
            wav = file.read(round(MAX_S * rate), dtype="float32", always_2d=True).T  # [C, L]
    except (soundfile.LibsndfileError, TypeError):
        wav, rate = _with_ffmpeg(content, name)
    return check_wav(np.ascontiguousarray(wav), rate, name=name), rate


def _with_ffmpeg(content: bytes, name: str) -> tuple[Float[np.ndarray, "C L"], int]:
    import av

    blocks: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(content)) as container:
            if not container.streams.audio:
                raise StageLiteError(f"{name} holds no sound; expected a sound file")
            stream = container.streams.audio[0]
            rate = int(stream.rate or stream.codec_context.sample_rate)
            mono = av.AudioResampler(format="flt", layout="mono", rate=rate)
            for frame in container.decode(stream):
                blocks += [part.to_ndarray() for part in mono.resample(frame)]  # [1, n]
                if sum(block.shape[1] for block in blocks[-1:]) and frame.time > MAX_S:
                    break
    except (av.FFmpegError, ValueError, TypeError, ZeroDivisionError):
        blocks = []
    if not blocks:
        raise StageLiteError(
            f"{name} could not be read as audio; expected a sound file such as WAV, FLAC, OGG, MP3 "
            "or M4A; choose another file, or convert it first"
        )
    return np.concatenate(blocks, axis=1).astype(np.float32), rate
