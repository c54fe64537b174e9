"""Tenths of the customers by uplift: apart from the model, so that a server needs no XGBoost before it loads one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def decile_of(uplift: NDArray[np.float64], edges: Sequence[float]) -> NDArray[np.int64]:
    """Return the tenth of the customers by uplift, 1 for the highest, int64, (n,).

    Parameters
    ----------
    edges : sequence of 9 floats
        Ascending bounds of the tenths.

    Examples
    --------
    >>> decile_of(np.array([0.95, 0.05, -1.0]), [0.1 * n for n in range(1, 10)]).tolist()
    [1, 10, 10]
    """
    return np.asarray(10 - np.searchsorted(np.asarray(edges, dtype=np.float64), uplift, side="right"))
