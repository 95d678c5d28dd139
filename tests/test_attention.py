"""What a target step looks at: audiocraft's own attention; frames, diagonals, heads cut."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import stage_lite as sl
from stage_lite.attention import (
    diagonal,
    frame_attention,
    head_effects,
    head_table,
    lag_profile,
    layout,
    shares,
    text_attention,
    without_heads,
)
from stage_lite.batch import make_batch
from stage_lite.errors import StageLiteError
from stage_lite.examples import Example
from stage_lite.listening import context_losses
from stage_lite.lm import forward, join_heads, run_layers, split_qkv
from stage_lite.lm_weights import weights_of
from stage_lite.upstream import audiocraft_classes


def example(context_frames=30, frames=20, description="drums rock", song="a", seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (4, max(context_frames or 0, 0) + frames), generator=generator)
    return Example(
        target=None, context=None, description=description, beat_times=np.array([0.1]),
        downbeat_times=np.array([0.1]), song_id=song, start_s=0.0, duration_s=frames / 50,
        condition="mixture", target_codes=codes[:, :frames],
        context_codes=None if context_frames is None else codes[:, frames:],
    )  # fmt: skip


def generated(model, **options):
    context = torch.rand(1, 16000, generator=torch.Generator().manual_seed(0)) - 0.5
    options = {"context": context, "context_sample_rate": 32000, "duration_s": 0.4, "seed": 0,
               "description": "drums rock"} | options  # fmt: skip
    return model.generate(**options)


def by_hand(model, sequence, description):
    """Attention [layer, head, S, S] out of what audiocraft's own forward pass hands its layers."""
    seen = []
    hooks = [
        layer.self_attn.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        for layer in model.lm.transformer.layers
    ]
    condition = audiocraft_classes().ConditioningAttributes(text={"description": description})
    with torch.no_grad():
        model.lm(sequence, [condition])
    for hook in hooks:
        hook.remove()
    found = []
    for layer, x in zip(model.lm.transformer.layers, seen, strict=True):
        q, k, _ = (x @ layer.self_attn.in_proj_weight.T).chunk(3, -1)
        heads = []
        for qh, kh in zip(q[0].split(16, -1), k[0].split(16, -1), strict=True):
            scores = qh @ kh.T / math.sqrt(16)
            future = torch.ones_like(scores, dtype=torch.bool).triu(1)
            heads.append(scores.masked_fill(future, -torch.inf).softmax(-1))
        found.append(torch.stack(heads))
    return torch.stack(found).detach()


@pytest.mark.parametrize("description", ["drums rock", None])
def test_equal_to_audiocrafts_attention(tiny_model, description):
    out = generated(tiny_model, description=description)
    att = sl.attention(tiny_model, out)
    full = by_hand(tiny_model, out.sequence, description)
    start = out.prefix.target_start
    assert att.shape == (2, 2, 20 + 4 - 1, 25 + 2)
    torch.testing.assert_close(att, full[:, :, start:, :start], rtol=0, atol=1e-5)
    assert att.min() >= 0 and not att.requires_grad
    own = full[:, :, start:, start:].sum(-1)
    torch.testing.assert_close(att.sum(-1) + own, torch.ones_like(own), rtol=0, atol=1e-5)
    assert (att.sum(-1) < 1).all()
    assert att.untyped_storage().nbytes() == 4 * att.numel()  # nothing of the rest is kept alive


def test_chosen_layers_heads_and_steps(tiny_model):
    out = generated(tiny_model)
    att = sl.attention(tiny_model, out)
    part = sl.attention(tiny_model, out, layers=[1, 0], heads=[1], steps=[7, 0, 22])
    assert torch.equal(part, att[[1, 0]][:, [1]][:, :, [7, 0, 22]])
    text, n_words = text_attention(tiny_model, out)
    again, _ = text_attention(tiny_model, out, layers=[1], heads=[1, 0], steps=[3])
    assert torch.equal(again, text[[1]][:, [1, 0]][:, :, [3]])
    assert n_words == 2 and text.shape == (2, 2, 23, 8)
    torch.testing.assert_close(text.sum(-1), torch.ones(2, 2, 23))


def test_rows_of_a_batch_see_what_they_see_alone(tiny_model):
    rows = [example(30), example(12, seed=1, description="bass"), example(None, seed=2),
            example(0, seed=3, description="")]  # fmt: skip
    batch = make_batch(tiny_model, rows)
    for b, (one, n_context) in enumerate(zip(rows, [30, 12, 0, 0], strict=True)):
        att = sl.attention(tiny_model, batch, row=b)
        alone = make_batch(tiny_model, [one])
        expected = sl.attention(tiny_model, alone)
        pad = att.shape[3] - expected.shape[3]
        assert not att[..., :pad].any()  # padding is never looked at
        torch.testing.assert_close(att[..., pad:], expected, rtol=0, atol=1e-5)
        where = layout(batch, b)
        assert (where.start, where.n_context, where.n_target) == (pad, n_context, 20)
        assert where.token == (None if b == 2 else 31)
        assert layout(alone).start == 0
        assert att.sum(-1).max() <= 1 + 1e-5


def test_what_a_masked_or_later_step_holds_changes_nothing(tiny_model):
    batch = make_batch(tiny_model, [example(30), example(12)])
    att = sl.attention(tiny_model, batch, row=1)
    batch.inputs[1, :, : layout(batch, 1).start] = 5  # padding
    batch.inputs[1, :, 40:] = 3  # the target from its step 8 on
    again = sl.attention(tiny_model, batch, row=1)
    torch.testing.assert_close(again[:, :, :8], att[:, :, :8], rtol=0, atol=1e-6)
    assert (again[:, :, 8:] - att[:, :, 8:]).abs().max() > 1e-4


def test_frames_are_where_codebook_0_holds_them(tiny_model):
    batch = make_batch(tiny_model, [example(30), example(12)])
    for b, n_context in enumerate((30, 12)):
        where, att = layout(batch, b), sl.attention(tiny_model, batch, row=b)
        held = batch.inputs[b, 0]
        first = example(n_context).context_codes[0]
        assert torch.equal(held[where.context], first)
        assert held[where.token] == tiny_model.context_token_id
        start = batch.prefix.target_start
        assert torch.equal(held[start : start + 20], example(n_context).target_codes[0])
        frames = frame_attention(att, batch, b)
        assert torch.equal(frames, att[:, :, :20, where.context])
        parts = shares(att, batch, b)
        total = sum(parts.values())
        torch.testing.assert_close(total, torch.ones_like(total))
        torch.testing.assert_close(parts["context"], frames.sum(-1).mean(-1))


def test_without_context_only_the_start_is_left(tiny_model):
    out = generated(tiny_model, context=None)
    att = sl.attention(tiny_model, out)
    assert att.shape == (2, 2, 23, 1)
    where = shares(att, out)
    assert not where["context"].any() and not where["token"].any() and where["start"].all()
    with pytest.raises(StageLiteError, match="row 0 has no context"):
        frame_attention(att, out)
    with pytest.raises(StageLiteError, match="no row has a context"):
        head_table(tiny_model, out)


# --- alignment -----------------------------------------------------------------------------------


def test_diagonals_beside_chance():
    n = 100
    own = torch.eye(n)
    everywhere = torch.full((n, n), 1 / n)
    stripe = torch.zeros(n, n)
    stripe[:, 40] = 1.0  # always the same frame
    late = torch.zeros(n, n)
    late[torch.arange(80), torch.arange(80) + 20] = 1.0
    frames = torch.stack([own, everywhere, stripe, late])[None]  # [1, 4, T, Tc]
    score, chance = diagonal(frames, 50.0, tolerance_s=0.1)
    near = 1070 / n**2  # 11 of 100 columns, fewer at the ends
    torch.testing.assert_close(score[0, :2], torch.tensor([1.0, near]))
    torch.testing.assert_close(chance[0, :3], torch.tensor([near, near, 11 / n]))
    assert score[0, 2] == pytest.approx(11 / n)
    assert score[0, 3] == 0
    score, _ = diagonal(frames, 50.0, lag_s=0.4)
    assert score[0, 3] == 1 and score[0, 0] == 0
    lags, profile = lag_profile(frames)
    assert lags[0] == -75 and lags[-1] == 75
    assert lags[int(profile[0, 0].nan_to_num().argmax())] == 0
    assert lags[int(profile[0, 3].nan_to_num().argmax())] == 20
    torch.testing.assert_close(profile[0, 1], torch.ones(151))


def test_a_target_that_goes_on_after_its_context():
    frames = torch.zeros(1, 2, 60, 20)
    frames[0, 0, torch.arange(20), torch.arange(20)] = 0.3
    frames[0, 0, 30:] = 0.5  # beyond the context there is no own time
    score, chance = diagonal(frames, 50.0, tolerance_s=0.0)
    assert score[0, 0] == 1 and chance[0, 0] == pytest.approx(1 / 20)
    assert score[0, 1].isnan() and chance[0, 1].isnan()  # gives the context nothing
    with pytest.raises(StageLiteError, match=r"its time \+1 s in a context of 0.4 s"):
        diagonal(frames, 50.0, lag_s=1.0)
    with pytest.raises(StageLiteError, match="tolerance_s is -1"):
        diagonal(frames, 50.0, tolerance_s=-1.0)


def test_head_table_is_the_mean_of_its_rows(tiny_model):
    batch = make_batch(tiny_model, [example(30), example(None, seed=4), example(25, seed=1)])
    table = head_table(tiny_model, batch)
    assert list(table.columns) == [
        "layer", "head", "diagonal", "chance", "lag_s", "context", "token", "start", "own_past",
        "text",
    ]  # fmt: skip
    assert table[["layer", "head"]].values.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    scores, where = [], []
    for b in (0, 2):
        att = sl.attention(tiny_model, batch, row=b)
        scores.append(diagonal(frame_attention(att, batch, b), 50.0).score)
        where.append(shares(att, batch, b)["own_past"])
    np.testing.assert_allclose(table.diagonal, torch.stack(scores).mean(0).flatten(), atol=1e-6)
    np.testing.assert_allclose(table.own_past, torch.stack(where).mean(0).flatten(), atol=1e-6)
    assert table.text.between(0, 1).all()
    silent = head_table(tiny_model, make_batch(tiny_model, [example(30, description="")]))
    assert silent.text.isna().all()


# --- heads that are cut --------------------------------------------------------------------------


def test_a_cut_head_gives_zeros(tiny_model):
    """Equal to a pass that throws the head's output away, and to audiocraft's own pass."""
    lm, batch = tiny_model.lm, make_batch(tiny_model, [example(30)])
    w = weights_of(lm)
    nothing = audiocraft_classes().ConditioningAttributes(text={"description": None})
    cut = {(0, 1), (1, 0)}

    def attend(layer, qkv):
        q, k, v = split_qkv(qkv, 2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        for at, head in cut:
            if at == layer:
                mixed[:, head] = 0
        return join_heads(mixed)

    from stage_lite.lm import embed, sin_positions

    with torch.no_grad():
        x = embed(w, batch.inputs, sin_positions(batch.prefix.positions, 32, w.max_period))
        expected = run_layers(w, x, attend, None)
        before = forward(lm, batch.inputs, need_hidden=True)[1]
        with without_heads(tiny_model, sorted(cut)) as model:
            assert model is tiny_model
            logits, hidden = forward(lm, batch.inputs, need_hidden=True)
            theirs = lm(batch.inputs, [nothing])
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, theirs, rtol=0, atol=1e-4)
    assert (hidden - before).abs().max() > 1e-3


def test_without_any_head_the_context_is_not_heard(tiny_model):
    every = [(layer, head) for layer in range(2) for head in range(2)]
    one, other = make_batch(tiny_model, [example(30)]), make_batch(tiny_model, [example(30)])
    other.inputs[:, :, 5:25] = 7
    with without_heads(tiny_model, every), torch.no_grad():
        a, b = (forward(tiny_model.lm, x.inputs) for x in (one, other))
        assert torch.equal(a[:, :, 30:], b[:, :, 30:])
    with torch.no_grad():
        a, b = (forward(tiny_model.lm, x.inputs) for x in (one, other))
    assert (a[:, :, 30:] - b[:, :, 30:]).abs().max() > 1e-3


def test_generation_goes_without_them_too(tiny_model):
    whole = generated(tiny_model).codes
    with without_heads(tiny_model, [(0, 0), (0, 1), (1, 1)]):
        cut = generated(tiny_model).codes
    assert not torch.equal(cut, whole)
    assert torch.equal(generated(tiny_model).codes, whole)


def test_weights_come_back_with_every_bit(tiny_model):
    before = {name: value.clone() for name, value in tiny_model.lm.state_dict().items()}

    def same():
        return all(torch.equal(before[n], v) for n, v in tiny_model.lm.state_dict().items())

    with without_heads(tiny_model, [(0, 0)]):
        with without_heads(tiny_model, [(0, 0), (0, 1), (1, 1)]):
            assert not tiny_model.lm.transformer.layers[0].self_attn.out_proj.weight.any()
        assert tiny_model.lm.transformer.layers[0].self_attn.out_proj.weight.any()
        assert not same()
    assert same()
    with pytest.raises(RuntimeError, match="mine"), without_heads(tiny_model, [(1, 0)]):
        raise RuntimeError("mine")
    assert same()
    with pytest.raises(StageLiteError), without_heads(tiny_model, [(0, 0), (2, 0)]):
        pass
    assert same()


def test_a_wrapped_output_matrix_is_cut_as_well(tiny_model):
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    inputs = make_batch(tiny_model, [example(30)]).inputs
    with torch.no_grad():
        whole = forward(tiny_model.lm, inputs)
        with without_heads(tiny_model, [(1, 1)]):
            expected = forward(tiny_model.lm, inputs)
        attn = tiny_model.lm.transformer.layers[1].self_attn
        attn.out_proj = Wrapped(attn.out_proj)
        with without_heads(tiny_model, [(1, 1)]):
            torch.testing.assert_close(forward(tiny_model.lm, inputs), expected, rtol=0, atol=1e-5)
        assert torch.equal(forward(tiny_model.lm, inputs), whole)


def test_with_lora_around_it_the_same_is_cut_and_seen(tiny_model):
    pytest.importorskip("peft", reason="no peft here")
    from stage_lite.lora import Adapters

    batch = make_batch(tiny_model, [example(30)])
    att = sl.attention(tiny_model, batch)
    with torch.no_grad(), without_heads(tiny_model, [(1, 1)]):
        expected = forward(tiny_model.lm, batch.inputs)
    adapters = Adapters(tiny_model.lm, rank=2, alpha=2.0)
    torch.testing.assert_close(sl.attention(tiny_model, batch), att)
    with torch.no_grad(), without_heads(tiny_model, [(1, 1)]):
        torch.testing.assert_close(forward(tiny_model.lm, batch.inputs), expected)
    adapters.remove()


def test_weights_that_were_given_up_are_refused(tiny_model):
    from stage_lite.held_weights import give_up

    out = generated(tiny_model)
    give_up(tiny_model.lm)
    with pytest.raises(StageLiteError, match="in int8 only"):
        sl.attention(tiny_model, out)
    with pytest.raises(StageLiteError, match="in int8 only"), without_heads(tiny_model, [(0, 0)]):
        pass


def test_effects_stand_between_floor_and_ceiling(tiny_model):
    examples = [example(30, song=song, seed=i) for i, song in enumerate("abcd")]
    cuts = {"first layer": [(0, 0), (0, 1)], "three": [(0, 0), (1, 0), (1, 1)]}
    table = head_effects(tiny_model, examples, cuts, n_random=2, batch_size=3)
    assert list(table.index) == [
        "nothing cut", "first layer", "first layer: as many others", "three", "all heads cut",
    ]  # one head is left beside three: no control  # fmt: skip
    assert table.n_heads.tolist() == [0, 2, 2, 3, 4]
    expected = context_losses(tiny_model, examples)
    assert table.right["nothing cut"] == pytest.approx(expected["right_hidden"], abs=1e-5)
    assert table.gap["nothing cut"] == pytest.approx(expected["gap_hidden"], abs=1e-5)
    assert table.kept["nothing cut"] == 1 and table.kept["all heads cut"] == 0
    with without_heads(tiny_model, cuts["three"]):
        expected = context_losses(tiny_model, examples)
    assert table.another["three"] == pytest.approx(expected["shuffled_hidden"], abs=1e-5)
    assert table.gap["three"] == pytest.approx(table.another["three"] - table.right["three"])
    assert (table.low <= table.gap + 1e-9).all() and (table.gap <= table.high + 1e-9).all()
    seen = head_effects(tiny_model, examples, [(0, 0)], history_hidden=False, n_random=0)
    expected = context_losses(tiny_model, examples)
    assert list(seen.index) == ["nothing cut", "cut", "all heads cut"]
    assert seen.right["nothing cut"] == pytest.approx(expected["right"], abs=1e-5)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": 1}, "row is 1: expected one of the 1 rows, from 0 on"),
        ({"row": -1}, "row is -1"),
        ({"layers": [2]}, r"layers holds 2: expected whole numbers in \[0, 1\]"),
        ({"heads": [-1]}, "heads holds -1"),
        ({"heads": []}, r"heads is \[\]: expected at least one, and none twice"),
        ({"layers": [0, 0]}, r"layers is \[0, 0\]: expected at least one, and none twice"),
        ({"steps": [23]}, r"steps holds 23: expected whole numbers in \[0, 22\]"),
        ({"steps": [0.5]}, "steps holds 0.5"),
        ({"layers": 1}, r"layers is 1: expected a list, such as \[1\]"),
    ],
)
def test_a_choice_that_is_not_there(tiny_model, options, message, unchecked_types):
    out = generated(tiny_model)
    with pytest.raises(StageLiteError, match=message):
        sl.attention(tiny_model, out, **options)


def test_what_is_no_generation_of_this_model(tiny_model, unchecked_types):
    out = generated(tiny_model)
    with pytest.raises(StageLiteError, match="out is a Tensor: expected what model.generate"):
        sl.attention(tiny_model, out.sequence)
    with pytest.raises(StageLiteError, match="att has 3 steps and 27 columns, out has 23 and 27"):
        shares(sl.attention(tiny_model, out, steps=[0, 1, 2]), out)
    batch = make_batch(tiny_model, [example()])
    batch.inputs = batch.inputs[:, :3]
    with pytest.raises(StageLiteError, match="out has 3 codebooks, the model 4"):
        sl.attention(tiny_model, batch)
    batch.inputs = make_batch(tiny_model, [example()]).inputs[:, :, :-1]
    with pytest.raises(StageLiteError, match="out.sequence has the shape"):
        sl.attention(tiny_model, batch)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([(2, 0)], r"there is no head \(2, 0\): this model has 2 layers of 2 heads"),
        ([(0, -1)], r"there is no head \(0, -1\)"),
        ([0, 1], "heads holds 0: expected pairs"),
        (["00"], "heads holds '00': expected pairs"),
        ([(0, 1, 1)], r"heads holds \(0, 1, 1\): expected pairs"),
        ([(0.0, 1)], r"heads holds \(0.0, 1\): expected pairs"),
    ],
)
def test_heads_that_are_not_there(tiny_model, heads, message, unchecked_types):
    with pytest.raises(StageLiteError, match=message), without_heads(tiny_model, heads):
        pass
    with pytest.raises(StageLiteError, match=message):
        head_effects(tiny_model, [example(song="a"), example(song="b")], heads)


def test_effects_refuse_what_measures_nothing(tiny_model):
    two = [example(song="a"), example(song="b")]
    with pytest.raises(StageLiteError, match="cuts names no head"):
        head_effects(tiny_model, two, [])
    with pytest.raises(StageLiteError, match="cuts names no head"):
        head_effects(tiny_model, two, {"a": []})
    with pytest.raises(StageLiteError, match="'nothing cut': that is a line of the table itself"):
        head_effects(tiny_model, two, {"nothing cut": [(0, 0)]})
    with pytest.raises(StageLiteError, match="an example has no context"):
        head_effects(tiny_model, [*two, example(None, song="c")], [(0, 0)])
    with pytest.raises(StageLiteError, match="context of another song"):
        head_effects(tiny_model, two[:1], [(0, 0)])
    with pytest.raises(StageLiteError, match="n_random is -1"):
        head_effects(tiny_model, two, [(0, 0)], n_random=-1)


@pytest.mark.parametrize(
    "code",
    [
        "import stage_lite as sl, stage_lite.attention; f = sl.attention\n"
        "from stage_lite import attention as g; assert g is f",
        "import stage_lite as sl; f = sl.attention; import stage_lite.attention\n"
        "from stage_lite.attention import without_heads, head_table; assert f is sl.attention",
    ],
)
def test_the_function_keeps_its_name_and_is_light(code):
    check = (
        "\nimport sys; assert f is sys.modules['stage_lite.attention'].attention, f\n"
        "assert not {'audiocraft', 'transformers', 'librosa', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
