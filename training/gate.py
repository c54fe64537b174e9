"""The gate: a model is registered only when it beats its baseline on users and days it never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from training.report import EvalReport


@dataclass(frozen=True)
class GateRule:
    """A paired difference that must hold.

    Attributes
    ----------
    difference : str
        Key of `EvalReport.differences`.
    higher_is_better : bool
        The sign an improvement has.
    require_improvement : bool
        True: the whole interval is an improvement. False: the interval is not wholly a loss.
    """

    difference: str
    higher_is_better: bool = True
    require_improvement: bool = True


def apply_gate(report: EvalReport, rules: Sequence[GateRule]) -> EvalReport:
    """The report with `passed` and one reason a rule that failed (or all that held)."""
    held: list[str] = []
    failed: list[str] = []
    for rule in rules:
        found = report.differences[rule.difference]
        sign = 1.0 if rule.higher_is_better else -1.0
        worst, best = sorted((sign * found.low, sign * found.high))
        metric, baseline = rule.difference.split(":", 1)
        text = f"{metric} minus that of {baseline}: {found}"
        # a difference that could not be measured, or whose interval has an open end, does not pass
        is_finite = all(map(math.isfinite, (found.value, found.low, found.high)))
        good = is_finite and (worst > 0 if rule.require_improvement else best >= 0)
        (held if good else failed).append(
            f"{text} {'beats it' if rule.require_improvement else 'is not behind it'}"
            if good
            else f"{text} does not beat it"
        )
    return report.with_verdict(not failed, tuple(failed or held))
