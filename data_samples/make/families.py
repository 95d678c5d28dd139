"""Which plain-word family a style file of MMA belongs to, and what tempi suit the family."""

from __future__ import annotations

import re

# First match wins; searched in "library/file" in lower case.
_RULES: list[tuple[str, str]] = [
    (r"jazz-54", "jazz in five"),
    (r"jazzbossa|bossa", "bossa nova"),
    (r"samba|quando", "samba"),
    (r"salsa|/son$|merengue", "salsa"),
    (r"mambo", "mambo"),
    (r"rhumba|beguine|cubanguitar", "rumba"),
    (r"chacha", "cha-cha"),
    (r"bolero", "bolero"),
    (r"tango", "tango"),
    (r"calypso", "calypso"),
    (r"afro", "afro-cuban"),
    (r"reggae", "reggae"),
    (r"/ska", "ska"),
    (r"latinhouse", "house"),
    (r"latinwaltz|jazzwaltz", "jazz waltz"),
    (r"rockwaltz|rock34|bald34|blues34|popwaltz", "pop waltz"),
    (r"waltz", "waltz"),
    (r"lfusion|latinfusion|zoom/latin|8beatpop2", "latin pop"),
    (r"fus16|fusion|jazzrock|descendingjazz", "fusion"),
    (r"bluegrass", "bluegrass"),
    (r"boggie|boogie", "boogie"),
    (r"shuffle|/r\+b", "shuffle"),
    (r"blues", "blues"),
    (r"gypsyjazz", "gypsy jazz"),
    (r"ragtime", "ragtime"),
    (r"dixie|charleston", "dixieland"),
    (r"bigband|basie", "big band"),
    (r"countryswing|westernswing", "western swing"),
    (r"68swing|fastswing|easyswing|slowswing|swing|bouncy", "swing"),
    (r"bebop|jazz|evansish|folkyjazz", "jazz"),
    (r"march|germanmarch", "march"),
    (r"polka", "polka"),
    (r"foxtrot|quickstep|softshoe|jive", "foxtrot"),
    (r"twist", "twist"),
    (r"broadway|showtune", "show tune"),
    (r"spiritual|hymn", "gospel"),
    (r"zydeco", "zydeco"),
    (r"country|cntry|western|2beatp|kwest", "country"),
    (r"folk|lullaby|arpeggio|hillcountry", "folk"),
    (r"metal|mtl|thr$|hrk|mide", "metal"),
    (r"punk", "punk"),
    (r"hip-?hop|triphop|zoom/trip", "hip hop"),
    (r"dnb", "drum and bass"),
    (r"funk", "funk"),
    (r"disco|dsoul|boneym", "disco"),
    (r"trance|techno|rave", "techno"),
    (r"house|dance|electric|digital", "dance"),
    (r"ambient|desert", "ambient"),
    (r"motown|soul|mellowrb|modernrb|rnb|/rb", "soul"),
    (r"ballad|bald|serenade|slowrock", "ballad"),
    (r"50srock|rock-128|k50s", "rock and roll"),
    (r"rock|highfive|strut|beat8|8beat", "rock"),
    (r"16beat|beat16|slow16|pop|zoom/", "pop"),
]

# Usual tempo in beats per minute, counted as MMA writes the groove (often 4 where a band counts 2).
TEMPO_BPM: dict[str, tuple[int, int]] = {
    "jazz in five": (110, 180),
    "bossa nova": (100, 150),
    "samba": (110, 190),
    "salsa": (110, 190),
    "mambo": (110, 180),
    "rumba": (90, 140),
    "cha-cha": (100, 135),
    "bolero": (70, 110),
    "tango": (100, 140),
    "calypso": (110, 180),
    "afro-cuban": (70, 120),
    "reggae": (66, 100),
    "ska": (110, 170),
    "jazz waltz": (100, 180),
    "pop waltz": (80, 150),
    "waltz": (90, 180),
    "latin pop": (90, 135),
    "fusion": (85, 135),
    "bluegrass": (110, 180),
    "boogie": (110, 170),
    "shuffle": (90, 150),
    "blues": (65, 130),
    "gypsy jazz": (120, 190),
    "ragtime": (100, 170),
    "dixieland": (120, 190),
    "big band": (90, 180),
    "western swing": (110, 180),
    "swing": (100, 190),
    "jazz": (90, 180),
    "march": (90, 125),
    "polka": (110, 170),
    "foxtrot": (110, 180),
    "twist": (130, 175),
    "show tune": (90, 170),
    "gospel": (75, 150),
    "zydeco": (110, 170),
    "country": (75, 140),
    "folk": (75, 135),
    "metal": (95, 180),
    "punk": (130, 190),
    "hip hop": (75, 110),
    "drum and bass": (140, 185),
    "funk": (85, 125),
    "disco": (105, 130),
    "techno": (115, 150),
    "house": (115, 130),
    "dance": (105, 135),
    "ambient": (65, 115),
    "soul": (70, 120),
    "ballad": (60, 92),
    "rock and roll": (110, 180),
    "rock": (90, 150),
    "pop": (80, 135),
}

SWUNG = {
    "jazz", "swing", "big band", "western swing", "gypsy jazz", "dixieland", "blues", "boogie",
    "shuffle", "jazz waltz", "jazz in five", "foxtrot", "zydeco",
}  # fmt: skip
ELECTRONIC = {"techno", "house", "dance", "ambient", "hip hop", "drum and bass", "disco"}
LOUD = {"rock", "metal", "punk", "rock and roll", "funk", "twist"}


def family_of(style_file: str) -> str:
    """Plain-word family of a style file such as "stdlib/bossanova"."""
    for pattern, family in _RULES:
        if re.search(pattern, style_file.lower()):
            return family
    return "pop"
