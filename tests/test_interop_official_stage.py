"""The authors' STAGE: an x-transformers decoder under their names beside our model.

The peer is x-transformers itself, put together as their checkpoints need it; masks and positions
are theirs: every step at which all codebooks hold the special token before the context token is
hidden, and positions begin behind it.
"""

import musicgen_peers as peers
import pytest
import torch
from safetensors.torch import load_file, save_file

import stage_lite as sl
from stage_lite.codec import CodecConfig, build_codec
from stage_lite.interop.codec_tensors import codec_to_official_stage
from stage_lite.interop.t5 import read_t5
from stage_lite.prefix import OFFICIAL

pytest.importorskip("x_transformers", reason="needs x-transformers==1.26.0 (no dependencies)")

IDS = {"special_token_id": peers.CARD, "context_token_id": peers.CARD + 1}
CODEC = CodecConfig(
    n_filters_encoder=2, n_filters_decoder=2, dimension=8, ratios=peers.RATIOS, card=peers.CARD,
    lstm=1, pad_mode="reflect",
)  # fmt: skip


@pytest.fixture(scope="module")
def official():
    return peers.OfficialStage()


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return peers.t5_folder(tmp_path_factory.mktemp("t5") / "t5")


@pytest.fixture(scope="module")
def file(official, t5, tmp_path_factory):
    """All of their Lightning module: language model, projection, T5, codec."""
    codec = build_codec(CODEC, seed=3)
    for layer in codec.quantizer.vq.layers:
        generator = torch.Generator().manual_seed(3)
        layer._codebook.embed.copy_(torch.randn(peers.CARD, 8, generator=generator) * 0.1)
        layer._codebook.inited.fill_(1)
    encoder = read_t5(t5).encoder.state_dict()
    reader = "condition_provider.embedders.description"
    state = dict(official.state_dict()) | codec_to_official_stage(codec)
    state |= {
        f"{reader}.t5.{n}": v for n, v in encoder.items() if n != "encoder.embed_tokens.weight"
    }
    path = tmp_path_factory.mktemp("stage") / "stage-tiny.safetensors"
    save_file({n: v.contiguous() for n, v in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def codes():
    generator = torch.Generator().manual_seed(5)
    return lambda *shape: torch.randint(0, peers.CARD, shape, generator=generator)


def their_sequence(contexts, target):
    """Frames [context | token | target], padded on the left, delayed; and what is attended to."""
    width = max(c.shape[1] for c in contexts)
    frames = [
        torch.cat([
            torch.full((peers.N_Q, width - c.shape[1]), peers.CARD), c,
            torch.full((peers.N_Q, 1), peers.CARD + 1), t,
        ], dim=1)
        for c, t in zip(contexts, target, strict=True)
    ]  # fmt: skip
    from stage_lite.delay import shift

    sequence = shift(torch.stack(frames), peers.CARD)
    before = torch.arange(sequence.shape[2]) <= width + torch.arange(peers.N_Q)[:, None]  # [K, S]
    hidden = ((sequence == peers.CARD) & before).all(1)
    return sequence, ~hidden


def test_names_are_those_of_the_facts(official):
    names = sl.interop.lm_to_official_stage(
        sl.interop.lm_from_official_stage(official.state_dict())
    )
    assert names.keys() == official.state_dict().keys()
    assert "lm.decoder.attn_layers.layers.5.1.ff.2.weight" in names
    for name, tensor in official.state_dict().items():
        assert torch.equal(names[name], tensor), name


@pytest.mark.parametrize("with_text", [True, False])
def test_logits_with_context_dropped_and_padded(official, codes, with_text):
    """Rows: a full context, a shorter one padded on the left, a dropped one."""
    lm = sl.interop.lm_from_official_stage(official.state_dict())
    assert not lm.emb[0].weight[peers.CARD].any()  # their special token's row
    assert lm.emb[0].weight.shape == (peers.CARD + 2, 128)
    contexts = [codes(4, 6), codes(4, 3), codes(4, 0)]
    target = codes(3, 4, 5)
    sequence, mask = their_sequence(contexts, target)
    text = torch.randn(3, 4, 128, generator=torch.Generator().manual_seed(2)) if with_text else None
    with torch.no_grad():
        expected = official(sequence, mask, text)

    given = [contexts[0], contexts[1], None]
    p = sl.build_prefix(given, target, **IDS, anchor_frames=OFFICIAL)
    assert torch.equal(p.sequence, sequence) and torch.equal(p.attention_mask, mask)
    first = mask.int().argmax(1, keepdim=True)
    steps = torch.arange(sequence.shape[2])
    assert torch.equal(p.positions, (steps - first).clamp(min=0))
    assert first.flatten().tolist() == [1, 4, 7]
    ours = sl.forward(lm, p.sequence, p.attention_mask, p.positions, text=text)
    seen = mask[:, None, :, None].expand_as(ours)
    assert expected[seen].std() > 0.3
    torch.testing.assert_close(ours[seen], expected[seen], rtol=0, atol=1e-4)

    dropped = torch.tensor([False, False, True])
    also = sl.build_prefix(
        [*given[:2], codes(4, 2)], target, **IDS, context_dropped=dropped, anchor_frames=OFFICIAL
    )
    assert torch.equal(also.sequence, sequence) and torch.equal(also.attention_mask, mask)


def test_any_mask_on_the_left_gives_their_logits(official, codes):
    """Also with this library's own layout of the prefix, in which the first step is seen."""
    lm = sl.interop.lm_from_official_stage(official.state_dict())
    p = sl.build_prefix([codes(4, 6), codes(4, 2), None], codes(3, 4, 5), **IDS)
    with torch.no_grad():
        expected = official(p.sequence, p.attention_mask)
    ours = sl.forward(lm, p.sequence, p.attention_mask, p.positions)
    seen = p.attention_mask[:, None, :, None].expand_as(ours)
    torch.testing.assert_close(ours[seen], expected[seen], rtol=0, atol=1e-4)


def their_greedy(official, context, text, n_frames, cfg_coef=3.0):
    """Their loop: all of the prefix again at every step, the second branch without its conditions;
    here with the likeliest code in place of a draw."""
    target = torch.full((2, peers.N_Q, n_frames), -1)
    empty = torch.full_like(context, peers.CARD)
    sequence, mask = their_sequence([context, empty], target)
    texts = torch.cat([text, torch.zeros_like(text)])
    for step in range(context.shape[1] + 2, sequence.shape[2]):
        with torch.no_grad():
            logits = official(sequence[:, :, :step], mask[:, :step], texts)[:, :, -1]
        best = (logits[1] + cfg_coef * (logits[0] - logits[1])).argmax(-1)  # [K]
        unknown = sequence[:, :, step] == -1
        sequence[:, :, step] = torch.where(unknown, best, sequence[:, :, step])
    start = context.shape[1] + 2
    return torch.stack([
        sequence[0, k, start + k : start + k + n_frames] for k in range(peers.N_Q)
    ])  # fmt: skip


@pytest.mark.parametrize("n_context", [7, 0])
def test_generate_writes_their_greedy_codes(official, file, t5, n_context):
    model = sl.load(file, t5=t5)
    wav = torch.randn(1, n_context * 8, generator=torch.Generator().manual_seed(4)) * 0.3
    context = model.encode(wav, 32000)[0] if n_context else torch.zeros(4, 0, dtype=torch.long)
    from stage_lite.text import encode_text

    words = "bossa nova, two hands"
    text, _ = encode_text(model.lm, [words])
    expected = their_greedy(official, context, text.detach(), 9)
    out = model.generate(
        wav if n_context else None, 32000 if n_context else None, words,
        duration_s=9 / model.frame_rate, temperature=0, cfg_coef=3.0,
    )  # fmt: skip
    assert expected.unique().numel() > 3
    assert torch.equal(out.codes[0], expected)


def test_the_file_brings_codec_and_t5(file, t5, official):
    model = sl.load(file)
    assert model.config.codec == CODEC
    assert (model.config.trained_s, model.config.anchor_frames) == (10.0, OFFICIAL)
    assert model.config.lm.context_token and model.config.lm.num_heads == 2
    assert model.config.lm.word_dropout == 0.3
    reader = model.lm.condition_provider.conditioners["description"]
    theirs = read_t5(t5).encoder
    ids = torch.tensor([[4, 5, 1]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        inner = reader._t5.encoder(ids, mask).last_hidden_state
        # sizes read off the tensors: heads, buckets, width of a head
        torch.testing.assert_close(inner, theirs(ids, mask).last_hidden_state, rtol=0, atol=1e-6)
    with pytest.raises(sl.StageLiteError, match=r"tokenizer.json of t5-base.*no network"):
        model.generate(description="rock", duration_s=0.002)
    assert model.generate(duration_s=0.002).codes.shape[-1] == 8  # no text, no tokenizer


def test_names_of_their_codec_are_torchs_own(file):
    """They normalise weights by torch's newer parametrization: the same numbers, other names."""
    codec = sl.load(file).codec
    state = codec_to_official_stage(codec)
    wav = torch.randn(1, 1, 80, generator=torch.Generator().manual_seed(4)) * 0.3
    before = codec(wav).x
    for module in codec.modules():
        if hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)
            torch.nn.utils.parametrizations.weight_norm(module)
    theirs = {f"encodec_model.{name}" for name in codec.state_dict()}
    assert theirs == state.keys()
    codec.load_state_dict({n.removeprefix("encodec_model."): v for n, v in state.items()})
    torch.testing.assert_close(codec(wav).x, before, rtol=0, atol=1e-6)


def test_a_model_written_out_under_their_names(file, t5, official, tmp_path):
    model = sl.load(file, t5=t5)
    written = sl.interop.save_official_stage(model, tmp_path / "mine.safetensors")
    before, after = load_file(file), load_file(written)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    peer = peers.OfficialStage(seed=9)
    peer.load_state_dict({n: after[n] for n in peer.state_dict()})  # strict
    settings = {"duration_s": 0.002, "temperature": 0, "description": "rock"}
    wav = torch.randn(1, 64, generator=torch.Generator().manual_seed(4)) * 0.3
    expected = model.generate(wav, 32000, **settings).codes
    model.save(tmp_path / "folder")
    for again in (sl.load(written, t5=t5), sl.load(tmp_path / "folder")):
        assert torch.equal(again.generate(wav, 32000, **settings).codes, expected)
        assert again.config.anchor_frames == OFFICIAL
    with pytest.raises(sl.StageLiteError, match="context token is there already"):
        sl.extend_embedding(model.lm)


def test_other_widths_of_heads_come_back(tmp_path):
    """A file written here says how many heads it has; without that they have 64 numbers."""
    peers.transformers_musicgen(tmp_path / "hf")
    model = sl.load(tmp_path / "hf")
    with pytest.raises(sl.StageLiteError, match="has no context token; the official STAGE needs"):
        sl.interop.save_official_stage(model, tmp_path / "x.safetensors")
    sl.extend_embedding(model.lm)
    file = sl.interop.save_official_stage(model, tmp_path / "x.safetensors")
    again = sl.load(file)
    assert again.config.lm.num_heads == peers.HEADS
    for name, tensor in model.lm.state_dict().items():
        assert torch.equal(again.lm.state_dict()[name], tensor)
    with pytest.raises(sl.StageLiteError, match=r"the width is 32, no multiple of 64.*num_heads="):
        sl.interop.lm_from_official_stage(load_file(file))


def test_the_language_model_alone(official, codes):
    """Their inner state dict, without `lm.` and with the projection where they first kept it."""
    state = {
        n.removeprefix("lm.").replace("condition_provider.embedders.description", "conditioner"): v
        for n, v in official.state_dict().items()
    }
    lm = sl.interop.lm_from_official_stage(state)
    whole = sl.interop.lm_from_official_stage(official.state_dict())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(lm.state_dict()[name], tensor)
    with pytest.warns(UserWarning, match="descriptions will have no effect"):
        sl.interop.lm_from_official_stage(
            {n: v for n, v in state.items() if not n.startswith("conditioner")}
        )


def test_full_size_names():
    """stage-drums at its full size, by shape; nothing is allocated."""
    from stage_lite.interop.build import empty_lm, read_sizes
    from stage_lite.interop.names import OFFICIAL_STAGE
    from stage_lite.interop.t5 import make_reader
    from stage_lite.lm_config import LMConfig

    config = LMConfig(
        card=2048, dim=1024, num_layers=24, num_heads=16, t5="t5-base", context_token=True
    )
    with torch.device("meta"):
        reader = make_reader("t5-base", 1024)
    own = empty_lm(config, reader).state_dict()
    state = {}
    for name, theirs in OFFICIAL_STAGE.names(4, 24).items():
        for new, tensor in zip(theirs, own[name].chunk(len(theirs)), strict=True):
            state[new] = tensor
    assert state["lm.decoder.token_emb.emb.3.weight"].shape == (2050, 1024)
    assert state["lm.decoder.attn_layers.layers.70.1.to_k.weight"].shape == (1024, 1024)
    assert "lm.decoder.attn_layers.layers.71.1.ff.0.0.weight" in state
    assert read_sizes(state, OFFICIAL_STAGE)[0] == config
