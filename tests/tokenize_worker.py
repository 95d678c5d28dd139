"""What the workers of test_tokenize.py import: a codec whose process dies once, in mid-song."""

import os
import signal
from pathlib import Path

from stage_lite.codec import load_codec


def dying_codec(folder: Path, marker: Path, at_call: int):
    """The codec of a folder; the first process to call it so often is killed with -9."""
    codec, _ = load_codec(folder)
    encode, calls = codec.encode, []

    def encode_or_die(wav):
        calls.append(1)
        if len(calls) == at_call:
            try:
                marker.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return encode(wav)

    codec.encode = encode_or_die
    return codec
