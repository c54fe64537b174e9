"""`measure funnel`: how many of the customers of each variant reach the steps of a funnel after their exposure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from features.compute.builder import Builder
from features.profiles.analytics import funnel
from qianmian.errors import DataError
from training.measurement.campaign import Exposures
from training.measurement.corrections import holm
from training.measurement.differences import MAX_SKEWNESS, PLANNED, Difference
from training.measurement.effects import ArmComparison, effect_of
from training.measurement.experiment import MIN_CUSTOMERS, weights_of
from training.measurement.moments import ArmMoments, skewness_of_difference, skewness_of_share
from training.measurement.notes import Language
from training.measurement.sample_ratio import SampleRatio


@dataclass(frozen=True)
class FunnelStepEffect:
    """One step of a funnel in one variant.

    Attributes
    ----------
    step, variant : str
    reached, exposed : int
        Customers of the variant who reached the step, of all who were exposed.
    share : float
        reached ÷ exposed. All who were exposed are counted, because who reaches the step before is already an effect
        of the variant.
    of_previous : float or None
        Share of those who reached the step before; it describes and does not compare.
    difference : Difference or None
        Share minus that of the control; None for the control itself, and where nobody or everybody reached the step, or
        too few for the smaller arm (`skewness_of_difference`).
    p_holm : float
        p value, corrected for all steps and variants.
    """

    step: str
    variant: str
    reached: int
    exposed: int
    share: float
    of_previous: float | None
    difference: Difference | None
    p_holm: float = float("nan")


@dataclass(frozen=True)
class FunnelEffects(ArmComparison[FunnelStepEffect]):
    """A funnel of every variant: the effects on its steps.

    Attributes
    ----------
    steps : tuple of str
    """

    steps: tuple[str, ...]

    def as_dict(self, language: Language = "en") -> dict[str, Any]:
        """The funnels as JSON-compatible data, the notes in one language."""
        return {"steps": list(self.steps), **super().as_dict(language)}


def compare_funnels(
    builder: Builder,
    exposures: Exposures,
    steps: Sequence[str],
    as_of: datetime,
    control: str,
    ratio: SampleRatio,
    daily: bool = True,
    planned: int = PLANNED,
) -> FunnelEffects:
    """Compare the steps of a funnel between the variants of a campaign.

    Raises
    ------
    UsageError
        A step is unknown.
    DataError
        An arm is too small, nobody reached the first step, or customers were drawn with different probabilities.
    """
    if exposures.propensity is not None and weights_of(exposures.variant, exposures.propensity) is None:
        raise DataError(
            "customers were drawn with different probabilities, so the shares of the arms are of different customers",
            where=f"touches of campaign {exposures.campaign.campaign_id}",
            got=f"propensities from {exposures.propensity.min():g} to {exposures.propensity.max():g}",
            allowed="one probability for all customers of a variant",
            hint="`qianmian measure ab --campaign` weights each customer by 1 ÷ propensity",
        )
    exposed = Counter(exposures.variant.tolist())
    if len(exposed) < 2 or min(exposed.values()) < MIN_CUSTOMERS:
        raise DataError(
            "a funnel is compared between two arms or more",
            got=", ".join(f"{name}: {count:,}" for name, count in exposed.items()),
            allowed=f"at least {MIN_CUSTOMERS} customers an arm",
            hint="wait for more customers, or hold a random tenth of the next campaign out",
        )
    table = exposures.as_table()
    tags = table.select(["one_id", "variant"]).rename_columns(["one_id", "tag"])
    found = funnel(builder.views(as_of), steps, tags=tags, windows=table)
    if not found.steps[0].reached:
        raise DataError(
            f"no customer of the campaign reached '{steps[0]}' within {exposures.window_days} days of the touch",
            hint="choose other --steps or a longer --window-days",
        )
    names = tuple(step.step for step in found.steps)
    groups = {group.tag: group.reached for group in found.groups}
    reached = {variant: groups.get(variant, (0,) * len(names)) for variant in exposed}
    variants = [control, *(variant for variant in sorted(exposed) if variant != control)]
    effects = [
        _effect(names, place, variant, reached, exposed, control, daily, planned)
        for place in range(len(names))
        for variant in variants
    ]
    adjusted_p = iter(holm([one.difference.p_value for one in effects if one.difference]))
    effects = [replace(one, p_holm=float(next(adjusted_p))) if one.difference else one for one in effects]
    return FunnelEffects(control, daily, ratio, tuple(effects), exposures.notes, names)


def _effect(
    names: tuple[str, ...],
    place: int,
    variant: str,
    reached: dict[str, tuple[int, ...]],
    exposed: Counter[str],
    control: str,
    daily: bool,
    planned: int,
) -> FunnelStepEffect:
    count, total = reached[variant][place], exposed[variant]
    before = reached[variant][place - 1] if place else 0
    arms = [ArmMoments.of_proportion(reached[arm][place], exposed[arm]) for arm in (control, variant)]
    is_told = variant != control and sum(arm.variance for arm in arms) > 0
    if is_told:
        both = reached[control][place] + count
        skewness = skewness_of_share(both, exposed[control] + total)
        is_told = skewness_of_difference(skewness, exposed[control], total) <= MAX_SKEWNESS
    return FunnelStepEffect(
        names[place],
        variant,
        count,
        total,
        count / total,
        count / before if before else None,
        effect_of(arms[0], arms[1], planned).at(daily)[0] if is_told else None,
    )
