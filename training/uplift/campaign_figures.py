"""Figures of `train uplift` on campaigns: those of every uplift model, gain at budgets, overlap, balance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from training.report import Metric
from training.uplift.choice import UpliftEvaluation
from training.uplift.figures import figures
from training.uplift.overlap import BALANCED, HIGHEST, LOWEST, Overlap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_FEATURES = 20  # of the balance, those that differ most


def campaign_figures(evaluation: UpliftEvaluation, overlap: Overlap | None, unit: str) -> dict[str, Figure]:
    """File name → figure; `unit` is the outcome in words."""
    made = {**figures(evaluation, unit), "policy.png": policy(evaluation, unit)}
    if overlap is not None:
        made |= {"overlap.png": overlap_figure(overlap), "balance.png": balance(overlap)}
    return made


def policy(evaluation: UpliftEvaluation, unit: str) -> Figure:
    """What choosing by uplift brings more than choosing at random, at each budget."""
    figure, axes = _axes("customers contacted, %", f"further {unit}, of all customers", "Uplift: gain over random")
    x = [100.0 * point.budget_share for point in evaluation.policy]
    _band(axes, x, [point.over_random for point in evaluation.policy], "by uplift minus at random")
    axes.axhline(0.0, color="black", linewidth=0.5)
    axes.legend(frameon=False)
    return figure


def overlap_figure(overlap: Overlap) -> Figure:
    """How many customers of each arm had which estimated probability of being contacted."""
    figure, axes = _axes("estimated probability of being contacted", "customers", "Uplift: overlap of the arms")
    bins = np.linspace(0.0, 1.0, 41)
    for name, arm in (("contacted", overlap.treated), ("not contacted", ~overlap.treated)):
        axes.hist(overlap.propensity[arm], bins=bins.tolist(), alpha=0.5, label=f"{name} ({int(arm.sum()):,})")
    for place, bound in enumerate((LOWEST, HIGHEST)):
        label = f"compared: {overlap.kept_share:.0%} of the customers" if place == 0 else None
        axes.axvline(bound, color="black", linestyle="--", linewidth=1, label=label)
    axes.legend(frameon=False)
    return figure


def balance(overlap: Overlap) -> Figure:
    """Standardised differences of the features that differ most, before and after weighting."""
    names = sorted(overlap.before, key=lambda name: overlap.before[name])[-MOST_FEATURES:]
    figure = Figure(figsize=(7, 0.28 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots()
    for label, values, marker in (("all customers", overlap.before, "o"), ("compared, weighted", overlap.after, "s")):
        axes.scatter([values[name] for name in names], names, marker=marker, label=label)
    axes.axvline(BALANCED, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="difference of the arms, standard deviations", title="Uplift: balance of the arms", xlim=(0, None))
    axes.grid(alpha=0.3, axis="x")
    axes.legend(frameon=False)
    return figure


def _axes(x_label: str, y_label: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def _band(axes: Axes, x: Sequence[float], values: Sequence[Metric], label: str) -> None:
    axes.fill_between(x, [one.low for one in values], [one.high for one in values], alpha=0.2)
    axes.plot(x, [one.value for one in values], marker="o", markersize=3, label=f"{label}, 95 % interval")
