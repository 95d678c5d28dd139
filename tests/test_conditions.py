"""conditions.py: what can stand in a prefix, and how a reader adds to it."""

import pytest
import torch
from songs import RATE, TONES, heard_stems, own_song

from stage_lite import conditions
from stage_lite.conditions import condition, get_condition, list_conditions
from stage_lite.errors import StageLiteError
from stage_lite.metronome import click_track
from stage_lite.song import Window, open_songs
from stage_lite.stems import StemDataset


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    own_song(root, silent={"keys"})
    return open_songs(root, sample_rate=RATE)[0]


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(conditions, "_CONDITIONS", dict(conditions._CONDITIONS))


def test_mixture_is_a_random_nonempty_subset_of_the_others(song):
    seen = set()
    for seed in range(60):
        wav = get_condition("mixture")(song, Window(song, 1.0, 2.0, "drums", seed))
        assert wav.shape == (1, 2 * RATE)
        seen.add(frozenset(heard_stems(wav)))
    others = set(TONES) - {"drums", "keys"}  # keys are silent
    assert len(seen) == 2 ** len(others) - 1
    assert all(subset and subset <= others for subset in seen)


def test_backing_is_everything_but_the_target(song):
    wav = get_condition("backing")(song, Window(song, 1.0, 2.0, "drums", 3))
    others = [n for n in song.stem_names if n not in ("drums", "keys")]  # keys are silent
    assert torch.allclose(wav, song.mix(others, 1.0, 2.0), atol=1e-6)
    silent = Window(song, 1.0, 2.0, "drums", 3)
    song_of_drums = open_songs(song.folder, sample_rate=RATE)[0]
    song_of_drums.stem_names = ["drums", "keys"]
    assert get_condition("backing")(song_of_drums, silent) is None


def test_mixture_depends_on_the_window_only(song):
    window = Window(song, 1.0, 2.0, "bass", 7)
    assert torch.equal(get_condition("mix")(song, window), get_condition("mixture")(song, window))


def test_mixture_leaves_vocals_out_and_may_find_nothing(tmp_path):
    from songs import musdb18_song

    musdb18_song(tmp_path)
    (song,) = open_songs(tmp_path, sample_rate=RATE)
    song.stem_names = ["drums", "vocals"]
    assert get_condition("mixture")(song, Window(song, 0.0, 1.0, "drums", 0)) is None


def test_metronome_clicks_on_the_beats_of_the_window(song):
    wav = get_condition("metronome")(song, Window(song, 1.25, 2.0, "drums", 0))
    expected = click_track([0.25, 0.75, 1.25, 1.75], [0.75], duration_s=2.0, sample_rate=RATE)
    assert torch.allclose(wav, expected)
    assert not get_condition("click").needs_target


def test_self_is_the_target(song):
    wav = get_condition("self")(song, Window(song, 0.5, 1.0, "guitar", 0))
    assert torch.equal(wav, song.stem("guitar", 0.5, 1.0))


def test_a_new_condition_takes_one_function_and_no_other_change(song, registry):
    @condition("bass-only")
    def bass_only(song, window):
        """The bass, alone."""
        return song.stem("bass", window.start_s, window.duration_s)

    assert "bass-only" in list_conditions()
    assert get_condition("bass-only").description == "The bass, alone."
    dataset = StemDataset([song], "drums", window_s=2.0, conditions=["bass-only"], sample_rate=RATE)
    assert heard_stems(dataset[0].context) == {"bass"}

    @condition("bass-only")  # the notebook cell is run again
    def louder(song, window):
        return 0.5 * song.stem("bass", window.start_s, window.duration_s)

    assert get_condition("bass-only").function is louder


def test_what_a_condition_must_return(song, registry):
    for wav, message in [
        (torch.zeros(9), r"returned shape \(9,\); expected a tensor \[1, L\] at 8000 Hz"),
        ([0.0], "returned list"),
    ]:
        condition("odd")(lambda song, window, wav=wav: wav)
        with pytest.raises(StageLiteError, match=message):
            get_condition("odd")(song, Window(song, 0.0, 1.0, "drums", 0))


def test_names(registry):
    assert {"mixture", "metronome", "self"} <= set(list_conditions())
    with pytest.raises(StageLiteError, match="unknown condition 'chords2'; expected one of"):
        get_condition("chords2")
    for name in ("mixture", "click", "none"):
        with pytest.raises(StageLiteError, match="is built in"):
            condition(name)
    for name in ("", "a b", "mix:drums", "a#1"):
        with pytest.raises(StageLiteError, match="expected a non-empty word"):
            condition(name)
    with pytest.raises(StageLiteError, match="expected a function"):
        condition("five")(5)
