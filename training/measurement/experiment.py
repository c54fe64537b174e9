"""A randomised experiment as arrays: who was drawn into which arm, and what they did after and before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.campaigns import CONTROL_VARIANTS
from qianmian.errors import DataError, UsageError
from training.measurement.notes import Note
from training.measurement.sample_ratio import SampleRatio, sample_ratio, sample_ratio_of_propensities

MIN_CUSTOMERS = 30  # of an arm; the intervals are those of means, which are normal only of many customers
SAME_PROPENSITY = 1e-9  # distance of probabilities that are equal but for rounding
CONTROL_NAMES = (*CONTROL_VARIANTS, "none", "no", "false", "0", "a", "否")
Series = NDArray[np.float64]


@dataclass(frozen=True)
class MetricSeries:
    """One metric of n customers.

    Attributes
    ----------
    name : str
    values : ndarray of float64, (n,)
        Outcome after the exposure; of a ratio metric the numerator.
    denominator : ndarray of float64, (n,), or None
        Of a ratio metric, such as the number of orders of each customer.
    before : ndarray of float64, (n,), or None
        The same metric before the exposure, for CUPED and the balance test.
    """

    name: str
    values: Series
    denominator: Series | None = None
    before: Series | None = None


@dataclass(frozen=True)
class Experiment:
    """Customers who were drawn into the arms of an experiment at random.

    Attributes
    ----------
    variant : ndarray of str, (n,)
    control : str
        The variant that the others are compared with.
    metrics : tuple of MetricSeries
    weights : mapping of str to float, or None
        How the variants were drawn, such as 1 and 1.
    propensity : ndarray of float64, (n,), or None
        Probability of the variant of each customer, where it was not the same for all of a variant.
    segments : mapping of str to ndarray of str, (n,)
        Segments that were named before the experiment, by name.
    notes : tuple of Note
        What was left out, a sentence each.
    """

    variant: NDArray[np.str_]
    control: str
    metrics: tuple[MetricSeries, ...]
    weights: Mapping[str, float] | None = None
    propensity: Series | None = None
    segments: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def treatments(self) -> list[str]:
        """The variants beside the control, in alphabetical order."""
        return [one for one in np.unique(self.variant).tolist() if one != self.control]


def choose_control(variants: Mapping[str, int], control: str | None) -> str:
    """The variant that the others are compared with: the one that is named, or whose name says so.

    Raises
    ------
    UsageError
        No row has the named one, or the names do not say which one it is.

    Examples
    --------
    >>> choose_control({"control": 10, "mail": 12}, None)
    'control'
    """
    listed = ", ".join(f"{variant} ({count:,})" for variant, count in variants.items())
    if control is not None:
        if control not in variants:
            raise UsageError("no customer is in this variant", where="--control", got=control, allowed=listed)
        return control
    found = [variant for variant in variants if variant.strip().lower() in CONTROL_NAMES]
    if len(found) != 1 and len(variants) > 1:
        raise UsageError(
            "it is not clear which variant the others are compared with", allowed=listed, hint="add --control VALUE"
        )
    return found[0] if found else next(iter(variants))


def require_arms(experiment: Experiment) -> None:
    """Check that there are two arms of enough customers.

    Raises
    ------
    DataError
        There is one arm, or an arm is too small.
    """
    arms = _sizes(experiment.variant)
    listed = ", ".join(f"{name}: {count:,}" for name, count in arms.items())
    if len(arms) < 2:
        raise DataError(
            "an experiment with one arm tells nothing: what these customers would have done otherwise is not known",
            got=listed or "no customers",
            allowed="two arms or more, drawn at random",
            hint="hold a random tenth of the next campaign out; `qianmian train uplift --campaign ID` estimates from "
            "observational data, under assumptions that it names",
        )
    if small := [name for name, count in arms.items() if count < MIN_CUSTOMERS]:
        raise DataError(
            f"too few customers in {', '.join(small)}",
            got=listed,
            allowed=f"at least {MIN_CUSTOMERS} customers an arm",
            hint="wait for more customers, or leave the arm out",
        )


def check_sample_ratio(experiment: Experiment) -> SampleRatio:
    """Compare the sizes of the arms with how they were drawn: alike, by weights, or by each customer's propensity."""
    if experiment.propensity is not None and experiment.weights is None:
        return sample_ratio_of_propensities(experiment.variant, experiment.propensity)
    arms = _sizes(experiment.variant)
    return sample_ratio(arms, experiment.weights or dict.fromkeys(arms, 1.0))


def weights_of(variant: NDArray[np.str_], propensity: Series) -> dict[str, float] | None:
    """The weight of each variant, if it was drawn with one probability for all customers; else None."""
    groups = {name: propensity[variant == name] for name in np.unique(variant).tolist()}
    if any(np.ptp(own) > SAME_PROPENSITY for own in groups.values()):
        return None
    return {name: float(own[0]) for name, own in groups.items()}


def _sizes(variant: NDArray[np.str_]) -> dict[str, int]:
    names, counts = np.unique(variant, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def require_effective_sizes(experiment: Experiment) -> list[Note]:
    """Notes on the largest weight and on what the weights cost; none without weights.

    Raises
    ------
    DataError
        The weights leave few customers of an arm.
    """
    if experiment.propensity is None:
        return []
    weight = 1.0 / experiment.propensity
    sizes = {
        name: float(weight[own].sum() ** 2 / (weight[own] ** 2).sum())
        for name in np.unique(experiment.variant).tolist()
        for own in (experiment.variant == name,)
    }
    told = ", ".join(f"{name}: {size:,.0f}" for name, size in sizes.items())
    if min(sizes.values()) < MIN_CUSTOMERS:
        raise DataError(
            "a few customers with small propensities would decide the result",
            got=f"effective sample sizes {told}; largest weight {weight.max():,.0f}",
            allowed=f"an effective sample size of at least {MIN_CUSTOMERS} an arm",
            hint="draw the next experiment with larger propensities, or wait for more customers",
        )
    return [
        Note(
            "customers were drawn with different probabilities, so each counts 1 ÷ propensity: "
            f"largest weight {weight.max():,.1f}, effective sample sizes {told}",
            f"客户的分流概率不同，因此每位客户按 1 ÷ 概率加权：最大权重 {weight.max():,.1f}，有效样本量 {told}",
        )
    ]
