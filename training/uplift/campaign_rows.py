"""The rows of `train uplift`: customers at the first contact of a campaign, their arm and their outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from features.campaigns import Arms
from features.compute.spec import FeatureSpec
from qianmian.errors import DataError
from training.jobs.base import TrainingContext
from training.propensity.rows import rows_with_history
from training.uplift.outcomes import outcomes_between


@dataclass(frozen=True)
class CampaignRows:
    """Customers of one or more campaigns; who is in several has a row for each.

    Attributes
    ----------
    X : ndarray of float32, (n, f)
        Profiles at the first contact of the campaign.
    treated : ndarray of bool, (n,)
        Whether the customer was contacted.
    outcome : ndarray of float64, (n,)
    propensity : ndarray of float64, (n,), or None
        Probability of being contacted; None where it is not told.
    owners : ndarray of str, (n,)
        one_id of each row.
    campaigns : ndarray of int64, (n,)
        Number of the campaign of each row.
    """

    X: NDArray[np.float32]
    treated: NDArray[np.bool_]
    outcome: NDArray[np.float64]
    propensity: NDArray[np.float64] | None
    owners: NDArray[np.str_]
    campaigns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.treated)

    @property
    def customers(self) -> NDArray[np.int64]:
        """Number of the customer of each row, (n,): rows of one customer are correlated."""
        return np.unique(self.owners, return_inverse=True)[1].astype(np.int64)

    def with_propensity(self, propensity: NDArray[np.float64]) -> CampaignRows:
        """The rows with estimated propensities."""
        return replace(self, propensity=propensity)

    def take(self, kept: NDArray[np.bool_]) -> CampaignRows:
        """The rows that are kept."""
        return replace(
            self,
            **{name: getattr(self, name)[kept] for name in ("X", "treated", "outcome", "owners", "campaigns")},
            propensity=None if self.propensity is None else self.propensity[kept],
        )


def stacked(parts: Sequence[CampaignRows]) -> CampaignRows:
    """The rows of several campaigns, one below the other; propensities only where all campaigns tell them."""
    known = [part.propensity for part in parts if part.propensity is not None]
    return CampaignRows(
        np.concatenate([part.X for part in parts]),
        np.concatenate([part.treated for part in parts]),
        np.concatenate([part.outcome for part in parts]),
        np.concatenate(known) if len(known) == len(parts) else None,
        np.concatenate([part.owners for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
    )


def campaign_rows(context: TrainingContext, arms: Arms, spec: FeatureSpec, outcome: str, horizon: int) -> CampaignRows:
    """Customers with a history at the first contact, and their outcome in the `horizon` days after the last."""
    end = arms.outcome_from + timedelta(days=horizon)
    return _rows(context, arms, spec, outcome, arms.as_of, arms.outcome_from, end)


def placebo_rows(context: TrainingContext, arms: Arms, spec: FeatureSpec, outcome: str, horizon: int) -> CampaignRows:
    """The same arms `horizon` days before the first contact: nobody had been contacted, so the effect must be 0."""
    start = arms.as_of - timedelta(days=horizon)
    return _rows(context, arms, spec, outcome, start, start, arms.as_of)


def _rows(
    context: TrainingContext,
    arms: Arms,
    spec: FeatureSpec,
    outcome: str,
    as_of: datetime,
    start: datetime,
    end: datetime,
) -> CampaignRows:
    profile = context.profile(as_of, spec)
    rows, propensity = rows_with_history(context, as_of), None
    if arms.campaign.is_randomised:
        one_ids = np.concatenate([arms.contacted, arms.held_out])
        known = np.flatnonzero(np.isin(profile.rows_of(one_ids), rows))
        rows = profile.rows_of(one_ids[known])
        treated = known < len(arms.contacted)
        propensity = None if arms.propensity is None else arms.propensity[known]
    else:  # everybody who was not contacted is compared
        rows = rows[~np.isin(profile.one_ids[rows], list(arms.others))]
        treated = np.isin(profile.one_ids[rows], arms.contacted)
    owners = profile.one_ids[rows]
    return CampaignRows(
        profile.values[rows],
        treated,
        outcomes_between(context.builder, outcome, owners, start, end),
        propensity,
        owners,
        np.zeros(len(rows), dtype=np.int64),
    )


def is_over(context: TrainingContext, arms: Arms, horizon: int) -> bool:
    """Whether the outcomes of a campaign are known at the cutoff of the training."""
    return arms.outcome_from + timedelta(days=horizon) <= context.as_of


def require_over(context: TrainingContext, arms: Arms, horizon: int) -> None:
    """Check that the outcomes of a campaign are known at the cutoff of the training.

    Raises
    ------
    DataError
        The campaign begins after the cutoff, or its horizon ends after it.
    """
    if is_over(context, arms, horizon):
        return
    end = arms.outcome_from + timedelta(days=horizon)
    begun = arms.as_of < context.as_of
    longest = (context.as_of - arms.outcome_from).days
    raise DataError(
        f"campaign {arms.campaign.campaign_id} "
        + ("is not over: what customers do after the contact is not known yet" if begun else "begins after the cutoff"),
        where="--campaign",
        got=f"contacts from {arms.as_of:%Y-%m-%d}, outcomes up to {end:%Y-%m-%d}, --as-of {context.as_of:%Y-%m-%d}",
        allowed=f"a horizon of at most {longest} days" if longest >= 1 else None,
        hint="choose an earlier campaign, " + ("a shorter --horizon-days, " if longest >= 1 else "") + "or wait",
    )
