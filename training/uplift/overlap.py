"""Whether contacted and other customers can be compared: estimated propensities, overlap, balance.

Where nobody was held out at random, whoever was contacted differs from the others. The probability of being contacted
is estimated from the profiles (the propensity score of Rosenbaum & Rubin 1983); customers who were almost certain to be
contacted, or not to be, have nobody to be compared with and are left out (Crump et al. 2009). That no further property
decided who was contacted cannot be tested, only doubted: see `training.uplift.placebo`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.classify.calibrated import platt_scaling
from models.classify.rhythm import probability
from qianmian.errors import DataError
from training.uplift import nuisance
from training.uplift.campaign_rows import CampaignRows
from training.uplift.trial import MIN_ARM

Floats = NDArray[np.float64]
LOWEST, HIGHEST = 0.05, 0.95  # propensities of customers who have others to be compared with
LEAST_KEPT = 0.5  # of the contacted customers must have such a propensity: else the effect is of few of them
BALANCED = 0.1  # standardised difference of means above which a feature is out of balance


@dataclass(frozen=True)
class Overlap:
    """The estimated propensities of n customers, and how the arms differ.

    Attributes
    ----------
    propensity : ndarray of float64, (n,)
    treated, kept : ndarray of bool, (n,)
        Who was contacted, and who has a propensity in [0.05, 0.95].
    before, after : dict of str to float
        Feature → absolute standardised difference of means between the arms: of all customers, and of those who are
        kept, weighted by inverse propensities.
    """

    propensity: Floats
    treated: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    before: dict[str, float]
    after: dict[str, float]

    @property
    def kept_share(self) -> float:
        """Share of all customers who are kept."""
        return float(self.kept.mean())

    @property
    def kept_of_treated(self) -> float:
        """Share of the contacted customers who are kept."""
        return float(self.kept[self.treated].mean())

    @property
    def out_of_balance(self) -> tuple[int, int]:
        """Number of features that are out of balance, before and after weighting."""
        before, after = (sum(value > BALANCED for value in values.values()) for values in (self.before, self.after))
        return before, after

    def facts(self) -> dict[str, float | int]:
        """The figures that a bundle keeps."""
        before, after = self.out_of_balance
        return {
            "kept_share": round(self.kept_share, 4),
            "kept_of_contacted": round(self.kept_of_treated, 4),
            "features": len(self.before),
            "out_of_balance_before": before,
            "out_of_balance_after": after,
            "largest_difference_after": round(max(self.after.values(), default=0.0), 4),
        }

    def notes(self) -> tuple[str, ...]:
        """The figures in words."""
        before, after = self.out_of_balance
        largest = max(self.after.values(), default=0.0)
        return (
            f"overlap: {self.kept_share:.0%} of the customers ({self.kept_of_treated:.0%} of the contacted) had a "
            f"probability of being contacted between {LOWEST:.0%} and {HIGHEST:.0%}; the others are left out",
            f"balance: {before} of {len(self.before)} features differ between the arms by more than {BALANCED} "
            f"standard deviations, {after} after weighting (the largest by {largest:.2f})",
        )


def estimate_propensity(rows: CampaignRows, spec: FeatureSpec, seed: int) -> Floats:
    """The probability of being contacted of each row, by models that have not seen the customer, (n,).

    Regularised models are timid: they call a customer possible who never would have been contacted. Platt scaling on
    the rows that they have not seen corrects it, so that missing overlap shows.

    Raises
    ------
    DataError
        Too few customers of a campaign were contacted, or too few were not.
    """
    found = np.empty(len(rows), dtype=np.float64)
    categorical = tuple(feature.categorical for feature in spec.features)
    for campaign in np.unique(rows.campaigns):
        inside = rows.campaigns == campaign
        contacted = int(rows.treated[inside].sum())
        others = int(inside.sum()) - contacted
        if min(contacted, others) < MIN_ARM:
            raise DataError(
                "too few customers were contacted" if contacted < others else "too few customers were not contacted",
                where="the customers with an order or an event before the first contact",
                got=f"{contacted:,} contacted, {others:,} not",
                allowed=f"at least {MIN_ARM} of each; a difference of a fifth needs some thousands",
                hint="choose another campaign, or hold out a tenth of the next one at random",
            )
        timid = nuisance.estimate_propensity(rows.X[inside], rows.treated[inside], seed, categorical)
        log_odds = np.log(timid / (1.0 - timid))
        slope, intercept = platt_scaling(log_odds, rows.treated[inside].astype(np.int64))
        found[inside] = probability(slope * log_odds + intercept).clip(nuisance.CLIP, 1.0 - nuisance.CLIP)
    return found


def overlap_of(rows: CampaignRows, propensity: Floats, names: tuple[str, ...]) -> Overlap:
    """How the arms differ, before and after weighting."""
    kept = (propensity >= LOWEST) & (propensity <= HIGHEST)
    weights = np.where(rows.treated, 1.0 / propensity, 1.0 / (1.0 - propensity))
    before = standardised_differences(rows.X, rows.treated, np.ones(len(rows)))
    inside = kept & (np.bincount(rows.treated[kept], minlength=2).min() > 0)
    after = standardised_differences(rows.X[inside], rows.treated[inside], weights[inside]) if inside.any() else before
    return Overlap(
        propensity,
        rows.treated,
        kept,
        dict(zip(names, before.tolist(), strict=True)),
        dict(zip(names, after.tolist(), strict=True)),
    )


def require_overlap(overlap: Overlap) -> None:
    """Check that enough of the contacted customers have others to be compared with.

    Raises
    ------
    DataError
        They have not.
    """
    if overlap.kept_of_treated >= LEAST_KEPT:
        return
    raise DataError(
        "no overlap: the customers who were contacted are too different from the others to be compared",
        where="the profiles at the first contact",
        got=f"{overlap.kept_of_treated:.0%} of them had a probability of being contacted in [{LOWEST}, {HIGHEST}]",
        allowed=f"at least {LEAST_KEPT:.0%}",
        hint="hold out a tenth of the next campaign at random, with the variant `control` in `touches`",
    )


def standardised_differences(X: NDArray[np.float32], treated: NDArray[np.bool_], weights: Floats) -> Floats:
    """Absolute difference of the weighted means of both arms, in standard deviations within the arms, (f,).

    Examples
    --------
    >>> X = np.array([[0.0], [2.0], [1.0], [3.0]], dtype=np.float32)
    >>> standardised_differences(X, np.array([True, True, False, False]), np.ones(4)).tolist()
    [1.0]
    """
    values = X.astype(np.float64)
    moments = []
    for arm in (treated, ~treated):
        shares = weights[arm] / weights[arm].sum()
        mean = shares @ values[arm]
        moments.append((mean, values[arm].var(axis=0)))
    (mean, variance), (other, other_variance) = moments
    spread = np.sqrt((variance + other_variance) / 2.0)
    return np.asarray(np.abs(mean - other) / np.where(spread > 0, spread, 1.0) * (spread > 0))
