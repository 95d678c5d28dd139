"""The delay pattern against its inverse and against audiocraft's."""

import pytest
import torch

from stage_lite.delay import delay, undelay
from stage_lite.errors import StageLiteError
from stage_lite.upstream import audiocraft_classes

CARD = 16


def random_codes(n_batch=2, n_q=4, n_frames=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, CARD, (n_batch, n_q, n_frames), generator=generator)


def test_delay_is_as_drawn():
    codes = torch.tensor([[[1, 2, 3, 4]] * 3])
    s = CARD
    expected = [[s, 1, 2, 3, 4, s, s], [s, s, 1, 2, 3, 4, s], [s, s, s, 1, 2, 3, 4]]
    assert delay(codes, s)[0].tolist() == expected


@pytest.mark.parametrize("n_q", [1, 2, 4, 8])
@pytest.mark.parametrize("n_frames", [1, 2, 3, 17])
def test_delay_equals_audiocraft_pattern(n_q, n_frames):
    codes = random_codes(2, n_q, n_frames)
    pattern = audiocraft_classes().DelayedPatternProvider(n_q).get_pattern(n_frames)
    expected, _, _ = pattern.build_pattern_sequence(codes, CARD)
    assert torch.equal(delay(codes, CARD), expected)


@pytest.mark.parametrize("n_q", [1, 4])
@pytest.mark.parametrize("n_frames", [0, 1, 17])
def test_undelay_inverts_delay(n_q, n_frames):
    codes = random_codes(3, n_q, n_frames)
    sequence = delay(codes, CARD)
    assert sequence.shape[2] == n_frames + n_q
    assert torch.equal(undelay(sequence), codes)
    assert torch.equal(undelay(sequence, CARD), codes)


@pytest.mark.parametrize(("code", "at"), [(CARD, (1, 2, 5)), (-1, (0, 3, 0)), (99, (1, 0, 8))])
def test_a_code_out_of_range_is_named(code, at):
    codes = random_codes()
    codes[at] = code
    with pytest.raises(StageLiteError) as error:
        delay(codes, CARD)
    b, k, t = at
    assert f"codes[{b}, {k}, {t}] is {code}" in str(error.value)
    assert f"expected codes in [0, {CARD - 1}]" in str(error.value)


def test_undelay_refuses_what_is_too_short_or_not_delayed():
    with pytest.raises(StageLiteError, match="sequence of 3 steps: expected at least n_q = 4"):
        undelay(torch.zeros(1, 4, 3, dtype=torch.long))
    sequence = delay(random_codes(), CARD)
    sequence[1, 2, 0] = 3
    with pytest.raises(StageLiteError, match=r"sequence\[1, 2, 0\] is 3"):
        undelay(sequence, CARD)


def test_delay_keeps_type_and_input():
    codes = random_codes()
    kept = codes.clone()
    assert delay(codes, CARD).dtype == codes.dtype
    assert delay(codes.short(), CARD).dtype == torch.int16
    assert torch.equal(codes, kept)
