"""What the tests need of one arm: the number of customers, the mean and the variance; ratio metrics are linearised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ArmMoments:
    """One metric in one arm.

    Attributes
    ----------
    n : int
        Number of customers.
    mean : float
    variance : float
        Variance of a customer's value, not of the mean.
    """

    n: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Self:
        """The moments of one value per customer, (n,), n ≥ 2."""
        return cls(len(values), float(values.mean()), float(values.var(ddof=1)))

    @classmethod
    def of_sums(cls, total: float, sum_of_squares: float, n: int) -> Self:
        """The moments by sums, as a query returns them.

        Examples
        --------
        >>> ArmMoments.of_sums(6.0, 14.0, 3)
        ArmMoments(n=3, mean=2.0, variance=1.0)
        """
        return cls(n, total / n, (sum_of_squares - total * total / n) / (n - 1))

    @classmethod
    def of_proportion(cls, successes: int, n: int) -> Self:
        """The moments of a yes or no: p and p (1 − p)."""
        share = successes / n
        return cls(n, share, share * (1.0 - share))

    @property
    def variance_of_mean(self) -> float:
        """Squared standard error of the mean."""
        return self.variance / self.n


def moments_of(
    outcomes: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[ArmMoments, ArmMoments]:
    """The moments of the control and of the treatment."""
    return ArmMoments.of(outcomes[0]), ArmMoments.of(outcomes[1])


def skewness_of(outcomes: tuple[NDArray[np.float64], NDArray[np.float64]]) -> float:
    """Skewness of a customer's value within the arms, of both together: a small arm alone may have no large value."""
    inner = np.concatenate([one - one.mean() for one in outcomes])
    return float((inner**3).mean() / (inner**2).mean() ** 1.5)


def skewness_of_share(successes: int, n: int) -> float:
    """Skewness of a yes or no: (1 − 2p) ÷ √(p (1 − p)).

    Examples
    --------
    >>> round(skewness_of_share(1, 10), 2)
    2.67
    """
    share = successes / n
    return float((1.0 - 2.0 * share) / np.sqrt(share * (1.0 - share)))


def skewness_of_difference(skewness: float, n_control: int, n_treatment: int) -> float:
    """Skewness of the difference of two means, whatever its sign, if a value is as skewed in both arms.

    It is 0 for arms of the same size, in which the long tails cancel. Otherwise the small arm decides: with few large
    values by chance its mean is too low and so is its variance, and the interval is both shifted and too narrow (Hall
    1992, "The bootstrap and Edgeworth expansion", section 2.6).

    Examples
    --------
    >>> skewness_of_difference(8.0, 500, 500), round(skewness_of_difference(8.0, 30, 2970), 2)
    (0.0, 1.44)
    """
    uneven = abs(n_control**-2 - n_treatment**-2) / (1 / n_control + 1 / n_treatment) ** 1.5
    return float(abs(skewness) * uneven)


def linearised(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """One value per customer whose mean is Σ numerator ÷ Σ denominator, and whose variance is that of the ratio.

    A ratio metric such as amount ÷ order is a ratio of sums over customers; its denominators are random and those of
    one customer belong together, so the orders are no independent observations. By the delta method the ratio R varies
    as the mean of R + (y − R n) ÷ mean(n) (Deng, Knoblich & Lu 2018, "Applying the delta method in metric analytics").
    With weights 1 ÷ propensity times the outcome and these weights as denominator it is Hájek's estimator.

    Parameters
    ----------
    numerator, denominator : ndarray of float64, shape (n,)
        Sums of each customer of one arm. The denominators have a positive sum.

    Examples
    --------
    >>> float(linearised(np.array([10.0, 2.0]), np.array([1.0, 3.0])).mean())
    3.0
    """
    ratio = numerator.sum() / denominator.sum()
    return np.asarray(ratio + (numerator - ratio * denominator) / denominator.mean(), dtype=np.float64)
