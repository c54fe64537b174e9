"""Risk bands: the words for ranges of a probability, absolute or relative to the customers who are scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qianmian.schema import RISK_BANDS

FACT = "risk_bands"  # of a bundle: the two bounds that were decided when the model was trained
HIGHEST_SHARE = 0.1  # of the customers, those at highest risk, may be in the band high
TIMES_BASE_RATE = 2.0  # a customer of the band high is at least so many times as likely as the average customer
SMALLEST = 1e-12  # probability that can be high
EVEN = 0.5  # who is more likely than not is never in the band low, whatever the base rate


@dataclass(frozen=True)
class RiskBands:
    """The bounds of the risk bands: low < `medium_from` ≤ medium < `high_from` ≤ high.

    Attributes
    ----------
    medium_from, high_from : float
        Probabilities.

    Examples
    --------
    >>> RiskBands(0.33, 0.66).of(np.array([0.1, 0.33, 0.66]))
    ['low', 'medium', 'high']
    """

    medium_from: float
    high_from: float

    def of(self, probabilities: NDArray[np.float64]) -> list[str]:
        """The risk band of each of n probabilities."""
        places = np.searchsorted([self.medium_from, self.high_from], probabilities, side="right")
        return [RISK_BANDS[place] for place in places.tolist()]

    @classmethod
    def relative(cls, probabilities: NDArray[np.float64]) -> RiskBands:
        """The bounds for the customers who are scored at one moment.

        The base rate b is their mean probability. *High* are the tenth at highest risk (more, if the tenth ends among
        equal probabilities), and only those with at least twice the base rate; where b is above a third, at least
        (1 + b) ÷ 2, because twice b is no probability that a customer can have. *Medium* are the others from the base
        rate on, or from one half if b is above it.

        Parameters
        ----------
        probabilities : ndarray of float64, shape (n,)
            At least one.

        Examples
        --------
        >>> RiskBands.relative(np.array([0.04] * 8 + [0.2, 0.48]))  # a tenth, above twice the mean of .1
        RiskBands(medium_from=0.1, high_from=0.228)
        >>> RiskBands.relative(np.array([0.9] * 10))  # nearly everybody: nobody is low, nobody stands out
        RiskBands(medium_from=0.5, high_from=0.95)
        """
        base = float(np.mean(probabilities))
        notable = min(TIMES_BASE_RATE * base, (1.0 + base) / 2.0)
        tenth = float(np.quantile(probabilities, 1.0 - HIGHEST_SHARE))
        return cls(_rounded_down(min(base, EVEN)), max(_rounded_down(max(tenth, notable)), SMALLEST))


def _rounded_down(bound: float) -> float:
    """A bound with six digits, so that a probability that equals the bound is not below it; 0 below `SMALLEST`."""
    if bound < SMALLEST:
        return 0.0
    scale = 10.0 ** (5 - math.floor(math.log10(bound)))
    return math.floor(bound * scale + 1e-6) / scale


BEFORE_THEY_WERE_STORED = RiskBands(0.33, 0.66)  # of models that an earlier version trained


def bands_of_model(facts: Mapping[str, Any], absolute: Sequence[float] | None = None) -> RiskBands:
    """The risk bands of a model: the absolute bounds of the settings, else those of its training.

    Parameters
    ----------
    facts : mapping
        Facts of its bundle.
    absolute : (float, float), optional
        `churn.risk_bands` of the settings.
    """
    bounds = absolute or facts.get(FACT)
    return RiskBands(*bounds) if bounds else BEFORE_THEY_WERE_STORED
