"""audio.py: everything that a user may hand over, and what comes back."""

import inspect

import numpy as np
import pytest
import soundfile
import torch

from stage_lite import audio
from stage_lite.audio import check_wav, load_audio, save_audio
from stage_lite.errors import StageLiteError


def tone(seconds=0.5, sample_rate=32000, channels=1, hz=440.0):
    t = torch.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * torch.sin(2 * torch.pi * hz * t)).expand(channels, -1).contiguous()


@pytest.mark.parametrize("suffix, tolerance", [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.1)])
def test_saved_is_loaded(tmp_path, suffix, tolerance):
    wav = tone(channels=2)
    path = save_audio(tmp_path / "new" / f"a{suffix}", wav, 32000)
    back, sample_rate = load_audio(path)
    assert sample_rate == 32000 and back.shape == wav.shape and back.dtype == torch.float32
    assert (back - wav).abs().max() < tolerance
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_mp3_is_read_and_a_cut_one_is_named(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(3.0, 44100)[0].numpy(), 44100, format="MP3")
    wav, sample_rate = load_audio(path)
    assert sample_rate == 44100 and abs(wav.shape[1] / 44100 - 3.0) < 0.1
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StageLiteError, match=r"a.mp3 is cut short"):
        load_audio(path)


def test_long_ogg_is_written(tmp_path):
    path = save_audio(tmp_path / "a.ogg", tone(40.0), 32000)
    assert load_audio(path)[0].shape == (1, 40 * 32000)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_rates_and_channels(tmp_path, sample_rate, channels):
    path = save_audio(tmp_path / "a.wav", tone(0.2, sample_rate, channels), sample_rate)
    wav, rate = load_audio(path)
    assert rate == sample_rate and wav.shape[0] == channels
    assert audio.prepare(wav, rate, 32000).shape == (1, 6400)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_bit_depths(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", tone()[0].numpy(), 32000, subtype=subtype)
    assert (load_audio(tmp_path / "a.wav")[0] - tone()).abs().max() < 0.02


def test_a_part_of_a_file_equals_the_slice(tmp_path):
    for suffix in (".wav", ".flac"):
        path = save_audio(tmp_path / f"a{suffix}", tone(1.0), 32000)
        whole, _ = load_audio(path)
        assert torch.equal(load_audio(path, 0.25, 0.5)[0], whole[:, 8000:24000])
        assert torch.equal(load_audio(path, 0.75, 9.0)[0], whole[:, 24000:])


def test_ten_minutes(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(600 * 8000, dtype=np.int16), 8000)
    assert load_audio(path)[0].shape == (1, 600 * 8000)


def test_files_that_are_no_audio(tmp_path):
    text = tmp_path / "song.wav"
    text.write_text("la la la")
    empty = tmp_path / "empty.wav"
    empty.touch()
    no_samples = tmp_path / "none.wav"
    soundfile.write(no_samples, np.zeros(0), 32000)
    raw = tmp_path / "a.raw"
    raw.write_bytes(bytes(100))
    many = tmp_path / "many.wav"
    soundfile.write(many, np.zeros((10, 9)), 32000)
    slow = tmp_path / "slow.wav"
    soundfile.write(slow, np.zeros(10), 4000)
    broken = tmp_path / "nan.wav"
    soundfile.write(broken, np.array([0.0, 0.1, np.nan]), 32000, subtype="FLOAT")
    for path, message in [
        (text, "could not be read as audio"),
        (raw, "could not be read as audio"),
        (empty, "is empty"),
        (no_samples, "holds no samples"),
        (many, "has 9 channels; expected 1 to 8"),
        (slow, "sample rate 4000; expected a whole number of Hz from 8000 to 192000"),
        (broken, "NaN or infinite samples, the first in channel 0 at sample 2"),
        (tmp_path / "gone.wav", "does not exist"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(StageLiteError, match=message) as error:
            load_audio(path)
        assert str(path) in str(error.value) and error.value.__cause__ is None


def test_flac_cut_short(tmp_path):
    path = save_audio(tmp_path / "a.flac", torch.rand(1, 64000) - 0.5, 32000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageLiteError, match=r"cut short|could not be read"):
        load_audio(path)


@pytest.mark.parametrize("part", [(-1.0, None), (0.0, 0.0), (0.0, -2.0), (7.0, None)])
def test_parts_outside_the_file(tmp_path, part):
    path = save_audio(tmp_path / "a.wav", tone(), 32000)
    with pytest.raises(StageLiteError, match=r"asked for"):
        load_audio(path, *part)


def test_more_than_an_hour_at_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "MAX_S", 0.2)
    path = save_audio(tmp_path / "a.wav", tone(), 32000)
    with pytest.raises(StageLiteError, match="at once; read a part"):
        load_audio(path)
    assert load_audio(path, 0.1, 0.1)[0].shape == (1, 3200)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float64, np.float16])
def test_array_types_are_scaled(dtype):
    full = {np.int16: 2**15, np.int32: 2**31, np.uint8: 2**7}.get(dtype, 1)
    offset = 128 if dtype is np.uint8 else 0
    wav = check_wav((np.array([[-0.5, 0.0, 0.5]]) * full + offset).astype(dtype), 32000)
    assert torch.allclose(wav, torch.tensor([[-0.5, 0.0, 0.5]])) and wav.dtype == torch.float32


def test_check_wav_takes_mono_lists_one_sample_and_silence():
    assert check_wav([0.0, 0.5], 32000).shape == (1, 2)
    assert check_wav(np.float32([0.5]), 32000).shape == (1, 1)
    assert audio.is_silent(check_wav(torch.zeros(2, 100), 32000))
    assert float(check_wav(torch.tensor([1.5, -1.2]), 32000).abs().max()) == 1.0  # overs clip


@pytest.mark.parametrize(
    "wav, message",
    [
        (np.zeros((2, 0)), "has 0 samples; expected at least 1"),
        (np.zeros((0, 9)), "has 0 channels"),
        (np.zeros((1, 1, 9)), r"shape \(1, 1, 9\); expected \[C, L\] or \[L\]"),
        (np.zeros((900, 2)), r"it looks like \[L, C\]: pass wav.T"),
        (np.zeros((9, 900)), "has 9 channels; expected 1 to 8"),
        (np.array([0.0, np.inf]), "NaN or infinite samples"),
        (np.array([0, 1]), "holds int64 numbers; expected floats"),
        (np.array([True]), "holds bool numbers"),
        (np.array([12000.0, -3.0]), "samples up to 1.2e.04; .* divide by 32768"),
        ("song.wav", "holds no array of numbers"),
        (None, "holds no array of numbers"),
        ([[0.0], [0.0, 1.0]], "holds no array of numbers"),
    ],
)
def test_check_wav_refuses(wav, message):
    with pytest.raises(StageLiteError, match="my take .*" + message):
        inspect.unwrap(check_wav)(wav, 32000, name="my take")


@pytest.mark.parametrize("rate", [0, -1, 7999, 192001, 44100.5, True])
def test_sample_rates_out_of_range(rate):
    with pytest.raises(StageLiteError, match="expected a whole number of Hz from 8000 to 192000"):
        inspect.unwrap(check_wav)(torch.zeros(1, 9), rate)


def test_minimum_length():
    with pytest.raises(StageLiteError, match=r"has 5 samples; expected at least 640 \(0.02 s\)"):
        check_wav(torch.zeros(1, 5), 32000, min_samples=640)


def test_save_refuses_and_leaves_nothing(tmp_path):
    for name, wav in [("a.mp3", tone()), ("a.wav", torch.full((1, 9), float("nan")))]:
        with pytest.raises(StageLiteError):
            save_audio(tmp_path / name, wav, 32000)
    assert not list(tmp_path.iterdir())


def test_save_interrupted_keeps_the_old_file(tmp_path, monkeypatch):
    path = save_audio(tmp_path / "a.wav", tone(), 32000)
    before = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        save_audio(path, tone(2.0), 32000)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("rates", [(44100, 32000), (8000, 32000), (192000, 32000), (32000, 44056)])
def test_resample_keeps_the_tone(rates):
    wav = tone(0.5, rates[0], hz=1000.0)
    changed = audio.resample(wav, *rates)
    expected = tone(0.5, rates[1], hz=1000.0)
    assert changed.shape == (1, round(wav.shape[1] * rates[1] / rates[0]))
    middle = slice(rates[1] // 10, -rates[1] // 10)
    n = min(changed.shape[1], expected.shape[1])
    assert (changed[:, :n][:, middle] - expected[:, :n][:, middle]).abs().max() < 1e-3


def test_resample_one_sample_and_same_rate():
    assert audio.resample(torch.ones(2, 1), 192000, 32000).shape == (2, 1)
    wav = tone()
    assert audio.resample(wav, 32000, 32000) is wav


def test_mix_is_the_sum_and_never_clips():
    a, b = torch.full((1, 4), 0.25), torch.full((1, 2), 0.5)
    assert torch.equal(audio.mix([a, b]), torch.tensor([[0.75, 0.75, 0.25, 0.25]]))
    assert torch.allclose(audio.mix([a, b], [0.0, -120.0]), a, atol=1e-5)
    assert torch.equal(audio.mix([b, b, b]), torch.ones(1, 2))
    for wavs, gains, message in [
        ([], None, "no wavs"),
        ([a, torch.zeros(2, 4)], None, r"\[1, 2\] channels"),
        ([a], [0.0, 1.0], "2 gains for 1 wavs"),
    ]:
        with pytest.raises(StageLiteError, match=message):
            audio.mix(wavs, gains)


def test_levels():
    assert abs(audio.level_db(tone()) + 9.03) < 0.01  # a sine of amplitude 0.5
    assert audio.level_db(torch.zeros(1, 9)) == -float("inf") == audio.level_db(torch.zeros(1, 0))
    wav = torch.cat([tone(1.0), torch.zeros(1, 48000)], dim=1)
    assert np.allclose(audio.rms_db(wav, 32000), [-9.03, -120.0, -120.0], atol=0.01)
    assert abs(audio.level_db(audio.normalise_level(tone(), -30.0)) + 30) < 1e-3
    assert torch.equal(audio.normalise_level(torch.zeros(1, 9)), torch.zeros(1, 9))
    assert float(audio.normalise_level(tone(), 0.0).abs().max()) <= 1.0
