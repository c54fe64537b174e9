"""Rows of campaigns as a `Trial`: randomised as they are, others with estimated propensities where the arms overlap."""

from __future__ import annotations

from dataclasses import dataclass

from features.compute.spec import FeatureSpec
from training.uplift.campaign_rows import CampaignRows
from training.uplift.overlap import Overlap, estimate_propensity, overlap_of
from training.uplift.trial import Trial


@dataclass(frozen=True)
class CampaignTrial:
    """A trial, and where nobody was held out at random, how far the arms can be compared.

    Attributes
    ----------
    trial : Trial
        Of the customers who have others to be compared with.
    overlap : Overlap or None
        Of all customers; None where customers were held out at random.
    """

    trial: Trial
    overlap: Overlap | None


def campaign_trial(rows: CampaignRows, spec: FeatureSpec, seed: int, *, randomised: bool) -> CampaignTrial:
    """The trial of the rows; of several campaigns each is a stratum.

    Raises
    ------
    DataError
        Too few customers were contacted, or too few were not.
    """
    overlap = None
    if not randomised:
        propensity = estimate_propensity(rows, spec, seed)
        overlap = overlap_of(rows, propensity, spec.names)
        rows = rows.with_propensity(propensity).take(overlap.kept)
    several = len(set(rows.campaigns.tolist())) > 1
    trial = Trial(
        rows.X,
        rows.treated,
        rows.outcome,
        rows.propensity,
        list(spec.names),
        rows.campaigns if several else None,
        tuple(feature.categorical for feature in spec.features),
        rows.customers if several else None,
    )
    return CampaignTrial(trial, overlap)
