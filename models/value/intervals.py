"""Intervals of predicted totals: conformal, in the shape of a negative binomial distribution.

The distribution of a total around its prediction is taken to be negative binomial, with a spread that depends on the
prediction. That is only the shape: the level is the one at which intervals contained the nominal share of past totals
(distributional conformal prediction: Chernozhukov, Wüthrich and Zhu 2021, PNAS 118; split conformal: Lei et al. 2018,
JASA 113). A prediction ± a multiple of a spread would not do: where most customers order nothing, a total has a point
mass at 0, and the level of a short horizon would mislead at a longer one.

Whether an interval contains 0 is not left to that shape. The probability of no order is known from the purchase
process, and it is the same for orders and money: an interval that leaves out `TAIL` below begins at 0 where 0 is at
least that likely.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betainc, gammaln, nbdtrik

NOMINAL = 0.8  # share of the customers whose total lies in the interval
TAIL = (1.0 - NOMINAL) / 2.0  # probability of a total below the interval, unless it begins at 0
LEVELS = np.linspace(0.3, 0.995, 279)
LOG_SIZES = (-6.0, 8.0)  # bounds of the logarithm of the size of the distribution
SMALLEST = 1e-4  # predicted units; 0 has no distribution
PENALTY = 1e-3
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TotalInterval:
    """Intervals of totals, given their predictions.

    Attributes
    ----------
    unit : float
        What is counted: 1 for orders; for money, the amount of a usual order.
    size : tuple of float
        Logarithm of the size of the negative binomial distribution: intercept, and slope on the logarithm of the
        prediction.
    level : float
        Probability between the bounds by the distribution, so that past intervals contained `NOMINAL` of the totals.
    """

    unit: float = 1.0
    size: tuple[float, float] = (0.0, 0.0)
    level: float = NOMINAL

    @classmethod
    def fit(
        cls, predicted: Floats, totals: Floats, from_zero: NDArray[np.bool_], unit: float, seed: int = 0
    ) -> TotalInterval:
        """Fit the spread, then the level, on totals that the predictions did not learn from.

        Parameters
        ----------
        predicted, totals : ndarray of float64, shape (n,)
        from_zero : ndarray of bool, shape (n,)
            Whether the interval begins at 0.
        unit : float
        seed : int
            A total that is a point mass counts as inside in part, by a random number.
        """
        means, counts = np.maximum(predicted / unit, SMALLEST), _counts(totals, unit)
        logs = np.log(means)

        def loss(size: Floats) -> float:
            k = _sizes(size, logs)
            log_likelihood = gammaln(k + counts) - gammaln(k) - k * np.log1p(means / k) - counts * np.log1p(k / means)
            return float(PENALTY * size @ size - log_likelihood.mean())

        slopes = minimize(loss, np.zeros(2), method="L-BFGS-B").x
        shape = cls(unit, (float(slopes[0]), float(slopes[1])))
        k = _sizes(shape.size, logs)
        below, upto = _cdf(counts - 1.0, means, k), _cdf(counts, means, k)
        ranks = (below + np.random.default_rng(seed).random(len(means)) * (upto - below))[:, None]
        low = _low_level(LEVELS, from_zero[:, None])
        possible = from_zero | (counts > 0) if unit == 1.0 else np.ones(len(counts), dtype=np.bool_)
        inside = (possible[:, None] & (ranks >= low) & (ranks <= low + LEVELS)).mean(axis=0)
        wanted = NOMINAL * (1.0 + 1.0 / len(means))  # of n totals and the next one
        return cls(unit, shape.size, float(LEVELS[min(int(np.searchsorted(inside, wanted)), len(LEVELS) - 1)]))

    def of(self, predicted: Floats, from_zero: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Lower and upper bound of each total, each of shape (n,); of counts, whole numbers.

        A count whose interval does not begin at 0 (`from_zero`) is at least 1.
        """
        means = np.maximum(predicted / self.unit, SMALLEST)
        k = _sizes(self.size, np.log(means))
        nothing = _cdf(np.zeros_like(means), means, k)
        low_level = _low_level(np.array(self.level), from_zero)
        low = np.where(from_zero, 0.0, _quantile(low_level, means, k, nothing) + 0.5)
        high = np.maximum(_quantile(low_level + self.level, means, k, nothing) + 0.5, 0.0)
        if self.unit == 1.0:
            low, high = np.ceil(low), np.floor(high)
            low = np.where(from_zero, 0.0, np.maximum(np.minimum(low, high), 1.0))
            high = np.maximum(low, high)
        return low * self.unit, high * self.unit

    def as_dict(self) -> dict[str, Any]:
        """The parameters as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> TotalInterval:
        """The inverse of `as_dict`."""
        return cls(described["unit"], (described["size"][0], described["size"][1]), described["level"])


def coverage(totals: Floats, low: Floats, high: Floats) -> NDArray[np.bool_]:
    """Whether each total lies in its interval, (n,)."""
    return np.asarray((totals >= low) & (totals <= high), dtype=np.bool_)


def _counts(totals: Floats, unit: float) -> Floats:
    """Totals in whole units; what is above 0 is at least one."""
    return np.where(totals > 0, np.maximum(np.round(totals / unit), 1.0), 0.0)


def _sizes(size: Any, log_means: Floats) -> Floats:
    return np.asarray(np.exp(np.clip(size[0] + size[1] * log_means, *LOG_SIZES)))


def _cdf(counts: Floats, means: Floats, k: Floats) -> Floats:
    """Negative binomial distribution function, also between whole numbers."""
    return np.where(counts < 0, 0.0, betainc(k, np.maximum(counts, 0.0) + 1.0, k / (k + means)))


def _quantile(level: Floats, means: Floats, k: Floats, nothing: Floats) -> Floats:
    """The inverse of `_cdf`; −½ where 0 alone is likelier than `level`."""
    found = nbdtrik(np.clip(level, 1e-6, 1.0 - 1e-9), k, k / (k + means))
    return np.where(level <= nothing, -0.5, found)


def _low_level(level: Floats, from_zero: NDArray[np.bool_]) -> Floats:
    """Probability below the lower bound: half of what is outside, and none where the interval begins at 0."""
    return np.where(from_zero, 0.0, (1.0 - level) / 2.0)
