"""The rules of the gate: a model is promoted only when it beats its baselines on the held-out test period."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from training.report import EvalReport


@dataclass(frozen=True)
class GateRule:
    """A condition on one paired difference between the model and a baseline.

    Attributes
    ----------
    difference : str
        Key of `EvalReport.differences`.
    higher_is_better : bool
        False for losses and errors.
    require_improvement : bool
        True: the whole interval must be an improvement. False: the interval must not lie entirely on the worse side.
    """

    difference: str
    higher_is_better: bool = True
    require_improvement: bool = True


def apply_gate(report: EvalReport, rules: Sequence[GateRule]) -> EvalReport:
    """The report with `passed` set; its `reasons` are the objections and the rules that failed, or else all rules."""
    passed: list[str] = []
    failed: list[str] = list(report.objections)
    for rule in rules:
        found = report.differences[rule.difference]
        sign = 1.0 if rule.higher_is_better else -1.0
        worst, best = sorted((sign * found.low, sign * found.high))
        metric, baseline = rule.difference.split(":", 1)
        text = f"{metric} minus that of {baseline} is {found}"
        # a difference that was not measured, or whose interval is not finite, fails
        is_finite = all(map(math.isfinite, (found.value, found.low, found.high)))
        if is_finite and (worst > 0 if rule.require_improvement else best >= 0):
            verdict = "beats" if rule.require_improvement else "is not worse than"
            passed.append(f"{text}: the model {verdict} the baseline")
        else:
            failed.append(f"{text}: the model does not beat the baseline")
    return report.with_verdict(not failed, tuple(failed or passed))
