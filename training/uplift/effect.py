"""The average effect of a contact, with its interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from training.uplift.nuisance import cross_fit
from training.uplift.trial import Trial

LEVEL = 0.95
FOLDS = 5


@dataclass(frozen=True)
class Effect:
    """An average effect with its 95 % interval over n customers.

    Attributes
    ----------
    value, low, high, standard_error : float
    n : int
    """

    value: float
    low: float
    high: float
    standard_error: float
    n: int

    @classmethod
    def of(cls, value: float, standard_error: float, n: int) -> Effect:
        """The effect with its normal interval."""
        width = float(norm.ppf(0.5 + LEVEL / 2)) * standard_error
        return cls(value, value - width, value + width, standard_error, n)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def average_effect(trial: Trial, seed: int) -> Effect:
    """How much the contact changes the outcome, on average over all customers.

    For a plain randomised test it is the difference of the means of both arms, with their own variances (Neyman 1923).
    With propensities or strata it is the mean of the doubly robust pseudo-outcomes of cross-fitted outcome models
    (Robins, Rotnitzky & Zhao 1994; Chernozhukov et al. 2018).

    Parameters
    ----------
    trial : Trial
    seed : int
        Of the folds and the trees.
    """
    if trial.is_plain:
        return difference_in_means(trial.outcome, trial.treated)
    pseudo = trial.by_customer(cross_fit(trial, seed, FOLDS).pseudo)
    return Effect.of(float(pseudo.mean()), float(pseudo.std(ddof=1) / np.sqrt(len(pseudo))), len(pseudo))


def difference_in_means(outcome: NDArray[np.float64], treated: NDArray[np.bool_]) -> Effect:
    """The mean of those contacted minus that of the others.

    Examples
    --------
    >>> difference_in_means(np.array([3.0, 5.0, 1.0, 1.0]), np.array([True, True, False, False])).value
    3.0
    """
    ours, theirs = outcome[treated], outcome[~treated]
    variance = ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs)
    return Effect.of(float(ours.mean() - theirs.mean()), float(np.sqrt(variance)), len(outcome))
