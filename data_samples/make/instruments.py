"""Which stem a MIDI track belongs to, and which General MIDI programs may stand in for its own."""

from __future__ import annotations

from random import Random

from data_samples.make.families import ELECTRONIC, LOUD, SWUNG
from data_samples.make.grooves import is_bass
from data_samples.make.midi import Track

STEMS = ("drums", "bass", "keys", "guitar", "other")

_KITS = {"studio kit": 0, "room kit": 8, "power kit": 16, "electronic kit": 24,
         "drum machine": 25, "jazz kit": 32, "brush kit": 40}  # fmt: skip
_GROUPS: dict[str, dict[str, tuple[int, ...]]] = {
    "bass": {
        "acoustic bass": (32,),
        "electric bass": (33, 34),
        "fretless bass": (35,),
        "slap bass": (36, 37),
        "synth bass": (38, 39),
        "tuba": (58,),
    },
    "keys": {
        "piano": (0, 1, 2),
        "honky-tonk piano": (3,),
        "electric piano": (4, 5),
        "harpsichord": (6,),
        "clavinet": (7,),
        "organ": (16, 17, 18, 19),
        "accordion": (20, 21, 23),
    },
    "guitar": {
        "nylon guitar": (24,),
        "steel guitar": (25,),
        "jazz guitar": (26,),
        "clean guitar": (27,),
        "muted guitar": (28,),
        "overdriven guitar": (29,),
        "distorted guitar": (30,),
        "banjo": (105,),
    },
    "other": {
        "bells": (8, 9, 10, 14, 15),
        "vibraphone": (11,),
        "marimba": (12, 13),
        "harmonica": (22,),
        "strings": (40, 41, 42, 43, 44, 45, 48, 49, 50, 51),
        "harp": (46,),
        "choir": (52, 53, 54),
        "brass": (56, 57, 58, 59, 60, 61, 62, 63),
        "sax": (64, 65, 66, 67),
        "woodwind": (68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79),
        "synth": tuple(range(80, 104)),
    },
}
_NAME = {
    (stem, program): name
    for stem, groups in _GROUPS.items()
    for name, programs in groups.items()
    for program in programs
}
# What a player may pick up instead; styles narrow it.
_CHOICES = {
    "bass": {"swung": (32, 32, 32, 33, 35), "electronic": (38, 39, 38, 33, 36),
             "loud": (33, 34, 34, 36), "": (33, 34, 32, 35, 33, 36)},
    "keys": {"swung": (0, 1, 4, 16, 17, 0), "electronic": (4, 5, 2, 16, 18, 7),
             "loud": (0, 2, 4, 16, 18, 3), "": (0, 1, 2, 4, 5, 5, 16, 17, 19, 6)},
    "guitar": {"swung": (26, 26, 24, 27, 25), "electronic": (27, 28, 26, 27),
               "loud": (29, 30, 27, 28, 27), "": (24, 25, 26, 27, 25, 27)},
    "other": {"": (48, 49, 50, 61, 11, 52, 73, 65, 89, 46)},
}  # fmt: skip


def style_class(family: str) -> str:
    """ "swung", "electronic", "loud" or "" for all others."""
    for name, families in (("swung", SWUNG), ("electronic", ELECTRONIC), ("loud", LOUD)):
        if family in families:
            return name
    return ""


def instrument_name(stem: str, program: int) -> str:
    """Plain words for a program in a stem, such as "electric piano"."""
    if stem == "drums":
        return next((name for name, kit in _KITS.items() if kit == program), "studio kit")
    return _NAME.get((stem, program), "bass" if stem == "bass" else "synth")


def stem_of_track(track: Track) -> str:
    """The stem of a track, by MMA's track family first and its most used program second."""
    if track.channel == 9:
        return "drums"
    if track.name.endswith(("-XKEYS", "-Xkeys")):
        return "keys"
    if track.name.endswith(("-XGUITAR", "-Xguitar")):
        return "guitar"
    if is_bass(track):
        return "bass"
    programs = [note.program for note in track.notes]
    program = max(sorted(set(programs)), key=programs.count)
    if program in (106, 107, 104, 105, 15) or 24 <= program < 32:
        return "guitar" if program not in (15, 104, 106, 107) else "other"
    if program < 8 or 16 <= program <= 21 or program == 23:
        return "keys"
    return "other"


def choose_kit(rng: Random, family: str) -> int:
    """A drum kit that suits the family; one time in eight any kit."""
    suits = {
        "swung": ("jazz kit", "brush kit", "studio kit", "room kit"),
        "electronic": ("electronic kit", "drum machine", "electronic kit", "studio kit"),
        "loud": ("power kit", "room kit", "studio kit"),
        "": ("studio kit", "room kit", "studio kit", "jazz kit", "power kit"),
    }[style_class(family)]
    return _KITS[rng.choice(list(_KITS) if rng.random() < 0.125 else suits)]


def choose_program(rng: Random, stem: str, program: int, family: str) -> int:
    """The program to play: the groove's own (about half of the time) or another of the stem.

    Args:
        rng: seeded by the song.
        stem: "bass", "keys", "guitar" or "other".
        program: what MMA's style file asks for.
        family: groove family.
    """
    belongs = (stem, program) in _NAME
    keep = {"bass": 0.35, "keys": 0.45, "guitar": 0.45, "other": 0.7}[stem]
    if stem == "bass" and program == 58 and rng.random() < 0.6:
        return program
    if belongs and rng.random() < keep:
        return program
    if stem == "other" and belongs:  # stay in the same kind of instrument
        kind = _NAME[stem, program]
        return rng.choice(_GROUPS[stem][kind])
    if stem == "other" and 112 <= program:  # percussive sounds and effects stay as they are
        return program if program < 120 else 48
    choices = _CHOICES[stem]
    return rng.choice(choices.get(style_class(family), choices[""]))
