"""Files of other programs that are broken, names that lead nowhere, machines that are too small:
one sentence each, before anything is changed. And the hub, by a stand-in for its client."""

import json
import shutil
import zipfile

import musicgen_peers as peers
import pytest
import torch
from safetensors.torch import load_file, save_file

import stage_lite as sl
from stage_lite import memory
from stage_lite.interop import hub
from stage_lite.interop.torch_file import write_torch_file
from stage_lite.shipped import PRETRAINED


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The same small model in all forms: transformers, audiocraft, official, ours."""
    root = tmp_path_factory.mktemp("made")
    peers.transformers_musicgen(root / "transformers")
    model = sl.load(root / "transformers")
    sl.interop.save_audiocraft(model, root / "audiocraft", t5="t5-base")
    model.save(root / "ours")
    sl.extend_embedding(model.lm)
    sl.interop.save_official_stage(model, root / "stage.safetensors")
    return root


@pytest.fixture
def work(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def fails(path, message, **settings):
    with pytest.raises(sl.StageLiteError, match=message) as caught:
        sl.load(path, **settings)
    assert caught.value.__cause__ is None
    return str(caught.value)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_pickled_with_code(work, capsys):
    file = work / "audiocraft" / "state_dict.bin"
    good = torch.load(file, weights_only=True)  # not mapped: the file is written over
    torch.save({**good, "best_state": Bomb()}, file)
    fails(work / "audiocraft", r"state_dict.bin is pickled with code \(.*print.*never run")
    torch.save({**good, "extra": Bomb()}, file, _use_new_zipfile_serialization=False)
    fails(work / "audiocraft", r"is pickled with code .*never run")
    from omegaconf import OmegaConf

    torch.save({**good, "xp.cfg": OmegaConf.create({"a": 1})}, file)
    fails(work / "audiocraft", r"is pickled with code \(omegaconf")
    folder = work / "transformers"
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**state, "x": Bomb()}, folder / "pytorch_model.bin")
    fails(folder, r"pytorch_model.bin is pickled with code")
    assert "code ran" not in capsys.readouterr().out
    torch.save(state, folder / "pytorch_model.bin")  # an older folder, of tensors only
    assert sl.load(folder).n_q == peers.N_Q


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("audiocraft", "state_dict.bin"),
        ("audiocraft", "compression_state_dict.bin"),
        ("transformers", "model.safetensors"),
        ("stage.safetensors", ""),
        ("ours", "lm.safetensors"),
        ("ours", "t5/model.safetensors"),
    ],
)
@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_cut_short(work, path, file, keep):
    target = work / path / file if file else work / path
    whole = target.read_bytes()
    target.write_bytes(whole[: keep if keep >= 0 else len(whole) - 40])
    message = fails(work / path, r"cut short|no torch file|is not the file|broken")
    assert target.name in message


def test_half_downloaded_folders(work):
    fails(work / "nothing", "there is no model .*a folder that model.save")
    (work / "audiocraft" / "compression_state_dict.bin").unlink()
    fails(work / "audiocraft", "holds state_dict.bin and no compression_state_dict.bin; the down")
    (work / "codec_only").mkdir()
    shutil.copy(made_codec(work), work / "codec_only" / "compression_state_dict.bin")
    fails(work / "codec_only", "holds compression_state_dict.bin and no state_dict.bin")
    (work / "transformers" / "model.safetensors").unlink()
    fails(work / "transformers", "holds config.json and no model.safetensors; the download was not")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1f0c\nsize 6514108999\n"
    (work / "transformers" / "model.safetensors").write_text(pointer)
    fails(work / "transformers", "it is a pointer of Git LFS")
    (work / "audiocraft" / "state_dict.bin").write_text(pointer)
    fails(work / "audiocraft", "no torch file: it is a pointer of Git LFS")
    (work / "transformers" / "config.json").write_text("{")
    fails(work / "transformers", "config.json is not JSON")
    (work / "song.wav").write_bytes(b"RIFF")
    fails(work / "song.wav", r"a file of the kind '.wav'; expected a folder, or the official")


def made_codec(work):
    codec = work / "codec.bin"
    write_torch_file(codec, {"pretrained": "facebook/encodec_32khz"})
    return codec


def change(path, **changes):
    """Rewrite tensors of a safetensors file: None removes, a name renames, a function reshapes."""
    state = load_file(path)
    for name, how in changes.items():
        tensor = state.pop(name)
        if isinstance(how, str):
            state[how] = tensor
        elif how is not None:
            state[name] = how(tensor).contiguous()
    save_file(state, path)


def half(tensor):
    return tensor[: len(tensor) // 2]


def test_renamed_and_reshaped_tensors(work):
    official, ours = work / "stage.safetensors", work / "transformers" / "model.safetensors"
    for path, file, prefix, layer, emb in [
        (official, official, "lm.decoder.", "attn_layers.layers.4.1.to_k.weight",
         "token_emb.emb.0.weight"),
        (work / "transformers", ours, "decoder.model.decoder.",
         "layers.1.encoder_attn.k_proj.weight", "embed_tokens.0.weight"),
    ]:  # fmt: skip
        heads = {"num_heads": peers.HEADS} if path is official else {}
        good = file.read_bytes()
        name = prefix + layer
        for changes, message in [
            ({name: None}, f"there is no tensor '{name}'; expected all"),
            ({name: f"{name}.old"}, f"there is no tensor '{name}'"),
            ({name: half}, rf"{name} has shape \[16, 32\]; expected \[32, 32\]"),
            ({prefix + emb: half}, r"has [89] rows and .* 16: expected 17"),
            ({prefix + emb: "lm.x"}, "there is no tensor '.*emb|no checkpoint of|first 'lm.x'"),
        ]:
            change(file, **changes)
            fails(path, message, **heads)
            file.write_bytes(good)
        state = load_file(file)
        save_file({**state, prefix + "rotary.weight": torch.zeros(3)}, file)
        fails(path, f"left over, first '{prefix}rotary.weight'", **heads)
        file.write_bytes(good)

    for part, message in [
        ("encodec_model.encoder.model.0.conv.conv.bias", "codec has no tensor 'encoder.model.0"),
        ("condition_provider.embedders.description.t5.encoder.final_layer_norm.weight",
         "no tensor 'encoder.final_layer_norm.weight' of its text encoder"),
        ("condition_provider.embedders.description.output_proj.bias",
         "no tensor 'condition_provider.embedders.description.output_proj.bias'"),
    ]:  # fmt: skip
        good = official.read_bytes()
        change(official, **{part: None})
        fails(official, message, num_heads=peers.HEADS)
        official.write_bytes(good)
    change(ours, **{"audio_encoder.quantizer.layers.0.codebook.embed": half})
    fails(work / "transformers", r"embed has shape \[8, 8\]; expected \[16, 8\]")


def test_renamed_in_audiocrafts_file(work):
    file = work / "audiocraft" / "state_dict.bin"
    good = torch.load(file, weights_only=True)
    state = good["best_state"]
    for changed, message in [
        ({"model": state}, r"holds 'model' and no 'best_state' and no 'xp.cfg'"),
        ({**good, "best_state": 3}, "'best_state' is no dictionary of tensors"),
        ({**good, "xp.cfg": 3}, "'xp.cfg' is a int; expected the text"),
        ({**good, "best_state": {f"model.{n}": v for n, v in state.items()}},
         "there is no tensor 'emb.0.weight', but model.condition_provider"),
        ({**good, "best_state": state | {"out_norm.bias": torch.zeros(3)}},
         r"out_norm.bias has shape \[3\]; expected \[32\]"),
        ([1, 2], "holds a list; expected a dictionary"),
    ]:  # fmt: skip
        write_torch_file(file, changed) if isinstance(changed, dict) else torch.save(changed, file)
        fails(work / "audiocraft", message)


def test_a_zip_that_is_no_torch_file(work):
    with zipfile.ZipFile(work / "audiocraft" / "state_dict.bin", "w") as archive:
        archive.writestr("readme.txt", "hello")
    fails(work / "audiocraft", "state_dict.bin is broken or cut short")


def test_code_in_any_file(work, capsys):
    codec = work / "audiocraft" / "compression_state_dict.bin"
    torch.save({**torch.load(codec, weights_only=True), "best_state": Bomb()}, codec)
    fails(work / "audiocraft", "compression_state_dict.bin is pickled with code")
    t5 = peers.t5_folder(work / "t5")
    state = load_file(t5 / "model.safetensors")
    (t5 / "model.safetensors").unlink()
    torch.save({**state, "x": Bomb()}, t5 / "pytorch_model.bin")
    fails(work / "transformers", r"pytorch_model.bin is pickled with code \(.*print", t5=t5)
    torch.save(state, t5 / "pytorch_model.bin")  # an older folder, of tensors only
    assert sl.load(work / "transformers", t5=t5).n_q == peers.N_Q
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("path", ["transformers", "audiocraft", "stage.safetensors", "ours"])
def test_a_wrong_t5(made, tmp_path, path):
    """Its vectors are as wide as no projection of the model."""
    wrong = peers.t5_folder(tmp_path / "wide", d_model=peers.TEXT_DIM + 8)
    fails(made / path, "is the wrong T5 for this model: its vectors have 32 numbers", t5=wrong)
    fails(made / path, "there is no|holds no config.json|no T5", t5=tmp_path)


def test_a_cache_that_is_half_there(work, monkeypatch, tmp_path):
    """The hub client's folders hold links; a download that broke off leaves some of them."""
    folder = work / "transformers"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    (folder / "model.safetensors.incomplete").write_bytes(b"123")
    fails(folder, "holds config.json and no model.safetensors; the download was not finished")
    client = Hub(monkeypatch, {"facebook/musicgen-small": work / "audiocraft"})
    client.cached.add(("facebook/musicgen-small", "state_dict.bin"))
    client.error = ConnectionError("no route")
    message = fails("facebook/musicgen-small", "could not download .*compression_state_dict.bin")
    assert "no network" in message and "stage_lite.load('the/folder'" in message


def test_fp16_on_a_cpu(made):
    for path in ("transformers", "audiocraft", "stage.safetensors", "ours"):
        fails(made / path, "dtype is 'fp16' on a CPU, where half precision", dtype="fp16")
    fails(made / "ours", r"dtype is 'int4'; expected one of \['bf16', 'fp16',", dtype="int4")
    model = sl.load(made / "ours")
    model.lm.half()
    with pytest.raises(sl.StageLiteError, match=r"fp16 on a CPU.*Try: model.lm.float\(\)"):
        model.generate(duration_s=0.002)
    model.lm.float()
    assert model.generate(duration_s=0.002).codes.shape[-1] == 8


def test_too_little_memory(made, monkeypatch):
    """Said before anything is read, with what is needed and what is there."""
    for path in ("transformers", "audiocraft", "stage.safetensors", "ours"):
        monkeypatch.setattr(memory, "available_bytes", lambda device: memory.SPARE + 20_000)
        fails(made / path, r"needs 0\.3 GB of memory, 0\.3 GB are free\. Try: a smaller model")
        monkeypatch.setattr(
            memory, "available_bytes", lambda device: None
        )  # the system does not say
        assert sl.load(made / path).n_q == peers.N_Q
    monkeypatch.setattr(memory, "available_bytes", lambda device: int(9e9))
    with pytest.raises(sl.StageLiteError, match=r"musicgen-large needs 13.3 GB of memory, 9.0 GB"):
        sl.load("facebook/musicgen-large")
    with pytest.raises(sl.StageLiteError, match="could not download"):
        sl.load("facebook/musicgen-large", dtype="bf16")  # half of it would fit


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facebook/musicgen-melody", "MusicGen-melody also listens to a melody, which"),
        ("facebook/musicgen-stereo-small", "a stereo MusicGen has eight codebooks"),
        ("facebook/musicgen-style", "MusicGen-style also listens"),
        ("facebook/magnet-small-10secs", "MAGNeT writes in any order"),
        ("facebook/musicgen-small", r"no network.*stage_lite.load\('the/folder', t5='folder of t5"),
        ("hf://facebook/musicgen-medium", "could not download .* of facebook/musicgen-medium"),
        ("https://huggingface.co/facebook/musicgen-small", "of facebook/musicgen-small from"),
        ("someone/their-musicgen", "could not download .* of someone/their-musicgen"),
        (
            "stage-drums",
            r"drive folder that github.com/giorgioskij/stage links to.*drums.safe",
        ),
        ("stage-bass", "stage-bass.safetensors"),
        (
            "musicgen-small",
            r"there is no model 'musicgen-small'; expected one of .*facebook/mus",
        ),
        ("https://example.com/a/b/c", "there is no model"),
    ],
)
def test_names_without_a_network(name, message, capsys):
    with pytest.raises(sl.StageLiteError, match=message) as caught:
        sl.load(name)
    assert "\n" not in str(caught.value)


class Hub:
    """A stand-in for the hub's client: repositories as folders."""

    def __init__(self, monkeypatch, repositories, error=None):
        import huggingface_hub

        self.repositories, self.error, self.cached, self.fetched = repositories, error, set(), []
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def download(self, repo, file, local_files_only=False):
        from huggingface_hub import errors

        path = self.repositories.get(repo, peers.Path("/nowhere")) / file
        if local_files_only:
            if (repo, file) in self.cached:
                return str(path)
            raise errors.LocalEntryNotFoundError("not in the cache")
        if self.error:
            raise self.error
        if not path.is_file():
            raise errors.EntryNotFoundError(f"404: {file}")
        self.cached.add((repo, file))
        self.fetched.append(file)
        return str(path)


def test_the_hub_by_name(work, monkeypatch, capsys):
    """Announced with size and licence, fetched once, then from the cache; both forms of files."""
    client = Hub(monkeypatch, {
        "facebook/musicgen-small": work / "audiocraft",
        "someone/tuned": work / "transformers",
        hub.STAGE_REPO: work,
    })  # fmt: skip
    model = sl.load("facebook/musicgen-small")
    said = capsys.readouterr().err
    assert "about 1.1 GB" in said and "CC-BY-NC 4.0: for non-commercial use only" in said
    assert client.fetched == ["state_dict.bin", "compression_state_dict.bin"]
    assert model.config.name == "facebook/musicgen-small" and model.config.lm.t5 == "t5-base"
    client.error = OSError("no route to host")
    assert sl.load("hf://facebook/musicgen-small").n_q == 4
    assert capsys.readouterr().err == "" and len(client.fetched) == 2
    client.error = None

    assert sl.load("someone/tuned").config.name == "someone/tuned"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(client.fetched)
    shutil.copy(work / "stage.safetensors", work / "stage-drums.safetensors")
    drums = sl.load("stage-drums")
    assert drums.config.name == "stage-drums" and drums.config.anchor_frames == -2
    fails("stage-bass", r"holds no stage-bass.safetensors; expected a repository with")


def test_what_the_hub_can_answer(work, monkeypatch):
    from huggingface_hub import errors

    def http(kind):
        error = kind.__new__(kind)
        OSError.__init__(error, f"{kind.__name__} says the hub")
        return error

    for error, message in [
        (
            http(errors.RepositoryNotFoundError),
            "the hub has no repository 'facebook/musicgen-s",
        ),
        (http(errors.GatedRepoError), "asks its readers to accept its terms first"),
        (
            http(errors.HfHubHTTPError),
            r"could not download .*\(HfHubHTTPError: HfHubHTTPE",
        ),
        (errors.OfflineModeIsEnabled("off"), r"no network.*\(OfflineModeIsEnabled: off\)"),
        (ConnectionError("no route"), r"no network.*\(ConnectionError: no route\)"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ]:
        Hub(monkeypatch, {}, error)
        fails("facebook/musicgen-small", message)


def test_a_codec_from_elsewhere(made, tmp_path):
    with pytest.raises(sl.StageLiteError, match="is no folder; expected one that holds a codec"):
        sl.load(made / "audiocraft", codec=tmp_path / "none")
    with pytest.raises(sl.StageLiteError, match="holds no codec: expected codec.safetensors"):
        sl.load(made / "audiocraft", codec=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dac"}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(sl.StageLiteError, match="a model of type 'dac'; expected 'encodec'"):
        sl.load(made / "audiocraft", codec=tmp_path)
    with pytest.raises(sl.StageLiteError, match="expected the codec of its training"):
        sl.load(made / "audiocraft", codec=PRETRAINED / "nano-codec")
