"""Drift as an effect size, against a null in which whole days change places between the reference and now.

The effect of a column is how far its distribution has moved: the standardised difference of the means, and the
population stability index (PSI). Neither grows with the number of rows. A p value says whether days that change places
at random move it as far, which is the noise from day to day, however many rows a day has. The data are read once, into
histograms by day; the permutations add these up, so that they cost the same for a thousand and a million rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.day_histograms import DayHistograms

Floats = NDArray[np.float64]
N_PERMUTATIONS = 999
TOGETHER = 0.6  # chance that a unit changes places together with the one before it: days may be correlated by .8
AS_IT_IS = 0.2  # share of alpha that the arrangement as it is may take, or nothing could be beyond noise
SMALLEST_SHARE = 1e-4  # of a bin without rows, in the PSI


@dataclass(frozen=True)
class Limits:
    """From where on a change is drift.

    Attributes
    ----------
    alpha : float
        Share of false alarms over all columns together.
    min_shift : float
        Least standardised difference.
    min_psi : float
        Least PSI.
    """

    alpha: float = 0.05
    min_shift: float = 0.1
    min_psi: float = 0.1


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column has moved.

    Attributes
    ----------
    shift : float
        Mean now less the mean of the reference, in standard deviations; NaN if all rows are equal.
    psi : float
        Population stability index.
    p_shift, p_psi : float
        Adjusted p values, over all columns.
    usual_shift, usual_psi : float
        Largest effect between one window of the reference and its others; 0 if it has one window.
    beyond_noise : bool
        Whether a p value is at most alpha.
    drifted : bool
        Whether an effect that is beyond noise is also above its limit and above what is usual.
    """

    shift: float
    psi: float
    p_shift: float
    p_psi: float
    usual_shift: float
    usual_psi: float
    beyond_noise: bool
    drifted: bool


def psi(p: Floats, q: Floats) -> Floats:
    """Population stability index of two distributions, the sum of (q − p) ln(q ÷ p) over the last axis.

    It is the symmetric Kullback–Leibler divergence (Jeffreys 1946). A share below `SMALLEST_SHARE` counts as that.

    Examples
    --------
    >>> round(float(psi(np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4]))), 5)
    0.06286
    """
    p, q = (np.maximum(part, SMALLEST_SHARE) for part in (p, q))
    both_empty = (p == q) & (p == SMALLEST_SHARE)
    return np.asarray(np.where(both_empty, 0.0, (q - p) * np.log(q / p)).sum(axis=-1))


def _effects(reference: tuple[Floats, Floats, Floats], current: tuple[Floats, Floats, Floats]) -> tuple[Floats, Floats]:
    """Standardised differences and PSI of counts (…, c, bins), sums (…, c) and sums of squares (…, c)."""
    shares, means, variances = [], [], []
    for counts, sums, squares in (reference, current):
        n = counts.sum(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares.append(counts / n[..., None])
            means.append(sums / n)
            # of equal values, rounding would leave a variance
            variance = squares / n - (sums / n) ** 2
            variances.append(np.where(variance > 1e-12 * np.maximum(squares / n, 1e-300), variance, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((variances[0] + variances[1]) / 2)
        shift = np.where(spread > 0, (means[1] - means[0]) / spread, np.nan)
    return shift, np.where(
        np.isfinite(shares[0]).all(axis=-1) & np.isfinite(shares[1]).all(axis=-1), psi(*shares), np.nan
    )


def drift(
    reference: DayHistograms,
    current: DayHistograms,
    limits: Limits,
    seed: int = 0,
    n_permutations: int = N_PERMUTATIONS,
    together: float | None = None,
) -> list[ColumnDrift]:
    """The drift of each column.

    Unit i of every window has the days that lie equally far before its end, which are alike if nothing has changed. The
    null lets the units i of all windows change places, in runs of neighbours as in the stationary bootstrap (Politis &
    Romano 1994), because neighbouring days are correlated. The p values of all columns are adjusted together by the
    step-down maximum over the same permutations (Westfall & Young 1993), which needs no assumption on how the columns
    depend on each other.

    Parameters
    ----------
    reference : DayHistograms
        w windows with u units, which has at least one window.
    current : DayHistograms
        One window with the same units, columns and bins.
    limits : Limits
    seed : int
    n_permutations : int
    together : float, optional
        Chance that a unit changes places together with the one before it; default `runs_of`.

    Returns
    -------
    list of ColumnDrift, of length c
    """
    stacked = [
        np.concatenate([getattr(reference, name), getattr(current, name)]) for name in ("counts", "sums", "squares")
    ]
    windows, units = stacked[1].shape[:2]
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, windows, (n_permutations + 1, units))
    joins = runs_of(windows, units, limits.alpha) if together is None else together
    for unit in range(1, units):
        joined = rng.random(n_permutations + 1) < joins
        chosen[joined, unit] = chosen[joined, unit - 1]
    chosen[0] = windows - 1  # as it is
    weights = np.zeros((n_permutations + 1, windows, units))
    np.put_along_axis(weights, chosen[:, None, :], 1.0, axis=1)
    shift, psis = _split(stacked, weights)
    names = np.concatenate([np.abs(shift), np.sqrt(psis)], axis=1)
    p = step_down(np.nan_to_num(names))
    c = shift.shape[1]
    usual_shift, usual_psi = _usual(reference)
    found = []
    for j in range(c):
        p_shift, p_psi = float(p[j]), float(p[c + j])
        noticed = (p_shift <= limits.alpha, p_psi <= limits.alpha)
        large = (
            abs(shift[0, j]) > max(limits.min_shift, usual_shift[j]),
            psis[0, j] > max(limits.min_psi, usual_psi[j]),
        )
        found.append(
            ColumnDrift(
                float(shift[0, j]),
                float(psis[0, j]),
                p_shift,
                p_psi,
                float(usual_shift[j]),
                float(usual_psi[j]),
                any(noticed),
                any(one and other for one, other in zip(noticed, large, strict=True)),
            )
        )
    return found


def runs_of(windows: int, units: int, alpha: float) -> float:
    """Chance that a unit changes places together with the one before it: `TOGETHER`, or less with few windows.

    A permutation leaves all units as they are with a chance of (r + (1 − r) ÷ w)^(u − 1) ÷ w, which is a lower bound
    of every p value.

    Examples
    --------
    >>> [round(runs_of(windows, 8, 0.05), 2) for windows in (2, 3, 4, 7)]
    [0.14, 0.41, 0.51, 0.6]
    """
    if windows < 2 or units < 2:
        return 0.0
    most = (AS_IT_IS * alpha * windows) ** (1 / (units - 1))
    return float(np.clip((most - 1 / windows) / (1 - 1 / windows), 0.0, TOGETHER))


def _split(stacked: list[Floats], weights: Floats) -> tuple[Floats, Floats]:
    """Effects of several choices of which units are now, (b, w, u), against the others."""
    b = len(weights)
    flat = weights.reshape(b, -1)
    current, others = [], []
    for part in stacked:
        values = part.reshape(flat.shape[1], -1)
        chosen = (flat @ values).reshape(b, *part.shape[2:])
        current.append(chosen)
        others.append(part.sum(axis=(0, 1)) - chosen)
    return _effects((others[0], others[1], others[2]), (current[0], current[1], current[2]))


def _usual(reference: DayHistograms) -> tuple[Floats, Floats]:
    """Largest effect between a window of the reference and its others, by column; 0 with one window."""
    windows, units, columns = reference.sums.shape
    if windows < 2:
        return np.zeros(columns), np.zeros(columns)
    one_each = np.repeat(np.eye(windows)[:, :, None], units, axis=2)
    shift, psis = _split([reference.counts, reference.sums, reference.squares], one_each)
    return np.nan_to_num(np.abs(shift)).max(axis=0), np.nan_to_num(psis).max(axis=0)


def step_down(statistics: Floats) -> Floats:
    """Adjusted p values by the step-down maximum (Westfall & Young 1993, algorithm 4.1).

    Each column is divided by its root mean square over the permutations first, so that all count alike.

    Parameters
    ----------
    statistics : ndarray of float64, shape (1 + b, m)
        Not negative: as observed, and in b permutations.

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    scale = np.sqrt((statistics[1:] ** 2).mean(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(scale > 0, statistics / scale, 0.0)
    observed, permuted = scaled[0], scaled[1:]
    order = np.argsort(-observed, kind="stable")
    # the maximum over a column and all that are smaller than it, in each permutation
    maxima = np.maximum.accumulate(permuted[:, order[::-1]], axis=1)[:, ::-1]
    reached = (maxima >= observed[order] * (1 - 1e-12)).sum(axis=0)
    p = np.empty(len(order))
    p[order] = np.maximum.accumulate((1 + reached) / (1 + len(permuted)))
    return p
