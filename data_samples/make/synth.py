"""FluidSynth through ctypes: all stems of a song in one pass, in float, soundfont loaded once.

FluidSynth sends MIDI channel c to audio channel c modulo the number of audio channels, so stem s
of n owns the MIDI channels s, s + n, s + 2n, ... and comes out alone.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
SAMPLE_RATE = 32_000  # Hz
BLOCK = 64  # samples: FluidSynth starts notes at multiples of this, 2 ms
DRUM_BANK = 128


def have_fluidsynth() -> bool:
    """True when libfluidsynth and the FluidR3 GM soundfont are installed."""
    return SOUNDFONT.exists() and _library_name() is not None


def _library_name() -> str | None:
    return ctypes.util.find_library("fluidsynth")


@dataclass(frozen=True)
class Event:
    """One note for the synthesiser."""

    start_s: float
    end_s: float
    channel: int  # of the stem, 0 .. CHANNELS_PER_STEM - 1
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Voice:
    """What a stem's channel plays."""

    program: int  # General MIDI 0..127, or the drum kit
    is_drums: bool = False
    volume: int = 100  # CC7


CHANNELS_PER_STEM = 12


class Synth:
    """One FluidSynth with `n_stems` separate mono outputs; not for several threads at a time."""

    def __init__(self, n_stems: int, polyphony: int = 384) -> None:
        name = _library_name()
        if name is None or not SOUNDFONT.exists():
            raise ValueError(
                f"Synth: expected libfluidsynth and {SOUNDFONT}, found library {name!r}; "
                "try `apt install fluidsynth fluid-soundfont-gm`."
            )
        lib = ctypes.CDLL(name)
        pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        lib.new_fluid_settings.restype = pointer
        lib.fluid_settings_setint.argtypes = [pointer, text, number]
        lib.fluid_settings_setnum.argtypes = [pointer, text, ctypes.c_double]
        lib.new_fluid_synth.argtypes = [pointer]
        lib.new_fluid_synth.restype = pointer
        lib.fluid_synth_sfload.argtypes = [pointer, text, number]
        lib.fluid_synth_noteon.argtypes = [pointer] + [number] * 3
        lib.fluid_synth_noteoff.argtypes = [pointer] + [number] * 2
        lib.fluid_synth_cc.argtypes = [pointer] + [number] * 3
        lib.fluid_synth_program_select.argtypes = [pointer] + [number] * 4
        lib.fluid_synth_set_channel_type.argtypes = [pointer, number, number]
        lib.fluid_synth_nwrite_float.argtypes = [pointer, number] + [pointer] * 4
        lib.fluid_synth_get_sfont_by_id.argtypes = [pointer, number]
        lib.fluid_synth_get_sfont_by_id.restype = pointer
        lib.fluid_synth_add_sfont.argtypes = [pointer, pointer]
        lib.fluid_synth_remove_sfont.argtypes = [pointer, pointer]
        lib.delete_fluid_synth.argtypes = [pointer]
        lib.fluid_set_log_function(0, None, None)  # keep FluidSynth's chatter out of the terminal
        lib.fluid_set_log_function(1, None, None)
        lib.fluid_set_log_function(2, None, None)
        lib.fluid_set_log_function(3, None, None)
        settings = lib.new_fluid_settings()
        n_channels = -(-n_stems * CHANNELS_PER_STEM // 16) * 16
        for key, value in {
            b"synth.midi-channels": n_channels,
            b"synth.audio-channels": n_stems,
            b"synth.audio-groups": n_stems,
            b"synth.polyphony": polyphony,
            b"synth.reverb.active": 0,
            b"synth.chorus.active": 0,
            b"synth.cpu-cores": 1,
        }.items():
            lib.fluid_settings_setint(settings, key, value)
        lib.fluid_settings_setnum(settings, b"synth.sample-rate", float(SAMPLE_RATE))
        lib.fluid_settings_setnum(settings, b"synth.gain", 0.4)
        self._lib, self._n_stems, self._settings = lib, n_stems, settings
        self._keeper = lib.new_fluid_synth(settings)  # only holds the loaded soundfont
        font_id = lib.fluid_synth_sfload(self._keeper, str(SOUNDFONT).encode(), 0)
        if font_id < 0:
            raise ValueError(f"Synth: FluidSynth cannot read the soundfont {SOUNDFONT}.")
        self._font = lib.fluid_synth_get_sfont_by_id(self._keeper, font_id)

    def render(
        self, voices: list[list[Voice]], events: list[list[Event]], n_samples: int
    ) -> np.ndarray:
        """Play all stems at once.

        Args:
            voices: for each stem the voice of each of its channels.
            events: for each stem its notes.
            n_samples: length at 32 kHz; what still rings is cut.
        Returns:
            float32 [n_stems, n_samples], not normalised.
        """
        # A fresh synthesiser for each song (the soundfont is shared): nothing of the song before
        # is left in it, so a song does not depend on which songs the process played earlier.
        synth = self._lib.new_fluid_synth(self._settings)
        font_id = self._lib.fluid_synth_add_sfont(synth, self._font)
        try:
            return self._play(synth, font_id, voices, events, n_samples)
        finally:
            self._lib.fluid_synth_remove_sfont(synth, self._font)
            self._lib.delete_fluid_synth(synth)

    def _play(
        self,
        synth: int,
        font_id: int,
        voices: list[list[Voice]],
        events: list[list[Event]],
        n_samples: int,
    ) -> np.ndarray:
        lib, n = self._lib, self._n_stems
        for stem, stem_voices in enumerate(voices):
            for i, voice in enumerate(stem_voices):
                channel = stem + n * i
                lib.fluid_synth_set_channel_type(synth, channel, int(voice.is_drums))
                bank = DRUM_BANK if voice.is_drums else 0
                lib.fluid_synth_program_select(synth, channel, font_id, bank, voice.program)
                lib.fluid_synth_cc(synth, channel, 7, voice.volume)
        actions = []  # (block, off before on, channel, pitch, velocity)
        for stem, stem_events in enumerate(events):
            for event in stem_events:
                channel = stem + n * event.channel
                first = max(0, round(event.start_s * SAMPLE_RATE / BLOCK))
                last = max(first + 1, round(event.end_s * SAMPLE_RATE / BLOCK))
                actions.append((first, 1, channel, event.pitch, event.velocity))
                actions.append((last, 0, channel, event.pitch, 0))
        actions.sort()
        n_blocks = -(-n_samples // BLOCK)
        left = np.zeros((n, n_blocks * BLOCK), np.float32)
        right = np.zeros_like(left)
        pointers = ctypes.c_void_p * n
        left_at = [left[stem].ctypes.data for stem in range(n)]
        right_at = [right[stem].ctypes.data for stem in range(n)]

        def play(start: int, stop: int) -> None:
            skip = start * BLOCK * 4  # bytes
            lib.fluid_synth_nwrite_float(
                synth,
                (stop - start) * BLOCK,
                pointers(*(address + skip for address in left_at)),
                pointers(*(address + skip for address in right_at)),
                None,
                None,
            )

        now = 0
        for block, is_on, channel, pitch, velocity in actions:
            if block >= n_blocks:
                break
            if block > now:
                play(now, block)
                now = block
            if is_on:
                lib.fluid_synth_noteon(synth, channel, pitch, velocity)
            else:
                lib.fluid_synth_noteoff(synth, channel, pitch)
        play(now, n_blocks)
        return (0.5 * (left + right))[:, :n_samples]
