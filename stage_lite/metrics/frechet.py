"""How far is one set of clips from another? FAD and KAD, over embeddings of any kind.

Aim: to compare the distribution of generated clips with that of real ones. Neither looks at which
clip belongs to which context: a set of real stems put to the wrong songs scores as well as the
right ones. Both hang on the embedding (`stage_lite.metrics.embeddings`) and on n: print both, and
compare systems on sets of one size only.

Conventions: x is the reference (real), y the evaluated set; an embedding is a row, [n, d]; smaller
is better. Each distance has two estimators: the biased one is that of the distance between the two
samples and is 0 for equal sets; the unbiased one aims at the distance between what they were drawn
from, so that it does not shrink with n by itself, and falls around 0, below it too, where the two
are the same.

Source: Kilgour et al. 2019, Fréchet Audio Distance (Interspeech); Gui et al. 2024,
arXiv:2311.01616, and Chong & Forsyth 2020, arXiv:1911.07023 (extrapolation to infinite n); Chung et
al. 2025, arXiv:2502.15602 (KAD); Gretton et al. 2012 (MMD).
Notebook: 07_evaluation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ..errors import StageLiteError

STEPS = 15  # set sizes of the extrapolation, as in Chong & Forsyth 2020
DRAWS = 4  # subsets of each size
LARGEST = 1e50  # of an embedding's numbers: their squares must be finite
BLOCK = 512  # rows of a kernel matrix at a time

Embeddings = Tensor | ndarray | Sequence[Sequence[float]]  # [n, d]


def fad(
    x: Embeddings,
    y: Embeddings,
    *,
    estimator: str = "biased",
    shrinkage: float = 0.0,
    seed: int = 0,
) -> float:
    """Fréchet Audio Distance: between the Gaussians that have the mean and covariance of each set.

        |mean x - mean y|^2 + tr(Sx + Sy - 2 (Sx Sy)^(1/2))

    The last trace is the sum of the singular values of Rx Ry^T, where R^T R = S comes from a QR of
    the rows themselves: no root of a matrix is taken, so a singular covariance (a constant or a
    repeated dimension) costs no accuracy and cannot give complex numbers.

    "biased" is the usual plug-in, with sample covariances (n - 1). It is too large, by about a
    constant over n: at n = 256 for both sets a true distance of 33 in 64 dimensions comes out as
    37.6. "unbiased" fits a line to the plug-in of subsets against 1/n and reads it at 0. Unlike
    Gui et al.'s tool (fadtk 1.1.0) it takes subsets of x and y alike, for x is as small as y here,
    and draws them without replacement: with replacement the line leads back to the plug-in of the
    whole set (37.6 in the same example, against 33.1 without).

    It trusts that rows are independent. Windows of a few songs are not: two draws of 100 windows
    from the same 8 songs had a plug-in of 198 over log-mel statistics and came out at -89.

    Args:
        x: [n, d], the reference.
        y: [m, d], the evaluated set, of the same embedding.
        estimator: "biased" or "unbiased" (d well below n and m: a set that is little larger than
            what a covariance takes leaves nothing to extrapolate from).
        shrinkage: a in [0, 1]; both covariances become (1 - a) S + a (tr S / d) I. Above 0 it lets
            n be as small as 2; the result can then be compared with others of the same a only.
        seed: of the subsets; the biased estimator draws nothing.

    Returns:
        At least 0 if biased. Symmetric in x and y if biased.

    Raises:
        StageLiteError: not two tables of finite numbers with one number of dimensions, too few
            rows, or an option out of range.
    """
    x, y = _check_pair(x, y)
    _check_estimator(estimator)
    if not 0 <= shrinkage <= 1:
        raise StageLiteError(f"shrinkage is {shrinkage!r}; expected a number from 0 to 1")
    least = 2 if shrinkage else x.shape[1] + 1
    for rows, name in ((x, "x"), (y, "y")):
        if len(rows) < least:
            raise StageLiteError(
                f"{name} has shape {rows.shape}, {_count(rows)}; fad expected [n, d] with n > d: "
                "with fewer, the covariance is singular and the distance mostly that of the "
                f"sampling; if it is [d, n], pass {name}.T; else take more clips, an embedding of "
                "fewer dimensions, shrinkage=0.1, or kad, which needs no covariance"
            )
    if estimator == "biased":
        return max(0.0, _plug_in(x, y, shrinkage))
    return _extrapolate(x, y, shrinkage, seed, least)


def kad(
    x: Embeddings, y: Embeddings, *, estimator: str = "unbiased", bandwidth: float | None = None
) -> float:
    """Kernel Audio Distance: squared maximum mean discrepancy with a Gaussian kernel.

        mean k(x, x') + mean k(y, y') - 2 mean k(x, y),  k(a, b) = exp(-|a - b|^2 / (2 bandwidth^2))

    "unbiased" leaves out each row's kernel with itself (the U-statistic; Chung et al.), "biased"
    does not (the V-statistic). Assumes no Gaussians and needs no covariance, so n may be below d.

    The result is the bare MMD^2, at most 2. The authors' tool prints 100 times as much
    (`SCALE_FACTOR` of kadtk 1.1.0), others 1000 times.

    Args:
        x: [n, d], the reference.
        y: [m, d], the evaluated set, of the same embedding.
        estimator: "unbiased" or "biased".
        bandwidth: None is `median_distance(x)`, as kadtk's documentation has it, so that systems
            evaluated on one reference share their kernel. kadtk 1.1.0 as released takes that of y
            instead: pass `median_distance(y)` to get its numbers. Because of it kad(x, y) is not
            kad(y, x).

    Raises:
        StageLiteError: not two tables of finite numbers with one number of dimensions, fewer than
            two rows, a bandwidth that is not above 0, a reference of which most rows are equal.
    """
    x, y = _check_pair(x, y)
    _check_estimator(estimator)
    for rows, name in ((x, "x"), (y, "y")):
        if len(rows) < rows.shape[1]:
            warnings.warn(
                f"{name} has shape {rows.shape}, {_count(rows)}; kad takes [n, d], one embedding "
                f"per row: if it is [d, n], pass {name}.T",
                stacklevel=2,
            )
    if bandwidth is None:
        bandwidth = median_distance(x)
    if not 0 < bandwidth < float("inf"):
        raise StageLiteError(f"bandwidth is {bandwidth!r}; expected a distance above 0")
    n, m = len(x), len(y)
    xx, yy, xy = (_kernel_sum(a, b, bandwidth) for a, b in ((x, x), (y, y), (x, y)))
    if estimator == "biased":
        return xx / n**2 + yy / m**2 - 2 * xy / (n * m)
    return (xx - n) / (n * (n - 1)) + (yy - m) / (m * (m - 1)) - 2 * xy / (n * m)


def median_distance(x: Embeddings) -> float:
    """Median Euclidean distance between any two rows: the bandwidth of `kad`.

    Raises:
        StageLiteError: malformed embeddings, or more than half of the pairs are equal.
    """
    from scipy.spatial.distance import pdist

    distance = float(np.median(pdist(_check(x, "x"))))
    if not distance > 0:
        raise StageLiteError(
            "the median distance between the rows of x is 0: most of them are equal; expected "
            "embeddings of different clips; pass bandwidth= if they are meant to be equal"
        )
    return distance


# --- distances -----------------------------------------------------------------------------------


def _plug_in(x: Float[ndarray, "n d"], y: Float[ndarray, "m d"], shrinkage: float) -> float:
    rx, ry = _factor(x, shrinkage), _factor(y, shrinkage)
    between = np.linalg.svd(rx @ ry.T, compute_uv=False).sum()  # tr (Sx Sy)^(1/2)
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(means + np.square(rx).sum() + np.square(ry).sum() - 2 * between)


def _factor(x: Float[ndarray, "n d"], shrinkage: float) -> Float[ndarray, "r d"]:
    """R with R^T R = the covariance of the rows, shrunk."""
    d = x.shape[1]
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)  # [n, d]
    if shrinkage:
        mean_variance = np.square(centred).sum() / d
        centred = np.concatenate(
            [np.sqrt(1 - shrinkage) * centred, np.sqrt(shrinkage * mean_variance) * np.eye(d)]
        )
    return np.linalg.qr(centred, mode="r")  # [min(n, d), d]


def _extrapolate(
    x: Float[ndarray, "n d"], y: Float[ndarray, "m d"], shrinkage: float, seed: int, least: int
) -> float:
    """The plug-in at 1/n = 0, on a line through subsets from half of the sets up."""
    smaller = min(len(x), len(y))
    fewest = max(0.5, (least + 1) / smaller)  # share of the rows in the smallest subsets
    if fewest > 0.8:
        raise StageLiteError(
            f"the smaller set has {smaller} rows of {x.shape[1]} dimensions; the unbiased fad "
            f"expected at least {int(np.ceil((least + 1) / 0.8))}, so that there are smaller sets "
            "to extrapolate from; take more clips, an embedding of fewer dimensions, "
            "estimator='biased' or kad"
        )
    draw = np.random.default_rng(seed)
    inverse, distances = [1.0], [_plug_in(x, y, shrinkage)]
    for one_by_share in np.linspace(1, 1 / fewest, STEPS)[1:]:
        for _ in range(DRAWS):
            subsets = [
                rows[draw.permutation(len(rows))[: round(len(rows) / one_by_share)]]
                for rows in (x, y)
            ]
            inverse.append(one_by_share)
            distances.append(_plug_in(*subsets, shrinkage))
    return float(np.polyfit(inverse, distances, 1)[1])


def _kernel_sum(a: Float[ndarray, "n d"], b: Float[ndarray, "m d"], bandwidth: float) -> float:
    from scipy.spatial.distance import cdist

    total = 0.0
    for start in range(0, len(a), BLOCK):
        distances = cdist(a[start : start + BLOCK], b) / bandwidth
        with np.errstate(over="ignore"):  # so far apart that the kernel is 0
            total += float(np.exp(-np.square(distances) / 2).sum())
    return total


# --- checks --------------------------------------------------------------------------------------


def _check_pair(
    x: Embeddings, y: Embeddings
) -> tuple[Float[ndarray, "n d"], Float[ndarray, "m d"]]:
    x, y = _check(x, "x"), _check(y, "y")
    if x.shape[1] != y.shape[1]:
        hint = "embed both sets with one function"
        if y.shape[0] == x.shape[1]:
            hint = "y looks like [d, m]: pass y.T"
        elif x.shape[0] == y.shape[1]:
            hint = "x looks like [d, n]: pass x.T"
        elif x.shape[0] == y.shape[0]:
            hint = "both look like [d, n]: pass x.T and y.T"
        raise StageLiteError(
            f"x has shape {x.shape} and y {y.shape}: {x.shape[1]} and {y.shape[1]} dimensions; "
            f"expected [n, d] and [m, d]; {hint}"
        )
    return x, y


def _check(embeddings: Embeddings, name: str) -> Float[ndarray, "n d"]:
    """As float64, or one sentence on what is wrong."""
    if isinstance(embeddings, Tensor):
        embeddings = embeddings.detach().cpu()
        embeddings = embeddings if embeddings.is_complex() else embeddings.double()
    try:
        rows = np.asarray(embeddings)
        real = rows.dtype.kind in "fiub"
    except (TypeError, ValueError):
        real = False
    if not real:
        raise StageLiteError(
            f"{name} is a {type(embeddings).__name__} that holds no table of real numbers; "
            "expected embeddings [n, d] as an array or a tensor"
        )
    rows = rows.astype(np.float64)
    if rows.ndim != 2:
        raise StageLiteError(
            f"{name} has shape {rows.shape}; expected [n, d], one embedding per row; "
            + (
                f"{name}[:, None] makes rows of one dimension"
                if rows.ndim == 1
                else "take the mean over time of each clip first"
            )
        )
    if len(rows) < 2 or rows.shape[1] < 1:
        raise StageLiteError(
            f"{name} has shape {rows.shape}, {_count(rows)}; expected [n, d] with at least two "
            "rows of at least one dimension; pass more clips"
        )
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise StageLiteError(
            f"{name} has NaN or infinite numbers, the first in row {row}, dimension {column}; "
            "expected finite embeddings; leave that clip out, and count it"
        )
    if np.abs(rows).max() > LARGEST:
        raise StageLiteError(
            f"{name} has numbers up to {np.abs(rows).max():.3g}; expected at most {LARGEST:.0e}, "
            "whose squares can be added up; look for what has overflowed in the embedding"
        )
    return rows


def _count(rows: Float[ndarray, "n d"]) -> str:
    n, d = rows.shape
    return f"{n} {'row' if n == 1 else 'rows'} of {d} dimensions"


def _check_estimator(estimator: str) -> None:
    if estimator not in ("biased", "unbiased"):
        raise StageLiteError(f"estimator is {estimator!r}; expected 'biased' or 'unbiased'")
