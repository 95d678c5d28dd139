"""metrics/frechet.py and metrics/embeddings.py: closed forms, published tools, bad input."""

import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

import stage_lite.metrics
from stage_lite.errors import StageLiteError
from stage_lite.metrics import embeddings
from stage_lite.metrics.embeddings import codec_latents, embedding, log_mel_statistics
from stage_lite.metrics.frechet import fad, kad, median_distance

RATE = 32000


def seeded(seed, n, d, shift=0.0, constant=False):
    """Correlated Gaussian rows; `constant`: the last two dimensions do not vary."""
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((n, d)) @ draw.standard_normal((d, d)) / np.sqrt(d) + shift
    if constant:
        rows[:, -2:] = shift
    return rows


def exactly(mean, covariance, n, seed=0):
    """n rows whose sample mean and sample covariance (n - 1) are the given ones."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    rows = np.random.default_rng(seed).standard_normal((n, len(mean)))
    white = np.linalg.qr(rows - rows.mean(axis=0))[0] * np.sqrt(n - 1)
    values, vectors = np.linalg.eigh(covariance)
    return white @ (vectors * np.sqrt(np.maximum(values, 0))).T + mean


def closed_form(mean_x, cov_x, mean_y, cov_y):
    root = np.trace(sqrtm(cov_x @ cov_y)).real
    return np.sum((mean_x - mean_y) ** 2) + np.trace(cov_x) + np.trace(cov_y) - 2 * root


def covariance(seed, d):
    factor = np.random.default_rng(seed).standard_normal((d, d)) / np.sqrt(d)
    return factor @ factor.T


# --- FAD: closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mean, cov, expected",
    [
        ([0, 0, 0], np.eye(3), 0.0),
        ([3, 0, -4], np.eye(3), 25.0),
        ([0, 0, 0], np.diag([4.0, 9.0, 0.25]), 1 + 4 + 0.25),  # sum of (sd - 1)^2
        ([1, 1, 1], np.diag([4.0, 0.0, 1.0]), 3 + 1 + 1 + 0),  # one dimension stands still
        ([2, 0, 0], np.zeros((3, 3)), 4 + 3),  # nothing varies at all
    ],
)
def test_fad_of_known_gaussians(mean, cov, expected):
    x = exactly([0, 0, 0], np.eye(3), 50)
    y = exactly(mean, cov, 70, seed=1)
    assert fad(x, y) == pytest.approx(expected, abs=1e-9)
    assert fad(y, x) == pytest.approx(expected, abs=1e-9)


def test_fad_of_any_two_gaussians():
    d = 16
    cov_x, cov_y, mean = covariance(1, d), covariance(2, d), np.linspace(-1, 1, d)
    expected = closed_form(np.zeros(d), cov_x, mean, cov_y)
    x, y = exactly(np.zeros(d), cov_x, 40), exactly(mean, cov_y, 60, seed=1)
    assert fad(x, y) == pytest.approx(expected, abs=1e-8)
    assert fad(x[:, :1], y[:, :1]) == pytest.approx(
        1 + (cov_x[0, 0] ** 0.5 - cov_y[0, 0] ** 0.5) ** 2
    )


def test_fad_converges_with_n():
    d = 16
    cov_x, cov_y = covariance(1, d), covariance(2, d)
    expected = closed_form(np.zeros(d), cov_x, np.full(d, 0.2), cov_y)
    draw = np.random.default_rng(0)
    off = {}
    for n in (100, 1000, 20000):
        x = draw.multivariate_normal(np.zeros(d), cov_x, n)
        y = draw.multivariate_normal(np.full(d, 0.2), cov_y, n)
        off[n] = abs(fad(x, y) - expected)
    assert off[100] > off[1000] > off[20000]
    assert off[1000] < 0.03 * expected and off[20000] < 0.003 * expected


def test_unbiased_fad_is_nearer_for_few_rows():
    """Two sets of one Gaussian and of two: the true distances are 0 and the closed form."""
    d, n = 16, 60
    cov_x, cov_y = covariance(1, d), covariance(2, d)
    for other, expected in ((cov_x, 0.0), (cov_y, closed_form(0, cov_x, 0, cov_y))):
        biased, unbiased = [], []
        for seed in range(10):
            draw = np.random.default_rng(seed)
            x = draw.multivariate_normal(np.zeros(d), cov_x, n)
            y = draw.multivariate_normal(np.zeros(d), other, n)
            biased.append(fad(x, y) - expected)
            unbiased.append(fad(x, y, estimator="unbiased", seed=seed) - expected)
        assert np.mean(biased) > 0.8
        assert abs(np.mean(unbiased)) < np.mean(biased) / 4
        assert np.mean(np.abs(unbiased)) < np.mean(np.abs(biased)) / 1.5


def test_the_example_of_the_docstring():
    d, n = 64, 256
    draw = np.random.default_rng(0)
    factor_x, factor_y = draw.normal(size=(2, d, d)) / np.sqrt(d)
    mean = 0.1 * draw.normal(size=d)
    true = closed_form(0, factor_x @ factor_x.T, mean, factor_y @ factor_y.T)
    biased, unbiased = [], []
    for _ in range(4):
        x = draw.normal(size=(n, d)) @ factor_x.T
        y = draw.normal(size=(n, d)) @ factor_y.T + mean
        biased.append(fad(x, y))
        unbiased.append(fad(x, y, estimator="unbiased"))
    assert true == pytest.approx(33.08, abs=0.01)
    assert np.mean(biased) == pytest.approx(37.6, abs=0.8)
    assert np.mean(unbiased) == pytest.approx(33.1, abs=0.8)


def test_unbiased_fad_is_seeded():
    x, y = seeded(1, 80, 8), seeded(2, 60, 8)
    first = fad(x, y, estimator="unbiased")
    assert first == fad(x, y, estimator="unbiased", seed=0)
    assert first != fad(x, y, estimator="unbiased", seed=1)


# --- FAD: equal sets, symmetry, singular covariance ----------------------------------------------


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("n, d, constant", [(500, 16, False), (17, 16, False), (200, 64, True)])
def test_equal_sets_are_at_zero(n, d, constant, scale):
    x = scale * seeded(3, n, d, constant=constant)
    assert 0 <= fad(x, x) < 1e-6 * scale**2
    assert 0 <= fad(x, x[::-1].copy()) < 1e-6 * scale**2
    assert kad(x, x, estimator="biased") == pytest.approx(0, abs=1e-12)
    assert -4 / n < kad(x, x) < 0  # the U-statistic of a set with itself lies below 0


def test_fad_is_symmetric():
    x, y = seeded(1, 300, 16), seeded(2, 200, 16, 0.3)
    assert fad(x, y) == pytest.approx(fad(y, x), rel=1e-12)


def test_singular_covariance_has_the_right_number():
    x, y = seeded(1, 120, 8), seeded(2, 100, 8, 0.5)
    expected = fad(x, y)

    def beside(rows, columns):
        return np.concatenate([rows, columns], axis=1)

    zeros_x, zeros_y = np.zeros((120, 3)), np.zeros((100, 3))
    assert fad(beside(x, zeros_x), beside(y, zeros_y)) == pytest.approx(expected, abs=1e-9)
    assert fad(beside(x, zeros_x), beside(y, zeros_y + 2)) == pytest.approx(expected + 12, abs=1e-9)
    assert fad(beside(x, x), beside(y, y)) == pytest.approx(2 * expected, abs=1e-9)
    # constant in one set only: all the variance of the other is added, and its mean squared
    noise = np.random.default_rng(0).standard_normal((100, 1))
    added = noise.var(ddof=1) + noise.mean() ** 2
    one_constant = fad(beside(x, zeros_x[:, :1]), beside(y, noise))
    assert one_constant == pytest.approx(expected + added, abs=1e-9)
    flat = np.full((20, 4), 3.0)
    assert fad(flat, flat) == 0.0 and type(fad(flat, flat)) is float
    assert fad(flat, flat - 1) == pytest.approx(4.0)


def test_shrinkage():
    d = 6
    cov_x, cov_y, mean = covariance(1, d), covariance(2, d), np.linspace(0, 1, d)
    x, y = exactly(np.zeros(d), cov_x, 30), exactly(mean, cov_y, 40, seed=1)

    def shrunk(cov):
        return 0.7 * cov + 0.3 * np.trace(cov) / d * np.eye(d)

    expected = closed_form(np.zeros(d), shrunk(cov_x), mean, shrunk(cov_y))
    assert fad(x, y, shrinkage=0.3) == pytest.approx(expected, abs=1e-8)
    few = fad(x[:4], y[:5], shrinkage=0.3)  # fewer rows than dimensions
    assert np.isfinite(few) and few > 0
    assert fad(x[:4], x[:4], shrinkage=0.3) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(fad(x[:4], y[:5], shrinkage=0.3, estimator="unbiased"))


rotations = st.tuples(st.integers(0, 10**6), st.integers(2, 12))


@settings(max_examples=25, deadline=None)
@given(rotations, st.floats(0.01, 100))
def test_fad_and_kad_do_not_see_rotation_or_order(case, scale):
    seed, d = case
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(40, d)), draw.normal(size=(50, d)) * 1.5 + 0.2
    turn = np.linalg.qr(draw.normal(size=(d, d)))[0]
    move = draw.normal(size=d)
    moved = [scale * (rows @ turn + move) for rows in (x, y)]
    assert fad(*moved) == pytest.approx(scale**2 * fad(x, y), rel=1e-8)
    assert kad(*moved) == pytest.approx(kad(x, y), abs=1e-9)
    mixed = draw.permutation(x), draw.permutation(y)
    assert fad(*mixed) == pytest.approx(fad(x, y), rel=1e-9)
    assert kad(*mixed) == pytest.approx(kad(x, y), abs=1e-12)


# --- KAD -----------------------------------------------------------------------------------------


def test_kad_by_hand():
    """Term by term, and of three points on a line with bandwidth 1."""
    x, y = seeded(1, 9, 4), seeded(2, 7, 4, 0.5)

    def kernel(a, b, bandwidth):
        return np.exp(-np.sum((a - b) ** 2) / (2 * bandwidth**2))

    width = np.median([np.linalg.norm(a - b) for i, a in enumerate(x) for b in x[i + 1 :]])
    assert median_distance(x) == pytest.approx(width)
    xy = np.mean([kernel(a, b, width) for a in x for b in y])
    for estimator, start in (("biased", 0), ("unbiased", 1)):
        within = [
            np.mean(
                [
                    kernel(a, b, width)
                    for i, a in enumerate(rows)
                    for j, b in enumerate(rows)
                    if not start or i != j
                ]
            )
            for rows in (x, y)
        ]
        assert kad(x, y, estimator=estimator) == pytest.approx(sum(within) - 2 * xy, abs=1e-12)
    line = kad(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]), bandwidth=1.0)
    e = np.exp(-0.5)
    assert line == pytest.approx(e + e**4 - (1 + e**4 + e + e) / 2)


def test_unbiased_kad_is_the_closed_form_on_average():
    """Gaussians that differ in the mean: MMD^2 is known, and the V-statistic lies above it."""
    d, n, width, mean = 4, 30, 2.0, 0.5
    base = (width**2 / (width**2 + 2)) ** (d / 2)
    true = 2 * base * (1 - np.exp(-d * mean**2 / (2 * (width**2 + 2))))
    draw = np.random.default_rng(0)
    unbiased, biased = [], []
    for _ in range(300):
        x, y = draw.normal(size=(n, d)), draw.normal(size=(n, d)) + mean
        unbiased.append(kad(x, y, bandwidth=width))
        biased.append(kad(x, y, bandwidth=width, estimator="biased"))
    error = np.std(unbiased) / np.sqrt(len(unbiased))
    assert abs(np.mean(unbiased) - true) < 3 * error < 0.2 * true
    assert np.mean(biased) == pytest.approx(true + 2 * (1 - base) / n, abs=4 * error)


def test_kad_tells_near_from_far():
    x = seeded(1, 200, 8)
    values = [kad(x, x[::-1] + shift) for shift in (0.0, 0.3, 1.0, 3.0, 1e6)]
    assert values == sorted(values) and values[0] < 0.001
    far = kad(x, x + 1e6)
    within = kad(x, x + 1e6, bandwidth=median_distance(x)) / 2
    assert far == pytest.approx(2 * within) and 0 < far <= 2


def test_reference_sets_the_bandwidth():
    x, y = seeded(1, 60, 8), 3 * seeded(2, 60, 8)
    assert kad(x, y) == kad(x, y, bandwidth=median_distance(x))
    assert kad(x, y) != pytest.approx(kad(y, x), rel=0.01)
    width = median_distance(x)
    assert kad(x, y, bandwidth=width) == pytest.approx(kad(y, x, bandwidth=width), abs=1e-12)


# --- published tools -----------------------------------------------------------------------------

# (x, y) of `seeded`, the sum of all their numbers, and what was printed for them by
# fadtk 1.1.0 (fad.calc_frechet_distance of fad.calc_embd_statistics),
# frechet-audio-distance 0.3.4 (calculate_frechet_distance of calculate_embd_statistics) and
# kadtk 1.1.0 (kad.calc_kernel_audio_distance in float64, with bandwidth None and 2.0),
# with NumPy 2.4.6, SciPy 1.17.1 and torch 2.13.0.
PUBLISHED = [
    (
        ((1, 300, 16), (2, 200, 16, 0.3)),
        (14.053150050274347, 941.33035567035),
        (11.883416955932866, 11.883416955932454),
        (3.2959924242604632, 2.9628156790847795),
    ),
    (
        ((3, 500, 64), (4, 400, 64, 0.1)),
        (119.49834744716806, 2642.6206045183867),
        (36.53925255520937, 36.53925255520954),
        (0.5508592128484979, 0.0012787578191932663),
    ),
    (
        ((5, 120, 8, 0.0, True), (6, 100, 8, 0.5, True)),  # singular
        (-19.180076989497792, 413.7567008936925),
        (5.11643416234224, 5.116434162342232),
        (13.43145198406901, 20.41861276655368),
    ),
]


@pytest.mark.parametrize("cases, sums, fads, kads", PUBLISHED)
def test_numbers_of_published_tools(cases, sums, fads, kads):
    x, y = (seeded(*case) for case in cases)
    assert [x.sum(), y.sum()] == pytest.approx(sums), "NumPy draws other numbers from these seeds"
    assert [fad(x, y)] * 2 == pytest.approx(fads, rel=1e-9)
    # kadtk takes the median in float32, the lower of the two middle distances
    assert 100 * kad(x, y, bandwidth=median_distance(y)) == pytest.approx(kads[0], rel=1e-4)
    assert 100 * kad(x, y, bandwidth=2.0) == pytest.approx(kads[1], rel=1e-6)


def test_fadtk_where_it_is_installed():
    from stage_lite.upstream import torchaudio

    torchaudio()  # fadtk imports it
    theirs = pytest.importorskip("fadtk.fad", exc_type=ImportError)
    for seed in range(3):
        x, y = seeded(seed, 150, 24), seeded(seed + 10, 120, 24, 0.2)
        statistics = [s for rows in (x, y) for s in theirs.calc_embd_statistics(rows)]
        expected = float(theirs.calc_frechet_distance(*statistics))
        assert fad(x, y) == pytest.approx(expected, rel=1e-8)


def test_kadtk_where_it_is_installed():
    from stage_lite.upstream import torchaudio

    torchaudio()
    theirs = pytest.importorskip("kadtk.kad", exc_type=ImportError)
    for seed in range(3):
        x, y = seeded(seed, 50, 24), seeded(seed + 10, 40, 24, 0.2)
        tensors, width = (torch.from_numpy(x), torch.from_numpy(y)), median_distance(x)
        expected = theirs.calc_kernel_audio_distance(
            *tensors, (None, None), "cpu", bandwidth=width, precision=torch.float64
        )
        assert 100 * kad(x, y) == pytest.approx(float(expected), rel=1e-6)


# --- what is taken, and what is not --------------------------------------------------------------


@pytest.mark.parametrize("measure", [fad, kad])
def test_arrays_and_tensors_of_any_float(measure):
    x, y = seeded(1, 40, 4), seeded(2, 30, 4)
    expected = measure(x, y)
    assert type(expected) is float
    tensors = [torch.from_numpy(rows).requires_grad_() for rows in (x, y)]
    assert measure(*tensors) == expected
    assert measure(x.tolist(), tensors[1]) == expected
    assert measure(x.astype(np.float32), tensors[1].float()) == pytest.approx(expected, rel=1e-5)
    assert measure(tensors[0].bfloat16(), y) == pytest.approx(expected, rel=0.05)
    whole = np.round(10 * x).astype(np.int64), np.round(10 * y).astype(np.int16)
    assert measure(*whole) == measure(whole[0].astype(float), whole[1].astype(float))
    assert np.array_equal(x, seeded(1, 40, 4)), "the input was changed"


GOOD = seeded(1, 40, 4)
BAD = GOOD.copy()
BAD[7, 2] = np.nan
ENDLESS = GOOD.copy()
ENDLESS[3, 1] = np.inf


@pytest.mark.parametrize("measure", [fad, kad])
@pytest.mark.parametrize(
    "x, y, message",
    [
        (BAD, GOOD, "x has NaN or infinite numbers, the first in row 7, dimension 2.*leave that"),
        (GOOD, torch.from_numpy(ENDLESS), "y has NaN or infinite.*row 3, dimension 1"),
        (GOOD, GOOD[:0], r"y has shape \(0, 4\), 0 rows of 4 dimensions.*at least two"),
        (GOOD[:, :0], GOOD[:, :0], r"x has shape \(40, 0\).*at least one dimension"),
        (np.zeros(0), GOOD, r"x has shape \(0,\); expected \[n, d\]"),
        (GOOD[:1], GOOD, "x has shape .1, 4., 1 row of 4 dimensions.*two rows"),
        (GOOD[:, 0], GOOD, r"x has shape \(40,\).*x\[:, None\]"),
        (GOOD[0, 0], GOOD, r"x has shape \(\)"),
        (GOOD, GOOD[None], r"y has shape \(1, 40, 4\).*mean over time"),
        (GOOD, seeded(1, 40, 5), "4 and 5 dimensions.*both look like .d, n.: pass x.T and y.T"),
        (GOOD, GOOD.T, r"4 and 40 dimensions.*y looks like \[d, m\]: pass y.T"),
        (GOOD.T, GOOD[:30], "40 and 4 dimensions.*x looks like .d, n.: pass x.T"),
        (GOOD, seeded(1, 30, 6), "4 and 6 dimensions.*embed both sets with one function"),
        (GOOD * 1e200, GOOD, r"x has numbers up to .*e\+200"),
        (GOOD, GOOD + 1j, "y is a ndarray that holds no table of real numbers"),
        (GOOD, torch.from_numpy(GOOD + 1j), "y is a Tensor that holds no table of real"),
        ("abc", GOOD, "x is a str that holds no table"),
        ([[1.0], [1.0, 2.0]], GOOD, "x is a list that holds no table"),
        (None, GOOD, "x is a NoneType that holds no table"),
    ],
)
def test_malformed_sets(unchecked_types, measure, x, y, message):
    with pytest.raises(StageLiteError, match=message):
        measure(x, y)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fad(GOOD.T, GOOD.T), r"x has shape \(4, 40\).*n > d.*pass x.T.*shrinkage.*kad"),
        (lambda: fad(GOOD, GOOD[:4]), "y has shape .4, 4., 4 rows of 4 dimensions.*singular"),
        (lambda: fad(GOOD, GOOD, estimator="plug-in"), "estimator is 'plug-in'; expected 'biased'"),
        (lambda: kad(GOOD, GOOD, estimator="u"), "estimator is 'u'; expected 'biased' or"),
        (lambda: fad(GOOD, GOOD, shrinkage=1.5), "shrinkage is 1.5; expected a number from 0 to 1"),
        (lambda: fad(GOOD, GOOD, shrinkage=float("nan")), "shrinkage is nan"),
        (lambda: fad(GOOD[:6], GOOD, estimator="unbiased"), "smaller set has 6 rows.*at least 8"),
        (lambda: kad(GOOD, GOOD, bandwidth=0.0), "bandwidth is 0.0; expected a distance above 0"),
        (lambda: kad(GOOD, GOOD, bandwidth=float("inf")), "bandwidth is inf"),
        (lambda: kad(GOOD[[0, 0, 0, 0, 1]], GOOD), "median distance.*is 0.*bandwidth="),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(StageLiteError, match=message):
        call()


def test_bounds_are_as_the_messages_say():
    assert np.isfinite(fad(GOOD[:5], GOOD))
    assert np.isfinite(fad(GOOD[:8], GOOD, estimator="unbiased"))
    with pytest.raises(StageLiteError, match="at least 8"):
        fad(GOOD[:7], GOOD, estimator="unbiased")


def test_kad_warns_of_swapped_axes():
    with pytest.warns(UserWarning, match=r"x has shape \(4, 40\).*if it is \[d, n\], pass x.T"):
        few = kad(GOOD.T, np.tile(GOOD.T, (10, 1)) + 1)
    assert np.isfinite(few)


# --- embeddings ----------------------------------------------------------------------------------


def noise(n, seconds, seed=0, rate=RATE):
    return 0.2 * torch.randn(
        n, 1, int(seconds * rate), generator=torch.Generator().manual_seed(seed)
    )


def test_codec_latents(tiny_model):
    wavs = noise(3, 0.5)
    embed = embedding("codec", model=tiny_model)
    rows = embed(wavs, RATE)
    with torch.no_grad():
        latents = tiny_model.codec.encoder(wavs)  # [3, 8, 25]
    expected = torch.cat([latents.mean(dim=2), latents.std(dim=2, correction=0)], dim=1)
    assert rows.shape == (3, 16) and np.allclose(rows, expected, atol=1e-6)
    assert np.array_equal(rows, codec_latents(tiny_model.codec)(list(wavs), RATE))
    assert np.array_equal(rows[:1], embed([wavs[0, 0].numpy()], RATE))
    assert embed([torch.zeros(2, 1), wavs[0, :, :700]], 16000).shape == (2, 16)  # a sample will do


def test_long_clips_are_encoded_in_pieces(tiny_model):
    wav = noise(1, 25.01)
    with torch.no_grad():
        padded = torch.nn.functional.pad(wav, (0, -wav.shape[-1] % 640))
        latents = tiny_model.codec.encoder(padded)[0]
    expected = np.concatenate([latents.mean(dim=1), latents.std(dim=1, correction=0)])
    assert np.allclose(codec_latents(tiny_model)(wav, RATE)[0], expected, atol=1e-5)


def test_log_mel_statistics():
    wavs = noise(2, 0.5)
    loud, soft = log_mel_statistics(wavs, RATE), log_mel_statistics(wavs / 10, RATE)
    assert loud.shape == (2, 64)
    assert np.allclose(loud[:, :32] - soft[:, :32], 20, atol=0.01)
    assert np.allclose(loud[:, 32:], soft[:, 32:], atol=0.01)
    silence = log_mel_statistics(torch.zeros(1, 1, 800), RATE)[0]
    assert np.allclose(silence[:32], -100) and np.allclose(silence[32:], 0)
    assert np.array_equal(embedding("log-mel")(wavs, RATE), loud)
    assert embedding("log-mel", n_mels=20)([wavs[0, 0].numpy()], RATE).shape == (1, 40)
    stereo = wavs.expand(2, 2, -1)
    assert np.allclose(log_mel_statistics(stereo, RATE), loud, atol=1e-3)


def test_distances_of_clips():
    """Noise against other noise, and against the same noise with its high end cut off."""
    embed = embedding("log-mel", n_mels=8)
    first, second = (noise(60, 0.1, seed) for seed in (0, 1))
    dull = torch.nn.functional.avg_pool1d(second, 5, 1, padding=2)
    real, same, other = (embed(wavs, RATE) for wavs in (first, second, dull))
    assert fad(real, other) > 20 * fad(real, same)
    assert kad(real, other) > 20 * abs(kad(real, same))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: embedding("mert"), "no embedding is called 'mert'.*codec, log-mel, clap, vggish"),
        (lambda: embedding("codec"), "'codec' got options .*missing.*'model'"),
        (lambda: embedding("log-mel", bands=3), "'log-mel' got options .*'bands'.*n_mels"),
        (lambda: codec_latents("nano"), "got a str, which has no encoder.*load"),
        (lambda: log_mel_statistics(torch.zeros(1, 800), RATE), r"shape \(1, 800\).*wav\[None\]"),
        (lambda: log_mel_statistics([], RATE), "no clips"),
        (lambda: log_mel_statistics(torch.zeros(0, 1, 800), RATE), "no clips"),
        (lambda: log_mel_statistics([noise(1, 0.1)[0], noise(1, 0.1)[0] * np.nan], RATE), "clip 1"),
        (lambda: log_mel_statistics(noise(1, 0.1), 5), "clip 0 has sample rate 5"),
    ],
)
def test_embedding_errors(call, message):
    with pytest.raises(StageLiteError, match=message):
        call()


# --- plug-ins: without their packages, and with stand-ins for them -------------------------------


@pytest.mark.parametrize(
    "name, module, message",
    [
        ("clap", "transformers", "package transformers and the weights laion/larger_clap_music"),
        ("vggish", "torchvggish", "package torchvggish .* weights vggish-10086976.pth.* pip"),
        ("panns", "panns_inference", "package panns_inference .* weights Cnn14.* pip .*zenodo"),
    ],
)
def test_missing_package_is_one_sentence(name, module, message, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StageLiteError, match=f"{name!r} needs the {message}.*'log-mel'") as error:
        embedding(name)
    assert "\n" not in str(error.value)


def test_missing_weights_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for module in ("torchvggish", "panns_inference"):
        stand_in = types.ModuleType(module)
        stand_in.__spec__ = types.SimpleNamespace(name=module)
        monkeypatch.setitem(sys.modules, module, stand_in)
    with pytest.raises(StageLiteError, match="got: the package alone; try: fetch it from https"):
        embedding("vggish")
    with pytest.raises(StageLiteError, match="got: the package alone; try: fetch Cnn14.*zenodo"):
        embedding("panns")
    with pytest.raises(StageLiteError, match="clap.*try: hf download"):
        embedding("clap", weights=str(tmp_path / "nothing"))


def test_vggish_rows(monkeypatch, tmp_path):
    """What is asked of torchvggish, and that its last ReLU is left out."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            last = torch.nn.Linear(2, 128)
            torch.nn.init.constant_(last.weight, -1.0)
            self.embeddings = torch.nn.Sequential(last, torch.nn.ReLU())

        def forward(self, examples):
            return self.embeddings(examples.flatten(1)[:, :2])

    def examples(samples, sample_rate):
        assert samples.ndim == 1 and samples.dtype == np.float64 and sample_rate == 16000
        n = len(samples) // 15360
        return torch.ones(n, 1, 96, 64, requires_grad=True)

    def vggish(postprocess):
        assert postprocess is False
        return Model()

    module = types.ModuleType("torchvggish")
    module.vggish, module.waveform_to_examples = vggish, examples
    monkeypatch.setitem(sys.modules, "torchvggish", module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / embeddings.VGGISH_FILE).touch()
    embed = embedding("vggish")
    rows = embed([noise(1, 2.0)[0], noise(1, 1.0)[0]], RATE)
    assert rows.shape == (2 + 1, 128) and (rows < 0).all()
    with pytest.raises(StageLiteError, match="clip 1 is 0.50 s long; vggish expected at least"):
        embed([noise(1, 2.0)[0], noise(1, 0.5)[0]], RATE)


def test_panns_rows(monkeypatch, tmp_path):
    class AudioTagging:
        def __init__(self, device):
            assert device == "cpu"

        def inference(self, audio):
            assert audio.shape[0] == 1 and audio.dtype == np.float32
            return None, np.full((1, 2048), audio.shape[1], np.float32)

    module = types.ModuleType("panns_inference")
    module.AudioTagging = AudioTagging
    monkeypatch.setitem(sys.modules, "panns_inference", module)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "panns_data").mkdir()
    for name in embeddings.PANNS:
        (tmp_path / "panns_data" / name).touch()
    rows = embedding("panns")([noise(1, 0.5, rate=16000)[0], noise(1, 1.0, rate=16000)[0]], 16000)
    assert rows.shape == (2, 2048) and rows[:, 0].tolist() == [16000, 32000]


def test_clap_rows(tmp_path):
    """transformers' own CLAP with random weights of a small shape."""
    from stage_lite.upstream import torchaudio

    torchaudio()
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 8, "vocab_size": 9}  # fmt: skip
    audio = {"patch_embeds_hidden_size": 4, "hidden_size": 32, "depths": [1, 1, 1, 1],
             "num_attention_heads": [1, 1, 1, 1]}  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ClapModel(config).save_pretrained(tmp_path)
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc")
    extractor.save_pretrained(tmp_path)
    embed = embedding("clap", weights=tmp_path)
    clips = [noise(1, 1.0)[0], noise(1, 12.0, 1)[0]]
    rows = embed(clips, RATE)
    assert rows.shape == (2, 16)
    assert np.linalg.norm(rows[0]) == pytest.approx(1, abs=1e-5)
    pieces = embed([clips[1][:, : 10 * RATE], clips[1][:, 10 * RATE :]], RATE)
    assert np.allclose(rows[1], (10 * pieces[0] + 2 * pieces[1]) / 12, atol=0.01)
    assert np.array_equal(rows, embed(clips, RATE))


# --- house ---------------------------------------------------------------------------------------


def test_names():
    assert stage_lite.metrics.frechet.fad is fad and stage_lite.metrics.frechet.kad is kad
    assert stage_lite.metrics.embeddings.embedding is embedding
    assert {"frechet", "embeddings"} <= set(stage_lite.metrics.__all__)
