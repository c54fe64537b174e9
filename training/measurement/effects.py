"""What an experiment says: the difference of every metric of every variant, with corrections, CUPED and segments."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from qianmian.errors import DataError
from training.measurement.corrections import benjamini_hochberg, bonferroni, holm
from training.measurement.cuped import adjusted_for_before
from training.measurement.differences import (
    MAX_SKEWNESS,
    NOTED_SKEWNESS,
    PLANNED,
    Chances,
    Difference,
    chances,
    confidence_sequence,
    has_relative,
    welch,
)
from training.measurement.experiment import (
    MIN_CUSTOMERS,
    Experiment,
    MetricSeries,
    Series,
    check_sample_ratio,
    require_arms,
    require_effective_sizes,
)
from training.measurement.moments import ArmMoments, linearised, moments_of, skewness_of, skewness_of_difference
from training.measurement.notes import Language, Note
from training.measurement.sample_ratio import SampleRatio
from training.measurement.segments import Interaction, SegmentEffect, interaction

FEW_ACTIVE = 10  # customers of both arms who differ from the others, below which the interval is a rough guess
EXPLAINS_ALL = 1.0 - 1e-9  # share of the variance
SAME = 1e-12  # relative distance of numbers that are equal but for rounding


@dataclass(frozen=True)
class EffectEstimate:
    """One estimate of a difference, absolute and relative, each for one look and for every look.

    Attributes
    ----------
    absolute, relative : Difference
        Welch's interval, for one look that was planned; the relative one is None where the control mean is too near 0.
    absolute_sequence, relative_sequence : Difference
        The confidence sequence, for any number of looks.
    """

    absolute: Difference
    relative: Difference | None
    absolute_sequence: Difference
    relative_sequence: Difference | None

    def at(self, daily: bool) -> tuple[Difference, Difference | None]:
        """The absolute and the relative difference that hold under daily looks, or at one look."""
        return (self.absolute_sequence, self.relative_sequence) if daily else (self.absolute, self.relative)


@dataclass(frozen=True)
class MetricEffect:
    """What one variant did to one metric.

    Attributes
    ----------
    metric, variant : str
    n_control, n_treatment : int
        Customers.
    mean_control, mean_treatment : float
    raw : EffectEstimate
    cuped : EffectEstimate or None
        The same difference with the pre-period taken into account; None without such a period.
    variance_removed : float or None
        Share of the variance that CUPED takes away.
    balance : Difference or None
        Difference of the pre-period, which has to be chance.
    chances : Chances
        Of what is decided by; relative where that can be told.
    p_value, p_bonferroni, p_holm, p_benjamini_hochberg : float
        Of what is decided by (CUPED where there is a pre-period), and corrected for all metrics and variants.
    segments : tuple of SegmentEffect
    interactions : tuple of Interaction
    """

    metric: str
    variant: str
    n_control: int
    n_treatment: int
    mean_control: float
    mean_treatment: float
    raw: EffectEstimate
    cuped: EffectEstimate | None
    variance_removed: float | None
    balance: Difference | None
    chances: Chances
    p_value: float
    p_bonferroni: float = float("nan")
    p_holm: float = float("nan")
    p_benjamini_hochberg: float = float("nan")
    segments: tuple[SegmentEffect, ...] = ()
    interactions: tuple[Interaction, ...] = ()

    @property
    def decided_by(self) -> EffectEstimate:
        """The estimate that is told: CUPED where there is a pre-period, because it varies less."""
        return self.cuped or self.raw


EffectT = TypeVar("EffectT")


@dataclass(frozen=True)
class ArmComparison(Generic[EffectT]):
    """The arms of an experiment beside the control.

    Attributes
    ----------
    control : str
    daily : bool
        Whether what is told holds under daily looks, or at one planned look.
    ratio : SampleRatio
    effects : tuple
        Dataclasses.
    notes : tuple of Note
    """

    control: str
    daily: bool
    ratio: SampleRatio
    effects: tuple[EffectT, ...]
    notes: tuple[Note, ...]

    @property
    def is_valid(self) -> bool:
        """Whether the arms are as large as they were drawn."""
        return not self.ratio.is_mismatch

    def as_dict(self, language: Language = "en") -> dict[str, Any]:
        """The result as JSON-compatible data, the notes in one language."""
        effects: tuple[Any, ...] = self.effects
        return {
            "control": self.control,
            "looks": "daily" if self.daily else "once",
            "valid": self.is_valid,
            "sample_ratio": self.ratio.as_dict(),
            "effects": [asdict(effect) for effect in effects],
            "notes": [note.text(language) for note in self.notes],
        }


class Measurement(ArmComparison[MetricEffect]):
    """The result of an experiment: the effects on its metrics."""


def measure(experiment: Experiment, daily: bool = True, planned: int = PLANNED) -> Measurement:
    """Compare every variant with the control.

    Parameters
    ----------
    experiment : Experiment
    daily : bool
        Decide by confidence sequences, which hold under daily looks; else by Welch's test at one planned look.
    planned : int
        Customers at which the sequences are narrowest.

    Raises
    ------
    DataError
        There is one arm, an arm is too small, or a metric has the same value for all customers but one.
    """
    require_arms(experiment)
    notes = [*experiment.notes, *require_effective_sizes(experiment)]
    effects = [
        _effect(experiment, metric, variant, daily, planned, notes)
        for metric in experiment.metrics
        for variant in experiment.treatments
    ]
    raw = [effect.p_value for effect in effects]
    adjusted_p = zip(bonferroni(raw), holm(raw), benjamini_hochberg(raw), strict=True)
    effects = [
        replace(effect, p_bonferroni=float(one), p_holm=float(two), p_benjamini_hochberg=float(three))
        for effect, (one, two, three) in zip(effects, adjusted_p, strict=True)
    ]
    return Measurement(
        experiment.control, daily, check_sample_ratio(experiment), tuple(effects), tuple(dict.fromkeys(notes))
    )


def _effect(
    experiment: Experiment, metric: MetricSeries, variant: str, daily: bool, planned: int, notes: list[Note]
) -> MetricEffect:
    arms = (experiment.variant == experiment.control, experiment.variant == variant)
    _require_customers(metric, arms, notes)
    outcomes = _series(experiment, metric, arms)
    _require_spread(metric, outcomes)
    control, treatment = moments_of(outcomes)
    raw = effect_of(control, treatment, planned)
    cuped, removed, balance, shared, told = None, None, None, 0.0, outcomes
    if metric.before is not None:
        before = _series(experiment, replace(metric, values=metric.before, denominator=None), arms)
        adjusted = adjusted_for_before(outcomes, before)
        if adjusted is None:
            text = f"{metric.name}: the pre-period is the same for all customers, so it explains nothing"
            notes.append(Note(text, f"{metric.name}：所有客户的实验前数据都相同，无法用于校正"))
        else:
            removed = adjusted.variance_removed
            if removed > EXPLAINS_ALL:
                raise DataError(
                    f"the pre-period explains {metric.name} entirely, so it is no pre-period",
                    where="--pre",
                    allowed="what was measured before the exposure",
                    hint="name another column",
                )
            shared, told = adjusted.shared_variance, adjusted.outcomes
            cuped = effect_of(*moments_of(told), planned, shared)
            balance = welch(*moments_of(before))
    _require_even_tails(metric, variant, told, notes)
    effect = MetricEffect(
        metric.name,
        variant,
        control.n,
        treatment.n,
        control.mean,
        treatment.mean,
        raw,
        cuped,
        removed,
        balance,
        chances(*moments_of(told), has_relative(*moments_of(told)), shared),
        (cuped or raw).at(daily)[0].p_value,
    )
    return _with_segments(experiment, metric, effect, daily, planned) if experiment.segments else effect


def effect_of(
    control: ArmMoments, treatment: ArmMoments, planned: int = PLANNED, shared: float = 0.0
) -> EffectEstimate:
    """The difference of two arms, absolute and relative, for one look and for every look; `shared` as in `estimate`."""
    told = has_relative(control, treatment)
    return EffectEstimate(
        welch(control, treatment),
        welch(control, treatment, relative=True, shared=shared) if told else None,
        confidence_sequence(control, treatment, planned=planned),
        confidence_sequence(control, treatment, relative=True, planned=planned, shared=shared) if told else None,
    )


def _require_customers(metric: MetricSeries, arms: tuple[NDArray[np.bool_], ...], notes: list[Note]) -> None:
    """Refuse a metric that one customer or none decides; note one that few decide."""
    inside = arms[0] | arms[1]
    if metric.denominator is not None and not all(metric.denominator[arm].sum() > 0 for arm in arms):
        raise DataError(
            f"the denominator of {metric.name} is 0 in an arm, so there is no ratio",
            where="--denominator",
            hint="choose another denominator, or a longer window",
        )
    parts = [metric.values] if metric.denominator is None else [metric.values, metric.denominator]
    active = 0
    for values in parts:
        _, counts = np.unique(values[inside], return_counts=True)
        active = max(active, int(inside.sum() - counts.max()))
    if active < 2:
        raise DataError(
            f"{metric.name} rests on {'one customer' if active else 'nobody'}: all others have the same value",
            got=f"{active} of {int(inside.sum()):,} customers",
            allowed="at least 2 customers with another value than the others, and about "
            f"{FEW_ACTIVE} for an interval that can be relied on",
            hint="choose a metric that more customers have, or a longer window",
        )
    if active < FEW_ACTIVE:
        text = f"{metric.name}: only {active} customers have another value than the others, so its intervals are rough"
        notes.append(Note(text, f"{metric.name}：只有 {active} 位客户的取值与其他人不同，区间只能作粗略参考"))


def _require_spread(metric: MetricSeries, outcomes: tuple[Series, Series]) -> None:
    scale = max(float(np.abs(one).max()) for one in outcomes)
    if max(float(np.ptp(one)) for one in outcomes) <= SAME * scale:
        raise DataError(
            f"{metric.name} is the same for all customers, so nothing tells how far chance reaches",
            got=f"{float(outcomes[0].mean()):g} for each",
            hint="choose another metric or denominator",
        )


def _require_even_tails(metric: MetricSeries, variant: str, outcomes: tuple[Series, Series], notes: list[Note]) -> None:
    """Refuse a difference that a small arm with a few large values decides; note one that is near to it."""
    sizes = (len(outcomes[0]), len(outcomes[1]))
    skewness = skewness_of_difference(skewness_of(outcomes), *sizes)
    least = min(sizes)
    if skewness > MAX_SKEWNESS:
        enough = math.ceil(least * (skewness / MAX_SKEWNESS) ** 2)
        raise DataError(
            f"a few customers with large values decide {metric.name}, and the smaller arm has too few customers for "
            "them: its intervals would miss the truth far more often than they say",
            where=f"{metric.name} of {variant}",
            got=f"arms of {sizes[0]:,} and {sizes[1]:,} customers, skewness of the difference {skewness:.2f}",
            allowed=f"at most {MAX_SKEWNESS:g}: about {enough:,} customers in the smaller arm, or arms of one size",
            hint="measure whether customers buy (--outcome order, or a yes or no), wait for more customers, or hold a "
            "larger part out",
        )
    if skewness > NOTED_SKEWNESS:
        notes.append(
            Note(
                f"{metric.name}: the smaller arm has {least:,} customers and a few have large values, so the intervals "
                "miss the truth in up to one of seven experiments, not in one of twenty",
                f"{metric.name}：较小的一组只有 {least:,} 位客户，且少数客户数值很大；"
                "区间未覆盖真值的概率可达七分之一，而不是二十分之一",
            )
        )


def _series(experiment: Experiment, metric: MetricSeries, arms: tuple[NDArray[np.bool_], ...]) -> tuple[Series, Series]:
    """One value per customer of the control and of the treatment, whose mean is that of the metric."""
    weight = None if experiment.propensity is None else 1.0 / experiment.propensity
    found = []
    for arm in arms:
        values = metric.values[arm]
        if weight is None and metric.denominator is None:
            found.append(values)
            continue
        own = np.ones(len(values)) if weight is None else weight[arm]
        per = np.ones(len(values)) if metric.denominator is None else metric.denominator[arm]
        found.append(linearised(own * values, own * per))
    return found[0], found[1]


def _with_segments(
    experiment: Experiment, metric: MetricSeries, effect: MetricEffect, daily: bool, planned: int
) -> MetricEffect:
    """The effect in each part of each segment, and whether the parts differ; corrected over all of them."""
    segments: list[SegmentEffect] = []
    interactions: list[Interaction] = []
    for name, values in experiment.segments.items():
        parts = []
        for value in np.unique(values).tolist():
            arms = tuple(
                (experiment.variant == arm) & (values == value) for arm in (experiment.control, effect.variant)
            )
            sizes = [int(arm.sum()) for arm in arms]
            parts.append((value, sizes, _difference_in(experiment, metric, arms, daily, planned, effect.cuped)))
        told = [(difference.value, difference.standard_error) for _, _, difference in parts if difference]
        segments += [SegmentEffect(name, value, sizes[0], sizes[1], difference) for value, sizes, difference in parts]
        if len(told) > 1:
            interactions.append(interaction(name, told))
    own = [one for one in segments if one.difference is not None]
    adjusted_p = iter(holm([one.difference.p_value for one in own if one.difference]))
    segments = [replace(one, p_holm=float(next(adjusted_p))) if one.difference else one for one in segments]
    tests = holm([one.p_value for one in interactions])
    interactions = [replace(one, p_holm=float(p)) for one, p in zip(interactions, tests, strict=True)]
    return replace(effect, segments=tuple(segments), interactions=tuple(interactions))


def _difference_in(
    experiment: Experiment,
    metric: MetricSeries,
    arms: tuple[NDArray[np.bool_], ...],
    daily: bool,
    planned: int,
    cuped: EffectEstimate | None,
) -> Difference | None:
    """The absolute difference within a segment; None where it has too few customers or they are all alike."""
    if min(int(arm.sum()) for arm in arms) < MIN_CUSTOMERS:
        return None
    if metric.denominator is not None and not all(metric.denominator[arm].sum() > 0 for arm in arms):
        return None
    outcomes = _series(experiment, metric, arms)
    if cuped is not None and metric.before is not None:
        before = _series(experiment, replace(metric, values=metric.before, denominator=None), arms)
        if (adjusted := adjusted_for_before(outcomes, before)) is not None:
            outcomes = adjusted.outcomes
    control, treatment = moments_of(outcomes)
    if control.variance + treatment.variance <= 0:
        return None
    if skewness_of_difference(skewness_of(outcomes), control.n, treatment.n) > MAX_SKEWNESS:
        return None
    return confidence_sequence(control, treatment, planned=planned) if daily else welch(control, treatment)
