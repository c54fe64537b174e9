"""The sample-ratio check: are the arms as large as they were drawn? If not, customers were lost or added in one arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

MISMATCH_P_VALUE = 0.001  # as in Fabijan et al. 2019: a check of every test must seldom be wrong


@dataclass(frozen=True)
class SampleRatio:
    """Customers of each arm beside how many were to be expected.

    Attributes
    ----------
    counts : dict of str to int
        By variant.
    expected : dict of str to float
    p_value : float
        Probability of counts at least this far from the expected ones by chance.
    """

    counts: dict[str, int]
    expected: dict[str, float]
    p_value: float

    @property
    def is_mismatch(self) -> bool:
        """Whether chance does not explain the counts, so that differences between the arms are not to be trusted."""
        return self.p_value < MISMATCH_P_VALUE

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON-compatible data."""
        return {**asdict(self), "mismatch": self.is_mismatch}


def sample_ratio(counts: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio:
    """Pearson's chi-square test of the counts (Fabijan et al. 2019, "Diagnosing sample ratio mismatch").

    Parameters
    ----------
    counts : mapping of str to int
        Customers by variant.
    weights : mapping of str to float
        How the variants were drawn, such as 1 and 1; positive, for the same variants.

    Examples
    --------
    >>> round(sample_ratio({"a": 5050, "b": 4800}, {"a": 1, "b": 1}).p_value, 5)
    0.01177
    """
    total, whole = sum(counts.values()), sum(weights.values())
    expected = {variant: total * weights[variant] / whole for variant in counts}
    statistic = sum((count - expected[variant]) ** 2 / expected[variant] for variant, count in counts.items())
    return SampleRatio(dict(counts), expected, float(chi2.sf(statistic, len(counts) - 1)))


def sample_ratio_of_propensities(variant: NDArray[np.str_], propensity: NDArray[np.float64]) -> SampleRatio:
    """The check where customers were drawn with probabilities of their own.

    In every arm, Σ 1 ÷ propensity estimates the number of all customers (Horvitz & Thompson 1952), with the variance
    Σ (1 − propensity) ÷ propensity². The p value is that of the arm farthest off, corrected for the number of arms.

    Parameters
    ----------
    variant : ndarray of str, shape (n,)
    propensity : ndarray of float64, shape (n,)
        Of the variant that was drawn, above 0 and at most 1.
    """
    counts, expected, p_values = {}, {}, []
    for name in np.unique(variant).tolist():
        own = propensity[variant == name]
        estimate, spread = float((1.0 / own).sum()), float(np.sqrt(((1.0 - own) / own**2).sum()))
        counts[name], expected[name] = len(own), len(own) * len(variant) / estimate
        if spread > 0:
            p_values.append(2.0 * float(norm.sf(abs(estimate - len(variant)) / spread)))
    return SampleRatio(counts, expected, min(1.0, len(p_values) * min(p_values, default=1.0)))
