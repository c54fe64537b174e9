"""CUPED: what customers did before the experiment explains a part of what they do in it, which is noise otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]


@dataclass(frozen=True)
class AdjustedOutcomes:
    """The outcomes of both arms without the part that the pre-period explains.

    Attributes
    ----------
    outcomes : tuple of ndarray of float64
        Of the control, shape (n,), and of the treatment, shape (m,).
    variance_removed : float
        Share of the variance that is gone.
    shared_variance : float
        Variance of the part of both means that is the same: the mean of the pre-period is itself an estimate. It
        cancels in a difference, and does not in a quotient.
    """

    outcomes: tuple[Series, Series]
    variance_removed: float
    shared_variance: float


def adjusted_for_before(outcomes: tuple[Series, Series], before: tuple[Series, Series]) -> AdjustedOutcomes | None:
    """Take the part that the pre-period explains out of the outcomes; None if nothing varied before.

    y − θ (x − mean(x)) with θ = cov(x, y) ÷ var(x) within the arms and one mean for both (Deng, Xu, Kohavi & Walker
    2013, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data"). The expected
    difference stays; the variance falls by the squared correlation.

    Parameters
    ----------
    outcomes, before : tuple of ndarray of float64
        Of the control, shape (n,), and of the treatment, shape (m,): the metric in the experiment and before it.
    """
    inner = [(x - x.mean(), y - y.mean()) for x, y in zip(before, outcomes, strict=True)]
    spread = sum(float(x @ x) for x, _ in inner)
    if spread <= 0:
        return None
    theta = sum(float(x @ y) for x, y in inner) / spread
    mean = float(np.concatenate(before).mean())
    control, treatment = (y - theta * (x - mean) for x, y in zip(before, outcomes, strict=True))
    whole = sum(float(y @ y) for _, y in inner)
    n = len(control) + len(treatment)
    removed = theta**2 * spread / whole if whole > 0 else 0.0
    return AdjustedOutcomes((control, treatment), removed, theta**2 * spread / (n - 2) / n)
