"""Names of stems, splits and songs, brought to one spelling whatever the data set calls them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

KNOWN = frozenset({"drums", "bass", "keys", "guitar", "other", "vocals", "percussion"})
MUSDB18 = frozenset({"drums", "bass", "other", "vocals"})
MIXES = frozenset({"mix", "mixture", "master", "full", "linear_mixture"})  # not stems
SPLITS = {"train": "train", "validation": "valid", "valid": "valid", "dev": "valid", "test": "test"}
NAMES = {  # MoisesDB folders, common file names and Slakh classes -> stems
    "drum": "drums",
    "piano": "keys",
    "keyboard": "keys",
    "keyboards": "keys",
    "organ": "keys",
    "other_keys": "keys",
    "chromatic percussion": "keys",
    "synth lead": "keys",
    "synth pad": "keys",
    "percussive": "percussion",
    "guitars": "guitar",
    "other_plucked": "other",
    "bowed_strings": "other",
    "wind": "other",
    "vocal": "vocals",
    "voice": "vocals",
}
MUSDB18_VALID = frozenset(  # the songs of its train folder that the musdb package validates on
    {
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)


def stem_name(name: str) -> str:
    """What a data set calls a stem -> what it is called here; unknown names stay."""
    name = plain_text(name).lower()
    return NAMES.get(name, NAMES.get(name.replace(" ", "_"), name))


def split_by_folder(folder: Path, song: str) -> str | None:
    """Split of a song in a folder train, valid(ation), dev or test; None in any other folder."""
    split = SPLITS.get(folder.name.lower())
    return "valid" if split == "train" and song in MUSDB18_VALID else split


def plain_text(name: str) -> str:
    """A file name as text that prints: NFC, and no half characters of a wrong encoding."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", name)
