"""Risk bands: the words for ranges of the probability of churn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qianmian.schema import RISK_BANDS


def risk_bands(probabilities: NDArray[np.float64], edges: Sequence[float]) -> list[str]:
    """Return the risk band of each probability: low < first edge ≤ medium < second edge ≤ high.

    Examples
    --------
    >>> risk_bands(np.array([0.1, 0.33, 0.66]), (0.33, 0.66))
    ['low', 'medium', 'high']
    """
    return [RISK_BANDS[band] for band in np.searchsorted(np.asarray(edges), probabilities, side="right").tolist()]
