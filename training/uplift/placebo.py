"""The placebo test: a contact has no effect on the time before it.

The same arms are compared by the outcome of an equally long time before the first contact, with profiles of before
that time. An effect there is no effect of the contact: it shows that something which the profiles do not tell decided
who was contacted. The test is strict: who was chosen by what they did in these very weeks fails it, although the
profiles at the first contact know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from features.campaigns import Arms
from features.compute.spec import FeatureSpec
from qianmian.errors import DataError
from training.jobs.base import TrainingContext
from training.uplift.campaign_rows import placebo_rows, stacked
from training.uplift.campaign_trial import campaign_trial
from training.uplift.effect import Effect, average_effect
from training.uplift.trial import check

# standard errors from 0 above which an effect is no chance: 95 % where nobody was held out at random. Where somebody
# was, chance alone must not refuse one campaign of twenty: 99.9 %, as for the shares of the arms of an experiment
MOST_OBSERVATIONAL, MOST_RANDOMISED = 1.96, 3.29


@dataclass(frozen=True)
class Placebo:
    """The result of the test.

    Attributes
    ----------
    passed : bool or None
        Whether the effect before the contact is compatible with 0; None if it cannot be told.
    effect : Effect or None
        The average effect before the contact.
    reason : str
        Why it cannot be told, or empty.
    """

    passed: bool | None
    effect: Effect | None = None
    reason: str = ""

    def facts(self) -> dict[str, Any]:
        """The figures that a bundle keeps."""
        return {
            "passed": self.passed,
            "effect": None if self.effect is None else self.effect.as_dict(),
            "reason": self.reason,
        }

    def __str__(self) -> str:
        if self.effect is None:
            return f"placebo test: not possible, {self.reason}"
        words = "passed" if self.passed else "failed: the estimate cannot be trusted"
        if self.passed and not self.effect.low <= 0.0 <= self.effect.high:
            words += ", within chance at 99.9 %"  # of a randomised campaign
        effect = f"{self.effect.value:+.4g} [{self.effect.low:+.4g}, {self.effect.high:+.4g}]"
        return f"placebo test {words}; the effect on the same time before the first contact is {effect}"


def placebo_test(
    context: TrainingContext, arms: Sequence[Arms], spec: FeatureSpec, outcome: str, horizon: int
) -> Placebo:
    """Estimate the effect of contacts on the `horizon` days before them."""
    before = min(one.as_of for one in arms) - timedelta(days=horizon)
    known = (before - context.history_start("transactions", "events")).days
    if known < horizon:
        return Placebo(
            None,
            reason=f"the history has {max(known, 0)} days before {before:%Y-%m-%d}, and {horizon} would be enough",
        )
    rows = stacked([placebo_rows(context, one, spec, outcome, horizon) for one in arms])
    randomised, seed = arms[0].campaign.is_randomised, context.settings.seed
    try:
        trial = campaign_trial(rows, spec, seed, randomised=randomised).trial
        check(trial)
    except DataError as error:  # such as an outcome that nobody had then
        return Placebo(None, reason=error.message)
    effect = average_effect(trial, seed)
    most = MOST_RANDOMISED if randomised else MOST_OBSERVATIONAL
    return Placebo(abs(effect.value) <= most * effect.standard_error, effect)
