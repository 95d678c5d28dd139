"""Songs -> shards by any executor: the same bits, nothing lost and nothing twice."""

import functools
import importlib.util
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import make_tiny_model
from songs import own_song
from tokenize_worker import dying_codec

import stage_lite as sl
from stage_lite.codec import save_codec
from stage_lite.errors import StageLiteError
from stage_lite.files import verify_registry
from stage_lite.shard_file import Shard, ShardWriter
from stage_lite.shards import encode_song
from stage_lite.song import open_songs
from stage_lite.tokenization import tokenize_songs

STREAMS = {"targets": ["drums", "bass"], "conditions": {"metronome": 1}}  # three a song
needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="dask[distributed] is not installed: `pip install 'dask[distributed]'` runs this too",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Five songs, a codec, and their shards, two songs each, made by no executor at all."""
    folder = tmp_path_factory.mktemp("tokenize")
    for number in range(5):
        own_song(folder / "songs", number, "valid" if number == 4 else "train", seconds=2.0)
    model = make_tiny_model()
    save_codec(model.codec, model.config.codec, folder / "codec")
    tokens(folder, folder / "plain")
    return folder


def tokens(made: Path, out: Path, executor: Executor | None = None, **more) -> list[Path]:
    given = {"codec": made / "codec", "songs": made / "songs", "songs_per_block": 2}
    settings = given | STREAMS | {"progress": False} | more
    return tokenize_songs(out=out, executor=executor, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_shards_hold_what_encode_song_gives(made):
    files = sorted((made / "plain").glob("*.safetensors"))
    assert [file.name for file in files] == [f"block-0000{n}-000.safetensors" for n in range(3)]
    verify_registry(made / "plain", [file.name for file in files])
    assert [list(Shard(file).songs) for file in files] == [
        ["song0", "song1"], ["song2", "song3"], ["song4"],
    ]  # fmt: skip
    song = open_songs(made / "songs")[3]
    _, codes, _ = encode_song(make_tiny_model().codec, song, ["drums", "bass"], {"metronome": 1})
    shard = Shard(files[1])
    assert set(shard.songs["song3"]["streams"]) == {"drums", "bass", "click"}
    assert all(torch.equal(shard.codes("song3", name), value) for name, value in codes.items())
    assert len(sl.ShardDataset(made / "plain", "drums", conditions="click", window_s=1.0)) > 5


def test_any_executor_makes_the_same_bits(made, tmp_path):
    seen = []
    with ThreadPoolExecutor(2) as threads:
        tokens(made, tmp_path / "threads", threads, progress=lambda *step: seen.append(step))
    with ProcessPoolExecutor(2) as processes:
        files = tokens(made, tmp_path / "processes", processes)
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [file.parent.name for file in files] == ["processes"] * 3
    for name in ("threads", "processes"):
        assert contents(tmp_path / name) == contents(made / "plain")


class Refuses(Executor):
    """An executor that must not be given anything."""

    def submit(self, *_, **__) -> Future:
        raise AssertionError("nothing is left to do")


def test_what_is_there_is_not_made_again(made, tmp_path):
    tokens(made, tmp_path, songs=open_songs(made / "songs")[:3])  # the second block is half full
    before = contents(tmp_path)
    assert list(Shard(tmp_path / "block-00001-000.safetensors").songs) == ["song2"]
    broken = tmp_path / "block-00000-000.safetensors"
    broken.write_bytes(broken.read_bytes()[:100])
    leftover = tmp_path / ".block-00002-000.77.part.safetensors"
    leftover.write_bytes(b"half")
    tokens(made, tmp_path)
    assert contents(tmp_path) == contents(made / "plain") != before
    tokens(made, tmp_path, Refuses())
    assert contents(tmp_path) == contents(made / "plain")


def test_smaller_blocks_take_the_place_of_larger_ones(made, tmp_path):
    tokens(made, tmp_path)
    files = tokens(made, tmp_path, songs_per_block=1)
    assert [list(Shard(file).songs) for file in files] == [[f"song{n}"] for n in range(5)]
    assert sorted(tmp_path.glob("*.safetensors")) == files


def test_half_written_shards_are_not_read(made, tmp_path):
    tokens(made, tmp_path)
    (tmp_path / ".block-00009-000.1.part.safetensors").write_bytes(b"half")
    assert len(sl.ShardDataset(tmp_path, "drums", conditions="click", window_s=1.0).shards) == 3


def test_a_dead_worker_of_a_pool_is_named_and_the_next_call_goes_on(made, tmp_path):
    codec = functools.partial(dying_codec, made / "codec", tmp_path / "died", 4)
    settings = {"codec": codec, "codec_name": Shard(next((made / "plain").glob("*.s*"))).codec}
    out = tmp_path / "out"
    with (
        ProcessPoolExecutor(1) as pool,
        pytest.raises(StageLiteError, match="a worker process died .* of 3 blocks are done"),
    ):
        tokens(made, out, pool, **settings)
    assert (tmp_path / "died").exists()
    assert set(contents(out)) < set(contents(made / "plain"))
    with ProcessPoolExecutor(1) as pool:
        tokens(made, out, pool, **settings)
    assert contents(out) == contents(made / "plain")


@needs_dask
@pytest.mark.slow
def test_a_killed_worker_of_a_dask_cluster_loses_nothing_and_makes_nothing_twice(made, tmp_path):
    from distributed import Client, LocalCluster

    codec = functools.partial(dying_codec, made / "codec", tmp_path / "died", 4)
    name = Shard(next((made / "plain").glob("*.s*"))).codec
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        Client(cluster, timeout=300) as client,
    ):  # fmt: skip
        out = tmp_path / "out"
        tokens(made, out, client.get_executor(), codec=codec, codec_name=name)
    assert (tmp_path / "died").exists()
    assert contents(out) == contents(made / "plain")
    data = sl.ShardDataset(out, "drums", conditions="click", window_s=1.0)
    assert sorted(data.song_ids) == [f"song{n}" for n in range(5)]


def test_songs_of_a_split_may_be_cut_and_stems_be_missing(made, tmp_path):
    for number in range(2):
        own_song(tmp_path / "songs", number, ["train", "test"][number], 3.0, silent=["bass"])
    files = tokens(made, tmp_path / "out", songs=tmp_path / "songs", duration_s={"train": 1.0})
    songs = Shard(files[0]).songs
    assert {s: songs[s]["streams"]["drums"]["n_frames"] for s in songs} == {
        "song0": 50, "song1": 150,
    }  # fmt: skip
    assert "bass" not in songs["song0"]["streams"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"songs": []}, "no songs in"),
        ({"songs_per_block": 0}, "songs_per_block is 0"),
        ({"codec_name": "another"}, "was made with the codec .*this one is 'another'"),
        ({"targets": ["drums"]}, "this call asks for .*drums"),
        ({"songs_per_block": 5}, "holds 2 of the songs, first 'song2'"),
        ({"name_of": lambda number, songs: "x"}, "gives two blocks the same name"),
        ({"codec": "nowhere"}, "no codec in nowhere"),
    ],
)
def test_bad_wishes_are_one_sentence_and_change_nothing(made, wish, message):
    before = contents(made / "plain")
    with pytest.raises(StageLiteError, match=message):
        tokens(made, made / "plain", **wish)
    assert contents(made / "plain") == before


def test_a_song_twice_is_named(made, tmp_path):
    songs = open_songs(made / "songs")
    with pytest.raises(StageLiteError, match="song 'song0' is there twice"):
        tokens(made, tmp_path, songs=[*songs, songs[0]])


def test_a_song_that_cannot_be_read_is_named_and_the_rest_is_kept(made, tmp_path):
    for number in range(2):
        own_song(tmp_path / "songs", number, seconds=1.0)
    (tmp_path / "songs" / "song1" / "drums.flac").write_bytes(b"no audio")
    with pytest.raises(StageLiteError, match="drums.flac is broken"):
        tokens(made, tmp_path / "out", songs=tmp_path / "songs", songs_per_block=1)
    assert "block-00000-000.safetensors" in contents(tmp_path / "out")
    verify_registry(tmp_path / "out")


def test_a_recipe_is_kept_only_where_it_is_given(tmp_path):
    codes = {"drums": torch.zeros(4, 8, dtype=torch.int64)}
    files = []
    for recipe in ("", "as one likes"):
        writer = ShardWriter(tmp_path, card=16, prefix=f"x{len(recipe)}", recipe=recipe)
        writer.add({"id": "a"}, codes)
        writer.flush()
        files += writer.files
    assert [Shard(file).recipe for file in files] == ["", "as one likes"]
    assert b"recipe" not in files[0].read_bytes()


def test_the_corpus_script_is_a_caller_of_this(made, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "pretraining"))
    import tokenize_corpus

    for split, number in (("train", 0), ("valid", 1), ("train", 2)):
        folder = own_song(tmp_path / "made", number, split, seconds=2.0)
        song = tmp_path / "corpus" / f"{split}-1-{number:05d}"
        song.parent.mkdir(exist_ok=True)
        (folder / "song.json").write_text(
            (folder / "song.json").read_text().replace(f'"song{number}"', f'"{song.name}"')
        )
        folder.rename(song)
    command = ["tokenize_corpus.py", "--corpus", tmp_path / "corpus", "--codec", made / "codec",
               "--out", tmp_path / "out", "--train-seconds", "1", "--workers", "1"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    tokenize_corpus.main()
    assert "1 of 1" in capsys.readouterr().out
    (file,) = (tmp_path / "out").glob("*.safetensors")
    assert file.name == "00000-000.safetensors"
    shard = Shard(file)
    assert list(shard.songs) == ["train-1-00000", "valid-1-00001", "train-1-00002"]
    frames = [shard.songs[s]["streams"]["drums"]["n_frames"] for s in shard.songs]
    assert frames == [50, 100, 50] and shard.recipe == ""
    expected = {"drums", "bass", "keys", "guitar", "click", "backing:drums", "backing:bass",
                "mix:drums", "mix:bass", "mix:keys", "mix:guitar"}  # fmt: skip
    assert set(shard.songs["valid-1-00001"]["streams"]) == expected
    before = contents(tmp_path / "out")
    tokenize_corpus.main()
    assert contents(tmp_path / "out") == before
