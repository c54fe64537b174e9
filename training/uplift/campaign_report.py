"""The report of `train uplift`: metrics beside baselines, what is assumed, and why a model may not be registered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from features.campaigns import Arms
from training.gate import GateRule
from training.report import EvalReport, Metric, Metrics
from training.uplift.choice import AT_RANDOM, GAIN, RESPONSE, SHIPS, UpliftEvaluation
from training.uplift.outcomes import outcome_words
from training.uplift.overlap import Overlap
from training.uplift.placebo import Placebo

REGRESSION = "linear T-learner"  # two regressions, one an arm: what is done without a library
RULES = (GateRule(f"{GAIN}:{AT_RANDOM}"), GateRule(f"{GAIN}:{RESPONSE}", require_improvement=False))
ASSUMPTIONS = (
    "nobody was held out at random. The effect is that of the contact only if (1) nothing but the features of the "
    "profiles decided both who was contacted and what they did, (2) every compared customer could have been in either "
    "arm, and (3) the contact of one customer changes nothing for another. Data cannot prove the first: hold out a "
    "tenth of the next campaign at random"
)


def report_of(
    evaluation: UpliftEvaluation, placebo: Placebo, overlap: Overlap | None, notes: Sequence[str]
) -> EvalReport:
    """The report, with the objections that forbid the registration."""
    effect, learners = evaluation.effect, evaluation.learners
    metrics = {**learners[SHIPS], "average effect": Metric(effect.value, effect.low, effect.high, effect.n)}
    baselines = {name: learners[name] for name in (AT_RANDOM, RESPONSE, REGRESSION) if name in learners}
    differences = {
        f"{GAIN}:{AT_RANDOM}": learners[SHIPS][GAIN],
        f"{GAIN}:{RESPONSE}": evaluation.gain_over_response,
    }
    slices: dict[str, Metrics] = {f"decile {one.decile}": {"uplift": one.observed} for one in evaluation.deciles}
    slices |= {name: values for name, values in learners.items() if name not in (SHIPS, *baselines)}
    return EvalReport(
        metrics,
        baselines,
        differences,
        slices,
        notes=(
            *notes,
            _sizes_note(evaluation),
            f"{evaluation.harmed_share:.0%} of the customers have a negative uplift",
        ),
        objections=tuple(_objections(evaluation, placebo, overlap)),
    )


def _objections(evaluation: UpliftEvaluation, placebo: Placebo, overlap: Overlap | None) -> list[str]:
    found = []
    if not evaluation.usable:
        found.append(f"{evaluation.reason}. {enough(evaluation)}")
    if placebo.passed is False or (placebo.passed is None and overlap is not None):
        found.append(str(placebo))
    return found


def enough(evaluation: UpliftEvaluation) -> str:
    """How many customers would be enough to tell a gain from chance.

    An interval shrinks with the square root of the number of customers.
    """
    gain, n = evaluation.learners[SHIPS][GAIN], evaluation.n
    width = (gain.high - gain.low) / 2.0
    if gain.value > 0 and width > gain.value:
        needed = math.ceil(n * (width / gain.value) ** 2)
        return f"If the gain is as large as found, about {needed:,} customers instead of {n:,} would be enough"
    other = evaluation.learners[REGRESSION][GAIN]  # a constant effect has a gain of 0 without an interval
    least = (other.high - other.low) / 2.0
    return f"{n:,} customers are enough for a gain of about {least:.2g} a customer; for half of it, {4 * n:,} would be"


def _sizes_note(evaluation: UpliftEvaluation) -> str:
    effect = evaluation.effect
    counts = ", ".join(f"{name} {count}" for name, count in sorted(evaluation.chosen_in_splits.items()))
    return (
        f"average effect of the contact {effect.value:+.4g} [{effect.low:+.4g}, {effect.high:+.4g}] over {effect.n:,} "
        f"customers; {evaluation.chosen} ships (chosen in {evaluation.splits} splits: {counts})"
    )


def facts_of(
    arms: Sequence[Arms],
    evaluation: UpliftEvaluation,
    placebo: Placebo,
    overlap: Overlap | None,
    outcome: str,
    horizon: int,
) -> dict[str, Any]:
    """What the bundle keeps of the campaigns and the evaluation, for answers and lists."""
    channels = {one.campaign.channel for one in arms}
    return {
        "campaign": [one.campaign.campaign_id for one in arms],
        "channel": channels.pop() if len(channels) == 1 else None,
        "first_contact": [one.as_of.isoformat() for one in arms],
        "outcome": outcome,
        "outcome_words": outcome_words(outcome),
        "horizon_days": horizon,
        "randomised": arms[0].campaign.is_randomised,
        "contacted": sum(len(one.contacted) for one in arms),
        "held_out": sum(len(one.held_out) for one in arms),
        "learner": evaluation.chosen,
        "effect": evaluation.effect.as_dict(),
        "usable": evaluation.usable,
        "reason": evaluation.reason,
        "harmed_share": round(evaluation.harmed_share, 4),
        "placebo": placebo.facts(),
        "overlap": None if overlap is None else overlap.facts(),
        "policy": [
            {
                "budget_share": point.budget_share,
                **{
                    name: getattr(point.gain, field)
                    for name, field in (("gain", "value"), ("low", "low"), ("high", "high"))
                },
            }
            for point in evaluation.policy
        ],
    }
