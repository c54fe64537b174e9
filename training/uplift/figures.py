"""Figures of an uplift evaluation: the Qini curve with its interval, and predicted against observed uplift."""

from __future__ import annotations

from matplotlib.figure import Figure

from training.uplift.choice import UpliftEvaluation


def figures(evaluation: UpliftEvaluation, outcome: str) -> dict[str, Figure]:
    """File name → figure; `outcome` is the name of what is to be raised."""
    return {"qini.png": qini(evaluation, outcome), "deciles.png": deciles(evaluation, outcome)}


def qini(evaluation: UpliftEvaluation, outcome: str) -> Figure:
    """What contacting a share of the customers brings, by predicted uplift and at random, with 95 % intervals."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    shares = [100 * one.budget_share for one in evaluation.curve]
    low, high = ([getattr(one.gain, bound) for one in evaluation.curve] for bound in ("low", "high"))
    axes.fill_between(shares, low, high, alpha=0.2, label="95 % interval")
    axes.plot(shares, [one.gain.value for one in evaluation.curve], marker="o", markersize=3, label="by uplift")
    at_random = [one.at_random.value for one in evaluation.curve]
    axes.plot(shares, at_random, color="grey", linewidth=1, linestyle="--", label="at random")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(
        xlabel="customers contacted, %",
        ylabel=f"further {outcome} per customer of all",
        title=f"Qini curve, {evaluation.n:,} customers, {evaluation.splits} splits",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def deciles(evaluation: UpliftEvaluation, outcome: str) -> Figure:
    """Predicted and observed uplift by tenth of the customers, the highest predictions first."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    x = [one.decile for one in evaluation.deciles]
    observed = [one.observed for one in evaluation.deciles]
    errors = [[one.value - one.low for one in observed], [one.high - one.value for one in observed]]
    axes.errorbar(x, [one.value for one in observed], yerr=errors, marker="s", capsize=2, label="observed")
    axes.plot(x, [one.predicted for one in evaluation.deciles], marker="o", markersize=3, label="predicted")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(
        xlabel="decile of predicted uplift, 1 is the highest", ylabel=f"uplift of {outcome}", title="Uplift by decile"
    )
    axes.set_xticks(x)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
