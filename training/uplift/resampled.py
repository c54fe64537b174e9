"""Intervals of a metric over repeated splits of the same customers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from training.report import Metric


def resampled_metric(values: NDArray[np.float64], test_share: float, n: int) -> Metric:
    """The mean over splits with a 95 % interval that allows for their overlap (Nadeau & Bengio 2003).

    Splits share customers, so that the variance of their mean does not fall with their number J: it is
    (1 / J + test / train) s², where s² is the variance over the splits, with J − 1 degrees of freedom. Splits without
    a value (NaN) are left out.

    Parameters
    ----------
    values : ndarray of float64, (J,)
    test_share : float
        Share of the customers that is held out in a split.
    n : int
        Number of customers.

    Examples
    --------
    >>> str(resampled_metric(np.array([1.0, 2.0, 3.0]), 0.5, 10))
    '2.0000 [-2.9683, 6.9683]'
    """
    found = values[np.isfinite(values)]
    if len(found) < 2:
        only = float(found[0]) if len(found) else float("nan")
        return Metric(only, float("nan"), float("nan"), n)
    variance = found.var(ddof=1) * (1.0 / len(found) + test_share / (1.0 - test_share))
    width = float(student_t.ppf(0.975, len(found) - 1) * np.sqrt(variance))
    middle = float(found.mean())
    return Metric(middle, middle - width, middle + width, n)
