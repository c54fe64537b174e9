"""Differences by segments that were named before the experiment, and whether the segments differ at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from training.measurement.differences import Difference


@dataclass(frozen=True)
class SegmentEffect:
    """The difference among the customers of one segment.

    Attributes
    ----------
    segment, value : str
        Name of the segmentation, and which part of it.
    n_control, n_treatment : int
    difference : Difference or None
        Absolute; None where there are too few customers for it.
    p_holm : float
        p value, corrected for all segments of the metric.
    """

    segment: str
    value: str
    n_control: int
    n_treatment: int
    difference: Difference | None
    p_holm: float = float("nan")


@dataclass(frozen=True)
class Interaction:
    """Whether the differences of the segments differ from each other.

    Attributes
    ----------
    segment : str
    statistic : float
        Cochran's Q.
    p_value, p_holm : float
        Of one look; and corrected for all segmentations of the metric.
    """

    segment: str
    statistic: float
    p_value: float
    p_holm: float = float("nan")


def interaction(segment: str, differences: Sequence[tuple[float, float]]) -> Interaction:
    """Cochran's test (1954) of two or more independent differences, each with its standard error.

    Without it, an effect in one segment and none in another is read as a difference, which it is not: both intervals
    may hold the same value.

    Examples
    --------
    >>> round(interaction("age", [(0.0, 1.0), (2.0, 1.0)]).p_value, 3)
    0.157
    """
    values, errors = np.array(differences, dtype=np.float64).T
    weights = errors**-2.0
    mean = (weights @ values) / weights.sum()
    statistic = float(weights @ (values - mean) ** 2)
    return Interaction(segment, statistic, float(chi2.sf(statistic, len(values) - 1)))
