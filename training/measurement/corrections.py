"""Corrections for several tests: of twenty true null hypotheses, one has a p value below .05 by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control


def bonferroni(p_values: Sequence[float]) -> NDArray[np.float64]:
    """p values times their number, at most 1: no false positive among all tests in 95 % of experiments.

    Examples
    --------
    >>> bonferroni([0.01, 0.5]).tolist()
    [0.02, 1.0]
    """
    return np.minimum(np.asarray(p_values, dtype=np.float64) * len(p_values), 1.0)


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Holm's step-down correction (1979): it promises what `bonferroni` does and is never larger.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted_p = np.empty_like(raw)
    adjusted_p[order] = np.minimum(stepped, 1.0)
    return adjusted_p


def benjamini_hochberg(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Benjamini & Hochberg's correction (1995): of all differences told at 5 %, 5 % are false on average.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    return np.asarray(false_discovery_control(p_values), dtype=np.float64) if len(p_values) else np.empty(0)
