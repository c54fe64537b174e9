"""`EvalReport`: metrics of a model and its baselines on the test period, with the verdict of the gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % confidence interval over n users or customers."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


Metrics = Mapping[str, Metric]


@dataclass(frozen=True)
class TaskSummary:
    """One task of a job in the test period: what ships beside the other candidates measured there.

    Attributes
    ----------
    task, model, metric : str
        The task, the candidate that ships, and the metric by which it was chosen (``ndcg@10``).
    value : Metric
        Of the candidate that ships.
    other, other_value, ahead_of_other
        The best of the other candidates, its value, and the paired difference.
    simplest, simplest_value
        The simplest candidate and its value.
    reason : str
        Why the candidate ships.
    """

    task: str
    model: str
    metric: str
    value: Metric
    other: str
    other_value: Metric
    ahead_of_other: Metric
    simplest: str
    simplest_value: Metric
    reason: str


@dataclass(frozen=True)
class EvalReport:
    """The evaluation of one fit on the held-out test period.

    Attributes
    ----------
    metrics : mapping of str to Metric
        Metrics of the model.
    baselines : mapping of str to mapping of str to Metric
        Metrics of each baseline on the same users.
    differences : mapping of str to Metric
        Paired difference model − baseline, named ``metric:baseline``.
    slices : mapping of str to mapping of str to Metric
        Metrics of groups of users, and of parts of the model.
    passed : bool
        Verdict of the gate.
    reasons : tuple of str
        Reasons of the gate.
    notes : tuple of str
        What a reader must know of the data: attributes that are left out, or that alone predict as well as the model.
    tasks : tuple of TaskSummary
        For a job of several tasks, each of them.
    objections : tuple of str
        What forbids the registration whatever the metrics say, such as a failed placebo test.
    """

    metrics: Metrics
    baselines: Mapping[str, Metrics]
    differences: Metrics = field(default_factory=dict)
    slices: Mapping[str, Metrics] = field(default_factory=dict)
    passed: bool = False
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tasks: tuple[TaskSummary, ...] = ()
    objections: tuple[str, ...] = ()

    def with_verdict(self, passed: bool, reasons: tuple[str, ...]) -> EvalReport:
        """The same report with the gate's verdict."""
        return replace(self, passed=passed, reasons=reasons)

    def summary(self) -> dict[str, Any]:
        """What a bundle keeps of the report, in its facts: metrics, baselines and slices, each value with its interval.

        A value is ``[value, low, high, n]`` with four significant digits, so that the whole takes a few kilobytes; what
        could not be computed is None.
        """

        def digits(value: float) -> float | None:
            return float(f"{value:.4g}") if math.isfinite(value) else None

        def short(metrics: Metrics) -> dict[str, list[float | None]]:
            return {
                name: [digits(metric.value), digits(metric.low), digits(metric.high), metric.n]
                for name, metric in metrics.items()
            }

        return {
            "metrics": short(self.metrics),
            "baselines": {name: short(metrics) for name, metrics in self.baselines.items()},
            "slices": {name: short(metrics) for name, metrics in self.slices.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""

        def plain(metrics: Metrics) -> dict[str, Any]:
            return {name: dict(metric.__dict__) for name, metric in metrics.items()}

        return {
            "metrics": plain(self.metrics),
            "baselines": {name: plain(metrics) for name, metrics in self.baselines.items()},
            "differences": plain(self.differences),
            "slices": {name: plain(metrics) for name, metrics in self.slices.items()},
            "passed": self.passed,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "tasks": [asdict(task) for task in self.tasks],
            "objections": list(self.objections),
        }
