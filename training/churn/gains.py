"""Whom a list of the highest risks finds: precision, lift and recall of the top shares, and the curve of gains."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import Statistic, paired_difference, statistic_metric
from training.report import Metric, Metrics

SHARES = (0.05, 0.1, 0.2)  # of the customers, from the highest risk on
HIGHEST = "highest "  # prefix of their slices
CURVE_SHARES = tuple(np.linspace(0.0, 1.0, 41).tolist())
Floats = NDArray[np.float64]


def positives_found(share: float, y: NDArray[np.int64], p: Floats) -> float:
    """Expected number of positives among the share of the rows with the highest scores; ties are in random order.

    Examples
    --------
    >>> positives_found(0.5, np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.5, 0.5]))
    1.5
    """
    n = max(1, round(share * len(y)))
    threshold = np.partition(p, len(p) - n)[len(p) - n]
    above, tied = p > threshold, p == threshold
    return float(y[above].sum() + (n - above.sum()) * y[tied].mean())


def precision(share: float, y: NDArray[np.int64], p: Floats) -> float:
    """Share of positives among the rows with the highest scores."""
    return positives_found(share, y, p) / max(1, round(share * len(y)))


def lift(share: float, y: NDArray[np.int64], p: Floats) -> float:
    """Precision ÷ the share of positives among all rows."""
    return precision(share, y, p) / float(y.mean())


def lift_at(share: float) -> Statistic:
    """The lift of a share of the customers as a metric; NaN if there are no positives.

    Examples
    --------
    >>> lift_at(0.5)(np.array([1, 1, 0, 0]), np.array([0.9, 0.8, 0.2, 0.1]))
    2.0
    >>> lift_at(0.5)(np.array([1, 1, 0, 0]), np.zeros(4))
    1.0
    """
    return lambda y, p: lift(share, y, p) if y.any() else float("nan")


def recall(share: float, y: NDArray[np.int64], p: Floats) -> float:
    """Share of the positives that are among the rows with the highest scores."""
    return positives_found(share, y, p) / float(y.sum())


def top_shares(y: NDArray[np.int64], p: Floats, baselines: Mapping[str, Floats]) -> dict[str, Metrics]:
    """Precision, lift and recall of the top 5, 10 and 20 %, and how far the precision is ahead of each baseline.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        1 for what is looked for.
    p : ndarray of float64, shape (n,)
    baselines : mapping of str to ndarray, each of shape (n,)
        Scores of the baselines.
    """
    found: dict[str, Metrics] = {}
    for share in SHARES:
        of_share: dict[str, Metric] = {
            name: statistic_metric(partial(statistic, share), y, p)
            for name, statistic in {"precision": precision, "lift": lift, "recall": recall}.items()
        }
        for name, q in baselines.items():
            of_share[f"precision {name}"] = statistic_metric(partial(precision, share), y, q)
            of_share[f"precision minus {name}"] = paired_difference(partial(precision, share), y, p, q)
        found[f"{HIGHEST}{share:.0%}"] = of_share
    return found


def gains_curves(
    y: NDArray[np.int64], p: Floats, baselines: Mapping[str, Floats]
) -> tuple[list[float], dict[str, list[float]]]:
    """Percent of the customers, and the percent of the positives among them: of the model and of the baselines."""
    lines = {
        name: [100 * recall(share, y, q) if share else 0.0 for share in CURVE_SHARES]
        for name, q in {"model": p, **baselines}.items()
    }
    shares = [100 * share for share in CURVE_SHARES]
    return shares, {**lines, "at random": shares}
