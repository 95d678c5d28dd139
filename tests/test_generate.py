"""Generation: equal to audiocraft's, equal one by one, in a batch, in a stream, after a prompt."""

import pytest
import torch

from stage_lite.delay import undelay
from stage_lite.errors import StageLiteError
from stage_lite.generate import generate_codes, stream_codes
from stage_lite.lm import forward
from stage_lite.lm_config import LMConfig, build_lm
from stage_lite.sampling import Sampler, sample
from stage_lite.text import encode_text
from stage_lite.upstream import audiocraft_classes

CARD, N_Q = 16, 4
WORDS = ("drums", "bass", "bossa", "nova")
TEXTS = ["drums", None, "bass bossa nova drums drums bass bass nova nova bossa"]  # > 8 words


def tiny_lm(context_token=True, **sizes):
    sizes = {"card": CARD, "n_q": N_Q, "dim": 32, "num_layers": 2, "num_heads": 2} | sizes
    lm = build_lm(
        LMConfig(vocabulary=WORDS, word_dim=8, context_token=context_token, **sizes), seed=0
    )
    with torch.no_grad():  # untrained logits are close to equal: sharpen them, so choices differ
        for head in lm.linears:
            head.weight *= 10
        lm.condition_provider.conditioners["description"].output_proj.weight *= 5
    return lm


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def codes(*shape, seed=0):
    return torch.randint(0, CARD, shape, generator=torch.Generator().manual_seed(seed))


CONTEXTS = [codes(N_Q, 7), None, codes(N_Q, 4, seed=1)]


@pytest.mark.parametrize("prompt_frames", [0, 1, 6])
@pytest.mark.parametrize("cfg_coef", [3.0, 1.0])
def test_greedy_equals_audiocraft(prompt_frames, cfg_coef):
    lm = tiny_lm(context_token=False)
    attributes = audiocraft_classes().ConditioningAttributes
    prompt = codes(2, N_Q, prompt_frames, seed=2) if prompt_frames else None
    texts = ["drums", "bass bossa"]
    expected = lm.generate(
        prompt,
        [attributes(text={"description": text}) for text in texts],
        max_gen_len=15,
        use_sampling=False,
        cfg_coef=cfg_coef,
    )
    out = generate_codes(lm, None, texts, 15, cfg_coef=cfg_coef, temperature=0, prompt_codes=prompt)
    assert torch.equal(out.codes, expected)


def greedy_step_by_step(lm, context, text, n_frames, cfg_coef):
    """The definition: without cache and decoder, everything looked at anew for each step."""
    from stage_lite.prefix import build_prefix

    target = torch.full((1, N_Q, n_frames), CARD)
    for i in range(n_frames + N_Q - 1):
        branches = []
        for row, description in ((context, text), (None, None)):
            prefix = build_prefix([row], target, special_token_id=CARD, context_token_id=CARD + 1)
            encoded, mask = encode_text(lm, [description])
            logits = forward(
                lm, prefix.sequence, prefix.attention_mask, prefix.positions, encoded, mask
            )
            branches.append(logits[0, :, prefix.target_start + i - 1])
        logits = branches[1] + cfg_coef * (branches[0] - branches[1])
        for k in range(N_Q):
            if 0 <= i - k < n_frames:
                target[0, k, i - k] = logits[k].argmax()
    return target[0]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_greedy_equals_its_definition(lm, row):
    expected = greedy_step_by_step(lm, CONTEXTS[row], TEXTS[row], 6, 3.0)
    out = generate_codes(lm, [CONTEXTS[row]], [TEXTS[row]], 6, temperature=0)
    assert torch.equal(out.codes[0], expected)


SETTINGS = [
    {"temperature": 0},
    {"temperature": 0, "cfg_over": "text"},
    {"temperature": 0, "cfg_over": "context"},
    {"temperature": 0, "cfg_coef": 1},
    {"temperature": 0, "cfg_coef": 0},
    {"temperature": 0, "anchor_frames": 9},
    {"seed": 3, "top_k": 5},
    {"seed": 3, "top_p": 0.8, "top_k": 0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_batch_of_different_contexts_equals_one_by_one(lm, settings):
    together = generate_codes(lm, CONTEXTS, TEXTS, 9, **settings)
    for b in range(3):
        own = settings | ({"seed": settings["seed"] + b} if "seed" in settings else {})
        alone = generate_codes(lm, [CONTEXTS[b]], [TEXTS[b]], 9, **own)
        assert torch.equal(together.codes[b], alone.codes[0]), b


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("frames_per_chunk", [1, 4])
def test_stream_equals_whole(lm, settings, frames_per_chunk):
    prompt = codes(3, N_Q, 2, seed=5)
    whole = generate_codes(lm, CONTEXTS, TEXTS, 9, prompt_codes=prompt, **settings)
    chunks = list(
        stream_codes(
            lm,
            CONTEXTS,
            TEXTS,
            9,
            prompt_codes=prompt,
            frames_per_chunk=frames_per_chunk,
            **settings,
        )
    )
    assert torch.equal(torch.cat(chunks, dim=2), whole.codes)
    assert [c.shape[2] for c in chunks] == ([2] + [1] * 7 if frames_per_chunk == 1 else [2, 4, 3])


@pytest.mark.parametrize("prompt_frames", [1, 3, 4, 8, 9])
def test_greedy_continuation_of_its_own_beginning_changes_nothing(lm, prompt_frames):
    whole = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0)
    prompt = whole.codes[:, :, :prompt_frames]
    again = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0, prompt_codes=prompt)
    assert torch.equal(again.codes, whole.codes)


def test_a_prompt_stays_and_steers(lm):
    prompt = codes(3, N_Q, 4, seed=6)
    out = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0, prompt_codes=prompt)
    plain = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0)
    assert torch.equal(out.codes[:, :, :4], prompt)
    assert not torch.equal(out.codes[:, :, 4:], plain.codes[:, :, 4:])


def test_cfg_coef_one_is_conditional_zero_unconditional(lm):
    calls = []
    for cfg_coef, rows, texts in [(1, CONTEXTS, TEXTS), (0, [None] * 3, [None] * 3)]:
        out = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0, cfg_coef=cfg_coef)
        bare = generate_codes(lm, rows, texts, 9, temperature=0, cfg_coef=1)
        assert torch.equal(out.codes, bare.codes)
        calls.append(out.codes)
    guided = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0, cfg_coef=3)
    assert not torch.equal(calls[0][0], calls[1][0])
    assert not torch.equal(guided.codes, calls[0])


@pytest.mark.parametrize(
    ("cfg_over", "contexts", "texts"),
    [
        ("text", CONTEXTS, [None] * 3),
        ("context", [None] * 3, TEXTS),
        ("both", [None] * 3, [None] * 3),
    ],
)
def test_the_unconditional_branch_lacks_what_cfg_over_says(lm, cfg_over, contexts, texts):
    options = {"temperature": 0, "cfg_coef": 0}
    out = generate_codes(lm, CONTEXTS, TEXTS, 9, cfg_over=cfg_over, **options)
    bare = generate_codes(lm, contexts, texts, 9, temperature=0, cfg_coef=1)
    assert torch.equal(out.codes, bare.codes)


def test_guidance_without_conditions_is_no_guidance(lm):
    guided = generate_codes(lm, None, None, 9, temperature=0, cfg_coef=7)
    assert torch.equal(guided.codes, generate_codes(lm, None, None, 9, temperature=0).codes)


def test_a_seed_reproduces_and_leaves_global_chance_alone(lm):
    state = torch.random.get_rng_state()
    first, second, third = (generate_codes(lm, CONTEXTS, TEXTS, 9, seed=s).codes for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    own = generate_codes(lm, CONTEXTS, TEXTS, 9, seed=[1, 2, 3]).codes
    assert torch.equal(own, first)
    unseeded = [generate_codes(lm, None, "drums", 20).codes for _ in range(2)]
    assert not torch.equal(*unseeded)


def test_what_comes_out(lm):
    out = generate_codes(lm, CONTEXTS, "drums", 9, seed=0)
    assert out.codes.shape == (3, N_Q, 9)
    assert out.codes.min() >= 0
    assert out.codes.max() < CARD
    assert out.seconds_per_step > 0
    frames = undelay(out.sequence, CARD)
    assert torch.equal(frames[:, :, -9:], out.codes)
    assert torch.equal(frames[0, :, :7], CONTEXTS[0])
    assert (frames[0, :, 7] == CARD + 1).all()
    assert torch.equal(out.prefix.sequence, out.sequence)
    assert out.prefix.target_start == 9
    out.codes[:] = 0  # an ordinary tensor, not one of inference mode
    (out.codes.float().requires_grad_() * 2).sum().backward()


@pytest.mark.parametrize("n_frames", [0, 1, 2, 3])
def test_short_targets(lm, n_frames):
    out = generate_codes(lm, CONTEXTS, TEXTS, n_frames, temperature=0)
    assert out.codes.shape == (3, N_Q, n_frames)
    longer = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0)
    assert torch.equal(out.codes[:, 0], longer.codes[:, 0, :n_frames])
    chunks = list(stream_codes(lm, CONTEXTS, TEXTS, n_frames, temperature=0))
    assert len(chunks) == n_frames


def test_other_weights_are_close(lm):
    """bfloat16 matrices and cache: the first choice of an untrained model mostly stays."""
    out = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0, weights="bf16")
    exact = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0)
    assert torch.equal(out.codes[:, 0, 0], exact.codes[:, 0, 0])
    assert lm.emb[0].weight.dtype == torch.float32


def test_the_unfolded_text_gives_the_same():
    """Many rows with long texts take cross-attention as it is written down."""
    lm = tiny_lm(num_heads=8)
    assert 2 * 8 * 8 > 32  # rows * words * heads: too many to fold
    texts = ["drums", "bass bossa"]
    together = generate_codes(lm, [CONTEXTS[0], CONTEXTS[2]], texts, 9, temperature=0)
    folded = tiny_lm(num_heads=1)
    assert generate_codes(folded, None, texts, 4, temperature=0).codes.shape == (2, N_Q, 4)
    for b, context in enumerate([CONTEXTS[0], CONTEXTS[2]]):
        alone = greedy_step_by_step(lm, context, texts[b], 9, 3.0)
        assert torch.equal(together.codes[b], alone)


def test_wrapped_layers_generate_too():
    """As LoRA wraps them: a module in the place of a linear layer."""

    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    lm = tiny_lm()
    expected = generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0).codes
    layer = lm.transformer.layers[1]
    layer.linear1 = Wrapped(layer.linear1)
    layer.cross_attention.out_proj = Wrapped(layer.cross_attention.out_proj)
    assert torch.equal(generate_codes(lm, CONTEXTS, TEXTS, 9, temperature=0).codes, expected)


# --- progress and streams ------------------------------------------------------------------------


def test_progress_is_told(lm, capsys):
    told = []
    generate_codes(
        lm, None, "drums", 9, seed=0, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(i + 1, 12) for i in range(12)]
    generate_codes(lm, None, "drums", 9, seed=0, progress=True)
    assert "12/12" in capsys.readouterr().err


def test_a_closed_stream_stops_and_cleans_up(lm):
    told, closed = [], []
    stream = stream_codes(lm, None, "drums", 50, seed=0, progress=lambda *now: told.append(now))
    first = next(stream)
    assert first.shape == (1, N_Q, 1)
    assert len(told) == N_Q
    stream.close()
    assert len(told) == N_Q
    assert list(stream) == []

    class Bar:
        def __init__(self, **options):
            pass

        def update(self):
            pass

        def close(self):
            closed.append(True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tqdm.auto.tqdm", Bar)
        stream = stream_codes(lm, None, "drums", 50, seed=0, progress=True)
        next(stream)
        assert not closed
        stream.close()
    assert closed == [True]


def test_inference_mode_does_not_leak_out_of_a_stream(lm):
    for _ in stream_codes(lm, None, "drums", 3, seed=0):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_frames": -1}, "n_frames is -1: expected 0 or a positive integer"),
        (
            {"descriptions": ["a", "b"]},
            "context_codes has 3, descriptions has 2; expected the same",
        ),
        ({"descriptions": [1, 2, 3]}, "description of row 0 is a int"),
        ({"cfg_over": "all"}, "cfg_over is 'all': expected 'both', 'text' or 'context'"),
        ({"cfg_coef": float("nan")}, "cfg_coef is nan: expected a finite number"),
        ({"temperature": -1}, "temperature is -1: expected 0"),
        ({"top_k": -3}, "top_k is -3"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"seed": [1, 2]}, "seed has 2 entries: expected 3"),
        (
            {"prompt_codes": codes(3, N_Q, 10)},
            "prompt_codes has 10 frames, the target n_frames = 9",
        ),
        ({"prompt_codes": codes(3, 3, 1)}, r"the shape \[3, 3, 1\]: expected \[3, 4, frames\]"),
        ({"prompt_codes": codes(3, N_Q, 1) + CARD}, r"prompt_codes\[0, 0, 0\] is .* in \[0, 15\]"),
        ({"context_codes": [None, None, codes(N_Q, 2) + CARD]}, r"context_codes\[2, 0, 0\] is "),
        ({"anchor_frames": -3}, "anchor_frames is -3: expected -1"),
        ({"context_codes": [], "descriptions": None}, "the batch is empty"),
    ],
    ids=str,
)
def test_bad_requests_are_named(lm, change, message, unchecked_types):
    request = {"context_codes": CONTEXTS, "descriptions": TEXTS, "n_frames": 9} | change
    with pytest.raises(StageLiteError, match=message):
        generate_codes(lm, **request)
    with pytest.raises(StageLiteError, match=message):
        stream_codes(lm, **request)  # at the call, not at the first chunk


def test_a_context_without_the_token_is_refused():
    with pytest.raises(
        StageLiteError, match="this model has no context token.*17 rows for card 16"
    ):
        generate_codes(tiny_lm(context_token=False), CONTEXTS, TEXTS, 9)


# --- sampling ------------------------------------------------------------------------------------


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def frequencies(n=4000, **settings):
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(n, 1, 4)
    drawn = sample(logits, generator=generator(), **settings).flatten()
    return torch.bincount(drawn, minlength=4) / n


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_k": 99}, [0.4, 0.3, 0.2, 0.1]),
        ({"top_p": 0.69}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.71}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_p": 1e-6}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 0}, [1, 0, 0, 0]),
    ],
)
def test_codes_fall_with_their_probabilities(settings, expected):
    assert (frequencies(**settings) - torch.tensor(expected)).abs().max() < 0.03


def test_every_row_has_its_own_chance():
    logits = torch.zeros(3, N_Q, CARD)
    together = Sampler(1.0, 0, 0.0, [generator(s) for s in (1, 2, 3)])
    alone = [Sampler(1.0, 0, 0.0, [generator(s)]) for s in (1, 2, 3)]
    for _ in range(70):  # more steps than are drawn at once
        codes = together(logits)
        assert torch.equal(codes, torch.cat([one(logits[:1]) for one in alone]))
        assert codes.shape == (3, N_Q, 1)


def test_a_sampler_draws_as_sample_does():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(1, 1, 4)
    sampler = Sampler(0.5, 3, 0.0, [generator()])
    drawn = torch.cat([sampler(logits).flatten() for _ in range(4000)])
    expected = torch.tensor([16 / 29, 9 / 29, 4 / 29, 0])
    assert (torch.bincount(drawn, minlength=4) / 4000 - expected).abs().max() < 0.03
