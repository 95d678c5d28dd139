"""shards.py: bit packing, random access, drawing windows, sha256."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage_lite.errors import StageLiteError
from stage_lite.examples import shuffle_contexts
from stage_lite.files import write_registry
from stage_lite.shard_file import bits_for, pack, unpack
from stage_lite.shards import Shard, ShardDataset, ShardWriter

STREAMS = ["drums", "bass", "mix:drums", "mix:drums#1", "mix:bass", "click"]


def song(number, n_frames=1000, streams=STREAMS, split="train"):
    """Codes that tell song, stream and frame: codebook 0 is the frame number mod 512."""
    meta = {
        "id": f"song{number}",
        "split": split,
        "bpm": 120.0,
        "beats": [0.5 * i for i in range(40)],
        "downbeats": [2.0 * i for i in range(10)],
        "groove": "BossaNova",
        "family": "bossa nova",
        "description": {"drums": "drums, bossa nova"},
    }
    frames = torch.arange(n_frames)
    codes = {}
    for k, name in enumerate(streams):
        rows = [frames % 512, torch.full_like(frames, number), torch.full_like(frames, k)]
        codes[name] = torch.stack([*rows, frames // 512])
    rms = {name: [-20.0] * (n_frames // 50) for name in streams}
    return meta, codes, rms


@pytest.fixture
def folder(tmp_path):
    with ShardWriter(tmp_path / "shards", card=512, songs_per_shard=2, codec="abc") as writer:
        for number in range(3):
            writer.add(*song(number, split="test" if number == 2 else "train"))
    return tmp_path / "shards"


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(1, 12), n_q=st.integers(1, 5), n=st.integers(0, 40), seed=st.integers(0, 99)
)
def test_unpack_inverts_pack(bits, n_q, n, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (n_q, n)).astype(np.uint16)
    packed = pack(codes, bits)
    assert len(packed) == -(-n * n_q * bits // 8)
    assert np.array_equal(unpack(packed, bits, n_q, n), codes)


def test_bits():
    assert [bits_for(card) for card in (2, 512, 513, 1024, 2048)] == [1, 9, 10, 10, 11]
    with pytest.raises(StageLiteError, match="code 512 at codebook 1, frame 2"):
        pack(np.array([[0, 1, 2], [3, 4, 512]], dtype=np.uint16), 9)


def test_any_slice_equals_the_codes(folder):
    shard = Shard(folder / "shard-000.safetensors")
    _, codes, _ = song(1)
    for start, stop in [(0, None), (0, 8), (3, 4), (7, 17), (512, 912), (990, 2000), (1000, 1000)]:
        expected = codes["bass"][:, start:stop]
        assert torch.equal(shard.codes("song1", "bass", start, stop), expected)
    assert (shard.card, shard.n_q, shard.frame_rate, shard.codec) == (512, 4, 50.0, "abc")
    assert shard.songs["song1"]["family"] == "bossa nova"


def test_size_is_36_bits_a_frame(folder):
    size = (folder / "shard-000.safetensors").stat().st_size
    payload = 2 * len(STREAMS) * 1000 * 36 // 8
    assert payload <= size < payload + 8000


def test_example_holds_matching_windows(folder):
    dataset = ShardDataset(folder, {"drums": 1.0, "bass": 1.0}, conditions=["mix", "click"], n=200)
    seen = set()
    for i, example in enumerate(dataset):
        start = round(example.start_s * 50)
        assert example.target_codes.shape == example.context_codes.shape == (4, 400)
        assert torch.equal(example.target_codes[0], (start + torch.arange(400)) % 512)
        assert torch.equal(example.context_codes[0], example.target_codes[0])
        assert torch.equal(example.context_codes[1], example.target_codes[1])  # the same song
        assert STREAMS[int(example.target_codes[2, 0])] == example.target_name
        stream = STREAMS[int(example.context_codes[2, 0])]
        assert stream.partition("#")[0] in {
            "click" if example.condition == "click" else f"mix:{example.target_name}"
        }
        assert example.description == (
            "drums, bossa nova" if example.target_name == "drums" else "bass, bossa nova"
        )
        assert np.allclose((example.beat_times + example.start_s) % 0.5, 0)
        assert np.all((example.beat_times >= 0) & (example.beat_times < 8))
        assert 3 <= len(example.downbeat_times) <= 4
        seen.add((example.song_id, example.target_name, stream))
        assert i < 200
    assert len(seen) == 3 * (3 + 2)  # drums has two mixes, bass one, both the click


def test_example_depends_on_seed_and_i_only(folder):
    def key(example):
        return example.song_id, example.start_s, example.target_name, example.condition

    one, two = (ShardDataset(folder, ["drums", "bass"], n=30) for _ in range(2))
    backwards = [key(two[i]) for i in reversed(range(30))][::-1]
    assert [key(e) for e in one] == backwards
    assert [key(e) for e in ShardDataset(folder, ["drums", "bass"], n=30, seed=1)] != backwards
    copied = pickle.loads(pickle.dumps(one))  # as a DataLoader worker gets it
    assert [key(e) for e in copied] == backwards


def test_condition_weights(folder):
    mixture = {"mixture": 0.5, "metronome": 0.4, "self": 0.1}
    dataset = ShardDataset(folder, "drums", conditions=mixture, n=800)
    names = [dataset[i].condition for i in range(800)]
    assert abs(names.count("metronome") / 800 - 0.4) < 0.05
    assert abs(names.count("self") / 800 - 0.1) < 0.03
    copy = next(e for e in dataset if e.condition == "self")
    assert torch.equal(copy.context_codes, copy.target_codes)
    none = ShardDataset(folder, "drums", conditions="none", n=1)[0]
    assert none.context_codes is None and none.condition == "none"


def test_one_other_stem_as_context(folder):
    dataset = ShardDataset(folder, ["drums", "bass"], conditions="stem", n=40)
    for e in dataset:
        other = {"drums": "bass", "bass": "drums"}[e.target_name]
        start = round(e.start_s * 50)
        song = next(shard for shard in dataset.shards if e.song_id in shard.songs)
        length = e.context_codes.shape[1]
        assert torch.equal(e.context_codes, song.codes(e.song_id, other, start, start + length))
    with pytest.raises(StageLiteError, match="condition 'stem'"):
        ShardDataset(folder, "drums", conditions="stem")


def test_context_lengths_are_drawn_as_stage_draws_them(folder):
    dataset = ShardDataset(folder, "drums", context_s=(5.0, 7.0), whole_context=0.1, n=400)
    lengths = np.array([e.context_codes.shape[1] for e in dataset])
    assert 0.05 < (lengths == 400).mean() < 0.16
    cut = lengths[lengths < 400]
    assert cut.min() >= 250 and cut.max() <= 350 and len(set(cut)) > 50
    for i in range(5):  # the beginning of the window
        example = dataset[i]
        length = example.context_codes.shape[1]
        assert torch.equal(example.context_codes[0], example.target_codes[0, :length])


def test_split(folder):
    assert ShardDataset(folder, "drums", split="test").song_ids == ["song2"]
    assert {e.song_id for e in ShardDataset(folder, "drums", split="train", n=20)} == {
        "song0",
        "song1",
    }


def test_silent_windows_are_not_drawn(tmp_path):
    meta, codes, rms = song(0, n_frames=2000)
    rms["drums"] = [-90.0] * 20 + [-20.0] * 20
    rms["mix:drums"] = [-20.0] * 40
    rms["mix:drums#1"] = [-np.inf] * 40  # never heard
    with ShardWriter(tmp_path, card=512) as writer:
        writer.add(meta, codes, rms)
    dataset = ShardDataset(tmp_path, "drums", conditions="mix", n=100)
    assert min(e.start_s for e in dataset) >= 16.0  # half of 8 s from second 20 on
    assert {int(e.context_codes[2, 0]) for e in dataset} == {STREAMS.index("mix:drums")}


def test_new_condition_needs_no_change(tmp_path):
    with ShardWriter(tmp_path, card=512) as writer:
        writer.add(*song(0, streams=["drums", "humming"]))
    example = ShardDataset(tmp_path, "drums", conditions="humming", n=1)[0]
    assert int(example.context_codes[2, 0]) == 1


def test_length(folder):
    assert len(ShardDataset(folder, ["drums", "bass"])) == int(60 * 2 / 8)
    assert abs(ShardDataset(folder, "drums").hours - 60 / 3600) < 1e-9
    with pytest.raises(IndexError):
        ShardDataset(folder, "drums", n=3)[3]


def test_shuffled_contexts_come_from_other_songs(folder):
    examples = [e for e in ShardDataset(folder, ["drums", "bass"], n=40)]
    per_song = {}
    for example in examples:
        per_song.setdefault(example.song_id, []).append(example)
    examples = [e for group in per_song.values() for e in group[:8]]
    for old, new in zip(examples, shuffle_contexts(examples), strict=True):
        assert torch.equal(old.target_codes, new.target_codes)
        assert not torch.equal(old.context_codes[1, 0], new.context_codes[1, 0])
    with pytest.raises(StageLiteError, match="take more songs"):
        shuffle_contexts(per_song["song0"])


@pytest.mark.parametrize(
    "wish, message",
    [
        ({"targets": "kazoo"}, "no window of 8.0 s for target 'kazoo'"),
        ({"conditions": "hum"}, "no window of 8.0 s for condition 'hum'"),
        ({"window_s": 60.0}, "shorter window"),
        ({"window_s": 0.0}, "at least 1 frame"),
        ({"split": "exam"}, r"splits \['test', 'train'\]"),
        ({"context_s": (5.0, 9.0)}, "longest <= window_s"),
        ({"conditions": {"mix": -1.0}}, "positive weights"),
        ({"targets": []}, "expected names"),
    ],
)
def test_wishes_that_cannot_be_met(folder, wish, message):
    with pytest.raises(StageLiteError, match=message):
        ShardDataset(folder, **({"targets": "drums"} | wish))


def test_broken_files_are_named(folder, tmp_path):
    file = folder / "shard-001.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit
    with pytest.raises(StageLiteError, match=r"shard-001.safetensors is broken: its sha256"):
        ShardDataset(folder, "drums")
    ShardDataset(folder, "drums", verify=False)
    file.write_bytes(whole[:200])
    with pytest.raises(StageLiteError, match=r"shard-001.safetensors is broken or cut short"):
        Shard(file)
    file.unlink()
    ShardDataset(folder, "drums")  # a folder may hold fewer shards than its registry
    with pytest.raises(StageLiteError, match="no token shards in"):
        ShardDataset(tmp_path, "drums")
    (folder / "registry.txt").unlink()
    with pytest.raises(StageLiteError, match=r"registry.txt is missing"):
        ShardDataset(folder, "drums")


def test_the_registry_may_stand_one_folder_above(folder, tmp_path):
    (folder / "registry.txt").unlink()
    write_registry(tmp_path)  # as data_samples/registry.txt lists shards/...
    assert len(ShardDataset(folder, "drums").shards) == 2
    file = folder / "shard-000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(StageLiteError, match=r"shard-000.safetensors is broken: its sha256"):
        ShardDataset(folder, "drums")


def test_foreign_safetensors_and_mixed_codecs_are_refused(folder, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(StageLiteError, match="holds no shard of codes"):
        Shard(tmp_path / "a.safetensors")
    with ShardWriter(tmp_path / "other", card=1024) as writer:
        writer.add(*song(7))
    with pytest.raises(StageLiteError, match="different codecs"):
        ShardDataset([folder, tmp_path / "other"], "drums")
    with pytest.raises(StageLiteError, match="3 ids"):
        ShardDataset([folder, folder], "drums")


def test_writer_refuses_and_leaves_nothing_half_written(tmp_path):
    meta, codes, _ = song(0)
    writer = ShardWriter(tmp_path, card=512)
    writer.add(meta, codes)
    with pytest.raises(StageLiteError, match="added twice"):
        writer.add(meta, codes)
    with pytest.raises(StageLiteError, match=r"shape \(3, 5\); expected \[K, T\] with K = 4"):
        writer.add({"id": "x"}, {"drums": torch.zeros(3, 5, dtype=torch.int64)})
    with pytest.raises(StageLiteError, match="codes from 0 to 512; expected 0 to 511"):
        writer.add({"id": "x"}, {"drums": torch.full((4, 5), 512).tril()})
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "b", card=512) as broken:
        broken.add(meta, codes)
        raise RuntimeError("full disk")
    assert not list((tmp_path / "b").iterdir())


def test_header_is_plain_json(folder):
    from safetensors import safe_open

    with safe_open(folder / "shard-000.safetensors", "numpy") as reader:
        header = json.loads(reader.metadata()["stage_lite_shard"])
    assert [s["id"] for s in header["songs"]] == ["song0", "song1"]
