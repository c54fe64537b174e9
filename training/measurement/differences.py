"""The difference between two arms, with an interval for one look and one that holds at every look."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import norm, t

from training.measurement.moments import ArmMoments

ALPHA = 0.05  # of all intervals and tests
PLANNED = 5_000  # customers of both arms at which the confidence sequence is narrowest, unless it is said
MAX_SKEWNESS = 1.0  # of a difference, above which intervals may miss the truth in a quarter of experiments and more
NOTED_SKEWNESS = 0.5  # above which they miss it in up to a seventh
BEYOND_ZERO = 3.0  # standard errors of the control mean from 0, below which a relative difference is not told


@dataclass(frozen=True)
class Difference:
    """Mean of the treatment minus that of the control, or divided by it, minus 1.

    Attributes
    ----------
    value, low, high : float
        Estimate and its 95 % interval.
    p_value : float
        Probability of an estimate at least this far from 0 if there were no difference. That of a confidence sequence
        holds at every look (always-valid p value).
    standard_error : float
    """

    value: float
    low: float
    high: float
    p_value: float
    standard_error: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, Any]:
        """The difference as JSON-compatible data."""
        return asdict(self)


@dataclass(frozen=True)
class Chances:
    """A Bayesian reading with a flat prior.

    Attributes
    ----------
    chance_to_win : float
        Probability that the treatment has the higher mean.
    risk_control, risk_treatment : float
        Expected loss of choosing this arm if the other one is better, in the unit of the difference.
    """

    chance_to_win: float
    risk_control: float
    risk_treatment: float

    def as_dict(self) -> dict[str, Any]:
        """The chances as JSON-compatible data."""
        return asdict(self)


def estimate(control: ArmMoments, treatment: ArmMoments, relative: bool, shared: float = 0.0) -> tuple[float, float]:
    """The difference of the means and its variance; of a relative one by the delta method.

    Parameters
    ----------
    relative : bool
        Mean of the treatment ÷ that of the control − 1, instead of the difference.
    shared : float
        Variance of a part that both means have in common beside their own (`AdjustedOutcomes`).
    """
    if not relative:
        return treatment.mean - control.mean, control.variance_of_mean + treatment.variance_of_mean
    variance = treatment.variance_of_mean / control.mean**2
    variance += control.variance_of_mean * treatment.mean**2 / control.mean**4
    value = treatment.mean / control.mean - 1.0
    return value, variance + value**2 * shared / control.mean**2


def has_relative(control: ArmMoments, treatment: ArmMoments) -> bool:
    """Whether a difference relative to the control says something: its mean is far enough above 0.

    Where nobody of the treatment has the metric, the delta method gives −100 % without any spread, which is none.
    """
    spread = estimate(control, treatment, relative=True)[1] if control.mean > 0 else 0.0
    return spread > 0 and control.mean > BEYOND_ZERO * math.sqrt(control.variance_of_mean)


def welch(
    control: ArmMoments, treatment: ArmMoments, relative: bool = False, shared: float = 0.0, alpha: float = ALPHA
) -> Difference:
    """The difference for one look, planned in advance (Welch 1947).

    Parameters
    ----------
    control, treatment : ArmMoments
        At least one of them varies.
    relative : bool
    shared : float
        See `estimate`.
    alpha : float
        1 − the level of the interval.

    Examples
    --------
    >>> found = welch(ArmMoments(100, 1.0, 1.0), ArmMoments(100, 1.5, 1.0))
    >>> round(found.value, 2), round(found.low, 2), round(found.high, 2)
    (0.5, 0.22, 0.78)
    """
    value, variance = estimate(control, treatment, relative, shared)
    parts = [(arm.variance_of_mean, arm.n - 1) for arm in (control, treatment)]
    freedom = sum(part for part, _ in parts) ** 2 / sum(part**2 / rest for part, rest in parts)
    error = math.sqrt(variance)
    half = float(t.isf(alpha / 2, freedom)) * error
    return Difference(value, value - half, value + half, 2.0 * float(t.sf(abs(value) / error, freedom)), error)


def confidence_sequence(
    control: ArmMoments,
    treatment: ArmMoments,
    relative: bool = False,
    planned: int = PLANNED,
    shared: float = 0.0,
    alpha: float = ALPHA,
) -> Difference:
    """The difference with an asymptotic confidence sequence: over all looks, it misses the truth in 5 % of experiments.

    Equations 9 and 161 of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2021), "Time-uniform central limit theory and
    asymptotic confidence sequences", arXiv:2103.06476: with n customers in both arms, s²/n the variance of the
    difference and ρ² = (−2 ln α + ln(1 − 2 ln α)) / planned, the half width is
    s √(2 (n ρ² + 1) ln(√(n ρ² + 1) / α)) / (n ρ).

    Parameters
    ----------
    control, treatment : ArmMoments
    relative : bool
    planned : int
        Number of customers at which the sequence is narrowest, chosen before the first look and never changed.
    shared : float
        See `estimate`.
    alpha : float

    Examples
    --------
    >>> found = confidence_sequence(ArmMoments(100, 1.0, 1.0), ArmMoments(100, 1.5, 1.0))
    >>> round(found.value, 2), round(found.low, 2), round(found.high, 2)
    (0.5, -0.22, 1.22)
    """
    value, variance = estimate(control, treatment, relative, shared)
    n = control.n + treatment.n
    growth = n * (-2.0 * math.log(alpha) + math.log(1.0 - 2.0 * math.log(alpha))) / planned
    half = math.sqrt(variance * 2.0 * (growth + 1.0) / growth * math.log(math.sqrt(growth + 1.0) / alpha))
    p_value = min(1.0, math.sqrt(growth + 1.0) * math.exp(-(value**2) / variance * growth / (2.0 * (growth + 1.0))))
    return Difference(value, value - half, value + half, p_value, math.sqrt(variance))


def chances(control: ArmMoments, treatment: ArmMoments, relative: bool = True, shared: float = 0.0) -> Chances:
    """Probability that the treatment is better, and the risk of either choice, with a flat prior.

    The posterior of the difference d is normal, and the risk of keeping the control is E[max(d, 0)]. `shared` is that
    of `estimate`.

    Examples
    --------
    >>> found = chances(ArmMoments.of_proportion(49, 100), ArmMoments.of_proportion(51, 100))
    >>> round(found.chance_to_win, 5), round(found.risk_control, 4), round(found.risk_treatment, 5)
    (0.60918, 0.0814, 0.04058)
    """
    value, variance = estimate(control, treatment, relative, shared)
    error = math.sqrt(variance)
    win = float(norm.cdf(value / error))
    gained = error * float(norm.pdf(value / error)) + value * win
    return Chances(win, gained, gained - value)
